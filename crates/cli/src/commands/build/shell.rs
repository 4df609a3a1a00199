//! `--debug`: a shell in the state that a failed step left, while its secrets are at hand.

use std::io::IsTerminal;

use mica_build::{BuildError, BuildRequest, StepError};
use mica_store::Store;

use crate::commands::debug;
use crate::error::CliError;
use crate::session::Session;

use super::args::Args;

/// Whether a shell is to be opened. Without a terminal it would read what was meant for something else; scripts for docker
/// give the flag all the same, where it only means more words.
pub(super) fn is_wanted(args: &Args) -> bool {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if args.debug && !is_terminal {
        eprintln!(
            "warning: `--debug` opens a shell, which needs a terminal; there is none, so it is not heeded"
        );
    }
    args.debug && is_terminal
}

/// The name of the state that a failed step left.
pub(super) fn kept(error: &BuildError) -> Option<String> {
    let BuildError::Step { cause, .. } = error else { return None };
    match &**cause {
        StepError::Exit { kept, .. } => kept.clone(),
        _ => None,
    }
}

/// Tells of the failure, opens the shell, and answers the exit code of the failure.
pub(super) fn open(
    error: &CliError,
    id: &str,
    store: &Store,
    request: &BuildRequest,
    session: &Session,
) -> Result<u8, CliError> {
    error.report();
    if let Err(error) = debug::open_kept(session, store, id, &request.secrets, &request.ssh) {
        error.report();
    }
    Ok(error.code)
}
