//! `mica version`.

use mica_oci::Platform;
use serde_json::json;

use crate::error::CliError;
use crate::format::output::print;
use crate::format::template::Template;
use crate::session::Session;

/// Flags of `mica version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `json` or a template
    #[arg(short, long)]
    format: Option<String>,
}

/// Shows the version. There is no daemon: client and server are this program, and templates of scripts ask for either.
pub(crate) fn run(args: Args, _session: &Session) -> Result<u8, CliError> {
    let host = Platform::host();
    let version = env!("CARGO_PKG_VERSION");
    let side = json!({ "Version": version, "Os": host.os, "Arch": host.architecture, "Experimental": false });
    let value = json!({ "Client": side, "Server": side });
    match args.format.as_deref() {
        Some("json") => print(&format!("{value}\n"))?,
        Some(format) if !format.is_empty() => print(&(Template::parse(format)?.apply(&value)? + "\n"))?,
        _ => print(&format!(
            "Client: mica\n Version:           {version}\n OS/Arch:           {}/{}\n",
            host.os, host.architecture
        ))?,
    }
    Ok(0)
}
