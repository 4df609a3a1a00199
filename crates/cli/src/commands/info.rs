//! `mica info`: what this mica runs on.

use serde_json::{Value, json};

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
    let store = session.read_store()?;
    let containers = store.containers()?;
    let running = containers.iter().filter(|container| container.record.state.is_live()).count();
    let kernel = rustix::system::uname();
    let memory_bytes = rustix::system::sysinfo().totalram as u64;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let has_fuse = std::path::Path::new("/dev/fuse").exists();
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
            let inputs = match has_fuse {
                true => "traced (/dev/fuse)",
                false => "not traced: there is no /dev/fuse",
            };
            let mut text = String::new();
            for (name, shown) in [
                ("Containers", field("Containers")),
                (" Running", field("ContainersRunning")),
                (" Stopped", field("ContainersStopped")),
                ("Images", field("Images")),
                ("Server Version", field("ServerVersion")),
                ("Storage Driver", field("Driver")),
                ("Inputs of RUN", inputs.to_owned()),
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
