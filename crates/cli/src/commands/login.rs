//! `login`: asks a registry whether it takes a login, and keeps it.

use std::io::Read;

use mica_oci::reference::DEFAULT_REGISTRY;
use mica_registry_client::{Client, Credential, Kept, RegistryError, Secret, registry_of};

use super::remote;
use crate::error::CliError;
use crate::prompt;

/// Docker's own address for its hub, as `logout` shows it.
pub(crate) const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// Passwords and tokens are far shorter.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Registry to log in to, Docker Hub if none is given
    server: Option<String>,
    /// Username
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Password or personal access token; seen by all who list processes
    #[arg(short, long)]
    password: Option<PasswordArgument>,
    /// Take the password or personal access token from stdin
    #[arg(long)]
    password_stdin: bool,
}

/// A password on the command line, which is not shown with the other arguments.
#[derive(Clone, Debug)]
struct PasswordArgument(Secret);

impl From<String> for PasswordArgument {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<u8, CliError> {
    let server = args.server.as_deref().filter(|server| !server.is_empty());
    let registry = registry_of(server.unwrap_or(DEFAULT_REGISTRY))?;
    let username = args.username.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let password = password(&args, username)?;
    let client = remote::client()?;
    // Whether it is a registry is known before anybody is asked for anything.
    client.settings().registries.endpoint_of(&registry)?;
    if username.is_none() && password.is_none() && login_again(&client, &registry)? {
        return Ok(0);
    }
    if (username.is_none() || password.is_none()) && !prompt::can_ask() {
        return Err(CliError::new("Cannot perform an interactive login from a non TTY device")
            .hint("give `--username USER`, and the password to `--password-stdin`"));
    }
    let username = match username {
        Some(username) => username.to_owned(),
        None => ask_username(&registry)?,
    };
    let password = match password {
        Some(password) => password,
        None => Some(prompt::ask_secretly("Password: ")?)
            .filter(|password| !password.is_empty())
            .map(Secret::new)
            .ok_or_else(|| CliError::new("password is required"))?,
    };
    let accepted = client
        .check_login(&registry, &Credential::Basic { username, password })
        .map_err(|error| refused(&registry, error))?;
    keep(&client, &registry, &accepted)?;
    Ok(0)
}

/// The password of the command line or of stdin.
fn password(args: &Args, username: Option<&str>) -> Result<Option<Secret>, CliError> {
    let given = args.password.as_ref().map(|password| &password.0).filter(|it| !it.reveal().is_empty());
    if given.is_some() {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if args.password_stdin {
            return Err(CliError::new("--password and --password-stdin are mutually exclusive"));
        }
    }
    if !args.password_stdin {
        return Ok(given.cloned());
    }
    if username.is_none() {
        return Err(CliError::new("Must provide --username with --password-stdin"));
    }
    let mut text = String::new();
    std::io::stdin().take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(CliError::new(format!("the password on stdin has more than {PASSWORD_BYTES_MAX} bytes")));
    }
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(CliError::new("password is empty")),
        password => Ok(Some(Secret::new(password))),
    }
}

/// Tries the login that there is; `false` if there is none, or none that works any more.
fn login_again(client: &Client, registry: &str) -> Result<bool, CliError> {
    let known = match client.settings().credentials.find(registry, "")? {
        // Such a token is not of a login, and no registry says whether it is right.
        None | Some(Credential::RegistryToken(_)) => return Ok(false),
        Some(known) => known,
    };
    match &known {
        Credential::Basic { username, .. } => {
            println!("Authenticating with existing credentials... [Username: {username}]");
        }
        _ => println!("Authenticating with existing credentials..."),
    }
    println!("To login with a different account, run 'docker logout' followed by 'docker login'\n");
    match client.check_login(registry, &known) {
        Ok(accepted) => keep(client, registry, &accepted)?,
        Err(RegistryError::Denied { .. }) if prompt::can_ask() => {
            eprintln!("Stored credentials invalid or expired");
            return Ok(false);
        }
        Err(error) => return Err(refused(registry, error)),
    }
    Ok(true)
}

/// Here a refusal has one meaning.
fn refused(registry: &str, error: RegistryError) -> CliError {
    match &error {
        RegistryError::Denied { .. } => {
            CliError::new(format!("login to `{registry}`: unauthorized: incorrect username or password"))
                .hint(
                    "some registries want a token in place of the password: see the account's settings there",
                )
        }
        _ => error.into(),
    }
}

fn ask_username(registry: &str) -> Result<String, CliError> {
    if registry == DEFAULT_REGISTRY {
        println!(
            "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't have a \
             Docker ID, head over to https://hub.docker.com/ to create one."
        );
    }
    match prompt::ask("Username: ")?.trim() {
        "" => Err(CliError::new("username is required")),
        username => Ok(username.to_owned()),
    }
}

fn keep(client: &Client, registry: &str, credential: &Credential) -> Result<(), CliError> {
    let kept = client.settings().credentials.keep(registry, credential)?;
    // A token can be taken back; a password is often another door's, too.
    if let (Kept::File(path), Credential::Basic { .. }) = (&kept, credential) {
        eprintln!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            path.display()
        );
    }
    println!("Login Succeeded");
    Ok(())
}
