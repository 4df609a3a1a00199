//! Speaks to a registry with as little code as can be: one connection a request, everything in memory.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::sha256;

/// No reply of a registry takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry on a port of this machine, and how tests reach it beside mica.
#[derive(Debug, Clone)]
pub struct RegistryHttp {
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    login: Option<(String, String)>,
}

/// What a registry answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpReply {
    /// Such as 200.
    pub status: u16,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl HttpReply {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl RegistryHttp {
    /// One on 127.0.0.1, plain.
    pub fn new(port: u16) -> RegistryHttp {
        RegistryHttp { port, tls: None, login: None }
    }

    /// The same over TLS.
    pub fn with_tls(self, tls: Arc<ClientConfig>) -> RegistryHttp {
        RegistryHttp { tls: Some(tls), ..self }
    }

    /// The same with user and password in every request (Basic).
    pub fn with_login(self, user: &str, password: &str) -> RegistryHttp {
        RegistryHttp { login: Some((user.into(), password.into())), ..self }
    }

    /// One request. `path` begins with `/`; `headers` as they are sent.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<HttpReply> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", self.port);
        head.push_str("Connection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some((user, password)) = &self.login {
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            head.push_str(&format!("Authorization: Basic {text}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        match &self.tls {
            None => exchange(stream, method, head.as_bytes(), body),
            Some(config) => {
                let name = ServerName::try_from("127.0.0.1").expect("an address");
                let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                exchange(StreamOwned::new(session, stream), method, head.as_bytes(), body)
            }
        }
    }

    /// A GET, or a panic where there is no reply.
    #[track_caller]
    pub fn get(&self, path: &str) -> HttpReply {
        self.request("GET", path, &[], b"").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// A manifest or index by tag or digest, whatever its media type; its status may be 404.
    #[track_caller]
    pub fn manifest(&self, repository: &str, reference: &str) -> HttpReply {
        const TYPES: &str = "application/vnd.oci.image.index.v1+json,application/vnd.oci.image.manifest.v1+json,\
             application/vnd.docker.distribution.manifest.list.v2+json,\
             application/vnd.docker.distribution.manifest.v2+json";
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.request("GET", &path, &[("Accept", TYPES)], b"")
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Puts a blob. Answers its digest.
    #[track_caller]
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", sha256(bytes));
        let begun = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        let begun = begun.unwrap_or_else(|error| panic!("an upload to `{repository}`: {error}"));
        assert_eq!(begun.status, 202, "an upload to `{repository}`: {}", begun.text());
        let location = begun.header("location").expect("the location of an upload");
        let path = match location.split_once("://") {
            Some((_, rest)) => &rest[rest.find('/').expect("a path")..],
            None => location,
        };
        let mark = if path.contains('?') { '&' } else { '?' };
        let headers = [("Content-Type", "application/octet-stream")];
        let done = self.request("PUT", &format!("{path}{mark}digest={digest}"), &headers, bytes);
        let done = done.unwrap_or_else(|error| panic!("an upload to `{repository}`: {error}"));
        assert_eq!(done.status, 201, "the blob {digest} for `{repository}`: {}", done.text());
        digest
    }

    /// Puts a manifest or index under a tag or its digest. Answers its digest.
    #[track_caller]
    pub fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> String {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let reply = self.request("PUT", &path, &[("Content-Type", media_type)], bytes);
        let reply = reply.unwrap_or_else(|error| panic!("PUT {path}: {error}"));
        assert_eq!(reply.status, 201, "PUT {path}: {}", reply.text());
        format!("sha256:{}", sha256(bytes))
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, head: &[u8], body: &[u8]) -> io::Result<HttpReply> {
    stream.write_all(head)?;
    // A server may answer and close before it has read all: its reply counts then.
    let sent = stream.write_all(body).and_then(|()| stream.flush());
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // rustls reports a TLS stream that ends without a farewell.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof && bytes.is_empty() => {
            return Err(sent.err().unwrap_or(error));
        }
        _ => {}
    }
    parse(&bytes, method == "HEAD").ok_or_else(|| {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("not a whole HTTP reply: {start:?}"))
    })
}

/// A whole reply, or `None`.
fn parse(bytes: &[u8], is_head: bool) -> Option<HttpReply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    if status == 100 {
        return parse(body, is_head);
    }
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut reply = HttpReply { status, headers, body: Vec::new() };
    if is_head || status == 204 || status == 304 {
        return Some(reply);
    }
    reply.body = if reply.header("transfer-encoding") == Some("chunked") {
        unchunk(body)?
    } else if let Some(length) = reply.header("content-length") {
        body.get(..length.parse().ok()?)?.to_vec()
    } else {
        body.to_vec()
    };
    Some(reply)
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 2 + size + 2..)?;
    }
}
