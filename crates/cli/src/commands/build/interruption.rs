//! Signals that end a build.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mica_sys::signal::SignalReader;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::error::CliError;

/// Exit code of a process that a terminal's interrupt ended, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// A flag that the first SIGINT, SIGTERM or SIGHUP sets, so that the build ends in order; the second ends the process. While
/// base images are fetched, the first one does: nothing runs yet, and what has come is kept.
pub(super) fn interruption(is_fetching: Arc<AtomicUsize>) -> Result<Arc<AtomicBool>, CliError> {
    let signals = [Signal::INT, Signal::TERM, Signal::HUP].map(Signal::as_raw);
    let reader = SignalReader::new(&signals)?;
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    std::thread::spawn(move || {
        loop {
            let _ = poll(&mut [PollFd::new(&reader, PollFlags::IN)], None);
            if reader.next().is_some()
                && (seen.swap(true, Ordering::Relaxed) || is_fetching.load(Ordering::Relaxed) > 0)
            {
                std::process::exit(INTERRUPTED.into());
            }
        }
    });
    Ok(flag)
}
