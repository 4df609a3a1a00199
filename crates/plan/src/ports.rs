//! Ports as EXPOSE has them.

use thiserror::Error;

/// What is wrong with a word of EXPOSE.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum PortError {
    /// Nothing, or only a protocol.
    #[error("no port in `{0}`")]
    NoPort(String),
    /// Neither tcp, udp nor sctp.
    #[error("`{0}` is not a protocol, only `tcp`, `udp` and `sctp` are")]
    Protocol(String),
    /// Not a number from 0 to 65535, nor a range of them.
    #[error("`{0}` is not a port")]
    NotAPort(String),
    /// The end of a range is below its start.
    #[error("the range `{0}` ends before it begins")]
    BackwardRange(String),
    /// The address before the ports.
    #[error("`{0}` is not an IP address")]
    Address(String),
    /// `1-3:5-9`
    #[error("the ranges `{host}` and `{container}` differ in length")]
    RangesDiffer {
        /// Left of the colon.
        host: String,
        /// Right of the colon.
        container: String,
    },
}

/// The `port/protocol` pairs of a word, `[[address:]host:]port[-port][/protocol]`. Address and host ports are checked
/// and dropped: the language once took them, and Dockerfiles still have them.
pub(crate) fn parse_ports(word: &str) -> Result<Vec<String>, PortError> {
    let (before, container) = match word.rsplit_once(':') {
        Some((before, container)) => (Some(before), container),
        None => (None, word),
    };
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(PortError::NoPort(word.to_string()));
    }
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp",
        "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(PortError::Protocol(protocol.to_string())),
    };
    let (start, end) = parse_range(ports)?;
    if let Some(before) = before {
        let (address, host) = before.rsplit_once(':').unwrap_or(("", before));
        let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
        if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
            return Err(PortError::Address(address.to_string()));
        }
        if !host.is_empty() {
            let (host_start, host_end) = parse_range(host)?;
            if host_end - host_start != end - start && start != end {
                return Err(PortError::RangesDiffer { host: host.to_string(), container: ports.to_string() });
            }
        }
    }
    Ok((start..=end).map(|port| format!("{port}/{protocol}")).collect())
}

fn parse_range(text: &str) -> Result<(u16, u16), PortError> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits).ok_or_else(|| PortError::NotAPort(text.to_string()))
    };
    let Some((start, end)) = text.split_once('-') else {
        return number(text).map(|port| (port, port));
    };
    let (start, end) = (number(start)?, number(end)?);
    if end < start {
        return Err(PortError::BackwardRange(text.to_string()));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expect: Result<&[&str], PortError>) {
        let expect = expect.map(|ports| ports.iter().map(|port| port.to_string()).collect::<Vec<_>>());
        assert_eq!(parse_ports(word), expect, "{word}");
    }

    #[test]
    fn words_are_ports() {
        check("80", Ok(&["80/tcp"]));
        check("80/UDP", Ok(&["80/udp"]));
        check("80/", Ok(&["80/tcp"]));
        check("8000-8002/sctp", Ok(&["8000/sctp", "8001/sctp", "8002/sctp"]));
        check("8080:80", Ok(&["80/tcp"]));
        check("127.0.0.1:8080:80", Ok(&["80/tcp"]));
        check("[::1]:8080:80", Ok(&["80/tcp"]));
        check("8000-8010:80", Ok(&["80/tcp"]));
        check("", Err(PortError::NoPort("".into())));
        check("/tcp", Err(PortError::NoPort("/tcp".into())));
        check("80/http", Err(PortError::Protocol("http".into())));
        check("65536", Err(PortError::NotAPort("65536".into())));
        check("+80", Err(PortError::NotAPort("+80".into())));
        check("1-2-3", Err(PortError::NotAPort("2-3".into())));
        check("9-1", Err(PortError::BackwardRange("9-1".into())));
        check("host:80:80", Err(PortError::Address("host".into())));
        check("1-3:5-9", Err(PortError::RangesDiffer { host: "1-3".into(), container: "5-9".into() }));
    }
}
