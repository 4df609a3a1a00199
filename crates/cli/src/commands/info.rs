//! `mica info`: what this mica runs on.

use serde_json::{Value, json};

use crate::advice::message_with_causes;
use crate::error::CliError;
use crate::format::output::print;
use crate::format::size::human_sum;
use crate::format::template::Template;
use crate::session::Session;

/// Flags of `mica info`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `json` or a template
    #[arg(short, long)]
    format: Option<String>,
}

/// Shows what there is.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    // First, because an ordinary user enters a user namespace for it, which must come before any thread.
    let tracing = tracing(session);
    let store = session.read_store()?;
    let containers = store.containers()?;
    let running = containers.iter().filter(|container| container.record.state.is_live()).count();
    let kernel = rustix::system::uname();
    let memory_bytes = rustix::system::sysinfo().totalram as u64;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let has_fuse = std::path::Path::new("/dev/fuse").exists();
    let tracing_reason = tracing.as_ref().err().cloned().unwrap_or_default();
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os_name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("Linux", |name| name.trim_matches('"'))
        .to_owned();
    let value = json!({
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersStopped": containers.len() - running,
        "Images": store.images()?.len(),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Driver": "overlay2",
        "KernelVersion": kernel.release().to_string_lossy(),
        "OperatingSystem": os_name,
        "OSType": "linux",
        "Architecture": kernel.machine().to_string_lossy(),
        "NCPU": cpus,
        "MemTotal": memory_bytes,
        "DockerRootDir": session.root.to_string_lossy(),
        "Rootless": session.rootless,
        "Fuse": has_fuse,
        "Tracing": if tracing.is_ok() { "fuse" } else { "no" },
        "TracingReason": tracing_reason,
    });
    match args.format.as_deref() {
        Some("json") => print(&format!("{value}\n"))?,
        Some(format) if !format.is_empty() => print(&(Template::parse(format)?.apply(&value)? + "\n"))?,
        _ => {
            let field = |name: &str| match value.get(name) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            let shown_tracing = match tracing {
                Ok(()) => "fuse".to_owned(),
                Err(reason) => format!("no ({reason})"),
            };
            let mut text = String::new();
            for (name, shown) in [
                ("Containers", field("Containers")),
                (" Running", field("ContainersRunning")),
                (" Stopped", field("ContainersStopped")),
                ("Images", field("Images")),
                ("Server Version", field("ServerVersion")),
                ("Storage Driver", field("Driver")),
                ("Tracing", shown_tracing),
                ("Kernel Version", field("KernelVersion")),
                ("Operating System", field("OperatingSystem")),
                ("OSType", field("OSType")),
                ("Architecture", field("Architecture")),
                ("CPUs", field("NCPU")),
                ("Total Memory", human_sum(memory_bytes)),
                ("Root Dir", field("DockerRootDir")),
                ("Rootless", field("Rootless")),
            ] {
                text += &format!("{name}: {shown}\n");
            }
            print(&text)?;
        }
    }
    Ok(0)
}

/// Whether what RUN steps use can be told, or why not: as a build would find it.
fn tracing(session: &Session) -> Result<(), String> {
    if session.rootless && !rustix::process::geteuid().is_root() {
        mica_sys::idmap::enter_user_namespace().map_err(|error| error.to_string())?;
    }
    mica_trace::probe().map_err(|error| message_with_causes(&error))
}
