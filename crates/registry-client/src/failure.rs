//! What a failed message means: an error in our words, and what may help.

use std::io;

use mica_http::{BadReply, Fault, TlsProblem, host_of, is_loopback};

use crate::connection::Doing;
use crate::error::RegistryError;
use crate::retry::{Failure, Remedy};

impl Doing<'_> {
    /// What a failed exchange means.
    pub(crate) fn failed(&self, error: reqwest::Error, action: &'static str) -> Failure {
        let (subject, host) = (self.subject.clone(), host_of(self.url));
        let remedy = self.remedy(&Fault::of(&error));
        let error = match Fault::of(&error) {
            Fault::UnknownHost { host, problem } => RegistryError::UnknownHost { subject, host, problem },
            Fault::Tls { problem, .. } => RegistryError::Tls { subject, host, problem },
            Fault::TimedOut { is_connect: true } => {
                let seconds = self.patience.connect.as_secs();
                RegistryError::TimedOut { subject, host, action: "connecting to", seconds }
            }
            Fault::TimedOut { is_connect: false } => {
                RegistryError::TimedOut { subject, host, action, seconds: self.patience.idle.as_secs() }
            }
            Fault::Broken { is_connect, problem, .. } => {
                let action = if is_connect { "connecting to" } else { action };
                RegistryError::Connection { subject, host, action, problem }
            }
            other => RegistryError::Connection { subject, host, action, problem: other.to_string() },
        };
        Failure::new(error, remedy)
    }

    fn remedy(&self, fault: &Fault) -> Remedy {
        let is_tls = self.url.scheme() == "https";
        match fault {
            Fault::UnknownHost { .. } => Remedy::Again,
            Fault::Tls { problem: TlsProblem::NotSpoken, .. } => Remedy::OtherScheme,
            Fault::Tls { may_pass: true, .. } => Remedy::Wait,
            Fault::Tls { may_pass: false, .. } => Remedy::None,
            Fault::Broken { is_connect: true, kind, .. } => match kind {
                // A handshake that is cut off is what some plain servers do with TLS.
                Some(
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe,
                ) if is_tls => Remedy::OtherSchemeOrWait,
                Some(io::ErrorKind::ConnectionRefused) if self.url.host_str().is_some_and(is_loopback) => {
                    Remedy::None
                }
                Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => Remedy::Again,
                _ => Remedy::Wait,
            },
            // What a TLS server answers to plain text is no HTTP, and some only hang up.
            Fault::Broken { reply: Some(BadReply::NotHttp), .. } => Remedy::OtherSchemeOrWait,
            Fault::Broken { reply: Some(BadReply::Incomplete), .. } if !is_tls => Remedy::OtherSchemeOrWait,
            Fault::Broken { kind: Some(io::ErrorKind::ConnectionReset), .. } if !is_tls => {
                Remedy::OtherSchemeOrWait
            }
            _ => Remedy::Wait,
        }
    }
}
