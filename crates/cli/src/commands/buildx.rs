//! The commands of buildx for builders that run elsewhere. There is one builder, this program, by whatever name it is called: making,
//! choosing and removing one is nothing, so that scripts which begin with it go on.

use mica_oci::Platform;
use mica_runtime::emulation::{Emulators, Header, emulators, header_of, is_native};

use crate::error::CliError;
use crate::format::output::print;
use crate::format::size::human_sum;
use crate::session::Session;

/// What the builder is called where nobody called it anything else.
const NAME: &str = "default";
const DRIVER: &str = "mica";
/// Platforms that are looked for, the usual ones.
const PLATFORMS: [&str; 10] = [
    "linux/amd64",
    "linux/arm64",
    "linux/386",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/riscv64",
    "linux/ppc64le",
    "linux/s390x",
    "linux/mips64le",
    "linux/loong64",
];

/// Flags of `create`.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Name of the builder
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    ignored: Ignored,
    /// A context of docker, or an address
    #[arg(value_name = "CONTEXT|ENDPOINT")]
    endpoint: Option<String>,
}

/// What says how a builder is made.
#[derive(Debug, clap::Args)]
struct Ignored {
    #[arg(long = "use", hide = true)]
    is_used: bool,
    #[arg(long, hide = true)]
    append: bool,
    #[arg(long, hide = true)]
    bootstrap: bool,
    #[arg(long, hide = true)]
    leave: bool,
    #[arg(long, hide = true, value_name = "DRIVER")]
    driver: Option<String>,
    #[arg(long, hide = true, value_name = "OPTION")]
    driver_opt: Vec<String>,
    #[arg(long, hide = true, value_name = "NODE")]
    node: Option<String>,
    #[arg(long, hide = true, value_name = "PLATFORM")]
    platform: Vec<String>,
    #[arg(long, hide = true, value_name = "FLAGS", alias = "flags", allow_hyphen_values = true)]
    buildkitd_flags: Option<String>,
    #[arg(long, hide = true, value_name = "FILE", alias = "config")]
    buildkitd_config: Option<String>,
}

/// Flags of `use`.
#[derive(Debug, clap::Args)]
pub(crate) struct UseArgs {
    #[arg(long = "default", hide = true)]
    is_default: bool,
    #[arg(long, hide = true)]
    global: bool,
    /// The builder
    name: Option<String>,
}

/// Flags of `rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    #[arg(long, hide = true)]
    all_inactive: bool,
    #[arg(short, long, hide = true)]
    force: bool,
    #[arg(long, hide = true)]
    keep_daemon: bool,
    #[arg(long, hide = true)]
    keep_state: bool,
    /// The builders
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Arguments of `stop`.
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// The builder
    name: Option<String>,
}

/// Flags of `ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    #[arg(long, hide = true)]
    no_trunc: bool,
}

/// Flags of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    #[arg(long, hide = true)]
    bootstrap: bool,
    /// The builder
    name: Option<String>,
}

/// Flags of `du`.
#[derive(Debug, clap::Args)]
pub(crate) struct DuArgs {
    #[arg(long, hide = true)]
    verbose: bool,
}

/// What `bake` is given.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BakeArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Takes a name for the one builder that there is.
pub(crate) fn create(args: &CreateArgs) -> Result<u8, CliError> {
    print(&format!("{}\n", args.name.as_deref().unwrap_or(NAME)))?;
    note("nothing had to be made")
}

/// Is done already.
pub(crate) fn choose(args: &UseArgs) -> Result<u8, CliError> {
    let name = args.name.as_deref().unwrap_or(NAME);
    note(&format!("`{name}` is that one"))
}

/// Leaves things as they are.
pub(crate) fn rm(_args: &RmArgs) -> Result<u8, CliError> {
    note("nothing had to be removed; `mica builder prune` removes build cache")
}

/// Leaves things as they are.
pub(crate) fn stop(_args: &StopArgs) -> Result<u8, CliError> {
    note("nothing runs that would have to be stopped")
}

fn note(what: &str) -> Result<u8, CliError> {
    eprintln!("note: mica is its one builder, without a daemon: {what}");
    Ok(0)
}

/// Lists the one builder.
pub(crate) fn ls(_args: &LsArgs) -> Result<u8, CliError> {
    let mut table = crate::format::table::Table::new(&[
        "NAME/NODE",
        "DRIVER/ENDPOINT",
        "STATUS",
        "BUILDKIT",
        "PLATFORMS",
    ]);
    let cells = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    table.push(cells([&format!("{NAME}*"), DRIVER, "", "", ""]));
    table.push(cells([
        &format!(" \\_ {NAME}"),
        &format!(" \\_ {NAME}"),
        "running",
        "",
        &platforms().join(", "),
    ]));
    print(&table.render())?;
    Ok(0)
}

/// Tells of the one builder, in the lines of buildx.
pub(crate) fn inspect(args: &InspectArgs) -> Result<u8, CliError> {
    let name = args.name.as_deref().unwrap_or(NAME);
    print(&format!(
        "Name:   {name}\nDriver: {DRIVER}\n\nNodes:\nName:      {name}\nEndpoint:  {NAME}\nStatus:    running\n\
         Platforms: {}\n",
        platforms().join(", ")
    ))?;
    Ok(0)
}

/// Shows the version.
pub(crate) fn version() -> Result<u8, CliError> {
    print(&format!("mica {}\n", env!("CARGO_PKG_VERSION")))?;
    Ok(0)
}

/// What the build cache takes, in the lines that buildx ends with.
pub(crate) fn du(_args: &DuArgs, session: &Session) -> Result<u8, CliError> {
    let cache = session.read_store()?.usage()?.cache;
    let (reclaimable, total) = (human_sum(cache.reclaimable_bytes), human_sum(cache.size_bytes));
    print(&format!("Reclaimable:\t{reclaimable}\nTotal:\t\t{total}\n"))?;
    Ok(0)
}

/// Is not done.
pub(crate) fn bake(_args: &BakeArgs) -> Result<u8, CliError> {
    Err(CliError::new("`bake` is not supported").hint("build each target with `mica build`"))
}

/// Those whose programs run here, this machine's own first.
fn platforms() -> Vec<&'static str> {
    let emulators = emulators();
    let is_emulated = |header: &Header| match &emulators {
        Emulators::Unknown => false,
        Emulators::Known(known) => known.iter().any(|registration| registration.serves(header)),
    };
    let (mut native, mut emulated) = (Vec::new(), Vec::new());
    for text in PLATFORMS {
        let header = Platform::parse(text).ok().and_then(|platform| header_of(&platform));
        match header {
            Some(header) if is_native(&header) => native.push(text),
            Some(header) if is_emulated(&header) => emulated.push(text),
            _ => {}
        }
    }
    native.append(&mut emulated);
    native
}
