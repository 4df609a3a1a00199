//! TLS as settings want it: whom to trust, what to show.
//!
//! Nothing is read for hosts that are plain: the system's authorities are some 150 certificates, and a machine may have none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{HttpError, Result};

/// A client's certificate and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The key; `None` if it stands in the same file.
    pub key: Option<PathBuf>,
}

/// How TLS is spoken with a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Any certificate will do (`insecure`, `skip_verify`).
    pub skip_verify: bool,
    /// PEM files of authorities that are trusted beside those of the system.
    pub authorities: Vec<PathBuf>,
    /// What the client shows of itself.
    pub client_certificates: Vec<ClientCertificate>,
}

/// A file of certificates or a key may be so large; bundles of all authorities have some hundred kilobytes.
const FILE_SIZE_BYTES_MAX: u64 = 16 << 20;

/// What speaks TLS as these settings want it.
pub(crate) fn config(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = protocols(&provider)?;
    let builder = if tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider.clone())))
    } else {
        builder.with_root_certificates(authorities(tls)?)
    };
    let mut config = match identities(tls, &provider)? {
        Some(identities) => builder.with_client_cert_resolver(identities),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// For clients that only speak plain HTTP: trusts nobody, reads nothing.
pub(crate) fn none() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(protocols(&provider)?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn protocols(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Start(error.to_string()))
}

fn authorities(tls: &Tls) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    // Some of the system's are broken on many machines; what counts is that the one that is needed is there.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in &tls.authorities {
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|error| file_error(path, error.to_string()))?;
        }
    }
    if store.is_empty() { Err(HttpError::NoAuthorities) } else { Ok(store) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| file_error(path, error.to_string()))?;
    match certificates.is_empty() {
        true => Err(file_error(path, "no certificate in PEM form in it".to_owned())),
        false => Ok(certificates),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| file_error(path, error.to_string()))?;
    let length = file
        .take(FILE_SIZE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| file_error(path, error.to_string()))?;
    if length as u64 > FILE_SIZE_BYTES_MAX {
        return Err(file_error(path, format!("larger than {FILE_SIZE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn file_error(path: &Path, problem: String) -> HttpError {
    HttpError::TlsFile { path: path.to_owned(), problem }
}

/// Shows the first certificate that the server can use.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // The authorities that a server names are a hint, and often a wrong one: intermediate ones are left out.
        self.0.iter().find(|identity| identity.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

fn identities(tls: &Tls, provider: &CryptoProvider) -> Result<Option<Arc<dyn ResolvesClientCert>>> {
    let mut identities = Vec::new();
    for ClientCertificate { certificate, key } in &tls.client_certificates {
        let key_path = key.as_ref().unwrap_or(certificate);
        let key = PrivateKeyDer::from_pem_slice(&read(key_path)?)
            .map_err(|_| file_error(key_path, "no private key in PEM form in it".to_owned()))?;
        let identity = CertifiedKey::from_der(certificates(certificate)?, key, provider)
            .map_err(|error| file_error(certificate, error.to_string()))?;
        identities.push(Arc::new(identity));
    }
    Ok(match identities.is_empty() {
        true => None,
        false => Some(Arc::new(Identities(identities))),
    })
}

/// `skip_verify`: encrypts, with whomever it is.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
