//! Logging in: who is told what, how often tokens are fetched, and what never leaves.

mod common;

use std::io::Read;
use std::time::Duration;

use common::*;
use mica_registry_client::RegistryError;
use mica_testkit::{FakeAuth, FakeOptions, FakeRegistry, Fault, TokenRules, When};

/// base64 of `tester:swordfish`.
const LOGIN: &str = "dGVzdGVyOnN3b3JkZmlzaA==";

fn start(auth: FakeAuth) -> FakeRegistry {
    let registry = FakeRegistry::start(FakeOptions { auth, ..Default::default() });
    put_manifest(&registry, &manifest());
    registry
}

fn with_tokens(rules: TokenRules) -> FakeRegistry {
    start(FakeAuth::Token(rules))
}

fn config(registry: &FakeRegistry, entry: &str) -> String {
    format!(r#"{{"auths":{{"{}":{entry}}}}}"#, registry.host())
}

fn basic() -> String {
    format!(r#"{{"auth":"{LOGIN}"}}"#)
}

fn statuses(registry: &FakeRegistry) -> Vec<(String, u16)> {
    let requests = registry.requests();
    requests
        .iter()
        .map(|request| {
            let path = request.path.split('?').next().unwrap_or_default();
            (format!("{} {}", request.method, path.rsplit('/').next().unwrap_or_default()), request.status)
        })
        .collect()
}

fn expect(list: &[(&str, u16)]) -> Vec<(String, u16)> {
    list.iter().map(|(text, status)| ((*text).to_owned(), *status)).collect()
}

#[test]
fn passwords_go_only_to_who_asks() {
    let registry = start(FakeAuth::Basic);
    let (client, _dir) = client_with_login(&config(&registry, &basic()));
    let name = reference(&registry, "a:latest");
    client.head_manifest(&name).unwrap().unwrap();
    client.manifest(&name).unwrap();
    // Asked once, and remembered.
    assert_eq!(
        statuses(&registry),
        expect(&[("HEAD latest", 401), ("HEAD latest", 200), ("GET latest", 200)])
    );
    assert_eq!(registry.requests()[0].header("authorization"), None);
    // Another registry that does not ask is told nothing.
    let open = FakeRegistry::new();
    put_manifest(&open, &manifest());
    let (client, _dir) = client_with_login(&config(&open, &basic()));
    client.manifest(&reference(&open, "a:latest")).unwrap();
    assert_eq!(open.requests()[0].header("authorization"), None);
}

#[test]
fn nobody_is_denied() {
    let registry = start(FakeAuth::Basic);
    let error = client().head_manifest(&reference(&registry, "a:latest")).unwrap_err();
    let RegistryError::Denied { had_login, refusal, .. } = &error else { panic!("{error:?}") };
    assert!(!had_login);
    assert_eq!(refusal.status, 401);
    let text = error.to_string();
    assert!(text.contains("/a:latest") && text.contains("unauthorized: authentication required"), "{text}");
}

#[test]
fn a_wrong_password_is_sent_once() {
    let registry = start(FakeAuth::Basic);
    let (client, _dir) = client_with_login(&config(&registry, r#"{"auth":"dXNlcjpodXNo"}"#));
    let error = client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { had_login: true, .. }), "{error:?}");
    assert_eq!(registry.requests().len(), 2);
    assert!(!format!("{error:?} {error}").contains("hush"));
}

#[test]
fn anonymous_tokens() {
    let registry = with_tokens(TokenRules::default());
    let client = client();
    let name = reference(&registry, "a:latest");
    client.head_manifest(&name).unwrap().unwrap();
    client.manifest(&name).unwrap();
    assert_eq!(
        statuses(&registry),
        expect(&[("HEAD latest", 401), ("GET token", 200), ("HEAD latest", 200), ("GET latest", 200)])
    );
    let asked = registry.requests()[1].path.clone();
    assert!(asked.contains("service=fake") && asked.contains("scope=repository%3Aa%3Apull"), "{asked}");
    assert!(!asked.contains("account"), "{asked}");
    // Another repository of the same host: its token comes first, nothing is refused.
    registry.clear_requests();
    assert_eq!(client.head_manifest(&reference(&registry, "b:latest")).unwrap(), None);
    assert_eq!(statuses(&registry), expect(&[("GET token", 200), ("HEAD latest", 404)]));
}

#[test]
fn tokens_of_a_user() {
    for rules in [
        TokenRules { anonymous_pull: false, ..TokenRules::default() },
        TokenRules { anonymous_pull: false, access_token: true, ..TokenRules::default() },
        TokenRules {
            anonymous_pull: false,
            expires_in: Some(Duration::from_secs(300)),
            ..TokenRules::default()
        },
    ] {
        let registry = with_tokens(rules);
        let (client, _dir) = client_with_login(&config(&registry, &basic()));
        client.manifest(&reference(&registry, "a:latest")).unwrap();
        let requests = registry.requests();
        assert!(requests[1].path.contains("account=tester"), "{}", requests[1].path);
        assert_eq!(requests[1].header("authorization"), Some(format!("Basic {LOGIN}").as_str()));
        // The password goes to the token server alone.
        assert_eq!(requests[2].header("authorization"), Some("Bearer token-1"));
    }
}

#[test]
fn identity_tokens() {
    let registry = with_tokens(TokenRules { anonymous_pull: false, refresh: true, ..TokenRules::default() });
    let (client, _dir) = client_with_login(&config(&registry, r#"{"identitytoken":"refresh-me"}"#));
    client.manifest(&reference(&registry, "a:latest")).unwrap();
    assert_eq!(statuses(&registry), expect(&[("GET latest", 401), ("POST token", 200), ("GET latest", 200)]));
    let form = String::from_utf8(registry.requests()[1].body.clone()).unwrap();
    for field in [
        "grant_type=refresh_token",
        "refresh_token=refresh-me",
        "service=fake",
        "client_id=mica",
        "scope=repository%3Aa%3Apull",
    ] {
        assert!(form.contains(field), "{form}");
    }
    assert!(!registry.requests()[1].path.contains("refresh"), "never in a URL");
}

#[test]
fn registry_tokens_are_sent_as_they_are() {
    let registry = with_tokens(TokenRules { anonymous_pull: false, ..TokenRules::default() });
    let (client, _dir) = client_with_login(&config(&registry, r#"{"registrytoken":"ready-made"}"#));
    client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert_eq!(statuses(&registry), expect(&[("GET latest", 401), ("GET latest", 401)]));
    assert_eq!(registry.requests()[1].header("authorization"), Some("Bearer ready-made"));
}

#[test]
fn token_servers_of_oauth2_alone() {
    let registry = with_tokens(TokenRules { anonymous_pull: false, ..TokenRules::default() });
    registry.fault(When::get("/token"), Fault::status(405));
    let (client, _dir) = client_with_login(&config(&registry, &basic()));
    client.manifest(&reference(&registry, "a:latest")).unwrap();
    let form = String::from_utf8(registry.requests()[2].body.clone()).unwrap();
    assert!(form.contains("grant_type=password&username=tester&password=swordfish"), "{form}");
}

#[test]
fn tokens_that_expire_midway_are_renewed_once() {
    let registry = with_tokens(TokenRules { uses: Some(1), ..TokenRules::default() });
    let client = client();
    for _ in 0..3 {
        client.manifest(&reference(&registry, "a:latest")).unwrap();
    }
    assert_eq!(registry.count("GET", "/token"), 3);
    // In the middle of a blob, too.
    let bytes = noise(1 << 20);
    registry.put_blob("a", &bytes);
    registry.fault(When::get("/blobs/").times(3), Fault::Cut(200 << 10));
    let mut found = Vec::new();
    client.blob(&reference(&registry, "a"), &layer(&bytes), 0).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == bytes);
}

#[test]
fn a_registry_that_never_has_enough_is_given_up() {
    let registry = with_tokens(TokenRules { never: true, ..TokenRules::default() });
    let error = client().manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert_eq!(statuses(&registry), expect(&[("GET latest", 401), ("GET token", 200), ("GET latest", 401)]));
}

#[test]
fn the_token_servers_words_are_told() {
    let registry = with_tokens(TokenRules { anonymous_pull: false, ..TokenRules::default() });
    let (client, _dir) = client_with_login(&config(&registry, r#"{"auth":"dXNlcjpodXNo"}"#));
    let error = client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { had_login: true, .. }), "{error:?}");
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    for (body, expect) in
        [("<html>", "token reply"), ("{}", "no token"), (r#"{"token":"a\nb"}"#, "characters")]
    {
        let registry = with_tokens(TokenRules::default());
        registry.fault(When::get("/token"), Fault::Body(body.into()));
        let text = common::client().manifest(&reference(&registry, "a:latest")).unwrap_err().to_string();
        assert!(text.contains(expect), "{text}");
    }
    let registry = with_tokens(TokenRules::default());
    registry.fault(When::get("/token"), Fault::Endless);
    let error = common::client().manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
}

#[test]
fn a_token_server_that_stumbles_is_asked_again() {
    let registry = with_tokens(TokenRules::default());
    registry.fault(When::get("/token").once(), Fault::status(503));
    registry.fault(When::get("/token").nth(2), Fault::Close);
    client().manifest(&reference(&registry, "a:latest")).unwrap();
}

#[test]
fn logins_do_not_go_to_plain_token_servers_elsewhere() {
    let realm = Some("http://token.example.com/token".to_owned());
    let registry = with_tokens(TokenRules { realm, ..TokenRules::default() });
    let (client, _dir) = client_with_login(&config(&registry, &basic()));
    let error = client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::Challenge { .. }), "{error:?}");
    assert!(error.to_string().contains("`token.example.com` speaks plain http"), "{error}");
    for realm in ["file:///etc/passwd", "http://[broken", "gopher://x/"] {
        let registry = with_tokens(TokenRules { realm: Some(realm.to_owned()), ..TokenRules::default() });
        let error = common::client().manifest(&reference(&registry, "a:latest")).unwrap_err();
        assert!(matches!(error, RegistryError::Challenge { .. }), "{error:?}");
    }
    // A token server elsewhere on loopback is fine.
    let other = with_tokens(TokenRules::default());
    let realm = Some(format!("{}/token", other.base_url()));
    let registry = with_tokens(TokenRules { realm, never: true, ..TokenRules::default() });
    let (client, _dir) = client_with_login(&config(&registry, &basic()));
    client.manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert_eq!(other.count("GET", "/token"), 1);
}

#[test]
fn nothing_secret_follows_a_redirect_to_another_host() {
    let other = FakeRegistry::new();
    let bytes = noise(1000);
    let digest = other.put_blob("a", &bytes);
    let signed = format!("{}/v2/a/blobs/{digest}?signature=hush", other.base_url());
    for auth in [FakeAuth::Basic, FakeAuth::Token(TokenRules::default())] {
        other.clear_requests();
        let registry = start(auth);
        registry.fault(When::get("/blobs/"), Fault::redirect(&signed));
        let headers = r#","HttpHeaders":{"X-Secret":"hush"}}"#;
        let text = config(&registry, &basic());
        let (client, _dir) = client_with_login(&format!("{}{headers}", &text[..text.len() - 1]));
        assert_eq!(client.blob_bytes(&reference(&registry, "a"), &layer(&bytes)).unwrap(), bytes);
        let last = registry.requests().last().cloned().unwrap();
        assert!(last.header("authorization").is_some() && last.header("x-secret") == Some("hush"));
        let request = other.requests().last().cloned().unwrap();
        assert_eq!((request.header("authorization"), request.header("x-secret")), (None, None));
        // And what was signed is never told.
        other.fault(When::always().once(), Fault::status(403));
        other.fault(When::always().skip(1), Fault::error(403, "DENIED", "the signature is too old"));
        let error = client.blob_bytes(&reference(&registry, "a"), &layer(&bytes)).unwrap_err();
        assert!(matches!(error, RegistryError::Status { .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hush"), "{error}");
        assert!(error.to_string().contains(&other.host()), "{error}");
        other.clear_faults();
    }
}

#[test]
fn secrets_stay_with_redirects_on_the_same_host() {
    let registry = start(FakeAuth::Basic);
    let bytes = noise(1000);
    let digest = registry.put_blob("b", &bytes);
    registry.fault(When::get("/v2/a/blobs/"), Fault::redirect(&format!("/v2/b/blobs/{digest}")));
    let (client, _dir) = client_with_login(&config(&registry, &basic()));
    assert_eq!(client.blob_bytes(&reference(&registry, "a"), &layer(&bytes)).unwrap(), bytes);
}

#[test]
fn many_threads_fetch_one_token() {
    let registry = with_tokens(TokenRules::default());
    let client = client();
    let name = reference(&registry, "a:latest");
    client.manifest(&name).unwrap();
    registry.expire_tokens();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.manifest(&name).unwrap());
        }
    });
    assert_eq!(registry.count("GET", "/token"), 2);
}
