//! A commit of a git repository, fetched with the host's `git`.
//!
//! What the repository says is hostile, and what the user's own settings say does not count: no configuration of the system
//! or the user is read, no hook runs, no credential helper is asked, and only http, https, ssh and git are spoken, by
//! submodules too. Logins go to git in its environment, never on its command line, and for one host alone.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use mica_plan::{GitAddress, GitTimes};
use mica_registry_api::printable;
use mica_sys::error::ErrorAt;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

use crate::error::{ContextError, GitProblem};
use crate::process::{self, Output};

/// Characters of what git says that are shown.
const MESSAGE_LENGTH_MAX: usize = 500;
/// Variables of the environment that git and ssh need from ours: the way out, whom to trust, the agent.
const VARIABLES: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "TMPDIR",
    "LD_LIBRARY_PATH",
];
/// Settings in place of all those that are not read.
const SETTINGS: [(&str, &str); 13] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.symlinks", "true"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
    // Nothing is left running in the background.
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // A transfer that stands still for a minute has ended.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
    ("http.userAgent", concat!("git/mica-", env!("CARGO_PKG_VERSION"))),
];

/// What is wanted of a repository.
#[derive(Clone, Copy)]
pub struct GitRequest<'a> {
    /// Where it is, and what of it.
    pub address: &'a GitAddress,
    /// The commit that it must be, or the beginning of it; empty when any will do.
    pub checksum: &'a str,
    /// Whether `.git` is to be there.
    pub keep_git_dir: bool,
    /// Value of `Authorization`, for the host of the address alone. A secret.
    pub authorization: Option<&'a [u8]>,
    /// Whether it is to end.
    pub stopped: &'a dyn Fn() -> bool,
}

/// A commit that was checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitTree {
    /// The directory that was asked for.
    pub path: PathBuf,
    /// When the commit was made, seconds since 1970.
    pub commit_unix_s: i64,
}

/// Whether a text is the full name of a commit.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl GitRequest<'_> {
    /// The commit that is meant, without fetching it. Asks nobody when the address names it in full.
    pub fn resolve(&self) -> Result<String, ContextError> {
        self.check()?;
        let reference = self.address.reference.as_str();
        if is_commit(reference) {
            return self.check_commit(reference.to_owned());
        }
        if self.address.fetch_by_commit && is_commit(self.checksum) {
            return Ok(self.checksum.to_owned());
        }
        let url = self.address.split_login().1;
        // Where no repository is, nor above it: the settings of one would count.
        let mut command = self.git(Path::new("/proc"));
        command.args(["ls-remote", "-q", "--", &url]);
        match reference {
            "" => command.arg("HEAD"),
            reference => command.args([reference, &format!("{reference}^{{}}")]),
        };
        let listing = String::from_utf8_lossy(&self.run("ls-remote", command)?.stdout).into_owned();
        match choose(&listing, reference) {
            Some(commit) if is_commit(commit) => self.check_commit(commit.to_owned()),
            _ => {
                let reference = if reference.is_empty() { "HEAD" } else { reference }.to_owned();
                Err(self.failed(GitProblem::NoReference { reference }))
            }
        }
    }

    /// Puts the files of a commit ([`Self::resolve`]) into an empty directory.
    pub fn check_out(&self, commit: &str, directory: &Path) -> Result<GitTree, ContextError> {
        self.check()?;
        let (_, url) = self.address.split_login();
        let git = |arguments: &[&str]| {
            let mut command = self.git(directory);
            command.args(arguments);
            command
        };
        self.run("init", git(&["init", "-q", "--template=", "."]))?;
        // Submodules may be named relative to it.
        self.run("remote", git(&["remote", "add", "--", "origin", &url]))?;
        self.fetch(commit, &git)?;
        let object = format!("{commit}^{{commit}}");
        let checked_out = self.run("checkout", git(&["checkout", "-q", "--detach", "--force", &object]));
        checked_out.map_err(|error| self.when_absent(error, commit))?;
        let time = self.run("show", git(&["show", "-s", "--format=%ct", "HEAD"]))?;
        let commit_unix_s = String::from_utf8_lossy(&time.stdout).trim().parse().unwrap_or_default();
        if self.address.submodules.unwrap_or(true) && directory.join(".gitmodules").symlink_metadata().is_ok()
        {
            let arguments =
                ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", "--checkout"];
            self.run("submodule update", git(&arguments))?;
        }
        let root = directory.join(".git");
        // Where it was fetched from, and how, is not part of the commit.
        for name in ["FETCH_HEAD", "ORIG_HEAD", "logs"] {
            let path = root.join(name);
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
        let is_whole = clean_subdirectory(&self.address.subdirectory) == Some(PathBuf::new());
        let keep = self.keep_git_dir && is_whole;
        let time = (self.address.times == GitTimes::Commit).then_some(commit_unix_s);
        settle(directory, keep, time)?;
        let path = self.subdirectory(directory)?;
        Ok(GitTree { path, commit_unix_s })
    }

    /// Brings the commit in: by its name, else by the reference, else with all there is, because some servers give only
    /// what they announce.
    fn fetch(&self, commit: &str, git: &dyn Fn(&[&str]) -> Command) -> Result<(), ContextError> {
        let fetch = |depth: &[&str], what: &str| {
            let mut arguments = vec!["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--force"];
            arguments.extend(depth);
            arguments.extend(["--", "origin", what]);
            self.run("fetch", git(&arguments))
        };
        let has = || self.run("cat-file", git(&["cat-file", "-e", &format!("{commit}^{{commit}}")])).is_ok();
        let first = match fetch(&["--depth=1"], commit) {
            Ok(_) if has() => return Ok(()),
            Ok(_) => None,
            Err(error @ ContextError::Git { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        if let Some(ContextError::Git { problem, .. }) = &first
            && let GitProblem::Interrupted | GitProblem::NotInstalled = **problem
        {
            return Err(first.unwrap_or_else(|| self.failed(GitProblem::Interrupted)));
        }
        let reference = self.address.reference.as_str();
        if !is_commit(reference) {
            let reference = if reference.is_empty() { "HEAD" } else { reference };
            if fetch(&["--depth=1"], reference).is_ok() && has() {
                return Ok(());
            }
        }
        let all = fetch(&[], "+refs/*:refs/remotes/origin/*");
        match (has(), first, all) {
            (true, ..) => Ok(()),
            (false, Some(error), _) | (false, None, Err(error)) => Err(self.when_absent(error, commit)),
            (false, None, Ok(_)) => {
                Err(self.failed(GitProblem::NoReference { reference: commit.to_owned() }))
            }
        }
    }

    /// Git has many words for a commit that is not there.
    fn when_absent(&self, error: ContextError, commit: &str) -> ContextError {
        let ContextError::Git { problem, .. } = &error else { return error };
        let GitProblem::Failed { message, .. } = &**problem else { return error };
        let is_absent =
            ["not our ref", "unadvertised object", "couldn't find remote ref", "Needed a single revision"];
        match is_absent.iter().any(|words| message.contains(words)) {
            true => self.failed(GitProblem::NoReference { reference: commit.to_owned() }),
            false => error,
        }
    }

    /// The directory that was asked for, below the checkout even if symbolic links are on the way.
    fn subdirectory(&self, directory: &Path) -> Result<PathBuf, ContextError> {
        let written = self.address.subdirectory.clone();
        let wrong = |problem| self.failed(GitProblem::Subdirectory { path: written.clone(), problem });
        let Some(relative) = clean_subdirectory(&written) else {
            return Err(wrong("leads out of the repository"));
        };
        if relative.as_os_str().is_empty() {
            return Ok(directory.to_owned());
        }
        let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, root, Mode::empty()).at("open", directory)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let found = match rustix::fs::openat2(root.as_fd(), &relative, flags, Mode::empty(), resolve) {
            Ok(found) => found,
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
                return Err(wrong("leads out of the repository"));
            }
            Err(rustix::io::Errno::NOENT) => return Err(wrong("is not there")),
            Err(rustix::io::Errno::NOTDIR) => return Err(wrong("is not a directory")),
            Err(error) => return Err(mica_sys::Error::new("openat2", relative, error).into()),
        };
        let stat = rustix::fs::fstat(&found).at("fstat", &relative)?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(wrong("is not a directory"));
        }
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found));
        let path = rustix::fs::readlink(&link, Vec::new()).at("readlink", &link)?;
        Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
    }

    /// Nothing that git could take for an option, or for a program to run.
    fn check(&self) -> Result<(), ContextError> {
        let refuse = |what, text: &str| {
            let text = printable(text, MESSAGE_LENGTH_MAX);
            Err(self.failed(GitProblem::Refused { what, text }))
        };
        let (_, url) = self.address.split_login();
        let after_scheme = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let host = after_scheme.rsplit_once('@').map_or(after_scheme, |(_, host)| host);
        // In a URL a slash stands before the path.
        let path = if url.contains("://") { "" } else { host.split_once(':').map_or("", |(_, path)| path) };
        if [url.as_str(), after_scheme, host, path].iter().any(|part| part.starts_with('-'))
            || url.contains("::")
            || url.contains(char::is_whitespace)
        {
            return refuse("an address", &self.address.display());
        }
        let reference = &self.address.reference;
        let has_odd = |text: &str| {
            text.starts_with(['-', '+'])
                || text.contains([':', '*', '?', '[', '\\', '^', '~', ' '])
                || text.contains("..")
        };
        if has_odd(reference) || reference.chars().any(char::is_control) {
            return refuse("a reference", reference);
        }
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        // As BuildKit: fewer digits are no check.
        let is_part_of_commit = is_hex(self.checksum) && (7..=64).contains(&self.checksum.len());
        if !self.checksum.is_empty() && !is_part_of_commit {
            return refuse("the checksum of a commit", self.checksum);
        }
        Ok(())
    }

    fn check_commit(&self, found: String) -> Result<String, ContextError> {
        match found.starts_with(&self.checksum.to_ascii_lowercase()) {
            true => Ok(found),
            false => Err(self.failed(GitProblem::Checksum { expected: self.checksum.to_owned(), found })),
        }
    }

    fn failed(&self, problem: GitProblem) -> ContextError {
        ContextError::Git { remote: self.address.display(), problem: Box::new(problem) }
    }

    /// `git` with an environment of our making.
    fn git(&self, directory: &Path) -> Command {
        let mut command = Command::new("git");
        command.current_dir(directory).env_clear();
        for name in VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CEILING_DIRECTORIES", "/")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ControlMaster=no")
            // Counts for submodules too: neither files of this machine nor programs.
            .env("GIT_ALLOW_PROTOCOL", "http:https:ssh:git")
            // A checkout has no use for what large-file extensions would fetch.
            .env("GIT_LFS_SKIP_SMUDGE", "1");
        let mut settings: Vec<(String, OsString)> =
            SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        if let Some(header) = self.header() {
            settings.push((format!("http.{}.extraHeader", self.origin()), header));
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (position, (name, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{position}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{position}"), value);
        }
        command
    }

    /// Scheme and host: what a login is for.
    fn origin(&self) -> String {
        let (_, url) = self.address.split_login();
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", &url));
        format!("{scheme}://{}/", rest.split('/').next().unwrap_or_default())
    }

    fn header(&self) -> Option<OsString> {
        let value = match (self.authorization, self.address.split_login().0) {
            (Some(value), _) => value.to_vec(),
            (None, Some((user, password))) => {
                let login = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                format!("Basic {login}").into_bytes()
            }
            (None, None) => return None,
        };
        Some(OsString::from_vec([b"Authorization: ".as_slice(), &value].concat()))
    }

    fn run(&self, what: &'static str, mut command: Command) -> Result<Output, ContextError> {
        if self.authorization.is_some_and(|value| value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')))
        {
            return Err(self.failed(GitProblem::Login));
        }
        match process::run(&mut command, self.stopped) {
            Ok(Some(output)) if output.status.success() => Ok(output),
            Ok(Some(output)) => {
                let text = String::from_utf8_lossy(&output.stderr);
                // Git's last words say what went wrong, the first ones what it was doing.
                let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
                let told = lines.iter().find(|line| line.starts_with("fatal:")).or(lines.last());
                let message = told.map_or("", |line| line.trim_start_matches("fatal: "));
                // Then ssh has said why.
                let message = match lines.first() {
                    Some(first) if message.starts_with("Could not read from remote") => first,
                    _ => message,
                };
                let message = match message.is_empty() {
                    true => output.status.to_string(),
                    false => printable(message, MESSAGE_LENGTH_MAX),
                };
                Err(self.failed(GitProblem::Failed { command: what, message }))
            }
            Ok(None) => Err(self.failed(GitProblem::Interrupted)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.failed(GitProblem::NotInstalled))
            }
            Err(error) => Err(mica_sys::Error::new("execve", "git", error).into()),
        }
    }
}

/// The commit of a listing that a reference means: a branch before a tag, as `git checkout` has it.
fn choose<'l>(listing: &'l str, reference: &str) -> Option<&'l str> {
    let find = |wanted: &str| {
        let lines = listing.lines().filter_map(|line| line.split_once('\t'));
        lines.into_iter().find(|(_, name)| *name == wanted).map(|(commit, _)| commit)
    };
    if reference.is_empty() || reference == "HEAD" {
        return find("HEAD");
    }
    let short = reference.strip_prefix("refs/").unwrap_or(reference);
    let tag = format!("refs/tags/{}", reference.strip_prefix("refs/tags/").unwrap_or(reference));
    // An annotated tag is an object of its own; behind `^{}` is its commit.
    find(&format!("refs/heads/{}", reference.strip_prefix("refs/heads/").unwrap_or(reference)))
        .or_else(|| find(&format!("{tag}^{{}}")))
        .or_else(|| find(&tag))
        .or_else(|| find(&format!("refs/{short}^{{}}")))
        .or_else(|| find(&format!("refs/{short}")))
}

/// A directory as written, relative to the repository; `None` if it climbs out.
fn clean_subdirectory(text: &str) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.iter().collect())
}

/// Gives files the modes that git knows, whatever the umask, and takes away what is git's own.
fn settle(directory: &Path, keep_git_dir: bool, time: Option<i64>) -> Result<(), ContextError> {
    let mut waiting = vec![directory.to_owned()];
    let mut directories = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).at("open", &directory)? {
            let entry = entry.at("readdir", &directory)?;
            let path = entry.path();
            let kind = entry.file_type().at("stat", &path)?;
            // No commit can have a file of that name.
            if !keep_git_dir && entry.file_name() == ".git" {
                match kind.is_dir() {
                    true => std::fs::remove_dir_all(&path).at("rmdir", &path)?,
                    false => std::fs::remove_file(&path).at("unlink", &path)?,
                }
            } else if kind.is_dir() {
                waiting.push(path);
            } else {
                if kind.is_file() {
                    let mode = entry.metadata().at("stat", &path)?.permissions().mode();
                    let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                        .at("chmod", &path)?;
                }
                set_time(&path, time)?;
            }
        }
        directories.push(directory);
    }
    // What is below a directory changes its time.
    for directory in directories {
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))
            .at("chmod", &directory)?;
        set_time(&directory, time)?;
    }
    Ok(())
}

fn set_time(path: &Path, time: Option<i64>) -> mica_sys::Result<()> {
    let Some(seconds) = time else { return Ok(()) };
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).at("utimensat", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(address: &'a GitAddress, checksum: &'a str) -> GitRequest<'a> {
        GitRequest { address, checksum, keep_git_dir: false, authorization: None, stopped: &|| false }
    }

    #[test]
    fn what_could_be_an_option_is_refused() {
        let check = |text: &str, checksum: &str, expect: Option<&str>| {
            let found = match GitAddress::parse(text) {
                Ok(address) => request(&address, checksum).check().err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            match expect {
                Some(expect) => assert!(found.as_deref().unwrap_or("").contains(expect), "{text}: {found:?}"),
                None => assert_eq!(found, None, "{text}"),
            }
        };
        check("https://h/a.git", "", None);
        check("git@h:a/b.git#v1:sub", "", None);
        check("https://h/a.git#refs/tags/v1.0", "0123abc", None);
        check("ssh://-oProxyCommand=id/a.git", "", Some("begins with `-`"));
        check("ssh://git@-oProxyCommand=id/a.git", "", Some("begins with `-`"));
        check("git@-h:a.git", "", Some("begins with `-`"));
        check("git@h:-oProxyCommand=id", "", Some("is not taken as an address"));
        check("https://h/-/a.git", "", None);
        check("-a@h:a.git", "", Some("begins with `-`"));
        check("https://h/a.git#--upload-pack=id", "", Some("is not taken as a reference"));
        check("https://h/a.git?ref=a:b", "", Some("is not taken as a reference"));
        check("https://h/a.git?ref=%2Bmain", "", Some("is not taken as a reference"));
        check("https://h/a.git", "zz", Some("is not taken as the checksum"));
        check("https://h/a.git", "0123", Some("is not taken as the checksum"));
    }

    #[test]
    fn directories_in_repositories() {
        for (text, expect) in [
            ("", Some("")),
            ("/", Some("")),
            ("/a/./b/", Some("a/b")),
            ("a/../b", Some("b")),
            ("..", None),
            ("a/../../b", None),
        ] {
            assert_eq!(clean_subdirectory(text), expect.map(PathBuf::from), "{text}");
        }
    }

    #[test]
    fn references_mean_branches_first() {
        let listing = "1\tHEAD\n2\trefs/heads/v1\n3\trefs/tags/v1\n4\trefs/tags/v2\n5\trefs/tags/v2^{}\n6\trefs/heads/x/v3\n";
        for (reference, expect) in [
            ("", Some("1")),
            ("v1", Some("2")),
            ("refs/tags/v1", Some("3")),
            ("tags/v1", Some("3")),
            ("v2", Some("5")),
            ("v3", None),
            ("x/v3", Some("6")),
            ("heads/v1", Some("2")),
        ] {
            assert_eq!(choose(listing, reference), expect, "{reference}");
        }
    }

    #[test]
    fn a_login_is_in_the_environment_alone() {
        let address = GitAddress::parse("https://me:hush@h:8/a.git").unwrap();
        let request = request(&address, "");
        let command = request.git(Path::new("/"));
        assert!(command.get_args().next().is_none());
        let find = |value: &str| {
            let position = command.get_envs().find(|(_, found)| *found == Some(value.as_ref()));
            position.map(|(name, _)| name.to_string_lossy().replace("KEY", "VALUE"))
        };
        let name = find("http.https://h:8/.extraHeader").unwrap();
        let found = command.get_envs().find(|(other, _)| *other == name.as_str()).unwrap().1.unwrap();
        assert_eq!(found, "Authorization: Basic bWU6aHVzaA==");
        assert_eq!(
            request.failed(GitProblem::NotInstalled).to_string(),
            "cannot fetch the git repository `https://h:8/a.git`: `git` is not installed"
        );
    }
}
