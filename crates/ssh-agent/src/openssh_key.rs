//! Private keys as OpenSSH keeps them (its PROTOCOL.key).

use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

use crate::error::KeyProblem;
use crate::modulus::remainder_below;
use crate::private_key::{Curve, PrivateKey, Signer};
use crate::reader::Reader;

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// The key in a file of one.
pub(crate) fn parse(bytes: &[u8]) -> Result<PrivateKey, KeyProblem> {
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(KeyProblem::NotAKey)?);
    let header = (|| {
        let cipher = reader.string()?;
        let _derivation = (reader.string()?, reader.string()?);
        Some((cipher, reader.number()?, reader.string()?, reader.string()?))
    })();
    let (cipher, count, public, private) = header.ok_or(KeyProblem::NotAKey)?;
    if cipher != b"none" {
        return Err(KeyProblem::Encrypted);
    }
    if count != 1 {
        return Err(KeyProblem::Unsupported("several keys in one file".to_owned()));
    }
    let mut reader = Reader(private);
    let kind = (|| {
        // The same number twice, by which a wrong passphrase is known.
        (reader.number()? == reader.number()?).then_some(())?;
        reader.string()
    })();
    let kind = kind.ok_or(KeyProblem::NotAKey)?;
    let name = String::from_utf8_lossy(kind).into_owned();
    let signer = match kind {
        b"ssh-ed25519" => ed25519(&mut reader),
        b"ssh-rsa" => rsa(&mut reader),
        b"ecdsa-sha2-nistp256" => ecdsa(&mut reader, Curve::P256),
        b"ecdsa-sha2-nistp384" => ecdsa(&mut reader, Curve::P384),
        _ => return Err(KeyProblem::Unsupported(name)),
    };
    let signer = signer.ok_or(KeyProblem::Unsupported(name))?;
    let comment = reader.string().ok_or(KeyProblem::NotAKey)?;
    Ok(PrivateKey::new(public.to_vec(), String::from_utf8_lossy(comment).into_owned(), signer))
}

fn ed25519(reader: &mut Reader<'_>) -> Option<Signer> {
    let public = reader.string()?;
    let seed = reader.string()?.get(..32)?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public).ok().map(Signer::Ed25519)
}

fn ecdsa(reader: &mut Reader<'_>, curve: Curve) -> Option<Signer> {
    let (_name, public, number) = (reader.string()?, reader.string()?, reader.integer()?);
    // As long as the curve's numbers are.
    let mut private = vec![0; curve.bytes().checked_sub(number.len())?];
    private.extend_from_slice(number);
    let random = ring::rand::SystemRandom::new();
    let key = EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm(), &private, public, &random);
    key.ok().map(|key| Signer::Ecdsa(curve, key))
}

fn rsa(reader: &mut Reader<'_>) -> Option<Signer> {
    let (n, e, d) = (reader.integer()?, reader.integer()?, reader.integer()?);
    let (inverse, p, q) = (reader.integer()?, reader.integer()?, reader.integer()?);
    let (d_p, d_q) = (remainder_below(d, p)?, remainder_below(d, q)?);
    let public_key = PublicKeyComponents { n, e };
    let components = KeyPairComponents { public_key, d, p, q, dP: &d_p, dQ: &d_q, qInv: inverse };
    RsaKeyPair::from_components(&components).ok().map(Signer::Rsa)
}
