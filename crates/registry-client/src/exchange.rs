//! How one request finds its answer: URL, login, redirects, and what the status means.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mica_http::{host_of, is_loopback};
use mica_registry_api::error_code::BODY_SIZE_BYTES_MAX;
use mica_registry_api::{Challenge, ErrorReply, printable};
use reqwest::header::{
    AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Method, StatusCode, Url};

use crate::auth::Session;
use crate::client::Client;
use crate::connection::Message;
use crate::endpoint::{Endpoint, Scheme, Tls};
use crate::error::{RegistryError, Result};
use crate::refusal::{Refusal, Subject};
use crate::retry::{Failure, Remedy, Tries, is_passing, parse_retry_after};
use crate::transport::{Body, Request, Response, Target, Tries as HowOften};

/// Redirects that are followed for one request; docker's and curl's bounds are of this order.
const REDIRECTS_MAX: usize = 10;

/// Tries of one request to a mirror.
pub(crate) const MIRROR_TRIES_MAX: u32 = 2;

/// What is sent until somebody answers it without sending us on.
pub(crate) struct Journey<'a> {
    pub method: Method,
    pub url: Url,
    /// Headers for every host.
    pub headers: HeaderMap,
    /// Headers for the origin alone.
    pub secrets: HeaderMap,
    /// Where the secrets belong: scheme, host and port.
    pub origin: &'a Url,
    pub body: Body<'a>,
    /// Whether the body, too, is for the origin alone.
    pub is_body_secret: bool,
    /// How TLS is spoken with the origin; other hosts are not shown its client certificates.
    pub tls: &'a Tls,
    pub subject: &'a Subject,
}

/// The end of a journey.
pub(crate) struct Arrival {
    pub response: reqwest::Response,
    /// Whether another host than the origin answered.
    pub is_elsewhere: bool,
}

impl Client {
    /// Asks one endpoint, with whichever of its schemes it speaks, as often as patience allows.
    pub(crate) async fn ask(&self, request: &Request<'_>, endpoint: &Endpoint) -> Result<Response> {
        // The same host may be another endpoint's, which may speak more schemes than this one.
        let settled = self.scheme_of(&endpoint.host).filter(|scheme| endpoint.schemes.contains(scheme));
        let schemes: Vec<Scheme> = match settled {
            Some(scheme) => vec![scheme],
            None => endpoint.schemes.clone(),
        };
        let Some(mut scheme) = schemes.first().copied() else {
            return Err(RegistryError::Endpoint {
                subject: request.subject.clone(),
                host: endpoint.host.clone(),
                problem: "it has no scheme".to_owned(),
            });
        };
        let mut other = schemes.get(1).copied();
        // The scheme that was left, and why.
        let mut left: Option<(Scheme, Failure)> = None;
        let mut patience = self.patience().clone();
        if endpoint.is_mirror {
            // There are others to ask, and people wait.
            patience.tries_max = patience.tries_max.min(MIRROR_TRIES_MAX);
        }
        let mut tries = Tries::new(&patience);
        loop {
            let mut failure = match self.try_once(request, endpoint, scheme).await {
                Ok(response) => {
                    self.remember_scheme(&endpoint.host, scheme);
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            if failure.is_answer() {
                self.remember_scheme(&endpoint.host, scheme);
                other = None;
            }
            if matches!(failure.remedy, Remedy::OtherScheme | Remedy::OtherSchemeOrWait) {
                if let Some(next) = other.take() {
                    left = Some((scheme, failure));
                    scheme = next;
                    continue;
                }
                // Neither is spoken: the first was the one that was expected, and perhaps it had only broken.
                if let Some((first, why)) = left.take() {
                    (scheme, failure) = (first, why);
                }
            }
            let delay = match request.tries {
                HowOften::Once => None,
                HowOften::Patient => tries.after(&failure),
            };
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failure.error),
            }
        }
    }

    async fn try_once(
        &self,
        request: &Request<'_>,
        endpoint: &Endpoint,
        scheme: Scheme,
    ) -> std::result::Result<Response, Failure> {
        let origin = base_url(endpoint, scheme, &request.subject)?;
        let asked = url_of(&request.target, endpoint, &origin, &request.subject)?;
        let headers = plain_headers(request, endpoint)?;
        let mut secrets = secret_headers(self.http_headers()?, endpoint, &request.subject)?;
        let mut session = Session {
            client: self,
            endpoint,
            origin: &origin,
            access: request.access,
            login: request.login,
            subject: &request.subject,
            had_login: false,
            identity_token: None,
        };
        let mut authorization = session.before().await?;
        let mut is_answered = false;
        loop {
            if let Some(value) = authorization.as_ref().and_then(|authorization| authorization.header()) {
                secrets.insert(AUTHORIZATION, value);
            }
            let journey = Journey {
                method: request.method.clone(),
                url: asked.clone(),
                headers: headers.clone(),
                secrets: secrets.clone(),
                origin: &origin,
                body: request.body,
                is_body_secret: false,
                tls: &endpoint.tls,
                subject: &request.subject,
            };
            let Arrival { mut response, is_elsewhere } = self.travel(journey).await?;
            let status = response.status().as_u16();
            if status == 401 && !is_elsewhere && !is_answered {
                let challenges = challenges_of(response.headers());
                if challenges.is_empty() && response.headers().contains_key(WWW_AUTHENTICATE) {
                    return Err(RegistryError::Challenge {
                        subject: request.subject.clone(),
                        host: host_of(response.url()),
                        problem: "it wants a login, but how cannot be read".to_owned(),
                    }
                    .into());
                }
                let refusal = self.refusal_of(&mut response, &request.subject).await;
                is_answered = true;
                // A login that is wrong, and the registry's reason, come out of this as errors.
                authorization = session.answer(&challenges, authorization.as_ref()).await?;
                if authorization.is_some() {
                    continue;
                }
                let had_login = session.had_login;
                return Err(
                    RegistryError::Denied { subject: request.subject.clone(), refusal, had_login }.into()
                );
            }
            if response.status().is_success() || request.accepted.contains(&status) {
                let whole = match request.whole {
                    None => None,
                    Some(size_bytes_max) => {
                        Some(self.whole(&mut response, size_bytes_max, &request.subject).await?)
                    }
                };
                return Ok(Response {
                    status,
                    headers: response.headers().clone(),
                    endpoint: endpoint.clone(),
                    asked,
                    identity_token: session.identity_token,
                    subject: request.subject.clone(),
                    body: response,
                    whole,
                    client: self.clone(),
                });
            }
            let retry_after = retry_after(response.headers());
            let body = self
                .shared()
                .connections
                .beginning(&mut response, BODY_SIZE_BYTES_MAX, &request.subject)
                .await;
            let refusal = Refusal { status, host: host_of(response.url()), reply: ErrorReply::parse(&body) };
            let remedy = match status {
                // What storage behind the registry refuses is a signature that is too old: a new one may be good.
                401 | 403 if is_elsewhere => Remedy::Again,
                // The words of a reply to HEAD are not read by anybody.
                400 if scheme == Scheme::Http && (wants_tls(&body) || request.method == Method::HEAD) => {
                    Remedy::OtherScheme
                }
                status if is_passing(status) => Remedy::Wait,
                _ => Remedy::None,
            };
            let subject = request.subject.clone();
            let error = match status {
                401 | 403 if is_elsewhere => RegistryError::Status { subject, refusal },
                _ => refuse(subject, refusal, session.had_login, retry_after),
            };
            return Err(Failure { error, remedy, retry_after });
        }
    }

    /// Sends a message and follows redirects, leaving behind what is not for other hosts.
    pub(crate) async fn travel(&self, journey: Journey<'_>) -> std::result::Result<Arrival, Failure> {
        let Journey { method, mut url, headers, secrets, origin, body, is_body_secret, tls, subject } =
            journey;
        let elsewhere_tls = Tls { client_certificates: Vec::new(), ..tls.clone() };
        for _ in 0..=REDIRECTS_MAX {
            let is_home = is_same_origin(&url, origin);
            let mut all = headers.clone();
            if is_home {
                all.extend(secrets.clone());
            }
            let message = Message {
                method: method.clone(),
                url: url.clone(),
                headers: all,
                body,
                tls: if is_home { tls } else { &elsewhere_tls },
                subject,
            };
            let response = self.shared().connections.send(message).await?;
            let Some(location) = redirect_of(&method, &response) else {
                return Ok(Arrival { response, is_elsewhere: !is_home });
            };
            let refused = |problem: &str| RegistryError::Redirect {
                subject: subject.clone(),
                host: host_of(&url),
                problem: problem.to_owned(),
            };
            let mut next = url.join(&location).map_err(|_| refused("it leads to no URL"))?;
            next.set_fragment(None);
            // User and password of a URL would be sent to it.
            let _ = (next.set_username(""), next.set_password(None));
            match (url.scheme(), next.scheme()) {
                ("https", "http") => return Err(refused("it leads from https to http").into()),
                (_, "http" | "https") => {}
                _ => return Err(refused("it leads to neither http nor https").into()),
            }
            if is_body_secret && !is_same_origin(&next, origin) {
                return Err(refused("it would send a login to another host").into());
            }
            url = next;
        }
        let problem = format!("it was redirected {REDIRECTS_MAX} times already");
        Err(RegistryError::Redirect { subject: subject.clone(), host: host_of(&url), problem }.into())
    }

    async fn whole(
        &self,
        response: &mut reqwest::Response,
        size_bytes_max: u64,
        subject: &Subject,
    ) -> std::result::Result<bytes::Bytes, Failure> {
        let whole = self.shared().connections.whole(response, size_bytes_max, subject).await?;
        whole.ok_or_else(|| {
            let host = host_of(response.url());
            RegistryError::TooLarge { subject: subject.clone(), host, size_bytes_max }.into()
        })
    }

    async fn refusal_of(&self, response: &mut reqwest::Response, subject: &Subject) -> Refusal {
        let body = self.shared().connections.beginning(response, BODY_SIZE_BYTES_MAX, subject).await;
        let (status, host) = (response.status().as_u16(), host_of(response.url()));
        Refusal { status, host, reply: ErrorReply::parse(&body) }
    }
}

impl Failure {
    /// Whether the host answered in the scheme that it was asked in.
    fn is_answer(&self) -> bool {
        self.remedy != Remedy::OtherScheme
            && matches!(
                self.error,
                RegistryError::Status { .. }
                    | RegistryError::NotFound { .. }
                    | RegistryError::Denied { .. }
                    | RegistryError::TooManyRequests { .. }
                    | RegistryError::Redirect { .. }
            )
    }
}

/// The error of a status that is no answer.
pub(crate) fn refuse(
    subject: Subject,
    refusal: Refusal,
    had_login: bool,
    retry_after: Option<Duration>,
) -> RegistryError {
    match refusal.status {
        401 | 403 => RegistryError::Denied { subject, refusal, had_login },
        404 => RegistryError::NotFound { subject, refusal },
        429 => {
            let retry_after_s = retry_after.map(|wait| wait.as_secs());
            RegistryError::TooManyRequests { subject, refusal, retry_after_s }
        }
        _ => RegistryError::Status { subject, refusal },
    }
}

/// What `Retry-After` asks for.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now_s)
}

/// Scheme, host and port are the same.
pub(crate) fn is_same_origin(url: &Url, other: &Url) -> bool {
    url.scheme() == other.scheme()
        && url.host_str() == other.host_str()
        && url.port_or_known_default() == other.port_or_known_default()
}

fn challenges_of(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().take(8);
    values.filter_map(|value| value.to_str().ok()).flat_map(Challenge::parse).collect()
}

/// Where a reply sends us, if it does and the method allows it: what is sent as POST must not become a GET.
fn redirect_of(method: &Method, response: &reqwest::Response) -> Option<String> {
    let is_reading = *method == Method::GET || *method == Method::HEAD;
    let is_redirect = match response.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => is_reading,
        _ => false,
    };
    let location = response.headers().get(LOCATION).filter(|_| is_redirect)?;
    // Some servers write UTF-8 where a URL should be encoded.
    std::str::from_utf8(location.as_bytes()).ok().map(str::to_owned)
}

/// What servers answer to plain text on a port of TLS: Go's, nginx's, Apache's words.
fn wants_tls(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).to_lowercase();
    ["http request to an https server", "http request was sent to https port", "plain http to an ssl-enabled"]
        .iter()
        .any(|words| text.contains(words))
}

fn base_url(endpoint: &Endpoint, scheme: Scheme, subject: &Subject) -> Result<Url> {
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let problem = |problem: String| RegistryError::Endpoint {
        subject: subject.clone(),
        host: printable(&endpoint.host, 100),
        problem,
    };
    let url =
        Url::parse(&format!("{scheme}://{}/", endpoint.host)).map_err(|error| problem(error.to_string()))?;
    // A host of the settings must not smuggle in a user or a path.
    let is_host =
        url.username().is_empty() && url.password().is_none() && url.path() == "/" && url.query().is_none();
    if is_host { Ok(url) } else { Err(problem("not a host with an optional port".to_owned())) }
}

fn url_of(target: &Target<'_>, endpoint: &Endpoint, base: &Url, subject: &Subject) -> Result<Url> {
    let problem = |problem: &str| RegistryError::Endpoint {
        subject: subject.clone(),
        host: endpoint.host.clone(),
        problem: problem.to_owned(),
    };
    let path = endpoint.path.trim_end_matches('/');
    let text = match target {
        Target::Item(item) => format!("{path}/{}{}", endpoint.repository, item.path_and_query()),
        Target::Below(below) => format!("{path}{below}"),
        Target::Path(path) => (*path).to_owned(),
        Target::Url(url) => {
            if base.scheme() == "https" && url.scheme() == "http" && !url.host_str().is_some_and(is_loopback)
            {
                return Err(RegistryError::Redirect {
                    subject: subject.clone(),
                    host: host_of(base),
                    problem: "it leads from https to http".to_owned(),
                });
            }
            return Ok((*url).clone());
        }
    };
    // Joined to the host, not parsed as a whole: a path with two slashes in front would name another host.
    let (path, query) =
        text.split_once('?').map_or((text.as_str(), None), |(path, query)| (path, Some(query)));
    if !path.starts_with('/') {
        return Err(problem("its path does not begin with a slash"));
    }
    let mut url = base.clone();
    url.set_path(path);
    url.set_query(query);
    if let Some(namespace) = &endpoint.namespace {
        url.query_pairs_mut().append_pair("ns", namespace);
    }
    Ok(url)
}

fn plain_headers(request: &Request<'_>, endpoint: &Endpoint) -> Result<HeaderMap> {
    to_headers(
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        endpoint,
        &request.subject,
    )
}

/// Headers of the settings, docker's for all registries and those of the endpoint: they may hold credentials. A login of the
/// user replaces theirs.
fn secret_headers(of_all: &[(String, String)], endpoint: &Endpoint, subject: &Subject) -> Result<HeaderMap> {
    let headers = of_all.iter().chain(&endpoint.headers).map(|(name, value)| (name.as_str(), value.as_str()));
    let mut headers = to_headers(headers, endpoint, subject)?;
    headers.values_mut().for_each(|value| value.set_sensitive(true));
    Ok(headers)
}

fn to_headers<'a>(
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    endpoint: &Endpoint,
    subject: &Subject,
) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        // The value may be a secret: only the name is told.
        let error = || RegistryError::Endpoint {
            subject: subject.clone(),
            host: endpoint.host.clone(),
            problem: format!("no request can have its header `{}`", printable(name, 60)),
        };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| error())?;
        map.append(header, HeaderValue::from_str(value).map_err(|_| error())?);
    }
    Ok(map)
}
