//! A bucket on loopback: moto, which speaks as Amazon's S3 does.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::bases::build_dir;
use crate::needs::find_tool;
use crate::registry_http::RegistryHttp;

/// Where `cargo xtask test` installs it.
pub fn moto_dir() -> PathBuf {
    build_dir().join("moto")
}

/// The server's program.
fn program() -> Option<PathBuf> {
    let ours = moto_dir().join("bin/moto_server");
    if ours.is_file() { Some(ours) } else { find_tool("moto_server") }
}

/// A server with buckets in memory; it ends with this value.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    port: u16,
}

impl S3Server {
    /// Starts one with an empty bucket of that name. An error is a reason to skip.
    pub fn start(bucket: &str) -> Result<S3Server, String> {
        let program = program().ok_or("`moto_server` is not installed (`cargo xtask test` does that)")?;
        // The shell outlives nobody: it kills the server when this process lets go of its input, however that comes.
        let script = "exec 3<&0; \"$0\" -H 127.0.0.1 -p 0 </dev/null 3<&- 2>&1 & pid=$!; cat <&3 >/dev/null; kill -9 $pid; wait $pid";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("moto does not start: {error}"))?;
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        let port = loop {
            line.clear();
            if output.read_line(&mut line).unwrap_or(0) == 0 {
                return Err("moto does not start".to_owned());
            }
            let port = line.trim().rsplit_once("http://127.0.0.1:").and_then(|(_, port)| port.parse().ok());
            if let Some(port) = port {
                break port;
            }
        };
        // It writes a line for every request, and must not wait for somebody to read it.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let server = S3Server { child, port };
        let made = server
            .http()
            .request("PUT", &format!("/{bucket}"), &[], b"")
            .map_err(|error| format!("moto does not answer: {error}"))?;
        if made.status != 200 {
            return Err(format!("moto makes no bucket: {}", made.text()));
        }
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Speaks to it beside mica.
    pub fn http(&self) -> RegistryHttp {
        RegistryHttp::new(self.port)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
