//! Leases of addresses: one file per address, locked by whoever uses it.
//!
//! ```text
//! <state_dir>/
//!     lock              held for the few milliseconds of an attach, a detach, a sweep
//!     next              where the search for an address goes on
//!     leases/10.88.0.2  locked while leased; holds the container's ID, for people
//! ```
//!
//! The lock is the lease, the file only its place: the kernel drops the lock when the last process that has the
//! file open ends, however it ends. Files are made, taken and removed under `lock` only, so that nobody locks a file
//! that was just unlinked.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mica_sys::error::ErrorAt;

use crate::error::{Error, Result};
use crate::subnet::Ipv4Subnet;

/// An address is the longest thing that `next` holds.
const NEXT_BYTES_MAX: u64 = 64;

/// The directory of leases.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
}

/// The state directory while no other process changes anything in it.
#[derive(Debug)]
pub(crate) struct LockedState<'a> {
    state: &'a StateDir,
    _lock: File,
}

/// A leased address; dropping it lets go of the address, and leaves an empty place behind.
#[derive(Debug)]
pub(crate) struct Lease {
    pub address: Ipv4Addr,
    pub file: File,
}

impl StateDir {
    /// Makes the directory if it is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let leases = path.join("leases");
        DirBuilder::new().recursive(true).mode(0o700).create(&leases).at("mkdir", &leases)?;
        Ok(Self { path: path.to_path_buf() })
    }

    /// Waits for its turn.
    pub fn lock(&self) -> Result<LockedState<'_>> {
        let path = self.path.join("lock");
        let file = open_file(&path)?;
        loop {
            match file.lock() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.at("flock", &path)?,
            }
        }
        Ok(LockedState { state: self, _lock: file })
    }

    fn lease_path(&self, address: Ipv4Addr) -> PathBuf {
        self.path.join("leases").join(address.to_string())
    }
}

impl LockedState<'_> {
    /// Leases an address that nobody holds. The search goes on behind the address given last, so that an address
    /// rests for as long as possible before somebody else gets it.
    pub fn take(&self, subnet: Ipv4Subnet, container_id: &str) -> Result<Lease> {
        let (first, last) = subnet.container_range();
        let (first, last) = (first.to_bits(), last.to_bits());
        let next_path = self.state.path.join("next");
        let start = read_next(&next_path).filter(|next| (first..=last).contains(next)).unwrap_or(first);
        for candidate in (start..=last).chain(first..start) {
            let address = Ipv4Addr::from_bits(candidate);
            let path = self.state.lease_path(address);
            let Some(mut file) = try_lock(&path)? else { continue };
            file.set_len(0).at("ftruncate", &path)?;
            file.write_all(container_id.as_bytes()).at("write", &path)?;
            let next = Ipv4Addr::from_bits(candidate.saturating_add(1));
            fs::write(&next_path, next.to_string()).at("write", &next_path)?;
            return Ok(Lease { address, file });
        }
        Err(Error::NoFreeAddress { subnet })
    }

    /// Gives an address back.
    pub fn release(&self, lease: Lease) -> Result<()> {
        let path = self.state.lease_path(lease.address);
        remove_if_present(&path)
    }

    /// Removes the places of leases that nobody holds; returns the addresses removed and those still held.
    pub fn sweep(&self) -> Result<(Vec<Ipv4Addr>, Vec<Ipv4Addr>)> {
        let directory = self.state.path.join("leases");
        let (mut removed, mut held) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&directory).at("readdir", &directory)? {
            let entry = entry.at("readdir", &directory)?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse::<Ipv4Addr>().ok())
            else {
                continue; // not ours
            };
            match try_lock(&entry.path())? {
                Some(_file) => {
                    remove_if_present(&entry.path())?;
                    removed.push(address);
                }
                None => held.push(address),
            }
        }
        Ok((removed, held))
    }
}

fn open_file(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .at("open", path)?;
    Ok(file)
}

/// The file, locked; `None` if somebody holds it.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = open_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(mica_sys::Error::new("flock", path, error).into()),
    }
}

/// A missing, half-written or meaningless file only means that the search starts at the front.
fn read_next(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.take(NEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits)
}

fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("unlink", path)?,
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_leased_once_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        let subnet = "10.1.2.0/29".parse().unwrap();
        let take = || state.lock().unwrap().take(subnet, "c").map(|lease| (lease.address.to_string(), lease));
        let leases: Vec<_> = (0..5).map(|_| take().unwrap()).collect();
        let addresses: Vec<_> = leases.iter().map(|(address, _)| address.as_str()).collect();
        assert_eq!(addresses, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
        assert_eq!(take().unwrap_err().to_string(), "no free address in subnet 10.1.2.0/29");

        let mut leases = leases.into_iter();
        drop(leases.next()); // its holder died
        state.lock().unwrap().release(leases.next().unwrap().1).unwrap();
        assert_eq!(take().unwrap().0, "10.1.2.2");
        assert_eq!(take().unwrap().0, "10.1.2.3");

        let (removed, held) = state.lock().unwrap().sweep().unwrap();
        assert_eq!((removed.len(), held.len()), (2, 3));
        drop(leases);
        let (removed, held) = state.lock().unwrap().sweep().unwrap();
        assert_eq!((removed.len(), held.len()), (3, 0));
    }

    #[test]
    fn a_broken_next_file_starts_at_the_front() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for text in ["", "x", "255.255.255.255", "10.1.2.7", "9.9.9.9\n"] {
            fs::write(dir.path().join("next"), text).unwrap();
            let lease = state.lock().unwrap().take("10.1.2.0/29".parse().unwrap(), "c").unwrap();
            assert_eq!(lease.address, Ipv4Addr::new(10, 1, 2, 2), "{text:?}");
            state.lock().unwrap().release(lease).unwrap();
        }
    }
}
