//! `ADD https://.../repository.git`

use std::os::unix::fs::PermissionsExt;

use mica_testkit::{Need, missing};

use crate::support::{Bench, COMMIT_TIME, times};

fn add(address: &str, flags: &str) -> Vec<u8> {
    format!("FROM scratch\nADD {flags} {address} /g\n").into_bytes()
}

fn bench() -> Option<Bench> {
    match missing(&[Need::Tool("git")]) {
        Some(reason) => {
            println!("skipped: {reason}");
            None
        }
        None => Some(Bench::new()),
    }
}

#[test]
fn branches_tags_commits_and_directories() {
    let Some(bench) = bench() else { return };
    let repository = bench.repository("r");
    repository.write("a", "1").write("d/run", "#!").write("d/e/f", "3");
    let program = std::fs::Permissions::from_mode(0o775);
    std::fs::set_permissions(repository.work.join("d/run"), program).unwrap();
    repository.git(&["add", "-A"]);
    repository.git(&["commit", "-q", "-m", "first"]);
    repository.git(&["tag", "-a", "v1", "-m", "a tag"]);
    repository.git(&["checkout", "-q", "-b", "side"]);
    repository.write("side", "22");
    let side = repository.publish();
    let first = repository.git(&["rev-parse", "v1^{commit}"]).trim().to_owned();
    let all = "d 755 g\nf 644 g/a 1\nd 755 g/d\nd 755 g/d/e\nf 644 g/d/e/f 1\nf 755 g/d/run 2\n";
    let with_side = format!("{all}f 644 g/side 2\n");
    let check = |suffix: &str, flags: &str, expect: &str| {
        let address = format!("{}{suffix}", repository.url());
        assert_eq!(bench.tree(&["-"], &add(&address, flags)), expect, "{suffix} {flags}");
    };
    check("#v1", "", all);
    check("#refs/tags/v1", "", all);
    check("?tag=v1", "", all);
    check("#main", "", all);
    check("?branch=side", "", &with_side);
    check(&format!("#{first}"), "", all);
    check(&format!("#{side}"), "", &with_side);
    check("#v1:d/e", "", "d 755 g\nf 644 g/f 1\n");
    check("?subdir=/d/e&ref=v1", "", "d 755 g\nf 644 g/f 1\n");
    check("#v1", "--chmod=700 --exclude=d", "d 700 g\nf 700 g/a 1\n");
    check("#v1", &format!("--checksum={}", &first[..9]), all);
    check(&format!("?tag=v1&checksum={first}"), "", all);
    check("?tag=v1&mtime=commit", "", all);
    assert!(times(&bench, "made").contains(&("g/d/e/f".to_owned(), COMMIT_TIME)));
    let kept = bench.image(&["-"], &add(&format!("{}#v1", repository.url()), "--keep-git-dir=true"));
    assert!(kept.tree.contains_key("g/.git/HEAD"), "{:?}", kept.tree.keys());
    assert!(!kept.tree.contains_key("g/.git/FETCH_HEAD"));
}

#[test]
fn servers_that_give_only_what_they_announce() {
    let Some(bench) = bench() else { return };
    bench.web.speak_old_git();
    let repository = bench.repository("r");
    let first = repository.write("a", "1").publish();
    repository.write("a", "22").publish();
    let tree = |suffix: &str| bench.tree(&["-"], &add(&format!("{}{suffix}", repository.url()), ""));
    assert_eq!(tree("#main"), "d 755 g\nf 644 g/a 2\n");
    assert_eq!(tree(""), "d 755 g\nf 644 g/a 2\n");
    // Not announced: found behind what is.
    assert_eq!(tree(&format!("#{first}")), "d 755 g\nf 644 g/a 1\n");
    bench.fails(&["-"], &add(&format!("{}#{}", repository.url(), "1".repeat(40)), ""), "it has no `1111111");
}

#[test]
fn a_step_is_known_by_the_commit() {
    let Some(bench) = bench() else { return };
    let repository = bench.repository("r");
    repository.write("a", "1").publish();
    let dockerfile = add(&repository.url(), "");
    let first = bench.image(&["-"], &dockerfile);
    bench.web.take_requests();
    assert_eq!(bench.image(&["-"], &dockerfile).id, first.id);
    // It was asked what the commit is, and nothing was fetched.
    let requests = bench.web.take_requests();
    assert!(requests.iter().all(|request| request.path.contains("/info/refs") || request.method == "POST"));
    assert!(requests.len() <= 2, "{requests:?}");
    repository.write("a", "22").publish();
    assert_eq!(bench.tree(&["-"], &dockerfile), "d 755 g\nf 644 g/a 2\n");
}

#[test]
fn submodules_come_along_unless_they_are_not_wanted() {
    let Some(bench) = bench() else { return };
    let (inner, outer) = (bench.repository("inner"), bench.repository("outer"));
    inner.write("i", "1").publish();
    outer.write("o", "1").publish();
    // As it is written relative to where the outer one stands.
    let bare = bench.path("git/inner.git");
    outer.git(&["submodule", "--quiet", "add", &bare.to_string_lossy(), "sub"]);
    outer.git(&["config", "-f", ".gitmodules", "submodule.sub.url", "../inner.git"]);
    outer.publish();
    let with = "d 755 g\nf 644 g/.gitmodules 50\nf 644 g/o 1\nd 755 g/sub\nf 644 g/sub/i 1\n";
    assert_eq!(bench.tree(&["-"], &add(&outer.url(), "")), with);
    let without = "d 755 g\nf 644 g/.gitmodules 50\nf 644 g/o 1\nd 755 g/sub\n";
    assert_eq!(bench.tree(&["-"], &add(&format!("{}?submodules=false", outer.url()), "")), without);
    // One that is a file of this machine, or a program, is not fetched.
    for (url, word) in [
        (bare.to_string_lossy().into_owned(), "file"),
        ("ext::sh -c touch% /tmp/owned% >&2".to_owned(), "ext"),
    ] {
        outer.git(&["config", "-f", ".gitmodules", "submodule.sub.url", &url]);
        outer.publish();
        let told = bench.fails(&["-"], &add(&outer.url(), ""), "`git submodule update` failed");
        assert!(
            told.contains(&format!("transport '{word}' not allowed")) || told.contains("Unable to"),
            "{told}"
        );
        assert!(told.contains("^^^^"), "{told}");
    }
    assert!(!std::path::Path::new("/tmp/owned").exists());
    // A name that would be a path out of the repository's own directory.
    outer.write(".gitmodules", "[submodule \"../../../evil\"]\npath = sub\nurl = ../inner.git\n");
    outer.publish();
    bench.fails(&["-"], &add(&outer.url(), ""), "`git submodule update` failed");
}

#[test]
fn links_in_repositories_lead_nowhere() {
    let Some(bench) = bench() else { return };
    let repository = bench.repository("r");
    repository.write("d/f", "1");
    std::os::unix::fs::symlink("/etc", repository.work.join("out")).unwrap();
    std::os::unix::fs::symlink("d", repository.work.join("in")).unwrap();
    repository.publish();
    let told = |suffix: &str, expect: &str| {
        bench.fails(&["-"], &add(&format!("{}{suffix}", repository.url()), ""), expect)
    };
    told("#:out", "its directory `out` leads out of the repository");
    told("#:..", "its directory `..` leads out of the repository");
    told("#:d/f", "its directory `d/f` is not a directory");
    told("#:absent", "its directory `absent` is not there");
    assert_eq!(bench.tree(&["-"], &add(&format!("{}#:in", repository.url()), "")), "d 755 g\nf 644 g/f 1\n");
    // Copied as what it is.
    assert!(bench.tree(&["-"], &add(&repository.url(), "")).contains("l g/out -> /etc\n"));
}

#[test]
fn addresses_that_could_be_options_are_refused() {
    let Some(bench) = bench() else { return };
    let repository = bench.repository("r");
    let commit = repository.write("a", "1").publish();
    let told = |address: &str, flags: &str, expect: &str| {
        let told = bench.fails(&["-"], &add(address, flags), expect);
        assert!(told.contains("--> -:2:") && told.contains("^^^^"), "{told}");
    };
    let url = repository.url();
    told("ssh://-oProxyCommand=touch/x.git", "", "is not a git address: a name that begins with `-`");
    told("git@h:-oProxyCommand=touch", "", "is not taken as an address");
    told(&format!("{url}#--upload-pack=touch"), "", "is not taken as a reference");
    told(&format!("{url}?invalid=1"), "", "unexpected query \"invalid\"");
    told(&format!("{url}#absent"), "", "it has no `absent`");
    told(&format!("{url}#{}", "0".repeat(40)), "", "it has no `0000000");
    let absent = bench.web.url("/git/absent.git");
    told(&absent, "", "`git ls-remote` failed");
    let expect = format!("it is at commit `{commit}`, expected `deadbeef`");
    told(&url, "--checksum=deadbeef", &expect);
}

#[test]
fn logins_go_to_their_host_and_are_kept_nowhere() {
    let Some(bench) = bench() else { return };
    let repository = bench.repository("r");
    repository.write("a", "1").publish();
    // base64 of `x-access-token:hush-hush`
    let login = "basic eC1hY2Nlc3MtdG9rZW46aHVzaC1odXNo";
    bench.web.serve_git(&bench.path("git"), Some(login));
    let told = bench.fails(&["-"], &add(&repository.url(), ""), "`git ls-remote` failed");
    assert!(told.contains("--secret id=GIT_AUTH_TOKEN,src=FILE"), "{told}");
    bench.write("token", "hush-hush");
    let secret = format!("id=GIT_AUTH_TOKEN.{},src=token", bench.web.host());
    let keep = add(&repository.url(), "--keep-git-dir=true");
    bench.image(&["--secret", &secret, "-"], &keep);
    for word in ["hush-hush", "eC1hY2Nlc3MtdG9rZW46aHVzaC1odXNo"] {
        let found = std::process::Command::new("grep").args(["-rl", word]).arg(bench.mica.root()).output();
        assert_eq!(String::from_utf8_lossy(&found.expect("grep").stdout), "", "{word}");
    }
    // A login in the address does as well, and stays out of what is kept.
    bench.web.serve_git(&bench.path("git"), Some("Basic bWU6b3RoZXItaHVzaA=="));
    let address = repository.url().replace("http://", "http://me:other-hush@");
    let image = bench.image(&["-"], &add(&address, "--keep-git-dir=true"));
    let config = &image.tree["g/.git/config"];
    assert_eq!(config.sha256.len(), 64);
    let found = std::process::Command::new("grep")
        .args(["-rl", "other-hush"])
        .arg(bench.mica.root().join("layers"))
        .output();
    assert_eq!(String::from_utf8_lossy(&found.expect("grep").stdout), "");
}

#[test]
fn no_git_is_told() {
    let Some(bench) = bench() else { return };
    let mut command = bench.mica.command(&["build", "https://127.0.0.1:1/a.git"]);
    command.env("PATH", "/nonexistent");
    let outcome = mica_testkit::run_bounded(command, std::time::Duration::from_secs(60));
    assert!(outcome.stderr.contains("`git` is not installed"), "{}", outcome.stderr);
}
