//! How a registry is reached: redirects, schemes, TLS, mirrors, proxies, names.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::*;
use mica_oci::Reference;
use mica_registry_client::{
    Client, Paths, Patience, Registries, RegistryError, Settings, TlsProblem, Warning,
};
use mica_testkit::{Certificates, FakeOptions, FakeRegistry, Fault, When};

#[test]
fn redirects_are_bounded() {
    let registry = FakeRegistry::new();
    let digest = put_manifest(&registry, &manifest());
    let path = |name: &str| format!("{}/v2/a/manifests/{name}", registry.base_url());
    for hop in 0..20 {
        let (from, to) = (format!("manifests/hop{hop}."), path(&format!("hop{}.", hop + 1)));
        registry.fault(When::get(&from), Fault::redirect(&to));
    }
    registry.fault(When::get("manifests/hop20."), Fault::redirect(&path("latest")));
    let ask = |name: &str| client().manifest(&reference(&registry, name));
    assert_eq!(ask("a:hop11.").unwrap().digest, digest);
    let error = ask("a:hop10.").unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
    registry.clear_faults();
    for location in ["ftp://127.0.0.1/", "http://[", "javascript:alert(1)"] {
        registry.fault(When::always(), Fault::redirect(location));
        let error = ask("a:latest").unwrap_err();
        assert!(matches!(error, RegistryError::Redirect { .. }), "{location}: {error:?}");
        registry.clear_faults();
    }
}

#[test]
fn what_is_asked_for_is_waited_for() {
    let registry = FakeRegistry::new();
    put_manifest(&registry, &manifest());
    let name = reference(&registry, "a:latest");
    registry.fault(When::always().once(), Fault::too_many_requests("1"));
    let begun = std::time::Instant::now();
    client().manifest(&name).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // More than anybody waits: said at once, with the time.
    registry.fault(When::always(), Fault::too_many_requests("3600"));
    registry.clear_requests();
    let error = client().manifest(&name).unwrap_err();
    assert!(matches!(error, RegistryError::TooManyRequests { retry_after_s: Some(3600), .. }), "{error:?}");
    assert_eq!(registry.requests().len(), 1);
}

#[test]
fn headers_without_end() {
    let registry = FakeRegistry::new();
    registry.fault(When::always(), Fault::EndlessHeaders);
    let error = client().manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{error:?}");
}

/// A client that knows the authority of loopback's registry on this port, and perhaps shows a certificate.
fn client_with_certificates(registry: &FakeRegistry, certificates: &Certificates, shows: bool) -> Client {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join(registry.host());
    std::fs::create_dir(&host).unwrap();
    let copy = |from: &Path, to: &str| std::fs::copy(from, host.join(to)).unwrap();
    copy(&certificates.authority(), "ca.crt");
    if shows {
        copy(&certificates.client(), "client.cert");
        copy(&certificates.client_key(), "client.key");
    }
    let paths = Paths { certs_d: vec![dir.path().to_owned()], ..Paths::default() };
    let registries = Registries::read(paths).unwrap();
    // TLS is built with the first request, so the files must outlive this call.
    std::mem::forget(dir);
    Client::new(Settings { registries, patience: hurry(), ..Settings::default() })
}

fn over_tls(certificates: &Certificates, client_certificate: bool) -> FakeRegistry {
    let options = FakeOptions { tls: Some(certificates), client_certificate, ..Default::default() };
    let registry = FakeRegistry::start(options);
    put_manifest(&registry, &manifest());
    registry
}

#[test]
fn private_authorities() {
    let certificates = Certificates::new();
    let registry = over_tls(&certificates, false);
    let name = reference(&registry, "a:latest");
    client_with_certificates(&registry, &certificates, false).manifest(&name).unwrap();
    // Another authority than the one that is trusted.
    let error = client_with_certificates(&registry, &Certificates::new(), false).manifest(&name).unwrap_err();
    let RegistryError::Tls { problem, host, .. } = &error else { panic!("{error:?}") };
    assert_eq!((problem, host), (&TlsProblem::UnknownAuthority, &registry.host()));
    assert!(error.to_string().contains("signed by an unknown authority"), "{error}");
}

#[test]
fn certificates_of_other_names() {
    let certificates = Certificates::for_names(&["elsewhere.example.com"]);
    let registry = over_tls(&certificates, false);
    let error = client_with_certificates(&registry, &certificates, false)
        .manifest(&reference(&registry, "a:latest"))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Tls { problem: TlsProblem::NameMismatch, .. }), "{error:?}");
}

#[test]
fn client_certificates() {
    let certificates = Certificates::new();
    let registry = over_tls(&certificates, true);
    let name = reference(&registry, "a:latest");
    client_with_certificates(&registry, &certificates, true).manifest(&name).unwrap();
    let error = client_with_certificates(&registry, &certificates, false).manifest(&name).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { problem: TlsProblem::ClientCertificate, .. }), "{error:?}");
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let certificates = Certificates::new();
    let registry = over_tls(&certificates, false);
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join(registry.host());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("ca.crt"), "nothing of the kind").unwrap();
    let paths = Paths { certs_d: vec![dir.path().to_owned()], ..Paths::default() };
    let registries = Registries::read(paths).unwrap();
    let client = Client::new(Settings { registries, patience: hurry(), ..Settings::default() });
    let error = client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(error.to_string().contains("ca.crt"), "{error}");
}

#[test]
fn the_scheme_that_is_spoken_is_found_and_remembered() {
    // Loopback without settings: plain is tried first, and certificates are not checked.
    let certificates = Certificates::new();
    let registry = over_tls(&certificates, false);
    let client = client();
    client.manifest(&reference(&registry, "a:latest")).unwrap();
    client.manifest(&reference(&registry, "a:latest")).unwrap();
    assert_eq!(registry.requests().len(), 2);
    // The other way round: told to be insecure, so TLS comes first.
    let registry = FakeRegistry::new();
    put_manifest(&registry, &manifest());
    let (client, _dir) =
        client_with_conf(&format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host()));
    client.manifest(&reference(&registry, "a:latest")).unwrap();
    // Told to be secure: nothing plain is tried.
    let (client, _dir) =
        client_with_conf(&format!("[[registry]]\nlocation = \"{}\"\ninsecure = false\n", registry.host()));
    registry.clear_requests();
    let error = client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Tls { problem: TlsProblem::NotSpoken, .. }), "{error:?}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[test]
fn a_refusal_in_words_leads_to_tls() {
    // What Go's servers say to plain text: here a plain server says it, and nothing speaks TLS, so it stays the error.
    let registry = FakeRegistry::new();
    let words = Fault::Reply {
        status: 400,
        headers: Vec::new(),
        body: b"Client sent an HTTP request to an HTTPS server.\n".to_vec(),
    };
    registry.fault(When::always(), words);
    let error = client().manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Status { .. }), "{error:?}");
    assert_eq!(registry.requests().len(), 1);
}

#[test]
fn redirects_never_lead_from_tls_to_plain() {
    let certificates = Certificates::new();
    let (registry, other) = (over_tls(&certificates, false), FakeRegistry::new());
    put_manifest(&other, &manifest());
    registry.fault(When::always(), Fault::redirect(&format!("{}/v2/a/manifests/latest", other.base_url())));
    let error = client_with_certificates(&registry, &certificates, false)
        .manifest(&reference(&registry, "a:latest"))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
    assert_eq!(other.requests().len(), 0);
}

fn mirrored(registry: &FakeRegistry, mirror: &str) -> (Client, tempfile::TempDir) {
    client_with_conf(&format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n",
        registry.host()
    ))
}

#[test]
fn mirrors_come_first_and_are_passed_over() {
    let bytes = manifest();
    let blob = noise(1 << 20);
    let start = || {
        let registry = FakeRegistry::new();
        put_manifest(&registry, &bytes);
        registry.put_blob("a", &blob);
        registry
    };
    let check = |fault: Option<Fault>, asks_registry: bool, warns: bool| {
        let (registry, mirror) = (start(), start());
        if let Some(fault) = &fault {
            mirror.fault(When::always(), fault.clone());
        }
        let (client, _dir) = mirrored(&registry, &mirror.host());
        let name = reference(&registry, "a:latest");
        client.head_manifest(&name).unwrap().unwrap();
        let fetched = client.manifest(&name).unwrap();
        assert_eq!(fetched.bytes, bytes);
        assert_eq!(fetched.from == registry.host(), asks_registry, "{fault:?}");
        assert!(client.blob_bytes(&name, &layer(&blob)).unwrap() == blob);
        assert_eq!(!registry.requests().is_empty(), asks_registry, "{fault:?}");
        let mut warnings = client.take_warnings();
        // That a mirror lacks something is nothing to warn of.
        warnings.retain(Warning::is_failure);
        assert_eq!(!warnings.is_empty(), warns, "{fault:?}: {warnings:?}");
        let is_of_mirror =
            |warning: &Warning| matches!(warning, Warning::Mirror { host, .. } if *host == mirror.host());
        assert!(warnings.iter().all(is_of_mirror), "{warnings:?}");
    };
    check(None, false, false);
    check(Some(Fault::status(404)), true, false);
    check(Some(Fault::status(403)), true, true);
    check(Some(Fault::status(500)), true, true);
    check(Some(Fault::Close), true, true);
    check(Some(Fault::html()), true, true);
    check(Some(Fault::Cut(10)), true, true);
}

#[test]
fn a_mirror_that_is_not_there() {
    let registry = FakeRegistry::new();
    put_manifest(&registry, &manifest());
    let (client, _dir) = mirrored(&registry, &format!("127.0.0.1:{}", mica_testkit::http::free_port()));
    for _ in 0..3 {
        client.manifest(&reference(&registry, "a:latest")).unwrap();
    }
    // It is tried once and not for every request.
    let warnings = client.take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].to_string().contains("was passed over"), "{}", warnings[0]);
    assert!(client.take_warnings().is_empty());
}

#[test]
fn a_mirrors_other_bytes_are_passed_over() {
    let bytes = manifest();
    let (registry, mirror) = (FakeRegistry::new(), FakeRegistry::new());
    let digest = put_manifest(&registry, &bytes);
    mirror.put_manifest("a", digest.as_str(), mica_oci::media_type::OCI_MANIFEST, b"{\"schemaVersion\":2}");
    let blob = b"config".to_vec();
    registry.put_blob("a", &blob);
    mirror.put_blob_as("a", layer(&blob).digest.as_str(), b"gifnoc");
    let (client, _dir) = mirrored(&registry, &mirror.host());
    let name = reference(&registry, &format!("a@{digest}"));
    assert_eq!(client.manifest(&name).unwrap().from, registry.host());
    assert_eq!(client.blob_bytes(&name, &layer(&blob)).unwrap(), blob);
    assert_eq!(client.take_warnings().len(), 2);
}

#[test]
fn names_of_this_machine_need_no_servers() {
    let registry = FakeRegistry::new();
    put_manifest(&registry, &manifest());
    for host in ["localhost", "LOCALHOST", "a.localhost"] {
        let name = format!("{host}:{}/a:latest", registry.port());
        client()
            .manifest(&Reference::parse(&name).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Runs the test `name` of this file in a process of its own, with these variables.
fn run_child(name: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", name]);
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    let outcome = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&outcome.stdout) + String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success() && text.contains("1 passed"), "{text}");
}

/// A proxy that says no to everything, and the first lines of the requests that it gets.
fn proxy() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let Ok(mut stream) = stream else { continue };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            let _ = lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).count();
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if sender.send(first).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

#[test]
fn proxies_are_used_but_not_for_this_machine() {
    let registry = FakeRegistry::new();
    put_manifest(&registry, &manifest());
    for (variable, expect) in [
        ("HTTPS_PROXY", "CONNECT registry.example:443"),
        ("https_proxy", "CONNECT registry.example:443"),
        ("ALL_PROXY", "CONNECT registry.example:443"),
        ("HTTP_PROXY", "HEAD http://registry.example/v2/a/manifests/latest"),
        ("http_proxy", "HEAD http://registry.example/v2/a/manifests/latest"),
    ] {
        let (address, lines) = proxy();
        let proxy = format!("http://user:hush@{address}");
        let scheme = if expect.starts_with("CONNECT") { "https" } else { "http" };
        run_child(
            "child_behind_a_proxy",
            &[(variable, &proxy), ("TEST_HOST", &registry.host()), ("TEST_SCHEME", scheme)],
        );
        let line = lines.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(line.starts_with(expect), "{variable}: {line}");
        assert!(lines.try_iter().all(|line| line.contains("registry.example")), "{variable}");
        // NO_PROXY wins: then the name is looked for, and there is none.
        let (address, lines) = self::proxy();
        let proxy = format!("http://{address}");
        let variables = [
            (variable, proxy.as_str()),
            ("NO_PROXY", "example"),
            ("TEST_HOST", &registry.host()),
            ("TEST_SCHEME", scheme),
        ];
        run_child("child_behind_a_proxy", &variables);
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), [""; 0], "{variable}");
    }
    assert_eq!(registry.requests().len(), 10, "loopback is reached directly");
}

#[test]
#[ignore = "run by `proxies_are_used_but_not_for_this_machine`"]
fn child_behind_a_proxy() {
    let (Ok(host), Ok(scheme)) = (std::env::var("TEST_HOST"), std::env::var("TEST_SCHEME")) else {
        println!("skipped: not run as a child");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("registry.example");
    std::fs::create_dir(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), format!("server = \"{scheme}://registry.example\"\n")).unwrap();
    let paths = Paths { certs_d: vec![dir.path().to_owned()], ..Paths::default() };
    let registries = Registries::read(paths).unwrap();
    let patience = Patience { tries_max: 1, connect: Duration::from_secs(1), ..hurry() };
    let client = Client::new(Settings { registries, patience, ..Settings::default() });
    client.manifest(&Reference::parse(&format!("{host}/a:latest")).unwrap()).unwrap();
    let result = client.head_manifest(&Reference::parse("registry.example/a:latest").unwrap());
    assert!(!format!("{result:?}").contains("hush"), "{result:?}");
}

#[test]
fn a_host_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/a:latest", listener.local_addr().unwrap());
    let patience = Patience {
        tries_max: 2,
        idle: Duration::from_millis(50),
        connect: Duration::from_millis(50),
        ..hurry()
    };
    let client = Client::new(Settings { patience, ..Settings::default() });
    let error = client.manifest(&Reference::parse(&name).unwrap()).unwrap_err();
    assert!(matches!(error, RegistryError::TimedOut { action: "request to", .. }), "{error:?}");
}

#[test]
fn a_drop_now_and_then_is_no_answer() {
    let registry = FakeRegistry::new();
    put_manifest(&registry, &manifest());
    let bytes = noise(10_000);
    registry.put_blob("a", &bytes);
    registry.fault(When::always(), Fault::Slow(1, Duration::from_millis(10)));
    let patience = Patience { tries_max: 2, answer: Duration::from_millis(100), ..hurry() };
    let client = Client::new(Settings { patience, ..Settings::default() });
    let error = client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::TimedOut { action: "reading from", .. }), "{error:?}");
    let error = client.blob_bytes(&reference(&registry, "a"), &layer(&bytes)).unwrap_err();
    assert!(
        matches!(&error, RegistryError::Broken { tries: 2, source, .. } if matches!(**source, RegistryError::TimedOut { .. })),
        "{error:?}"
    );
    // The words of a refusal are not waited for, either.
    registry.fault(When::always(), Fault::error(403, "DENIED", &"x".repeat(1000)));
    let error = client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
}
