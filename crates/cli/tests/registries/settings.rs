//! What files say about registries, seen from the registries: who is asked for what.

use std::fs;

use mica_testkit::{Certificates, FakeAuth, FakeOptions, FakeRegistry, Need, PASSWORD, TestImage, USER};

use crate::user::{AUTH, User};

/// A registry that has an image as `REPOSITORY:1`.
fn registry_with(image: &TestImage, repository: &str) -> FakeRegistry {
    let registry = FakeRegistry::new();
    image.put(&registry, repository, "1");
    registry
}

/// Repositories that a registry was asked for the manifests of.
fn asked_for(registry: &FakeRegistry) -> Vec<String> {
    let mut asked: Vec<String> = (registry.requests().iter())
        .filter_map(|request| {
            let path = request.path.strip_prefix("/v2/")?;
            path.split_once("/manifests/").map(|(repository, _)| repository.to_owned())
        })
        .collect();
    asked.sort();
    asked.dedup();
    asked
}

fn pull(user: &User, name: &str, code: i32) -> String {
    let root = user.at("store");
    let outcome = user.mica(&["--root", root.to_str().unwrap(), "pull", "-q", name], "");
    assert_eq!(outcome.code, code, "{name}: {outcome}");
    outcome.stdout + &outcome.stderr
}

#[test]
fn registries_conf_leads_as_it_leads_skopeo() {
    let image = TestImage::random(&[100], 1);
    let (empty, mirror) = (FakeRegistry::new(), registry_with(&image, "cache/team/app"));
    let (primary, far) = (registry_with(&image, "app"), registry_with(&image, "x/y"));
    let user = User::new();
    let conf = format!(
        "[[registry]]\nprefix = 'a.test/team'\nlocation = '{}'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = '{}/none'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = '{}/cache/team'\ninsecure = true\n\
         [[registry]]\nprefix = '*.b.test'\nlocation = '{}/x'\ninsecure = true\n\
         [[registry]]\nlocation = 'bad.test'\nblocked = true\n",
        primary.host(),
        empty.host(),
        mirror.host(),
        far.host(),
    );
    user.write("registries.conf", &conf);
    let all = [&empty, &mirror, &primary, &far];
    let check = |name: &str, code: i32| {
        let seen = |registries: [&FakeRegistry; 4]| registries.map(asked_for);
        pull(&user, name, code);
        let by_mica = seen(all);
        all.iter().for_each(|registry| registry.clear_requests());
        if let Some(reason) = mica_testkit::missing(&[Need::Tool("skopeo")]) {
            println!("skipped: {reason}");
            return by_mica;
        }
        let conf = user.expand("HOME/registries.conf");
        let image = format!("docker://{name}");
        let skopeo = user.program("skopeo", &["--registries-conf", &conf, "inspect", "--raw", &image]);
        let outcome = mica_testkit::run_bounded(skopeo, crate::user::DEADLINE);
        assert_eq!(outcome.code == 0, code == 0, "{name}: {outcome}");
        assert_eq!(by_mica, seen(all), "mica asks whom skopeo asks");
        all.iter().for_each(|registry| registry.clear_requests());
        by_mica
    };
    let list =
        |names: [&[&str]; 4]| names.map(|names| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    assert_eq!(check("a.test/team/app:1", 0), list([&["none/app"], &["cache/team/app"], &[], &[]]));
    // The mirrors do not have it, the primary location does.
    let other = TestImage::random(&[100], 2);
    other.put(&primary, "other", "1");
    assert_eq!(
        check("a.test/team/other:1", 0),
        list([&["none/other"], &["cache/team/other"], &["other"], &[]])
    );
    assert_eq!(check("deep.sub.b.test/y:1", 0), list([&[], &[], &[], &["x/y"]]));
    assert_eq!(check("bad.test/app:1", 1), list([&[], &[], &[], &[]]));
    let told = pull(&user, "bad.test/app:1", 1);
    assert!(
        told.contains(&user.expand("`bad.test/app:1` is blocked by `HOME/registries.conf`, line 15")),
        "{told}"
    );
}

#[test]
fn a_mirror_that_has_a_layer_wrong_is_left_for_the_registry() {
    let image = TestImage::random(&[5000], 4);
    let (mirror, primary) = (registry_with(&image, "app"), registry_with(&image, "app"));
    let layer = image.layers.first().expect("a layer");
    let mut spoilt = layer.blob.clone();
    if let Some(byte) = spoilt.last_mut() {
        *byte ^= 1;
    }
    let digest = format!("sha256:{}", mica_testkit::sha256(&layer.blob));
    mirror.put_blob_as("app", &digest, &spoilt);
    let user = User::new();
    let conf = format!(
        "[[registry]]\nprefix = 'a.test'\nlocation = '{}'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = '{}'\ninsecure = true\n",
        primary.host(),
        mirror.host(),
    );
    user.write("registries.conf", &conf);
    let told = pull(&user, "a.test/app:1", 0);
    let expect = format!("warning: mirror `{}` was passed over", mirror.host());
    assert!(told.contains(&expect) && told.contains(&digest), "{told}");
    // A name that nobody has: that the mirror was asked too is told.
    let told = pull(&user, "a.test/app:2", 1);
    assert!(told.contains(&format!("note: mirror `{}` was asked first", mirror.host())), "{told}");
}

#[test]
fn hosts_toml_names_hosts_headers_and_paths() {
    let image = TestImage::random(&[100], 3);
    let (mirror, server) = (FakeRegistry::new(), registry_with(&image, "team/app"));
    let user = User::new();
    let hosts = format!(
        "server = '{}'\n[host.'{}']\ncapabilities = ['pull', 'resolve']\n[host.'{}'.header]\nX-Test = ['one', 'two']\n",
        server.base_url(),
        mirror.base_url(),
        mirror.base_url(),
    );
    user.write(".config/containerd/certs.d/a.test/hosts.toml", &hosts);
    pull(&user, "a.test/team/app:1", 0);
    let asked = mirror.requests();
    let first = asked.first().expect("the mirror is asked first");
    assert_eq!(first.path, "/v2/team/app/manifests/1?ns=a.test");
    let headers: Vec<_> =
        first.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-test")).collect();
    assert_eq!(headers.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(
        server.requests().iter().all(|request| request.header("x-test").is_none()),
        "each header to its host"
    );
    assert!(asked_for(&server).first().is_some_and(|asked| asked.starts_with("team/app")));
}

#[test]
fn dockers_mirrors_stand_before_docker_hub() {
    let image = TestImage::random(&[100], 4);
    let (mirror, user) = (registry_with(&image, "library/thing"), User::new());
    let daemon = format!("{{\"registry-mirrors\": [\"{}\"]}}", mirror.base_url());
    user.write(".config/docker/daemon.json", &daemon);
    pull(&user, "thing:1", 0);
    assert_eq!(asked_for(&mirror), ["library/thing"]);
}

#[test]
fn certificates_of_a_directory_are_shown_and_trusted() {
    let certificates = Certificates::new();
    let options = FakeOptions {
        auth: FakeAuth::Basic,
        tls: Some(&certificates),
        client_certificate: true,
        ..FakeOptions::default()
    };
    let (registry, user) = (FakeRegistry::start(options), User::new());
    let image = TestImage::random(&[100], 5);
    image.put(&registry, "team/app", "1");
    let (host, name) = (registry.host(), format!("{}/team/app:1", registry.host()));
    let dir = format!(".config/containers/certs.d/{host}");
    let copy = |from: std::path::PathBuf, to: &str| {
        user.write(&format!("{dir}/{to}"), &fs::read_to_string(from).unwrap())
    };
    copy(certificates.authority(), "ca.crt");
    // It is trusted, but does not trust.
    pull(&user, &name, 1);
    copy(certificates.client(), "me.cert");
    copy(certificates.client_key(), "me.key");
    let login = ["login", "-u", USER, "--password-stdin", &host];
    assert_eq!(user.mica(&login, PASSWORD).code, 0);
    assert!(user.config().contains(AUTH));
    pull(&user, &name, 0);
    // docker's places are looked at, too.
    fs::create_dir_all(user.at(".docker/certs.d")).unwrap();
    fs::rename(user.at(&dir), user.at(&format!(".docker/certs.d/{host}"))).unwrap();
    pull(&user, &name, 0);
}

#[test]
fn short_names_stand_for_what_settings_say() {
    let image = TestImage::random(&[100], 6);
    let (one, two) = (FakeRegistry::new(), registry_with(&image, "tool"));
    let user = User::new();
    let conf = format!(
        "unqualified-search-registries = ['{}', '{}']\n[aliases]\nalias = '{}/tool'\n",
        one.host(),
        two.host(),
        two.host(),
    );
    user.write("registries.conf", &conf);
    pull(&user, "tool:1", 0);
    assert_eq!((asked_for(&one), asked_for(&two)), (vec!["tool".to_owned()], vec!["tool".to_owned()]));
    one.clear_requests();
    pull(&user, "alias:1", 0);
    assert_eq!(asked_for(&one), Vec::<String>::new());
}

#[test]
fn a_login_goes_to_its_registry_alone() {
    let options = || FakeOptions { auth: FakeAuth::Basic, ..FakeOptions::default() };
    let (mirror, server) = (FakeRegistry::start(options()), FakeRegistry::start(options()));
    let image = TestImage::random(&[100], 7);
    image.put(&server, "app", "1");
    let user = User::new();
    let conf = format!(
        "[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
        server.host(),
        mirror.host()
    );
    user.write("registries.conf", &conf);
    let auths = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{AUTH}\"}}}}}}", server.host());
    user.write(".docker/config.json", &auths);
    pull(&user, &format!("{}/app:1", server.host()), 0);
    assert!(!mirror.requests().is_empty());
    assert!(mirror.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(server.requests().iter().any(|request| request.header("authorization").is_some()));
}
