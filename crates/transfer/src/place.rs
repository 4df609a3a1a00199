//! Where an image can be copied from and to, in skopeo's words.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mica_layer::members::Members;
use mica_oci::docker_archive::MANIFEST_FILE;
use mica_oci::{Digest, ImageLayout, Reference, ReferenceError};

/// The longest tag of a layout; the image spec gives a grammar but no length.
const LAYOUT_TAG_LENGTH_MAX: usize = 1024;

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `docker://NAME`, or just `NAME`.
    Registry(Reference),
    /// `oci:DIR[:TAG]`.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`.
    LayoutArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:NAME]`.
    DockerArchive(PathBuf, Option<Reference>),
}

/// A text that is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Another tool's way to say where an image is, or nobody's.
    #[error("`{scheme}:` is not a kind of place that mica knows: `{text}`")]
    UnknownScheme {
        /// What stands before the colon.
        scheme: String,
        /// The whole text.
        text: String,
    },
    /// Nothing stands after the scheme.
    #[error("no path after `{scheme}`: `{text}`")]
    NoPath {
        /// The scheme with its colon.
        scheme: &'static str,
        /// The whole text.
        text: String,
    },
    /// A tag that no layout can have.
    #[error("invalid tag of an OCI layout: `{tag}`")]
    InvalidTag {
        /// The tag.
        tag: String,
    },
    /// The name of an image cannot be one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A name in a docker archive has a digest, which `docker load` does not take.
    #[error("a name in a docker archive cannot have a digest: `{name}`")]
    NameWithDigest {
        /// The name.
        name: String,
    },
    /// A path without a scheme has nothing that would tell what it should be.
    #[error("`{}` does not exist, so nothing tells what it should become", path.display())]
    NotThere {
        /// The path.
        path: PathBuf,
    },
    /// A path without a scheme leads to a compressed file, which is not unfolded only to see what it is.
    #[error("`{}` is compressed, so nothing tells what kind of archive it is", path.display())]
    Compressed {
        /// The path.
        path: PathBuf,
    },
    /// A path without a scheme leads to something else.
    #[error("`{}` is neither an OCI layout nor an archive of images", path.display())]
    NotAnImage {
        /// The path.
        path: PathBuf,
    },
    /// A path without a scheme cannot be looked into.
    #[error("cannot read `{}`: {reason}", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// How other tools begin places that mica does not have. Without this list, `dir:x` would be an image of that name.
const FOREIGN_SCHEMES: [&str; 8] =
    ["dir", "docker-daemon", "containers-storage", "containerd", "oci-layout", "ostree", "sif", "tarball"];

impl Place {
    /// Reads a place.
    ///
    /// A text that begins with `/`, `./` or `../` is a path: what lies there tells what it is. Paths end at the first colon,
    /// as skopeo has it.
    pub fn parse(text: &str) -> Result<Place, PlaceError> {
        if is_path(text) {
            return by_content(text);
        }
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Place::Registry(Reference::parse(name)?));
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = split(rest, "oci:", text)?;
            return Ok(Place::Layout(path, layout_tag(tag)?));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = split(rest, "oci-archive:", text)?;
            return Ok(Place::LayoutArchive(path, layout_tag(tag)?));
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, name) = split(rest, "docker-archive:", text)?;
            return Ok(Place::DockerArchive(path, archive_name(name)?));
        }
        let scheme = match (text.split_once("://"), text.split_once(':')) {
            (Some((scheme, _)), _) => Some(scheme),
            (None, Some((scheme, _))) if FOREIGN_SCHEMES.contains(&scheme) => Some(scheme),
            _ => None,
        };
        if let Some(scheme) = scheme {
            let (scheme, text) = (scheme.to_owned(), text.to_owned());
            return Err(PlaceError::UnknownScheme { scheme, text });
        }
        Ok(Place::Registry(Reference::parse(text)?))
    }
}

impl Place {
    /// For errors, which should be small.
    pub(crate) fn boxed(&self) -> Box<Place> {
        Box::new(self.clone())
    }
}

fn is_path(text: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| text.starts_with(start)) || text == "." || text == ".."
}

fn split<'a>(
    rest: &'a str,
    scheme: &'static str,
    text: &str,
) -> Result<(PathBuf, Option<&'a str>), PlaceError> {
    let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    if path.is_empty() {
        return Err(PlaceError::NoPath { scheme, text: text.to_owned() });
    }
    Ok((PathBuf::from(path), tag))
}

/// A tag of a layout: the characters of the image spec's grammar for `org.opencontainers.image.ref.name`.
fn layout_tag(tag: Option<&str>) -> Result<Option<String>, PlaceError> {
    let Some(tag) = tag else { return Ok(None) };
    let is_fine = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:@+/".contains(&byte));
    if tag.is_empty() || tag.len() > LAYOUT_TAG_LENGTH_MAX || !is_fine {
        return Err(PlaceError::InvalidTag { tag: tag.chars().take(LAYOUT_TAG_LENGTH_MAX).collect() });
    }
    Ok(Some(tag.to_owned()))
}

fn archive_name(name: Option<&str>) -> Result<Option<Reference>, PlaceError> {
    let Some(name) = name else { return Ok(None) };
    let reference = Reference::parse(name)?;
    if reference.digest().is_some() {
        return Err(PlaceError::NameWithDigest { name: name.to_owned() });
    }
    Ok(Some(reference.with_default_tag()))
}

/// What lies at a path: all of it is the path if that exists, else what stands before the first colon.
fn by_content(text: &str) -> Result<Place, PlaceError> {
    let whole = Path::new(text);
    let (path, tag) = match text.split_once(':') {
        Some((path, tag)) if !whole.exists() => (Path::new(path), Some(tag)),
        _ => (whole, None),
    };
    let unreadable =
        |error: &dyn fmt::Display| PlaceError::Unreadable { path: path.into(), reason: error.to_string() };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PlaceError::NotThere { path: path.into() });
        }
        found => found.map_err(|error| unreadable(&error))?,
    };
    if metadata.is_dir() {
        let has = |name: &str| path.join(name).symlink_metadata().is_ok();
        return match has(ImageLayout::MARKER_FILE) || has(ImageLayout::INDEX_FILE) {
            true => Ok(Place::Layout(path.into(), layout_tag(tag)?)),
            false => Err(PlaceError::NotAnImage { path: path.into() }),
        };
    }
    if !metadata.is_file() {
        return Err(PlaceError::NotAnImage { path: path.into() });
    }
    let file = Arc::new(File::open(path).map_err(|error| unreadable(&error))?);
    let members = match Members::of_file(&file) {
        Ok(Some(members)) => members,
        Ok(None) => return Err(PlaceError::Compressed { path: path.into() }),
        Err(_) => return Err(PlaceError::NotAnImage { path: path.into() }),
    };
    let has = |name: &str| members.open(name).is_ok_and(|member| member.is_some());
    // Tools write both into one file; the layout knows all platforms, the docker archive all names.
    let is_layout = has(ImageLayout::INDEX_FILE) && has(ImageLayout::MARKER_FILE);
    match (is_layout, has(MANIFEST_FILE)) {
        (true, _) => Ok(Place::LayoutArchive(path.into(), layout_tag(tag)?)),
        (false, true) => Ok(Place::DockerArchive(path.into(), archive_name(tag)?)),
        (false, false) => Err(PlaceError::NotAnImage { path: path.into() }),
    }
}

/// Whether the tag of a layout is the digest of a manifest instead: layouts may have several without a name.
pub(crate) fn as_digest(tag: &str) -> Option<Digest> {
    Digest::parse(tag).ok()
}

impl fmt::Display for Place {
    /// As it is written on the command line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, tag) = match self {
            Place::Registry(reference) => return write!(formatter, "docker://{}", reference.canonical()),
            Place::Layout(path, tag) => ("oci", path, tag.clone()),
            Place::LayoutArchive(path, tag) => ("oci-archive", path, tag.clone()),
            Place::DockerArchive(path, name) => {
                ("docker-archive", path, name.as_ref().map(Reference::familiar))
            }
        };
        write!(formatter, "{scheme}:{}", path.display())?;
        match tag {
            Some(tag) => write!(formatter, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let found = match Place::parse(text) {
            Ok(place) => place.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expect), "{text}: {found}");
    }

    #[test]
    fn places() {
        check("docker://alpine", "docker://docker.io/library/alpine");
        check("alpine:3", "docker://docker.io/library/alpine:3");
        check("localhost:5000/a/b:1", "docker://localhost:5000/a/b:1");
        check("oci:dir", "oci:dir");
        check("oci:/a/dir:1.0", "oci:/a/dir:1.0");
        check("oci:dir:docker.io/library/a:1", "oci:dir:docker.io/library/a:1");
        check("oci-archive:x.tar:latest", "oci-archive:x.tar:latest");
        check("docker-archive:x.tar", "docker-archive:x.tar");
        check("docker-archive:x.tar:app", "docker-archive:x.tar:app:latest");
        check("docker-archive:x.tar:a.b/app:1", "docker-archive:x.tar:a.b/app:1");
    }

    #[test]
    fn what_is_no_place() {
        check("", "image name is empty");
        check("oci:", "no path after `oci:`: `oci:`");
        check("oci::tag", "no path after `oci:`");
        check("oci:dir:", "invalid tag of an OCI layout: ``");
        check("oci:dir:a b", "invalid tag of an OCI layout: `a b`");
        check(&format!("oci:dir:{}", "a".repeat(1025)), "invalid tag of an OCI layout");
        check("dir:/x", "`dir:` is not a kind of place that mica knows: `dir:/x`");
        check("https://example.com/a", "`https:` is not a kind of place");
        check("docker-daemon:a:1", "`docker-daemon:` is not a kind of place");
        check("docker://", "image name is empty");
        check("docker://A", "image name must be lowercase");
        check("docker-archive:x:A", "image name must be lowercase");
        let digest = Digest::sha256(b"");
        check(&format!("docker-archive:x:a@{digest}"), "a name in a docker archive cannot have a digest");
        check("/nowhere/x.tar", "`/nowhere/x.tar` does not exist, so nothing tells");
        check("./nowhere:tag", "`./nowhere` does not exist");
        check("/dev/null", "`/dev/null` is neither an OCI layout nor an archive of images");
        check("/", "`/` is neither");
    }
}
