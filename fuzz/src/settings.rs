//! Settings files of other tools, read from files in memory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mica_oci::Reference;
use mica_registry_client::{Credentials, Paths, Purpose, Registries};

/// Names that are asked for: the file's own, so that what it says of them is reached.
const NAMES: [&str; 4] = ["a", "r.io/a/b:1", "localhost:5000/a", "127.0.0.1/a"];

/// Where the files stand: `cargo xtask fuzz` gives a directory in memory and removes it.
fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let own = || std::env::temp_dir().join(format!("mica-fuzz.{}", std::process::id()));
        let path = std::env::var_os("MICA_FUZZ_DIRECTORY").map_or_else(own, PathBuf::from);
        let _ = std::fs::create_dir_all(path.join("certs.d/r.io"));
        path
    })
}

fn write(name: &str, data: &[u8]) -> PathBuf {
    let path = directory().join(name);
    std::fs::write(&path, data).expect("a file in memory");
    path
}

fn ask(paths: Paths) {
    let Ok(registries) = Registries::read(paths) else { return };
    registries.credential_helpers();
    for name in NAMES {
        let _ = registries.candidates(name);
        let _ = registries.endpoint_of(name.split('/').next().unwrap_or(name));
        for purpose in [Purpose::Pull, Purpose::Resolve, Purpose::Push] {
            let _ = Reference::parse(name).map(|reference| registries.endpoints(&reference, purpose).is_ok());
        }
    }
}

/// containers-registries.conf(5), as the file and as a drop-in.
pub fn registries_conf(data: &[u8]) {
    let path = write("registries.conf", data);
    ask(Paths { registries_conf: vec![path], ..Paths::default() });
}

/// containerd's `hosts.toml`.
pub fn hosts_toml(data: &[u8]) {
    write("certs.d/r.io/hosts.toml", data);
    ask(Paths { certs_d: vec![directory().join("certs.d")], ..Paths::default() });
}

/// docker's `daemon.json`.
pub fn docker_daemon(data: &[u8]) {
    let path = write("daemon.json", data);
    ask(Paths { docker_daemon: vec![path], ..Paths::default() });
}

/// docker's `config.json`, podman's `auth.json`. Helpers that it names are looked for and are not there: the search path of
/// this process is empty.
pub fn docker_config(data: &[u8]) {
    let path = write("config.json", data);
    let credentials = Credentials::of_docker_config(path);
    let _ = credentials.http_headers();
    for (registry, repository) in [("r.io", "a/b"), ("docker.io", "library/a"), ("localhost:5000", "a")] {
        let _ = credentials.find(registry, repository);
    }
}
