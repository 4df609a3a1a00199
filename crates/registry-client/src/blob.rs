//! Fetching blobs as streams that mend themselves.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mica_http::{host_of, is_loopback};
use mica_oci::{CONFIG_SIZE_BYTES_MAX, Descriptor, Digest, Reference};
use mica_registry_api::Item;
use mica_registry_api::range::{ByteRange, ContentRange};
use reqwest::Url;
use reqwest::header::RANGE;

use crate::client::Client;
use crate::endpoint::{Endpoint, Purpose, Scheme, Tls};
use crate::error::{RegistryError, Result};
use crate::exchange::MIRROR_TRIES_MAX;
use crate::fetch::media_type_of;
use crate::refusal::{Refusal, Subject};
use crate::retry::{Failure, Remedy, Tries};
use crate::transport::{Access, At, Login, Method, Request, Response, Target};

/// What a try must bring to count as progress: a registry that gives a byte at a time must not keep us for ever.
const PROGRESS_BYTES: u64 = 64 << 10;
/// How long the end of a body of unknown length is waited for, once all bytes are there.
const END_WAIT: Duration = Duration::from_secs(2);
/// Addresses of a descriptor that are tried.
const URLS_MAX: usize = 8;

/// The bytes of a blob from an offset on. A broken connection is taken up again where it broke, within bounds, so a read
/// fails only when that is hopeless (the `io::Error` then holds a [`RegistryError`]). It never gives more bytes than the
/// descriptor says, and ends only after all of them. The digest is the caller's to check: only the caller has what came
/// before the offset.
///
/// It holds one piece of the body at a time, some hundred kilobytes; what else arrives waits in the socket.
pub struct BlobReader {
    client: Client,
    subject: Subject,
    descriptor: Descriptor,
    /// Where the blob may be, in order.
    sources: Vec<Source>,
    /// The source that is read, a place in the list.
    current: usize,
    /// Bytes of the blob that were received or skipped by the caller.
    position: u64,
    /// Received and not yet given.
    chunk: Bytes,
    response: Option<reqwest::Response>,
    /// Bytes of the running reply that we have already.
    skip: u64,
    /// Whether the running reply said how long it is, and that was right.
    has_length: bool,
    /// The registry does not take ranges.
    is_rangeless: bool,
    tries: Progress,
    /// Why reading ended, once it has: every further read says so again.
    failed: bool,
}

/// Where a blob may be.
enum Source {
    Endpoint(Endpoint),
    /// An address of the descriptor, as an endpoint without login and settings.
    Foreign(Endpoint, Url),
}

/// How often a transfer was taken up.
#[derive(Default)]
struct Progress {
    /// In a row, without [`PROGRESS_BYTES`] in between.
    stalled: u32,
    /// In all.
    resumed: u32,
    /// Position at which the row began.
    mark: u64,
    /// How long was waited for bytes since then.
    waited: Duration,
}

impl Client {
    /// A blob of the repository of `reference` from `offset` on. Its descriptor's `urls` are tried, without credentials and over
    /// https only (plain http from loopback to loopback), where the registry does not have it.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<BlobReader> {
        let mut reader = self.blob_reader(reference, descriptor, offset)?;
        if offset < descriptor.size {
            reader.open()?;
        }
        Ok(reader)
    }

    /// A reader that has not asked yet.
    fn blob_reader(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<BlobReader> {
        let endpoints = self.endpoints(reference, Purpose::Pull)?;
        // A manifest from far away must not make this machine ask itself.
        let is_near = is_loopback(reference.registry());
        let foreign = descriptor.urls.iter().take(URLS_MAX).filter_map(|url| foreign(url, is_near));
        let reader = BlobReader {
            client: self.clone(),
            subject: Subject::blob(reference, &descriptor.digest),
            descriptor: descriptor.clone(),
            sources: endpoints.into_iter().map(Source::Endpoint).chain(foreign).collect(),
            current: 0,
            position: offset,
            chunk: Bytes::new(),
            response: None,
            skip: 0,
            has_length: false,
            is_rangeless: false,
            tries: Progress { mark: offset, ..Progress::default() },
            failed: false,
        };
        if offset > descriptor.size {
            return Err(reader.size_mismatch(offset));
        }
        if reader.sources.is_empty() {
            let refusal = Refusal { host: reference.registry().to_owned(), ..Refusal::default() };
            return Err(RegistryError::NotFound { subject: reader.subject, refusal });
        }
        Ok(reader)
    }

    /// A small blob whole, checked against its digest and size.
    pub fn blob_bytes(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut reader = self.blob_reader(reference, descriptor, 0)?;
        if descriptor.size > CONFIG_SIZE_BYTES_MAX {
            let (subject, host) = (reader.subject.clone(), reader.host());
            return Err(RegistryError::TooLarge { subject, host, size_bytes_max: CONFIG_SIZE_BYTES_MAX });
        }
        loop {
            match reader.whole() {
                Ok(bytes) => return Ok(bytes),
                // What one mirror has wrong, the next place may have right.
                Err(error) => reader.pass_over(error)?,
            }
        }
    }
}

impl BlobReader {
    /// Host that the bytes come from at this moment: the registry, one of its mirrors, or an address of the descriptor.
    pub fn host(&self) -> String {
        match self.sources.get(self.current) {
            Some(Source::Endpoint(endpoint) | Source::Foreign(endpoint, _)) => endpoint.host.clone(),
            None => self.subject.registry().to_owned(),
        }
    }

    fn whole(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while self.fill()? {
            bytes.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
        }
        match self.descriptor.digest.matches(&bytes) {
            Some(true) => Ok(bytes),
            _ => Err(RegistryError::DigestMismatch {
                subject: self.subject.clone(),
                host: self.host(),
                expected: self.descriptor.digest.clone(),
                found: Digest::sha256(&bytes),
            }),
        }
    }

    /// Begins again at the next source, if this one is a mirror.
    fn pass_over(&mut self, error: RegistryError) -> Result<()> {
        match self.sources.get(self.current) {
            Some(Source::Endpoint(endpoint))
                if endpoint.is_mirror && self.current + 1 < self.sources.len() =>
            {
                self.client.pass_over(endpoint, error);
                self.current += 1;
                (self.position, self.chunk, self.response) = (0, Bytes::new(), None);
                self.tries = Progress::default();
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Sees to it that there is a piece to give; `false` at the end.
    fn fill(&mut self) -> Result<bool> {
        while self.chunk.is_empty() {
            if self.position == self.descriptor.size {
                self.check_end()?;
                return Ok(false);
            }
            let Some(response) = &mut self.response else {
                match self.open() {
                    Ok(()) => {}
                    // Elsewhere this was tried again already. Here a registry that spoke before is starting anew, perhaps.
                    Err(error @ RegistryError::Connection { .. })
                        if self.tries.resumed > 0 && is_loopback(&self.host()) =>
                    {
                        self.mend(Failure::new(error, Remedy::Wait))?;
                    }
                    Err(error) => return Err(error),
                }
                continue;
            };
            let begun = Instant::now();
            let received =
                self.client.block_on(self.client.shared().connections.chunk(response, &self.subject))?;
            self.tries.waited += begun.elapsed();
            match received {
                Ok(Some(chunk)) => {
                    self.take(chunk)?;
                    self.check_pace()?;
                }
                Ok(None) => {
                    let error = RegistryError::Connection {
                        subject: self.subject.clone(),
                        host: self.host(),
                        action: "reading from",
                        problem: format!(
                            "the reply ended at byte {} of {}",
                            self.position, self.descriptor.size
                        ),
                    };
                    self.mend(Failure::new(error, Remedy::Wait))?;
                }
                Err(failure) => self.mend(failure)?,
            }
        }
        Ok(true)
    }

    fn take(&mut self, mut chunk: Bytes) -> Result<()> {
        let skipped = self.skip.min(chunk.len() as u64);
        let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(usize::MAX));
        self.skip -= skipped;
        let left = self.descriptor.size - self.position;
        if chunk.len() as u64 > left {
            self.response = None;
            return Err(self.size_mismatch(self.position + chunk.len() as u64));
        }
        self.position += chunk.len() as u64;
        if self.position - self.tries.mark >= PROGRESS_BYTES {
            (self.tries.mark, self.tries.stalled, self.tries.waited) = (self.position, 0, Duration::ZERO);
        }
        self.chunk = chunk;
        Ok(())
    }

    /// A drop now and then is no transfer: whoever gives so little counts as broken. Only what was waited for counts, not the
    /// time that the reader of this took.
    fn check_pace(&mut self) -> Result<()> {
        let limit = self.client.patience().answer;
        if self.tries.waited < limit || self.position == self.descriptor.size {
            return Ok(());
        }
        let error = RegistryError::TimedOut {
            subject: self.subject.clone(),
            host: self.host(),
            action: "reading from",
            seconds: limit.as_secs(),
        };
        self.mend(Failure::new(error, Remedy::Wait))
    }

    /// A body of unknown length might go on behind the last byte.
    fn check_end(&mut self) -> Result<()> {
        let Some(mut response) = self.response.take() else { return Ok(()) };
        if self.has_length {
            return Ok(());
        }
        let more = async { tokio::time::timeout(END_WAIT, response.chunk()).await };
        match self.client.block_on(more)? {
            Ok(Ok(Some(chunk))) if !chunk.is_empty() => {
                Err(self.size_mismatch(self.position + chunk.len() as u64))
            }
            _ => Ok(()),
        }
    }

    /// After a break: waits, or goes on to the next source, or gives up.
    fn mend(&mut self, failure: Failure) -> Result<()> {
        self.response = None;
        self.tries.waited = Duration::ZERO;
        self.tries.stalled += 1;
        self.tries.resumed += 1;
        let patience = self.client.patience();
        let is_mirror =
            matches!(&self.sources[self.current], Source::Endpoint(endpoint) if endpoint.is_mirror);
        let stalled_max =
            if is_mirror { patience.tries_max.min(MIRROR_TRIES_MAX) } else { patience.tries_max };
        if self.tries.stalled < stalled_max && self.tries.resumed <= patience.resumes_max {
            let mut tries = Tries::new(patience);
            // The first time at once: proxies cut long transfers, and nobody is served by waiting then.
            if self.tries.stalled > 1
                && let Some(delay) = tries.after_failures(self.tries.stalled - 1, &failure)
            {
                std::thread::sleep(delay);
            }
            return Ok(());
        }
        let error = RegistryError::Broken {
            subject: self.subject.clone(),
            host: self.host(),
            position: self.position,
            tries: if self.tries.stalled >= stalled_max { self.tries.stalled } else { self.tries.resumed },
            source: Box::new(failure.error),
        };
        if let (Source::Endpoint(endpoint), true) = (&self.sources[self.current], is_mirror)
            && self.current + 1 < self.sources.len()
        {
            self.client.pass_over(endpoint, error);
            self.current += 1;
            self.tries = Progress { mark: self.position, ..Progress::default() };
            return Ok(());
        }
        Err(error)
    }

    /// Asks for the bytes from the position on, at the first source that has them.
    fn open(&mut self) -> Result<()> {
        loop {
            let error = match self.open_current() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let has_next = self.current + 1 < self.sources.len();
            match &self.sources[self.current] {
                Source::Endpoint(endpoint) if endpoint.is_mirror && has_next => {
                    self.client.pass_over(endpoint, error);
                }
                // The descriptor's addresses count only where the registry says that it does not have the blob.
                Source::Endpoint(_) if has_next && matches!(error, RegistryError::NotFound { .. }) => {}
                Source::Foreign(..) if has_next => {}
                _ => return Err(error),
            }
            self.current += 1;
            self.tries = Progress { mark: self.position, ..Progress::default() };
        }
    }

    fn open_current(&mut self) -> Result<()> {
        let range = ByteRange::From(self.position).to_string();
        let item = Item::Blob(self.descriptor.digest.clone());
        let (endpoint, target, login) = match &self.sources[self.current] {
            Source::Endpoint(endpoint) => (endpoint, Target::Item(&item), Login::OfUser),
            Source::Foreign(endpoint, url) => (endpoint, Target::Url(url), Login::Nobody),
        };
        let mut request = Request::new(Method::GET, At::Endpoint(endpoint), target, self.subject.clone());
        (request.login, request.access) = (login, Access::Pull);
        let is_ranged = self.position > 0 && !self.is_rangeless;
        if is_ranged {
            request.headers.push((RANGE, range));
            request.accepted = &[416];
        }
        let response = self.client.send(&request)?;
        if response.status == 416 && is_ranged {
            // It may not take ranges at all; if it is shorter than it should be, the whole will show it.
            self.is_rangeless = true;
            return self.open_current();
        }
        self.check_head(&response)?;
        self.skip = if response.status == 206 { 0 } else { self.position };
        self.response = Some(response.body);
        Ok(())
    }

    /// Whether what follows can be what was asked for.
    fn check_head(&mut self, response: &Response) -> Result<()> {
        let size = self.descriptor.size;
        let length = response.body.content_length();
        let invalid = |problem: String| RegistryError::InvalidReply {
            subject: self.subject.clone(),
            host: response.host(),
            problem,
        };
        match response.status {
            200 => {
                self.has_length = length.is_some();
                let Some(length) = length.filter(|length| *length != size) else { return Ok(()) };
                if media_type_of(response) == "text/html" {
                    let (subject, host) = (self.subject.clone(), response.host());
                    return Err(RegistryError::HtmlReply { subject, host, expected: "a blob" });
                }
                Err(self.size_mismatch(length))
            }
            206 => {
                let header = response.header("content-range").unwrap_or_default();
                let range = ContentRange::parse(header)
                    .filter(|range| range.range.is_some())
                    .ok_or_else(|| invalid("status 206 without a valid `Content-Range`".to_owned()))?;
                if let Some(found) = range.size_bytes.filter(|found| *found != size) {
                    return Err(self.size_mismatch(found));
                }
                let (first, last) = range.range.unwrap_or_default();
                // Both are the other side's numbers: the last may be the largest that there is.
                let told = (last - first).saturating_add(1);
                if let Some(length) = length.filter(|length| *length != told) {
                    return Err(invalid(format!(
                        "`Content-Range` speaks of {told} bytes, `Content-Length` of {length}"
                    )));
                }
                if first != self.position || last >= size {
                    return Err(invalid(format!(
                        "`Content-Range` is not what was asked for, expected `{}-{}`: `{first}-{last}`",
                        self.position,
                        size - 1
                    )));
                }
                self.has_length = length.is_some() && last == size - 1;
                Ok(())
            }
            status => Err(invalid(format!("status {status} where a blob should be"))),
        }
    }

    fn size_mismatch(&self, found: u64) -> RegistryError {
        RegistryError::SizeMismatch {
            subject: self.subject.clone(),
            host: self.host(),
            expected: self.descriptor.size,
            found,
        }
    }
}

/// An address of a descriptor, if it may be asked: https, or plain http on this machine where the registry is on it as well.
/// No login goes there.
fn foreign(text: &str, is_near: bool) -> Option<Source> {
    let mut url = Url::parse(text).ok()?;
    url.set_fragment(None);
    let _ = (url.set_username(""), url.set_password(None));
    let scheme = match url.scheme() {
        "https" => Scheme::Https,
        "http" if is_near && url.host_str().is_some_and(is_loopback) => Scheme::Http,
        _ => return None,
    };
    let endpoint = Endpoint {
        host: host_of(&url),
        schemes: vec![scheme],
        path: String::new(),
        repository: String::new(),
        tls: Tls::default(),
        headers: Vec::new(),
        namespace: None,
        is_mirror: false,
        credentials_host: String::new(),
    };
    Some(Source::Foreign(endpoint, url))
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.failed {
            return Err(io::Error::other("the transfer has failed before"));
        }
        if let Err(error) = self.fill() {
            self.failed = true;
            return Err(io::Error::other(error));
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, length: usize) {
        let _ = self.chunk.split_to(length.min(self.chunk.len()));
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = formatter.debug_struct("BlobReader");
        text.field("subject", &self.subject).field("position", &self.position).finish_non_exhaustive()
    }
}
