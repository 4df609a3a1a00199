//! Advice on what a build fetches.

use mica_build::RemoteError;
use mica_context::{ContextError, GitProblem, HttpProblem};

use super::{Advise, advice_on_full_disk};

impl Advise for RemoteError {
    fn advice(&self) -> Option<String> {
        match self {
            Self::Fetch(ContextError::Http { problem, .. }) => http(problem),
            Self::Fetch(ContextError::Git { problem, .. }) => git(problem),
            Self::Checksum { found, .. } => {
                Some(format!("if that is what should be there, say `--checksum={found}`"))
            }
            Self::NoName { .. } => {
                Some("end the destination with the name that the file is to have".to_owned())
            }
            _ => advice_on_full_disk(self),
        }
    }
}

fn http(problem: &HttpProblem) -> Option<String> {
    match problem {
        HttpProblem::Status { host, status: 401 | 403 } => {
            let name = host.split(':').next().unwrap_or_default();
            Some(format!("a login is given with `--secret id=HTTP_AUTH_TOKEN_{name},src=FILE`"))
        }
        HttpProblem::Status { status: 404 | 410, .. } => Some("is the address right?".to_owned()),
        HttpProblem::Client(mica_http::HttpError::NoAuthorities) => {
            Some("install the package `ca-certificates`".to_owned())
        }
        _ => None,
    }
}

fn git(problem: &GitProblem) -> Option<String> {
    let is_about_login = |message: &str| {
        ["could not read Username", "Authentication failed", "terminal prompts disabled", "403", "401"]
            .iter()
            .any(|words| message.contains(words))
    };
    match problem {
        GitProblem::NotInstalled => Some("install it, for example with `apt install git`".to_owned()),
        GitProblem::Failed { message, .. } if is_about_login(message) => {
            Some("a login is given with `--secret id=GIT_AUTH_TOKEN,src=FILE`".to_owned())
        }
        GitProblem::NoReference { .. } => {
            Some("`git ls-remote ADDRESS` lists the branches and tags that there are".to_owned())
        }
        GitProblem::Refused { what: "the checksum of a commit", .. } => {
            Some("give a commit, or its first digits: at least seven".to_owned())
        }
        _ => None,
    }
}
