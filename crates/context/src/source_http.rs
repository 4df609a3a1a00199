//! A file from the web.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use mica_http::{Clients, Fault, Tls, host_of};
use mica_plan::without_login;
use mica_sys::error::ErrorAt;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use reqwest::{Response, StatusCode, Url};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use crate::error::{ContextError, HttpProblem};
use crate::http_time;

/// Go's own bound, which BuildKit has.
const REDIRECTS_MAX: usize = 10;
/// Tries of one download; every one begins anew.
const TRIES_MAX: u32 = 3;
/// Before the second try; doubled with every further one.
const DELAY_FIRST: Duration = Duration::from_millis(200);
/// Until a connection stands, as everywhere in mica.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Without a single byte.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// An ETag is kept to be sent again; real ones have some dozen bytes.
const ETAG_SIZE_BYTES_MAX: usize = 1024;
/// How often is looked whether the build was told to stop.
const INTERRUPTION_STEP: Duration = Duration::from_millis(50);

/// What is wanted of the web.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// `http://` or `https://`
    pub url: &'a str,
    /// Value of `Authorization`, for the host of the URL alone. A secret.
    pub authorization: Option<&'a [u8]>,
    /// What is there already: if the server says that nothing changed, nothing is sent.
    pub etag: Option<&'a str>,
    /// More is an error.
    pub size_bytes_max: u64,
    /// Whether it is to end.
    pub stopped: &'a dyn Fn() -> bool,
}

/// What came of the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAnswer {
    /// It is as it was when it had that ETag.
    Unchanged,
    /// It is in the file.
    File(HttpFile),
}

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpFile {
    /// Its length.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: [u8; 32],
    /// `Last-Modified`, seconds since 1970.
    pub modified_unix_s: Option<i64>,
    /// To ask again with.
    pub etag: Option<String>,
}

/// Asks for a URL, and writes what comes into a new file at `path`. Blocks; starts no thread.
pub fn download(request: &HttpRequest<'_>, path: &Path) -> Result<HttpAnswer, ContextError> {
    let failed = |problem| ContextError::Http { url: without_login(request.url), problem: Box::new(problem) };
    // Of this thread alone: a process that will clone namespaces should have no others.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.at("epoll_create", path)?;
    let clients = Clients::new(CONNECT_MAX);
    let tries = async {
        let mut delay = DELAY_FIRST;
        for left in (0..TRIES_MAX).rev() {
            match one_try(&clients, request, path).await {
                Err(Failure::Passing(_)) if left > 0 => sleep(delay).await,
                Err(Failure::Passing(problem) | Failure::Final(problem)) => return Err(failed(problem)),
                Err(Failure::Here(error)) => return Err(error.into()),
                Ok(answer) => return Ok(answer),
            }
            delay *= 2;
        }
        Err(failed(HttpProblem::Interrupted))
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            answer = tries => answer,
            () = interruption(request.stopped) => Err(failed(HttpProblem::Interrupted)),
        }
    })
}

async fn interruption(stopped: &dyn Fn() -> bool) {
    while !stopped() {
        sleep(INTERRUPTION_STEP).await;
    }
}

enum Failure {
    /// Another try may do better.
    Passing(HttpProblem),
    /// It may not.
    Final(HttpProblem),
    /// The disk failed.
    Here(mica_sys::Error),
}

impl Failure {
    fn of(fault: Fault) -> Self {
        let passes = match &fault {
            Fault::Tls { may_pass, .. } => *may_pass,
            Fault::UnknownHost { .. } => false,
            // Nobody listens there, and will not in a second.
            Fault::Broken { kind: Some(std::io::ErrorKind::ConnectionRefused), .. } => false,
            _ => true,
        };
        let problem = HttpProblem::Exchange(fault);
        if passes { Self::Passing(problem) } else { Self::Final(problem) }
    }
}

async fn one_try(clients: &Clients, request: &HttpRequest<'_>, path: &Path) -> Result<HttpAnswer, Failure> {
    let response = travel(clients, request).await?;
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED && request.etag.is_some() {
        return Ok(HttpAnswer::Unchanged);
    }
    // A part of it is not what was asked for.
    if !status.is_success() || status == StatusCode::PARTIAL_CONTENT {
        let problem = HttpProblem::Status { host: host_of(response.url()), status: status.as_u16() };
        return Err(match status.as_u16() {
            408 | 429 | 500 | 502..=504 => Failure::Passing(problem),
            _ => Failure::Final(problem),
        });
    }
    receive(response, request, path).await.map(HttpAnswer::File)
}

/// Follows redirects to an answer that is none.
async fn travel(clients: &Clients, request: &HttpRequest<'_>) -> Result<Response, Failure> {
    let wrong = |problem: &str| Failure::Final(HttpProblem::Url(problem.to_owned()));
    let mut url = Url::parse(request.url).map_err(|error| wrong(&error.to_string()))?;
    let mut authorization = match request.authorization {
        Some(value) => {
            let mut value = HeaderValue::from_bytes(value).map_err(|_| Failure::Final(HttpProblem::Login))?;
            value.set_sensitive(true);
            Some(value)
        }
        None => None,
    };
    for _ in 0..=REDIRECTS_MAX {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("only `http` and `https` are fetched"));
        }
        let mut headers = HeaderMap::new();
        // What comes is kept as it is, so it must not be compressed on the way.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = &authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if let Some(etag) = request.etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let client =
            clients.get(&url, &Tls::default()).map_err(|error| Failure::Final(HttpProblem::Client(error)))?;
        let sending = client.get(url.clone()).headers(headers).send();
        let response = match timeout(CONNECT_MAX + IDLE_MAX, sending).await {
            Ok(response) => response.map_err(|error| Failure::of(Fault::of(&error)))?,
            Err(_) => return Err(Failure::of(Fault::TimedOut { is_connect: false })),
        };
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        let refused = |reason| Failure::Final(HttpProblem::Redirect { host: host_of(&url), reason });
        let target = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let target = target.ok_or_else(|| refused("it does not say where to"))?;
        let next = url.join(target).map_err(|_| refused("it leads to no URL"))?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(refused("it leads out of the web"));
        }
        // A login is for one host, in the protection that it was given for.
        if next.origin() != url.origin() {
            authorization = None;
        }
        url = next;
    }
    Err(Failure::Final(HttpProblem::Redirect {
        host: host_of(&url),
        reason: "there were too many before it",
    }))
}

async fn receive(
    mut response: Response,
    request: &HttpRequest<'_>,
    path: &Path,
) -> Result<HttpFile, Failure> {
    let too_large = || Failure::Final(HttpProblem::TooLarge { size_bytes_max: request.size_bytes_max });
    let expected = response.content_length();
    if expected.is_some_and(|length| length > request.size_bytes_max) {
        return Err(too_large());
    }
    let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let modified_unix_s = text(LAST_MODIFIED).and_then(http_time::parse);
    let etag = text(ETAG).filter(|etag| etag.len() <= ETAG_SIZE_BYTES_MAX && !etag.is_empty());
    let etag = etag.map(str::to_owned);
    let mut file = File::create(path).at("open", path).map_err(Failure::Here)?;
    let (mut size_bytes, mut hasher) = (0, Sha256::new());
    loop {
        let fault = match timeout(IDLE_MAX, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                size_bytes += chunk.len() as u64;
                if size_bytes > request.size_bytes_max {
                    return Err(too_large());
                }
                hasher.update(&chunk);
                file.write_all(&chunk).at("write", path).map_err(Failure::Here)?;
                continue;
            }
            Ok(Ok(None)) => break,
            Ok(Err(error)) => Fault::of(&error),
            Err(_) => Fault::TimedOut { is_connect: false },
        };
        return Err(Failure::Passing(HttpProblem::Incomplete { received: size_bytes, expected, fault }));
    }
    Ok(HttpFile { size_bytes, sha256: hasher.finalize().into(), modified_unix_s, etag })
}
