//! Process 1 of a container with `--init`: forwards signals to the command and reaps what is orphaned.

use mica_sys::process;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::container_init::Lines;

/// Stays as long as the command `child` lives and ends with its exit code, 128 and the number for a signal.
pub(crate) fn run(child: Pid, lines: Lines) -> ! {
    process::block_signals();
    // Its copy would keep the helper from seeing the execution of the command.
    drop(lines);
    // This is still the host's program: nobody in the container may look into it (CVE-2019-5736).
    let _ = process::set_dumpable(false);
    let _ = process::close_all_but(&[]);
    let _ = rustix::thread::set_name(c"mica-init");
    loop {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == child {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                process::exit_now(status.exit_status().or(signal).unwrap_or(125));
            }
        }
        let signal = process::next_signal();
        if signal != libc::SIGCHLD
            && let Some(signal) = Signal::from_named_raw(signal)
        {
            let _ = rustix::process::kill_process(child, signal);
        }
    }
}
