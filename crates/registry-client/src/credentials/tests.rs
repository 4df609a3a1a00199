//! Tables of files, and helpers that are shell scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::*;

/// A home with these files; helpers are found in its `bin`.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new(files: &[(&str, &str)]) -> Home {
        let home = Home { dir: tempfile::tempdir().unwrap() };
        for (name, text) in files {
            fs::create_dir_all(home.at(name).parent().unwrap()).unwrap();
            fs::write(home.at(name), text).unwrap();
        }
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn credentials(&self) -> Credentials {
        Credentials {
            override_file: None,
            docker_config: Some(self.at("docker/config.json")),
            podman_files: vec![self.at("run/auth.json"), self.at("config/auth.json")],
            default_helpers: Vec::new(),
            helpers: Helpers { search: Some(self.at("bin").into()), ..Helpers::default() },
        }
    }

    /// A helper `docker-credential-NAME` that is a shell script.
    fn helper(&self, name: &str, script: &str) {
        let path = self.at("bin").join(format!("docker-credential-{name}"));
        fs::create_dir_all(self.at("bin")).unwrap();
        // Written by another process: a descriptor of ours could be open in the child of a neighbouring test just then, and
        // a file that is open for writing cannot be executed.
        let source = self.at("bin/source");
        fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
        let install = std::process::Command::new("install").arg("-m755").args([&source, &path]).status();
        assert!(install.unwrap().success());
    }

    /// A helper that keeps what it is given in a directory, a file a server.
    fn keeping_helper(&self, name: &str) {
        let kept = self.at("kept");
        fs::create_dir_all(&kept).unwrap();
        let script = format!(
            r#"cd {} || exit 2
printf '%s %s\n' "$*" "$(env | grep -c s3cret)" >> calls
input=$(cat)
case $1 in
store) server=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$input" > "$(printf %s "$server" | tr / _)";;
get) cat "$(printf %s "$input" | tr / _)" 2>/dev/null || {{ echo "credentials not found in native keychain"; exit 1; }};;
erase) rm "$(printf %s "$input" | tr / _)" 2>/dev/null || {{ echo "no such login"; exit 1; }};;
esac"#,
            kept.display()
        );
        self.helper(name, &script);
    }
}

/// A login in one line.
fn shown(credential: Option<Credential>) -> String {
    match credential {
        None => "none".to_owned(),
        Some(Credential::Basic { username, password }) => format!("{username} {}", password.reveal()),
        Some(Credential::IdentityToken(token)) => format!("identity {}", token.reveal()),
        Some(Credential::RegistryToken(token)) => format!("registry {}", token.reveal()),
    }
}

fn auth(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn entry(key: &str, login: &str) -> String {
    format!("\"{key}\": {{\"auth\": \"{}\"}}", auth(login))
}

#[test]
fn the_entry_that_says_most_counts() {
    let check = |keys: &[&str], registry: &str, repository: &str, expect: Option<usize>| {
        let entries: Vec<_> =
            keys.iter().enumerate().map(|(at, key)| entry(key, &format!("{at}:p"))).collect();
        let home = Home::new(&[("docker/config.json", &format!("{{\"auths\": {{{}}}}}", entries.join(",")))]);
        let expect = expect.map_or("none".to_owned(), |at| format!("{at} p"));
        let found = home.credentials().find(registry, repository).unwrap();
        assert_eq!(shown(found), expect, "{keys:?} {registry} {repository}");
    };
    check(&["a.test"], "a.test", "x", Some(0));
    check(&["a.test"], "b.test", "x", None);
    check(&["a.test"], "a.test:5000", "x", None);
    check(&["a.test:5000"], "a.test", "x", None);
    // Spellings of older tools, and of people.
    for key in [
        "https://a.test",
        "http://a.test",
        "https://a.test/v1/",
        "https://a.test/v2",
        "a.test/v2/",
        "https://a.test/x",
    ] {
        check(&[key], "a.test", "y", Some(0));
    }
    check(&["https://a.test", "a.test"], "a.test", "x", Some(1));
    check(&["a.test", "https://a.test"], "a.test", "x", Some(0));
    // Namespaces, as podman has them.
    let keys = ["a.test", "a.test/org", "a.test/org/team/image"];
    check(&keys, "a.test", "org/team/image", Some(2));
    check(&keys, "a.test", "org/team/other", Some(1));
    check(&keys, "a.test", "org", Some(1));
    check(&keys, "a.test", "organ", Some(0));
    check(&keys, "a.test", "", Some(0));
    check(&["a.test/org"], "a.test", "x", None);
    check(&["a.test/org"], "a.test", "", None);
    // Docker Hub has many names.
    for key in [
        "https://index.docker.io/v1/",
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "https://docker.io",
    ] {
        check(&[key], "docker.io", "library/debian", Some(0));
    }
    check(&["docker.io", "https://index.docker.io/v1/"], "docker.io", "library/debian", Some(1));
    check(&["docker.io", "index.docker.io"], "registry-1.docker.io", "library/debian", Some(0));
    check(&["docker.io/library", "https://index.docker.io/v1/"], "docker.io", "library/debian", Some(0));
    check(&["", "/", "not a host", "https://"], "a.test", "x", None);
}

#[test]
fn entries_are_read_as_docker_reads_them() {
    let check = |entry: &str, expect: &str| {
        let home = Home::new(&[("docker/config.json", &format!("{{\"auths\": {{\"a.test\": {entry}}}}}"))]);
        assert_eq!(shown(home.credentials().find("a.test", "x").unwrap()), expect, "{entry}");
    };
    let field = |text: &str| format!("{{\"auth\": \"{}\"}}", auth(text));
    check(&field("user:password"), "user password");
    check(&field("user:pass:word:"), "user pass:word:");
    check(&field("user:"), "user ");
    check(&field(":p"), " p");
    check(&field("ü:pässword"), "ü pässword");
    check(&field("user:padded\0\0"), "user padded");
    check(&field("us:er").replace("=", ""), "us er");
    check("{}", "none");
    check("null", "none");
    check("{\"auth\": \"\"}", "none");
    check("{\"auth\": null, \"email\": \"x\"}", "none");
    check("{\"username\": \"u\", \"password\": \"p\"}", "u p");
    check("{\"identitytoken\": \"t\"}", "identity t");
    check(&format!("{{\"auth\": \"{}\", \"identitytoken\": \"t\"}}", auth("00000000:")), "identity t");
    check("{\"registrytoken\": \"t\", \"identitytoken\": \"i\"}", "registry t");
}

#[test]
fn files_are_asked_in_order() {
    let file = |login: &str| format!("{{\"auths\": {{{}}}}}", entry("a.test", login));
    let other = format!("{{\"auths\": {{{}}}}}", entry("b.test", "x:x"));
    let home = Home::new(&[("run/auth.json", &file("run:p")), ("config/auth.json", &file("config:p"))]);
    let find = |credentials: &Credentials| shown(credentials.find("a.test", "x").unwrap());
    assert_eq!(find(&home.credentials()), "run p");
    fs::create_dir(home.at("docker")).unwrap();
    fs::write(home.at("docker/config.json"), &other).unwrap();
    assert_eq!(find(&home.credentials()), "run p");
    fs::write(home.at("docker/config.json"), file("docker:p")).unwrap();
    assert_eq!(find(&home.credentials()), "docker p");
    let override_file = Some(home.at("override.json"));
    let credentials = Credentials { override_file, ..home.credentials() };
    assert_eq!(find(&credentials), "docker p");
    fs::write(home.at("override.json"), file("override:p")).unwrap();
    assert_eq!(find(&credentials), "override p");
    fs::remove_file(home.at("run/auth.json")).unwrap();
    fs::remove_file(home.at("docker/config.json")).unwrap();
    assert_eq!(find(&home.credentials()), "config p");
    assert_eq!(find(&Credentials::default()), "none");
}

#[test]
fn wrong_files_are_told_without_their_secrets() {
    let check_mended = |text: &str, expect: &str, is_mended: bool| {
        let home = Home::new(&[("docker/config.json", text)]);
        let path = home.at("docker/config.json").display().to_string();
        let credentials = home.credentials();
        let login = Credential::basic("u", "p");
        let mut outcomes = vec![credentials.find("a.test", "x").map(|_| ())];
        if !is_mended {
            outcomes.push(credentials.keep("a.test", &login).map(|_| ()));
            // What is of the wrong type can be taken away, if it is not in the way of that.
            outcomes
                .extend((!text.contains("\"a.test\": \"")).then(|| credentials.erase("a.test").map(|_| ())));
        }
        for error in outcomes.into_iter().map(|outcome| outcome.unwrap_err()) {
            let told = error.to_string().replace(&path, "F");
            assert_eq!(told, expect);
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
        assert_eq!(home.read("docker/config.json"), text, "a file that is not understood is not touched");
        assert_eq!(fs::read_dir(home.at("docker")).unwrap().count(), 1);
        if is_mended {
            credentials.keep("a.test", &login).unwrap();
            assert_eq!(shown(credentials.find("a.test", "x").unwrap()), "u p");
        }
    };
    let check = |text: &str, expect: &str| check_mended(text, expect, false);
    check("{\n\"auths\": {s3cret}", "`F`, line 2: invalid JSON: something else was expected in column 11");
    check("{\"auths\": {", "`F`, line 1: invalid JSON: it ends too early");
    check("[]", "`F`: `the file` must be an object");
    check("{\"auths\": [\"s3cret\"]}", "`F`: `auths` must be an object");
    check("{\"auths\": {\"a.test\": \"s3cret\"}}", "`F`: `auths.a.test` must be an object");
    // A new login takes a broken one's place.
    let mended = |text: &str, expect: &str| check_mended(text, expect, true);
    mended("{\"auths\": {\"a.test\": {\"auth\": 1}}}", "`F`: `auths.a.test.auth` must be a string");
    let words = "`F`: `auths.a.test.auth` must be `user:password` in base64";
    mended("{\"auths\": {\"a.test\": {\"auth\": \"s3cret\"}}}", words);
    mended(&format!("{{\"auths\": {{\"a.test\": {{\"auth\": \"{}\"}}}}}}", auth("s3cret")), words);
    check("{\"credsStore\": 1}", "`F`: `credsStore` must be a string");
    check("{\"credHelpers\": {\"a.test\": {}}}", "`F`: `credHelpers.a.test` must be a string");
}

#[test]
fn helpers_are_asked_before_the_file_that_names_them() {
    let config = format!(
        "{{\"auths\": {{{}, {}, {}}}, \"credsStore\": \"all\", \"credHelpers\": {{\"b.test\": \"one\", \"c.test\": \"\"}}}}",
        entry("a.test", "file:p"),
        entry("a.test/part", "part:p"),
        entry("c.test", "c:p"),
    );
    let home = Home::new(&[("docker/config.json", &config)]);
    home.helper(
        "one",
        r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"one\",\"Secret\":\"$1 $server\"}""#,
    );
    home.helper("all", r#"echo "credentials not found in native keychain"; exit 1"#);
    let find =
        |registry: &str, repository: &str| shown(home.credentials().find(registry, repository).unwrap());
    // `read` fails without a newline, but has read.
    assert_eq!(find("b.test", "x"), "one get b.test");
    assert_eq!(find("a.test", "x"), "file p");
    assert_eq!(find("a.test", "part/x"), "part p");
    assert_eq!(find("c.test", "x"), "c p");
    assert_eq!(find("d.test", "x"), "none");
    home.helper("all", r#"printf '{"Username":"<token>","Secret":"'; cat; echo '"}'"#);
    assert_eq!(find("a.test", "x"), "identity a.test");
    assert_eq!(find("a.test", "part/x"), "part p", "a helper for everything knows less of a part");
    assert_eq!(find("docker.io", "library/x"), "identity https://index.docker.io/v1/");
    home.helper("all", r#"test "$(cat)" = docker.io && echo '{"Username":"u","Secret":"p"}' || { echo credentials not found; exit 1; }"#);
    assert_eq!(find("docker.io", "library/x"), "u p");
    home.helper("all", r#"echo '{"Username":"u","Secret":""}'"#);
    assert_eq!(find("d.test", "x"), "none");
}

#[test]
fn helpers_of_podmans_files_and_of_registries_conf() {
    let home = Home::new(&[("run/auth.json", "{\"credHelpers\": {\"a.test/org\": \"h\"}}")]);
    home.helper("h", r#"printf '{"Username":"u","Secret":"'; cat; echo '"}'"#);
    let credentials = home.credentials();
    assert_eq!(shown(credentials.find("a.test", "org/x").unwrap()), "u a.test/org");
    assert_eq!(shown(credentials.find("a.test", "x").unwrap()), "none");
    let credentials = credentials.with_helpers(&["containers-auth.json".to_owned(), "h".to_owned()]);
    assert_eq!(shown(credentials.find("a.test", "x").unwrap()), "u a.test");
}

#[test]
fn helpers_that_fail_are_named() {
    let home = Home::new(&[("docker/config.json", "{\"credsStore\": \"h\"}")]);
    let find = |patience: Duration| {
        let mut credentials = home.credentials();
        credentials.helpers.patience = patience;
        credentials.find("a.test", "x").map(shown)
    };
    let check = |script: &str, expect: &str| {
        home.helper("h", script);
        let told = find(Duration::from_secs(30)).unwrap_err().to_string();
        let words = "credential helper `docker-credential-h` failed to get the login for `a.test`: ";
        assert_eq!(told, format!("{words}{expect}"), "{script}");
    };
    check("echo; printf 'locked\\n\\033[31mnow\\n'; exit 1", "locked  [31mnow");
    check("exit 3", "exit status: 3");
    check("kill -9 $$", "signal: 9 (SIGKILL)");
    check("echo s3cret", "its answer is not the JSON that it should be");
    check("echo '[1]'", "its answer is not the JSON that it should be");
    check("cat /dev/zero", "it answered with more than 1048576 bytes");
    check("yes | head -c 2000 | tr -d '\\n'; exit 1", &"y".repeat(400));
    home.helper("h", "exec sleep 1000");
    assert!(
        find(Duration::from_millis(200))
            .unwrap_err()
            .to_string()
            .ends_with("did not answer within 0 seconds")
    );
    // It reads nothing, and leaves somebody behind who holds its pipes.
    home.helper("h", "sleep 1000 & echo $! > \"$0.pid\"; echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
    assert_eq!(find(Duration::from_secs(30)).unwrap(), "u p");
    let pid = home.read("bin/docker-credential-h.pid");
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    fs::remove_file(home.at("bin/docker-credential-h")).unwrap();
    assert!(find(Duration::from_secs(30)).unwrap_err().to_string().ends_with("it is not in PATH"));
    for name in ["../h", "a/b", "/bin/sh", "a b", "a;b"] {
        fs::write(home.at("docker/config.json"), format!("{{\"credsStore\": \"{name}\"}}")).unwrap();
        let told = find(Duration::from_secs(30)).unwrap_err().to_string();
        assert!(told.ends_with("not the name of a helper"), "{told}");
    }
}

#[test]
fn a_helper_is_not_taken_from_a_relative_directory() {
    let home = Home::new(&[]);
    home.helper("h", "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count());
    let relative = format!("{up}{}", home.at("bin").display());
    let find = |search: String| {
        let helpers = Helpers { search: Some(search.into()), ..Helpers::default() };
        helpers.get("h", "a.test").map(shown).map_err(|error| error.to_string())
    };
    assert_eq!(find(format!(".::{}", home.at("bin").display())).as_deref(), Ok("u p"));
    assert!(Path::new(&relative).join("docker-credential-h").exists());
    assert!(find(relative).unwrap_err().ends_with("it is not in PATH"));
}

#[test]
fn logins_are_kept_as_docker_keeps_them() {
    let home = Home::new(&[]);
    let credentials = home.credentials();
    let file = home.at("docker/config.json");
    let kept = credentials.keep("docker.io", &Credential::basic("u", "p:q")).unwrap();
    assert_eq!(kept, Kept::File(file.clone()));
    let hub = format!(
        "{{\n\t\"auths\": {{\n\t\t\"https://index.docker.io/v1/\": {{\n\t\t\t\"auth\": \"{}\"\n\t\t}}\n\t}}\n}}",
        auth("u:p:q")
    );
    assert_eq!(home.read("docker/config.json"), hub);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&file), mode(&home.at("docker"))), (0o600, 0o700));
    assert_eq!(fs::read_dir(home.at("docker")).unwrap().count(), 1, "nothing is left beside it");
    credentials.keep("https://a.test/v2/", &Credential::IdentityToken(Secret::new("t"))).unwrap();
    credentials.keep("b.test", &Credential::RegistryToken(Secret::new("r"))).unwrap();
    let find = |registry: &str| shown(credentials.find(registry, "x").unwrap());
    assert_eq!(
        (find("docker.io"), find("a.test"), find("b.test")),
        ("u p:q".into(), "identity t".into(), "registry r".into())
    );
    credentials.keep("a.test", &Credential::basic("u", "new")).unwrap();
    assert_eq!(find("a.test"), "u new");
    let told = credentials.keep("a.test", &Credential::basic("u:v", "s3cret")).unwrap_err().to_string();
    assert_eq!(told, "a username cannot hold a colon");
    assert!(credentials.keep("not a host", &Credential::basic("u", "p")).is_err());
    let nowhere = Credentials::default().keep("a.test", &Credential::basic("u", "s3cret")).unwrap_err();
    assert_eq!(
        nowhere.to_string(),
        "no place to keep a login for `a.test`: neither DOCKER_CONFIG nor HOME is set"
    );
}

#[test]
fn all_else_in_the_file_stays() {
    let before = r#"{
	"zeta": [1, 2.5, -0, 18446744073709551615, null],
	"auths": {
		"z.test": {"auth": "eDp5", "email": "e@x"},
		"a.test": {"auth": "old", "email": "me@x", "username": "old"},
		"https://a.test/v1/": {"auth": "b2xkOm9sZA=="}
	},
	"HttpHeaders": {"User-Agent": "x", "A": "b"},
	"proxies": {"default": {"httpProxy": "http://p:1"}},
	"detachKeys": "ctrl-e,e",
	"currentContext": "ü"
}"#;
    let home = Home::new(&[("docker/config.json", before)]);
    fs::set_permissions(home.at("docker/config.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let credentials = home.credentials();
    let mut expect: serde_json::Value = serde_json::from_str(before).unwrap();
    credentials.keep("a.test", &Credential::basic("u", "p")).unwrap();
    expect["auths"]["a.test"] = serde_json::json!({"email": "me@x", "auth": auth("u:p")});
    let after: serde_json::Value = serde_json::from_str(&home.read("docker/config.json")).unwrap();
    assert_eq!(serde_json::to_string(&after).unwrap(), serde_json::to_string(&expect).unwrap());
    assert_eq!(fs::metadata(home.at("docker/config.json")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        credentials.http_headers().unwrap(),
        [("User-Agent".into(), "x".into()), ("A".into(), "b".into())]
    );
    // All spellings go, and nothing else.
    assert!(credentials.erase("a.test").unwrap());
    assert!(!credentials.erase("a.test").unwrap());
    let auths = expect["auths"].as_object_mut().unwrap();
    auths.shift_remove("a.test");
    auths.shift_remove("https://a.test/v1/");
    let after: serde_json::Value = serde_json::from_str(&home.read("docker/config.json")).unwrap();
    assert_eq!(serde_json::to_string(&after).unwrap(), serde_json::to_string(&expect).unwrap());
}

#[test]
fn links_are_followed_and_stay() {
    let home = Home::new(&[("dotfiles/docker.json", "{\"x\": 1}")]);
    fs::create_dir(home.at("real")).unwrap();
    std::os::unix::fs::symlink("real", home.at("docker")).unwrap();
    std::os::unix::fs::symlink("../dotfiles/link.json", home.at("real/config.json")).unwrap();
    std::os::unix::fs::symlink("docker.json", home.at("dotfiles/link.json")).unwrap();
    home.credentials().keep("a.test", &Credential::basic("u", "p")).unwrap();
    let text = home.read("dotfiles/docker.json");
    assert!(text.contains("\"x\": 1") && text.contains("a.test"), "{text}");
    assert!(fs::symlink_metadata(home.at("real/config.json")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(home.at("dotfiles/link.json")).unwrap().is_symlink());
    // A link to nothing yet.
    fs::remove_file(home.at("dotfiles/docker.json")).unwrap();
    home.credentials().keep("b.test", &Credential::basic("u", "p")).unwrap();
    assert!(home.read("dotfiles/docker.json").contains("b.test"));
    // A circle.
    fs::remove_file(home.at("dotfiles/docker.json")).unwrap();
    std::os::unix::fs::symlink("docker.json", home.at("dotfiles/docker.json")).unwrap();
    assert!(home.credentials().keep("b.test", &Credential::basic("u", "p")).is_err());
}

#[test]
fn helpers_keep_and_erase() {
    let home = Home::new(&[("docker/config.json", "{\"credsStore\": \"keeper\"}")]);
    home.keeping_helper("keeper");
    let credentials = home.credentials();
    let kept = credentials.keep("docker.io", &Credential::basic("u", "s3cret\"\\ü")).unwrap();
    assert_eq!(kept, Kept::Helper("keeper".into()));
    credentials.keep("a.test:5000", &Credential::IdentityToken(Secret::new("s3cret"))).unwrap();
    let find = |registry: &str| shown(credentials.find(registry, "x").unwrap());
    assert_eq!((find("docker.io"), find("a.test:5000")), ("u s3cret\"\\ü".into(), "identity s3cret".into()));
    assert_eq!(find("b.test"), "none");
    let config = home.read("docker/config.json");
    assert!(!config.contains("s3cret") && !config.contains(&auth("u:s3cret")), "{config}");
    let entries = "\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {},\n\t\t\"a.test:5000\": {}\n\t}";
    assert!(config.contains(entries), "{config}");
    assert!(credentials.erase("a.test:5000").unwrap());
    assert!(!credentials.erase("a.test:5000").unwrap());
    assert_eq!(find("a.test:5000"), "none");
    assert!(!home.read("docker/config.json").contains("a.test:5000"));
    // No secret was in an argument or in the environment.
    for call in home.read("kept/calls").lines() {
        assert!(["get 0", "store 0", "erase 0"].contains(&call), "{call}");
    }
    // A login that only the helper knows of.
    fs::write(home.at("kept/c.test"), "{\"Username\":\"u\",\"Secret\":\"p\"}").unwrap();
    assert!(credentials.erase("c.test").unwrap());
    assert!(!home.at("kept/c.test").exists());
    // It need not be asked where the file knows.
    fs::write(home.at("docker/config.json"), "{\"credsStore\": \"keeper\", \"auths\": {\"d.test\": {}}}")
        .unwrap();
    home.helper("keeper", "test $1 = erase || { echo locked; exit 1; }");
    assert!(credentials.erase("d.test").unwrap());
    // These words are an answer to one question only.
    home.helper("keeper", "echo credentials not found; exit 1");
    assert!(credentials.keep("a.test", &Credential::basic("u", "p")).is_err());
    // Its words may hold what it was given.
    home.helper("keeper", "cat; exit 1");
    let told = credentials.keep("a.test", &Credential::basic("u", "s3cret")).unwrap_err();
    assert!(!format!("{told} {told:?}").contains("s3cret"), "{told}");
    assert!(!home.read("docker/config.json").contains("a.test"), "what is not kept leaves no trace");
}

#[test]
fn podmans_files_are_written_where_they_are_named() {
    let home = Home::new(&[("run/auth.json", &format!("{{\"auths\": {{{}}}}}", entry("a.test", "u:p")))]);
    let mut credentials = home.credentials();
    assert!(credentials.erase("a.test").unwrap(), "wherever it is");
    assert_eq!(shown(credentials.find("a.test", "x").unwrap()), "none");
    assert!(!home.at("docker/config.json").exists(), "nothing is made to take something away");
    credentials.override_file = Some(home.at("new/auth.json"));
    let kept = credentials.keep("docker.io", &Credential::basic("u", "p")).unwrap();
    assert_eq!(kept, Kept::File(home.at("new/auth.json")));
    assert!(home.read("new/auth.json").contains("\"docker.io\": {"));
    assert_eq!(shown(credentials.find("docker.io", "library/x").unwrap()), "u p");
    assert!(credentials.erase("docker.io").unwrap());
}

#[test]
fn logins_at_the_same_time_are_all_kept() {
    let home = Home::new(&[]);
    let credentials = home.credentials();
    std::thread::scope(|scope| {
        for at in 0..16 {
            let credentials = &credentials;
            scope.spawn(move || {
                credentials.keep(&format!("r{at}.test"), &Credential::basic("u", "p")).unwrap()
            });
        }
    });
    for at in 0..16 {
        assert_eq!(shown(credentials.find(&format!("r{at}.test"), "x").unwrap()), "u p");
    }
    assert_eq!(fs::read_dir(home.at("docker")).unwrap().count(), 1);
}

#[test]
fn nothing_secret_is_shown() {
    let login = Credential::basic("u", "s3cret");
    let told = format!("{login:?} {:?}", Credential::IdentityToken(Secret::new("s3cret")));
    assert!(!told.contains("s3cret") && told.contains("***"), "{told}");
}
