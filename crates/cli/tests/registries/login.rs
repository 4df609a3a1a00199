//! `login` and `logout`, against docker's registry, with skopeo and podman beside them, and on a terminal.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::time::{Duration, Instant};

use mica_testkit::{
    Certificates, DockerRegistry, DockerRegistryOptions, NEEDS_DOCKER_REGISTRY, Need, PASSWORD, USER,
    run_bounded,
};
use rustix::termios::LocalModes;

use crate::needs;
use crate::user::{AUTH, DEADLINE, User};

const UNENCRYPTED: &str = "
WARNING! Your credentials are stored unencrypted in 'HOME/.docker/config.json'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/

";

fn with_login() -> DockerRegistry {
    DockerRegistry::start(DockerRegistryOptions { login: true, ..DockerRegistryOptions::default() })
}

#[test]
fn docker_registry_takes_a_login_and_mica_keeps_it() {
    needs!(NEEDS_DOCKER_REGISTRY);
    let (registry, user) = (with_login(), User::new());
    let host = registry.host();
    let stdin = ["login", "-u", USER, "--password-stdin", &host];
    user.check(&stdin, "swordfish\r\n", 0, "Login Succeeded\n", UNENCRYPTED);
    let expect =
        format!("{{\n\t\"auths\": {{\n\t\t\"{host}\": {{\n\t\t\t\"auth\": \"{AUTH}\"\n\t\t}}\n\t}}\n}}");
    assert_eq!(user.config(), expect);
    assert_eq!(fs::metadata(user.at(".docker/config.json")).unwrap().permissions().mode() & 0o777, 0o600);
    let again = "Authenticating with existing credentials... [Username: tester]\nTo login with a different account, run 'docker \
         logout' followed by 'docker login'\n\nLogin Succeeded\n";
    user.check(&["login", &host], "", 0, again, UNENCRYPTED);
    // A wrong one changes nothing.
    let wrong = user.mica(&["login", "-u", USER, "--password-stdin", &host], "wrong");
    assert!(
        wrong.code == 1
            && wrong.stderr.contains("incorrect username or password")
            && wrong.stderr.contains(&host),
        "{wrong}"
    );
    assert_eq!((wrong.stdout.as_str(), user.config()), ("", expect));
    let insecure = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n";
    let url = format!("http://{host}/v2/");
    user.check(
        &["login", "-u", USER, "-p", PASSWORD, &url],
        "",
        0,
        "Login Succeeded\n",
        &format!("{insecure}{UNENCRYPTED}"),
    );
    user.check(&["logout", &url], "", 0, &format!("Removing login credentials for {host}\n"), "");
    assert_eq!(user.config(), "{\n\t\"auths\": {}\n}");
    user.check(&["logout", &host], "", 0, &format!("Not logged in to {host}\n"), "");
    user.check(&["logout"], "", 0, "Not logged in to https://index.docker.io/v1/\n", "");
}

#[test]
fn wrong_calls_are_told_in_dockers_words() {
    let user = User::new();
    let check = |arguments: &[&str], stdin: &str, stderr: &str| user.check(arguments, stdin, 1, "", stderr);
    let no_terminal = "error: Cannot perform an interactive login from a non TTY device\n\
                       hint: give `--username USER`, and the password to `--password-stdin`\n";
    check(&["login"], "", no_terminal);
    check(&["login", "-u", "u", "a.test"], "", no_terminal);
    check(
        &["login", "--password-stdin", "a.test"],
        "x",
        "error: Must provide --username with --password-stdin\n",
    );
    check(&["login", "-u", "u", "--password-stdin", "a.test"], "\n", "error: password is empty\n");
    let insecure = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n";
    check(
        &["login", "-u", "u", "-p", "s3cret", "--password-stdin"],
        "",
        &format!("{insecure}error: --password and --password-stdin are mutually exclusive\n"),
    );
    check(
        &["login", "not a host"],
        "",
        "error: `not a host` is not a registry: expected a host, with a port if need be\n",
    );
    let long = user.mica(&["login", "-u", "u", "--password-stdin"], &"x".repeat(70_000));
    assert!(long.code == 1 && long.stderr.contains("more than 65536 bytes"), "{long}");
    user.write("registries.conf", "[[registry]]\nlocation = 'bad.test'\nblocked = true\n");
    check(
        &["login", "-u", "u", "--password-stdin", "bad.test"],
        "x",
        "error: `bad.test` is blocked by `HOME/registries.conf`, line 1\n\
         hint: line 1 of `HOME/registries.conf` says so: `blocked = false` there allows it\n",
    );
    assert_eq!(user.config(), "");
    user.write(".docker/config.json", "{broken");
    let broken = user.mica(&["login", "a.test"], "");
    assert!(broken.code == 1 && broken.stderr.contains("config.json`, line 1: invalid JSON"), "{broken}");
    assert_eq!(user.config(), "{broken");
}

#[test]
fn a_helper_keeps_the_login() {
    needs!(NEEDS_DOCKER_REGISTRY);
    let (registry, user) = (with_login(), User::new());
    let host = registry.host();
    user.write(".docker/config.json", &format!("{{\"credHelpers\": {{\"{host}\": \"file\"}}}}"));
    user.write(
        "source",
        "#!/bin/sh\ncd \"$HOME\" || exit 1\ncase $1 in\nstore) cat > kept;;\nget) cat kept 2>/dev/null || { echo credentials not \
         found; exit 1; };;\nerase) rm kept;;\nesac\n",
    );
    fs::create_dir(user.at("bin")).unwrap();
    // By another process: a file that is open for writing somewhere cannot be executed.
    user.ok(
        "install",
        &["-m755", &user.expand("HOME/source"), &user.expand("HOME/bin/docker-credential-file")],
    );
    user.check(&["login", "-u", USER, "--password-stdin", &host], PASSWORD, 0, "Login Succeeded\n", "");
    let kept = fs::read_to_string(user.at("kept")).unwrap();
    assert_eq!(
        kept,
        format!("{{\"ServerURL\":\"{host}\",\"Username\":\"tester\",\"Secret\":\"swordfish\"}}")
    );
    assert!(!user.config().contains(AUTH), "{}", user.config());
    let again = user.mica(&["login", &host], "");
    assert!(
        again.code == 0 && again.stdout.ends_with("Login Succeeded\n") && again.stderr.is_empty(),
        "{again}"
    );
    user.check(&["logout", &host], "", 0, &format!("Removing login credentials for {host}\n"), "");
    assert!(!user.at("kept").exists());
}

#[test]
fn a_private_authority_is_trusted_where_settings_name_it() {
    needs!(NEEDS_DOCKER_REGISTRY);
    let certificates = Certificates::new();
    let options =
        DockerRegistryOptions { login: true, tls: Some(&certificates), ..DockerRegistryOptions::default() };
    let (registry, user) = (DockerRegistry::start(options), User::new());
    let host = registry.host();
    let login = ["login", "-u", USER, "--password-stdin", &host];
    // Someone else's authority is no help, and on loopback too a named authority counts.
    let stranger = Certificates::new();
    let place = format!(".config/containers/certs.d/{host}/ca.crt");
    user.write(&place, &fs::read_to_string(stranger.authority()).unwrap());
    let refused = user.mica(&login, PASSWORD);
    assert!(refused.code == 1 && user.config().is_empty(), "{refused}");
    user.write(&place, &fs::read_to_string(certificates.authority()).unwrap());
    user.check(&login, PASSWORD, 0, "Login Succeeded\n", UNENCRYPTED);
    // Without one, TLS on loopback is taken as it is.
    fs::remove_file(user.at(&place)).unwrap();
    user.check(&login, PASSWORD, 0, "Login Succeeded\n", UNENCRYPTED);
    fs::create_dir_all(user.at(".config/containerd/certs.d")).unwrap();
    let hosts = format!("server = \"https://{host}\"\nca = \"{}\"\n", certificates.authority().display());
    user.write(&format!(".config/containerd/certs.d/127.0.0.1_{}_/hosts.toml", registry.port()), &hosts);
    user.check(&login, PASSWORD, 0, "Login Succeeded\n", UNENCRYPTED);
}

#[test]
fn skopeo_and_podman_share_logins_with_mica() {
    needs!(NEEDS_DOCKER_REGISTRY, Need::Tool("skopeo"), Need::Tool("podman"));
    let (registry, user) = (with_login(), User::new());
    let host = registry.host();
    let auth_file = user.expand("HOME/.config/containers/auth.json");
    // skopeo writes, mica reads.
    let skopeo_login =
        ["login", "--tls-verify=false", "--authfile", &auth_file, "-u", USER, "-p", PASSWORD, &host];
    user.ok("skopeo", &skopeo_login);
    let found = user.mica(&["login", &host], "");
    assert!(found.stdout.contains("[Username: tester]") && found.code == 0, "{found}");
    // mica has kept it in docker's file now; skopeo and podman read that.
    assert!(user.config().contains(AUTH));
    fs::remove_file(&auth_file).unwrap();
    let logged_in = user.ok(
        "skopeo",
        &["login", "--get-login", "--authfile", &user.expand("HOME/.docker/config.json"), &host],
    );
    assert_eq!(logged_in.stdout.trim(), USER);
    let by_podman = user.ok("podman", &["login", "--get-login", &host]);
    assert_eq!(by_podman.stdout.trim(), USER);
    user.check(&["logout", &host], "", 0, &format!("Removing login credentials for {host}\n"), "");
    // podman writes where REGISTRY_AUTH_FILE says, for a part of the registry; mica writes there, too.
    let namespace = format!("{host}/team");
    let podman_login = ["login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, &namespace];
    let mut podman = user.program("podman", &podman_login);
    let done = run_bounded(
        {
            podman.env("REGISTRY_AUTH_FILE", &auth_file);
            podman
        },
        DEADLINE,
    );
    assert_eq!(done.code, 0, "{done}");
    user.write("stdin", PASSWORD);
    let mut mica = user.command(&["login", "-u", USER, "--password-stdin", &host]);
    mica.env("REGISTRY_AUTH_FILE", &auth_file).stdin(File::open(user.at("stdin")).unwrap());
    let kept = run_bounded(mica, DEADLINE);
    assert!(kept.code == 0 && kept.stderr.contains("auth.json"), "{kept}");
    let text = fs::read_to_string(&auth_file).unwrap();
    assert!(
        text.contains(&format!("\"{namespace}\": {{")) && text.contains(&format!("\"{host}\": {{")),
        "{text}"
    );
    let read = user.ok("skopeo", &["login", "--get-login", "--authfile", &auth_file, &host]);
    assert_eq!(read.stdout.trim(), USER);
}

/// A terminal with `mica login` on it.
struct Terminal {
    outer: File,
    seen: String,
    child: Child,
}

impl Terminal {
    fn start(user: &User, arguments: &[&str]) -> Terminal {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&outer).unwrap();
        unlockpt(&outer).unwrap();
        let name = ptsname(&outer, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let inner: OwnedFd = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        // `setsid` makes it the terminal that Ctrl-C comes from, and becomes mica.
        let mica = user.command(arguments);
        let mut words = vec!["-c", mica.get_program().to_str().unwrap()];
        words.extend(arguments);
        let mut command = mica_testkit::with_interrupt(&user.program("setsid", &words));
        command.stdin(inner.try_clone().unwrap()).stdout(inner.try_clone().unwrap()).stderr(inner);
        let child = command.spawn().unwrap();
        rustix::io::ioctl_fionbio(&outer, true).unwrap();
        Terminal { outer: outer.into(), seen: String::new(), child }
    }

    fn wait<T>(&mut self, what: &str, mut found: impl FnMut(&mut Terminal) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut bytes = [0; 4096];
            while let Some(count) = self.outer.read(&mut bytes).ok().filter(|count| *count > 0) {
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} in {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it asks with echo on or off, and answers.
    fn answer(&mut self, question: &str, echo: bool, answer: &str) {
        self.wait(question, |it| (it.seen.contains(question) && it.echoes() == echo).then_some(()));
        self.outer.write_all(answer.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        rustix::termios::tcgetattr(&self.outer).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn end(&mut self) -> std::process::ExitStatus {
        self.wait("end", |it| it.child.try_wait().unwrap())
    }
}

#[test]
fn a_person_is_asked_and_the_password_is_not_shown() {
    needs!(NEEDS_DOCKER_REGISTRY, Need::Tool("setsid"));
    let (registry, user) = (with_login(), User::new());
    let host = registry.host();
    let mut terminal = Terminal::start(&user, &["login", &host]);
    terminal.answer("Username: ", true, "tester\n");
    terminal.answer("Password: ", false, "swordfish\n");
    assert!(terminal.end().success(), "{:?}", terminal.seen);
    let expect = format!("Username: tester\nPassword: \n{}Login Succeeded\n", user.expand(UNENCRYPTED));
    assert_eq!(terminal.seen.replace("\r\n", "\n"), expect);
    assert!(terminal.echoes(), "the terminal shows again what is typed");
    assert!(user.config().contains(AUTH));
    // A login that the registry has forgotten: asked again.
    user.write(
        ".docker/config.json",
        &format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"dGVzdGVyOm9sZA==\"}}}}}}"),
    );
    let mut terminal = Terminal::start(&user, &["login", &host]);
    terminal.answer("Stored credentials invalid or expired", true, "");
    terminal.answer("Username: ", true, "tester\n");
    terminal.answer("Password: ", false, "swordfish\n");
    assert!(terminal.end().success(), "{:?}", terminal.seen);
    // Nothing is no name.
    let mut terminal = Terminal::start(&user, &["login", "other.test"]);
    terminal.answer("Username: ", true, "\n");
    assert_eq!(terminal.end().code(), Some(1));
    assert!(terminal.seen.contains("error: username is required"), "{:?}", terminal.seen);
}

#[test]
fn a_signal_at_the_prompt_leaves_the_terminal_as_it_was() {
    needs!(Need::Tool("setsid"));
    let user = User::new();
    let end = |how: &dyn Fn(&mut Terminal)| {
        let mut terminal = Terminal::start(&user, &["login", "-u", "u", "a.test"]);
        terminal.answer("Password: ", false, "half");
        how(&mut terminal);
        let status = terminal.end();
        assert!(terminal.echoes(), "{:?}", terminal.seen);
        assert!(!terminal.seen.contains("half"), "{:?}", terminal.seen);
        std::os::unix::process::ExitStatusExt::signal(&status)
    };
    assert_eq!(end(&|terminal| terminal.outer.write_all(b"\x03").unwrap()), Some(2));
    let terminate = |terminal: &mut Terminal| {
        let pid = rustix::process::Pid::from_child(&terminal.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    };
    assert_eq!(end(&terminate), Some(15));
    // The end of input is no password.
    let mut terminal = Terminal::start(&user, &["login", "-u", "u", "a.test"]);
    terminal.answer("Password: ", false, "\x04");
    assert_eq!(terminal.end().code(), Some(1));
    assert!(
        terminal.echoes() && terminal.seen.contains("error: password is required"),
        "{:?}",
        terminal.seen
    );
}
