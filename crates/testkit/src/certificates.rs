//! An authority of our own, a server's certificate and a client's, as PEM files and as settings of rustls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

use crate::Mica;

/// Certificates that nobody but the test trusts. The files live as long as the value.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// For a server on loopback: `localhost`, `127.0.0.1` and `::1`.
    pub fn new() -> Certificates {
        Certificates::for_names(&["localhost", "127.0.0.1", "::1"])
    }

    /// For a server of these names: also of wrong ones.
    pub fn for_names(names: &[&str]) -> Certificates {
        let dir = Mica::temporary_dir();
        let write = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).expect("a file of a certificate");
        };
        let mut authority = CertificateParams::new(Vec::new()).expect("an authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "authority of a test");
        let authority_key = KeyPair::generate().expect("a key");
        write("ca.pem", authority.self_signed(&authority_key).expect("an authority").pem());
        let issuer = Issuer::new(authority, authority_key);

        let make = |file: &str, names: &[&str], usage| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).expect("names of a certificate");
            params.distinguished_name.push(DnType::CommonName, file);
            params.extended_key_usages.push(usage);
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate().expect("a key");
            write(&format!("{file}.pem"), params.signed_by(&key, &issuer).expect("a certificate").pem());
            write(&format!("{file}.key"), key.serialize_pem());
        };
        make("server", names, ExtendedKeyUsagePurpose::ServerAuth);
        make("client", &["client.test"], ExtendedKeyUsagePurpose::ClientAuth);
        Certificates { dir }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// The server's certificate.
    pub fn server(&self) -> PathBuf {
        self.file("server.pem")
    }

    /// The server's key.
    pub fn server_key(&self) -> PathBuf {
        self.file("server.key")
    }

    /// A client's certificate, of the same authority.
    pub fn client(&self) -> PathBuf {
        self.file("client.pem")
    }

    /// The client's key.
    pub fn client_key(&self) -> PathBuf {
        self.file("client.key")
    }

    /// What a server of ours speaks TLS with; `ask` for it insists on a client's certificate.
    pub fn server_config(&self, ask: bool) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().expect("versions of TLS");
        let builder = if ask {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(chain(&self.server()), key(&self.server_key()));
        Arc::new(config.expect("a certificate that fits its key"))
    }

    /// What a client that trusts the authority and shows the client's certificate speaks TLS with.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().expect("versions of TLS");
        let config = builder
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain(&self.client()), key(&self.client_key()));
        Arc::new(config.expect("a certificate that fits its key"))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for certificate in chain(&self.authority()) {
            roots.add(certificate).expect("an authority");
        }
        roots
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Default for Certificates {
    fn default() -> Certificates {
        Certificates::new()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn chain(file: &Path) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_file_iter(file).expect("a file of certificates");
    certificates.map(|certificate| certificate.expect("a certificate")).collect()
}

fn key(file: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(file).expect("a key")
}
