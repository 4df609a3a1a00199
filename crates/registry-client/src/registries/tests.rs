//! Tables: settings files in, endpoints out.

use std::fs;
use std::path::Path;

use super::*;
use crate::endpoint::Scheme;

/// A machine with these files.
struct Machine {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Machine {
    fn new(files: &[(&str, &str)]) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in files {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        }
        let paths = Paths {
            registries_conf: vec![at("user.conf"), at("registries.conf")],
            registries_conf_named_by: None,
            registries_conf_d: vec![at("conf.d"), at("user.conf.d")],
            registries_conf_of_user: Some(at("user.conf")),
            certs_d: vec![at("user.certs.d"), at("certs.d")],
            docker_daemon: vec![at("daemon.json")],
        };
        Machine { dir, paths }
    }

    fn read(&self) -> Result<Registries> {
        Registries::read(self.paths.clone())
    }

    /// Endpoints in one line each: schemes, host, path, repository, and what is special.
    fn endpoints(&self, reference: &str, purpose: Purpose) -> Result<Vec<String>> {
        let found = self.read()?.endpoints(&Reference::parse(reference).unwrap(), purpose)?;
        Ok(found.iter().map(|endpoint| shown(endpoint, self.dir.path())).collect())
    }

    fn check(&self, reference: &str, purpose: Purpose, expect: &[&str]) {
        assert_eq!(self.endpoints(reference, purpose).unwrap(), expect, "{reference} {purpose:?}");
    }

    fn check_error(&self, result: Result<impl std::fmt::Debug>, expect: &str) {
        let dir = format!("{}/", self.dir.path().display());
        assert_eq!(result.unwrap_err().to_string().replace(&dir, ""), expect);
    }
}

fn shown(endpoint: &Endpoint, dir: &Path) -> String {
    let mut text = String::new();
    for scheme in &endpoint.schemes {
        text += if *scheme == Scheme::Http { "http " } else { "https " };
    }
    text += &format!("{}{}/{}", endpoint.host, endpoint.path, endpoint.repository);
    let bare = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    let mut add = |condition: bool, word: String| {
        if condition {
            text += &format!(" {word}");
        }
    };
    add(endpoint.is_mirror, "mirror".to_owned());
    add(endpoint.tls.skip_verify, "unverified".to_owned());
    add(endpoint.namespace.is_some(), format!("ns={}", endpoint.namespace.as_deref().unwrap_or_default()));
    add(endpoint.credentials_host != endpoint.host, format!("as {}", endpoint.credentials_host));
    for authority in &endpoint.tls.authorities {
        add(true, format!("ca={}", bare(authority)));
    }
    for pair in &endpoint.tls.client_certificates {
        add(
            true,
            format!(
                "client={},{}",
                bare(&pair.certificate),
                pair.key.as_deref().map(bare).unwrap_or_default()
            ),
        );
    }
    for (name, value) in &endpoint.headers {
        add(true, format!("{name}:{value}"));
    }
    text
}

const HUB: &str = "https registry-1.docker.io/v2/library/debian as docker.io";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
use Purpose::{Pull, Push, Resolve};

#[test]
fn without_files_defaults_hold() {
    let machine = Machine::new(&[]);
    machine.check("debian", Pull, &[HUB]);
    machine.check("quay.io/a/b:1", Push, &["https quay.io/v2/a/b"]);
    machine.check("localhost:5000/a", Resolve, &["http https localhost:5000/v2/a unverified"]);
    assert_eq!(Registries::default().endpoint_of("docker.io").unwrap().host, "registry-1.docker.io");
    assert_eq!(Registries::default().endpoint_of("https://quay.io/x").unwrap().repository, "");
}

#[test]
fn the_longest_prefix_decides() {
    let machine = Machine::new(&[(
        "registries.conf",
        r#"
unknown-key = 1
[[registry]]
prefix = "example.com"
location = "a.test"
[[registry]]
prefix = "example.com/foo"
location = "b.test/bar"
[[registry]]
prefix = "example.com/foo/deep:1"
location = "c.test/one:1"
[[registry]]
prefix = "*.example.com"
location = "d.test:5000/all"
[[registry]]
prefix = "*.sub.example.com"
insecure = true
[[registry]]
location = "same.test"
insecure = true
"#,
    )]);
    machine.check("example.com/x:1", Pull, &["https a.test/v2/x"]);
    machine.check("example.com/foo/x/y:1", Pull, &["https b.test/v2/bar/x/y"]);
    machine.check("example.com/foo:1", Pull, &["https b.test/v2/bar"]);
    machine.check("example.com/foobar:1", Pull, &["https a.test/v2/foobar"]);
    machine.check("example.com/foo/deep:1", Pull, &["https c.test/v2/one"]);
    machine.check("example.com/foo/deep:12", Pull, &["https b.test/v2/bar/deep"]);
    machine.check("x.example.com/i:1", Pull, &["https d.test:5000/v2/all/i"]);
    machine.check("x.y.example.com:80/i:1", Pull, &["https d.test:5000/v2/all/i"]);
}

#[test]
fn wildcards_and_ports() {
    let conf = "[[registry]]\nprefix = \"*.example.com\"\ninsecure = true\n[[registry]]\nlocation = \"example.com\"\ninsecure = true";
    let machine = Machine::new(&[("registries.conf", conf)]);
    machine.check("x.example.com/i:1", Pull, &["https http x.example.com/v2/i unverified"]);
    machine.check("x.y.example.com:5000/i", Push, &["https http x.y.example.com:5000/v2/i unverified"]);
    machine.check("example.com/i", Push, &["https http example.com/v2/i unverified"]);
    // Another port is another registry, and another end another domain.
    machine.check("example.com:5000/i", Push, &["https example.com:5000/v2/i"]);
    machine.check("badexample.com/i", Push, &["https badexample.com/v2/i"]);
    machine.check("x.example.com.evil.test/i", Push, &["https x.example.com.evil.test/v2/i"]);
    machine.check("evil.test/x.example.com/i", Push, &["https evil.test/v2/x.example.com/i"]);
}

#[test]
fn mirrors_come_first_for_what_they_are_for() {
    let machine = Machine::new(&[(
        "registries.conf",
        r#"
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "m1.test/hub"
[[registry.mirror]]
location = "m2.test"
insecure = true
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "localhost:5000"
pull-from-mirror = "tag-only"
[[registry]]
location = "only.test"
mirror-by-digest-only = true
insecure = false
[[registry.mirror]]
location = "m3.test"
"#,
    )]);
    let by_tag = &[
        "https m1.test/v2/hub/library/debian mirror",
        "http https localhost:5000/v2/library/debian mirror unverified",
        HUB,
    ];
    machine.check("debian:12", Pull, by_tag);
    machine.check("debian:12", Resolve, by_tag);
    let by_digest = &[
        "https m1.test/v2/hub/library/debian mirror",
        "https http m2.test/v2/library/debian mirror unverified",
        HUB,
    ];
    machine.check(&format!("debian@{DIGEST}"), Pull, by_digest);
    machine.check(&format!("debian:12@{DIGEST}"), Pull, by_digest);
    // What is sent goes where its name says.
    machine.check("debian:12", Push, &[HUB]);
    machine.check("only.test/a:1", Pull, &["https only.test/v2/a"]);
    machine.check(
        &format!("only.test/a@{DIGEST}"),
        Pull,
        &["https m3.test/v2/a mirror", "https only.test/v2/a"],
    );
}

#[test]
fn blocked_names_say_where() {
    let conf =
        "\n[[registry]]\nlocation = \"bad.test\"\nblocked = true\n[[registry]]\nlocation = \"bad.test/good\"";
    let machine = Machine::new(&[("registries.conf", conf)]);
    let told = |name: &str| format!("`{name}` is blocked by `registries.conf`, line 2");
    for purpose in [Pull, Push, Resolve] {
        machine.check_error(machine.endpoints("bad.test/a:1", purpose), &told("bad.test/a:1"));
    }
    machine.check_error(machine.read().unwrap().endpoint_of("bad.test"), &told("bad.test"));
    machine.check("bad.test/good/a", Pull, &["https bad.test/v2/good/a"]);
}

#[test]
fn wrong_settings_name_file_and_line() {
    let check = |conf: &str, expect: &str| {
        let machine = Machine::new(&[("registries.conf", conf)]);
        machine.check_error(machine.read(), &format!("`registries.conf`, {expect}"));
    };
    check("a = 1\nb = ", "line 2: invalid TOML: string values must be quoted, expected literal string");
    check("\nregistry = 1", "line 2: `registry` must be an array of tables");
    check("[[registry]]\nlocation = 1", "line 2: `location` must be a string");
    check("[[registry]]\nlocation = 'a'\ninsecure = 'yes'", "line 3: `insecure` must be true or false");
    check(
        "\n[[registry]]\ninsecure = true",
        "line 2: `prefix` is missing: it says which names the table is about",
    );
    check(
        "\n[[registry]]\nprefix = 'a.test'",
        "line 2: `location` is missing: it says where the names with this prefix are",
    );
    check(
        "[[registry]]\nlocation = 'https://a.test'",
        "line 2: `location` must be a host, with or without a path, and no scheme, found `https://a.test`",
    );
    check(
        "[[registry]]\nprefix = 'a.*.test'\nlocation = 'b'",
        "line 1: `prefix` must be `*.` and a domain if it has a `*`, found `a.*.test`",
    );
    check(
        "[[registry]]\nprefix = '*.a.test/x'\nlocation = 'b'",
        "line 1: `prefix` must be `*.` and a domain if it has a `*`, found `*.a.test/x`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\n[[registry.mirror]]\ninsecure = true",
        "line 3: `location` is missing: it says where the mirror is",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'x'",
        "line 5: `pull-from-mirror` must be `all`, `digest-only` or `tag-only`, found `x`",
    );
    check(
        "[[registry]]\nlocation = 'a.test'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'all'",
        "line 6: `pull-from-mirror` cannot stand together with `mirror-by-digest-only`",
    );
    check(
        "unqualified-search-registries = 'a'",
        "line 1: `unqualified-search-registries` must be an array of strings",
    );
    check(
        "unqualified-search-registries = [\n'a.test/b']",
        "line 2: `unqualified-search-registries` must be hosts, with a port if need be, found `a.test/b`",
    );
    check("[aliases]\na = 1", "line 2: `a` must be a string");
    check(
        "unqualified-search-registries = ['a.test']\n[registries.search]\nregistries = ['b.test']",
        "line 2: `registries` cannot stand together with `unqualified-search-registries`",
    );
}

#[test]
fn a_location_must_make_a_name() {
    let conf = "[[registry]]\nprefix = 'a.test'\nlocation = 'bare/x'\n[[registry]]\nprefix='b.test/x:1'\nlocation = 'c.test/x:2'";
    let machine = Machine::new(&[("registries.conf", conf)]);
    let told = |line, from: &str, to: &str| {
        format!(
            "`registries.conf`, line {line}: `{from}` becomes `{to}` here, which is not a full image name with the same tag and \
             digest"
        )
    };
    machine.check_error(machine.endpoints("a.test/i:1", Pull), &told(1, "a.test/i:1", "bare/x/i:1"));
    machine.check_error(machine.endpoints("b.test/x:1", Pull), &told(4, "b.test/x:1", "c.test/x:2"));
}

#[test]
fn version_1_is_read_where_podman_reads_it() {
    let old = "[registries.search]\nregistries = ['s.test']\n[registries.insecure]\nregistries = ['i.test', 'both.test']\n\
               [registries.block]\nregistries = ['both.test']";
    let machine = Machine::new(&[("registries.conf", old)]);
    machine.check("i.test/a", Pull, &["https http i.test/v2/a unverified"]);
    machine.check_error(
        machine.endpoints("both.test/a", Pull),
        "`both.test/a` is blocked by `registries.conf`, line 4",
    );
    assert_eq!(machine.read().unwrap().candidates("a/b:1").unwrap()[0].canonical(), "s.test/a/b:1");
    let machine = Machine::new(&[("conf.d/a.conf", old)]);
    machine.check_error(
        machine.read(),
        "`conf.d/a.conf`, line 1: `registries` cannot stand together with `version 2`",
    );
}

#[test]
fn drop_ins_and_users_files_count_more() {
    let insecure = |value: bool| format!("[[registry]]\nlocation = 'a.test'\ninsecure = {value}");
    let (yes, no) = (insecure(true), insecure(false));
    let check = |files: &[(&str, &str)], expect_insecure: bool| {
        let machine = Machine::new(files);
        let expect = ["https a.test/v2/i", "https http a.test/v2/i unverified"][usize::from(expect_insecure)];
        machine.check("a.test/i", Pull, &[expect]);
    };
    check(&[("registries.conf", &no)], false);
    check(&[("registries.conf", &no), ("conf.d/a.conf", &yes)], true);
    check(&[("registries.conf", &no), ("conf.d/a.confused", &yes)], false);
    check(&[("conf.d/b.conf", &yes), ("conf.d/a.conf", &no)], true);
    check(&[("conf.d/a.conf", &no), ("user.conf.d/a.conf", &yes)], true);
    check(&[("registries.conf", &yes), ("user.conf", &no)], false);
    // The user's file stands alone with the user's drop-ins.
    check(&[("user.conf", ""), ("conf.d/a.conf", &yes)], false);
    check(&[("user.conf", ""), ("user.conf.d/a.conf", &yes)], true);
}

#[test]
fn short_names() {
    let machine = Machine::new(&[
        (
            "registries.conf",
            "unqualified-search-registries = ['one.test', 'docker.io', 'localhost:5000']\n[aliases]\n\
             fedora = 'registry.fedoraproject.org/fedora'\n'my/tool' = 'quay.io/my/tool'\ngone = 'x.test/gone'\nodd = 'x/y'",
        ),
        ("conf.d/a.conf", "[aliases]\ngone = ''"),
    ]);
    let registries = machine.read().unwrap();
    let check = |written: &str, expect: &[&str]| {
        let found = registries.candidates(written).unwrap();
        let found: Vec<_> = found.iter().map(Reference::canonical).collect();
        assert_eq!(found, expect, "{written}");
    };
    check("fedora", &["registry.fedoraproject.org/fedora"]);
    check("fedora:41", &["registry.fedoraproject.org/fedora:41"]);
    check(&format!("fedora:41@{DIGEST}"), &[&format!("registry.fedoraproject.org/fedora:41@{DIGEST}")]);
    check("my/tool:1", &["quay.io/my/tool:1"]);
    check("gone:1", &["one.test/gone:1", "docker.io/library/gone:1", "localhost:5000/gone:1"]);
    check("docker.io/fedora", &["docker.io/library/fedora"]);
    check("index.docker.io/a/b", &["docker.io/a/b"]);
    check("quay.io/fedora", &["quay.io/fedora"]);
    machine.check_error(
        registries.candidates("odd"),
        "`registries.conf`, line 6: `aliases` must be full image names without tag and digest, found `x/y`",
    );
    assert!(registries.candidates("Bad Name").is_err());
    let nothing = Registries::default().candidates("debian:1").unwrap();
    assert_eq!(nothing[0].canonical(), "docker.io/library/debian:1");
}

#[test]
fn hosts_toml_lists_hosts_in_order() {
    let machine = Machine::new(&[(
        "certs.d/a.test_5000_/hosts.toml",
        r#"
server = "https://real.test/base"
ca = "root.pem"
[host."https://z.test"]
  capabilities = ["pull"]
  ca = ["one.pem", "/two.pem"]
  client = [["c.pem", "k.pem"], "both.pem"]
[host."http://b.test:80/v2/"]
  skip_verify = true
  [host."http://b.test:80/v2/".header]
    x-one = "1"
    x-two = ["2", "3"]
[host."http://c.test/api/v1"]
  capabilities = ["pull", "resolve", "PUSH"]
  override_path = true
[host."d.test/x"]
  skip_verify = true
  unknown = 1
"#,
    )]);
    let dir = "certs.d/a.test_5000_";
    let z = format!(
        "https z.test/v2/i mirror ns=a.test:5000 ca={dir}/one.pem ca=/two.pem client={dir}/c.pem,{dir}/k.pem client={dir}/both.pem,"
    );
    let b = "http b.test:80/v2/i mirror unverified ns=a.test:5000 x-one:1 x-two:2 x-two:3";
    let c = "http c.test/api/v1/i mirror ns=a.test:5000";
    let d = "https d.test/x/v2/i mirror unverified ns=a.test:5000";
    let server = format!("https real.test/base/v2/i ns=a.test:5000 as a.test:5000 ca={dir}/root.pem");
    machine.check("a.test:5000/i", Pull, &[&z, b, c, d, &server]);
    machine.check("a.test:5000/i", Resolve, &[b, c, d, &server]);
    machine.check("a.test:5000/i", Push, &[c, &server]);
    // Another port is another registry.
    machine.check("a.test/i", Pull, &["https a.test/v2/i"]);
    let login = machine.read().unwrap().endpoint_of("a.test:5000").unwrap();
    assert_eq!(shown(&login, machine.dir.path()), server.replace("/v2/i", "/v2/"));
}

#[test]
fn hosts_toml_without_server_is_about_the_registry_itself() {
    let machine = Machine::new(&[
        ("certs.d/docker.io/hosts.toml", "[host.'https://mirror.test']\n[header]\na = 'b'"),
        ("certs.d/self.test/hosts.toml", "skip_verify = true\nca = 'x.pem'"),
        ("certs.d/_default/hosts.toml", "[host.'http://127.0.0.1:9']"),
        ("certs.d/localhost:5000/hosts.toml", "server = 'http://localhost:5000'\nskip_verify = true"),
        ("certs.d/none.test/hosts.toml", "server = 'https://none.test'\ncapabilities = ['pull']"),
        ("user.certs.d/first.test/hosts.toml", "server = 'https://user.test'"),
        ("certs.d/first.test/hosts.toml", "server = 'https://system.test'"),
    ]);
    let mirror = "https mirror.test/v2/library/debian mirror ns=docker.io";
    let hub = "https registry-1.docker.io/v2/library/debian as docker.io a:b";
    machine.check("debian", Pull, &[mirror, hub]);
    machine.check("debian", Push, &[hub]);
    machine.check("self.test/i", Pull, &["https self.test/v2/i unverified ca=certs.d/self.test/x.pem"]);
    machine.check(
        "other.test/i",
        Pull,
        &["http 127.0.0.1:9/v2/i mirror ns=other.test", "https other.test/v2/i"],
    );
    machine.check("localhost:5000/i", Pull, &["https http localhost:5000/v2/i unverified"]);
    machine.check("first.test/i", Pull, &["https user.test/v2/i ns=first.test as first.test"]);
    machine.check("none.test/i", Pull, &["https none.test/v2/i"]);
    machine.check_error(
        machine.endpoints("none.test/i", Push),
        "`certs.d/none.test/hosts.toml` names no host of `none.test` that can push",
    );
}

#[test]
fn wrong_hosts_files_name_file_and_line() {
    let check = |text: &str, expect: &str| {
        let machine = Machine::new(&[("certs.d/a.test/hosts.toml", text)]);
        let expect = format!("`certs.d/a.test/hosts.toml`, {expect}");
        machine.check_error(machine.endpoints("a.test/i", Pull), &expect);
    };
    check("server = 1", "line 1: `server` must be a string");
    check("\nserver = 'https://'", "line 2: `server` must be the URL of a host, found `https://`");
    check(
        "server = 'https://u:pw@h.test'",
        "line 1: `server` must be the URL of a host, found `https://***@h.test`",
    );
    check(
        "server = 'https://h.test/a/../b'",
        "line 1: `server` must be the URL of a host, found `https://h.test/a/../b`",
    );
    check("[host.'ftp://x.test']", "line 1: `server` must be the URL of a host, found `ftp://x.test`");
    check("host = 1", "line 1: `host` must be a table");
    check("[host]\n'https://x.test' = 1", "line 2: `https://x.test` must be a table");
    check(
        "capabilities = ['pul']",
        "line 1: `capabilities` must be `pull`, `resolve` or `push`, found `pul`",
    );
    check("ca = 1", "line 1: `ca` must be a string or an array of strings");
    check(
        "client = [['a']]",
        "line 1: `client` must be a file, an array of files, or an array of pairs of files",
    );
    check("skip_verify = 'x'", "line 1: `skip_verify` must be true or false");
    // A header's value is nobody's business.
    check(
        "[header]\nAuthorization = {a = 's3cret'}",
        "line 2: `Authorization` must be a string or an array of strings",
    );
    check(
        "[header]\nAuthorization = Basic s3cret",
        "line 2: invalid TOML: string values must be quoted, expected literal string",
    );
}

#[test]
fn certificates_of_directories_count_together() {
    let machine = Machine::new(&[
        ("certs.d/a.test:5000/ca.crt", ""),
        ("certs.d/a.test:5000/client.cert", ""),
        ("certs.d/a.test:5000/client.key", ""),
        ("certs.d/a.test:5000/lonely.cert", ""),
        ("certs.d/a.test:5000/README", ""),
        ("user.certs.d/a.test:5000/own.crt", ""),
        ("certs.d/localhost:5000/ca.crt", ""),
        ("certs.d/docker.io/ca.crt", ""),
    ]);
    let dir = "certs.d/a.test:5000";
    let expect = format!(
        "https a.test:5000/v2/i ca=user.{dir}/own.crt ca={dir}/ca.crt client={dir}/client.cert,{dir}/client.key \
         client={dir}/lonely.cert,"
    );
    machine.check("a.test:5000/i", Push, &[&expect]);
    machine.check("localhost:5000/i", Push, &["https localhost:5000/v2/i ca=certs.d/localhost:5000/ca.crt"]);
    machine.check("debian", Push, &[&format!("{HUB} ca=certs.d/docker.io/ca.crt")]);
}

#[test]
fn dockers_daemon_settings_hold_where_nothing_else_is_said() {
    let daemon = r#"{"insecure-registries": ["i.test:5000", "10.0.0.0/8", "fd00::/8", "http://u.test"], "data-root": 1,
        "registry-mirrors": ["https://m.test", "http://10.1.2.3:5000/x/"]}"#;
    let machine = Machine::new(&[("daemon.json", daemon)]);
    let mirrors =
        ["https m.test/v2/library/debian mirror", "http 10.1.2.3:5000/x/v2/library/debian mirror unverified"];
    machine.check("debian", Pull, &[mirrors[0], mirrors[1], HUB]);
    machine.check("debian", Push, &[HUB]);
    machine.check("i.test:5000/a", Pull, &["https http i.test:5000/v2/a unverified"]);
    machine.check("i.test/a", Pull, &["https i.test/v2/a"]);
    machine.check("u.test/a", Pull, &["https http u.test/v2/a unverified"]);
    machine.check("10.200.0.1:5000/a", Pull, &["https http 10.200.0.1:5000/v2/a unverified"]);
    machine.check("11.0.0.1:5000/a", Pull, &["https 11.0.0.1:5000/v2/a"]);
    machine.check("[fd00::1]:5000/a", Pull, &["https http [fd00::1]:5000/v2/a unverified"]);
    machine.check("[fe00::1]:5000/a", Pull, &["https [fe00::1]:5000/v2/a"]);
    let machine = Machine::new(&[
        ("daemon.json", daemon),
        ("registries.conf", "[[registry]]\nlocation = 'i.test:5000'\ninsecure = false"),
        ("certs.d/docker.io/hosts.toml", "server = 'https://registry-1.docker.io'"),
    ]);
    machine.check("i.test:5000/a", Pull, &["https i.test:5000/v2/a"]);
    machine.check("debian", Pull, &[HUB]);
    let check = |text: &str, expect: &str| {
        let machine = Machine::new(&[("daemon.json", text)]);
        machine.check_error(machine.read(), &format!("`daemon.json`, {expect}"));
    };
    check("{\n]", "line 2: invalid JSON: key must be a string at line 2 column 1");
    check(
        "{\n\"insecure-registries\": [\"a b\"]}",
        "line 2: `insecure-registries` must be hosts, with a port if need be, and networks, found `a b`",
    );
    check(
        "{\"insecure-registries\": [\"10.0.0.0/33\"]}",
        "line 1: `insecure-registries` must be hosts, with a port if need be, and networks, found `10.0.0.0/33`",
    );
    check("{\"registry-mirrors\": [\"m.test\"]}", "line 1: `registry-mirrors` must be URLs, found `m.test`");
}

#[test]
fn odd_files_are_refused_or_harmless() {
    let machine = Machine::new(&[("registries.conf/inside", "")]);
    machine.check_error(machine.read(), "`registries.conf`: not a regular file");
    let machine = Machine::new(&[("registries.conf", &"#".repeat(2 << 20))]);
    machine.check_error(machine.read(), "`registries.conf`: larger than 1048576 bytes");
    let machine = Machine::new(&[]);
    fs::write(machine.dir.path().join("registries.conf"), [0xff]).unwrap();
    machine.check_error(machine.read(), "`registries.conf`: not UTF-8 text");
    fs::remove_file(machine.dir.path().join("registries.conf")).unwrap();
    let fifo =
        rustix::fs::mkfifoat(rustix::fs::CWD, machine.dir.path().join("registries.conf"), 0o600.into());
    fifo.unwrap();
    machine.check_error(machine.read(), "`registries.conf`: not a regular file");
    // A directory of drop-ins may be a file, a drop-in a directory.
    let machine = Machine::new(&[("conf.d", ""), ("certs.d", ""), ("daemon.json", " ")]);
    machine.check("a.test/i", Pull, &["https a.test/v2/i"]);
    let machine = Machine::new(&[]);
    let paths = Paths { registries_conf: vec!["/dev/null".into()], ..machine.paths.clone() };
    assert!(Registries::read(paths).unwrap().endpoint_of("a.test").is_ok());
    let named = Some("CONTAINERS_REGISTRIES_CONF");
    let paths = Paths { registries_conf_named_by: named, ..machine.paths.clone() };
    machine.check_error(
        Registries::read(paths),
        "`user.conf`: there is no such file, but `CONTAINERS_REGISTRIES_CONF` names it",
    );
    // Deep nesting does not end the program.
    let machine = Machine::new(&[("registries.conf", &format!("a = {}", "[".repeat(500_000)))]);
    assert!(machine.read().is_err());
    let machine = Machine::new(&[("daemon.json", &"[".repeat(500_000))]);
    assert!(machine.read().is_err());
}

#[test]
fn a_flag_makes_one_registry_insecure_for_one_command() {
    let machine = Machine::new(&[("registries.conf", "[[registry]]\nlocation = 'a.test'\ninsecure = false")]);
    let secure = machine.read().unwrap();
    let insecure = secure.clone().with_insecure("a.test");
    let endpoint = |registries: &Registries, reference: &str| {
        let reference = Reference::parse(reference).unwrap();
        registries.endpoints(&reference, Purpose::Push).unwrap().remove(0)
    };
    assert!(!endpoint(&secure, "a.test/x").tls.skip_verify);
    let told = endpoint(&insecure, "a.test/x");
    assert!(told.tls.skip_verify && told.schemes.contains(&Scheme::Http), "{told:?}");
    assert_eq!(endpoint(&insecure, "b.test/x"), endpoint(&secure, "b.test/x"));
}
