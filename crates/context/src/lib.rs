//! Where the files of COPY and ADD come from.
//!
//! Here: a directory as build context ([`SourceDir`]): one walk for names and attributes through the ignore rules,
//! and digests of contents that are read at most once for as long as a file does not change; and what has to be fetched
//! before it is a directory or a file: of the web ([`download`]), of git ([`GitRequest`]). Not here: the ignore
//! grammar (`dockerfile::dockerignore`), addresses of git (`plan`), unpacking, logins and what of it all is kept
//! (`build`), which files a COPY picks and where they go (`build::exec_copy`), writing them (`layer::assemble`).
//!
//! Nouns: the *build context* is a tree ([`mica_tree::Index`]) with a way to open its files; the *stat cache* is a file
//! that remembers digests with the attributes for which they hold.
//!
//! Invariants
//! 1. What is ignored is never opened, hashed or copied.
//! 2. No symbolic link is followed: every path is opened beneath the context's directory handle.
//! 3. A digest is taken from the stat cache only if size, inode, mtime and ctime are those it was computed at, and the
//!    file had been left alone for a moment then.
//! 4. A damaged or missing stat cache makes a build slower, never wrong.
//! 5. A login goes to the host that it is for. It is in no error, on no command line, and follows no redirect elsewhere.
//! 6. Git runs no program that a repository or an address names, reads no settings of the host, and writes nowhere but in
//!    the directory that it is given. What is fetched is bounded, or ends with the build.
//!
//! Several processes: the stat cache is replaced by rename; the last one to write it wins, all of them wrote truths.
//! A kill leaves at most a temporary file beside it, which the store's clean-up removes.
//!
//! Start reading at `source_dir.rs`; `walk.rs` is the one pass over the disk, `stat_cache.rs` the file format. Then
//! `source_http.rs` and `source_git.rs`. Tests: `tests.rs`, tables over small directories, with find(1) and the rules one by
//! one as oracle; what is fetched is tested with servers and repositories in `cli/tests/sources`.

mod error;
mod http_time;
mod process;
mod source_dir;
mod source_git;
mod source_http;
mod stat_cache;
mod walk;

#[cfg(test)]
mod tests;

pub use error::{ContextError, GitProblem, HttpProblem};
pub use source_dir::SourceDir;
pub use source_git::{GitRequest, GitTree, is_commit};
pub use source_http::{HttpAnswer, HttpFile, HttpRequest, download};
pub use stat_cache::stat_cache_entries;

/// A file's content and extended attributes as one digest: what of a file matters to COPY besides name, owner and mode.
/// A file without attributes is its content.
pub fn identity(content: [u8; 32], xattrs: &[(Vec<u8>, Vec<u8>)]) -> [u8; 32] {
    if xattrs.is_empty() {
        return content;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content);
    for piece in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(piece.len() as u64).to_le_bytes());
        hasher.update(piece);
    }
    *hasher.finalize().as_bytes()
}
