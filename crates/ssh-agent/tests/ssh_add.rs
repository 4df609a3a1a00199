//! Keys of `ssh-keygen`, and `ssh-add` as the client.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mica_ssh_agent::{Agent, AgentError, KeyProblem, serve};

struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Option<Self> {
        if Command::new("ssh-keygen").arg("-?").output().is_err() {
            println!("skipped: `ssh-keygen` is not installed");
            return None;
        }
        Some(Self(tempfile::tempdir().unwrap()))
    }

    fn make(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.0.path().join(name);
        let passphrase: &[&str] = if arguments.contains(&"-N") { &[] } else { &["-N", ""] };
        let output = Command::new("ssh-keygen")
            .args(["-q", "-C", &format!("of {name}"), "-f"])
            .arg(&path)
            .args(arguments)
            .args(passphrase)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        path
    }
}

fn ssh_add(socket: &Path, arguments: &[&str]) -> Output {
    Command::new("ssh-add").args(arguments).env("SSH_AUTH_SOCK", socket).output().unwrap()
}

fn public_file(key: &Path) -> String {
    key.with_extension("pub").to_string_lossy().into_owned()
}

/// The agent signs a file with a key, and the signature is the key's.
#[track_caller]
fn check_signs(socket: &Path, key: &Path) {
    let signed = key.with_extension("txt");
    std::fs::write(&signed, "text").unwrap();
    let signature = key.with_extension("txt.sig");
    let _ = std::fs::remove_file(&signature);
    let sign = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", "file", "-f", &public_file(key)])
        .arg(&signed)
        .env("SSH_AUTH_SOCK", socket)
        .output()
        .unwrap();
    assert!(sign.status.success(), "{}: {sign:?}", key.display());
    let check = Command::new("ssh-keygen")
        .args(["-Y", "check-novalidate", "-n", "file", "-s"])
        .arg(&signature)
        .stdin(std::fs::File::open(&signed).unwrap())
        .output()
        .unwrap();
    assert!(check.status.success(), "{}: {check:?}", key.display());
}

fn listed(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn keys_are_listed_and_sign_and_nothing_else_is_done() {
    let Some(keys) = Keys::new() else { return };
    let made = [
        keys.make("ed25519", &["-t", "ed25519"]),
        keys.make("p256", &["-t", "ecdsa", "-b", "256"]),
        keys.make("p384", &["-t", "ecdsa", "-b", "384"]),
        keys.make("rsa", &["-t", "rsa", "-b", "2048"]),
        keys.make("rsa-pem", &["-t", "rsa", "-b", "3072", "-m", "PEM"]),
        keys.make("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
        keys.make("p256-pkcs8", &["-t", "ecdsa", "-b", "256", "-m", "PKCS8"]),
    ];
    let agent = Agent::open(&made, None).unwrap();
    let served = serve(agent, keys.0.path(), "agent", 0o600, ids()).unwrap();
    let socket = keys.0.path().join("agent");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let public = |path: &PathBuf| {
        let text = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listed(&ssh_add(&socket, &["-L"])), made.iter().map(public).collect::<Vec<_>>());
    for key in &made {
        check_signs(&socket, key);
    }
    // As very old servers want it: with SHA-1.
    assert!(!ssh_add(&socket, &["-T", &public_file(&made[3])]).status.success());
    for refused in [&["-D"][..], &[&made[0].to_string_lossy()], &["-x"]] {
        assert!(!ssh_add(&socket, refused).status.success(), "{refused:?}");
    }
    assert_eq!(listed(&ssh_add(&socket, &["-L"])).len(), made.len());

    // An agent behind an agent, as the user's own is.
    let outer = Agent::open(&[], Some(&socket)).unwrap();
    let relay = serve(outer, keys.0.path(), "relay", 0o666, ids()).unwrap();
    let relay_socket = keys.0.path().join("relay");
    assert_eq!(listed(&ssh_add(&relay_socket, &["-L"])).len(), made.len());
    check_signs(&relay_socket, &made[0]);
    assert!(!ssh_add(&relay_socket, &["-D"]).status.success());
    // Whoever still waits is sent away.
    let waiting = std::os::unix::net::UnixStream::connect(&relay_socket).unwrap();
    drop(relay);
    assert_eq!(std::io::Read::read(&mut &waiting, &mut [0]).unwrap_or(0), 0);
    drop(served);
    assert!(!ssh_add(&socket, &["-L"]).status.success());
}

fn ids() -> (u32, u32) {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    (uid.as_raw(), gid.as_raw())
}

#[test]
fn what_is_no_usable_key_is_said() {
    let Some(keys) = Keys::new() else { return };
    let check = |path: &Path, expect: KeyProblem| match Agent::open(&[path.to_owned()], None) {
        Err(AgentError::Key { problem, .. }) => assert_eq!(problem, expect, "{}", path.display()),
        other => panic!("{}: {other:?}", path.display()),
    };
    check(&keys.make("locked", &["-t", "ed25519", "-N", "secret"]), KeyProblem::Encrypted);
    check(&keys.make("locked-pem", &["-t", "rsa", "-m", "PEM", "-N", "secret"]), KeyProblem::Encrypted);
    check(&keys.make("locked-pkcs8", &["-t", "rsa", "-m", "PKCS8", "-N", "secret"]), KeyProblem::Encrypted);
    let p521 = keys.make("p521", &["-t", "ecdsa", "-b", "521"]);
    check(&p521, KeyProblem::Unsupported("ecdsa-sha2-nistp521".into()));
    check(
        &keys.make("sec1", &["-t", "ecdsa", "-m", "PEM"]),
        KeyProblem::Unsupported("ec private key".into()),
    );
    check(&p521.with_extension("pub"), KeyProblem::Public);
    let write = |name: &str, content: &[u8]| {
        let path = keys.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    check(&write("empty", b""), KeyProblem::NotAKey);
    check(&write("binary", b"\xff\0"), KeyProblem::NotAKey);
    check(&write("large", &[b'x'; 200_000]), KeyProblem::TooLarge);
    check(keys.0.path(), KeyProblem::NotAKey);
    // Every way to cut a key off is an error and no panic.
    let whole = std::fs::read_to_string(keys.make("whole", &["-t", "ed25519"])).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for skipped in 0..lines.len() {
        let mut cut = lines.clone();
        cut.remove(skipped);
        let path = write("cut", cut.join("\n").as_bytes());
        assert!(Agent::open(&[path], None).is_err(), "without line {skipped}");
    }
    assert!(matches!(Agent::open(&[], None), Err(AgentError::NoAgent)));
    assert!(matches!(Agent::open(&["/nowhere/key".into()], None), Err(AgentError::Unreadable { .. })));
}
