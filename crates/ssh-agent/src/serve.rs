//! The socket: clients come and go until it is dropped.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use mica_sys::error::{Error, ErrorAt};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::error::AgentError;
use crate::protocol::Agent;

/// Clients at once: a parallel checkout of submodules has a dozen.
const CLIENTS_MAX: usize = 64;

/// After a client that could not be let in.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// A socket that answers for as long as this lives.
#[derive(Debug)]
pub struct Served {
    stop: OwnedFd,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
}

/// Connections that are open, so that they can be ended.
#[derive(Debug, Default)]
struct Connections {
    open: Mutex<(u64, HashMap<u64, UnixStream>)>,
}

/// Makes the socket `name` in a directory, with that owner and mode, and answers on it.
///
/// Started from a process with threads only, or one that will not fork: the threads answer until the socket is dropped.
pub fn serve(
    agent: Agent,
    directory: &Path,
    name: &str,
    mode: u32,
    owner: (u32, u32),
) -> Result<Served, AgentError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(directory, flags, Mode::empty()).at("open", directory)?;
    // The path of a socket has room for 107 bytes, and a store may stand deep.
    let short = format!("/proc/self/fd/{}/{name}", place.as_raw_fd());
    let shown = || directory.join(name);
    let listener = UnixListener::bind(short).map_err(|error| Error::new("bind", shown(), error))?;
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    rustix::fs::chownat(&place, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .at("fchownat", shown())?;
    rustix::fs::chmodat(&place, name, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())
        .at("fchmodat", shown())?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC).at("eventfd", "agent")?;
    let connections = Arc::new(Connections::default());
    let loop_stop = stop.try_clone().map_err(|error| Error::new("dup", "agent", error))?;
    let loop_connections = connections.clone();
    let thread = std::thread::Builder::new()
        .name("ssh-agent".to_owned())
        .spawn(move || accept_all(&agent, &listener, &loop_stop, &loop_connections))
        .map_err(|error| Error::new("clone", "agent", error))?;
    Ok(Served { stop, connections, thread: Some(thread) })
}

fn accept_all(agent: &Agent, listener: &UnixListener, stop: &OwnedFd, connections: &Connections) {
    std::thread::scope(|scope| {
        loop {
            let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            }
            if !fds[1].revents().is_empty() {
                return;
            }
            let Ok((client, _)) = listener.accept() else {
                // No descriptor left, say: others end meanwhile.
                std::thread::sleep(PAUSE);
                continue;
            };
            // One too many is closed at once.
            if connections.lock().1.len() >= CLIENTS_MAX {
                continue;
            }
            let talk = move || {
                let mut client = client;
                let Ok(own) = connections.add(&client) else { return };
                let other = Mutex::new(None);
                let started = |stream: &UnixStream| {
                    *other.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                        Some(connections.add(stream)?);
                    Ok(())
                };
                // Who breaks off, or speaks something else, is gone.
                let _ = agent.talk(&mut client, started);
                connections.remove(own);
                let other = other.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
                other.into_iter().for_each(|other| connections.remove(other));
            };
            let _ = std::thread::Builder::new().spawn_scoped(scope, talk);
        }
    });
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, UnixStream>)> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, stream: &UnixStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        let mut open = self.lock();
        if open.0 == u64::MAX {
            return Err(io::ErrorKind::Interrupted.into());
        }
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, stream);
        Ok(number)
    }

    fn remove(&self, number: u64) {
        self.lock().1.remove(&number);
    }

    /// Ends all, and lets nobody in any more.
    fn end(&self) {
        let mut open = self.lock();
        open.0 = u64::MAX;
        for stream in open.1.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        self.connections.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
