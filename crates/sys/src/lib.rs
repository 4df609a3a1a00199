//! Linux calls and files for the rooms above: row 0, and the only room that may hold `unsafe`.

pub mod atomic_file;
pub mod dir_at;
pub mod error;
pub mod fail_point;
pub mod idmap;
pub mod lock;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod seccomp_notify;
pub mod signal;
pub mod xattr;

pub use error::{Error, Result};
