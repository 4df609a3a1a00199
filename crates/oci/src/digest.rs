//! The hash of exact bytes, written `algorithm:hex`.
//!
//! The grammar of the image spec (`descriptor.md`, Digests) admits any algorithm name; a `Digest` here is stricter:
//! its algorithm is registered and its hex has the length of that algorithm, in lower case. So a `Digest` is always
//! safe as a file name, and can always be checked. Other well-formed digests are refused with
//! [`DigestError::UnsupportedAlgorithm`], which is a different answer than "this is not a digest".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// The longest text that is quoted in an error; a hostile document must not fill a log.
const QUOTED_LENGTH_MAX: usize = 200;

/// A registered hash algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, what everyone uses.
    Sha256,
    /// SHA-512.
    Sha512,
    /// BLAKE3 with 256 bits.
    Blake3,
}

impl Algorithm {
    /// All algorithms, the usual one first.
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];

    /// The name before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
            Algorithm::Blake3 => "blake3",
        }
    }

    /// How many hex digits follow the colon.
    pub const fn hex_length(self) -> usize {
        match self {
            Algorithm::Sha256 | Algorithm::Blake3 => 64,
            Algorithm::Sha512 => 128,
        }
    }

    /// The algorithm of that name, if it is registered.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not of the form `algorithm:hex`, or hex in upper case.
    #[error("invalid digest, expected `algorithm:hex` in lower case: `{text}`")]
    Format {
        /// The text as given, shortened.
        text: String,
    },
    /// The right form, but too few or too many digits for its algorithm.
    #[error("invalid digest, `{algorithm}` has {expected} hex digits, found {actual}: `{text}`")]
    Length {
        /// The algorithm that was named.
        algorithm: Algorithm,
        /// Digits that the algorithm has.
        expected: usize,
        /// Digits that were given.
        actual: usize,
        /// The text as given, shortened.
        text: String,
    },
    /// A well-formed digest of an algorithm that is not known here.
    #[error("unsupported digest algorithm: `{algorithm}`")]
    UnsupportedAlgorithm {
        /// The algorithm that was named, shortened.
        algorithm: String,
    },
}

/// The hash of exact bytes: an algorithm and its value in lower-case hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    text: Box<str>,
    algorithm: Algorithm,
}

impl Digest {
    /// Reads `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        let format = || DigestError::Format { text: shorten(text) };
        let (name, hex) = text.split_once(':').ok_or_else(format)?;
        if hex.is_empty() {
            return Err(format());
        }
        let Some(algorithm) = Algorithm::parse(name) else {
            return Err(if is_algorithm_name(name) && hex.bytes().all(is_encoded_byte) {
                DigestError::UnsupportedAlgorithm { algorithm: shorten(name) }
            } else {
                format()
            });
        };
        if hex.len() != algorithm.hex_length() {
            return Err(DigestError::Length {
                algorithm,
                expected: algorithm.hex_length(),
                actual: hex.len(),
                text: shorten(text),
            });
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format());
        }
        Ok(Digest { text: text.into(), algorithm })
    }

    /// The SHA-256 digest of these bytes.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::from_sha256(Sha256::digest(bytes).into())
    }

    /// The SHA-512 digest of these bytes.
    pub fn sha512(bytes: &[u8]) -> Digest {
        Digest::from_sha512(Sha512::digest(bytes).into())
    }

    /// The digest with this SHA-256 value.
    pub fn from_sha256(value: [u8; 32]) -> Digest {
        Digest::from_value(Algorithm::Sha256, &value)
    }

    /// The digest with this SHA-512 value.
    pub fn from_sha512(value: [u8; 64]) -> Digest {
        Digest::from_value(Algorithm::Sha512, &value)
    }

    /// The digest with this BLAKE3 value.
    pub fn from_blake3(value: [u8; 32]) -> Digest {
        Digest::from_value(Algorithm::Blake3, &value)
    }

    fn from_value(algorithm: Algorithm, value: &[u8]) -> Digest {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(algorithm.name().len() + 1 + value.len() * 2);
        text.push_str(algorithm.name());
        text.push(':');
        for byte in value {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        Digest { text: text.into(), algorithm }
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex digits after the colon.
    pub fn hex(&self) -> &str {
        // Both constructors wrote the name and a colon in front.
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The first twelve hex digits, as tables show them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether these bytes have this digest; `None` for BLAKE3, which this room cannot compute.
    pub fn matches(&self, bytes: &[u8]) -> Option<bool> {
        match self.algorithm {
            Algorithm::Sha256 => Some(*self == Digest::sha256(bytes)),
            Algorithm::Sha512 => Some(*self == Digest::sha512(bytes)),
            Algorithm::Blake3 => None,
        }
    }
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`, the image spec's grammar of an algorithm.
fn is_algorithm_name(name: &str) -> bool {
    name.split(['+', '.', '_', '-']).all(|component| {
        !component.is_empty()
            && component.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// `[a-zA-Z0-9=_-]`, the image spec's grammar of an encoded value.
fn is_encoded_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'_' | b'-')
}

/// The beginning of a text, for an error message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(QUOTED_LENGTH_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hashes_and_reads_back() {
        let digest = Digest::sha256(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest, Digest::parse(EMPTY).unwrap());
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(digest.hex().len(), 64);
        assert_eq!(digest.matches(b""), Some(true));
        assert_eq!(digest.matches(b"x"), Some(false));
        assert_eq!(Digest::sha512(b"a").matches(b"a"), Some(true));
        assert_eq!(Digest::from_blake3([0; 32]).matches(b""), None);
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{EMPTY}\""));
        assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
        assert!(serde_json::from_str::<Digest>("7").is_err());
    }

    fn check(text: &str, expect: &str) {
        let actual = match Digest::parse(text) {
            Ok(digest) => digest.algorithm().name(),
            Err(DigestError::Format { .. }) => "format",
            Err(DigestError::Length { .. }) => "length",
            Err(DigestError::UnsupportedAlgorithm { .. }) => "unsupported",
        };
        assert_eq!(actual, expect, "{text}");
    }

    #[test]
    fn hostile_texts() {
        let hex = "0123456789abcdef".repeat(4);
        check(&format!("sha256:{hex}"), "sha256");
        check(&format!("blake3:{hex}"), "blake3");
        check(&format!("sha512:{hex}{hex}"), "sha512");
        check(&format!("sha512:{hex}"), "length");
        check(&format!("sha384:{hex}"), "unsupported");
        check("sha256+b64:c86f=_-", "unsupported");
        check("multihash+base58:QmRZ", "unsupported");
        check("sha256+foo+-b:c86f", "format");
        check("../../etc:passwd", "format");
        check("md5:../x", "format");
        check("sha256:", "format");
        check(":", "format");
        check("", "format");
        check(&format!("sha256:{}", "é".repeat(32)), "format");
        check(&format!(" sha256:{hex}"), "format");
        check(&format!("sha256:{hex}\n"), "length");
    }

    #[test]
    fn errors_stay_short() {
        let text = "é".repeat(100_000);
        assert!(Digest::parse(&text).unwrap_err().to_string().len() < 600);
    }
}
