//! Ending containers: signals, waiting, removal.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use mica_store::{Container, ContainerState, Store};
use mica_sys::error::ErrorAt;
use mica_sys::lock;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::create::{MadeContainer, remove_anonymous_volumes};
use crate::error::{ContainerError, Result};

/// SIGKILL.
const KILL: i32 = 9;
/// How long a killed container may take to be taken apart.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// What a killed container's exit code is.
const CODE_KILLED: i32 = 137;

/// Sends a signal to a running container's first process.
pub fn kill(container: &Container, signal: i32) -> Result<()> {
    let not_running = || ContainerError::NotRunning { id: container.record.id.clone() };
    let (ContainerState::Running { pid, .. } | ContainerState::Paused { pid, .. }) = container.record.state
    else {
        return Err(not_running());
    };
    let name = format!("container process {pid}");
    let pid = Pid::from_raw(pid).ok_or_else(not_running)?;
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Err(not_running()),
        Err(error) => return Err(mica_sys::Error::new("pidfd_open", name, error).into()),
    };
    // While the lock is held the number is not another process's.
    if !lock::is_held(container.lock_path())? {
        return Err(not_running());
    }
    let signal = Signal::from_named_raw(signal)
        .ok_or_else(|| mica_sys::Error::new("pidfd_send_signal", &name, rustix::io::Errno::INVAL))?;
    match rustix::process::pidfd_send_signal(&pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(mica_sys::Error::new("pidfd_send_signal", name, error).into()),
    }
}

/// Asks a container to end, and ends it after `timeout_s` (its own patience if not given; never if negative).
pub fn stop(made: &MadeContainer, signal: Option<i32>, timeout_s: Option<i64>) -> Result<()> {
    if !made.container.record.state.is_live() {
        return Ok(());
    }
    let timeout_s = timeout_s.unwrap_or(made.settings.stop_timeout_s);
    match kill(&made.container, signal.unwrap_or(made.settings.stop_signal)) {
        Err(ContainerError::NotRunning { .. }) => return Ok(()),
        result => result?,
    }
    let timeout = u64::try_from(timeout_s).map(Duration::from_secs).ok();
    if wait_for_end(&made.container, timeout)? {
        return Ok(());
    }
    end_now(&made.container)
}

/// Kills a container and waits until its monitor has taken it apart.
pub fn end_now(container: &Container) -> Result<()> {
    match kill(container, KILL) {
        Err(ContainerError::NotRunning { .. }) => {}
        result => result?,
    }
    wait_for_end(container, Some(KILL_PATIENCE))?;
    Ok(())
}

/// Waits for the monitor's end; `false` when time is up.
fn wait_for_end(container: &Container, timeout: Option<Duration>) -> Result<bool> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    while lock::is_held(container.lock_path())? {
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(true)
}

/// Waits for a container's end; answers its exit code.
pub fn wait(store: &Store, container: &Container) -> Result<i32> {
    // The file is opened first: a container that is removed as it ends leaves its code in it.
    let path = container.lock_path();
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(last_code(container)),
        Err(error) => return Err(mica_sys::Error::new("open", path, error).into()),
    };
    if let ContainerState::Exited { code, .. } = container.record.state {
        return Ok(code);
    }
    loop {
        match file.lock_shared() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => break result.at("flock", &path)?,
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text).at("read", &path)?;
    drop(file);
    if let Ok(code) = text.trim().parse() {
        return Ok(code);
    }
    let again = store.container(&container.record.id)?;
    Ok(again.map_or(CODE_KILLED, |container| last_code(&container)))
}

fn last_code(container: &Container) -> i32 {
    match container.record.state {
        ContainerState::Exited { code, .. } => code,
        ContainerState::Created => 0,
        _ => CODE_KILLED,
    }
}

/// Removes a container; a running one only with `force`. With `volumes`, also those that are its alone.
pub fn remove(store: &Store, made: &MadeContainer, force: bool, volumes: bool) -> Result<()> {
    let container = &made.container;
    if container.record.state.is_live() {
        if !force {
            return Err(ContainerError::StillRunning { id: container.record.id.clone() });
        }
        end_now(container)?;
    }
    match store.remove_container(&container.record.id) {
        // Its monitor was faster.
        Err(mica_store::StoreError::ContainerMissing(_)) if container.record.remove_on_exit => {}
        result => result?,
    }
    if volumes {
        remove_anonymous_volumes(store, &made.settings);
    }
    Ok(())
}
