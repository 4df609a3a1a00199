//! `mica inspect`: all that is known of images and containers, as JSON or through a template.

use mica_image::ImageError;
use mica_oci::Platform;
use mica_store::Store;
use serde_json::Value;

use crate::advice;
use crate::commands::inspect_container;
use crate::error::CliError;
use crate::format::listing::pretty_json;
use crate::format::output::print;
use crate::format::template::Template;
use crate::session::Session;

/// Flags of `mica inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `json` or a template
    #[arg(short, long)]
    format: Option<String>,
    /// Show sizes of containers too
    #[arg(short, long)]
    size: bool,
    /// What the names are of
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// Names or IDs
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

/// Flags of `mica image inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// `json` or a template
    #[arg(short, long)]
    format: Option<String>,
    /// Of several platforms, show this one
    #[arg(long)]
    platform: Option<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Flags of `mica container inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    /// `json` or a template
    #[arg(short, long)]
    format: Option<String>,
    /// Show sizes too
    #[arg(short, long)]
    size: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// What `--type` can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Container,
    Image,
}

/// Shows images and containers. Containers go first, as in docker.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let find = |name: &str| -> Result<Value, CliError> {
        if args.kind != Some(Kind::Image)
            && let Some(value) = inspect_container::find(&store, name, args.size)?
        {
            return Ok(value);
        }
        if args.kind != Some(Kind::Container)
            && let Some(value) = image(&store, name)?
        {
            return Ok(value);
        }
        Err(match args.kind {
            None => CliError::new(format!("No such object: {name}"))
                .hint("`mica images` and `mica ps -a` list what there is"),
            Some(Kind::Container) => no_container(name),
            Some(Kind::Image) => no_image(name),
        })
    };
    show(&args.names, args.format.as_deref(), find)
}

/// Shows containers.
pub(crate) fn run_container(args: &ContainerArgs, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let find =
        |name: &str| inspect_container::find(&store, name, args.size)?.ok_or_else(|| no_container(name));
    show(&args.containers, args.format.as_deref(), find)
}

/// Shows images.
pub(crate) fn run_image(args: ImageArgs, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let find = |name: &str| match &platform {
        Some(platform) => {
            let id = mica_image::resolve_platform(&store, name, platform)?;
            Ok(mica_image::inspect(&store, &id)?)
        }
        None => image(&store, name)?.ok_or_else(|| no_image(name)),
    };
    show(&args.images, args.format.as_deref(), find)
}

fn no_image(name: &str) -> CliError {
    CliError::new(format!("No such image: {name}")).hint(advice::IMAGES)
}

fn no_container(name: &str) -> CliError {
    CliError::new(format!("No such container: {name}")).hint(advice::CONTAINERS)
}

fn image(store: &Store, name: &str) -> Result<Option<Value>, CliError> {
    match mica_image::resolve(store, name) {
        Ok(Some(id)) => Ok(Some(mica_image::inspect(store, &id)?)),
        // What cannot be a name of an image may be one of something else.
        Ok(None) | Err(ImageError::Reference(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Shows what was found, then says what was not.
pub(crate) fn show(
    names: &[String],
    format: Option<&str>,
    find: impl Fn(&str) -> Result<Value, CliError>,
) -> Result<u8, CliError> {
    let template = match format {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match find(name) {
            Ok(value) => found.push(value),
            Err(error) => errors.push(error),
        }
    }
    match (&template, format) {
        (Some(template), _) => {
            for value in &found {
                print(&(template.apply(value)? + "\n"))?;
            }
        }
        (None, Some("json")) => print(&format!("{}\n", Value::Array(found)))?,
        (None, _) => print(&format!("{}\n", pretty_json(&Value::Array(found))))?,
    }
    for error in &errors {
        error.report();
    }
    Ok(u8::from(!errors.is_empty()))
}
