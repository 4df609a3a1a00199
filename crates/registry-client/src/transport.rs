//! One exchange with a registry, as the rest of this room asks for it: endpoints in order, login, patience, redirects.
//!
//! `Client::send` is the way out of this process for everything here. It blocks, and answers with the head of a reply whose
//! body is read afterwards.

use std::io::{self, Read};

use bytes::Bytes;
use mica_http::host_of;
use mica_oci::Reference;
use mica_registry_api::Item;
use reqwest::header::{HeaderMap, HeaderName};
pub(crate) use reqwest::{Method, Url};

use crate::client::Client;
use crate::credentials::Credential;
use crate::endpoint::{Endpoint, Purpose};
use crate::error::{RegistryError, Result};
use crate::refusal::Subject;
use crate::secret::Secret;

/// What is sent, and what counts as an answer.
pub(crate) struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Whom to ask.
    pub at: At<'a>,
    /// What to ask for.
    pub target: Target<'a>,
    /// What it is about, in errors.
    pub subject: Subject,
    /// Headers beside those of the endpoint and the login.
    pub headers: Vec<(HeaderName, String)>,
    /// What is sent with it.
    pub body: Body<'a>,
    /// Statuses that are answers. 2xx and those here are given back; all others become errors.
    pub accepted: &'a [u16],
    /// What a token must be good for.
    pub access: Access<'a>,
    /// Who asks.
    pub login: Login<'a>,
    /// Whether it is sent again when it fails for reasons that pass.
    pub tries: Tries,
    /// The reply's body is part of the answer: it is read as part of each try, up to so many bytes.
    pub whole: Option<u64>,
}

/// Whom to ask.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    /// The endpoints that settings name for a reference, in order.
    Reference(&'a Reference, Purpose),
    /// This endpoint alone.
    Endpoint(&'a Endpoint),
}

/// What to ask for.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Something of the endpoint's repository.
    Item(&'a Item),
    /// A path with its query below the endpoint's own path (`/` is end-1, whether this is a registry).
    Below(&'a str),
    /// A path with its query, whatever the endpoint's own path (`/v1/search?q=x`).
    Path(&'a str),
    /// A URL that the registry gave, such as an upload's. The login goes with it only to the endpoint's own host.
    Url(&'a Url),
}

/// What is sent with a request.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a Bytes),
    /// Bytes that are read while they are sent, again from the start where the request is sent again.
    Stream(&'a dyn Stream),
}

/// A body that is read while it is sent, in the thread that called.
pub(crate) trait Stream {
    /// How many bytes it has.
    fn size_bytes(&self) -> u64;
    /// The bytes, from the start.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
    /// So many of them are on their way, counted from the start.
    fn sent(&self, bytes: u64);
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) enum Login<'a> {
    /// Who this user is to the registry, by the client's credentials.
    OfUser,
    /// This one; an identity token is asked for where tokens are used ([`Response::identity_token`]).
    Given(&'a Credential),
    /// Nobody: credentials never go along.
    Nobody,
}

/// What a token must be good for, in the endpoint's repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// Nothing of a repository.
    None,
    /// Reading.
    Pull,
    /// Reading and writing.
    PullPush,
    /// Reading and writing, and reading another repository.
    Mount(&'a str),
    /// Removing.
    Delete,
}

/// How often a request is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tries {
    /// Again and again within the client's patience.
    Patient,
    /// Once, apart from the login: the caller knows better how to go on.
    Once,
}

impl<'a> Request<'a> {
    /// A request without body that reads, sent patiently by this user.
    pub(crate) fn new(method: Method, at: At<'a>, target: Target<'a>, subject: Subject) -> Request<'a> {
        Request {
            method,
            at,
            target,
            subject,
            headers: Vec::new(),
            body: Body::None,
            accepted: &[],
            access: Access::Pull,
            login: Login::OfUser,
            tries: Tries::Patient,
            whole: None,
        }
    }
}

/// The head of a reply, and its body as far as it is wanted.
pub(crate) struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The endpoint that was asked.
    pub endpoint: Endpoint,
    /// The URL that was asked at that endpoint, before redirects.
    pub asked: Url,
    /// What token servers give for a login that lasts, if [`Login::Given`] asked for one.
    pub identity_token: Option<Secret>,
    pub(crate) subject: Subject,
    pub(crate) body: reqwest::Response,
    pub(crate) whole: Option<Bytes>,
    pub(crate) client: Client,
}

impl Response {
    /// A header's value, if it is there and readable.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the registry says to go on (`Location`), resolved against who answered (RFC 9110, section 10.2.2).
    pub(crate) fn location(&self) -> Option<Url> {
        let mut url = self.body.url().join(self.header("location")?).ok()?;
        url.set_fragment(None);
        // User and password of a URL would be sent to it.
        let _ = (url.set_username(""), url.set_password(None));
        matches!(url.scheme(), "http" | "https").then_some(url)
    }

    /// Host that answered.
    pub(crate) fn host(&self) -> String {
        host_of(self.body.url())
    }

    /// The whole body, if it has at most so many bytes.
    pub(crate) fn bytes(mut self, size_bytes_max: u64) -> Result<Bytes> {
        if let Some(whole) = self.whole.take() {
            return Ok(whole);
        }
        let connections = &self.client.shared().connections;
        let whole = self.client.block_on(connections.whole(&mut self.body, size_bytes_max, &self.subject))?;
        match whole {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => {
                Err(RegistryError::TooLarge { host: self.host(), subject: self.subject, size_bytes_max })
            }
            Err(failure) => Err(failure.error),
        }
    }
}

impl Client {
    /// Sends a request and waits for the head of the reply.
    ///
    /// Endpoints are asked in their order, mirrors leading on to the next. A challenge is answered once; tokens are kept for
    /// the client's life. Failures that pass are waited out (see `Patience`). Redirects are followed, without login to other hosts.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Response> {
        let endpoints = match request.at {
            At::Reference(reference, purpose) => self.endpoints(reference, purpose)?,
            At::Endpoint(endpoint) => return self.block_on(self.ask(request, endpoint))?,
        };
        for (position, endpoint) in endpoints.iter().enumerate() {
            let is_last = position + 1 == endpoints.len() || !endpoint.is_mirror;
            match self.block_on(self.ask(request, endpoint))? {
                // A mirror that says no is not the last word.
                Ok(response) if is_last || (200..300).contains(&response.status) => return Ok(response),
                Ok(_) => {}
                Err(error) if is_last => return Err(error),
                Err(error) => self.pass_over(endpoint, error),
            }
        }
        Err(RegistryError::Endpoint {
            subject: request.subject.clone(),
            host: request.subject.registry().to_owned(),
            problem: "settings name no host for it".to_owned(),
        })
    }
}
