//! Advice on errors of registries. Where scripts look for docker's words, the message has them.

use std::error::Error;

use mica_image::{ImageError, PullError, PushError};
use mica_oci::Reference;
use mica_oci::reference::DEFAULT_REGISTRY;
use mica_registry_client::{Refusal, RegistryError, Subject, TlsProblem};

use super::{Advise, advice_on_full_disk, message_with_causes};
use crate::error::CliError;

const AGAIN: &str = "try again: what has come is kept, and the next try goes on from there";
const AGAIN_PUSH: &str = "try again: what the registry has already is not sent again";
const DAMAGED: &str = "something on the way (a proxy, a mirror) changes bytes, or the registry's copy is damaged: try again, \
                       and if that does not help, the image must be pushed there anew";
const MADE_WRONG: &str = "whoever made the image made it wrong: it must be built and pushed anew";
const NOT_A_REGISTRY: &str =
    "this is not how registries answer: see with `curl` what is there; a proxy on the way may change replies";
const OFFLINE: &str = "is this machine online? a proxy is named by `HTTPS_PROXY`, exceptions by `NO_PROXY`; mirrors stand in \
                       `registries.conf`";

impl Advise for RegistryError {
    fn message(&self) -> String {
        match self {
            Self::NotFound { subject: Subject::Manifest(reference), refusal } => {
                match has_code(refusal, "NAME_UNKNOWN") {
                    true => format!("repository {} not found: {refusal}", reference.familiar_name()),
                    false => format!("manifest for {} not found: {refusal}", reference.familiar()),
                }
            }
            Self::NotFound { subject: Subject::Repository(reference), refusal } => {
                format!("repository {} not found: {refusal}", reference.familiar_name())
            }
            Self::Denied { subject: Subject::Blob(name, digest), refusal, .. } => {
                format!(
                    "pull access denied for {}, repository does not exist or may require 'docker login': blob `{digest}`: \
                     {refusal}",
                    name.familiar_name()
                )
            }
            Self::Denied { subject: Subject::Manifest(name), refusal, .. } => {
                format!(
                    "pull access denied for {}, repository does not exist or may require 'docker login': {refusal}",
                    name.familiar_name()
                )
            }
            _ => message_with_causes(self),
        }
    }

    fn advice(&self) -> Option<String> {
        let hint = match self {
            Self::NotFound { subject, refusal } => return not_found(subject, refusal),
            Self::Denied { subject, had_login, .. } => denied(subject, *had_login),
            Self::TooManyRequests { subject, retry_after_s, .. } => {
                let wait = match retry_after_s {
                    Some(seconds) => format!("try again in {seconds} seconds"),
                    None => "try again later".to_owned(),
                };
                format!("{wait}; with an account there is more room: {}", login(subject.registry()))
            }
            Self::Status { refusal, .. } if refusal.status >= 500 => {
                format!("`{}` has a fault of its own: try again later", refusal.host)
            }
            Self::HtmlReply { host, .. } => format!(
                "see with a browser what `{host}` is: a login page of the network, perhaps, or a registry that is under \
                 another name or port"
            ),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => DAMAGED.to_owned(),
            Self::Broken { .. } => AGAIN.to_owned(),
            Self::UnknownHost { subject, host, .. } => unknown_host(subject, host),
            Self::Status { refusal, .. } if refusal.status == 413 => {
                "what was sent is larger than the registry, or a proxy before it, takes: its limit must be raised there"
                    .to_owned()
            }
            Self::Status { .. }
            | Self::InvalidReply { .. }
            | Self::TooLarge { .. }
            | Self::Challenge { .. } => NOT_A_REGISTRY.to_owned(),
            Self::Document { .. } | Self::Schema1 { .. } => MADE_WRONG.to_owned(),
            Self::Connection { host, .. } if is_loopback(host) => {
                format!("does a registry listen at `{host}`? see with `curl http://{host}/v2/`")
            }
            Self::Connection { .. } | Self::TimedOut { .. } => OFFLINE.to_owned(),
            Self::Tls { subject, host, problem } => return tls(subject, host, problem),
            Self::NoAuthorities => {
                "install them (package `ca-certificates`), or name a file with `SSL_CERT_FILE=FILE`".to_owned()
            }
            Self::DeletionDisabled { .. } => {
                "whoever runs the registry has to allow it; docker's is told so with `REGISTRY_STORAGE_DELETE_ENABLED=true`"
                    .to_owned()
            }
            Self::Redirect { .. } => {
                "the registry sends clients the wrong way, which whoever runs it has to mend; if you know the host that \
                 has the image, name that"
                    .to_owned()
            }
            Self::Blocked { path, line, .. } => {
                format!("line {line} of `{}` says so: `blocked = false` there allows it", path.display())
            }
            Self::NoEndpoint { path, purpose, .. } => {
                format!("add `{purpose}` to the `capabilities` of a host in `{}`", path.display())
            }
            _ => return advice_on_full_disk(self),
        };
        Some(hint)
    }
}

/// What is wrong with what a registry has, in docker's words where it has some.
pub(super) fn message_of_pull(reference: &str, error: &PullError) -> String {
    match error {
        PullError::NotFound => format!("manifest for {reference} not found: manifest unknown"),
        PullError::Platform { found, wanted } => format!(
            "image with reference {reference} was found but its platform ({found}) does not match the specified platform \
             ({wanted})"
        ),
        _ => format!("{reference}: {}", message_with_causes(error)),
    }
}

/// What is wrong with what a registry has.
pub(super) fn advice_on_pull(error: &PullError) -> Option<String> {
    let hint = match error {
        PullError::NotFound => "see which tags there are with `mica tags REPOSITORY`",
        PullError::ManifestMissing { .. } => {
            "the image was not pushed as a whole: it has to be pushed again, or try another one with `--platform OS/ARCH`"
        }
        PullError::NoPlatform { .. } | PullError::Platform { .. } => {
            "`--platform OS/ARCH` chooses one of those that there are; `mica manifest inspect NAME` lists them"
        }
        PullError::BlobDigest { .. } | PullError::BlobSize { .. } => DAMAGED,
        PullError::LayerDigest { .. }
        | PullError::LayerCount { .. }
        | PullError::Document { .. }
        | PullError::Nesting { .. } => MADE_WRONG,
        PullError::Layer { source, .. } if !is_of_this_machine(source) => MADE_WRONG,
        PullError::NotAnImage { .. } | PullError::LayerMediaType { .. } => {
            "it holds something else than an image; `mica copy` takes it as it is"
        }
        PullError::Broken { .. } => AGAIN,
        _ => return advice_on_full_disk(error),
    };
    Some(hint.to_owned())
}

/// Whether a layer could not be applied for reasons that are not its own.
fn is_of_this_machine(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let is_full = advice_on_full_disk(error).is_some();
        if is_full || error.is::<mica_sys::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What is wrong with what should be pushed.
pub(super) fn advice_on_push(reference: &str, error: &PushError) -> Option<String> {
    Some(match error {
        PushError::Digest => "push by a tag: `mica push NAME:TAG`".to_owned(),
        PushError::NoImage { repository } => {
            format!(
                "give an image that name with `mica tag IMAGE {repository}`; `mica images` lists all images"
            )
        }
        PushError::NoTag { .. } => {
            let repository = reference.rsplit_once(':').map_or(reference, |(repository, _)| repository);
            format!(
                "`mica images {repository}` lists its tags; `mica push -a {repository}` pushes all of them"
            )
        }
        PushError::NoPlatform { .. } => "`mica push` without `--platform` pushes what there is".to_owned(),
        PushError::Stopped | PushError::OtherBytes { .. } => AGAIN_PUSH.to_owned(),
        _ => return advice_on_full_disk(error),
    })
}

/// A refused push in docker's words. The same refusal of a pull may hide that there is nothing.
pub(crate) fn push_denied(name: &Reference, refusal: &Refusal, had_login: bool) -> CliError {
    let shown = CliError::new(format!("push access denied for {}: {refusal}", name.familiar_name()));
    let official = name.registry() == DEFAULT_REGISTRY && name.repository().starts_with("library/");
    let familiar = name.familiar_name();
    shown.hint(match (official, had_login) {
        (true, _) => format!(
            "only docker's own images have names without an account: `mica tag {familiar} ACCOUNT/{familiar}`, then push that"
        ),
        (false, true) => format!("this account may not push there; for another one: {}", login(name.registry())),
        (false, false) => login(name.registry()),
    })
}

/// Whether a registry did not even answer.
pub(crate) fn is_unreachable(error: &ImageError) -> bool {
    let ImageError::Registry(error) = error else { return false };
    matches!(
        error,
        RegistryError::UnknownHost { .. } | RegistryError::Connection { .. } | RegistryError::TimedOut { .. }
    )
}

fn login(registry: &str) -> String {
    match registry {
        DEFAULT_REGISTRY => "`mica login`".to_owned(),
        registry => format!("`mica login {registry}`"),
    }
}

fn has_code(refusal: &Refusal, code: &str) -> bool {
    refusal.reply.entries.iter().any(|entry| entry.code.as_ref().is_some_and(|found| found.as_str() == code))
}

fn not_found(subject: &Subject, refusal: &Refusal) -> Option<String> {
    let name = subject.reference()?.familiar_name();
    Some(match subject {
        Subject::Manifest(_) if !has_code(refusal, "NAME_UNKNOWN") => {
            format!("`mica tags {name}` lists the tags that there are")
        }
        Subject::Blob(..) => "the registry lost a part of the image: it must be pushed there anew".to_owned(),
        _ => "check the spelling; `mica search TERM` looks for images".to_owned(),
    })
}

fn denied(subject: &Subject, had_login: bool) -> String {
    let login = login(subject.registry());
    match had_login {
        true => format!("check the spelling; this login may not see it, for another one: {login}"),
        false => format!("check the spelling; if the image is private: {login}"),
    }
}

fn unknown_host(subject: &Subject, host: &str) -> String {
    match subject.registry() {
        DEFAULT_REGISTRY => OFFLINE.to_owned(),
        registry if host.starts_with(registry.split(':').next().unwrap_or(registry)) => format!(
            "check the spelling of `{registry}`: what stands before the first `/` of a name is a host if it has a dot or a port"
        ),
        _ => OFFLINE.to_owned(),
    }
}

fn tls(subject: &Subject, host: &str, problem: &TlsProblem) -> Option<String> {
    let registry = match subject.registry() {
        DEFAULT_REGISTRY => host,
        registry => registry,
    };
    let certs = format!("/etc/docker/certs.d/{registry}");
    Some(match problem {
        TlsProblem::UnknownAuthority => {
            format!("if you trust it, put the certificate of its authority into `{certs}/ca.crt`")
        }
        TlsProblem::NameMismatch => {
            "use the name that the certificate is for; `openssl s_client -connect` shows it".to_owned()
        }
        TlsProblem::Expired => "whoever runs the registry must renew it".to_owned(),
        TlsProblem::NotYetValid => "is the clock of this machine right? see with `date`".to_owned(),
        TlsProblem::ClientCertificate => {
            format!(
                "put the certificate and key that it wants into `{certs}/client.cert` and `{certs}/client.key`"
            )
        }
        TlsProblem::NotSpoken => format!(
            "if it speaks plain http and you trust the way to it, say so in `/etc/containers/registries.conf`: \
             `[[registry]]`, `location = \"{registry}\"`, `insecure = true`"
        ),
        TlsProblem::Protocol(_) => {
            "something on the way changes what is sent, or the registry has no version of TLS from 1.2 on: \
                                   see with `openssl s_client -connect`"
                .to_owned()
        }
        TlsProblem::Certificate(_) => return None,
        _ => return None,
    })
}

/// Whether a host, with its port, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A search that a registry does not know of.
pub(crate) fn search_failed(error: RegistryError) -> CliError {
    match error {
        RegistryError::NotFound { subject: Subject::Registry(registry), refusal } => {
            CliError::new(format!("registry `{registry}` cannot be searched: {refusal}"))
                .hint("`mica tags NAME` lists the tags of a repository whose name is known")
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_oci::Digest;

    fn manifest(name: &str) -> Subject {
        Subject::Manifest(Reference::parse(name).unwrap().with_default_tag().into())
    }

    fn refusal(status: u16, body: &str) -> Refusal {
        let reply = mica_registry_api::ErrorReply::parse(body.as_bytes());
        Refusal { status, host: "h".to_owned(), reply }
    }

    fn code(code: &str, message: &str) -> Refusal {
        refusal(404, &format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#))
    }

    #[track_caller]
    fn check(error: RegistryError, message: &str, hint: &str) {
        let shown = CliError::from(error);
        assert_eq!(shown.message, message);
        let found = shown.hint.unwrap_or_default();
        assert!(found.contains(hint), "{found}");
    }

    #[test]
    fn dockers_words() {
        check(
            RegistryError::Denied {
                subject: manifest("nobody/x"),
                refusal: code("DENIED", "requested access to the resource is denied"),
                had_login: false,
            },
            "pull access denied for nobody/x, repository does not exist or may require 'docker login': denied: requested \
             access to the resource is denied",
            "if the image is private: `mica login`",
        );
        check(
            RegistryError::NotFound {
                subject: manifest("node:nope"),
                refusal: code("MANIFEST_UNKNOWN", "manifest unknown"),
            },
            "manifest for node:nope not found: manifest unknown: manifest unknown",
            "`mica tags node`",
        );
        check(
            RegistryError::NotFound {
                subject: manifest("r.example/a/b"),
                refusal: code("NAME_UNKNOWN", "repository name not known to registry"),
            },
            "repository r.example/a/b not found: name unknown: repository name not known to registry",
            "check the spelling",
        );
    }

    #[test]
    fn hints_name_the_command_or_the_file() {
        let tls = |problem| RegistryError::Tls {
            subject: manifest("r.example:5000/a"),
            host: "r.example:5000".to_owned(),
            problem,
        };
        check(
            tls(TlsProblem::UnknownAuthority),
            "`r.example:5000/a:latest`: TLS with `r.example:5000` failed: its certificate is signed by an unknown authority",
            "`/etc/docker/certs.d/r.example:5000/ca.crt`",
        );
        check(
            tls(TlsProblem::NotSpoken),
            "`r.example:5000/a:latest`: TLS with `r.example:5000` failed: it does not speak TLS",
            "`location = \"r.example:5000\"`, `insecure = true`",
        );
        check(
            RegistryError::TooManyRequests {
                subject: manifest("node"),
                refusal: code("TOOMANYREQUESTS", "You have reached your pull rate limit"),
                retry_after_s: Some(60),
            },
            "too many requests for `docker.io/library/node:latest`: toomanyrequests: You have reached your pull rate limit",
            "in 60 seconds; with an account there is more room: `mica login`",
        );
        let refused = |host: &str| RegistryError::Connection {
            subject: manifest("127.0.0.1:5000/a"),
            host: host.to_owned(),
            action: "connecting to",
            problem: "refused".to_owned(),
        };
        let told = |host: &str| format!("`127.0.0.1:5000/a:latest`: connecting to `{host}` failed: refused");
        for host in ["127.0.0.1:5000", "[::1]:5000", "localhost:5000", "localhost"] {
            check(refused(host), &told(host), "does a registry listen at");
        }
        check(refused("10.0.0.1:5000"), &told("10.0.0.1:5000"), "is this machine online?");
        check(
            RegistryError::NotFound {
                subject: Subject::Blob(Reference::parse("a").unwrap().into(), Digest::sha256(b"x")),
                refusal: refusal(404, ""),
            },
            &format!(
                "blob `{}` of `docker.io/library/a` not found: `h` answered with status 404",
                Digest::sha256(b"x")
            ),
            "pushed there anew",
        );
    }

    #[test]
    fn refused_pushes() {
        let check = |name: &str, had_login: bool, hint: &str| {
            let name = Reference::parse(name).unwrap();
            let denied = code("DENIED", "requested access to the resource is denied");
            let shown = push_denied(&name, &denied, had_login);
            let end = "denied: requested access to the resource is denied";
            assert_eq!(shown.message, format!("push access denied for {}: {end}", name.familiar_name()));
            assert!(shown.hint.as_deref().unwrap_or_default().contains(hint), "{shown:?}");
        };
        check("node", true, "`mica tag node ACCOUNT/node`");
        check("me/node", false, "`mica login`");
        check("quay.io/me/node", false, "`mica login quay.io`");
        check("quay.io/me/node", true, "this account may not push there");
    }
}
