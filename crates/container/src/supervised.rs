//! A container that the caller watches over: its output comes as bytes, its time is limited, its files may be served.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use mica_network::NetworkNamespace;
use mica_runtime::{ExitStatus, Running};
use mica_sys::error::ErrorAt;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::Result;
use crate::launch::{Context, Launched};

/// Output that is read at once.
const READ_BYTES_MAX: usize = 64 * 1024;
const KILL: i32 = 9;

/// A running container without a terminal. Dropping it ends it, and takes back all that it was given.
#[derive(Debug)]
pub struct Supervised<'a> {
    context: Context<'a>,
    /// `None` once it was finished.
    launched: Option<Launched>,
    warnings: Vec<String>,
    pid: i32,
}

/// Starts a container that was made with neither terminal nor open input. With `lower`, a mount that is attached nowhere,
/// its files are those of the mount in place of the image's layers.
pub fn supervise<'a>(context: Context<'a>, lower: Option<BorrowedFd<'_>>) -> Result<Supervised<'a>> {
    let mut launched = context.launch_over(lower, None)?;
    let warnings = std::mem::take(&mut launched.warnings);
    let pid = launched.running.pid();
    Ok(Supervised { context, launched: Some(launched), warnings, pid })
}

impl Supervised<'_> {
    /// What the user should know, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The network namespace that it runs in.
    pub fn network(&self) -> Result<NetworkNamespace> {
        Ok(NetworkNamespace::of_process(self.pid)?)
    }

    /// Its own address, if it has a network of its own that reaches out.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.launched.as_ref()?.network.ipv4
    }

    /// Hands its output on, both streams as one, for `time` at most; answers its exit code once it has ended and all of
    /// its output is out.
    pub fn wait(&mut self, time: Duration, output: &mut dyn FnMut(&[u8])) -> Result<Option<i32>> {
        let Some(launched) = &mut self.launched else { return Ok(None) };
        let deadline = Instant::now().checked_add(time);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if read_some(launched, true, left, output)? {
                while read_some(launched, false, Some(Duration::ZERO), output)? {}
                let status = launched.running.wait()?;
                return self.finish(status).map(Some);
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let running = self.launched.as_ref().map(|launched| &launched.running);
        Ok(running.map_or(Ok(()), |running: &Running| running.kill(signal))?)
    }

    /// Whether a signal can make a difference. The first process of a container is spared those that it neither handles
    /// nor blocks; whether it does is asked of the kernel, so the answer is of this moment.
    pub fn heeds(&self, signal: i32) -> bool {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.pid)) else { return true };
        let Some(bit) = signal.checked_sub(1).and_then(|shift| 1u64.checked_shl(shift.cast_unsigned()))
        else {
            return true;
        };
        heeding(&status).is_none_or(|mask| mask & bit != 0)
    }

    fn finish(&mut self, status: ExitStatus) -> Result<i32> {
        match self.launched.take() {
            Some(launched) => self.context.finish(launched, status),
            None => Ok(status.code()),
        }
    }
}

impl Drop for Supervised<'_> {
    fn drop(&mut self) {
        let Some(launched) = &mut self.launched else { return };
        let _ = launched.running.kill(KILL);
        if let Ok(status) = launched.running.wait() {
            let _ = self.finish(status);
        }
    }
}

/// Reads what is there, waiting for it as long as `time` says. With `end`, `true` when the first process has ended; else
/// `true` as long as there was something to read.
fn read_some(
    launched: &mut Launched,
    end: bool,
    time: Option<Duration>,
    output: &mut dyn FnMut(&[u8]),
) -> Result<bool> {
    let Launched { running, streams, .. } = launched;
    let pidfd = running.pidfd();
    let mut polls = Vec::with_capacity(3);
    let mut sources = Vec::with_capacity(3);
    for (position, stream) in streams.outputs.iter().enumerate() {
        if let Some(stream) = stream {
            polls.push(PollFd::new(stream, PollFlags::IN));
            sources.push(position);
        }
    }
    if end {
        polls.push(PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
    }
    let timeout = time.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match rustix::event::poll(&mut polls, timeout.as_ref()) {
        Err(Errno::INTR) => return Ok(!end),
        polled => polled.at("poll", "container")?,
    };
    let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
    drop(polls);
    let mut has_read = false;
    let mut buffer = vec![0; READ_BYTES_MAX];
    for (position, is_ready) in sources.iter().zip(&ready) {
        let Some(stream) = streams.outputs[*position].as_ref().filter(|_| *is_ready) else { continue };
        has_read = true;
        match rustix::io::read(stream, &mut buffer) {
            Ok(0) => streams.outputs[*position] = None,
            Ok(count) => output(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(mica_sys::Error::new("read", "output of a container", error).into()),
        }
    }
    // Output goes first: there may be more of it in the pipe when the process has ended.
    Ok(if end { ready.last() == Some(&true) && ready.len() > sources.len() } else { has_read })
}

/// The signals that a process handles or blocks, of its `/proc/PID/status`.
fn heeding(status: &str) -> Option<u64> {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Some(mask("SigBlk:")? | mask("SigCgt:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read() {
        let check = |text: &str, expect| assert_eq!(heeding(text), expect, "{text:?}");
        check(
            "Name:\tsh\nSigBlk:\t0000000000000001\nSigIgn:\tf0\nSigCgt:\t0000000180014002\n",
            Some(0x1_8001_4003),
        );
        check("SigBlk:\t0\n", None);
        check("SigBlk:\t0\nSigCgt:\tx\n", None);
        check("", None);
    }
}
