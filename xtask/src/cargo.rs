//! Cargo, called for this workspace.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// A cargo command in the root of the checkout.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(arguments);
    command
}

/// Runs a building command and returns the programs that it made.
pub fn executables(arguments: &[&str]) -> Result<Vec<PathBuf>, String> {
    let mut command = cargo(arguments);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let output =
        command.spawn().and_then(|child| child.wait_with_output()).map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("`cargo {}` failed", arguments.join(" ")));
    }
    // One JSON object a line. The path is the only thing needed of them, and no path of ours holds a quote.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split("\"executable\":\"").nth(1)?.split('"').next());
    Ok(paths.map(PathBuf::from).collect())
}
