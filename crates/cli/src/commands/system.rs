//! `mica system ...`: what the store takes, and making it smaller.

use mica_container::ContainerError;
use mica_store::{GcOptions, Store, StoreError, Usage, UsageOf};
use serde_json::{Value, json};

use crate::commands::{image_prune, images, info};
use crate::error::CliError;
use crate::format::listing::{Column, render};
use crate::format::output::{confirm, print};
use crate::format::size::{human_size, human_sum};
use crate::format::table::Table;
use crate::session::Session;

/// Arguments of `mica system`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what images, containers, volumes and the build cache take
    Df(DfArgs),
    /// Show what this mica runs on
    Info(info::Args),
    /// Remove what is not used
    Prune(PruneArgs),
}

#[derive(Debug, clap::Args)]
struct DfArgs {
    /// `table`, `json` or a template
    #[arg(long)]
    format: Option<String>,
    /// Show each thing
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, clap::Args)]
struct PruneArgs {
    /// Remove all images that no container uses and the build cache, not just dangling images
    #[arg(short, long)]
    all: bool,
    /// Which of them: until=, label=, label!=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes that no container uses too
    #[arg(long)]
    volumes: bool,
}

/// Runs the command that is meant.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    match args.command {
        Command::Df(args) => df(&args, session),
        Command::Info(args) => info::run(args, session),
        Command::Prune(args) => prune(&args, session),
    }
}

const COLUMNS: [Column; 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

fn df(args: &DfArgs, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let usage = store.usage()?;
    if args.verbose && args.format.is_none() {
        print(&verbose(&store, &usage)?)?;
        return Ok(0);
    }
    let rows = [
        row("Images", usage.images),
        row("Containers", usage.containers),
        row("Local Volumes", usage.volumes),
        row("Build Cache", usage.cache),
    ];
    let shown = COLUMNS.map(|(field, _)| field);
    print(&render(&rows, &COLUMNS, &shown, args.format.as_deref())?)?;
    Ok(0)
}

fn row(kind: &str, of: UsageOf) -> Value {
    let reclaimable = match of.size_bytes {
        0 => human_sum(of.reclaimable_bytes),
        size_bytes => {
            let percent = u128::from(of.reclaimable_bytes) * 100 / u128::from(size_bytes);
            format!("{} ({percent}%)", human_sum(of.reclaimable_bytes))
        }
    };
    json!({
        "Active": of.active_count.to_string(),
        "Reclaimable": reclaimable,
        "Size": human_sum(of.size_bytes),
        "TotalCount": of.count.to_string(),
        "Type": kind,
    })
}

fn verbose(store: &Store, usage: &Usage) -> Result<String, CliError> {
    let summaries = store.images()?;
    let mut users = std::collections::HashMap::new();
    for diff_id in summaries.iter().flat_map(|image| &image.record.layers) {
        *users.entry(diff_id).or_insert(0_u32) += 1;
    }
    let sizes: std::collections::HashMap<_, u64> =
        store.layers()?.into_iter().map(|layer| (layer.diff_id, layer.size_bytes)).collect();
    let mut table = Table::new(&[
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    ]);
    for listed in mica_image::list(store, &mica_image::ListFilter::default())? {
        let layers =
            summaries.iter().find(|image| image.record.id == listed.id).map(|image| &image.record.layers);
        let (mut shared, mut unique) = (0, 0);
        for diff_id in layers.into_iter().flatten() {
            let size_bytes = sizes.get(diff_id).copied().unwrap_or(0);
            match users.get(diff_id) {
                Some(2..) => shared += size_bytes,
                _ => unique += size_bytes,
            }
        }
        let value = images::value_of(&listed, false);
        let cell = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut cells: Vec<String> = ["Repository", "Tag", "ID", "CreatedSince", "Size"].map(cell).to_vec();
        cells.extend([human_size(shared), human_size(unique), cell("Containers")]);
        table.push(cells);
    }
    let mut text = format!("Images space usage:\n\n{}", table.render());
    let mut table = Table::new(&["CONTAINER ID", "IMAGE", "SIZE", "NAMES"]);
    for container in store.containers()? {
        let size_bytes = mica_store::tree_size_bytes(container.path())?;
        let record = &container.record;
        let id = record.id.get(..12).unwrap_or(&record.id).to_owned();
        table.push(vec![id, record.image_name.clone(), human_size(size_bytes), record.name.clone()]);
    }
    text += &format!("\nContainers space usage:\n\n{}", table.render());
    let mut table = Table::new(&["VOLUME NAME", "LINKS", "SIZE"]);
    for volume in store.volumes()? {
        let links = store.volume_users(&volume.name)?.len().to_string();
        let size_bytes = mica_store::tree_size_bytes(&volume.data_path)?;
        table.push(vec![volume.name, links, human_size(size_bytes)]);
    }
    text += &format!("\nLocal Volumes space usage:\n\n{}", table.render());
    text += &format!("\nBuild cache usage: {}\n", human_sum(usage.cache.size_bytes));
    Ok(text)
}

fn prune(args: &PruneArgs, session: &Session) -> Result<u8, CliError> {
    let (wanted, _) = image_prune::parse(&args.filter, args.all)?;
    if !args.force {
        let mut warning = "WARNING! This will remove:\n  - all stopped containers\n".to_owned();
        warning += "  - all networks not used by at least one container\n";
        if args.volumes {
            warning += "  - all anonymous volumes not used by at least one container\n";
        }
        warning += match args.all {
            true => "  - all images without at least one container associated to them\n  - all build cache\n",
            false => "  - all dangling images\n  - unused build cache\n",
        };
        if !confirm(&warning)? {
            return Ok(0);
        }
    }
    let store = session.open_store_to_free()?;
    let mut reclaimed_bytes = 0;
    let mut text = String::new();
    for container in store.containers()? {
        let record = &container.record;
        let is_kept =
            wanted.until_unix_s.is_some_and(|until| record.created_unix_ns / 1_000_000_000 >= until);
        if record.state.is_live() || is_kept {
            continue;
        }
        let size_bytes = mica_store::tree_size_bytes(container.path())?;
        let removed = mica_container::find_container(&store, &record.id)
            .and_then(|made| mica_container::remove(&store, &made, false, false));
        match removed {
            // Started or removed by somebody else a moment ago.
            Err(
                ContainerError::StillRunning { .. }
                | ContainerError::ContainerMissing { .. }
                | ContainerError::Store(StoreError::ContainerRunning(_) | StoreError::ContainerMissing(_)),
            ) => continue,
            other => other?,
        }
        if text.is_empty() {
            text.push_str("Deleted Containers:\n");
        }
        text += &format!("{}\n", record.id);
        reclaimed_bytes += size_bytes;
    }
    if !text.is_empty() {
        text.push('\n');
    }
    if args.volumes {
        let mut volumes = String::new();
        for volume in store.volumes()? {
            // Volumes that nobody named have a random name of this form.
            let is_anonymous =
                volume.name.len() == 64 && volume.name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_anonymous || !store.volume_users(&volume.name)?.is_empty() {
                continue;
            }
            reclaimed_bytes += mica_store::tree_size_bytes(&volume.data_path)?;
            store.remove_volume(&volume.name)?;
            volumes += &format!("{}\n", volume.name);
        }
        if !volumes.is_empty() {
            text += &format!("Deleted Volumes:\n{volumes}\n");
        }
    }
    let pruned = mica_image::prune(&store, args.all, &wanted)?;
    text += &image_prune::text(&pruned);
    reclaimed_bytes += pruned.reclaimed_bytes;
    // Records of the build cache go only with all else: they are what makes the next build fast.
    let options = GcOptions {
        keep_cache: !args.all,
        cache_mounts: args.all,
        failed_steps: true,
        ..GcOptions::default()
    };
    let freed = store.gc(options)?;
    if freed.cache_records > 0 {
        text += &format!("Deleted build cache objects: {}\n\n", freed.cache_records);
    }
    reclaimed_bytes += freed.bytes;
    print(&format!("{text}Total reclaimed space: {}\n", human_sum(reclaimed_bytes)))?;
    Ok(0)
}
