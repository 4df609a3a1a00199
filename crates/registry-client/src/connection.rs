//! Connections: one message at a time with its waits bounded, and what a failed one means.

use std::cell::Cell;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mica_http::{Clients, host_of};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::endpoint::Tls;
use crate::error::RegistryError;
use crate::refusal::Subject;
use crate::retry::{Failure, Patience, Remedy};
use crate::transport::{Body, Stream};

/// Bytes of a body that are read at once and handed over. Two of them may wait.
const CHUNK_SIZE_BYTES: usize = 128 << 10;

/// Connections, made when they are needed.
pub(crate) struct Connections {
    patience: Patience,
    clients: Clients,
}

/// One message to a host.
pub(crate) struct Message<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Body<'a>,
    /// How TLS is spoken with the host.
    pub tls: &'a Tls,
    /// In errors.
    pub subject: &'a Subject,
}

impl Connections {
    pub(crate) fn new(patience: Patience) -> Connections {
        Connections { clients: Clients::new(patience.connect), patience }
    }

    /// Sends a message and waits for the head of the reply.
    pub(crate) async fn send(&self, message: Message<'_>) -> std::result::Result<reqwest::Response, Failure> {
        let Message { method, url, headers, body, tls, subject } = message;
        let pool = self.clients.get(&url, tls).map_err(RegistryError::from)?;
        let builder = pool.request(method, url.clone()).headers(headers);
        let doing = Doing { subject, url: &url, patience: &self.patience };
        match body {
            Body::None => doing.answer(builder.send(), self.patience.idle).await,
            Body::Bytes(bytes) => {
                doing.answer(builder.body(bytes.clone()).send(), self.patience.answer).await
            }
            Body::Stream(stream) => doing.stream(builder, stream).await,
        }
    }

    /// The next piece of a reply's body; `None` at its end.
    pub(crate) async fn chunk(
        &self,
        response: &mut reqwest::Response,
        subject: &Subject,
    ) -> std::result::Result<Option<Bytes>, Failure> {
        let received = timeout(self.patience.idle, response.chunk()).await;
        match received {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => {
                let url = response.url().clone();
                Err(Doing { subject, url: &url, patience: &self.patience }.failed(error, "reading from"))
            }
            Err(_) => Err(Failure::new(
                RegistryError::TimedOut {
                    subject: subject.clone(),
                    host: host_of(response.url()),
                    action: "reading from",
                    seconds: self.patience.idle.as_secs(),
                },
                Remedy::Wait,
            )),
        }
    }

    /// The whole body of a reply, or `None` if it is larger than it may be.
    pub(crate) async fn whole(
        &self,
        response: &mut reqwest::Response,
        size_bytes_max: u64,
        subject: &Subject,
    ) -> std::result::Result<Option<Bytes>, Failure> {
        if response.content_length().is_some_and(|length| length > size_bytes_max) {
            return Ok(None);
        }
        let url = response.url().clone();
        let mut bytes = Vec::new();
        let reading = async {
            while let Some(chunk) = self.chunk(response, subject).await? {
                if (bytes.len() + chunk.len()) as u64 > size_bytes_max {
                    return Ok(None);
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Some(bytes.into()))
        };
        // A byte now and then must not keep us for ever.
        let doing = Doing { subject, url: &url, patience: &self.patience };
        let limit = self.patience.answer;
        timeout(limit, reading).await.unwrap_or_else(|_| Err(doing.timed_out("reading from", limit)))
    }

    /// The beginning of a body, for an error: whatever comes, and no failure of its own.
    pub(crate) async fn beginning(
        &self,
        response: &mut reqwest::Response,
        size_bytes_max: usize,
        subject: &Subject,
    ) -> Bytes {
        let mut bytes = Vec::new();
        let reading = async {
            while bytes.len() < size_bytes_max
                && let Ok(Some(chunk)) = self.chunk(response, subject).await
            {
                bytes.extend_from_slice(&chunk[..chunk.len().min(size_bytes_max - bytes.len())]);
            }
        };
        // What has come by then has to do.
        let _ = timeout(self.patience.idle, reading).await;
        bytes.into()
    }
}

/// What is being done, for errors.
pub(crate) struct Doing<'a> {
    pub subject: &'a Subject,
    pub url: &'a Url,
    pub patience: &'a Patience,
}

impl Doing<'_> {
    async fn answer(
        &self,
        sending: impl Future<Output = reqwest::Result<reqwest::Response>>,
        limit: Duration,
    ) -> std::result::Result<reqwest::Response, Failure> {
        // Connecting has its own bound, and comes before the wait for the answer.
        match timeout(limit + self.patience.connect, sending).await {
            Ok(result) => result.map_err(|error| self.failed(error, "request to")),
            Err(_) => Err(self.timed_out("request to", limit + self.patience.connect)),
        }
    }

    /// Sends a body as it is read, in the calling thread: reading may block it, the connection is driven by others.
    async fn stream(
        &self,
        builder: reqwest::RequestBuilder,
        stream: &dyn Stream,
    ) -> std::result::Result<reqwest::Response, Failure> {
        let content =
            |source| Failure::from(RegistryError::Content { subject: self.subject.clone(), source });
        let size_bytes = stream.size_bytes();
        let (sender, receiver) = mpsc::channel(2);
        let body = reqwest::Body::wrap(Feed { receiver, left: size_bytes });
        let progress = Cell::new(Instant::now());
        let feeding = async {
            let mut reader = stream.open()?;
            let mut sent = 0;
            while sent < size_bytes {
                let chunk = read_chunk(&mut reader, size_bytes - sent)?;
                let length = chunk.len() as u64;
                // Nobody takes it any more: the answer has come early.
                if sender.send(chunk).await.is_err() {
                    break;
                }
                sent += length;
                stream.sent(sent);
                progress.set(Instant::now());
            }
            Ok::<(), io::Error>(())
        };
        let mut feeding = pin!(feeding);
        let mut answer = pin!(builder.body(body).send());
        let mut is_fed = false;
        loop {
            let limit =
                if is_fed { self.patience.answer } else { self.patience.idle + self.patience.connect };
            let deadline = progress.get() + limit;
            tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(|error| self.failed(error, "sending to")),
                fed = &mut feeding, if !is_fed => {
                    fed.map_err(content)?;
                    is_fed = true;
                    progress.set(Instant::now());
                }
                () = sleep_until(deadline) => {
                    if progress.get() + limit <= Instant::now() {
                        return Err(self.timed_out("sending to", limit));
                    }
                }
            }
        }
    }

    fn timed_out(&self, action: &'static str, limit: Duration) -> Failure {
        let error = RegistryError::TimedOut {
            subject: self.subject.clone(),
            host: host_of(self.url),
            action,
            seconds: limit.as_secs(),
        };
        Failure::new(error, Remedy::Wait)
    }
}

/// Reads one piece, full but for the last.
fn read_chunk(reader: &mut dyn Read, left: u64) -> io::Result<Bytes> {
    let size = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_SIZE_BYTES);
    let mut chunk = vec![0; size];
    let mut length = 0;
    while length < size {
        match reader.read(&mut chunk[length..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(chunk.into())
}

/// A body of known size that comes out of a channel.
struct Feed {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
}

impl http_body::Body for Feed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(context).map(|chunk| match chunk {
            Some(chunk) => {
                self.left = self.left.saturating_sub(chunk.len() as u64);
                Some(Ok(Frame::data(chunk)))
            }
            // The reader failed: the request must not look whole.
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
