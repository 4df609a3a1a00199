//! Build contexts that are no directory yet: of git, of the web, out of a stream. Each becomes a directory below an ingest
//! directory, which is there for as long as somebody holds it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use mica_context::{ContextError, GitProblem, GitRequest, HttpAnswer, HttpProblem, HttpRequest, download};
use mica_plan::{CopySourceSpec, GitAddress, without_login};
use mica_store::{Ingest, Store};
use mica_sys::error::ErrorAt;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::login;
use crate::remote::{DOWNLOAD_SIZE_BYTES_MAX, RemoteError, git_address, name_of};
use crate::secret::SecretSource;
use crate::unpack::{is_archive, unpack};

/// Bytes that tell an archive: a header, with whatever extensions stand before it.
pub const ARCHIVE_START_SIZE_BYTES: usize = 64 << 10;
/// The longest Dockerfile that is taken from the web.
const DOCKERFILE_SIZE_BYTES_MAX: u64 = 16 << 20;

/// A build context that was fetched or unpacked.
#[derive(Debug)]
pub struct FetchedContext {
    /// Where its files are.
    pub path: PathBuf,
    /// What it is known by from one build to the next, since the directory is another one each time.
    pub label: String,
    /// The time of the commit, or of the last change; seconds since 1970.
    pub time_unix_s: Option<i64>,
    _ingest: Ingest,
}

impl FetchedContext {
    /// A file of it, as much of it as `size_bytes_max`. Links are followed as if the context were all there is.
    pub fn read(&self, path: &Path, size_bytes_max: u64) -> io::Result<Vec<u8>> {
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.path, root, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut bytes = Vec::new();
        file.take(size_bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// What stands at a URL of the web.
#[derive(Debug)]
pub enum WebContext {
    /// An archive.
    Directory(FetchedContext),
    /// Anything else: a Dockerfile.
    Dockerfile(Vec<u8>),
}

/// What fetching needs besides an address.
#[derive(Clone, Copy)]
pub struct Fetcher<'a> {
    /// Where it goes.
    pub store: &'a Store,
    /// Logins, under the names that BuildKit gave them.
    pub secrets: &'a [SecretSource],
    /// Whether it is to end.
    pub stopped: &'a dyn Fn() -> bool,
}

impl Fetcher<'_> {
    /// A commit of a git repository.
    pub fn git(&self, address: &GitAddress) -> Result<FetchedContext, RemoteError> {
        let authorization = login::for_git(self.secrets, address.host())?;
        let request = GitRequest {
            address,
            checksum: &address.checksum,
            keep_git_dir: address.keep_git_dir.unwrap_or(false),
            authorization: authorization.as_deref(),
            stopped: self.stopped,
        };
        let commit = request.resolve()?;
        let ingest = self.store.ingest()?;
        let tree = request.check_out(&commit, &ingest.tree())?;
        let label = format!("{}#{}", address.display(), address.subdirectory);
        Ok(FetchedContext { path: tree.path, label, time_unix_s: Some(tree.commit_unix_s), _ingest: ingest })
    }

    /// An archive or a Dockerfile of the web.
    pub fn web(&self, url: &str) -> Result<WebContext, RemoteError> {
        let (ingest, time_unix_s) = self.download(url)?;
        let body = ingest.path().join("body");
        let mut file = File::open(&body).at("open", &body)?;
        if !is_archive(&start_of(&mut file, &body)?) {
            let mut text = Vec::new();
            let file = File::open(&body).at("open", &body)?;
            file.take(DOCKERFILE_SIZE_BYTES_MAX + 1).read_to_end(&mut text).at("read", &body)?;
            if text.len() as u64 > DOCKERFILE_SIZE_BYTES_MAX {
                let problem = HttpProblem::TooLarge { size_bytes_max: DOCKERFILE_SIZE_BYTES_MAX };
                return Err(ContextError::Http { url: without_login(url), problem: Box::new(problem) }.into());
            }
            return Ok(WebContext::Dockerfile(text));
        }
        let file = File::open(&body).at("open", &body)?;
        unpack(file, &ingest.tree())?;
        std::fs::remove_file(&body).at("unlink", &body)?;
        let label = without_login(url);
        Ok(WebContext::Directory(FetchedContext { path: ingest.tree(), label, time_unix_s, _ingest: ingest }))
    }

    /// As [`Self::web`], but what is no archive is the only file of the context.
    pub fn web_files(&self, url: &str) -> Result<FetchedContext, RemoteError> {
        let (ingest, time_unix_s) = self.download(url)?;
        let body = ingest.path().join("body");
        let mut file = File::open(&body).at("open", &body)?;
        if is_archive(&start_of(&mut file, &body)?) {
            unpack(File::open(&body).at("open", &body)?, &ingest.tree())?;
        } else {
            use std::os::unix::ffi::OsStrExt;
            let name = name_of(url).ok_or_else(|| RemoteError::NoName { url: without_login(url) })?;
            let path = ingest.tree().join(std::ffi::OsStr::from_bytes(&name));
            std::fs::rename(&body, &path).at("rename", &path)?;
        }
        let label = without_login(url);
        Ok(FetchedContext { path: ingest.tree(), label, time_unix_s, _ingest: ingest })
    }

    /// The time of something that ADD would fetch.
    pub(crate) fn time(&self, source: &CopySourceSpec) -> Result<Option<i64>, RemoteError> {
        match source {
            CopySourceSpec::Git(text) => Ok(self.git(&git_address(text)?)?.time_unix_s),
            CopySourceSpec::Url(url) => Ok(self.download(url)?.1),
            CopySourceSpec::Path(_) | CopySourceSpec::Heredoc { .. } => Ok(None),
        }
    }

    fn download(&self, url: &str) -> Result<(Ingest, Option<i64>), RemoteError> {
        let authorization = login::for_web(self.secrets, url)?;
        let ingest = self.store.ingest()?;
        let request = HttpRequest {
            url,
            authorization: authorization.as_deref(),
            etag: None,
            size_bytes_max: DOWNLOAD_SIZE_BYTES_MAX,
            stopped: self.stopped,
        };
        match download(&request, &ingest.path().join("body"))? {
            HttpAnswer::File(file) => Ok((ingest, file.modified_unix_s)),
            HttpAnswer::Unchanged => Ok((ingest, None)),
        }
    }

    /// An archive out of a stream. `label`: what it is known by.
    pub fn stream(
        &self,
        reader: impl Read + Send + 'static,
        label: &str,
    ) -> Result<FetchedContext, RemoteError> {
        let ingest = self.store.ingest()?;
        unpack(reader, &ingest.tree())?;
        Ok(FetchedContext {
            path: ingest.tree(),
            label: label.to_owned(),
            time_unix_s: None,
            _ingest: ingest,
        })
    }
}

/// Whether a build ended because it was told to.
pub(crate) fn is_interruption(error: &RemoteError) -> bool {
    match error {
        RemoteError::Fetch(ContextError::Http { problem, .. }) => {
            matches!(**problem, HttpProblem::Interrupted)
        }
        RemoteError::Fetch(ContextError::Git { problem, .. }) => matches!(**problem, GitProblem::Interrupted),
        _ => false,
    }
}

fn start_of(file: &mut File, path: &Path) -> Result<Vec<u8>, mica_sys::Error> {
    let mut start = Vec::new();
    file.take(ARCHIVE_START_SIZE_BYTES as u64).read_to_end(&mut start).at("read", path)?;
    Ok(start)
}
