//! HTTP/1.1 over one connection: heads and bodies in, replies out, as wrong as they are meant to be.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::{Fault, Shared};

/// A head of a request may be so long.
const HEAD_SIZE_BYTES_MAX: usize = 256 << 10;
/// An idle connection is closed after this, so that no thread stays for ever.
const IDLE_MAX: Duration = Duration::from_secs(120);

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// The start of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn length(&self) -> u64 {
        self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|text| text.eq_ignore_ascii_case("chunked"))
    }
}

/// A reply before faults change it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Arc<[u8]>,
    /// The part of the body that is sent, where a range was asked for.
    pub range: Option<(usize, usize)>,
}

impl Reply {
    pub fn status(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Reply {
        let reply = Reply { status, body: value.to_string().into_bytes().into(), ..Reply::default() };
        reply.with("Content-Type", "application/json".into())
    }

    pub fn error(status: u16, code: &str, message: &str) -> Reply {
        let error = serde_json::json!({ "code": code, "message": message, "detail": null });
        Reply::json(status, &serde_json::json!({ "errors": [error] }))
    }

    pub fn with(mut self, name: &str, value: String) -> Reply {
        self.set(name, Some(value));
        self
    }

    fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }
}

/// How the sending of a reply goes.
struct Sending<'a> {
    /// Is told how many bytes of the body go, before they go: the client may ask for the log as soon as it has them.
    note: &'a dyn Fn(u64),
    /// The connection cannot be used again.
    is_over: bool,
}

pub(super) struct Connection<'a> {
    shared: &'a Shared,
    stream: Box<dyn Stream>,
    raw: TcpStream,
    buffer: Vec<u8>,
    /// After each piece that is read.
    pub pause: Option<Duration>,
}

impl<'a> Connection<'a> {
    pub fn new(shared: &'a Shared, raw: TcpStream) -> io::Result<Connection<'a>> {
        raw.set_nodelay(true)?;
        raw.set_read_timeout(Some(IDLE_MAX))?;
        raw.set_write_timeout(Some(IDLE_MAX))?;
        let stream: Box<dyn Stream> = match &shared.tls {
            None => Box::new(raw.try_clone()?),
            Some(config) => {
                let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, raw.try_clone()?))
            }
        };
        Ok(Connection { shared, stream, raw, buffer: Vec::new(), pause: None })
    }

    /// The next request; `None` if the client has gone.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.buffer.len() > HEAD_SIZE_BYTES_MAX {
                return Err(io::Error::other("a head without end"));
            }
            // A client that tries TLS first must learn at once that this is not it.
            if self.buffer.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
                self.stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
                self.close();
                return Ok(None);
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let head = Head { method: method.into(), path: path.into(), headers: headers.collect() };
        if head.header("expect").is_some_and(|text| text.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            self.stream.flush()?;
        }
        Ok(Some(head))
    }

    /// Reads the body, or its first `limit` bytes, piece by piece. False if the client went away before its end.
    pub fn read_body(&mut self, head: &Head, limit: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        if !head.is_chunked() {
            return self.read_exactly(head.length().min(limit), sink);
        }
        let mut left = limit;
        loop {
            let Some(line) = self.read_line()? else { return Ok(false) };
            let size = line.split(';').next().unwrap_or_default().trim().to_owned();
            let size = u64::from_str_radix(&size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while self.read_line()?.is_some_and(|line| !line.is_empty()) {}
                return Ok(true);
            }
            if !self.read_exactly(size.min(left), sink)? {
                return Ok(false);
            }
            if size >= left {
                return Ok(true);
            }
            left -= size;
            self.read_line()?;
        }
    }

    /// Sends a reply, as the faults want it. False if the connection cannot be used again.
    pub fn send(&mut self, is_head: bool, reply: Reply, faults: &[Fault], note: &dyn Fn(u64)) -> bool {
        let mut sending = Sending { note, is_over: false };
        // A client that went away is not this registry's problem.
        let is_sent = self.try_send(is_head, reply, faults, &mut sending).is_ok();
        is_sent && !sending.is_over
    }

    /// Closes the connection at once.
    pub fn close(&mut self) {
        let _ = self.stream.flush();
        let _ = self.raw.shutdown(Shutdown::Both);
    }

    fn try_send(
        &mut self,
        is_head: bool,
        mut reply: Reply,
        faults: &[Fault],
        sending: &mut Sending<'_>,
    ) -> io::Result<()> {
        let range = reply.range.unwrap_or((0, reply.body.len()));
        let whole = reply.body.clone();
        let mut body = std::borrow::Cow::Borrowed(&whole[range.0..range.1]);
        let (mut trail, mut cut, mut stall, mut slow) = (0, None, None, None);
        let (mut has_length, mut is_chunked, mut is_endless, mut has_endless_headers) =
            (true, false, false, false);
        for fault in faults {
            match fault {
                Fault::Header(name, value) => reply.set(name, value.clone()),
                Fault::EndlessHeaders => has_endless_headers = true,
                Fault::Body(other) => body = other.clone().into(),
                Fault::Cut(after) => cut = Some(*after),
                Fault::Stall(after) => stall = Some(*after),
                Fault::Slow(bytes, pause) => slow = Some(((*bytes).max(1), *pause)),
                Fault::Flip(place) => {
                    if let Some(byte) = body.to_mut().get_mut(*place as usize) {
                        *byte ^= 0x55;
                    }
                }
                Fault::StartOver(after) => {
                    let after = (*after as usize).min(body.len());
                    let again: Vec<u8> = body[..after].iter().chain(body.iter()).copied().collect();
                    body = again[..body.len()].to_vec().into();
                }
                Fault::Truncate(after) => body.to_mut().truncate(*after as usize),
                Fault::Append(more) => {
                    let length = body.len() + *more as usize;
                    body.to_mut().resize(length, b'+');
                }
                Fault::Trail(more) => trail = *more as usize,
                Fault::NoLength => has_length = false,
                Fault::Chunked => is_chunked = true,
                Fault::Endless => is_endless = true,
                _ => {}
            }
        }
        let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let says_length = reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if is_chunked && !is_head {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if has_length && !is_endless && !says_length && reply.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        } else if !says_length && reply.status != 204 {
            head.push_str("Connection: close\r\n");
            sending.is_over = true;
        }
        if has_endless_headers {
            self.stream.write_all(head.as_bytes())?;
            for number in 0u64.. {
                if self.shared.is_stopping() {
                    break;
                }
                self.stream.write_all(format!("X-Filler-{number}: {}\r\n", "f".repeat(200)).as_bytes())?;
            }
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes())?;
        if is_head {
            return self.stream.flush();
        }
        if trail > 0 {
            let length = body.len() + trail;
            body.to_mut().resize(length, b'+');
        }
        let end =
            [cut, stall].into_iter().flatten().min().map_or(body.len(), |end| body.len().min(end as usize));
        let piece_size = slow.map_or(64 << 10, |(bytes, _)| bytes);
        for piece in body[..end].chunks(piece_size) {
            (sending.note)(piece.len() as u64);
            if is_chunked {
                self.stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            }
            self.stream.write_all(piece)?;
            if is_chunked {
                self.stream.write_all(b"\r\n")?;
            }
            if let Some((_, pause)) = slow {
                self.stream.flush()?;
                std::thread::sleep(pause);
            }
            if self.shared.is_stopping() {
                sending.is_over = true;
                return Ok(());
            }
        }
        if is_endless {
            let filler = [0; 64 << 10];
            while !self.shared.is_stopping() {
                (sending.note)(filler.len() as u64);
                self.stream.write_all(&filler)?;
            }
        }
        self.stream.flush()?;
        if stall.is_some() {
            self.wait_for_the_end();
            sending.is_over = true;
        } else if cut.is_some_and(|cut| cut < body.len() as u64) || trail > 0 {
            sending.is_over = true;
        } else if is_chunked {
            self.stream.write_all(b"0\r\n\r\n")?;
            self.stream.flush()?;
        }
        Ok(())
    }

    /// Until the client goes away, or the registry.
    fn wait_for_the_end(&mut self) {
        let _ = self.raw.set_read_timeout(Some(Duration::from_millis(20)));
        let mut waste = [0; 1024];
        while !self.shared.is_stopping() {
            match self.raw.read(&mut waste) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(_) => return,
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 << 10];
        let count = match self.stream.read(&mut piece) {
            // A TLS stream that ends without a farewell, or a client that was killed.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                0
            }
            other => other?,
        };
        self.buffer.extend_from_slice(&piece[..count]);
        if let Some(pause) = self.pause {
            std::thread::sleep(pause);
        }
        Ok(count)
    }

    fn read_exactly(&mut self, count: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let mut left = count as usize;
        while left > 0 {
            if self.buffer.is_empty() && self.fill()? == 0 {
                return Ok(false);
            }
            let taken = left.min(self.buffer.len());
            sink(&self.buffer[..taken]);
            self.buffer.drain(..taken);
            left -= taken;
        }
        Ok(true)
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(Some(line));
            }
            if self.buffer.len() > HEAD_SIZE_BYTES_MAX || self.fill()? == 0 {
                return Ok(None);
            }
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Some Status",
    }
}
