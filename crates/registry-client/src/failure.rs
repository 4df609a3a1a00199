//! What a failed message means: an error in our words, and what may help.

use std::error::Error as StdError;
use std::io;

use mica_registry_api::printable;
use rustls::{AlertDescription, CertificateError};

use crate::connection::{Doing, host_of};
use crate::error::RegistryError;
use crate::refusal::TlsProblem;
use crate::registries::is_loopback;
use crate::resolver::NameError;
use crate::retry::{Failure, Remedy};

/// Characters of a problem that are shown.
const PROBLEM_LENGTH_MAX: usize = 300;

impl Doing<'_> {
    /// What a failed exchange means. The library's own text is not used: it has the URL, whose query may be a signature.
    pub(crate) fn failed(&self, error: reqwest::Error, action: &'static str) -> Failure {
        let (subject, host) = (self.subject.clone(), host_of(self.url));
        let is_connect = error.is_connect();
        let is_tls = self.url.scheme() == "https";
        if let Some(name) = find::<NameError>(&error) {
            let problem = printable(&name.problem, PROBLEM_LENGTH_MAX);
            return Failure::new(
                RegistryError::UnknownHost { subject, host: name.host.clone(), problem },
                Remedy::Again,
            );
        }
        if let Some(problem) = find::<rustls::Error>(&error) {
            let (problem, remedy) = tls_problem(problem, is_connect);
            return Failure::new(RegistryError::Tls { subject, host, problem }, remedy);
        }
        if error.is_timeout() {
            let action = if is_connect { "connecting to" } else { action };
            let seconds = if is_connect { self.patience.connect } else { self.patience.idle }.as_secs();
            return Failure::new(RegistryError::TimedOut { subject, host, action, seconds }, Remedy::Wait);
        }
        let kind = find::<io::Error>(&error).map(io::Error::kind);
        let problem = printable(&root_cause(&error), PROBLEM_LENGTH_MAX);
        if is_connect {
            // A handshake that is cut off is what some plain servers do with TLS.
            let is_cut = matches!(
                kind,
                Some(
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                )
            );
            let remedy = match kind {
                _ if is_tls && is_cut => Remedy::OtherSchemeOrWait,
                Some(io::ErrorKind::ConnectionRefused) if self.url.host_str().is_some_and(is_loopback) => {
                    Remedy::None
                }
                Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => Remedy::Again,
                _ => Remedy::Wait,
            };
            return Failure::new(
                RegistryError::Connection { subject, host, action: "connecting to", problem },
                remedy,
            );
        }
        let hyper = find::<hyper::Error>(&error);
        // What a TLS server answers to plain text is no HTTP, and some only hang up.
        let remedy = match hyper {
            Some(hyper) if hyper.is_parse() => Remedy::OtherSchemeOrWait,
            Some(hyper) if hyper.is_incomplete_message() && !is_tls => Remedy::OtherSchemeOrWait,
            _ if kind == Some(io::ErrorKind::ConnectionReset) && !is_tls => Remedy::OtherSchemeOrWait,
            _ => Remedy::Wait,
        };
        let problem = match hyper {
            Some(hyper) if hyper.is_incomplete_message() => "the connection was closed".to_owned(),
            Some(hyper) if hyper.is_parse() => format!("the reply is not HTTP: {problem}"),
            _ => problem,
        };
        Failure::new(RegistryError::Connection { subject, host, action, problem }, remedy)
    }
}

fn tls_problem(error: &rustls::Error, is_connect: bool) -> (TlsProblem, Remedy) {
    use rustls::Error as E;
    let problem = match error {
        E::InvalidCertificate(problem) => match problem {
            // An authority of the same name but with another key is another one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsProblem::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsProblem::NameMismatch
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsProblem::NotYetValid
            }
            other => TlsProblem::Certificate(printable(&other.to_string(), PROBLEM_LENGTH_MAX)),
        },
        E::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::AccessDenied,
        ) => TlsProblem::ClientCertificate,
        E::InvalidMessage(_) | E::PeerSentOversizedRecord if is_connect => {
            return (TlsProblem::NotSpoken, Remedy::OtherScheme);
        }
        other => {
            let problem = TlsProblem::Protocol(printable(&other.to_string(), PROBLEM_LENGTH_MAX));
            // In the middle of a conversation that is a broken connection like any other, and so are bytes that were altered.
            let is_altered = matches!(
                other,
                E::DecryptError
                    | E::AlertReceived(
                        AlertDescription::BadRecordMac
                            | AlertDescription::DecodeError
                            | AlertDescription::DecryptError
                    )
            );
            let remedy = if is_connect && !is_altered { Remedy::None } else { Remedy::Wait };
            return (problem, remedy);
        }
    };
    (problem, Remedy::None)
}

/// An error of this type among the causes of another. `io::Error` hides what it was made of from `source`.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = inner(error);
    }
    None
}

fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(hidden) => Some(hidden),
        None => error.source(),
    }
}

/// The last of the causes, in our style.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut last: &(dyn StdError + 'static) = error;
    while let Some(cause) = inner(last) {
        last = cause;
    }
    // Had it no cause, the text would have the URL.
    if std::ptr::addr_eq(last, error) {
        return "the request could not be made".to_owned();
    }
    let text = last.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_tls() {
        use rustls::Error as E;
        let check = |error: E, is_connect, problem: &str, remedy| {
            let (found, found_remedy) = tls_problem(&error, is_connect);
            assert_eq!((found.to_string().as_str(), found_remedy), (problem, remedy), "{error:?}");
        };
        let certificate = |problem| E::InvalidCertificate(problem);
        let unknown = "its certificate is signed by an unknown authority";
        check(certificate(CertificateError::UnknownIssuer), true, unknown, Remedy::None);
        check(certificate(CertificateError::Expired), true, "its certificate has expired", Remedy::None);
        check(
            certificate(CertificateError::NotValidYet),
            true,
            "its certificate is not valid yet",
            Remedy::None,
        );
        check(
            certificate(CertificateError::NotValidForName),
            true,
            "its certificate is for other names",
            Remedy::None,
        );
        let message = || E::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        check(message(), true, "it does not speak TLS", Remedy::OtherScheme);
        // In the middle of a conversation it is no question of the scheme.
        assert_eq!(tls_problem(&message(), false).1, Remedy::Wait);
        assert_eq!(tls_problem(&E::DecryptError, false).1, Remedy::Wait);
        // Altered on the way: the next handshake may come through.
        assert_eq!(tls_problem(&E::DecryptError, true).1, Remedy::Wait);
        assert_eq!(tls_problem(&E::AlertReceived(AlertDescription::BadRecordMac), true).1, Remedy::Wait);
        assert_eq!(tls_problem(&E::AlertReceived(AlertDescription::HandshakeFailure), true).1, Remedy::None);
        let refused = "it does not accept our client certificate";
        check(E::AlertReceived(AlertDescription::CertificateRequired), false, refused, Remedy::None);
    }
}
