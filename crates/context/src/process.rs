//! A program of the host that is asked something: its output bounded, ended with the build.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// Bytes of each stream that are kept; the rest is read and dropped.
const OUTPUT_SIZE_BYTES_MAX: usize = 4 << 20;
/// How often is looked whether the build was told to stop.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a program left.
pub(crate) struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a program to its end. `None` when the build was told to stop: it and what it started have been ended.
pub(crate) fn run(command: &mut Command, stopped: &dyn Fn() -> bool) -> io::Result<Option<Output>> {
    // A group of its own, so that the helpers that it starts can be ended with it.
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let mut streams = [
        Stream::new(child.stdout.take().map(OwnedFd::from)),
        Stream::new(child.stderr.take().map(OwnedFd::from)),
    ];
    while streams.iter().any(|stream| stream.file.is_some()) {
        if stopped() {
            end(&mut child);
            return Ok(None);
        }
        let ready: Vec<bool> = {
            let flags = PollFlags::IN;
            let mut polled: Vec<PollFd<'_>> =
                streams.iter().filter_map(|stream| Some(PollFd::new(stream.file.as_ref()?, flags))).collect();
            match poll(&mut polled, Some(&STEP)) {
                // What it started may live on and keep the streams open; it has said what it had to say.
                Ok(0) if child.try_wait()?.is_some() => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    end(&mut child);
                    return Err(error.into());
                }
            }
            polled.iter().map(|polled| !polled.revents().is_empty()).collect()
        };
        let open = streams.iter_mut().filter(|stream| stream.file.is_some());
        for (stream, _) in open.zip(ready).filter(|(_, ready)| *ready) {
            if let Err(error) = stream.read() {
                end(&mut child);
                return Err(error);
            }
        }
    }
    let status = child.wait()?;
    let [stdout, stderr] = streams.map(|stream| stream.kept);
    Ok(Some(Output { status, stdout, stderr }))
}

fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone is what it should be.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

struct Stream {
    file: Option<File>,
    kept: Vec<u8>,
}

impl Stream {
    fn new(fd: Option<OwnedFd>) -> Self {
        Self { file: fd.map(File::from), kept: Vec::new() }
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut buffer = [0; 16 << 10];
        match file.read(&mut buffer) {
            Ok(0) => self.file = None,
            Ok(count) => {
                let room = OUTPUT_SIZE_BYTES_MAX - self.kept.len();
                self.kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_run_to_its_end() {
        let shell = |text: &str, stopped: &dyn Fn() -> bool| {
            let output = run(Command::new("sh").args(["-c", text]), stopped).unwrap()?;
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            Some((output.status.code(), text(output.stdout), text(output.stderr)))
        };
        let never = || false;
        assert_eq!(shell("echo a; echo b >&2; exit 3", &never), Some((Some(3), "a\n".into(), "b\n".into())));
        // Somebody else has the streams now.
        let (code, pid, _) = shell("sleep 1000 & echo $!", &never).unwrap();
        assert_eq!(code, Some(0));
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        assert_eq!(shell("sleep 1000", &|| true), None);
        let large = shell("head -c 8000000 /dev/zero", &never).unwrap();
        assert_eq!((large.0, large.1.len()), (Some(0), OUTPUT_SIZE_BYTES_MAX));
    }
}
