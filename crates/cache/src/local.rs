//! A cache in a directory: a tag of an OCI layout. Several caches of one directory share their blobs.
//!
//! ```text
//! oci-layout  index.json     one entry for each tag; written under the lock of the directory
//! blobs/                     locked by all who export, and by whoever takes away what nobody needs
//! blobs/sha256/<hex>         written beside, then renamed
//! ```

use std::any::Any;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mica_oci::image_layout::ANNOTATION_REF_NAME;
use mica_oci::{
    Descriptor, Digest, Document, ImageLayout, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, media_type,
};
use mica_registry_client::Content;
use mica_sys::atomic_file::random_hex;
use mica_sys::dir_at::{open_beneath, open_directory, read_names};
use mica_sys::error::{Error, ErrorAt};
use mica_sys::lock::{Lock, Sharing};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::error::{CacheError, Result};
use crate::place::Place;
use crate::verified::Verified;

/// Names of files that are not whole yet.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// What of a directory is the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalTarget {
    /// The manifest with this tag.
    Tag(String),
    /// The manifest with this digest.
    Digest(Digest),
}

/// A cache in a directory.
#[derive(Debug)]
pub struct LocalPlace {
    name: String,
    path: PathBuf,
    target: LocalTarget,
    reset: bool,
}

impl LocalPlace {
    /// The cache of that directory. With `reset`, an export takes away blobs that no manifest of the directory needs.
    pub fn new(path: &Path, target: LocalTarget, reset: bool) -> Self {
        let mut name = format!("local:{}", path.display());
        match &target {
            LocalTarget::Tag(tag) if tag == "latest" => {}
            LocalTarget::Tag(tag) => name.push_str(&format!(":{tag}")),
            LocalTarget::Digest(digest) => name.push_str(&format!("@{digest}")),
        }
        Self { name, path: path.to_owned(), target, reset }
    }

    /// The directory; `None` if it is not there.
    fn directory(&self) -> Result<Option<OwnedFd>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::new("open", &self.path, error).into()),
        }
    }

    fn open_member(&self, directory: &OwnedFd, member: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match open_beneath(directory, member.as_bytes(), flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read_member(&self, directory: &OwnedFd, member: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_member(directory, member)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let path = || self.path.join(member);
        file.take(MANIFEST_SIZE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::new("read", path(), error))?;
        match bytes.len() as u64 > MANIFEST_SIZE_BYTES_MAX {
            true => Err(CacheError::TooLarge { what: "a document", size_bytes_max: MANIFEST_SIZE_BYTES_MAX }),
            false => Ok(Some(bytes)),
        }
    }

    fn index(&self, directory: &OwnedFd) -> Result<Option<Index>> {
        let Some(bytes) = self.read_member(directory, ImageLayout::INDEX_FILE)? else { return Ok(None) };
        Index::parse(&bytes)
            .map(Some)
            .map_err(|error| CacheError::Malformed { what: "its index.json", reason: error.to_string() })
    }

    fn root(&self, directory: &OwnedFd) -> Result<Option<Descriptor>> {
        let Some(index) = self.index(directory)? else { return Ok(None) };
        let is_meant = |entry: &&Descriptor| match &self.target {
            LocalTarget::Tag(tag) => entry.annotations.get(ANNOTATION_REF_NAME) == Some(tag),
            LocalTarget::Digest(digest) => entry.digest == *digest,
        };
        let found = index.manifests.iter().find(is_meant).cloned();
        // By digest, what an earlier export left is found as well.
        Ok(found.or_else(|| match &self.target {
            LocalTarget::Digest(digest) => Some(Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), 0)),
            LocalTarget::Tag(_) => None,
        }))
    }

    /// The directory as a layout, made if it is not there.
    fn make(&self) -> Result<OwnedFd> {
        let (path, is_layout) = (&self.path, self.path.join(ImageLayout::MARKER_FILE).exists());
        std::fs::create_dir_all(path).at("mkdir", path)?;
        let directory = OwnedFd::from(File::open(path).at("open", path)?);
        if !is_layout {
            let known = [ImageLayout::MARKER_FILE, ImageLayout::INDEX_FILE, ImageLayout::BLOBS_DIR];
            let is_ours = |(name, _): &(Vec<u8>, _)| {
                name.starts_with(TEMPORARY_PREFIX.as_bytes())
                    || known.iter().any(|known| known.as_bytes() == name.as_slice())
            };
            // Two exports may begin at once.
            if !read_names(open_directory(&directory, b"")?)?.iter().all(is_ours) {
                return Err(CacheError::NotALayout { path: path.display().to_string() });
            }
            place(&directory, ImageLayout::MARKER_FILE, &mut &ImageLayout::current().to_json()[..])?;
        }
        for parent in [ImageLayout::BLOBS_DIR, "blobs/sha256"] {
            match rustix::fs::mkdirat(&directory, parent, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::new("mkdirat", path.join(parent), error).into()),
            }
        }
        Ok(directory)
    }

    fn made(&self) -> Result<OwnedFd> {
        self.directory()?.ok_or_else(|| Error::new("open", &self.path, Errno::NOENT).into())
    }

    /// Every digest that a manifest of the directory leads to; `None` if one of them cannot be read.
    fn needed(&self, directory: &OwnedFd) -> Result<Option<HashSet<Digest>>> {
        let mut needed = HashSet::new();
        let Some(index) = self.index(directory)? else { return Ok(Some(needed)) };
        let mut waiting: Vec<Descriptor> = index.manifests;
        while let Some(descriptor) = waiting.pop() {
            if !needed.insert(descriptor.digest.clone()) {
                continue;
            }
            let bytes = self.read_member(directory, &ImageLayout::blob_path(&descriptor.digest))?;
            let document = bytes.and_then(|bytes| Document::parse(&bytes, None).ok());
            match document {
                Some(Document::Index(index)) => waiting.extend(index.manifests),
                Some(Document::Manifest(manifest)) => {
                    let blobs = manifest.layers.into_iter().chain([manifest.config]);
                    needed.extend(blobs.map(|blob| blob.digest));
                }
                None => return Ok(None),
            }
        }
        Ok(Some(needed))
    }

    /// Takes away what kills have left, and with `all` what no manifest needs; only while nobody exports.
    fn sweep(&self, directory: &OwnedFd, all: bool) -> Result<()> {
        let Some(_alone) = Lock::try_directory(self.path.join(ImageLayout::BLOBS_DIR), Sharing::Exclusive)?
        else {
            return Ok(());
        };
        let needed = if all { self.needed(directory)? } else { None };
        let blobs = open_directory(directory, b"blobs/sha256")?;
        for (name, _) in read_names(open_directory(&blobs, b"")?)? {
            let digest = std::str::from_utf8(&name).ok();
            let digest = digest.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
            let is_needed = match (&needed, digest) {
                (_, None) => !name.starts_with(TEMPORARY_PREFIX.as_bytes()),
                (None, Some(_)) => true,
                (Some(needed), Some(digest)) => needed.contains(&digest),
            };
            if !is_needed {
                let path = mica_sys::dir_at::bytes_path(&name);
                unlinkat(&blobs, path, AtFlags::empty()).at("unlinkat", path)?;
            }
        }
        Ok(())
    }
}

/// Writes a file beside its place, and renames it there.
fn place(directory: &OwnedFd, name: &str, content: &mut dyn Read) -> Result<()> {
    let temporary = format!("{TEMPORARY_PREFIX}{}", random_hex(8)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let made = openat(directory, &temporary, flags, Mode::from_raw_mode(0o644)).at("openat", &temporary)?;
    let mut file = File::from(made);
    let written = io::copy(content, &mut file)
        .and_then(|_| file.flush())
        .map_err(|error| CacheError::from(Error::new("write", name, error)))
        .and_then(|()| Ok(renameat(directory, &temporary, directory, name).at("renameat", name)?));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = unlinkat(directory, &temporary, AtFlags::empty());
    }
    written
}

impl Place for LocalPlace {
    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self, child: Option<&Descriptor>) -> Result<Option<Vec<u8>>> {
        let Some(directory) = self.directory()? else { return Ok(None) };
        let root = match child {
            Some(child) => Some(child.clone()),
            None => self.root(&directory)?,
        };
        let Some(root) = root else { return Ok(None) };
        let Some(bytes) = self.read_member(&directory, &ImageLayout::blob_path(&root.digest))? else {
            return Ok(None);
        };
        let actual = Digest::sha256(&bytes);
        match actual == root.digest {
            true => Ok(Some(bytes)),
            false => Err(CacheError::BlobDamaged { expected: root.digest, actual }),
        }
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let file = self.open_member(&self.made()?, &ImageLayout::blob_path(&blob.digest))?;
        match file {
            Some(file) => Ok(Box::new(file)),
            None => Err(CacheError::BlobMissing { digest: blob.digest.clone() }),
        }
    }

    fn begin(&self) -> Result<Box<dyn Any + Send>> {
        let directory = self.make()?;
        self.sweep(&directory, false)?;
        Ok(Box::new(Lock::directory(self.path.join(ImageLayout::BLOBS_DIR), Sharing::Shared)?))
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let Some(file) = self.open_member(&self.made()?, &ImageLayout::blob_path(&blob.digest))? else {
            return Ok(false);
        };
        // A damaged one is written again; else no export would ever mend it.
        Ok(Verified::new(Box::new(file), blob).drain().is_ok())
    }

    fn put(&self, blob: &Descriptor, content: &dyn Content) -> Result<()> {
        let blobs = open_directory(self.made()?, b"blobs/sha256")?;
        place(&blobs, blob.digest.hex(), &mut content.open(0)?)
    }

    fn publish(&self, manifest: &Manifest) -> Result<()> {
        let bytes = manifest.to_canonical_json();
        let mut entry = Descriptor::of(manifest.media_type(), &bytes);
        let directory = self.made()?;
        let blobs = open_directory(&directory, b"blobs/sha256")?;
        place(&blobs, entry.digest.hex(), &mut &bytes[..])?;
        let _lock = Lock::directory(&self.path, Sharing::Exclusive)?;
        // All blobs before the name that leads to them: a power cut keeps the order.
        rustix::fs::syncfs(&directory).at("syncfs", &self.path)?;
        let mut index = self.index(&directory)?.unwrap_or_else(|| Index::oci(Vec::new()));
        if let LocalTarget::Tag(tag) = &self.target {
            entry.annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag.clone());
            index.manifests.retain(|known| known.annotations.get(ANNOTATION_REF_NAME) != Some(tag));
        }
        entry.artifact_type.clone_from(&manifest.artifact_type);
        index.manifests.push(entry);
        place(&directory, ImageLayout::INDEX_FILE, &mut &index.to_canonical_json()[..])
    }

    fn tidy(&self) -> Result<()> {
        match self.reset {
            true => self.sweep(&self.made()?, true),
            false => Ok(()),
        }
    }
}
