//! What ADD fetches: of the web and of git.
//!
//! A step is looked up before anything is fetched. A URL is asked with the ETag of the last answer, so that what did not
//! change is not sent again; with a checksum it is not asked at all. Of git only the commit is asked for. What has to be
//! fetched lies in an ingest directory for as long as the build lives.
//!
//! Kept between builds is one small file for each URL beside the stat caches, with the digest that an ETag stood for. A
//! damaged one is as good as none.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mica_context::{
    ContextError, GitProblem, GitRequest, HttpAnswer, HttpFile, HttpRequest, SourceDir, download,
};
use mica_diagnostic::Span;
use mica_oci::{Algorithm, Digest};

use mica_plan::{
    CopySourceSpec, CopyStep, GitAddress, GitAddressError, Operation, PlannedSource, Step, without_login,
};
use mica_store::{Ingest, Store};
use mica_sys::error::ErrorAt;
use mica_tree::MergedIndex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use crate::build::{Build, lock};
use crate::error::StepError;
use crate::fetched::is_interruption;
use crate::login;
use crate::reuse::Key;
use crate::secret::SecretError;
use crate::times::Times;
use crate::traced::without_owners;

/// The most that is taken of one URL: as much as an archive may unfold to.
pub(crate) const DOWNLOAD_SIZE_BYTES_MAX: u64 = 1 << 40;
/// Mode of what comes from the web, as BuildKit gives it.
const MODE: Mode = Mode::from_raw_mode(0o600);
/// A record of a URL has some hundred bytes.
const RECORD_SIZE_BYTES_MAX: u64 = 64 << 10;

/// Why a source of ADD cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// It cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] ContextError),
    /// An address that is none.
    #[error("`{address}` is not a git address: {problem}")]
    Address {
        /// Without login and query.
        address: String,
        /// Why not.
        problem: GitAddressError,
    },
    /// What came is something else than it must be.
    #[error("checksum of `{url}` differs, expected `{expected}`: `{found}`")]
    Checksum {
        /// Without login and query.
        url: String,
        /// As the instruction has it.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A checksum that is none.
    #[error(transparent)]
    ChecksumText(#[from] mica_oci::DigestError),
    /// It goes into a directory, and nothing says under which name.
    #[error("`{url}` has no file name, and the destination is a directory")]
    NoName {
        /// Without login and query.
        url: String,
    },
    /// An archive that cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] crate::unpack::UnpackError),
    /// Its login cannot be read.
    #[error(transparent)]
    Login(#[from] SecretError),
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] mica_store::StoreError),
}

/// What is known of the remote sources of a build.
#[derive(Default)]
pub(crate) struct Remotes {
    known: Mutex<HashMap<String, Arc<Mutex<Known>>>>,
}

#[derive(Default)]
struct Known {
    /// What stands for it in a step's key.
    key: Option<Key>,
    /// The commit that is meant.
    commit: Option<String>,
    /// What was downloaded when it was asked for.
    downloaded: Option<(Ingest, HttpFile)>,
    files: Option<Arc<RemoteFiles>>,
}

/// What was fetched.
pub(crate) struct RemoteFiles {
    /// Where it is.
    pub root: PathBuf,
    /// What it holds; root's all of it.
    pub merged: Arc<MergedIndex>,
    /// The file in it, if it is one of the web; else all of it is meant.
    pub file: Option<Vec<u8>>,
    /// Its URL, if that has no name for the file.
    nameless: Option<String>,
    _ingest: Ingest,
}

impl RemoteFiles {
    /// What of it is copied: the file, or all of it. A file that goes into a directory must have a name.
    pub fn path(&self, into_directory: bool) -> Result<&[u8], RemoteError> {
        match (&self.file, &self.nameless) {
            (Some(_), Some(url)) if into_directory => Err(RemoteError::NoName { url: without_login(url) }),
            (file, _) => Ok(file.as_deref().unwrap_or_default()),
        }
    }

    /// Opens a file of it.
    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.root, root, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(File::from(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?))
    }
}

/// Whether a source has to be fetched.
pub(crate) fn is_remote(spec: &CopySourceSpec) -> bool {
    matches!(spec, CopySourceSpec::Url(_) | CopySourceSpec::Git(_))
}

/// Whether looking a step up asks somebody elsewhere.
pub(crate) fn asks(step: &Step) -> bool {
    let Operation::Copy(copy) = &step.operation else { return false };
    copy.sources.iter().any(|source| match &source.spec {
        CopySourceSpec::Url(_) => copy.checksum.is_none(),
        CopySourceSpec::Git(_) => true,
        CopySourceSpec::Path(_) | CopySourceSpec::Heredoc { .. } => false,
    })
}

impl Build<'_> {
    /// What stands for a remote source in the key of its step.
    pub(crate) fn remote_key(&self, copy: &CopyStep, source: &PlannedSource) -> Result<Key, StepError> {
        let slot = self.remotes.slot(copy, &source.spec);
        let mut known = lock(&slot);
        if let Some(key) = known.key {
            return Ok(key);
        }
        let key = match &source.spec {
            CopySourceSpec::Git(text) => {
                let address = git_address(text).map_err(|error| at(source.span, error))?;
                let commit = self.with_git(copy, &address, &|request| request.resolve());
                let commit = commit.map_err(|error| at(source.span, error))?;
                let key = git_key(&commit);
                known.commit = Some(commit);
                key
            }
            CopySourceSpec::Url(url) => {
                self.url_key(copy, url, &mut known).map_err(|error| at(source.span, error))?
            }
            CopySourceSpec::Path(_) | CopySourceSpec::Heredoc { .. } => Key::default(),
        };
        known.key = Some(key);
        Ok(key)
    }

    /// The files of a remote source, fetched if they are not there yet.
    pub(crate) fn remote_files(
        &self,
        copy: &CopyStep,
        source: &PlannedSource,
    ) -> Result<Arc<RemoteFiles>, StepError> {
        self.remote_key(copy, source)?;
        let slot = self.remotes.slot(copy, &source.spec);
        let mut known = lock(&slot);
        if let Some(files) = &known.files {
            return Ok(files.clone());
        }
        let files = match &source.spec {
            CopySourceSpec::Git(text) => self.git_files(copy, text, &mut known),
            CopySourceSpec::Url(url) => self.url_files(copy, url, &mut known),
            CopySourceSpec::Path(_) | CopySourceSpec::Heredoc { .. } => return Err(StepError::Cancelled),
        };
        let files = Arc::new(files.map_err(|error| at(source.span, error))?);
        known.files = Some(files.clone());
        Ok(files)
    }

    fn url_key(&self, copy: &CopyStep, url: &str, known: &mut Known) -> Result<Key, RemoteError> {
        if let Some(checksum) = checksum_of(copy)? {
            return Ok(url_key(&checksum));
        }
        let record = UrlRecord::read(self.store, url);
        let etag = record.as_ref().map(|record| record.etag.as_str());
        Ok(match (self.fetch_url(url, etag)?, record) {
            (Some((ingest, file)), _) => {
                let key = url_key(&Digest::from_sha256(file.sha256));
                known.downloaded = Some((ingest, file));
                key
            }
            (None, Some(record)) => url_key(&record.sha256),
            // Nobody says that nothing changed who was not asked so.
            (None, None) => Key::default(),
        })
    }

    fn url_files(&self, copy: &CopyStep, url: &str, known: &mut Known) -> Result<RemoteFiles, RemoteError> {
        let downloaded = match known.downloaded.take() {
            Some(downloaded) => Some(downloaded),
            None => self.fetch_url(url, None)?,
        };
        let (ingest, file) = downloaded.ok_or_else(|| RemoteError::NoName { url: without_login(url) })?;
        let found = Digest::from_sha256(file.sha256);
        match checksum_of(copy)? {
            Some(expected) => verify(url, &expected, &found, &body_path(&ingest))?,
            None => known.key = Some(url_key(&found)),
        }
        let own_name = name_of(url);
        let nameless = own_name.is_none().then(|| url.to_owned());
        let name = own_name.unwrap_or_else(|| NAMELESS.to_vec());
        let path = {
            use std::os::unix::ffi::OsStrExt;
            ingest.tree().join(std::ffi::OsStr::from_bytes(&name))
        };
        std::fs::rename(body_path(&ingest), &path).at("rename", &path)?;
        rustix::fs::chmod(&path, MODE).at("chmod", &path)?;
        // As BuildKit: what has no time is as old as can be.
        let time = Timespec { tv_sec: file.modified_unix_s.unwrap_or_default(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).at("utimensat", &path)?;
        let files = files_of(&self.times, ingest.tree(), Some(name), ingest)?;
        Ok(RemoteFiles { nameless, ..files })
    }

    /// Downloads a URL, or finds that it is as it was when it had that ETag.
    fn fetch_url(&self, url: &str, etag: Option<&str>) -> Result<Option<(Ingest, HttpFile)>, RemoteError> {
        let authorization = login::for_web(&self.request.secrets, url)?;
        let ingest = self.store.ingest()?;
        let request = HttpRequest {
            url,
            authorization: authorization.as_deref(),
            etag,
            size_bytes_max: DOWNLOAD_SIZE_BYTES_MAX,
            stopped: &|| self.stopped(),
        };
        match download(&request, &body_path(&ingest))? {
            HttpAnswer::Unchanged => Ok(None),
            HttpAnswer::File(file) => {
                UrlRecord::write(self.store, url, &file);
                Ok(Some((ingest, file)))
            }
        }
    }

    fn git_files(&self, copy: &CopyStep, text: &str, known: &mut Known) -> Result<RemoteFiles, RemoteError> {
        let address = git_address(text)?;
        let commit = known.commit.clone().unwrap_or_default();
        let ingest = self.store.ingest()?;
        let tree = self.with_git(copy, &address, &|request| request.check_out(&commit, &ingest.tree()))?;
        files_of(&self.times, tree.path, None, ingest)
    }

    fn with_git<T>(
        &self,
        copy: &CopyStep,
        address: &GitAddress,
        ask: &dyn Fn(&GitRequest<'_>) -> Result<T, ContextError>,
    ) -> Result<T, RemoteError> {
        let authorization = login::for_git(&self.request.secrets, address.host())?;
        let flag = copy.checksum.as_deref().unwrap_or_default();
        let written = address.checksum.as_str();
        if !flag.is_empty() && !written.is_empty() && !written.starts_with(flag) && !flag.starts_with(written)
        {
            let problem = GitProblem::Checksum { expected: flag.to_owned(), found: written.to_owned() };
            return Err(ContextError::Git { remote: address.display(), problem: Box::new(problem) }.into());
        }
        let checksum = if flag.len() >= written.len() { flag } else { written };
        Ok(ask(&GitRequest {
            address,
            checksum,
            keep_git_dir: address.keep_git_dir.unwrap_or(copy.keep_git_dir),
            authorization: authorization.as_deref(),
            stopped: &|| self.stopped(),
        })?)
    }
}

impl Remotes {
    /// Equal sources of a build are fetched once.
    fn slot(&self, copy: &CopyStep, spec: &CopySourceSpec) -> Arc<Mutex<Known>> {
        let name = match spec {
            CopySourceSpec::Url(text) => format!("url {text}"),
            CopySourceSpec::Git(text) => format!("git {} {text}", copy.keep_git_dir),
            CopySourceSpec::Path(_) | CopySourceSpec::Heredoc { .. } => String::new(),
        };
        let name = format!("{} {name}", copy.checksum.as_deref().unwrap_or_default());
        lock(&self.known).entry(name).or_default().clone()
    }
}

pub(crate) fn at(span: Span, error: RemoteError) -> StepError {
    match error {
        error if is_interruption(&error) => StepError::Cancelled,
        RemoteError::System(error) => error.into(),
        RemoteError::Store(error) => error.into(),
        error => StepError::Remote { span, cause: Box::new(error) },
    }
}

/// Name of a file whose URL has none; where that would show, it is an error.
const NAMELESS: &[u8] = b"download";

/// The last part of a URL's path; `None` if there is none.
pub(crate) fn name_of(url: &str) -> Option<Vec<u8>> {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let path = bare.split_once("://")?.1.split_once('/')?.1;
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        decoded.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            byte => byte,
        });
    }
    let name = decoded.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty())?;
    let is_name = !matches!(name, b"." | b"..") && !name.contains(&0) && name.len() <= 255;
    is_name.then(|| name.to_vec())
}

pub(crate) fn git_address(text: &str) -> Result<GitAddress, RemoteError> {
    GitAddress::parse(text)
        .or_else(|_| GitAddress::parse_known(text))
        .map_err(|problem| RemoteError::Address { address: without_login(text), problem })
}

fn checksum_of(copy: &CopyStep) -> Result<Option<Digest>, RemoteError> {
    let Some(text) = copy.checksum.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    Ok(Some(Digest::parse(text)?))
}

fn verify(url: &str, expected: &Digest, sha256: &Digest, path: &std::path::Path) -> Result<(), RemoteError> {
    let found = match expected.algorithm() {
        Algorithm::Sha256 => sha256.clone(),
        Algorithm::Sha512 => sha512_of(path)?,
        Algorithm::Blake3 => {
            let mut hasher = blake3::Hasher::new();
            let file = std::fs::File::open(path).at("open", path)?;
            hasher.update_reader(file).at("read", path)?;
            Digest::from_blake3(*hasher.finalize().as_bytes())
        }
    };
    if found == *expected {
        return Ok(());
    }
    let (url, expected) = (without_login(url), expected.clone());
    Err(RemoteError::Checksum { url, expected, found })
}

fn sha512_of(path: &std::path::Path) -> Result<Digest, RemoteError> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha512::new();
    let mut file = std::fs::File::open(path).at("open", path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).at("read", path)? {
            0 => return Ok(Digest::from_sha512(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn url_key(digest: &Digest) -> Key {
    *blake3::hash(format!("url {digest}").as_bytes()).as_bytes()
}

fn git_key(commit: &str) -> Key {
    *blake3::hash(format!("git {commit}").as_bytes()).as_bytes()
}

fn body_path(ingest: &Ingest) -> PathBuf {
    ingest.path().join("body")
}

fn files_of(
    times: &Times,
    root: PathBuf,
    file: Option<Vec<u8>>,
    ingest: Ingest,
) -> Result<RemoteFiles, RemoteError> {
    let directory = SourceDir::open(&root, None, None)?;
    let index = Arc::new(without_owners(directory.index()));
    let index = match file {
        // Its mode is ours.
        Some(_) => times.of_one_time(&index),
        None => times.context(&index),
    };
    let merged = Arc::new(MergedIndex::new([index]));
    Ok(RemoteFiles { root, merged, file, nameless: None, _ingest: ingest })
}

/// What a URL held when it was asked the last time.
#[derive(Debug, Serialize, Deserialize)]
struct UrlRecord {
    url: String,
    etag: String,
    sha256: Digest,
}

impl UrlRecord {
    /// The query may be a login: on disk is a digest.
    fn known_as(url: &str) -> String {
        blake3::hash(url.as_bytes()).to_hex().to_string()
    }

    fn path(store: &Store, url: &str) -> PathBuf {
        store.context_directory().join(format!("url-{}", &Self::known_as(url)[..32]))
    }

    fn read(store: &Store, url: &str) -> Option<Self> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(Self::path(store, url)).ok()?;
        file.take(RECORD_SIZE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        (record.url == Self::known_as(url)).then_some(record)
    }

    /// Failing to do so costs the next build a download and nothing else.
    fn write(store: &Store, url: &str, file: &HttpFile) {
        let path = Self::path(store, url);
        let Some(etag) = &file.etag else {
            let _ = std::fs::remove_file(path);
            return;
        };
        let record =
            Self { url: Self::known_as(url), etag: etag.clone(), sha256: Digest::from_sha256(file.sha256) };
        let temporary = path.with_extension(std::process::id().to_string());
        let written = serde_json::to_vec(&record).map_err(std::io::Error::other);
        let written = written.and_then(|bytes| std::fs::write(&temporary, bytes));
        if written.and_then(|()| std::fs::rename(&temporary, &path)).is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (url, expect) in [
            ("https://h/a/b.tar.gz?x=y#z", Some("b.tar.gz")),
            ("https://h/a/", Some("a")),
            ("https://h/a%20b", Some("a b")),
            ("https://h/a%2Fb", Some("b")),
            ("https://h/..", None),
            ("https://h/a%2F..", None),
            ("https://h/", None),
            ("https://h", None),
            ("https://h/%00", None),
            ("https://h/%zz", None),
        ] {
            assert_eq!(name_of(url), expect.map(|name| name.as_bytes().to_vec()), "{url}");
        }
    }
}
