//! Who watches over a running container: this process in the foreground, or one of its own in the background.
//!
//! A background monitor is this program again, with a socket as standard input. It says there that the command runs
//! or why it does not; who started it may then stay as an attached client, or leave.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mica_store::{Container, Store};
use mica_sys::error::ErrorAt;
use mica_sys::signal::SignalReader;
use rustix::fs::{Mode, OFlags};

use crate::client::{AttachOptions, Attached};
use crate::create::find_container;
use crate::error::{ContainerError, Result};
use crate::frame::Kind;
use crate::launch::Context;
use crate::pump::{Client, FORWARDED_SIGNALS, Pump};

/// The name a monitor is executed under.
const MONITOR_NAME: &str = "mica-monitor";
/// The socket by which others attach, in the container's directory.
const SOCKET_NAME: &str = "attach";

/// Runs the container with this process as its monitor, on this process's streams, to its end. Not for terminals.
pub fn run_in_foreground(
    context: &Context<'_>,
    forward_signals: bool,
    warn: impl FnMut(&str),
) -> Result<i32> {
    // Before any thread is started: those must not take the signals.
    let signals = match forward_signals {
        true => Some(SignalReader::new(FORWARDED_SIGNALS)?),
        false => None,
    };
    let mut launched = context.launch(None)?;
    launched.warnings.iter().map(String::as_str).for_each(warn);
    let mut pump = Pump {
        streams: std::mem::take(&mut launched.streams),
        to_own_streams: true,
        from_own_stdin: context.settings.stdin_open,
        signals,
        ..Pump::default()
    };
    let status = pump.run(&mut launched.running, &mut launched.log)?;
    drop(pump);
    context.finish(launched, status)
}

/// Starts the container with a monitor of its own. With `attach` it stays connected to this process's streams.
pub fn run_in_background(
    context: &Context<'_>,
    attach: Option<AttachOptions>,
    mut warn: impl FnMut(&str),
) -> Result<Attached> {
    let id = &context.container.record.id;
    let (ours, theirs) = UnixStream::pair().at("socketpair", "monitor")?;
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let (rows, columns) = size.map_or((0, 0), |size| (size.ws_row, size.ws_col));
    let mut child = Command::new("/proc/self/exe")
        .arg0(MONITOR_NAME)
        .arg(context.store.root())
        .arg(id)
        .arg(if context.rootless { "rootless" } else { "root" })
        .arg(if attach.is_some() { "attached" } else { "detached" })
        .arg(format!("{rows}x{columns}"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .at("spawn", "/proc/self/exe")?;
    let result = crate::client::attach(ours, id, attach, &mut warn);
    if !matches!(result, Ok(Attached::Detached)) {
        let _ = child.wait();
    }
    result
}

/// Connects to a container that has a monitor of its own.
pub(crate) fn connect(container: &Container) -> Result<UnixStream> {
    let directory = open_directory(container.path())?;
    UnixStream::connect(socket_path(&directory))
        .map_err(|_| ContainerError::NotAttachable { id: container.record.id.clone() })
}

/// Connects this process's streams to a running container, until it ends or the user leaves it.
pub fn attach(container: &Container, options: AttachOptions) -> Result<Attached> {
    if !container.record.state.is_live() {
        return Err(ContainerError::NotRunning { id: container.record.id.clone() });
    }
    let stream = connect(container)?;
    crate::client::attach(stream, &container.record.id, Some(options), &mut |_| {})
}

/// Becomes a container's monitor if this process was executed as one, and then never returns. To be called first
/// thing in `main`.
pub fn monitor_main_if_requested() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name != MONITOR_NAME) {
        return;
    }
    let arguments: Vec<_> = arguments.collect();
    let [root, id, rootless, attached, size] = arguments.as_slice() else { std::process::exit(125) };
    let stdin = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3);
    let (Some(id), Ok(stdin)) = (id.to_str(), stdin) else { std::process::exit(125) };
    // The original must not keep the socket open once the client is gone.
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    let _ = rustix::process::setsid();
    let size = size.to_str().and_then(|size| {
        let (rows, columns) = size.split_once('x')?;
        Some((rows.parse().ok()?, columns.parse().ok()?)).filter(|(rows, _)| *rows > 0)
    });
    let Ok(client) = Client::new(UnixStream::from(stdin)) else { std::process::exit(125) };
    let code = run_monitor(Path::new(root), id, rootless == "rootless", attached == "attached", size, client);
    std::process::exit(if code == 0 { 0 } else { 1 });
}

fn run_monitor(
    root: &Path,
    id: &str,
    rootless: bool,
    attached: bool,
    size: Option<(u16, u16)>,
    mut client: Client,
) -> i32 {
    let result = start(root, id, rootless, size);
    let (store, made, launched, mut pump) = match result {
        Ok(parts) => parts,
        Err(error) => {
            let payload = serde_json::to_vec(&(error.exit_code(), error.to_string())).unwrap_or_default();
            client.send(Kind::Failed, &payload);
            client.finish();
            return 1;
        }
    };
    let mut launched = launched;
    client.send(Kind::Started, &serde_json::to_vec(&launched.warnings).unwrap_or_default());
    if attached {
        pump.clients.push(client);
    } else {
        client.finish();
    }
    let context = Context { store: &store, container: &made.container, settings: &made.settings, rootless };
    pump.streams = std::mem::take(&mut launched.streams);
    let Ok(status) = pump.run(&mut launched.running, &mut launched.log) else { return 1 };
    let clients = std::mem::take(&mut pump.clients);
    drop(pump);
    let _ = std::fs::remove_file(made.container.path().join(SOCKET_NAME));
    let outcome = context.finish(launched, status);
    for mut client in clients {
        client.send(Kind::Exited, &status.code().to_le_bytes());
        client.finish();
    }
    i32::from(outcome.is_err())
}

type Parts = (Store, crate::create::MadeContainer, crate::launch::Launched, Pump);

fn start(root: &Path, id: &str, rootless: bool, size: Option<(u16, u16)>) -> Result<Parts> {
    let signals = SignalReader::new(FORWARDED_SIGNALS)?;
    let store = Store::open(root)?;
    let made = find_container(&store, id)?;
    let directory = open_directory(made.container.path())?;
    let _ = std::fs::remove_file(made.container.path().join(SOCKET_NAME));
    let listener =
        UnixListener::bind(socket_path(&directory)).at("bind", made.container.path().join(SOCKET_NAME))?;
    let context = Context { store: &store, container: &made.container, settings: &made.settings, rootless };
    let launched = context.launch(size)?;
    let pump = Pump { signals: Some(signals), listener: Some(listener), ..Pump::default() };
    Ok((store, made, launched, pump))
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty()).at("open", path)?)
}

/// By way of a descriptor: the address of a unix socket has room for 107 bytes only.
fn socket_path(directory: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_fd().as_raw_fd())
}
