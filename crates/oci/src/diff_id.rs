//! Digests with a meaning: of a layer's tar, of a stack of layers, of an image config.
//!
//! They do not convert into each other; where one really is the other (the chain ID of a single layer equals its diff
//! ID) a function of this file says so.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

macro_rules! digest_newtype {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// Reads `algorithm:hex`.
            pub fn parse(text: &str) -> Result<$name, DigestError> {
                Digest::parse(text).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<$name, DigestError> {
                $name::parse(text)
            }
        }
    };
}

digest_newtype! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}
digest_newtype! {
    /// The digest of a stack of layers, lowest first (image spec, `config.md`, Layer ChainID).
    ChainId
}
digest_newtype! {
    /// The digest of an image config's bytes.
    ImageId
}

impl ChainId {
    /// The chain ID of a stack of one layer, which has its diff ID as value.
    pub fn of_first(diff_id: &DiffId) -> ChainId {
        ChainId(diff_id.0.clone())
    }

    /// The chain ID of this stack with one more layer on top.
    pub fn with(&self, diff_id: &DiffId) -> ChainId {
        ChainId(Digest::sha256(format!("{self} {diff_id}").as_bytes()))
    }
}

/// The chain ID of the whole stack, lowest layer first; an image without layers has none.
pub fn chain_id(diff_ids: &[DiffId]) -> Option<ChainId> {
    let (first, others) = diff_ids.split_first()?;
    Some(others.iter().fold(ChainId::of_first(first), |chain, diff_id| chain.with(diff_id)))
}

/// The chain ID at each height of the stack; as many as there are layers.
pub fn chain_ids(diff_ids: &[DiffId]) -> Vec<ChainId> {
    let mut chain_ids: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain_ids.last() {
            None => ChainId::of_first(diff_id),
            Some(below) => below.with(diff_id),
        };
        chain_ids.push(next);
    }
    chain_ids
}

/// The image ID of an image config with exactly these bytes.
pub fn image_id(config: &[u8]) -> ImageId {
    ImageId(Digest::sha256(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_of_layers() {
        let diff_ids: Vec<DiffId> = (0..3u8).map(|value| DiffId(Digest::from_sha256([value; 32]))).collect();
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&diff_ids[..1]).unwrap().0, diff_ids[0].0);
        let two = Digest::sha256(format!("{} {}", diff_ids[0], diff_ids[1]).as_bytes());
        assert_eq!(chain_id(&diff_ids[..2]).unwrap().0, two);
        let three = Digest::sha256(format!("{two} {}", diff_ids[2]).as_bytes());
        assert_eq!(chain_id(&diff_ids).unwrap().0, three);
        let all = chain_ids(&diff_ids);
        assert_eq!(all.len(), 3);
        assert_eq!(all.last(), chain_id(&diff_ids).as_ref());
    }

    #[test]
    fn order_of_layers_matters() {
        let [a, b] = [1u8, 2].map(|value| DiffId(Digest::from_sha256([value; 32])));
        assert_ne!(chain_id(&[a.clone(), b.clone()]), chain_id(&[b, a]));
    }
}
