//! `mica start`: made or ended containers run again.

use clap::Args;
use mica_container::{AttachOptions, Attached, Context, find_container, run_in_background};
use mica_store::Store;

use crate::commands::run::{exit_code, explain, print_line, warn};
use crate::error::CliError;
use crate::session::Session;

/// Start one or more stopped containers
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Stay attached to its output
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `mica start`.
pub(crate) fn start(session: &Session, args: &StartArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    let attached = args.attach || args.interactive;
    if attached && args.containers.len() > 1 {
        return Err(CliError::new("you cannot start and attach multiple containers at once"));
    }
    mica_container::sweep(&store, session.rootless)?;
    for_each(&args.containers, |name| {
        let made = find_container(&store, name).map_err(explain)?;
        if made.container.record.state.is_live() {
            if !attached {
                print_line(name);
            }
            return Ok(0);
        }
        let context = Context {
            store: &store,
            container: &made.container,
            settings: &made.settings,
            rootless: session.rootless,
        };
        let options = AttachOptions {
            stdin: args.interactive && made.settings.stdin_open,
            tty: made.settings.tty,
            forward_signals: true,
        };
        match run_in_background(&context, attached.then_some(options), warn).map_err(explain)? {
            Attached::Exited(code) => Ok(exit_code(code)),
            Attached::Detached => {
                if !attached {
                    print_line(name);
                }
                Ok(0)
            }
        }
    })
}

/// Does the same to each container, tells each error, and goes on: docker's way with lists. The code is that of the
/// last that was not zero, 1 for an error.
pub(crate) fn for_each(
    names: &[String],
    mut act: impl FnMut(&str) -> Result<u8, CliError>,
) -> Result<u8, CliError> {
    let mut code = 0;
    let mut failed = None::<CliError>;
    for name in names {
        match act(name) {
            Ok(0) => {}
            Ok(other) => code = other,
            Err(error) => {
                if let Some(error) = failed.replace(error.code(1)) {
                    let _ = error.report();
                }
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(code),
    }
}
