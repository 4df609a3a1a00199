//! Logging in: challenges answered with passwords or tokens, and tokens kept while they live.
//!
//! Nothing is sent before a registry asks: the first request to a host goes without login. What a host asked for is then
//! remembered, so that later requests bring it at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mica_http::{host_of, is_loopback};
use mica_registry_api::auth_challenge::Bearer;
use mica_registry_api::error_code::BODY_SIZE_BYTES_MAX;
use mica_registry_api::token::TOKEN_REPLY_SIZE_BYTES_MAX;
use mica_registry_api::{Challenge, ErrorReply, Scope, TokenReply, printable};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use crate::client::{Client, lock};
use crate::credentials::Credential;
use crate::endpoint::Endpoint;
use crate::error::{RegistryError, Result};
use crate::exchange::{Journey, is_same_origin, refuse, retry_after};
use crate::refusal::{Refusal, Subject};
use crate::retry::{Failure, Remedy, is_passing};
use crate::secret::Secret;
use crate::transport::{Access, Body, Login};

/// Who we are to token servers; docker sends its own name here.
const CLIENT_ID: &str = "mica";
/// A token is not used in its last seconds: the request has to arrive, and clocks differ.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// What the client has learned of logins.
#[derive(Default)]
pub(crate) struct Logins {
    /// What a host asked for, by origin and access; by origin alone for accesses that it has not been asked for yet.
    asked: Mutex<HashMap<(String, String), Way>>,
    tokens: Mutex<HashMap<TokenKey, Slot>>,
    /// What the user's files and helpers said: helpers are slow.
    credentials: Mutex<HashMap<(String, String), Option<Credential>>>,
}

/// A token, and the right to fetch the next one: whoever comes while it is fetched waits for it.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// How a host wants to be asked.
#[derive(Clone)]
enum Way {
    Basic,
    Token { realm: String, service: Option<String>, scopes: BTreeSet<Scope> },
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    realm: String,
    service: Option<String>,
    scopes: BTreeSet<Scope>,
    /// Whose: the login is looked for under these.
    credentials_host: String,
    repository: String,
}

struct Token {
    text: Secret,
    until: Instant,
}

/// What proves who asks, in the `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Authorization(Secret);

impl Authorization {
    fn bearer(token: &Secret) -> Authorization {
        Authorization(Secret::new(format!("Bearer {}", token.reveal())))
    }

    fn basic(username: &str, password: &Secret) -> Authorization {
        let text = STANDARD.encode(format!("{username}:{}", password.reveal()));
        Authorization(Secret::new(format!("Basic {text}")))
    }

    /// The header's value; it is not shown in debug output.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.0.reveal()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The login of one request at one endpoint.
pub(crate) struct Session<'a> {
    pub client: &'a Client,
    pub endpoint: &'a Endpoint,
    /// The endpoint's URL: scheme, host and port count.
    pub origin: &'a Url,
    pub access: Access<'a>,
    pub login: Login<'a>,
    pub subject: &'a Subject,
    /// Whether a login of the user, and not only an anonymous token, was sent.
    pub had_login: bool,
    /// What a token server gave for the next time.
    pub identity_token: Option<Secret>,
}

impl Session<'_> {
    /// What is sent with the first request: nothing to a host that has not asked for anything.
    pub(crate) async fn before(&mut self) -> std::result::Result<Option<Authorization>, Failure> {
        if !matches!(self.login, Login::OfUser) {
            return Ok(None);
        }
        let scopes = self.scopes();
        let way = {
            let asked = lock(&self.client.shared().logins.asked);
            asked.get(&self.place(&scopes)).or_else(|| asked.get(&self.place(&BTreeSet::new()))).cloned()
        };
        match way {
            None => Ok(None),
            Some(Way::Token { realm, service, scopes: more }) => {
                let way = Way::Token { realm, service, scopes: union(scopes, more) };
                self.authorize(&way, None).await
            }
            Some(way) => self.authorize(&way, None).await,
        }
    }

    /// The answer to challenges; `None` if there is none. `refused` was sent and was not good enough.
    pub(crate) async fn answer(
        &mut self,
        challenges: &[Challenge],
        refused: Option<&Authorization>,
    ) -> std::result::Result<Option<Authorization>, Failure> {
        if matches!(self.login, Login::Nobody) {
            return Ok(None);
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer),
            _ => None,
        });
        let is_basic = challenges.iter().any(|challenge| matches!(challenge, Challenge::Basic { .. }));
        let way = match bearer {
            Some(bearer) => self.way_of(bearer),
            None if is_basic => Way::Basic,
            None => return Ok(None),
        };
        self.remember(&way);
        self.authorize(&way, refused).await
    }

    fn way_of(&self, bearer: &Bearer) -> Way {
        let asked = bearer.scopes().take(16).map(Scope::of_text).collect();
        Way::Token {
            realm: bearer.realm.clone(),
            service: bearer.service.clone(),
            scopes: union(self.scopes(), asked),
        }
    }

    fn remember(&self, way: &Way) {
        if !matches!(self.login, Login::OfUser) {
            return;
        }
        let mut asked = lock(&self.client.shared().logins.asked);
        asked.insert(self.place(&self.scopes()), way.clone());
        let general = match way {
            Way::Basic => Way::Basic,
            Way::Token { realm, service, .. } => {
                Way::Token { realm: realm.clone(), service: service.clone(), scopes: BTreeSet::new() }
            }
        };
        asked.insert(self.place(&BTreeSet::new()), general);
    }

    fn place(&self, scopes: &BTreeSet<Scope>) -> (String, String) {
        let origin = self.origin.origin().ascii_serialization();
        (origin, scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" "))
    }

    fn scopes(&self) -> BTreeSet<Scope> {
        let repository = self.endpoint.repository.as_str();
        let scopes = match self.access {
            Access::None => vec![],
            Access::Pull => vec![Scope::pull(repository)],
            Access::PullPush => vec![Scope::pull_push(repository)],
            Access::Mount(from) => vec![Scope::pull_push(repository), Scope::pull(from)],
            Access::Delete => vec![Scope::delete(repository)],
        };
        scopes.into_iter().collect()
    }

    fn credential(&self) -> Result<Option<Credential>> {
        match self.login {
            Login::Nobody => Ok(None),
            Login::Given(credential) => Ok(Some(credential.clone())),
            Login::OfUser => {
                let key = (self.endpoint.credentials_host.clone(), self.endpoint.repository.clone());
                let known = &self.client.shared().logins.credentials;
                if let Some(credential) = lock(known).get(&key) {
                    return Ok(credential.clone());
                }
                let credential = self.client.settings().credentials.find(&key.0, &key.1)?;
                lock(known).insert(key, credential.clone());
                Ok(credential)
            }
        }
    }

    async fn authorize(
        &mut self,
        way: &Way,
        refused: Option<&Authorization>,
    ) -> std::result::Result<Option<Authorization>, Failure> {
        let credential = self.credential()?;
        self.had_login = credential.is_some();
        let authorization = match (way, &credential) {
            (_, Some(Credential::RegistryToken(token))) => Some(Authorization::bearer(token)),
            (Way::Basic, Some(Credential::Basic { username, password })) => {
                Some(Authorization::basic(username, password))
            }
            (Way::Basic, _) => None,
            (Way::Token { realm, service, scopes }, credential) => {
                let key = TokenKey {
                    realm: realm.clone(),
                    service: service.clone(),
                    scopes: scopes.clone(),
                    credentials_host: self.endpoint.credentials_host.clone(),
                    repository: self.endpoint.repository.clone(),
                };
                Some(self.token(key, credential.as_ref(), refused).await?)
            }
        };
        // The same again would be refused again.
        Ok(authorization.filter(|authorization| Some(authorization) != refused))
    }

    /// The token that is kept, or a new one where that is too old or was refused.
    async fn token(
        &mut self,
        key: TokenKey,
        credential: Option<&Credential>,
        refused: Option<&Authorization>,
    ) -> std::result::Result<Authorization, Failure> {
        let slot = match self.login {
            // What a given login gets is no other request's.
            Login::Given(_) => Slot::default(),
            _ => lock(&self.client.shared().logins.tokens).entry(key.clone()).or_default().clone(),
        };
        let mut kept = slot.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Instant::now() < token.until) {
            let authorization = Authorization::bearer(&token.text);
            if Some(&authorization) != refused {
                return Ok(authorization);
            }
        }
        let begun = Instant::now();
        let reply = self.fetch_token(&key, credential).await?;
        let lives = Duration::from_secs(reply.expires_in);
        let until = begun + lives.saturating_sub(EXPIRY_MARGIN.min(lives / 4));
        self.identity_token = reply.refresh_token.map(Secret::new);
        let token = Token { text: Secret::new(reply.token), until };
        let authorization = Authorization::bearer(&token.text);
        *kept = Some(token);
        Ok(authorization)
    }

    async fn fetch_token(
        &self,
        key: &TokenKey,
        credential: Option<&Credential>,
    ) -> std::result::Result<TokenReply, Failure> {
        let realm = self.realm(&key.realm, credential.is_some())?;
        let scopes: Vec<&str> = key.scopes.iter().map(Scope::as_str).collect();
        let wants_identity = matches!(self.login, Login::Given(_));
        if let Some(Credential::IdentityToken(token)) = credential {
            let fields = [("grant_type", "refresh_token"), ("refresh_token", token.reveal())];
            let reply = self.post_token(&realm, key, &scopes, &fields).await?;
            return self.read_token(&realm, reply, true).await;
        }
        let reply = self.get_token(&realm, key, &scopes, credential, wants_identity).await?;
        // Some servers have the OAuth2 half of the protocol only.
        if let (Some(Credential::Basic { username, password }), 404 | 405) =
            (credential, reply.status().as_u16())
        {
            let access_type = if wants_identity { "offline" } else { "online" };
            let fields = [
                ("grant_type", "password"),
                ("username", username.as_str()),
                ("password", password.reveal()),
                ("access_type", access_type),
            ];
            let reply = self.post_token(&realm, key, &scopes, &fields).await?;
            return self.read_token(&realm, reply, true).await;
        }
        self.read_token(&realm, reply, credential.is_some()).await
    }

    /// Where tokens come from, if credentials may go there.
    fn realm(&self, text: &str, has_credential: bool) -> Result<Url> {
        let problem = |problem: String| RegistryError::Challenge {
            subject: self.subject.clone(),
            host: host_of(self.origin),
            problem,
        };
        let mut realm = self
            .origin
            .join(text)
            .map_err(|_| problem(format!("its token server is no URL: `{}`", printable(text, 100))))?;
        realm.set_fragment(None);
        // User and password of a URL would be sent to it.
        let _ = (realm.set_username(""), realm.set_password(None));
        let host = realm.host_str().unwrap_or_default();
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if !has_credential || is_loopback(host) || is_same_origin(&realm, self.origin) => {
                Ok(realm)
            }
            "http" => Err(problem(format!(
                "its token server `{}` speaks plain http, and would be sent your login",
                host_of(&realm)
            ))),
            scheme => Err(problem(format!("its token server has the scheme `{}`", printable(scheme, 20)))),
        }
    }

    async fn get_token(
        &self,
        realm: &Url,
        key: &TokenKey,
        scopes: &[&str],
        credential: Option<&Credential>,
        wants_identity: bool,
    ) -> std::result::Result<reqwest::Response, Failure> {
        let mut url = realm.clone();
        let mut secrets = HeaderMap::new();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &key.service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            if let Some(Credential::Basic { username, password }) = credential {
                query.append_pair("account", username);
                if wants_identity {
                    query.append_pair("client_id", CLIENT_ID).append_pair("offline_token", "true");
                }
                if let Some(value) = Authorization::basic(username, password).header() {
                    secrets.insert(reqwest::header::AUTHORIZATION, value);
                }
            }
        }
        self.ask(Method::GET, url, HeaderMap::new(), secrets, Body::None).await
    }

    async fn post_token(
        &self,
        realm: &Url,
        key: &TokenKey,
        scopes: &[&str],
        fields: &[(&str, &str)],
    ) -> std::result::Result<reqwest::Response, Failure> {
        // The query's grammar is the form's: a URL serves to write it.
        let mut form = realm.clone();
        form.set_query(None);
        {
            let mut query = form.query_pairs_mut();
            query.extend_pairs(fields).append_pair("client_id", CLIENT_ID);
            if let Some(service) = &key.service {
                query.append_pair("service", service);
            }
            if !scopes.is_empty() {
                query.append_pair("scope", &scopes.join(" "));
            }
        }
        let body = Bytes::copy_from_slice(form.query().unwrap_or_default().as_bytes());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.ask(Method::POST, realm.clone(), headers, HeaderMap::new(), Body::Bytes(&body)).await
    }

    async fn ask(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        secrets: HeaderMap,
        body: Body<'_>,
    ) -> std::result::Result<reqwest::Response, Failure> {
        // A form has the login in its body.
        let is_body_secret = !matches!(body, Body::None);
        let journey = Journey {
            method,
            origin: &url.clone(),
            url,
            headers,
            secrets,
            body,
            is_body_secret,
            tls: &self.endpoint.tls,
            subject: self.subject,
        };
        Ok(self.client.travel(journey).await?.response)
    }

    async fn read_token(
        &self,
        realm: &Url,
        mut response: reqwest::Response,
        had_login: bool,
    ) -> std::result::Result<TokenReply, Failure> {
        let connections = &self.client.shared().connections;
        let status = response.status().as_u16();
        let host = host_of(realm);
        if !response.status().is_success() {
            let retry_after = retry_after(response.headers());
            let body = connections.beginning(&mut response, BODY_SIZE_BYTES_MAX, self.subject).await;
            let refusal = Refusal { status, host, reply: ErrorReply::parse(&body) };
            let is_denied = matches!(status, 400 | 401 | 403);
            let error = if is_denied {
                RegistryError::Denied { subject: self.subject.clone(), refusal, had_login }
            } else {
                refuse(self.subject.clone(), refusal, had_login, retry_after)
            };
            let remedy = if is_passing(status) { Remedy::Wait } else { Remedy::None };
            return Err(Failure { error, remedy, retry_after });
        }
        let whole = connections.whole(&mut response, TOKEN_REPLY_SIZE_BYTES_MAX as u64, self.subject).await?;
        let Some(body) = whole else {
            let size_bytes_max = TOKEN_REPLY_SIZE_BYTES_MAX as u64;
            return Err(
                RegistryError::TooLarge { subject: self.subject.clone(), host, size_bytes_max }.into()
            );
        };
        let invalid =
            |problem: String| RegistryError::InvalidReply { subject: self.subject.clone(), host, problem };
        TokenReply::parse(&body).map_err(|error| invalid(error.to_string()).into())
    }
}

/// All scopes, without those that others cover.
fn union(ours: BTreeSet<Scope>, theirs: BTreeSet<Scope>) -> BTreeSet<Scope> {
    let all: BTreeSet<Scope> = ours.into_iter().chain(theirs).collect();
    let is_covered =
        |scope: &Scope| all.iter().any(|other| other != scope && other.covers(scope) && !scope.covers(other));
    all.iter().filter(|scope| !is_covered(scope)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_joined() {
        let check = |ours: &[&str], theirs: &[&str], expect: &[&str]| {
            let set = |texts: &[&str]| texts.iter().map(|text| Scope::of_text(text)).collect::<BTreeSet<_>>();
            assert_eq!(union(set(ours), set(theirs)), set(expect), "{ours:?} {theirs:?}");
        };
        check(&["repository:a:pull"], &[], &["repository:a:pull"]);
        check(&["repository:a:pull"], &["repository:a:pull"], &["repository:a:pull"]);
        check(&["repository:a:pull"], &["repository:a:pull,push"], &["repository:a:pull,push"]);
        check(
            &["repository:a:pull,push"],
            &["repository:a:push,pull"],
            &["repository:a:pull,push", "repository:a:push,pull"],
        );
        check(&["repository:a:pull"], &["repository:b:pull"], &["repository:a:pull", "repository:b:pull"]);
    }

    #[test]
    fn nothing_secret_in_debug_output() {
        let header = Authorization::basic("user", &Secret::new("hush")).header().unwrap();
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert_eq!(header.to_str().unwrap(), "Basic dXNlcjpodXNo");
    }
}
