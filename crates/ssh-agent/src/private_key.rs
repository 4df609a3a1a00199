//! A private key that signs.

use std::fmt;

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair};

use crate::error::KeyProblem;
use crate::reader::{put_integer, put_string};
use crate::{openssh_key, pem};

/// `SSH_AGENT_RSA_SHA2_256` and `SSH_AGENT_RSA_SHA2_512`, the agent draft's flags.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// A private key, its public half, and what people call it.
pub(crate) struct PrivateKey {
    /// The public key as ssh writes it.
    pub public: Vec<u8>,
    /// What its file says of it.
    pub comment: String,
    signer: Signer,
}

/// What signs.
pub(crate) enum Signer {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
}

/// A curve of NIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
        }
    }

    /// Length of its numbers.
    pub fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    pub fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey")
    }
}

impl PrivateKey {
    pub fn new(public: Vec<u8>, comment: String, signer: Signer) -> Self {
        Self { public, comment, signer }
    }

    /// Reads a key file of OpenSSH or OpenSSL.
    pub fn parse(text: &str) -> Result<Self, KeyProblem> {
        let pem = match pem::parse(text) {
            Err(KeyProblem::NotAKey)
                if ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| text.starts_with(kind)) =>
            {
                return Err(KeyProblem::Public);
            }
            other => other?,
        };
        let unsupported = || KeyProblem::Unsupported(pem.label.to_lowercase());
        let signer = match pem.label.as_str() {
            "OPENSSH PRIVATE KEY" => return openssh_key::parse(&pem.bytes),
            "RSA PRIVATE KEY" => {
                RsaKeyPair::from_der(&pem.bytes).map(Signer::Rsa).map_err(|_| unsupported())?
            }
            "PRIVATE KEY" => from_pkcs8(&pem.bytes).ok_or_else(unsupported)?,
            "ENCRYPTED PRIVATE KEY" => return Err(KeyProblem::Encrypted),
            label if label.ends_with("PRIVATE KEY") => return Err(unsupported()),
            label if label.ends_with("PUBLIC KEY") => return Err(KeyProblem::Public),
            _ => return Err(KeyProblem::NotAKey),
        };
        Ok(Self::new(signer.public(), String::new(), signer))
    }

    /// Signs, if the key can do what the flags ask for.
    pub fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let mut blob = Vec::new();
        match &self.signer {
            Signer::Ed25519(key) => {
                put_string(&mut blob, b"ssh-ed25519");
                put_string(&mut blob, key.sign(data).as_ref());
            }
            Signer::Ecdsa(curve, key) => {
                put_string(&mut blob, format!("ecdsa-sha2-{}", curve.name()).as_bytes());
                let signature = key.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at_checked(curve.bytes())?;
                let mut both = Vec::new();
                put_integer(&mut both, r);
                put_integer(&mut both, s);
                put_string(&mut blob, &both);
            }
            Signer::Rsa(key) => {
                let (name, padding): (_, &dyn signature::RsaEncoding) = match flags {
                    _ if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &signature::RSA_PKCS1_SHA512),
                    _ if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &signature::RSA_PKCS1_SHA256),
                    // SHA-1, which nobody takes any more.
                    _ => return None,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, data, &mut signature).ok()?;
                put_string(&mut blob, name.as_bytes());
                put_string(&mut blob, &signature);
            }
        }
        Some(blob)
    }
}

impl Signer {
    /// The public key as ssh writes it.
    fn public(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        match self {
            Self::Ed25519(key) => {
                put_string(&mut blob, b"ssh-ed25519");
                put_string(&mut blob, key.public_key().as_ref());
            }
            Self::Ecdsa(curve, key) => {
                put_string(&mut blob, format!("ecdsa-sha2-{}", curve.name()).as_bytes());
                put_string(&mut blob, curve.name().as_bytes());
                put_string(&mut blob, key.public_key().as_ref());
            }
            Self::Rsa(key) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public());
                put_string(&mut blob, b"ssh-rsa");
                put_integer(&mut blob, &e);
                put_integer(&mut blob, &n);
            }
        }
        blob
    }
}

fn from_pkcs8(der: &[u8]) -> Option<Signer> {
    if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Some(Signer::Ed25519(key));
    }
    if let Ok(key) = RsaKeyPair::from_pkcs8(der) {
        return Some(Signer::Rsa(key));
    }
    let random = SystemRandom::new();
    [Curve::P256, Curve::P384].into_iter().find_map(|curve| {
        let key = EcdsaKeyPair::from_pkcs8(curve.algorithm(), der, &random).ok()?;
        Some(Signer::Ecdsa(curve, key))
    })
}
