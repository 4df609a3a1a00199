//! A web server on loopback: pages that a test puts up, and git repositories through `git http-backend`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What stands at a path.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// 200 where it is 0.
    pub status: u16,
    /// Besides the length. An `ETag` makes the page answer 304 to whoever has it.
    pub headers: Vec<(String, String)>,
    /// What is sent.
    pub body: Vec<u8>,
    /// The connection breaks after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// What `Authorization` must be.
    pub login: Option<String>,
}

impl Page {
    /// A page of these bytes.
    pub fn of(body: impl Into<Vec<u8>>) -> Page {
        Page { body: body.into(), ..Page::default() }
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Page {
        Page { status: 302, ..Page::default() }.with("Location", to)
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Page {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct WebRequest {
    /// `GET`
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The status that was answered.
    pub status: u16,
}

#[derive(Default)]
struct State {
    pages: HashMap<String, Page>,
    git: Option<(PathBuf, Option<String>)>,
    is_old_git: bool,
    requests: Vec<WebRequest>,
    is_ended: bool,
}

/// A running web server. Ends with the value.
pub struct Web {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    listener: Option<JoinHandle<()>>,
}

impl Web {
    /// Starts a server without pages.
    pub fn start() -> Web {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&shared).is_ended {
                    return;
                }
                let shared = shared.clone();
                if let Ok(stream) = stream {
                    // A client that goes away is no failure of the server.
                    std::thread::spawn(move || drop(serve(stream, &shared)));
                }
            }
        });
        Web { address, state, listener: Some(thread) }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The URL of a path, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts up a page, or another one in its place.
    pub fn put(&self, path: &str, page: Page) {
        lock(&self.state).pages.insert(path.to_owned(), page);
    }

    /// Serves the bare repositories of a directory below `/git/`, to whoever shows this login if there is one.
    pub fn serve_git(&self, directory: &Path, login: Option<&str>) {
        lock(&self.state).git = Some((directory.to_owned(), login.map(str::to_owned)));
    }

    /// Git is spoken as before 2018: only what is announced is given.
    pub fn speak_old_git(&self) {
        lock(&self.state).is_old_git = true;
    }

    /// The requests since this was asked last.
    pub fn take_requests(&self) -> Vec<WebRequest> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        lock(&self.state).is_ended = true;
        // Wakes the listener.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(2));
        if let Some(thread) = self.listener.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    // One exchange a connection is enough for tests.
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let body = read_body(&mut reader, &headers)?;
    let plain = path.split('?').next().unwrap_or_default().to_owned();
    let (page, git) = {
        let state = lock(state);
        if state.is_old_git {
            headers.remove("git-protocol");
        }
        (state.pages.get(&plain).cloned(), state.git.clone())
    };
    let mut request = WebRequest { method, path, headers, status: 0 };
    let answer = match (page, git) {
        (Some(page), _) => answer_of(&page, &request),
        (None, Some((directory, login))) if plain.starts_with("/git/") => {
            match login.is_some() && request.headers.get("authorization") != login.as_ref() {
                true => {
                    Page { status: 401, ..Page::default() }.with("WWW-Authenticate", "Basic realm=\"git\"")
                }
                false => git_backend(&directory, &request, &body)?,
            }
        }
        (None, _) => Page { status: 404, ..Page::of("not here") },
    };
    request.status = if answer.status == 0 { 200 } else { answer.status };
    let status = request.status;
    lock(state).requests.push(request);
    write!(
        writer,
        "HTTP/1.1 {status} Whatever\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.body.len()
    )?;
    for (name, value) in &answer.headers {
        write!(writer, "{name}: {value}\r\n")?;
    }
    write!(writer, "\r\n")?;
    let end = answer.cut_after.unwrap_or(answer.body.len()).min(answer.body.len());
    writer.write_all(&answer.body[..end])?;
    writer.flush()
}

fn answer_of(page: &Page, request: &WebRequest) -> Page {
    if page.login.is_some() && request.headers.get("authorization") != page.login.as_ref() {
        return Page { status: 401, ..Page::default() };
    }
    let etag = page.headers.iter().find(|(name, _)| name == "ETag").map(|(_, value)| value);
    match etag.is_some() && request.headers.get("if-none-match") == etag {
        true => Page { status: 304, body: Vec::new(), ..page.clone() },
        false => page.clone(),
    }
}

fn read_body(reader: &mut impl BufRead, headers: &HashMap<String, String>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            reader.by_ref().take(size).read_to_end(&mut body)?;
            let mut end = String::new();
            reader.read_line(&mut end)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut body)?;
    Ok(body)
}

/// Asks `git http-backend` (RFC 3875) and takes its answer apart.
fn git_backend(directory: &Path, request: &WebRequest, body: &[u8]) -> std::io::Result<Page> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", directory)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", path.trim_start_matches("/git"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().expect("its input").write_all(body)?;
    let output = child.wait_with_output()?.stdout;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(output.len());
    let mut page = Page::of(output.get(end + 4..).unwrap_or_default());
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => page.status = status[..3].parse().unwrap_or(500),
            Some((name, value)) => page.headers.push((name.to_owned(), value.to_owned())),
            None => {}
        }
    }
    Ok(page)
}
