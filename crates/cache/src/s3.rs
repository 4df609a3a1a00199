//! A cache in a bucket of S3, or of what speaks as it does.
//!
//! ```text
//! <prefix><manifests_prefix><name>       the manifest, written last
//! <prefix><blobs_prefix>sha256:<hex>     blobs, shared by all names of the prefix
//! ```
//!
//! `object_store` knows the protocol, signs, asks for credentials where none are given, and tries again; the messages go over
//! mica's own clients.

use std::any::Any;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::BodyExt;
use mica_http::{Clients, Tls};
use mica_oci::{Descriptor, MANIFEST_SIZE_BYTES_MAX, Manifest};
use mica_registry_client::Content;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStoreExt, PutPayload, RetryConfig};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::error::{CacheError, Result};
use crate::place::Place;

/// Until a connection stands, as everywhere in mica.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// For one message and the beginning of its answer: the largest is a part of an upload.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// Without a single byte of what is read.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Tries of one message beside the first.
const RETRIES_MAX: usize = 3;
/// What is longer goes in parts of this length: S3 wants 5 MiB, and 10,000 of them at most.
const PART_BYTES: usize = 16 << 20;
/// So much of what a server says is told.
const REASON_CHARACTERS_MAX: usize = 300;

/// Which bucket, and as whom.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: Option<String>,
    /// Where it is, if not at Amazon.
    pub endpoint_url: Option<String>,
    /// The bucket is named in the path of URLs, not in the host.
    pub use_path_style: bool,
    /// Names of the cache: an export writes all, an import takes the first that is there.
    pub names: Vec<String>,
    /// In front of everything.
    pub prefix: String,
    /// In front of digests.
    pub blobs_prefix: String,
    /// In front of names.
    pub manifests_prefix: String,
    /// Beside the environment's.
    pub access_key_id: Option<String>,
    /// A secret.
    pub secret_access_key: Option<String>,
    /// A secret.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, region, names, .. } = self;
        write!(formatter, "S3Settings {{ {bucket:?}, {region:?}, {names:?}, .. }}")
    }
}

/// A cache in a bucket.
pub struct S3Place {
    name: String,
    settings: S3Settings,
    opened: OnceLock<Opened>,
}

struct Opened {
    bucket: AmazonS3,
    runtime: Arc<Runtime>,
}

impl S3Place {
    /// The cache of that bucket; nothing is asked yet.
    pub fn new(settings: S3Settings) -> Self {
        let name = settings.names.first().map(String::as_str).unwrap_or_default();
        let name = format!("s3:{}/{}{}{name}", settings.bucket, settings.prefix, settings.manifests_prefix);
        Self { name, settings, opened: OnceLock::new() }
    }

    fn opened(&self) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|source| CacheError::Io { what: "cannot start", source })?;
        let bucket = self.bucket()?;
        Ok(self.opened.get_or_init(|| Opened { bucket, runtime: Arc::new(runtime) }))
    }

    fn bucket(&self) -> Result<AmazonS3> {
        let settings = &self.settings;
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&settings.bucket)
            .with_virtual_hosted_style_request(!settings.use_path_style)
            .with_http_connector(Connector)
            .with_retry(RetryConfig { max_retries: RETRIES_MAX, ..RetryConfig::default() });
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(url) = &settings.endpoint_url {
            let url = url.trim_end_matches('/');
            // The host is the user's choice, and so is it to speak to it in the clear.
            builder = builder.with_allow_http(url.starts_with("http://"));
            builder = builder.with_endpoint(match (settings.use_path_style, url.split_once("://")) {
                (false, Some((scheme, host))) => format!("{scheme}://{}.{host}", settings.bucket),
                _ => url.to_owned(),
            });
        }
        if let Some(id) = &settings.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &settings.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(token);
        }
        builder.build().map_err(|error| self.told("cannot use the bucket", &error))
    }

    fn blob_path(&self, blob: &Descriptor) -> Path {
        Path::from(format!("{}{}{}", self.settings.prefix, self.settings.blobs_prefix, blob.digest))
    }

    fn manifest_path(&self, name: &str) -> Path {
        Path::from(format!("{}{}{name}", self.settings.prefix, self.settings.manifests_prefix))
    }

    /// An error without anything secret: a server may send back all of a request that it did not like.
    fn told(&self, what: &'static str, error: &object_store::Error) -> CacheError {
        let text = error.to_string();
        let reason = match (element(&text, "Code"), element(&text, "Message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) if text.contains("169.254.169.254") => {
                "there are no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set".to_owned()
            }
            (None, _) => match error {
                object_store::Error::NotFound { .. } => "it is not there".to_owned(),
                object_store::Error::PermissionDenied { .. } => "permission denied".to_owned(),
                object_store::Error::Unauthenticated { .. } => "the credentials are refused".to_owned(),
                _ => text.split('<').next().unwrap_or_default().to_owned(),
            },
        };
        CacheError::Bucket { what, reason: self.without_secrets(reason) }
    }

    fn without_secrets(&self, mut text: String) -> String {
        let environment = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        let environment = environment.iter().filter_map(|name| std::env::var(name).ok());
        let settings = &self.settings;
        let given = [&settings.access_key_id, &settings.secret_access_key, &settings.session_token];
        for secret in given.into_iter().flatten().cloned().chain(environment).filter(|text| !text.is_empty())
        {
            text = text.replace(&secret, "***");
        }
        let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
        text.trim().chars().map(printable).take(REASON_CHARACTERS_MAX).collect()
    }
}

/// What stands in an element of an answer.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0)
}

impl Place for S3Place {
    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self, child: Option<&Descriptor>) -> Result<Option<Vec<u8>>> {
        let paths = match child {
            Some(child) => vec![self.blob_path(child)],
            None => self.settings.names.iter().map(|name| self.manifest_path(name)).collect(),
        };
        let opened = self.opened()?;
        for path in paths {
            let found = opened.runtime.block_on(opened.bucket.get(&path));
            let found = match found {
                Err(object_store::Error::NotFound { .. }) => continue,
                found => found.map_err(|error| self.told("cannot read its manifest", &error))?,
            };
            let reader = Streamed::new(opened, found.into_stream());
            let mut bytes = Vec::new();
            let read = reader.take(MANIFEST_SIZE_BYTES_MAX + 1).read_to_end(&mut bytes);
            read.map_err(|source| CacheError::Io { what: "cannot read its manifest", source })?;
            if bytes.len() as u64 > MANIFEST_SIZE_BYTES_MAX {
                let size_bytes_max = MANIFEST_SIZE_BYTES_MAX;
                return Err(CacheError::TooLarge { what: "its manifest", size_bytes_max });
            }
            return Ok(Some(bytes));
        }
        Ok(None)
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let opened = self.opened()?;
        match opened.runtime.block_on(opened.bucket.get(&self.blob_path(blob))) {
            Ok(found) => Ok(Box::new(Streamed::new(opened, found.into_stream()))),
            Err(object_store::Error::NotFound { .. }) => {
                Err(CacheError::BlobMissing { digest: blob.digest.clone() })
            }
            Err(error) => Err(self.told("cannot read a blob", &error)),
        }
    }

    fn begin(&self) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let opened = self.opened()?;
        match opened.runtime.block_on(opened.bucket.head(&self.blob_path(blob))) {
            Ok(found) => Ok(found.size == blob.size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.told("cannot ask for a blob", &error)),
        }
    }

    fn put(&self, blob: &Descriptor, content: &dyn Content) -> Result<()> {
        let opened = self.opened()?;
        let path = self.blob_path(blob);
        let failed = |error: object_store::Error| self.told("cannot write a blob", &error);
        let mut reader = content.open(0)?;
        let first = piece(&mut reader)?;
        if first.len() < PART_BYTES {
            opened.runtime.block_on(opened.bucket.put(&path, PutPayload::from(first))).map_err(failed)?;
            return Ok(());
        }
        let mut upload = opened.runtime.block_on(opened.bucket.put_multipart(&path)).map_err(failed)?;
        let mut next = Ok(first);
        let sent = loop {
            let bytes = match next {
                Ok(bytes) if bytes.is_empty() => break Ok(()),
                Ok(bytes) => bytes,
                Err(error) => break Err(CacheError::from(error)),
            };
            if let Err(error) = opened.runtime.block_on(upload.put_part(PutPayload::from(bytes))) {
                break Err(failed(error));
            }
            next = piece(&mut reader);
        };
        let done = match sent {
            Ok(()) => opened.runtime.block_on(upload.complete()).map(drop).map_err(failed),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // The first error is the one to tell; buckets forget what is never completed, if they are told to.
            let _ = opened.runtime.block_on(upload.abort());
        }
        done
    }

    fn publish(&self, manifest: &Manifest) -> Result<()> {
        let opened = self.opened()?;
        let bytes = Bytes::from(manifest.to_canonical_json());
        for name in &self.settings.names {
            let path = self.manifest_path(name);
            let put = opened.bucket.put(&path, PutPayload::from(bytes.clone()));
            opened.runtime.block_on(put).map_err(|error| self.told("cannot write the manifest", &error))?;
        }
        Ok(())
    }
}

/// The next part of a blob; empty at its end.
fn piece(reader: &mut dyn Read) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    reader.take(PART_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// An answer's bytes, waited for.
struct Streamed {
    runtime: Arc<Runtime>,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Streamed {
    fn new(opened: &Opened, stream: BoxStream<'static, object_store::Result<Bytes>>) -> Self {
        Self { runtime: opened.runtime.clone(), stream, chunk: Bytes::new() }
    }
}

impl Read for Streamed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let next = self.runtime.block_on(async { timeout(IDLE_MAX, self.stream.next()).await });
            match next {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(None) => return Ok(0),
                Ok(Some(Err(_))) => return Err(io::Error::other("the bucket's answer broke off")),
                Ok(Some(Ok(chunk))) => self.chunk = chunk,
            }
        }
        let count = buffer.len().min(self.chunk.len());
        let taken = self.chunk.split_to(count);
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(&taken);
        }
        Ok(count)
    }
}

/// Lets `object_store` speak over mica's clients: same authorities, same names, same proxies as everywhere.
#[derive(Debug)]
struct Connector;

#[derive(Debug)]
struct Service {
    clients: Clients,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service { clients: Clients::new(CONNECT_MAX) }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url: reqwest::Url =
            parts.uri.to_string().parse().map_err(|_| {
                HttpError::new(HttpErrorKind::Unknown, io::Error::other("the address is no URL"))
            })?;
        let client = self.clients.get(&url, &Tls::default());
        let client = client.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
        let mut message = reqwest::Request::new(parts.method, url);
        *message.headers_mut() = parts.headers;
        *message.body_mut() = Some(reqwest::Body::wrap(body));
        let answer = timeout(ANSWER_MAX, client.execute(message)).await;
        let answer = answer
            .map_err(|_| HttpError::new(HttpErrorKind::Timeout, io::Error::from(io::ErrorKind::TimedOut)))?
            .map_err(fault)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = reqwest::Body::from(answer).map_err(fault);
        let mut response = HttpResponse::new(HttpResponseBody::new(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

/// What went wrong with a message, without its URL.
fn fault(error: reqwest::Error) -> HttpError {
    let kind = match () {
        () if error.is_connect() => HttpErrorKind::Connect,
        () if error.is_timeout() => HttpErrorKind::Timeout,
        () if error.is_body() || error.is_request() => HttpErrorKind::Interrupted,
        () => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_hold_no_secrets() {
        let settings = S3Settings {
            secret_access_key: Some("s3cr3t".to_owned()),
            session_token: Some("t0k3n".to_owned()),
            access_key_id: Some("AKIA".to_owned()),
            ..S3Settings::default()
        };
        assert!(!format!("{settings:?}").contains("s3cr3t"));
        let place = S3Place::new(settings);
        let check = |text: &str, expect: &str| {
            let source = Box::new(io::Error::other(text.to_owned()));
            let error = object_store::Error::Generic { store: "S3", source };
            assert_eq!(place.told("cannot", &error).to_string(), format!("cannot: {expect}"));
        };
        check(
            "403: <Error><Code>SignatureDoesNotMatch</Code><Message>no AKIA</Message><Request>x-token: t0k3n</Request>",
            "SignatureDoesNotMatch: no ***",
        );
        check("broke s3cr3t\n\u{1b}[31m", "Generic S3 error: broke ***  [31m");
        check(
            "to http://169.254.169.254/latest",
            "there are no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
        );
    }
}
