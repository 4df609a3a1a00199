//! A secret that a step was given is found nowhere afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mica_testkit::{Outcome, run_bounded};

use crate::bench::{Bench, as_root_and_user, said};

/// Secrets of this run alone: what an earlier one said when it failed may lie about.
struct Secrets {
    file: String,
    variable: String,
}

impl Secrets {
    fn new() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        let number = since.as_nanos() as u64 ^ u64::from(std::process::id());
        let mut random = mica_testkit::Random::new(number);
        let mut secret = |what: &str| format!("hunter2-{what}-{:016x}", random.next_u64());
        Self { file: secret("file"), variable: secret("variable") }
    }
}

/// In every spelling in which it could be kept: as it is, in base64 at each offset, as hexadecimal digits, as a list of numbers.
fn spellings(secret: &str) -> Vec<Vec<u8>> {
    let mut spellings = vec![secret.as_bytes().to_vec()];
    for offset in 0..3 {
        let padded = [&vec![b' '; offset][..], secret.as_bytes()].concat();
        let text = mica_testkit::base64(&padded);
        // Without the letters that depend on what stands around it.
        spellings.push(text.as_bytes()[4..text.len() - 4].to_vec());
    }
    spellings.push(mica_testkit::hex(secret.as_bytes()).into_bytes());
    let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    spellings.push(numbers.join(",").into_bytes());
    spellings
}

impl Secrets {
    #[track_caller]
    fn check_bytes(&self, place: &str, bytes: &[u8]) {
        for secret in [&self.file, &self.variable] {
            for spelling in spellings(secret) {
                let found = memmem(bytes, &spelling);
                assert!(!found, "a secret is in {place}");
            }
        }
    }
}

/// Whether the needle is there; quick where its first byte is rare.
fn memmem(bytes: &[u8], needle: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == needle[0]) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Every file below a directory, every name and link. `grep` is quick where programs of a test are not.
#[track_caller]
fn check_tree(secrets: &Secrets, directory: &Path, but: &[PathBuf]) {
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "--devices=skip", "--exclude=mica"]);
    for spelling in [&secrets.file, &secrets.variable].into_iter().flat_map(|secret| spellings(secret)) {
        grep.arg("-e").arg(String::from_utf8(spelling).expect("text"));
    }
    let output = grep.arg("--").arg(directory).output().expect("grep");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Vec<_> = found.lines().filter(|path| !but.contains(&PathBuf::from(path))).collect();
    assert!(found.is_empty(), "a secret is in {found:?}");
    let names = Command::new("find").arg(directory).args(["-printf", "%f %l\\n"]).output().expect("find");
    secrets.check_bytes("a name", &names.stdout);
}

/// Builds with both secrets; `end` is how the step ends.
fn build(bench: &Bench, secrets: &Secrets, end: &str, arguments: &[&str]) -> Outcome {
    let file = bench.dir.path().join("secret");
    let dockerfile = format!(
        "FROM box\nRUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=TOKEN \
         echo said $(wc -c < /run/secrets/file) ${{#TOKEN}}; echo ${{#TOKEN}} > /length; {end}\n"
    );
    let given = format!("id=file,src={}", file.display());
    let all = [&["--secret", &given, "--secret", "id=variable,env=A_SECRET"], arguments].concat();
    let mut command = bench.build_command(&dockerfile, &all);
    command.env("A_SECRET", &secrets.variable);
    run_bounded(command, std::time::Duration::from_secs(200))
}

#[test]
fn root_a_secret_is_found_nowhere_afterwards() {
    as_root_and_user(|bench| {
        let secrets = Secrets::new();
        let file = bench.write("secret", &secrets.file);
        let page = bench.dir.path().join("out/timings.html");
        let cache = bench.dir.path().join("out/cache");
        let out = bench.directory("out");
        let page_flag = format!("--timings={}", page.display());
        let cache_flag = format!("--cache-to=type=local,mode=max,dest={}", cache.display());
        let lengths = format!("{} {}", secrets.file.len(), secrets.variable.len());

        let outcome = build(bench, &secrets, "exit 3", &[&page_flag]);
        assert_eq!(outcome.code, 1, "{outcome}");
        assert_eq!(said(&outcome.stderr), [&*lengths], "{outcome}");
        secrets.check_bytes("the output of a failed build", outcome.stderr.as_bytes());
        assert!(fs::read_dir(bench.mica.root().join("failed")).expect("what is kept").count() == 1);
        let but = [file.clone()];
        let check_all = || {
            check_tree(&secrets, bench.dir.path(), &but);
            check_tree(&secrets, Path::new("/tmp"), &[]);
        };
        check_all();
        assert_eq!(
            bench.ok(&["debug", "--", "cat", "/length"]).stdout.trim(),
            secrets.variable.len().to_string()
        );
        check_all();

        let outcome = build(bench, &secrets, "true", &["--explain", &page_flag, &cache_flag]);
        assert_eq!(outcome.code, 0, "{outcome}");
        assert_eq!(said(&outcome.stderr), [&*lengths], "{outcome}");
        secrets
            .check_bytes("the output of a build", format!("{}{}", outcome.stdout, outcome.stderr).as_bytes());
        for place in [&page, &cache] {
            assert!(place.exists(), "{}", place.display());
        }
        let saved = out.join("saved.tar");
        bench.ok(&["save", "-o", &saved.to_string_lossy(), "t"]);
        for command in
            [&["history", "--no-trunc", "t"][..], &["inspect", "t"], &["why", "t"], &["inputs", "t"]]
        {
            secrets.check_bytes(&command.join(" "), bench.run(command).stdout.as_bytes());
        }
        check_all();
        let outcome = build(bench, &secrets, ": again", &["--no-cache", "--progress=rawjson"]);
        if outcome.code == 0 {
            secrets
                .check_bytes("the raw progress", format!("{}{}", outcome.stdout, outcome.stderr).as_bytes());
            check_all();
        }
        let logs = bench.run(&["debug", "--list"]).stdout;
        secrets.check_bytes("the list of failed steps", logs.as_bytes());
    });
}
