//! One GET, as small as it can be: whether a server answers, and that it has answered to the end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a connection to this very machine may take.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// How often a read looks whether it should go on.
const READ_TIME: Duration = Duration::from_millis(200);
/// How long a page may come on; what streams for ever has answered.
const BODY_TIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 64 << 20;

/// Asks until the answer has a status below 400; the answer is that status, or what came of the last try.
pub(crate) fn ask_until(
    ipv4: Option<Ipv4Addr>,
    port: u16,
    path: &str,
    deadline: Instant,
    stop: &AtomicBool,
) -> Result<u16, String> {
    // Most servers listen everywhere, some on loopback only, some on one address.
    let mut addresses: Vec<SocketAddr> =
        vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    addresses.extend(ipv4.map(|ipv4| SocketAddr::from((ipv4, port))));
    // What is most telling of what came of the tries: a late one that is cut short hides no answer, and an address that
    // nobody listens on hides nothing.
    let mut told: Option<String> = None;
    loop {
        for address in &addresses {
            match ask(*address, path, deadline, stop) {
                Ok(status) if status < 400 => return Ok(status),
                Ok(status) => told = Some(format!("status {status}")),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == ErrorKind::TimedOut && is_over(deadline, stop) => {
                    told = told.or_else(|| Some("it takes connections and does not answer".to_owned()));
                }
                Err(error) => told = Some(error.to_string()),
            }
        }
        if is_over(deadline, stop) {
            return Err(told.unwrap_or_else(|| "nobody listens".to_owned()));
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_over(deadline: Instant, stop: &AtomicBool) -> bool {
    Instant::now() >= deadline || stop.load(Ordering::Relaxed)
}

fn ask(address: SocketAddr, path: &str, deadline: Instant, stop: &AtomicBool) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIME)?;
    stream.set_write_timeout(Some(CONNECT_TIME))?;
    stream.set_read_timeout(Some(READ_TIME))?;
    let port = address.port();
    // In one piece: some servers read once.
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\nUser-Agent: mica\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut head: Option<(u16, Instant)> = None;
    let mut read_bytes: usize = 0;
    loop {
        if head.is_none() && is_over(deadline, stop) {
            return Err(ErrorKind::TimedOut.into());
        }
        if let Some((status, since)) = head
            && (since.elapsed() >= BODY_TIME || read_bytes > BODY_BYTES_MAX)
        {
            return Ok(status);
        }
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Some servers reset what they have answered.
            Err(error) => return head.map(|(status, _)| status).ok_or(error),
        };
        read_bytes += count;
        if head.is_none() {
            answer.extend_from_slice(&buffer[..count]);
            let is_whole = answer.windows(4).any(|window| window == b"\r\n\r\n") || count == 0;
            if is_whole {
                let status = status_of(&answer).ok_or_else(|| not_http(&answer))?;
                head = Some((status, Instant::now()));
            } else if answer.len() > HEAD_BYTES_MAX {
                return Err(not_http(&answer));
            }
        }
        if let (0, Some((status, _))) = (count, head) {
            return Ok(status);
        }
    }
}

fn not_http(answer: &[u8]) -> std::io::Error {
    let start: String = String::from_utf8_lossy(answer).chars().take(40).collect();
    std::io::Error::other(match start.as_str() {
        "" => "an empty answer".to_owned(),
        start => format!("not an HTTP answer: {start:?}"),
    })
}

/// `HTTP/1.1 200 OK`
fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| word.starts_with("HTTP/"))?;
    words.next().filter(|word| word.len() == 3)?.parse().ok().filter(|status| *status >= 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn statuses_are_read() {
        let check = |answer: &[u8], expect| assert_eq!(status_of(answer), expect, "{answer:?}");
        check(b"HTTP/1.1 200 OK\r\n\r\n", Some(200));
        check(b"HTTP/1.0 404\r\n", Some(404));
        check(b"HTTP/1.0 +20\r\n", None);
        check(b"HTTP/1.0 099 x", None);
        check(b"ICY 200 OK", None);
        check(b"HTTP/1.1", None);
        check(b"\xff\xff 200", None);
        check(b"", None);
    }

    #[test]
    fn servers_are_asked() {
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            (listener, port)
        };
        let ask = |port, seconds| {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            ask_until(None, port, "/a?b", deadline, &AtomicBool::new(false))
        };
        let check = |answers: &'static [&'static str], expect: u16| {
            let (listener, port) = listen();
            let server = std::thread::spawn(move || {
                let mut asked = Vec::new();
                for answer in answers {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = [0; 1024];
                    let count = stream.read(&mut request).unwrap();
                    asked.push(String::from_utf8_lossy(&request[..count]).into_owned());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
                asked
            });
            assert_eq!(ask(port, 60), Ok(expect), "{answers:?}");
            let asked = server.join().unwrap();
            assert!(asked.iter().all(|request| request.starts_with("GET /a?b HTTP/1.0\r\n")), "{asked:?}");
        };
        check(&["HTTP/1.1 200 OK\r\n\r\nhello"], 200);
        check(&["HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"], 302);
        check(&["HTTP/1.1 503 Not yet\r\n\r\n", "", "no", "HTTP/1.1 200 OK\r\n\r\n"], 200);
        let (listener, port) = listen();
        // The kernel takes the connection, and nobody reads.
        assert_eq!(ask(port, 1), Err("it takes connections and does not answer".to_owned()));
        drop(listener);
        assert_eq!(ask(port, 1), Err("nobody listens".to_owned()));
    }
}
