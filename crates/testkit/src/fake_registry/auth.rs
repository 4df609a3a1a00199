//! Whom the registry lets in: nobody is asked, user and password, or tokens from an address of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::connection::{Head, Reply};
use super::state::State;
use crate::docker_registry::{PASSWORD, USER};

/// Whom the registry lets in.
#[derive(Debug, Clone, Default)]
pub enum FakeAuth {
    /// Everybody.
    #[default]
    None,
    /// Who knows [`USER`] and [`PASSWORD`], in every request.
    Basic,
    /// Who has a token of `/token`.
    Token(TokenRules),
}

/// How tokens are given.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// Who says nothing of himself may pull.
    pub anonymous_pull: bool,
    /// How long a token is good for; it is also said in the reply.
    pub expires_in: Option<Duration>,
    /// How many requests a token is good for: it expires in the middle of the work.
    pub uses: Option<u32>,
    /// Whether refresh tokens are given to who asks for one, and taken.
    pub refresh: bool,
    /// Whether POST (OAuth2) is understood, or GET alone.
    pub post: bool,
    /// The reply has `access_token` in place of `token`.
    pub access_token: bool,
    /// No token is ever good enough.
    pub never: bool,
    /// Said in the challenge in place of the registry's own `/token`.
    pub realm: Option<String>,
}

impl Default for TokenRules {
    fn default() -> TokenRules {
        TokenRules {
            anonymous_pull: true,
            expires_in: None,
            uses: None,
            refresh: false,
            post: true,
            access_token: false,
            never: false,
            realm: None,
        }
    }
}

/// The refresh token that it gives and takes.
const REFRESH_TOKEN: &str = "refresh-me";

/// A token that was given.
#[derive(Debug)]
pub(super) struct Token {
    /// Repository and action.
    scopes: BTreeSet<(String, String)>,
    uses_left: Option<u32>,
    until: Option<Instant>,
}

/// `None` if the request may go on, or what it is answered.
pub(super) fn refuse(state: &mut State, base_url: &str, head: &Head) -> Option<Reply> {
    let auth = state.options.auth.clone();
    let (path, query) = head.path.split_once('?').unwrap_or((&head.path, ""));
    if !path.starts_with("/v2") && !path.starts_with("/v1") {
        return None;
    }
    match auth {
        FakeAuth::None => None,
        FakeAuth::Basic if is_user(head) => None,
        FakeAuth::Basic => Some(challenge("Basic realm=\"a test\"".into())),
        FakeAuth::Token(rules) => {
            let scopes = scopes_of(&head.method, path, query);
            let problem =
                if rules.never { Some("invalid_token") } else { token_problem(state, head, &scopes) };
            let problem = problem?;
            let realm = rules.realm.unwrap_or_else(|| format!("{base_url}/token"));
            let mut text = format!("Bearer realm=\"{realm}\",service=\"fake\"");
            let mut scopes = scopes.iter();
            if let Some((repository, actions)) = scopes.next() {
                text.push_str(&format!(",scope=\"repository:{repository}:{actions}"));
                for (repository, actions) in scopes {
                    text.push_str(&format!(" repository:{repository}:{actions}"));
                }
                text.push('"');
            }
            if !problem.is_empty() {
                text.push_str(&format!(",error=\"{problem}\""));
            }
            Some(challenge(text))
        }
    }
}

/// Whether a token that has come with a request also covers an action on another repository. True without tokens.
pub(super) fn covers(state: &State, head: &Head, repository: &str, action: &str) -> bool {
    let FakeAuth::Token(_) = state.options.auth else { return true };
    let token = bearer(head).and_then(|token| state.tokens.get(token));
    token.is_some_and(|token| token.scopes.contains(&(repository.into(), action.into())))
}

/// `/token`, by GET or by POST.
pub(super) fn token(state: &mut State, head: &Head, body: &[u8]) -> Reply {
    let FakeAuth::Token(rules) = state.options.auth.clone() else { return Reply::status(404) };
    let query = head.path.split_once('?').map_or("", |(_, query)| query).to_owned();
    let form = String::from_utf8_lossy(body).into_owned();
    let fields = match head.method.as_str() {
        "GET" => parse_query(&query),
        "POST" if rules.post => parse_query(&form),
        _ => return Reply::error(405, "UNSUPPORTED", "another method, please"),
    };
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (is_known, is_anonymous) = match (head.method.as_str(), field("grant_type")) {
        ("POST", Some("password")) => {
            (field("username") == Some(USER) && field("password") == Some(PASSWORD), false)
        }
        ("POST", Some("refresh_token")) => {
            (rules.refresh && field("refresh_token") == Some(REFRESH_TOKEN), false)
        }
        ("POST", _) => (false, false),
        _ => (is_user(head), head.header("authorization").is_none()),
    };
    if !is_known && !is_anonymous {
        return Reply::error(401, "UNAUTHORIZED", "incorrect username or password");
    }
    let mut granted = BTreeSet::new();
    for scope in fields.iter().filter(|(key, _)| key == "scope").flat_map(|(_, value)| value.split(' ')) {
        let Some((kind_and_name, actions)) = scope.rsplit_once(':') else { continue };
        let Some((_, name)) = kind_and_name.split_once(':') else { continue };
        for action in actions.split(',') {
            if is_known || (rules.anonymous_pull && action == "pull") {
                granted.insert((name.to_owned(), action.to_owned()));
            }
        }
    }
    state.tokens_given += 1;
    let text = format!("token-{}", state.tokens_given);
    let until = rules.expires_in.map(|time| Instant::now() + time);
    state.tokens.insert(text.clone(), Token { scopes: granted, uses_left: rules.uses, until });
    let mut reply = serde_json::Map::new();
    reply.insert(if rules.access_token { "access_token" } else { "token" }.into(), text.into());
    if let Some(time) = rules.expires_in {
        reply.insert("expires_in".into(), time.as_secs().into());
    }
    let wants_refresh = field("offline_token") == Some("true") || field("access_type") == Some("offline");
    if rules.refresh && is_known && wants_refresh {
        reply.insert("refresh_token".into(), REFRESH_TOKEN.into());
    }
    Reply::json(200, &serde_json::Value::Object(reply))
}

/// What the request needs: repositories with actions.
fn scopes_of(method: &str, path: &str, query: &str) -> Vec<(String, &'static str)> {
    let Some((repository, rest)) = super::serve::split_path(path) else { return Vec::new() };
    let actions = match (method, rest.starts_with("blobs/uploads")) {
        ("DELETE", false) => "delete",
        ("GET" | "HEAD", false) => "pull",
        _ => "pull,push",
    };
    let mut scopes = vec![(repository.to_owned(), actions)];
    // docker-registry says in its challenge that the source of a mount must be readable, and does not insist.
    if let Some((_, from)) = parse_query(query).into_iter().find(|(key, _)| key == "from") {
        scopes.push((from, "pull"));
    }
    scopes
}

/// Why the token is not enough: empty if there is none.
fn token_problem(state: &mut State, head: &Head, scopes: &[(String, &'static str)]) -> Option<&'static str> {
    let Some(token) = bearer(head) else { return Some("") };
    let Some(token) = state.tokens.get_mut(token) else { return Some("invalid_token") };
    if token.uses_left == Some(0) || token.until.is_some_and(|until| Instant::now() >= until) {
        return Some("invalid_token");
    }
    // Only the repository itself: see `scopes_of`.
    if let Some((repository, actions)) = scopes.first() {
        let has = |action: &str| token.scopes.contains(&(repository.clone(), action.to_owned()));
        let has_all = token.scopes.contains(&(repository.clone(), "*".into()));
        if !has_all && !actions.split(',').all(has) {
            return Some("insufficient_scope");
        }
    }
    token.uses_left = token.uses_left.map(|left| left - 1);
    None
}

fn bearer(head: &Head) -> Option<&str> {
    head.header("authorization")?.strip_prefix("Bearer ")
}

fn is_user(head: &Head) -> bool {
    let expected = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    head.header("authorization").and_then(|text| text.strip_prefix("Basic ")) == Some(expected.as_str())
}

fn challenge(text: String) -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", text)
}

/// The fields of a query or form, decoded.
pub(super) fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut position) = (Vec::new(), 0);
    while position < bytes.len() {
        let digits = text.get(position + 1..position + 3).filter(|_| bytes[position] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                position += 3;
            }
            None => {
                decoded.push(if bytes[position] == b'+' { b' ' } else { bytes[position] });
                position += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
