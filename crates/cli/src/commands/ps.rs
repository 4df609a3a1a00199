//! `mica ps`: containers as a table.

use std::collections::BTreeMap;

use clap::Args;
use mica_container::{MountSource, Settings, find_image, read_bound_ports};
use mica_store::{Container, ContainerState, Store, tree_size_bytes};
use serde_json::{Value, json};

use crate::commands::filter;
use crate::error::CliError;
use crate::format::ago::{date, human_duration, now_unix_s};
use crate::format::listing::{Column, render_with_labels};
use crate::format::output::print;
use crate::format::size::human_size;
use crate::session::Session;

/// Longest command shown, without `--no-trunc`.
const COMMAND_CHARS_MAX: usize = 20;

/// List containers
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut anything
    #[arg(long)]
    no_trunc: bool,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
    /// The one made last
    #[arg(short, long)]
    latest: bool,
    /// So many of those made last
    #[arg(short = 'n', long, value_name = "NUMBER", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Only those where this holds (`id= name= status= exited= ancestor= label= volume=`)
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Go template, `json`, or `table` and a template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

struct Row {
    container: Container,
    settings: Option<Settings>,
}

impl Row {
    fn labels(&self) -> BTreeMap<String, String> {
        self.settings.as_ref().map(|settings| settings.labels.clone()).unwrap_or_default()
    }
}

const COLUMNS: [Column; 14] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

/// `mica ps`.
pub(crate) fn ps(session: &Session, args: &PsArgs) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let filters = parse_filters(&args.filter)?;
    let asks_for_state = filters.iter().any(|(key, _)| matches!(key.as_str(), "status" | "exited"));
    let last = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()) };
    let all = args.all || last.is_some() || asks_for_state;
    let mut rows = Vec::new();
    for container in store.containers()? {
        if !all && !container.record.state.is_live() {
            continue;
        }
        let settings = Settings::parse(&container.record.config).ok();
        let row = Row { container, settings };
        if passes(&store, &row, &filters)? {
            rows.push(row);
        }
    }
    rows.truncate(last.unwrap_or(usize::MAX));
    if args.quiet {
        let lines = rows.iter().map(|row| id(row, args.no_trunc) + "\n");
        print(&lines.collect::<String>())?;
        return Ok(0);
    }
    let with_size = args.size || args.format.as_ref().is_some_and(|format| format.contains(".Size"));
    let values: Vec<Value> = rows.iter().map(|row| value_of(&store, row, args, with_size)).collect();
    let labels: Vec<BTreeMap<String, String>> = rows.iter().map(Row::labels).collect();
    let mut shown = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if args.size {
        shown.push("Size");
    }
    print(&render_with_labels(&values, &labels, &COLUMNS, &shown, args.format.as_deref())?)?;
    Ok(0)
}

/// What `--filter` knows.
const KEYS: &str = "id, name, status, exited, ancestor, label, volume";

fn parse_filters(filters: &[String]) -> Result<Vec<(String, String)>, CliError> {
    filters
        .iter()
        .map(|filter| {
            let (key, value) = filter::split(filter)?;
            if !KEYS.split(", ").any(|known| known == key) {
                return Err(filter::unknown(filter, KEYS));
            }
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Filters of one key are alternatives, but every label must be there; different keys must all hold.
fn passes(store: &Store, row: &Row, filters: &[(String, String)]) -> Result<bool, CliError> {
    let record = &row.container.record;
    let mut keys: BTreeMap<&str, bool> = BTreeMap::new();
    for (key, value) in filters {
        let holds = match key.as_str() {
            "id" => record.id.starts_with(value.as_str()),
            "name" => record.name.contains(value.trim_matches(['^', '$', '/'])),
            "status" => state_name(&record.state) == value,
            "exited" => {
                matches!(record.state, ContainerState::Exited { code, .. } if code.to_string() == *value)
            }
            "ancestor" => {
                record.image_name == *value
                    || find_image(store, value).is_ok_and(|image| image.record.id == record.image)
            }
            "volume" => {
                record.volumes.contains(value)
                    || row.settings.as_ref().is_some_and(|settings| {
                        settings.mounts.iter().any(|mount| {
                            mount.target == *value
                                || matches!(&mount.source, MountSource::Bind { path, .. } if path == value)
                        })
                    })
            }
            _ => {
                let labels = row.labels();
                match value.split_once('=') {
                    Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
                    None => labels.contains_key(value),
                }
            }
        };
        let entry = keys.entry(key).or_insert(key == "label");
        *entry = if key == "label" { *entry && holds } else { *entry || holds };
    }
    Ok(keys.values().all(|holds| *holds))
}

pub(crate) fn state_name(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Paused { .. } => "paused",
        ContainerState::Exited { .. } => "exited",
    }
}

fn id(row: &Row, no_trunc: bool) -> String {
    let id = &row.container.record.id;
    if no_trunc { id.clone() } else { id.chars().take(12).collect() }
}

fn status_text(state: &ContainerState, now_s: i64) -> String {
    let age = |unix_ns: i64| human_duration(now_s - unix_ns / 1_000_000_000);
    match state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running { started_unix_ns, .. } => format!("Up {}", age(*started_unix_ns)),
        ContainerState::Paused { started_unix_ns, .. } => format!("Up {} (Paused)", age(*started_unix_ns)),
        ContainerState::Exited { code, finished_unix_ns: Some(finished), .. } => {
            format!("Exited ({code}) {} ago", age(*finished))
        }
        ContainerState::Exited { code, .. } => format!("Exited ({code})"),
    }
}

fn command_text(argv: &[String], no_trunc: bool) -> String {
    let command = argv.join(" ");
    let is_long = command.chars().count() > COMMAND_CHARS_MAX;
    if no_trunc || !is_long {
        return format!("\"{command}\"");
    }
    format!("\"{}…\"", command.chars().take(COMMAND_CHARS_MAX - 1).collect::<String>())
}

fn ports_text(row: &Row) -> String {
    let Some(settings) = row.settings.as_ref().filter(|_| row.container.record.state.is_live()) else {
        return String::new();
    };
    let bound = if settings.ports.is_empty() { Vec::new() } else { read_bound_ports(&row.container) };
    let mut texts: Vec<String> = bound
        .iter()
        .map(|port| {
            let host = std::net::SocketAddr::new(port.host_ip, port.host_port);
            format!("{host}->{}/{}", port.container_port, port.protocol)
        })
        .collect();
    let is_bound = |exposed: &str| {
        bound.iter().any(|port| format!("{}/{}", port.container_port, port.protocol) == exposed)
    };
    texts.extend(settings.exposed.iter().filter(|exposed| !is_bound(exposed)).cloned());
    texts.join(", ")
}

fn image_text(store: &Store, row: &Row, no_trunc: bool) -> String {
    let record = &row.container.record;
    // A name that leads elsewhere by now would mislead.
    match find_image(store, &record.image_name) {
        Ok(image) if image.record.id == record.image => record.image_name.clone(),
        _ => {
            let id = record.image.to_string();
            let hex = id.strip_prefix("sha256:").unwrap_or(&id);
            if no_trunc { id.clone() } else { hex.chars().take(12).collect() }
        }
    }
}

fn value_of(store: &Store, row: &Row, args: &PsArgs, with_size: bool) -> Value {
    let record = &row.container.record;
    let now_s = now_unix_s();
    let created_s = record.created_unix_ns.div_euclid(1_000_000_000);
    let settings = row.settings.as_ref();
    let mounts: Vec<String> = settings
        .map(|settings| settings.mounts.as_slice())
        .unwrap_or_default()
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Bind { path, .. } => Some(path.clone()),
            MountSource::Volume { name, anonymous, .. } if *anonymous && !args.no_trunc => {
                Some(format!("{}…", name.chars().take(14).collect::<String>()))
            }
            MountSource::Volume { name, .. } => Some(name.clone()),
            MountSource::Tmpfs { .. } => None,
        })
        .collect();
    let labels: Vec<String> =
        row.labels().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let size = if with_size {
        let own = tree_size_bytes(&row.container.path().join("upper")).unwrap_or(0);
        let image = store.image(&record.image).ok().flatten().map_or(0, |image| image.size_bytes);
        format!("{} (virtual {})", human_size(own), human_size(own + image))
    } else {
        "0B".to_owned()
    };
    let network = settings.map_or(String::new(), |settings| format!("{:?}", settings.network).to_lowercase());
    let argv = settings.map(|settings| settings.argv.as_slice()).unwrap_or_default();
    json!({
        "Command": command_text(argv, args.no_trunc),
        "CreatedAt": date(created_s),
        "ID": id(row, args.no_trunc),
        "Image": image_text(store, row, args.no_trunc),
        "Labels": labels.join(","),
        "LocalVolumes": record.volumes.len().to_string(),
        "Mounts": mounts.join(","),
        "Names": record.name.clone(),
        "Networks": network,
        "Ports": ports_text(row),
        "RunningFor": format!("{} ago", human_duration(now_s - created_s)),
        "Size": size,
        "State": state_name(&record.state),
        "Status": status_text(&record.state, now_s),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_and_cut() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(command_text(&words("sh -c x"), false), "\"sh -c x\"");
        assert_eq!(command_text(&words("/bin/sh -c 01234567890"), false), "\"/bin/sh -c 01234567…\"");
        assert_eq!(command_text(&words("/bin/sh -c 01234567890"), true), "\"/bin/sh -c 01234567890\"");
    }

    #[test]
    fn states_are_told_with_their_age() {
        let check = |state, expect: &str| assert_eq!(status_text(&state, 1000), expect);
        let second = 1_000_000_000;
        check(ContainerState::Created, "Created");
        check(ContainerState::Running { pid: 1, started_unix_ns: 990 * second }, "Up 10 seconds");
        let exited = |finished_unix_ns| ContainerState::Exited {
            code: 3,
            started_unix_ns: None,
            finished_unix_ns,
            is_out_of_memory: false,
        };
        check(exited(Some(880 * second)), "Exited (3) 2 minutes ago");
        check(exited(None), "Exited (3)");
    }
}
