//! One GET over loopback, as small as it can be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The whole answer (head and body) of `GET /` from a port of this machine, tried until `patience` is over.
///
/// A server in a container needs a moment to listen, and a published port may accept before the server does, so an empty
/// answer is tried again as well.
pub fn get(port: u16, patience: Duration) -> Result<String, String> {
    let deadline = Instant::now() + patience;
    loop {
        let problem = match get_once(port) {
            Ok(answer) if answer.starts_with("HTTP/") => return Ok(answer),
            Ok(answer) => format!("not an HTTP answer: {answer:?}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(problem);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn get_once(port: u16) -> std::io::Result<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A TCP port that nothing listens on at this moment.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("the address of a listener").port()
}
