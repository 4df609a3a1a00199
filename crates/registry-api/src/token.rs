//! Tokens: what they are good for, and the reply that brings one (docker's token protocol, "Token Authentication").

use std::fmt;

use serde::Deserialize;

/// Bytes of a token reply at most; some clouds' tokens have tens of kilobytes.
pub const TOKEN_REPLY_SIZE_BYTES_MAX: usize = 1 << 20;
/// Seconds that a token lives when nothing is said.
pub const EXPIRES_IN_DEFAULT: u64 = 60;
/// Seconds that a token is believed to live at most.
const EXPIRES_IN_MAX: u64 = 24 * 60 * 60;

/// One thing that a token is good for: `repository:library/debian:pull`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

impl Scope {
    /// Reading a repository.
    pub fn pull(repository: &str) -> Scope {
        Scope(format!("repository:{repository}:pull"))
    }

    /// Reading and writing a repository.
    pub fn pull_push(repository: &str) -> Scope {
        Scope(format!("repository:{repository}:pull,push"))
    }

    /// Removing from a repository; reading and writing too, because registries differ in what they ask for.
    pub fn delete(repository: &str) -> Scope {
        Scope(format!("repository:{repository}:delete,pull,push"))
    }

    /// A scope as a challenge names it.
    pub fn of_text(text: &str) -> Scope {
        Scope(text.to_owned())
    }

    /// As it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this scope allows all that the other one does, as far as their texts say.
    pub fn covers(&self, other: &Scope) -> bool {
        let (Some((name, actions)), Some((other_name, other_actions))) =
            (self.0.rsplit_once(':'), other.0.rsplit_once(':'))
        else {
            return self == other;
        };
        name == other_name
            && other_actions
                .split(',')
                .all(|wanted| actions.split(',').any(|action| action == wanted || action == "*"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// What a token server gives. It has no `Debug` output of its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenReply {
    /// The token for the registry.
    pub token: String,
    /// Seconds that it lives, at least one.
    pub expires_in: u64,
    /// A token that gets others later, in place of the password.
    pub refresh_token: Option<String>,
}

/// Why a token reply is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenReplyError {
    /// Not JSON, or JSON of another shape.
    #[error("token reply is not the JSON that was expected")]
    Json,
    /// There is no token in it.
    #[error("token reply has no token")]
    Missing,
    /// The token has characters that no header may have.
    #[error("token has characters that are not allowed in a header")]
    Characters,
}

impl TokenReply {
    /// Reads a reply.
    pub fn parse(body: &[u8]) -> Result<TokenReply, TokenReplyError> {
        #[derive(Deserialize)]
        struct Wire {
            token: Option<String>,
            access_token: Option<String>,
            // Some servers send it as a text or a fraction.
            expires_in: Option<serde_json::Value>,
            refresh_token: Option<String>,
        }
        let wire: Wire = serde_json::from_slice(body).map_err(|_| TokenReplyError::Json)?;
        let present = |text: &String| !text.is_empty();
        let token = wire
            .token
            .filter(present)
            .or(wire.access_token.filter(present))
            .ok_or(TokenReplyError::Missing)?;
        let refresh_token = wire.refresh_token.filter(present);
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible(&token) || !refresh_token.as_deref().is_none_or(is_visible) {
            return Err(TokenReplyError::Characters);
        }
        let seconds = wire.expires_in.and_then(|value| match value {
            serde_json::Value::Number(number) => {
                number.as_u64().or_else(|| number.as_f64().map(|float| float as u64))
            }
            serde_json::Value::String(text) => text.parse().ok(),
            _ => None,
        });
        let expires_in =
            seconds.filter(|&seconds| seconds > 0).unwrap_or(EXPIRES_IN_DEFAULT).min(EXPIRES_IN_MAX);
        Ok(TokenReply { token, expires_in, refresh_token })
    }
}

impl fmt::Debug for TokenReply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenReply").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: Result<(&str, u64, Option<&str>), TokenReplyError>) {
        let actual = TokenReply::parse(body.as_bytes());
        let actual = actual
            .as_ref()
            .map(|reply| (reply.token.as_str(), reply.expires_in, reply.refresh_token.as_deref()));
        assert_eq!(actual, expect.as_ref().map(|expect| *expect), "{body}");
    }

    #[test]
    fn replies() {
        check(r#"{"token":"a"}"#, Ok(("a", 60, None)));
        check(r#"{"access_token":"a","expires_in":300,"refresh_token":"r"}"#, Ok(("a", 300, Some("r"))));
        check(r#"{"token":"","access_token":"b","expires_in":"90","extra":[1]}"#, Ok(("b", 90, None)));
        check(r#"{"token":"a","expires_in":0}"#, Ok(("a", 60, None)));
        check(r#"{"token":"a","expires_in":-5}"#, Ok(("a", 60, None)));
        check(r#"{"token":"a","expires_in":1e30}"#, Ok(("a", 86400, None)));
        check(r#"{"token":"a","expires_in":null,"refresh_token":""}"#, Ok(("a", 60, None)));
        check("{}", Err(TokenReplyError::Missing));
        check(r#"{"token":null}"#, Err(TokenReplyError::Missing));
        check("[]", Err(TokenReplyError::Json));
        check("<html>", Err(TokenReplyError::Json));
        check("{\"token\":\"a\\r\\nX: y\"}", Err(TokenReplyError::Characters));
    }

    #[test]
    fn nothing_secret_in_debug_output() {
        let reply = TokenReply::parse(br#"{"token":"hush","refresh_token":"hush"}"#).unwrap();
        assert!(!format!("{reply:?}").contains("hush"));
    }

    #[test]
    fn scopes_cover_scopes() {
        for (scope, other, expect) in [
            (Scope::pull_push("a"), Scope::pull("a"), true),
            (Scope::pull("a"), Scope::pull_push("a"), false),
            (Scope::pull_push("a"), Scope::pull("b"), false),
            (Scope::of_text("registry:catalog:*"), Scope::of_text("registry:catalog:pull"), true),
            (Scope::of_text("x"), Scope::of_text("x"), true),
            (Scope::of_text("x"), Scope::of_text("x:y"), false),
        ] {
            assert_eq!(scope.covers(&other), expect, "{scope} {other}");
        }
    }
}
