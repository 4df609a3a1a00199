//! The build context, the Dockerfile and the ignore file: where they are, and what is in them.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mica_build::{
    ARCHIVE_START_SIZE_BYTES, FetchedContext, Fetcher, IgnoreFile, SecretSource, WebContext, is_archive,
};
use mica_diagnostic::Source;
use mica_plan::{GitAddress, without_login};
use mica_store::Store;

use crate::error::CliError;
use crate::session::Session;

use super::args::Args;

/// The longest Dockerfile or ignore file that is read.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;

/// What a Dockerfile is called where nobody says.
const DOCKERFILE_NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// The build argument that keeps `.git` in contexts.
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// Where a build context is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On standard input: an archive or a Dockerfile.
    Stdin,
    /// In a git repository.
    Git(Box<GitAddress>),
    /// On the web: an archive or a Dockerfile.
    Web(String),
    /// Here.
    Directory(PathBuf),
}

/// What a build reads, found.
pub(super) struct Files {
    /// The text.
    pub dockerfile: Source,
    /// The context directory; `None` when there is none.
    pub context: Option<PathBuf>,
    /// The ignore file that applies.
    pub ignore: Option<IgnoreFile>,
    /// What holds the directories that are there for this build only.
    pub fetched: Vec<Arc<FetchedContext>>,
}

/// What fetching needs.
pub(super) struct Fetch<'a> {
    store: Store,
    secrets: &'a [SecretSource],
    keep_git_dir: bool,
    quiet: bool,
}

impl<'a> Fetch<'a> {
    /// Opens the store, which only what is fetched needs before the build begins.
    pub fn open(args: &Args, session: &Session, secrets: &'a [SecretSource]) -> Result<Self, CliError> {
        let argument = args.build_arg.iter().rev();
        let argument = argument.filter_map(|arg| arg.split_once('=')).find(|(name, _)| *name == KEEP_GIT_DIR);
        // As BuildKit reads it: what is no boolean is none.
        let keep_git_dir =
            argument.is_some_and(|(_, value)| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"));
        Ok(Self { store: session.open_store()?, secrets, keep_git_dir, quiet: args.quiet })
    }

    /// A commit of a git repository.
    pub fn git(&self, address: &GitAddress) -> Result<FetchedContext, CliError> {
        self.tell(&format!("load git source {}", address.display()));
        let keep_git_dir = address.keep_git_dir.or(self.keep_git_dir.then_some(true));
        Ok(self.fetcher().git(&GitAddress { keep_git_dir, ..address.clone() })?)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// An archive or a Dockerfile of the web.
    pub fn web(&self, url: &str) -> Result<WebContext, CliError> {
        self.tell(&format!("load remote build context {}", without_login(url)));
        Ok(self.fetcher().web(url)?)
    }

    /// What takes its time before the build begins, in BuildKit's words.
    pub fn tell(&self, what: &str) {
        if !self.quiet {
            eprintln!("[internal] {}", crate::progress::printable(what));
        }
    }

    /// A signal ends the whole process here: there is nothing yet to be kept.
    pub fn fetcher(&self) -> Fetcher<'_> {
        Fetcher { store: &self.store, secrets: self.secrets, stopped: &|| false }
    }
}

/// Where a text says that a context is.
pub(super) fn place(path: &Path) -> Result<Place, CliError> {
    let directory = || Place::Directory(path.to_owned());
    let Some(text) = path.to_str() else { return Ok(directory()) };
    if text == "-" {
        return Ok(Place::Stdin);
    }
    match GitAddress::parse(text) {
        Ok(address) if address.could_be_path && path.exists() => return Ok(directory()),
        Ok(address) => return Ok(Place::Git(Box::new(address))),
        Err(error) if error.is_git() => {
            return Err(CliError::new(format!("`{}` is not a git address: {error}", without_login(text))));
        }
        Err(_) => {}
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Place::Web(text.to_owned()));
    }
    match text.split_once("://") {
        Some((scheme, _)) if !path.exists() => {
            let what = format!("a build context cannot be fetched by `{scheme}`: `{}`", without_login(text));
            Err(CliError::new(what).hint("give a directory, `-`, or an address of git, http or https"))
        }
        _ => Ok(directory()),
    }
}

/// Finds what the flags name.
pub(super) fn files(args: &Args, session: &Session, secrets: &[SecretSource]) -> Result<Files, CliError> {
    let Some(path) = &args.path else {
        return Err(
            CliError::new("no build context is given").hint("for the current directory: `mica build .`")
        );
    };
    let file = args.file.as_deref();
    let file_is_stdin = file.is_some_and(is_stdin);
    match place(path)? {
        Place::Stdin if file_is_stdin => {
            Err(CliError::new("the Dockerfile and the build context cannot both be standard input"))
        }
        Place::Stdin => {
            let mut start = Vec::new();
            io::stdin().lock().take(ARCHIVE_START_SIZE_BYTES as u64).read_to_end(&mut start)?;
            if !is_archive(&start) {
                if file.is_some() {
                    return Err(CliError::new(
                        "standard input is no archive but a Dockerfile, and `-f` names another one",
                    )
                    .hint("give a directory as context, or an archive on standard input"));
                }
                if start.contains(&0) {
                    return Err(CliError::new(
                        "standard input is neither a Dockerfile nor an archive with something in it",
                    ));
                }
                let text = text_of(Cursor::new(start).chain(io::stdin().lock()))?;
                let dockerfile = Source::new("-", &text);
                return Ok(Files { dockerfile, context: None, ignore: None, fetched: Vec::new() });
            }
            let fetch = Fetch::open(args, session, secrets)?;
            let archive = Cursor::new(start).chain(io::stdin());
            let context = fetch.fetcher().stream(archive, "standard input").map_err(|error| CliError {
                message: format!("the build context on standard input: {error}"),
                ..error.into()
            })?;
            fetched_files(file, context)
        }
        Place::Git(address) => {
            let context = Fetch::open(args, session, secrets)?.git(&address)?;
            fetched_files(file, context)
        }
        Place::Web(url) => match Fetch::open(args, session, secrets)?.web(&url)? {
            WebContext::Directory(context) => fetched_files(file, context),
            WebContext::Dockerfile(text) if is_page(&text) => Err(CliError::new(format!(
                "`{}` is a web page, neither an archive nor a Dockerfile",
                without_login(&url)
            ))
            .hint("the address of a git repository ends in `.git`")),
            WebContext::Dockerfile(text) => {
                let dockerfile = match file {
                    Some(file) => local_dockerfile(Some(file), None)?.0,
                    None => Source::new(&without_login(&url), &String::from_utf8_lossy(&text)),
                };
                Ok(Files { dockerfile, context: None, ignore: None, fetched: Vec::new() })
            }
        },
        Place::Directory(context) => {
            check_directory(&context, "the build context")?;
            let (dockerfile, own) = local_dockerfile(file, Some(&context))?;
            let ignore = read_ignore(own.as_deref(), &context)?;
            Ok(Files { dockerfile, context: Some(context), ignore, fetched: Vec::new() })
        }
    }
}

/// What a forge shows at the address of a repository.
fn is_page(text: &[u8]) -> bool {
    let start = text.trim_ascii_start();
    let begins =
        |with: &str| start.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()));
    begins("<!doctype html") || begins("<html")
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether it can be a build context.
pub(super) fn check_directory(path: &Path, what: &str) -> Result<(), CliError> {
    if path.is_dir() {
        return Ok(());
    }
    let why = match path.symlink_metadata() {
        Ok(_) => "is not a directory".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "does not exist".to_owned(),
        Err(error) => format!("cannot be read ({error})"),
    };
    Err(CliError::new(format!("{what} {why}: `{}`", path.display())))
}

/// The Dockerfile and the ignore file of a context that was fetched; both are files of it.
fn fetched_files(file: Option<&Path>, context: FetchedContext) -> Result<Files, CliError> {
    let mut own = None;
    let dockerfile = match file {
        Some(file) if is_stdin(file) => Source::new("-", &text_of(io::stdin().lock())?),
        file => {
            let candidates = match file {
                Some(file) => vec![file.to_owned()],
                None => DOCKERFILE_NAMES.iter().map(PathBuf::from).collect(),
            };
            let (name, text) = first_of(&candidates, &|path| context.read(path, DOCKERFILE_BYTES_MAX))?;
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            let source = Source::new(&name.display().to_string(), &text);
            own = Some(name);
            source
        }
    };
    let ignore = ignore_of(own.as_deref(), Path::new(""), &|path| context.read(path, DOCKERFILE_BYTES_MAX))?;
    let path = context.path.clone();
    Ok(Files { dockerfile, context: Some(path), ignore, fetched: vec![Arc::new(context)] })
}

/// A Dockerfile of this machine, and its path if it has one.
fn local_dockerfile(
    file: Option<&Path>,
    context: Option<&Path>,
) -> Result<(Source, Option<PathBuf>), CliError> {
    if file.is_some_and(is_stdin) {
        return Ok((Source::new("-", &text_of(io::stdin().lock())?), None));
    }
    let candidates: Vec<PathBuf> = match (file, context) {
        (Some(file), _) => vec![file.to_path_buf()],
        (None, Some(context)) => DOCKERFILE_NAMES.iter().map(|name| context.join(name)).collect(),
        (None, None) => Vec::new(),
    };
    let (path, text) = first_of(&candidates, &read_file)?;
    let inside = context.filter(|_| file.is_none()).and_then(|context| path.strip_prefix(context).ok());
    let name = inside.or(path.strip_prefix("./").ok()).unwrap_or(&path);
    Ok((Source::new(&name.display().to_string(), &text), Some(path)))
}

/// The first file that is there.
fn first_of(
    candidates: &[PathBuf],
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<(PathBuf, String), CliError> {
    for path in candidates {
        match read(path) {
            Ok(text) => return Ok((path.clone(), String::from_utf8_lossy(&text).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::new(format!("cannot read `{}`: {error}", path.display()))),
        }
    }
    let wanted = candidates.first().map(|path| path.display().to_string()).unwrap_or_default();
    Err(CliError::new(format!("there is no `{wanted}`")).hint("name the Dockerfile with `-f FILE`"))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(DOCKERFILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn text_of(reader: impl Read) -> io::Result<String> {
    let mut text = Vec::new();
    reader.take(DOCKERFILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The ignore file beside the Dockerfile, else the one of the context.
pub(super) fn read_ignore(dockerfile: Option<&Path>, context: &Path) -> Result<Option<IgnoreFile>, CliError> {
    ignore_of(dockerfile, context, &read_file)
}

fn ignore_of(
    dockerfile: Option<&Path>,
    context: &Path,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Option<IgnoreFile>, CliError> {
    let own = dockerfile.map(|file| {
        let mut name = file.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        match read(&path) {
            Ok(text) => {
                let name = path.strip_prefix(context).unwrap_or(&path).display().to_string();
                return Ok(Some(IgnoreFile { name, text: String::from_utf8_lossy(&text).into_owned() }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::new(format!("cannot read `{}`: {error}", path.display()))),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_contexts() {
        let check = |text: &str, expect: &str| {
            let found = match place(Path::new(text)) {
                Ok(Place::Stdin) => "standard input".to_owned(),
                Ok(Place::Git(address)) => format!("git {}", address.url()),
                Ok(Place::Web(url)) => format!("web {url}"),
                Ok(Place::Directory(path)) => format!("directory {}", path.display()),
                Err(error) => error.message,
            };
            assert_eq!(found, expect, "{text}");
        };
        check("-", "standard input");
        check(".", "directory .");
        check("a/b.git", "directory a/b.git");
        check("github.com/a/b", "git https://github.com/a/b");
        check("git@h:a.git#main:dir", "git git@h:a.git");
        check("https://h/a.git", "git https://h/a.git");
        check("https://h/a.tar.gz?x", "web https://h/a.tar.gz?x");
        check("ftp://me:hush@h/a", "a build context cannot be fetched by `ftp`: `ftp://h/a`");
        check(
            "https://me:hush@h/a.git?x=1",
            "`https://h/a.git` is not a git address: unexpected query \"x\"",
        );
    }
}
