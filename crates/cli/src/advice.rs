//! Advice: what people can do about the errors of the rooms below. Each hint names the command to run.

mod platform;
pub(crate) mod registry;
mod remote;
mod transfer;
pub(crate) mod unreproducible;

use std::error::Error;
use std::io;

use mica_build::{BuildError, StepError};
use mica_container::ContainerError;
use mica_image::ImageError;
use mica_slim::{Failure, SlimError};
use mica_ssh_agent::{AgentError, KeyProblem};
use mica_store::StoreError;

use crate::error::CliError;
use crate::format::template::TemplateError;

/// For those who look for an image that is not there.
pub(crate) const IMAGES: &str =
    "`mica images` lists all images; `mica pull NAME` or `mica load -i FILE` brings one in";
/// For those who look for a container that is not there.
pub(crate) const CONTAINERS: &str = "`mica ps -a` lists all containers";
const ROOM: &str = "make room, for example with `mica system prune`";
const BROKEN_IMAGE: &str =
    "bring the image in again with `mica pull NAME` or `mica load -i FILE`, or build it with `--no-cache`";

/// An error that may come with advice.
pub(crate) trait Advise: Error + Sized + 'static {
    /// What happened, with all causes, each of them once.
    fn message(&self) -> String {
        message_with_causes(self)
    }

    /// What to do, if that is known.
    fn advice(&self) -> Option<String> {
        advice_on_full_disk(self)
    }
}

impl<E: Advise> From<E> for CliError {
    fn from(error: E) -> Self {
        Self { hint: error.advice(), ..Self::new(error.message()) }
    }
}

impl Advise for io::Error {}
impl Advise for serde_json::Error {}
impl Advise for mica_sys::Error {}
impl Advise for TemplateError {}
impl Advise for jiff::Error {}
impl Advise for mica_oci::PlatformError {
    fn advice(&self) -> Option<String> {
        mica_plan::meant_platform(self.specifier()).map(|meant| format!("did you mean `{meant}`?"))
    }
}
impl Advise for mica_oci::ReferenceError {}

impl Advise for StoreError {
    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::DiskFull { .. } => ROOM.to_owned(),
            Self::Permission { .. } => {
                "run mica as root, or keep images in a directory of your own with `--root DIR`".to_owned()
            }
            Self::FormatTooNew { .. } => {
                "use the mica that wrote it or a newer one, or another store with `--root DIR`".to_owned()
            }
            Self::NotAStore { .. } => "name an empty directory, or a new one, with `--root DIR`".to_owned(),
            Self::Busy { .. } => {
                "try again when the other mica is done; `mica ps` shows what runs".to_owned()
            }
            Self::LayerMissing(_) | Self::BlobMissing(_) => BROKEN_IMAGE.to_owned(),
            Self::ImageMissing(_) => IMAGES.to_owned(),
            Self::ImageInUse { users, .. } => remove_container(users.first().map_or("", String::as_str)),
            Self::NameTaken { name, .. } => {
                format!("remove that container with `mica rm {name}`, or choose another `--name`")
            }
            Self::ContainerMissing(_) => CONTAINERS.to_owned(),
            Self::ContainerRunning(id) => stop_container(id),
            Self::Ambiguous { .. } => "give more digits of the ID".to_owned(),
            Self::VolumeInUse { name, .. } => {
                format!("`mica ps -a --filter volume={name}` lists the containers that use it")
            }
            _ => return advice_on_full_disk(self),
        };
        Some(hint)
    }
}

impl Advise for ImageError {
    fn message(&self) -> String {
        match self {
            Self::Registry(error) => error.message(),
            Self::Pull { reference, source } => registry::message_of_pull(reference, source),
            _ => message_with_causes(self),
        }
    }

    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::Store(error) => return error.advice(),
            Self::List(error) => return error.advice(),
            Self::Registry(error) => return error.advice(),
            Self::Pull { source, .. } => return registry::advice_on_pull(source),
            Self::Push { reference, source } => return registry::advice_on_push(reference, source),
            Self::PlatformMissing { .. } => {
                "`--platform OS/ARCH` chooses one that is here; `mica pull --platform OS/ARCH NAME` brings another".to_owned()
            }
            Self::NotFound { .. } => IMAGES.to_owned(),
            Self::Ambiguous { .. } => "give more digits of the ID".to_owned(),
            Self::SeveralRepositories { id } => {
                format!("remove its names one by one, or all of them with `mica rmi -f {}`", id.0.short())
            }
            Self::UsedBy { container, running: true, .. } => {
                format!("`mica rm -f {}` stops and removes the container", short(container))
            }
            Self::UsedBy { container, .. } | Self::NameInUse { container, .. } => remove_container(container),
            Self::LayerMissing { .. } | Self::LayerAltered { .. } | Self::Index { .. } => {
                BROKEN_IMAGE.to_owned()
            }
            Self::NotAnArchive => {
                "a tar of a root filesystem is made an image with `mica import FILE NAME`".to_owned()
            }
            _ => return advice_on_full_disk(self),
        };
        Some(hint)
    }
}

impl Advise for ContainerError {
    fn message(&self) -> String {
        match self {
            // Scripts look for docker's words.
            Self::Store(StoreError::NameTaken { name, by }) => {
                format!("conflict: the container name \"/{name}\" is already in use by container \"{by}\"")
            }
            _ => message_with_causes(self),
        }
    }

    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::Store(error) => return error.advice(),
            Self::ImageMissing { .. } => IMAGES.to_owned(),
            Self::LayerMissing { .. } => BROKEN_IMAGE.to_owned(),
            Self::CommandMissing => "the image has no CMD: give a command after its name".to_owned(),
            Self::ContainerMissing { .. } => CONTAINERS.to_owned(),
            Self::NotRunning { id } => format!("start it with `mica start {}`", short(id)),
            Self::StillRunning { id } => stop_container(id),
            Self::Runtime(error) => {
                return platform::advice_on_refusal(error).or_else(|| advice_on_full_disk(self));
            }
            Self::BindSourceMissing { path } => {
                format!("make it with `mkdir -p {}`, or use `-v`, which makes directories", path.display())
            }
            _ => return advice_on_full_disk(self),
        };
        Some(hint)
    }
}

impl Advise for BuildError {
    fn advice(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.advice(),
            Self::Image(error) => error.advice(),
            Self::LayerMissing { .. } => Some(
                "the store is not whole: build again with `--no-cache`, or bring the base image in again with \
                 `mica pull NAME` or `mica load -i FILE`"
                    .to_owned(),
            ),
            Self::BaseDamaged { .. } => {
                Some("bring the image in again, as the first time: with `mica pull`, `mica load` or `mica import`".to_owned())
            }
            Self::DamagedInUse { containers, .. } => containers.first().map(|id| stop_container(id)),
            _ => advice_on_full_disk(self),
        }
    }
}

impl Advise for StepError {
    fn advice(&self) -> Option<String> {
        match self {
            Self::UnknownOwner { .. } => {
                Some("use a number, or make the user or group in an earlier RUN".to_owned())
            }
            Self::NotEmulated { platform, absent } => {
                Some(platform::advice_on_emulation(platform, absent.is_some()))
            }
            Self::OtherSystem { .. } => Some(platform::OTHER_SYSTEM.to_owned()),
            Self::Runtime(error) => platform::advice_on_refusal(error).or_else(|| advice_on_full_disk(self)),
            Self::SecretMissing { id, .. } => {
                Some(format!("give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"))
            }
            Self::SecretNotText { .. } => Some("take it as a file: leave `env` out of the mount".to_owned()),
            Self::Exit { kept: Some(_), .. } => {
                Some("`mica debug` opens a shell in what the step left".to_owned())
            }
            Self::StateGone { .. } => Some("`mica debug --list` lists what is there".to_owned()),
            Self::AgentMissing { id, .. } => Some(format!(
                "give it with `--ssh {id}` (the agent of SSH_AUTH_SOCK) or `--ssh {id}=KEYFILE`"
            )),
            Self::Agent { error, .. } => error.advice(),
            Self::Remote { cause, .. } => cause.advice(),
            Self::Build(error) => error.advice(),
            Self::Container(error) => error.advice(),
            _ => advice_on_full_disk(self),
        }
    }
}

impl Advise for AgentError {
    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::NoAgent => {
                "start one with `eval $(ssh-agent)` and add keys with `ssh-add`, or name a key: `--ssh default=KEYFILE`".to_owned()
            }
            Self::Key { path, problem: KeyProblem::Encrypted } => {
                format!("unlock it with `ssh-add {}`, and give the agent: `--ssh default`", path.display())
            }
            Self::Key { path, problem: KeyProblem::Unsupported(_) } => format!(
                "add it to an agent with `ssh-add {}`, and give that one: `--ssh default`",
                path.display()
            ),
            Self::Key { problem: KeyProblem::Public, .. } => "name the file without `.pub`".to_owned(),
            _ => return advice_on_full_disk(self),
        };
        Some(hint)
    }
}

impl Advise for SlimError {
    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::Failed { on_result: true, .. } => {
                "the image needs something that nobody looked up before: keep it with `--keep PATTERN`, keep packages \
                 whole with `--keep-packages`, or run more of it with `--test`"
            }
            Self::Failed { failure: Failure::TimedOut(_), .. } => {
                "is it a server? say `--http PORT/PATH`, or stop it after a time with `--for 10s`; a command that only \
                 takes long needs a longer `--timeout`"
            }
            Self::Failed { failure: Failure::NoAnswer { .. }, .. } => {
                "see that it listens on this port and answers below 400 there; a slow start needs a longer `--timeout`"
            }
            Self::Failed { .. } => "the image itself must work first: try it with `mica run`",
            Self::NotObserved { .. } => "try again; a command that uses less is easier to see through",
            Self::LayerDamaged { .. } => BROKEN_IMAGE,
            Self::PortUnknown { .. } => "name the port: `--http PORT/PATH`",
            Self::NameMissing { .. } => "give one with `--tag NAME`",
            Self::Container(error) => return error.advice(),
            Self::Image(error) => return error.advice(),
            Self::Store(error) => return error.advice(),
            _ => return advice_on_full_disk(self),
        };
        Some(hint.to_owned())
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn remove_container(id: &str) -> String {
    format!("remove the container first with `mica rm {}`", short(id))
}

fn stop_container(id: &str) -> String {
    format!("`mica stop {}` stops it; `mica rm -f` stops and removes it", short(id))
}

/// A full disk may show in any call, however deep.
fn advice_on_full_disk(error: &(dyn Error + 'static)) -> Option<String> {
    let (mut is_full, mut cause) = (false, Some(error));
    while let Some(error) = cause {
        is_full |= error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        });
        cause = error.source();
    }
    is_full.then(|| format!("nothing that was stored before is lost; {ROOM}"))
}

/// Many errors tell their cause themselves; what they leave out is added.
pub(crate) fn message_with_causes(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: impl Advise, expect: &str, hint: Option<&str>) {
        let shown = CliError::from(error);
        assert_eq!(shown.message, expect);
        match (shown.hint, hint) {
            (Some(found), Some(hint)) => assert!(found.contains(hint), "{found}"),
            (found, hint) => assert_eq!(found.as_deref(), hint),
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] mica_sys::Error);
    impl Advise for Outer {}

    #[test]
    fn causes_are_told_once() {
        let call = |kind: i32| mica_sys::Error::new("write", "/x", io::Error::from_raw_os_error(kind));
        check(Outer(call(5)), "outer: write `/x`: Input/output error (os error 5)", None);
        check(call(5), "write `/x`: Input/output error (os error 5)", None);
        let full = "write `/x`: No space left on device (os error 28)";
        check(call(28), full, Some("nothing that was stored before is lost"));
        check(Outer(call(28)), &format!("outer: {full}"), Some("`mica system prune`"));
        check(ImageError::Sys(call(28)), full, Some("`mica system prune`"));
        check(BuildError::System(call(28)), full, Some("`mica system prune`"));
    }

    #[test]
    fn hints_name_the_command() {
        let path = || "/store".into();
        let full = || StoreError::DiskFull { path: path() };
        let told = "no space left for `/store`; nothing that was stored before is lost";
        check(full(), told, Some("`mica system prune`"));
        check(ImageError::Store(full()), told, Some("`mica system prune`"));
        check(ContainerError::Store(full()), told, Some("`mica system prune`"));
        check(StepError::from(full()), told, Some("`mica system prune`"));
        check(
            StoreError::FormatTooNew { path: path(), found: 9, supported: 1 },
            "the store `/store` has format 9, this mica knows formats up to 1",
            Some("`--root DIR`"),
        );
        check(
            StoreError::Permission { call: "mkdir", path: path() },
            "permission denied: mkdir `/store`",
            Some("as root, or keep images in a directory of your own with `--root DIR`"),
        );
        check(ImageError::NotFound { text: "a:1".into() }, "No such image: a:1", Some("`mica images`"));
        check(
            ContainerError::Store(StoreError::NameTaken { name: "web".into(), by: "abc".into() }),
            "conflict: the container name \"/web\" is already in use by container \"abc\"",
            Some("`mica rm web`"),
        );
        check(
            ContainerError::ContainerMissing { name: "x".into() },
            "No such container: x",
            Some("`mica ps -a`"),
        );
    }
}
