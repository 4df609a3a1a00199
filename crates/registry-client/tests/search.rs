//! Searching, and the check of a login.

use mica_registry_client::{Client, Credential, RegistryError, SearchQuery, Settings};
use mica_testkit::{FakeAuth, FakeOptions, FakeRegistry, Fault, Found, TokenRules, When};

fn registry_with(count: usize) -> FakeRegistry {
    let search = (0..count)
        .map(|number| Found {
            name: format!("team/app{number:03}"),
            description: "an app".to_owned(),
            stars: number as u64,
            official: number % 2 == 1,
        })
        .collect();
    FakeRegistry::start(FakeOptions { search, ..FakeOptions::default() })
}

fn query(registry: &FakeRegistry) -> SearchQuery {
    SearchQuery { registry: registry.host(), term: "app".to_owned(), ..SearchQuery::default() }
}

#[test]
fn results_are_bounded_and_chosen() {
    let registry = registry_with(120);
    let check = |query: SearchQuery, expect: (usize, &str)| {
        let found = Client::new(Settings::default()).search(&query).unwrap();
        let first = found.first().map(|found| found.name.clone()).unwrap_or_default();
        let expect_first =
            if expect.1.is_empty() { String::new() } else { format!("{}/{}", registry.host(), expect.1) };
        assert_eq!((found.len(), first), (expect.0, expect_first), "{query:?}");
    };
    check(query(&registry), (25, "team/app000"));
    check(SearchQuery { limit: 3, ..query(&registry) }, (3, "team/app000"));
    check(SearchQuery { limit: 1000, ..query(&registry) }, (100, "team/app000"));
    check(SearchQuery { is_official: Some(true), ..query(&registry) }, (12, "team/app001"));
    check(SearchQuery { is_official: Some(false), limit: 10, ..query(&registry) }, (5, "team/app000"));
    check(SearchQuery { stars_min: 20, ..query(&registry) }, (5, "team/app020"));
    check(SearchQuery { term: "a/b c&d=?".to_owned(), ..query(&registry) }, (0, ""));
    assert_eq!(registry.count("GET", "/v1/search?q=a/b%20c%26d%3D%3F&n=25"), 1);
}

#[test]
fn the_second_search_is_asked_where_there_is_no_first() {
    let registry = FakeRegistry::new();
    let body = br#"{"count":1,"results":[{"repo_name":"team/app","short_description":"x","star_count":1,"is_official":false}]}"#;
    let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    registry.fault(
        When::get("/v2/search/repositories/"),
        Fault::Reply { status: 200, headers, body: body.to_vec() },
    );
    let found = Client::new(Settings::default()).search(&query(&registry)).unwrap();
    assert_eq!(found[0].name, format!("{}/team/app", registry.host()));
    assert_eq!(found[0].description, "x");
}

#[test]
fn what_is_no_search_is_an_error() {
    for (fault, text) in [
        (Fault::status(404), "404"),
        (Fault::html(), "HTML"),
        (Fault::Reply { status: 200, headers: Vec::new(), body: b"{}".to_vec() }, "invalid reply"),
        (Fault::Reply { status: 200, headers: Vec::new(), body: vec![b'['; 5 << 20] }, "too large"),
    ] {
        let registry = FakeRegistry::new();
        registry.fault(When::always(), fault);
        let error = Client::new(Settings::default()).search(&query(&registry)).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(&registry.host()), "{error}");
    }
}

#[test]
fn a_login_is_checked() {
    let check = |auth: FakeAuth, password: &str, expect: Option<Credential>| {
        let registry = FakeRegistry::start(FakeOptions { auth: auth.clone(), ..FakeOptions::default() });
        let credential = Credential::basic("tester", password);
        match (Client::new(Settings::default()).check_login(&registry.host(), &credential), expect) {
            (Ok(kept), Some(expect)) => assert_eq!(kept, expect),
            (Err(error), None) => {
                assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
                assert!(!format!("{error} {error:?}").contains(password), "{error:?}");
            }
            (result, expect) => panic!("{auth:?}: {result:?}, {expect:?}"),
        }
    };
    let right = || Some(Credential::basic("tester", "swordfish"));
    check(FakeAuth::None, "swordfish", right());
    check(FakeAuth::Basic, "swordfish", right());
    check(FakeAuth::Basic, "wrong-word", None);
    check(FakeAuth::Token(TokenRules::default()), "swordfish", right());
    check(FakeAuth::Token(TokenRules::default()), "wrong-word", None);
    let refresh = || FakeAuth::Token(TokenRules { refresh: true, ..TokenRules::default() });
    let token = Credential::IdentityToken(mica_registry_client::Secret::new("refresh-me"));
    check(refresh(), "swordfish", Some(token));
    check(refresh(), "wrong-word", None);
}
