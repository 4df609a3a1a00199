//! The registry that most people run, Debian's `docker-registry`, on a loopback port of its own choice.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::needs::find_tool;
use crate::{Certificates, HttpReply, Mica, Need, RegistryHttp};

/// What a test that uses it needs.
pub const NEEDS_DOCKER_REGISTRY: Need = Need::Tool("docker-registry");

/// The user that it knows where it wants a login.
pub const USER: &str = "tester";
/// That user's password.
pub const PASSWORD: &str = "swordfish";
/// bcrypt of the password, of the least cost: `perl -e 'print crypt("swordfish", "\$2y\$04\$...")'`.
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuupWDwJQeCHYIBQy8WvkVB6ImhZ476YYy\n";

/// Begins the path of requests of this value itself, which the registry answers as it answers `/v2/`.
const OWN: &str = "/v2/?testkit=";

/// How long it may take to listen, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it is run. The default is plain HTTP without login and without deletion.
#[derive(Debug, Clone, Copy, Default)]
pub struct DockerRegistryOptions<'a> {
    /// It wants [`USER`] and [`PASSWORD`] (Basic).
    pub login: bool,
    /// It speaks TLS alone, with these.
    pub tls: Option<&'a Certificates>,
    /// It insists on a client's certificate.
    pub client_certificate: bool,
    /// Manifests and blobs can be deleted.
    pub delete: bool,
}

/// A running registry with storage of its own. It ends with the value, and with this process if that is killed.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    http: RegistryHttp,
    port: u16,
    asked: AtomicUsize,
    dir: TempDir,
}

/// One line of its access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Such as `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Such as 200.
    pub status: u16,
    /// Bytes of the reply's body.
    pub sent_bytes: u64,
}

impl DockerRegistry {
    /// Plain, without login.
    pub fn new() -> DockerRegistry {
        DockerRegistry::start(DockerRegistryOptions::default())
    }

    /// Starts one and waits until it answers.
    #[track_caller]
    pub fn start(options: DockerRegistryOptions<'_>) -> DockerRegistry {
        let dir = Mica::temporary_dir();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("config.yml"), config(&dir, options)).expect("the registry's settings");
        fs::write(path("htpasswd"), HTPASSWD).expect("the registry's users");
        let program = find_tool("docker-registry").expect("`docker-registry` (ask `missing` first)");
        // The shell outlives nobody: it kills the registry when this process lets go of its input, however that comes.
        let script = "exec 3<&0; \"$0\" serve \"$1\" </dev/null 3<&- & pid=$!; cat <&3 >/dev/null; kill -9 $pid; wait $pid";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .arg(path("config.yml"))
            .stdin(Stdio::piped())
            .stdout(File::create(path("access.log")).expect("a log"))
            .stderr(File::create(path("log")).expect("a log"))
            .env_remove("REGISTRY_HTTP_ADDR")
            .spawn()
            .expect("starting docker-registry");
        let mut registry =
            DockerRegistry { child, http: RegistryHttp::new(0), port: 0, asked: AtomicUsize::new(0), dir };
        registry.wait_until_ready(options);
        registry
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`, as the registry of a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Speaks to it beside mica, with login and certificates where it wants them.
    pub fn http(&self) -> &RegistryHttp {
        &self.http
    }

    /// What it wrote about what it did.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its requests so far, but those of this value itself.
    ///
    /// A request's line is written after its reply. So this makes a request of its own and waits for that one's line.
    pub fn requests(&self) -> Vec<Access> {
        let mark = format!("{OWN}{}", self.asked.fetch_add(1, Ordering::Relaxed));
        self.http.get(&mark);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
            let mut requests: Vec<Access> = text.lines().filter_map(parse_access).collect();
            if requests.iter().any(|access| access.path == mark) {
                requests.retain(|access| !access.path.starts_with(OWN));
                return requests;
            }
            assert!(Instant::now() < deadline, "docker-registry does not write its access log: {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many requests there were of a method whose path contains `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|access| access.method == method && access.path.contains(part)).count()
    }

    /// A blob's file in its storage: to look at, or to damage.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = "storage/docker/registry/v2/blobs/sha256";
        self.dir.path().join(blobs).join(&hex[..2]).join(hex).join("data")
    }

    fn wait_until_ready(&mut self, options: DockerRegistryOptions<'_>) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::from("nothing");
        while Instant::now() < deadline {
            if self.port == 0 {
                self.port = self.port_of_log().unwrap_or(0);
            } else {
                let mut http = RegistryHttp::new(self.port);
                if let Some(certificates) = options.tls {
                    http = http.with_tls(certificates.client_config());
                }
                if options.login {
                    http = http.with_login(USER, PASSWORD);
                }
                match http.request("GET", OWN, &[], b"") {
                    Ok(HttpReply { status: 200, .. }) => {
                        self.http = http;
                        return;
                    }
                    Ok(reply) => said = format!("{}: {}", reply.status, reply.text()),
                    Err(error) => said = error.to_string(),
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("docker-registry does not answer; it said {said}; its log:\n{}", self.log());
    }

    /// It was asked for port 0, and says in its log which one it got.
    fn port_of_log(&self) -> Option<u16> {
        let log = self.log();
        let after = log.split("listening on 127.0.0.1:").nth(1)?;
        // The line must be whole: a number may be written in two halves.
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        (after.len() > digits.len()).then(|| digits.parse().ok()).flatten()
    }
}

impl Default for DockerRegistry {
    fn default() -> DockerRegistry {
        DockerRegistry::new()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn config(dir: &TempDir, options: DockerRegistryOptions<'_>) -> String {
    let place = dir.path().display();
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\n  formatter: text\n  accesslog:\n    disabled: false\n\
         storage:\n  filesystem:\n    rootdirectory: {place}/storage\n  delete:\n    enabled: {}\n  \
         maintenance:\n    uploadpurging:\n      enabled: false\n\
         http:\n  addr: 127.0.0.1:0\n  secret: none\n",
        options.delete
    );
    if let Some(certificates) = options.tls {
        text.push_str(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificates.server().display(),
            certificates.server_key().display()
        ));
        if options.client_certificate {
            text.push_str(&format!("    clientcas:\n      - {}\n", certificates.authority().display()));
        }
    }
    if options.login {
        text.push_str(&format!("auth:\n  htpasswd:\n    realm: a test\n    path: {place}/htpasswd\n"));
    }
    text
}

/// A line of the combined log: `127.0.0.1 - - [time] "GET /v2/ HTTP/1.1" 200 2 "" "curl/8"`.
fn parse_access(line: &str) -> Option<Access> {
    let mut parts = line.split('"');
    parts.next()?;
    let mut request = parts.next()?.split(' ');
    let mut result = parts.next()?.split_whitespace();
    Some(Access {
        method: request.next()?.to_owned(),
        path: request.next()?.to_owned(),
        status: result.next()?.parse().ok()?,
        sent_bytes: result.next()?.parse().unwrap_or(0),
    })
}
