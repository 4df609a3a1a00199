//! What every command begins with: where the store is, and as whom it is used.

use std::path::PathBuf;

use mica_store::Store;
use mica_sys::idmap;

use crate::error::CliError;

/// What a command needs of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Records only, or nothing at all.
    Records,
    /// Files of images and containers, whose owners only root sees as they are.
    Files,
}

/// What every command gets.
pub(crate) struct Session {
    /// Where everything is kept.
    pub root: PathBuf,
    /// Inside a user namespace: not root on this machine.
    pub rootless: bool,
}

impl Session {
    /// Finds the store.
    pub fn begin(root: Option<PathBuf>) -> Result<Self, CliError> {
        let privileged = rustix::process::geteuid().is_root();
        let root = match root {
            Some(root) => std::path::absolute(root)?,
            None if privileged => PathBuf::from("/var/lib/mica"),
            None => data_home()?.join("mica"),
        };
        // Root of a user namespace is nobody special on the machine: somebody else entered one for us.
        Ok(Self { root, rootless: !privileged || idmap::in_user_namespace() })
    }

    /// An ordinary user who needs files enters a user namespace, so this must come before the first thread.
    pub fn enter(self, access: Access) -> Result<Self, CliError> {
        if rustix::process::geteuid().is_root() || access == Access::Records {
            return Ok(self);
        }
        let map = idmap::enter_user_namespace().map_err(|error| {
            CliError::new(error).hint(
                "user namespaces may be switched off: see `sysctl kernel.unprivileged_userns_clone` and \
                 `user.max_user_namespaces`, or run mica as root",
            )
        })?;
        if let Some(reason) = &map.single {
            eprintln!("warning: {}: only files of one owner can be made", single(reason));
        }
        Ok(self)
    }

    /// Opens the store for a command that changes it: what dead processes left is taken away first.
    pub fn open_store(&self) -> Result<Store, CliError> {
        let store = Store::open(&self.root)?;
        store.sweep()?;
        Ok(store)
    }

    /// Opens the store for a command that frees space: it must work on a full disk.
    pub fn open_store_to_free(&self) -> Result<Store, CliError> {
        let store = Store::open(&self.root)?;
        store.make_room();
        store.sweep()?;
        Ok(store)
    }

    /// Opens the store for a command that only reads. Root's takes away what dead processes left all the same; in a
    /// user's store, what they left can belong to ids that only a user namespace has power over.
    pub fn read_store(&self) -> Result<Store, CliError> {
        let store = Store::open(&self.root)?;
        if !self.rootless {
            // Looking must work where removing does not.
            let _ = store.sweep();
        }
        Ok(store)
    }
}

fn single(reason: &idmap::SingleIdReason) -> String {
    match reason {
        idmap::SingleIdReason::NoSubordinateIds { file } => {
            format!(
                "no line for this user in `{}` (root can add one with `usermod --add-subuids`)",
                file.display()
            )
        }
        idmap::SingleIdReason::ProgramMissing { program } => {
            format!("`{program}` is not installed (package `uidmap` or `shadow-utils`)")
        }
        idmap::SingleIdReason::ProgramFailed { message } => message.trim().to_owned(),
    }
}

fn data_home() -> Result<PathBuf, CliError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share"))).ok_or_else(
        || {
            CliError::new("neither XDG_DATA_HOME nor HOME is set")
                .hint("say where to keep images with `--root DIR`")
        },
    )
}
