//! One blob on its way to a registry: in chunks, each taken up where the registry says it stands.
//!
//! ```text
//! small            POST, PUT with all bytes
//! large            POST, PATCH chunk, PATCH chunk, .., PUT without bytes
//! after a break    GET the upload: 204 with `Range`, go on from there; anything else, begin again
//! ```
//!
//! A chunk that was acknowledged is a place to go on from, for this process and for others. Within a chunk it depends on the
//! registry: most keep what came. docker's registry 2.x keeps it too, but refuses to go on: the offset is part of its
//! location, and only that of the last acknowledged byte is known (distribution #3755, mended in 3.0). There a break within a
//! chunk costs the blob, and a break between two chunks nothing.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use mica_oci::{Descriptor, Reference};
use mica_registry_api::error_code::BODY_SIZE_BYTES_MAX;
use mica_registry_api::range::UploadRange;
use mica_registry_api::{ErrorReply, Item};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName};

use crate::client::Client;
use crate::endpoint::{Endpoint, Purpose};
use crate::error::{RegistryError, Result};
use crate::exchange::refuse;
use crate::push::{Content, UploadWatch, other_digest, refuse_html, to_push};
use crate::refusal::{Refusal, Subject};
use crate::retry::{Failure, Remedy, Tries as Retries, is_passing};
use crate::transport::{Access, At, Body, Method, Request, Response, Stream, Target, Tries, Url};

/// Chunks, unless settings say otherwise. docker's registry syncs each of them to its disk while nothing is sent, which costs
/// half of the time with 16 MiB and nothing that could be measured with this; proxies in front of registries refuse bodies from 100 MB on.
const CHUNK_SIZE_BYTES: u64 = 64 << 20;
/// Chunks are not made smaller than this where a body is called too large: the smallest limit that proxies are shipped with.
const CHUNK_SIZE_BYTES_LEAST: u64 = 1 << 20;
/// Blobs up to this size go in one piece: what is lost then is not worth a request more.
const WHOLE_SIZE_BYTES_MAX: u64 = 1 << 20;
/// Beginnings from the start, the first one included.
const BEGINNINGS_MAX: u32 = 5;

/// Statuses of a PATCH that mean that the registry takes blobs in one piece only.
const NO_CHUNKS: [u16; 4] = [400, 405, 411, 501];
/// Statuses of a request to an upload that are looked at here.
const ANSWERS: &[u16] = &[400, 404, 405, 410, 411, 413, 416, 501];

/// Sends a blob; see [`Client::upload_blob`].
pub(crate) fn upload(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    content: &dyn Content,
    resume: Option<&str>,
    watch: &dyn UploadWatch,
) -> Result<()> {
    let size_bytes = descriptor.size;
    let chunk_size_bytes = client.settings().chunk_size_bytes.unwrap_or(CHUNK_SIZE_BYTES).max(1);
    let mut upload = Upload {
        client,
        reference,
        descriptor,
        content,
        watch,
        chunk_size_bytes,
        is_whole: size_bytes <= WHOLE_SIZE_BYTES_MAX,
        beginnings: 0,
        breaks: 0,
        tries: Retries::new(client.patience()),
        reached: 0,
    };
    let resume = resume.and_then(|location| Url::parse(location).ok());
    let done = upload.run(resume);
    if done.is_ok() {
        watch.resumable(None);
    }
    done
}

/// An upload that the registry has open.
#[derive(Debug)]
struct Session {
    location: Url,
    /// Set unless another process began it.
    endpoint: Option<Endpoint>,
    /// Bytes that the registry has.
    offset: u64,
    /// Whether all its bytes went there in one go: then it is our bytes that are wrong, if the digest is.
    is_fresh: bool,
}

/// How sending went.
enum Step {
    /// The registry has the blob.
    Done,
    /// It has these bytes.
    At(Session),
    /// The upload is gone, or is of no use any more.
    Gone(RegistryError),
    /// The connection broke, or the registry is busy.
    Broke(Session, RegistryError),
}

struct Upload<'a> {
    client: &'a Client,
    reference: &'a Reference,
    descriptor: &'a Descriptor,
    content: &'a dyn Content,
    watch: &'a dyn UploadWatch,
    chunk_size_bytes: u64,
    /// Whether it goes in one piece.
    is_whole: bool,
    beginnings: u32,
    /// All of them, and those that brought nothing.
    breaks: u32,
    tries: Retries<'a>,
    /// The highest offset so far.
    reached: u64,
}

impl Upload<'_> {
    fn run(&mut self, resume: Option<Url>) -> Result<()> {
        let mut session = match resume {
            // One that was opened a moment ago; a small blob's is never kept for longer.
            Some(location) if self.is_whole => {
                Some(Session { location, endpoint: None, offset: 0, is_fresh: true })
            }
            Some(location) => {
                let begun = Session { location, endpoint: None, offset: 0, is_fresh: false };
                self.ask(begun).ok().flatten()
            }
            None => None,
        };
        loop {
            let at = match session.take() {
                Some(at) => at,
                None => self.begin()?,
            };
            let step =
                if self.is_whole { self.close(at, self.descriptor.size)? } else { self.send_chunk(at)? };
            session = match step {
                Step::Done => return Ok(()),
                Step::At(at) => {
                    if at.offset > self.reached {
                        self.reached = at.offset;
                        self.tries.reset();
                    }
                    Some(at)
                }
                Step::Gone(error) => {
                    self.gone(error)?;
                    None
                }
                Step::Broke(at, error) => {
                    self.breaks += 1;
                    let failure = Failure { remedy: Remedy::Wait, retry_after: retry_after(&error), error };
                    let pause = self
                        .tries
                        .after(&failure)
                        .filter(|_| self.breaks <= self.client.patience().resumes_max);
                    let Some(pause) = pause else { return Err(self.broken(failure.error)) };
                    thread::sleep(pause);
                    match self.mend(at, failure.error)? {
                        Step::Done => return Ok(()),
                        Step::At(at) => {
                            if at.offset > self.reached {
                                self.reached = at.offset;
                                self.tries.reset();
                            }
                            Some(at)
                        }
                        Step::Gone(error) | Step::Broke(_, error) => {
                            self.gone(error)?;
                            None
                        }
                    }
                }
            };
        }
    }

    /// After a break: how the upload stands.
    fn mend(&self, at: Session, error: RegistryError) -> Result<Step> {
        // The reply to the last request may be what was lost.
        let may_be_closed = self.is_whole || at.offset == self.descriptor.size;
        if may_be_closed && self.client.has_blob(self.reference, &self.descriptor.digest)? {
            return Ok(Step::Done);
        }
        if self.is_whole {
            return Ok(Step::Gone(error));
        }
        Ok(self.ask(at)?.map_or(Step::Gone(error), Step::At))
    }

    /// Makes ready for a new beginning, unless there were enough.
    fn gone(&self, error: RegistryError) -> Result<()> {
        self.watch.resumable(None);
        if self.beginnings >= BEGINNINGS_MAX { Err(self.broken(error)) } else { Ok(()) }
    }

    fn subject(&self) -> Subject {
        Subject::blob(self.reference, &self.descriptor.digest)
    }

    fn broken(&self, source: RegistryError) -> RegistryError {
        RegistryError::Broken {
            subject: self.subject(),
            host: self.reference.registry().to_owned(),
            position: self.reached,
            tries: self.breaks.max(self.beginnings),
            source: Box::new(source),
        }
    }

    /// Opens an upload.
    fn begin(&mut self) -> Result<Session> {
        self.beginnings += 1;
        let item = Item::Uploads { digest: None, mount: None, from: None };
        let mut request = to_push(Method::POST, self.reference, &item);
        request.subject = self.subject();
        request.headers.push((CONTENT_LENGTH, "0".to_owned()));
        let response = refuse_html(self.client.send(&request)?, "an upload")?;
        let least = response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        if let Some(least) = least {
            self.chunk_size_bytes = self.chunk_size_bytes.max(least);
        }
        let Some(location) = response.location() else {
            return Err(RegistryError::InvalidReply {
                subject: self.subject(),
                host: response.host(),
                problem: "it opened an upload and does not say where (`Location`)".to_owned(),
            });
        };
        if !self.is_whole {
            self.watch.resumable(Some(location.as_str()));
        }
        Ok(Session { location, endpoint: Some(response.endpoint), offset: 0, is_fresh: true })
    }

    fn request<'r>(&'r self, method: Method, at: &'r Session, url: &'r Url) -> Request<'r> {
        let to = match &at.endpoint {
            Some(endpoint) => At::Endpoint(endpoint),
            None => At::Reference(self.reference, Purpose::Push),
        };
        let mut request = Request::new(method, to, Target::Url(url), self.subject());
        request.access = Access::PullPush;
        request.accepted = ANSWERS;
        request
    }

    /// How far the upload is. `None` if the registry does not know it, or cannot say.
    fn ask(&self, mut at: Session) -> Result<Option<Session>> {
        let url = at.location.clone();
        let response = self.client.send(&self.request(Method::GET, &at, &url))?;
        if !(200..300).contains(&response.status) && response.status != 416 {
            return Ok(None);
        }
        let Some(range) = range_of(&response) else { return Ok(None) };
        at.offset = range;
        at.is_fresh = false;
        if at.offset > self.descriptor.size {
            return Ok(None);
        }
        self.moved(&mut at, &response);
        Ok(Some(at))
    }

    /// Goes on where the reply says, and lets others know.
    fn moved(&self, at: &mut Session, response: &Response) {
        if let Some(location) = response.location() {
            at.location = location;
        }
        self.watch.resumable(Some(at.location.as_str()));
        self.watch.sent(at.offset);
    }

    /// Sends the next chunk, or closes the upload behind the last one.
    fn send_chunk(&mut self, mut at: Session) -> Result<Step> {
        let size_bytes = self.descriptor.size;
        if at.offset >= size_bytes {
            return self.close(at, 0);
        }
        let chunk_size_bytes = self.chunk_size_bytes.min(size_bytes - at.offset);
        let end = at.offset + chunk_size_bytes;
        let body = Part { upload: self, offset: at.offset, size_bytes: chunk_size_bytes };
        let url = at.location.clone();
        let mut request = self.request(Method::PATCH, &at, &url);
        request.headers = octets();
        let range = UploadRange { first: at.offset, last: end - 1 };
        request.headers.push((CONTENT_RANGE, range.to_string()));
        request.body = Body::Stream(&body);
        request.tries = Tries::Once;
        let response = match self.client.send(&request) {
            Ok(response) => refuse_html(response, "an upload")?,
            Err(error) if passes(&error) => return Ok(Step::Broke(at, error)),
            Err(error) => return Err(error),
        };
        match response.status {
            200..300 => {
                let received = range_of(&response).unwrap_or(end);
                at.offset = end;
                self.moved(&mut at, &response);
                if received < end {
                    // It has thrown something away, or counts in its own way: it is asked which.
                    let location = at.location.clone();
                    let asked = self.ask(Session { location, endpoint: at.endpoint.clone(), ..at })?;
                    return Ok(match asked {
                        Some(asked) if asked.offset > range.first => Step::At(asked),
                        Some(asked) => Step::Broke(asked, self.refused(response)),
                        None => Step::At(at),
                    });
                }
                Ok(Step::At(at))
            }
            416 => {
                let before = at.offset;
                let error = self.refused(response);
                match self.ask(at)? {
                    Some(at) if at.offset != before => Ok(Step::At(at)),
                    _ => Ok(Step::Gone(error)),
                }
            }
            413 if self.chunk_size_bytes > CHUNK_SIZE_BYTES_LEAST => {
                self.chunk_size_bytes = (self.chunk_size_bytes / 4).max(CHUNK_SIZE_BYTES_LEAST);
                let error = self.refused(response);
                Ok(self.ask(at)?.map_or(Step::Gone(error), Step::At))
            }
            status if at.offset == 0 && NO_CHUNKS.contains(&status) => {
                self.is_whole = true;
                Ok(Step::Gone(self.refused(response)))
            }
            404 | 410 => Ok(Step::Gone(self.refused(response))),
            _ => Err(self.refused(response)),
        }
    }

    /// Closes the upload, with the last so many bytes of the blob.
    fn close(&self, at: Session, size_bytes: u64) -> Result<Step> {
        let digest = &self.descriptor.digest;
        let mut url = at.location.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let body = Part { upload: self, offset: self.descriptor.size - size_bytes, size_bytes };
        let mut request = self.request(Method::PUT, &at, &url);
        request.headers = octets();
        if size_bytes > 0 {
            request.body = Body::Stream(&body);
        } else {
            // Said, because some servers refuse a PUT that says nothing of its length.
            request.headers.push((CONTENT_LENGTH, "0".to_owned()));
        }
        request.tries = Tries::Once;
        let response = match self.client.send(&request) {
            Ok(response) => refuse_html(response, "an upload")?,
            Err(error) if passes(&error) => return Ok(Step::Broke(at, error)),
            Err(error) => return Err(error),
        };
        match response.status {
            200..300 => match other_digest(&response, digest) {
                None => Ok(Step::Done),
                Some(found) => Err(RegistryError::DigestMismatch {
                    subject: self.subject(),
                    host: response.host(),
                    expected: digest.clone(),
                    found,
                }),
            },
            // What was stitched together may be wrong though each piece was right, and a line may spoil bytes; once.
            400 if !at.is_fresh || self.beginnings <= 1 => Ok(Step::Gone(self.refused(response))),
            404 | 410 => Ok(Step::Gone(self.refused(response))),
            416 => {
                let error = self.refused(response);
                Ok(if self.is_whole {
                    Step::Gone(error)
                } else {
                    self.ask(at)?.map_or(Step::Gone(error), Step::At)
                })
            }
            _ => Err(self.refused(response)),
        }
    }

    /// The error that a status means.
    fn refused(&self, response: Response) -> RegistryError {
        let (status, host) = (response.status, response.host());
        let bytes = response.bytes(BODY_SIZE_BYTES_MAX as u64).unwrap_or_default();
        let refusal = Refusal { status, host, reply: ErrorReply::parse(&bytes) };
        refuse(self.subject(), refusal, false, None)
    }
}

fn octets() -> Vec<(HeaderName, String)> {
    vec![(CONTENT_TYPE, "application/octet-stream".to_owned())]
}

/// How many bytes the registry says it has.
fn range_of(response: &Response) -> Option<u64> {
    Some(UploadRange::parse(response.header("range")?)?.received_bytes())
}

/// Whether it may go better in a while.
fn passes(error: &RegistryError) -> bool {
    match error {
        RegistryError::Connection { .. }
        | RegistryError::TimedOut { .. }
        | RegistryError::Broken { .. }
        | RegistryError::TooManyRequests { .. } => true,
        RegistryError::Status { refusal, .. } => is_passing(refusal.status),
        _ => false,
    }
}

fn retry_after(error: &RegistryError) -> Option<Duration> {
    match error {
        RegistryError::TooManyRequests { retry_after_s, .. } => retry_after_s.map(Duration::from_secs),
        _ => None,
    }
}

/// A part of the blob as the body of a request.
struct Part<'a> {
    upload: &'a Upload<'a>,
    offset: u64,
    size_bytes: u64,
}

impl Stream for Part<'_> {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        if self.size_bytes == 0 {
            return Ok(Box::new(io::empty()));
        }
        Ok(Box::new(Exactly { reader: self.upload.content.open(self.offset)?, left: self.size_bytes }))
    }

    fn sent(&self, bytes: u64) {
        self.upload.watch.sent(self.offset + bytes);
    }
}

/// So many bytes, or an error: a body that ends early would leave the registry waiting.
struct Exactly {
    reader: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.reader.read(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}
