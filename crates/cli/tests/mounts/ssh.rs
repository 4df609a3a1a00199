//! `--ssh` and `RUN --mount=type=ssh`, with a real `ssh-add` inside the step.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mica_testkit::{Need, missing};

use crate::bench::{Bench, as_root_and_user, said};

/// The image `ssh`: the base with `ssh-add` and the libraries that it needs.
fn make_image(bench: &Bench) {
    let program = mica_testkit::find_tool("ssh-add").expect("ssh-add");
    let output = Command::new("ldd").arg(&program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    let mut files: BTreeSet<PathBuf> = words.map(PathBuf::from).collect();
    files.insert(program);
    let mut dockerfile = "FROM box\n".to_owned();
    for (number, file) in files.iter().enumerate() {
        bench.write(&format!("context/{number}"), fs::read(file).expect("a library"));
        dockerfile.push_str(&format!("COPY --chmod=755 {number} {}\n", file.display()));
    }
    bench.builds(&dockerfile, &["-t", "ssh"]);
}

fn key(bench: &Bench, name: &str, arguments: &[&str]) -> (PathBuf, String) {
    let path = bench.dir.path().join(name);
    let passphrase: &[&str] = if arguments.contains(&"-N") { &[] } else { &["-N", ""] };
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", name, "-f"])
        .arg(&path)
        .args(passphrase)
        .args(arguments)
        .output()
        .expect("ssh-keygen");
    assert!(output.status.success(), "{output:?}");
    let content = fs::read(&path).expect("a key");
    bench.write(name, content);
    let public = fs::read_to_string(path.with_extension("pub")).expect("a public key");
    (path, public.trim().to_owned())
}

fn is_missing() -> bool {
    let reason = missing(&[Need::Tool("ssh-add"), Need::Tool("ssh-keygen"), Need::Tool("ldd")]);
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}

/// An agent of the host, ended with the value.
struct HostAgent(Child, PathBuf);

impl HostAgent {
    fn with(bench: &Bench, key: &std::path::Path) -> Self {
        let socket = bench.dir.path().join("host-agent");
        let mut command = bench.as_who("ssh-agent");
        let agent =
            command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().expect("ssh-agent");
        let add =
            || bench.as_who("ssh-add").arg(key).env("SSH_AUTH_SOCK", &socket).output().expect("ssh-add");
        let mut output = add();
        for _ in 0..1000 {
            if output.status.success() {
                break;
            }
            std::thread::yield_now();
            output = add();
        }
        assert!(output.status.success(), "{output:?}");
        Self(agent, socket)
    }
}

impl Drop for HostAgent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn root_a_step_signs_with_an_agent_or_with_keys() {
    if is_missing() {
        return;
    }
    as_root_and_user(|bench| {
        make_image(bench);
        let (path, public) = key(bench, "key-one", &[]);
        let (second_path, second_public) = key(bench, "key-two", &[]);
        let check = |mount: &str, command: &str, arguments: &[&str], expect: &[&str]| {
            let dockerfile = format!("FROM ssh\nRUN {mount} {command} | sed 's/^/said /'\n");
            let outcome = bench.builds(&dockerfile, &[&["--no-cache"], arguments].concat());
            assert_eq!(said(&outcome.stderr), expect, "{dockerfile}: {outcome}");
        };
        let keys = format!("default={},{}", path.display(), second_path.display());
        let given = ["--ssh", &keys];
        let mount = "--mount=type=ssh";
        check(mount, "ssh-add -L", &given, &[&public, &second_public]);
        check(mount, "echo $SSH_AUTH_SOCK", &given, &["/run/buildkit/ssh_agent.0"]);
        check(mount, "stat -c %a-%u-%g-%F $SSH_AUTH_SOCK", &given, &["600-0-0-socket"]);
        check(
            "--mount=type=ssh,target=/a/b,mode=666,uid=7,gid=8",
            "stat -c %n-%a-%u-%g $SSH_AUTH_SOCK",
            &given,
            &["/a/b-666-7-8"],
        );
        // Not in the place of the first.
        check(
            "--mount=type=ssh --mount=type=ssh,id=other",
            "ls /run/buildkit",
            &[&given[..], &["--ssh", &keys.replace("default", "other")]].concat(),
            &["ssh_agent.0", "ssh_agent.1"],
        );
        check(mount, "ssh-add -D >/dev/null 2>&1; ssh-add -L", &given, &[&public, &second_public]);
        // Without an agent the step does without.
        check(mount, "ls $SSH_AUTH_SOCK 2>&1 | grep -o 'No such'", &[], &["No such"]);

        let agent = HostAgent::with(bench, &path);
        let socket = format!("default={}", agent.1.display());
        check(mount, "ssh-add -L", &["--ssh", &socket], &[&public]);
        check(mount, "ssh-add -D >/dev/null 2>&1; ssh-add -L", &["--ssh", &socket], &[&public]);
        let dockerfile = "FROM ssh\nRUN --mount=type=ssh,required ssh-add -L | sed 's/^/said /'\n";
        let mut command = bench.build_command(dockerfile, &["--no-cache", "--ssh", "default"]);
        command.env("SSH_AUTH_SOCK", &agent.1);
        let outcome = mica_testkit::run_bounded(command, std::time::Duration::from_secs(100));
        assert_eq!(said(&outcome.stderr), [&*public], "{outcome}");
    });
}

#[test]
fn root_agents_that_cannot_be_had_are_told_of() {
    if is_missing() {
        return;
    }
    as_root_and_user(|bench| {
        let dockerfile = "FROM box\nRUN --mount=type=ssh,id=git,required true\n";
        let expect = ["the ssh agent `git` is required and was not given", "Dockerfile:2:13", "`--ssh git`"];
        bench.refuses(dockerfile, &[], &expect);
        let (locked, _) = key(bench, "locked", &["-N", "passphrase"]);
        let given = |path: &std::path::Path| format!("git={}", path.display());
        let expect = ["is protected by a passphrase", "`ssh-add "];
        bench.refuses(dockerfile, &["--ssh", &given(&locked)], &expect);
        let text = bench.write("text", "no key");
        bench.refuses(dockerfile, &["--ssh", &given(&text)], &["is no private key"]);
        bench.refuses(dockerfile, &["--ssh", "git=/nowhere/key"], &["cannot read `/nowhere/key`"]);
        let mut command = bench.build_command(dockerfile, &["--ssh", "git"]);
        command.env_remove("SSH_AUTH_SOCK");
        let outcome = mica_testkit::run_bounded(command, std::time::Duration::from_secs(100));
        assert!(outcome.stderr.contains("SSH_AUTH_SOCK is not set"), "{outcome}");
    });
}
