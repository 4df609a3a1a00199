//! Rules about one instruction alone.

use super::{Findings, Rule, is_keyword};
use crate::node::{Node, Piece};

pub(super) fn check_node(node: &Node, findings: &mut Findings) {
    let keyword = node.keyword.text.to_ascii_uppercase();
    match keyword.as_str() {
        "MAINTAINER" => {
            let hint = "write `LABEL org.opencontainers.image.authors=...`";
            findings.add(Rule::MaintainerDeprecated, node.span, "MAINTAINER is deprecated".to_owned(), hint);
        }
        "ENV" | "LABEL" => {
            if let [key, value, mark] = node.args.as_slice()
                && mark.text.is_empty()
            {
                let message = format!("old form `{keyword} key value`");
                let hint = format!("write `{keyword} {}=...`", key.text);
                let span = mica_diagnostic::Span::new(key.span.start, value.span.end);
                findings.add(Rule::LegacyKeyValueFormat, span, message, &hint);
            }
        }
        "EXPOSE" => node.args.iter().for_each(|port| check_port(port, findings)),
        _ => {}
    }
    if keyword == "ENV" {
        node.args
            .chunks(3)
            .filter_map(|pair| pair.first())
            .for_each(|key| check_secret("ENV", key, &key.text, findings));
    }
    if is_keyword(node, "ARG") {
        for arg in &node.args {
            let name = arg.text.split('=').next().unwrap_or_default();
            check_secret("ARG", arg, name, findings);
        }
    }
}

fn check_port(port: &Piece, findings: &mut Findings) {
    let text = port.text.as_str();
    if text.contains('$') {
        return;
    }
    let (address, protocol) = match text.rsplit_once('/') {
        Some((address, protocol)) => (address, protocol),
        None => (text, ""),
    };
    if protocol != protocol.to_lowercase() {
        let message = format!("protocol of `{text}` should be lowercase");
        findings.add(Rule::ExposeProtoCasing, port.span, message, "write `tcp`, `udp` or `sctp`");
    }
    if address.contains(':') {
        let message = format!("EXPOSE takes no address and no port of the host: `{text}`");
        findings.add(Rule::ExposeInvalidFormat, port.span, message, "publish ports when running");
    }
}

fn check_secret(keyword: &str, place: &Piece, name: &str, findings: &mut Findings) {
    const WORDS: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    let lower = name.to_lowercase();
    let has = |wanted: &[&str]| lower.split('_').any(|part| wanted.contains(&part));
    if has(&WORDS) && !has(&["public"]) {
        let message = format!("`{name}` looks like a secret, and {keyword} stays in the image");
        findings.add(Rule::SecretsUsedInArgOrEnv, place.span, message, "use `RUN --mount=type=secret`");
    }
}
