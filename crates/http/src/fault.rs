//! What a failed exchange means, as facts. The library's own text is not used: it has the URL, whose query may be a signature.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use mica_registry_api::printable;
use rustls::{AlertDescription, CertificateError};

use crate::resolver::NameError;

/// Characters of a problem that are shown.
const PROBLEM_LENGTH_MAX: usize = 300;

/// What a failed exchange means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The name of the host, or of the proxy, is not known.
    UnknownHost {
        /// The name.
        host: String,
        /// What the name servers said.
        problem: String,
    },
    /// TLS failed.
    Tls {
        /// Why.
        problem: TlsProblem,
        /// Whether another try may do better: bytes were altered, or the conversation had begun.
        may_pass: bool,
    },
    /// Nothing came for too long.
    TimedOut {
        /// Whether there was no connection yet.
        is_connect: bool,
    },
    /// The host could not be reached, or the connection broke.
    Broken {
        /// Whether there was no connection yet.
        is_connect: bool,
        /// What the system says, where it says something.
        kind: Option<io::ErrorKind>,
        /// What came in place of a reply, where something did.
        reply: Option<BadReply>,
        /// In words: bounded and printable.
        problem: String,
    },
}

/// A reply that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// It is not HTTP.
    NotHttp,
    /// It ends in the middle.
    Incomplete,
}

/// Why TLS could not be spoken with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// Its certificate was not signed by an authority that is trusted here.
    UnknownAuthority,
    /// Its certificate is for other names.
    NameMismatch,
    /// Its certificate was good until some time ago.
    Expired,
    /// Its certificate will be good only later: perhaps this machine's clock is wrong.
    NotYetValid,
    /// Its certificate is wrong in another way.
    Certificate(String),
    /// It wants a client certificate, or another one.
    ClientCertificate,
    /// It does not speak TLS on this port.
    NotSpoken,
    /// Another failure of the protocol.
    Protocol(String),
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsProblem::UnknownAuthority => {
                formatter.write_str("its certificate is signed by an unknown authority")
            }
            TlsProblem::NameMismatch => formatter.write_str("its certificate is for other names"),
            TlsProblem::Expired => formatter.write_str("its certificate has expired"),
            TlsProblem::NotYetValid => formatter.write_str("its certificate is not valid yet"),
            TlsProblem::Certificate(problem) => write!(formatter, "its certificate is not good: {problem}"),
            TlsProblem::ClientCertificate => formatter.write_str("it does not accept our client certificate"),
            TlsProblem::NotSpoken => formatter.write_str("it does not speak TLS"),
            TlsProblem::Protocol(problem) => write!(formatter, "{problem}"),
        }
    }
}

impl fmt::Display for Fault {
    /// To be put behind what was being done.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::UnknownHost { host, problem } => write!(formatter, "cannot find host `{host}`: {problem}"),
            Fault::Tls { problem, .. } => write!(formatter, "TLS failed: {problem}"),
            Fault::TimedOut { is_connect: true } => formatter.write_str("timed out while connecting"),
            Fault::TimedOut { is_connect: false } => formatter.write_str("nothing came for too long"),
            Fault::Broken { problem, .. } => formatter.write_str(problem),
        }
    }
}

impl Fault {
    /// What an error of an exchange means.
    pub fn of(error: &reqwest::Error) -> Fault {
        let is_connect = error.is_connect();
        if let Some(name) = find::<NameError>(error) {
            let problem = printable(&name.problem, PROBLEM_LENGTH_MAX);
            return Fault::UnknownHost { host: name.host.clone(), problem };
        }
        if let Some(problem) = find::<rustls::Error>(error) {
            let (problem, may_pass) = tls_problem(problem, is_connect);
            return Fault::Tls { problem, may_pass };
        }
        if error.is_timeout() {
            return Fault::TimedOut { is_connect };
        }
        let kind = find::<io::Error>(error).map(io::Error::kind);
        let problem = printable(&root_cause(error), PROBLEM_LENGTH_MAX);
        let reply = match find::<hyper::Error>(error) {
            _ if is_connect => None,
            Some(hyper) if hyper.is_incomplete_message() => Some(BadReply::Incomplete),
            Some(hyper) if hyper.is_parse() => Some(BadReply::NotHttp),
            _ => None,
        };
        let problem = match reply {
            Some(BadReply::Incomplete) => "the connection was closed".to_owned(),
            Some(BadReply::NotHttp) => format!("the reply is not HTTP: {problem}"),
            None => problem,
        };
        Fault::Broken { is_connect, kind, reply, problem }
    }
}

fn tls_problem(error: &rustls::Error, is_connect: bool) -> (TlsProblem, bool) {
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
        E::InvalidMessage(_) | E::PeerSentOversizedRecord if is_connect => TlsProblem::NotSpoken,
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
            return (problem, !is_connect || is_altered);
        }
    };
    (problem, false)
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
        let check = |error: E, is_connect, problem: &str, may_pass| {
            let (found, found_may_pass) = tls_problem(&error, is_connect);
            assert_eq!((found.to_string().as_str(), found_may_pass), (problem, may_pass), "{error:?}");
        };
        let certificate = |problem| E::InvalidCertificate(problem);
        let unknown = "its certificate is signed by an unknown authority";
        check(certificate(CertificateError::UnknownIssuer), true, unknown, false);
        check(certificate(CertificateError::Expired), true, "its certificate has expired", false);
        check(certificate(CertificateError::NotValidYet), true, "its certificate is not valid yet", false);
        check(
            certificate(CertificateError::NotValidForName),
            true,
            "its certificate is for other names",
            false,
        );
        let message = || E::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        check(message(), true, "it does not speak TLS", false);
        // In the middle of a conversation it is no question of the scheme.
        assert!(tls_problem(&message(), false).1);
        assert!(tls_problem(&E::DecryptError, false).1);
        // Altered on the way: the next handshake may come through.
        assert!(tls_problem(&E::DecryptError, true).1);
        assert!(tls_problem(&E::AlertReceived(AlertDescription::BadRecordMac), true).1);
        assert!(!tls_problem(&E::AlertReceived(AlertDescription::HandshakeFailure), true).1);
        let refused = "it does not accept our client certificate";
        check(E::AlertReceived(AlertDescription::CertificateRequired), false, refused, false);
    }
}
