//! Advice on copies and on manifest lists.

use mica_image::ListError;
use mica_transfer::{CopyError, PlaceError};

use super::{Advise, advice_on_full_disk, message_with_causes};

const PLACES: &str = "places are `docker://NAME` or `NAME`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` and \
                      `docker-archive:FILE[:NAME]`";

impl Advise for PlaceError {
    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::UnknownScheme { scheme, text } if !text.contains("://") => {
                format!("{PLACES}; an image with the name `{scheme}` is `docker://{text}`")
            }
            Self::UnknownScheme { .. } | Self::NoPath { .. } => PLACES.to_owned(),
            Self::NotThere { path } => format!(
                "say it before the path: `oci:{0}`, `oci-archive:{0}` or `docker-archive:{0}`",
                path.display()
            ),
            Self::Compressed { path } => {
                format!("say it before the path: `oci-archive:{0}` or `docker-archive:{0}`", path.display())
            }
            _ => return None,
        })
    }
}

impl Advise for CopyError {
    fn message(&self) -> String {
        match self {
            Self::Registry(error) => error.message(),
            _ => message_with_causes(self),
        }
    }

    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::Registry(error) => return error.advice(),
            Self::NoSuchImage { .. } | Self::SeveralImages { .. } => {
                "write it after a colon: `oci:DIR:TAG`, `oci-archive:FILE:TAG`, `docker-archive:FILE:NAME`"
            }
            Self::SeveralManifests { .. } => "copy one of them with `--platform`",
            Self::NoPlatform { .. } => "leave `--platform` out to copy all that there is",
            Self::Missing { .. } => "if only some platforms are there, copy one of them with `--platform`",
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                "the source is damaged or lies: copy from where it came from"
            }
            _ => return advice_on_full_disk(self),
        };
        Some(hint.to_owned())
    }
}

impl Advise for ListError {
    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::Exists { list } => {
                format!("add to it with `--amend`, or remove it first with `mica manifest rm {list}`")
            }
            Self::Missing { .. } => "make one with `mica manifest create LIST IMAGE...`".to_owned(),
            Self::NotPushed { image } => format!("push it first: `mica push {image}`"),
            Self::NoPlatform { image } => {
                format!("say what it is for: `mica manifest annotate --os OS --arch ARCH LIST {image}`")
            }
            Self::NoMember { list, .. } => {
                format!("`mica manifest inspect -v {list}` shows its members under `Ref`")
            }
            Self::Damaged { list, .. } => {
                format!("remove it with `mica manifest rm {list}` and make it again")
            }
            _ => return None,
        };
        Some(hint)
    }
}
