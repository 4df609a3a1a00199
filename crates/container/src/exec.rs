//! Further processes in a running container.

use mica_runtime::ProcessSpec;
use mica_runtime::spec::UserSpec;
use mica_store::ContainerState;
use mica_sys::signal::SignalReader;

use crate::client::RawTerminal;
use crate::create::MadeContainer;
use crate::error::{ContainerError, Result};
use crate::launch::{adopt_terminal, make_streams, process_spec};
use crate::process;
use crate::pump::{FORWARDED_SIGNALS, Pump, RESIZED};

/// What the user gives to `exec`.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// Command and arguments.
    pub argv: Vec<String>,
    /// Changes of the environment.
    pub env: Vec<String>,
    /// Another working directory.
    pub workdir: Option<String>,
    /// Another user.
    pub user: Option<String>,
    /// With a terminal.
    pub tty: bool,
    /// With our input.
    pub interactive: bool,
    /// With all capabilities.
    pub privileged: bool,
    /// Container of a user namespace.
    pub rootless: bool,
}

/// Runs a command in a running container on this process's streams; answers its exit code.
pub fn exec(made: &MadeContainer, options: &ExecOptions) -> Result<i32> {
    let (ContainerState::Running { pid, .. } | ContainerState::Paused { pid, .. }) =
        made.container.record.state
    else {
        return Err(ContainerError::NotRunning { id: made.container.record.id.clone() });
    };
    let signals = match options.tty {
        true => &[RESIZED, 15][..],
        false => FORWARDED_SIGNALS,
    };
    let signals = SignalReader::new(signals)?;
    let (stdio, mut streams) = make_streams(options.tty, options.interactive)?;
    let mut created = mica_runtime::exec_in(pid, &process(made, options), options.rootless, stdio)?;
    if let Some(terminal) = created.terminal.take() {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        adopt_terminal(&terminal, size.map(|size| (size.ws_row, size.ws_col)))?;
        streams.terminal = Some(terminal);
    }
    let mut running = created.start()?;
    let _raw = if options.tty && options.interactive { RawTerminal::new() } else { None };
    let mut pump = Pump {
        streams,
        to_own_streams: true,
        from_own_stdin: options.interactive,
        signals: Some(signals),
        ..Pump::default()
    };
    Ok(pump.run(&mut running, &mut None)?.code())
}

fn process(made: &MadeContainer, options: &ExecOptions) -> ProcessSpec {
    let mut spec = process_spec(&made.settings);
    spec.argv.clone_from(&options.argv);
    spec.terminal = options.tty;
    spec.privileged |= options.privileged;
    if let Some(workdir) = &options.workdir {
        spec.cwd.clone_from(workdir);
    }
    if let Some(user) = &options.user {
        spec.user = UserSpec::Names(user.clone());
    }
    let host = |name: &str| std::env::var(name).ok();
    spec.env =
        process::environment(&made.settings.env, &options.env, &made.settings.hostname, options.tty, host);
    spec
}
