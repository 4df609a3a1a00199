//! `mica buildx imagetools ...`: what a registry has under a name, and new names for it.

use mica_image::{ManifestList, RemoteManifest, remote_manifest};
use mica_oci::{Manifest, Reference, indent_json};
use mica_registry_client::Client;
use mica_transfer::{CopyOptions, Place};
use serde_json::{Map, Value, json};

use crate::commands::copy::spool_dir;
use crate::commands::manifest::copy_members;
use crate::commands::remote::{client, parse_reference};
use crate::error::CliError;
use crate::format::output::print;
use crate::format::template::Template;

/// Arguments of `imagetools`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    /// Accepted for docker's sake: there is one builder
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Give an image, or several as one index, a name in a registry
    Create(CreateArgs),
    /// Show what a registry has under a name
    Inspect(InspectArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// New name; may be given several times
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Add to what the name has
    #[arg(long)]
    append: bool,
    /// Show the manifest instead of pushing it
    #[arg(long)]
    dry_run: bool,
    /// Make an index even of one manifest
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "true",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    prefer_index: bool,
    /// Accepted for docker's sake: there is little to show
    #[arg(long, hide = true, value_name = "KIND")]
    progress: Option<String>,
    /// Images of registries; of an index, all its manifests
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// `json` or a template
    #[arg(long)]
    format: Option<String>,
    /// Show the exact bytes
    #[arg(long)]
    raw: bool,
    /// The image
    name: String,
}

/// Runs the command that is meant.
pub(crate) fn run(args: Args) -> Result<u8, CliError> {
    match args.command {
        Command::Create(args) => create(&args),
        Command::Inspect(args) => inspect(&args),
    }
}

fn create(args: &CreateArgs) -> Result<u8, CliError> {
    let parse = |names: &[String]| -> Result<Vec<Reference>, CliError> {
        names.iter().map(|name| Ok(parse_reference(name)?.with_default_tag())).collect()
    };
    let (tags, mut sources) = (parse(&args.tag)?, parse(&args.sources)?);
    if tags.is_empty() && !args.dry_run {
        return Err(CliError::new("no name for the result").hint("say it with `--tag NAME`"));
    }
    if let Some(tag) = tags.iter().find(|tag| tag.digest().is_some()) {
        return Err(CliError::new(format!("the result cannot have a digest as name: `{}`", tag.familiar())));
    }
    if args.append {
        let Some(first) = tags.first() else {
            return Err(CliError::new("`--append` needs `--tag`"));
        };
        sources.insert(0, first.clone());
    }
    let client = client()?;
    let found = sources
        .iter()
        .map(|source| remote_manifest(&client, source, true))
        .collect::<Result<Vec<RemoteManifest>, _>>()?;
    // One index, or one manifest that shall be none, goes as it is, with its digest.
    if let ([source], [only]) = (sources.as_slice(), found.as_slice())
        && (only.is_index() || !args.prefer_index)
    {
        if args.dry_run {
            print(&String::from_utf8_lossy(&only.bytes))?;
            return Ok(0);
        }
        let options = CopyOptions { spool_dir: spool_dir(), ..CopyOptions::default() };
        for tag in tags {
            let to = Place::Registry(tag.clone());
            let copied =
                mica_transfer::copy(&client, &Place::Registry(source.clone()), &to, &options, &|_| {})?;
            eprintln!("Pushed {}@{}", tag.canonical(), copied.digest);
        }
        return Ok(0);
    }
    let members: Vec<_> = found.into_iter().flat_map(|found| found.members).collect();
    if args.dry_run {
        let name = tags.first().or(sources.first()).cloned();
        let list = name.map(|name| ManifestList { name, members });
        let text = list.map(|list| list.document().1).unwrap_or_default();
        print(&format!("{}\n", String::from_utf8_lossy(&text)))?;
        return Ok(0);
    }
    for tag in tags {
        push(&client, &ManifestList { name: tag, members: members.clone() })?;
    }
    Ok(0)
}

fn push(client: &Client, list: &ManifestList) -> Result<(), CliError> {
    list.check()?;
    copy_members(client, list, &|_| Ok(()))?;
    let digest = list.push(client)?;
    eprintln!("Pushed {}@{digest}", list.name.canonical());
    Ok(())
}

fn inspect(args: &InspectArgs) -> Result<u8, CliError> {
    let name = parse_reference(&args.name)?.with_default_tag();
    let client = client()?;
    // Each config is one more thing to fetch.
    let wants_configs = args.format.as_deref().is_some_and(|text| text == "json" || text.contains(".Image"));
    let remote = remote_manifest(&client, &name, wants_configs)?;
    let document: Value = serde_json::from_slice(&remote.bytes)?;
    let mut value = value_of(&name, &remote, &document);
    if let (true, Some(object)) = (wants_configs, value.as_object_mut()) {
        object.insert("image".to_owned(), configs(&client, &remote)?);
    }
    match args.format.as_deref() {
        // As it came: no line end either, so that its digest can be taken.
        _ if args.raw => print(&String::from_utf8_lossy(&remote.bytes))?,
        Some("json") => {
            let text = indent_json(value.to_string().as_bytes(), "  ");
            print(&format!("{}\n", String::from_utf8_lossy(&text)))?;
        }
        Some(format) if !format.is_empty() => print(&(Template::parse(format)?.apply(&value)? + "\n"))?,
        _ => print(&text_of(&name, &remote, &document))?,
    }
    Ok(0)
}

/// The config of the image; of several, each under its platform. What is no image, as an attestation, has none.
fn configs(client: &Client, remote: &RemoteManifest) -> Result<Value, CliError> {
    let mut configs = Map::new();
    for member in &remote.members {
        let manifest = Manifest::parse(member.manifest.as_bytes()).map_err(CliError::new)?;
        let platform = member.descriptor.platform.as_ref().map(ToString::to_string).unwrap_or_default();
        if !manifest.is_image() || platform.starts_with("unknown") {
            continue;
        }
        let config = client.blob_bytes(&member.reference, &manifest.config)?;
        configs.insert(platform, serde_json::from_slice(&config)?);
    }
    match remote.is_index() {
        true => Ok(Value::Object(configs)),
        false => Ok(configs.into_iter().next().map_or(Value::Null, |(_, config)| config)),
    }
}

/// What templates see: buildx's names at the top, those of the documents below.
fn value_of(name: &Reference, remote: &RemoteManifest, document: &Value) -> Value {
    let descriptor = &remote.descriptor;
    let mut manifest = json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest.as_str(),
        "size": descriptor.size,
    });
    let fields = ["schemaVersion", "manifests", "annotations"];
    for field in fields.iter().filter(|_| remote.is_index()) {
        if let (Some(value), Some(object)) = (document.get(field), manifest.as_object_mut()) {
            object.insert((*field).to_owned(), value.clone());
        }
    }
    json!({ "name": name.canonical(), "manifest": manifest })
}

fn text_of(name: &Reference, remote: &RemoteManifest, document: &Value) -> String {
    let (kind, digest) = (&remote.descriptor.media_type, &remote.descriptor.digest);
    let mut text = format!("Name:      {}\nMediaType: {kind}\nDigest:    {digest}\n", name.canonical());
    let manifests = document.get("manifests").and_then(Value::as_array).filter(|_| remote.is_index());
    if manifests.is_some() {
        text += "           \nManifests: \n";
    }
    let blocks: Vec<String> = manifests.into_iter().flatten().map(|child| block_of(name, child)).collect();
    text + &blocks.join("             \n")
}

fn block_of(name: &Reference, child: &Value) -> String {
    let field = |value: &Value, field: &str| {
        value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut block = format!(
        "  Name:      {}@{}\n  MediaType: {}\n",
        name.canonical(),
        field(child, "digest").unwrap_or_default(),
        field(child, "mediaType").unwrap_or_default()
    );
    if let Some(platform) = child.get("platform") {
        let parts = ["os", "architecture", "variant"].map(|part| field(platform, part));
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        block += &format!("  Platform:  {}\n", parts.join("/"));
    }
    block
}
