//! A served tree from mount to end: the device, the mount, the thread that answers.
//!
//! The thread owns the device. When it ends, however it ends, the device is closed, and the kernel fails everything that is
//! still asked with `ENOTCONN`: a step never waits for an answer that cannot come.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use mica_tree::MergedIndex;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Fault, ServeError};
use crate::protocol::{Answer, READ_BYTES_MAX, REQUEST_BYTES_MAX, Request};
use crate::record::TreeUse;
use crate::served::{Files, Served as Answering};
use crate::value::Contents;
use crate::view::{Owners, View};

/// How long the end of the thread is waited for. It ends at once, unless it stands in a read of a broken disk.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What can be chosen for a server.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Most paths that are noted. A step that uses more goes on unrecorded, in bounded memory.
    pub limit_uses: usize,
}

impl Default for ServeOptions {
    /// Half a million uses: far more than any step that was measured.
    fn default() -> Self {
        Self { limit_uses: 500_000 }
    }
}

/// A tree that is being served.
#[derive(Debug)]
pub struct Served {
    // In the order in which they go away when this is dropped: the mount, then the thread.
    mount: OwnedFd,
    stop: OwnedFd,
    requests: Arc<AtomicU64>,
    first: mpsc::Receiver<Result<(), Errno>>,
    end: mpsc::Receiver<Result<Answering, Fault>>,
}

/// What was seen of a tree.
#[derive(Debug)]
pub struct Observed {
    /// All that was used; `None` after a fault or an overflow.
    pub uses: Option<TreeUse>,
    /// What went wrong, if anything.
    pub fault: Option<Fault>,
    /// More was used than [`ServeOptions::limit_uses`].
    pub overflow: bool,
    /// How many questions the kernel asked.
    pub requests: u64,
}

/// Serves a tree in a mount that is attached nowhere yet. In a user namespace, call it after entering.
pub fn serve(
    tree: Arc<MergedIndex>,
    files: Arc<dyn Files>,
    options: ServeOptions,
) -> Result<Served, ServeError> {
    let owners = Owners::of_this_process().map_err(ServeError::Start)?;
    let device = open_device()?;
    let read_bytes_max = u32::try_from(READ_BYTES_MAX).unwrap_or(u32::MAX);
    let mount = mica_sys::mount::new_fuse(device.as_fd(), read_bytes_max).map_err(ServeError::Mount)?;
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let stop = rustix::event::eventfd(0, flags).map_err(|error| ServeError::Start(error.into()))?;
    let stopped = stop.try_clone().map_err(ServeError::Start)?;
    let requests = Arc::new(AtomicU64::new(0));
    let counter = requests.clone();
    let (tell_first, first) = mpsc::sync_channel(1);
    let (tell_end, end) = mpsc::sync_channel(1);
    let serve = move || {
        let answering = Answering::new(View::new(tree, owners), files, options.limit_uses);
        let result = answer_all(&device, &stopped, answering, &counter, &tell_first);
        // Before anybody learns that it is over.
        drop(device);
        let _ = tell_end.send(result);
    };
    std::thread::Builder::new().name("served tree".into()).spawn(serve).map_err(ServeError::Start)?;
    Ok(Served { mount, stop, requests, first, end })
}

fn open_device() -> Result<OwnedFd, ServeError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|errno| match errno {
        // ENODEV and ENXIO: the file is there, the module is not.
        Errno::NOENT | Errno::NODEV | Errno::NXIO => ServeError::NoDevice,
        Errno::ACCESS | Errno::PERM => ServeError::DeviceDenied,
        errno => ServeError::Device(errno.into()),
    })
}

/// Answers until told to stop.
///
/// What tells it is a descriptor of its own, though waiting for two costs a call more for each request. A question to the
/// mount would wake it too; but if this process is killed just then, the one who asks waits for the answer of a thread that
/// is dead, holds the device open, and neither ever ends. So nothing in this process asks the mount anything.
fn answer_all(
    device: &OwnedFd,
    stop: &OwnedFd,
    mut answering: Answering,
    requests: &AtomicU64,
    first: &mpsc::SyncSender<Result<(), Errno>>,
) -> Result<Answering, Fault> {
    let died = |what: &str, error: &dyn std::fmt::Display| Fault::Died { reason: format!("{what}: {error}") };
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let mut answer = Answer::default();
    loop {
        let mut ready = [PollFd::new(stop, PollFlags::IN), PollFd::new(device, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) if !ready[0].revents().is_empty() => return Ok(answering),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(died("waiting for requests", &errno)),
        }
        let length = match rustix::io::read(device, &mut buffer) {
            Ok(length) => length,
            // ENOENT: the one who asked was killed before the question was read.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
            // The mount is still held, so this is somebody who cut the connection.
            Err(Errno::NODEV | Errno::CONNABORTED) => {
                return Err(Fault::Died { reason: "the connection was cut".to_owned() });
            }
            Err(errno) => return Err(died("reading a request", &errno)),
        };
        requests.fetch_add(1, Ordering::Relaxed);
        mica_sys::fail_point!("trace.serve.request").map_err(|error| died("answering", &error))?;
        let Some(request) = Request::parse(&buffer[..length]) else {
            return Err(Fault::Died { reason: format!("a request of {length} bytes makes no sense") });
        };
        let Some(result) = answering.answer(&request, &mut answer) else { continue };
        // There is room for one, which is the only one that anybody waits for.
        let _ = first.try_send(result);
        match rustix::io::write(device, answer.finish(request.unique, result)) {
            // ENOENT: the one who asked was killed meanwhile. ENODEV is told by the next read.
            Ok(_) | Err(Errno::NOENT | Errno::INTR | Errno::NODEV) => {}
            Err(errno) => return Err(died("writing an answer", &errno)),
        }
    }
}

impl Served {
    /// The mount, attached nowhere. Whoever gets it attaches it in a mount namespace that ends with the step.
    pub fn mount(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Waits until the kernel has introduced itself and was understood.
    pub(crate) fn wait_for_kernel(&self) -> std::io::Result<()> {
        match self.first.recv_timeout(END_TIMEOUT) {
            Ok(result) => Ok(result?),
            Err(error) => Err(std::io::Error::other(error)),
        }
    }

    /// Ends the server, after all who looked at the tree are gone, and tells what they saw. Digests that the index lacks
    /// come from `contents`.
    pub fn finish(self, contents: &dyn Contents) -> Observed {
        self.stop();
        let end = self.end.recv_timeout(END_TIMEOUT).unwrap_or_else(|error| {
            let reason = match error {
                mpsc::RecvTimeoutError::Timeout => "it stands in a read that does not end",
                mpsc::RecvTimeoutError::Disconnected => "it panicked",
            };
            Err(Fault::Died { reason: reason.to_owned() })
        });
        let requests = self.requests.load(Ordering::Relaxed);
        let failed = |fault| Observed { uses: None, fault: Some(fault), overflow: false, requests };
        let (view, observation, fault) = match end {
            Ok(answering) => answering.into_parts(),
            Err(fault) => return failed(fault),
        };
        if let Some(fault) = fault {
            return failed(fault);
        }
        if observation.is_overflown() {
            return Observed { uses: None, fault: None, overflow: true, requests };
        }
        match observation.into_uses(&view, contents) {
            Ok(uses) => Observed { uses: Some(uses), fault: None, overflow: false, requests },
            Err((position, error)) => failed(Fault::Damaged {
                layer: view.tree.layer_at(position),
                path: view.tree.entry(position).path.clone(),
                reason: error.to_string(),
            }),
        }
    }

    fn stop(&self) {
        // A counter of 64 bits has room for the one that is written here.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // A server that nobody asks for its result ends all the same.
        self.stop();
    }
}
