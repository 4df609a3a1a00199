//! `ADD https://...`

use mica_testkit::{Page, images, tar};

use crate::support::{Bench, times};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn add(web: &str, flags: &str, destination: &str) -> Vec<u8> {
    format!("FROM scratch\nADD {flags} {web} {destination}\n").into_bytes()
}

#[test]
fn a_file_has_its_name_mode_and_time() {
    let bench = Bench::new();
    bench.web.put("/d/a%20b.txt", Page::of("hello").with("Last-Modified", MODIFIED));
    bench.web.put("/plain", Page::of("x"));
    let check = |path: &str, flags: &str, destination: &str, expect: &str| {
        assert_eq!(
            bench.tree(&["-"], &add(&bench.web.url(path), flags, destination)),
            expect,
            "{path} {destination}"
        );
    };
    check("/d/a%20b.txt?x=y", "", "/f/", "d 755 f\nf 600 f/a b.txt 5\n");
    assert_eq!(times(&bench, "made").last().unwrap(), &("f/a b.txt".to_owned(), 784_111_777));
    check("/d/a%20b.txt", "", "/f", "f 600 f 5\n");
    check("/plain", "--chmod=755 --chown=7:8", "/f/", "d 755 f\nf 755 f/plain 1\n");
    // Without a time of its own it is as old as can be.
    check("/plain", "", "/p", "f 600 p 1\n");
    assert_eq!(times(&bench, "made"), [("p".to_owned(), 0)]);
}

#[test]
fn archives_are_unpacked_only_when_the_instruction_says_so() {
    let bench = Bench::new();
    let archive = images::tar_of(&[("d/one", b"1")]);
    bench.web.put("/a.tar", Page::of(archive.clone()));
    bench.web.put("/no.tar", Page::of("text"));
    let check = |path: &str, flags: &str, expect: &str| {
        assert_eq!(bench.tree(&["-"], &add(&bench.web.url(path), flags, "/u/")), expect, "{path} {flags}");
    };
    let length = archive.len();
    check("/a.tar", "", &format!("d 755 u\nf 600 u/a.tar {length}\n"));
    check("/a.tar", "--unpack=false", &format!("d 755 u\nf 600 u/a.tar {length}\n"));
    check("/a.tar", "--unpack=true", "d 755 u\nd 755 u/d\nf 644 u/d/one 1\n");
    check("/no.tar", "--unpack=true", "d 755 u\nf 600 u/no.tar 4\n");
    let climbing = tar::Writer::default().add(tar::Entry::file("../x"), b"x").finish();
    bench.web.put("/evil.tar", Page::of(climbing));
    let dockerfile = add(&bench.web.url("/evil.tar"), "--unpack=true", "/u/");
    bench.fails(&["-"], &dockerfile, "could lead out of the layer");
}

#[test]
fn what_did_not_change_is_not_sent_again() {
    let bench = Bench::new();
    let dockerfile = add(&bench.web.url("/a"), "", "/a");
    let statuses = || bench.web.take_requests().iter().map(|request| request.status).collect::<Vec<_>>();
    bench.web.put("/a", Page::of("one").with("ETag", "\"1\""));
    let first = bench.image(&["-"], &dockerfile);
    assert_eq!(statuses(), [200]);
    assert_eq!(bench.image(&["-"], &dockerfile).id, first.id);
    assert_eq!(statuses(), [304]);
    // Another time alone is no change.
    bench.web.put("/a", Page::of("one").with("ETag", "\"2\"").with("Last-Modified", MODIFIED));
    assert_eq!(bench.image(&["-"], &dockerfile).id, first.id);
    assert_eq!(statuses(), [200]);
    bench.web.put("/a", Page::of("two").with("ETag", "\"3\""));
    assert_ne!(bench.image(&["-"], &dockerfile).id, first.id);
    assert_eq!(statuses(), [200]);
    // Known to be as it was, but in a place where it never stood: fetched anew.
    let elsewhere = add(&bench.web.url("/a"), "", "/b");
    assert_eq!(bench.tree(&["-"], &elsewhere), "f 600 b 3\n");
    assert_eq!(statuses(), [304, 200]);
}

#[test]
fn a_checksum_is_held_against_what_comes() {
    let bench = Bench::new();
    bench.web.put("/a", Page::of("hello"));
    let sha256 = format!("sha256:{}", mica_testkit::sha256(b"hello"));
    let dockerfile = add(&bench.web.url("/a"), &format!("--checksum={sha256}"), "/a");
    bench.image(&["-"], &dockerfile);
    assert_eq!(bench.web.take_requests().len(), 1);
    // What must be the same need not be asked for.
    bench.image(&["-"], &dockerfile);
    assert_eq!(bench.web.take_requests().len(), 0);
    let other = format!("sha256:{}", mica_testkit::sha256(b"other"));
    let dockerfile = add(&bench.web.url("/a"), &format!("--checksum={other}"), "/a");
    let told = bench.fails(&["-"], &dockerfile, &format!("differs, expected `{other}`: `{sha256}`"));
    assert!(told.contains("--> -:2:") && told.contains("^^^^"), "{told}");
}

#[test]
fn redirects_are_followed_and_logins_stay_at_home() {
    let (bench, other) = (Bench::new(), mica_testkit::Web::start());
    other.put("/to", Page::of("hello"));
    let login = Some("Bearer hush-hush".to_owned());
    bench.web.put("/a", Page { login: login.clone(), ..Page::redirect("/b") });
    bench.web.put("/b", Page { login, ..Page::redirect(&other.url("/to")) });
    bench.write("token", "hush-hush\n");
    let dockerfile = add(&bench.web.url("/a"), "", "/x/");
    let secret = "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token";
    assert_eq!(bench.tree(&["--secret", secret, "-"], &dockerfile), "d 755 x\nf 600 x/a 5\n");
    let requests = other.take_requests();
    assert!(requests.iter().all(|request| !request.headers.contains_key("authorization")), "{requests:?}");
    assert_eq!(requests.len(), 1);
    // The login is nowhere.
    let found = std::process::Command::new("grep")
        .args(["-rl", "hush-hush"])
        .arg(bench.mica.root())
        .output()
        .expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    let told = bench.fails(&["--no-cache", "-"], &dockerfile, "answered with status 401");
    assert!(told.contains("--secret id=HTTP_AUTH_TOKEN_127.0.0.1,src=FILE"), "{told}");
    bench.web.put("/round", Page::redirect("/round"));
    bench.fails(&["-"], &add(&bench.web.url("/round"), "", "/x"), "there were too many before it");
    bench.web.put("/out", Page::redirect("file:///etc/passwd"));
    bench.fails(&["-"], &add(&bench.web.url("/out"), "", "/x"), "it leads out of the web");
}

#[test]
fn what_cannot_be_had_is_told_with_its_word() {
    let bench = Bench::new();
    let check = |url: &str, destination: &str, expect: &str| {
        let told = bench.fails(&["-"], &add(url, "", destination), expect);
        assert!(told.contains("--> -:2:6") && told.contains("^^^^"), "{told}");
    };
    check(&bench.web.url("/absent?sig=hush"), "/a", "answered with status 404");
    bench.web.put("/half", Page { cut_after: Some(3), ..Page::of("hello") });
    check(&bench.web.url("/half"), "/a", "broke off after 3 bytes of 5");
    // As often as it is tried.
    assert_eq!(bench.web.take_requests().iter().filter(|request| request.path == "/half").count(), 3);
    bench.web.put("/", Page::of("x"));
    check(&bench.web.url("/"), "/a/", "has no file name");
    let nobody = mica_testkit::http::free_port();
    check(&format!("http://127.0.0.1:{nobody}/a"), "/a", "connection refused");
    check("http://no-such-host.invalid/a", "/a", "cannot find host `no-such-host.invalid`");
    // Where it is a file, the name does not matter.
    assert_eq!(bench.tree(&["-"], &add(&bench.web.url("/"), "", "/a")), "f 600 a 1\n");
}

#[test]
fn an_interrupt_ends_a_download() {
    let bench = Bench::new();
    // Somebody who listens and says nothing.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    bench.write("Dockerfile", add(&url, "", "/a"));
    let directory = bench.path("").to_string_lossy().into_owned();
    let command = bench.mica.command(&["build", "-t", "never", &directory]);
    let mut command = mica_testkit::with_interrupt(&command);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let connection = listener.accept().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    drop(connection);
}

#[test]
fn each_word_has_a_source_of_its_own() {
    let bench = Bench::new();
    bench.web.put("/web", Page::of("web"));
    bench.write("c/local", "local");
    let url = bench.web.url("/web");
    bench.write("c/Dockerfile", format!("FROM scratch\nADD local {url} <<inline /d/\ntext\ninline\n"));
    assert_eq!(bench.tree(&["c"], b""), "d 755 d\nf 644 d/inline 5\nf 644 d/local 5\nf 600 d/web 3\n");
}
