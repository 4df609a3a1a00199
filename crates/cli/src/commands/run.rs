//! `mica run` and `mica create`: a new container of an image.

use std::io::{IsTerminal, Write};

use clap::{ArgAction, Args};
use mica_container::{
    AttachOptions, Attached, ContainerError, Context, MadeContainer, RunOptions, create_container,
    run_in_background, run_in_foreground,
};
use mica_store::Store;

use crate::commands::needed_image::{Need, When, needed_image};
use crate::commands::wanted_platform::wanted_platform;
use crate::error::CliError;
use crate::session::Session;

/// What `run` and `create` have in common.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct CreateArgs {
    /// Give the container a name
    #[arg(long)]
    name: Option<String>,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Keep its standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Set an environment variable (`NAME=value`, or `NAME` for the value here)
    #[arg(short, long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Set a label
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<String>,
    /// Run this instead of the image's ENTRYPOINT
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User (`name|uid[:group|gid]`)
    #[arg(short, long)]
    user: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Mount a directory of the host or a volume (`SOURCE:TARGET[:ro]`)
    #[arg(short, long, value_name = "MOUNT")]
    volume: Vec<String>,
    /// Mount something (`type=bind|volume|tmpfs,src=..,dst=..[,readonly]`)
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Mount memory (`TARGET[:size=..,mode=..]`)
    #[arg(long, value_name = "TARGET")]
    tmpfs: Vec<String>,
    /// Pass on a port of the host (`[IP:][HOST PORT:]PORT[/udp]`)
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Pass on all exposed ports, from ports that are free
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Name a port that the program listens on
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Network: bridge, host or none
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    /// Add a name to /etc/hosts (`NAME:ADDRESS`)
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Domain to search for names
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of the name resolver
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Run a small init as process 1
    #[arg(long)]
    init: bool,
    /// Allow everything
    #[arg(long)]
    privileged: bool,
    /// Add a capability
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// seccomp=unconfined, no-new-privileges
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Give it a device of the host
    #[arg(long, value_name = "PATH")]
    device: Vec<String>,
    /// Set a kernel setting
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Limit each process (`nofile=1024:2048`)
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Limit memory
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Limit memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Limit processors
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Limit the number of processes
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Namespace of processes: host
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// Namespace of System V objects: host, private
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Namespace of the host name: host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// Signal that asks the program to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds until it is killed then
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Start again when it ends: only `no` is supported yet
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: String,
    /// Pull the image before
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: When,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Say nothing while the image is pulled
    #[arg(short, long)]
    quiet: bool,
    /// Write the container's ID to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<std::path::PathBuf>,
    /// Where output is kept: json-file or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// Leave the image's health check out (none is ever run yet)
    #[arg(long)]
    no_healthcheck: bool,
    /// Show help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Image, and the command to run in it
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARGUMENT]")]
    image_and_command: Vec<String>,
}

/// Run a command in a new container
#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "mica run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub(crate) struct RunArgs {
    /// Run in the background and print the container's ID
    #[arg(short, long)]
    detach: bool,
    /// Pass signals on to the program
    #[arg(
        long,
        value_name = "BOOL",
        default_value = "true",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    sig_proxy: bool,
    #[command(flatten)]
    create: CreateArgs,
}

/// Create a new container without starting it
#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "mica create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub(crate) struct CreateCommandArgs {
    #[command(flatten)]
    create: CreateArgs,
}

/// An error of a container room, for people: with docker's exit code and what to do.
pub(crate) fn explain(error: ContainerError) -> CliError {
    let code = u8::try_from(error.exit_code()).unwrap_or(125);
    CliError::from(error).code(code)
}

pub(crate) fn refuse(message: impl ToString) -> CliError {
    CliError::new(message).code(125)
}

pub(crate) fn warn(warning: &str) {
    eprintln!("warning: {warning}");
}

/// `mica run`.
pub(crate) fn run(session: &Session, args: &RunArgs) -> Result<u8, CliError> {
    let create = &args.create;
    if !args.detach && create.tty && create.interactive && !std::io::stdin().is_terminal() {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let store = Store::open(&session.root).map_err(|error| explain(error.into()))?;
    // Output that nobody can ask for later is not kept.
    let foreground = !args.detach && !create.tty;
    let made = make(session, &store, create, !(foreground && create.rm), true)?;
    let context = Context {
        store: &store,
        container: &made.container,
        settings: &made.settings,
        rootless: session.rootless,
    };
    let code = if foreground {
        run_in_foreground(&context, args.sig_proxy, warn).map_err(explain)?
    } else {
        let attach =
            AttachOptions { stdin: create.interactive, tty: create.tty, forward_signals: args.sig_proxy };
        let attach = (!args.detach).then_some(attach);
        match run_in_background(&context, attach, warn).map_err(explain)? {
            Attached::Exited(code) => code,
            Attached::Detached => {
                if args.detach {
                    print_line(&made.container.record.id);
                }
                0
            }
        }
    };
    Ok(exit_code(code))
}

/// `mica create`.
pub(crate) fn create(session: &Session, args: &CreateCommandArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root).map_err(|error| explain(error.into()))?;
    // docker's `create` fails with 1 where `run` fails with 125.
    let made = make(session, &store, &args.create, true, false).map_err(|error| error.code(1))?;
    print_line(&made.container.record.id);
    Ok(0)
}

/// An exit code of a program, as that of this process.
pub(crate) fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// A line on stdout; nobody may be reading it any more.
pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn make(
    session: &Session,
    store: &Store,
    args: &CreateArgs,
    log: bool,
    starts: bool,
) -> Result<MadeContainer, CliError> {
    let (image_name, arguments) = match args.image_and_command.split_first() {
        Some((image, arguments)) => (image, arguments.to_vec()),
        None => return Err(refuse("no image given")),
    };
    match args.restart.as_str() {
        "no" | "" => {}
        _ if args.rm => return Err(refuse("conflicting options: cannot specify both --restart and --rm")),
        policy => return Err(refuse(format!("restart policy is not supported yet: `{policy}`"))),
    }
    let log = match args.log_driver.as_str() {
        "json-file" | "local" => log,
        "none" => false,
        driver => return Err(refuse(format!("log driver is not supported: `{driver}`"))),
    };
    let host_mode = |what: &str, value: &Option<String>, own: &[&str]| match value.as_deref() {
        Some("host") => Ok(true),
        None | Some("") => Ok(false),
        Some(other) if own.contains(&other) => Ok(false),
        Some(other) => Err(refuse(format!("--{what}: mode is not supported: `{other}`"))),
    };
    let options = RunOptions {
        starts,
        name: args.name.as_ref().map(|name| name.strip_prefix('/').unwrap_or(name).to_owned()),
        arguments,
        entrypoint: args.entrypoint.clone(),
        env: with_files(&args.env_file, &args.env, true)?,
        labels: with_files(&args.label_file, &args.label, false)?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        domainname: args.domainname.clone(),
        tty: args.tty,
        interactive: args.interactive,
        remove: args.rm,
        read_only: args.read_only,
        init: args.init,
        privileged: args.privileged,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        security_opt: args.security_opt.clone(),
        volumes: args.volume.clone(),
        mounts: args.mount.clone(),
        tmpfs: args.tmpfs.clone(),
        devices: args.device.clone(),
        sysctls: args.sysctl.clone(),
        ulimits: args.ulimit.clone(),
        shm_size: args.shm_size.clone(),
        memory: args.memory.clone(),
        memory_swap: args.memory_swap.clone(),
        cpus: args.cpus.clone(),
        pids_limit: args.pids_limit,
        network: args.network.clone(),
        publish: args.publish.clone(),
        publish_all: args.publish_all,
        expose: args.expose.clone(),
        add_hosts: args.add_host.clone(),
        dns: args.dns.clone(),
        dns_search: args.dns_search.clone(),
        dns_options: args.dns_option.clone(),
        stop_signal: args.stop_signal.clone(),
        stop_timeout_s: args.stop_timeout,
        pid_host: host_mode("pid", &args.pid, &["private"])?,
        ipc_host: host_mode("ipc", &args.ipc, &["private", "shareable", "none"])?,
        uts_host: host_mode("uts", &args.uts, &["private"])?,
        log,
    };
    let platform =
        wanted_platform(args.platform.as_deref()).map_err(|error| CliError::from(error).code(125))?;
    let need = Need { name: image_name, platform: platform.as_ref(), when: args.pull, quiet: args.quiet };
    let cidfile = args.cidfile.as_ref().map(|path| {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
        file.map_err(|error| {
            refuse(format!("failed to create the container ID file: {}: {error}", path.display()))
        })
    });
    let cidfile = cidfile.transpose()?;
    let result = mica_container::sweep(store, session.rootless)
        .map_err(explain)
        .and_then(|()| needed_image(session, store, &need))
        .and_then(|image| create_container(store, &image, image_name, &options).map_err(explain));
    match (result, cidfile) {
        (Ok(made), Some(mut file)) => {
            file.write_all(made.container.record.id.as_bytes()).map_err(|error| refuse(error.to_string()))?;
            Ok(made)
        }
        (Err(error), Some(_)) => {
            // An empty file would say that there is a container.
            let _ = args.cidfile.as_ref().map(std::fs::remove_file);
            Err(error)
        }
        (result, None) => result,
    }
}

/// What files say, then what flags say. A bare name in a file of variables means the value here, or nothing.
fn with_files(files: &[String], flags: &[String], variables: bool) -> Result<Vec<String>, CliError> {
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| refuse(format!("open {file}: {error}")))?;
        let lines = mica_container::parse_variable_file(file, &text).map_err(explain)?;
        let is_known = |line: &String| !variables || line.contains('=') || std::env::var_os(line).is_some();
        all.extend(lines.into_iter().filter(is_known));
    }
    all.extend(flags.iter().cloned());
    Ok(all)
}
