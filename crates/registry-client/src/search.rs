//! Searching a registry, and asking whether it accepts a login.

use mica_registry_api::{printable, route};
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::credentials::Credential;
use crate::endpoint::Endpoint;
use crate::error::{RegistryError, Result};
use crate::refusal::Subject;
use crate::transport::{Access, At, Login, Method, Request, Target};

/// Results that a registry is asked for at most; docker's own limit.
pub const SEARCH_LIMIT_MAX: u32 = 100;
/// Results where nothing is said, as docker.
pub const SEARCH_LIMIT_DEFAULT: u32 = 25;

/// A hundred results of Docker Hub take 30 KB.
const REPLY_SIZE_BYTES_MAX: u64 = 4 << 20;
/// What is kept of a name; no registry allows longer ones.
const NAME_LENGTH_MAX: usize = 512;
/// What is kept of a description.
const DESCRIPTION_LENGTH_MAX: usize = 4096;

/// Docker Hub, as names have it.
const HUB: &str = "docker.io";
/// Where Docker Hub's images are, and where its two searches are.
const HUB_IMAGES: &str = "registry-1.docker.io";
const HUB_SEARCH_V1: &str = "index.docker.io";
const HUB_SEARCH_V2: &str = "hub.docker.com";

/// What is searched for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchQuery {
    /// Registry to ask: `docker.io` for Docker Hub.
    pub registry: String,
    /// The words.
    pub term: String,
    /// Results at most, 1 to 100; 0 is docker's default of 25.
    pub limit: u32,
    /// Only official images, or only others.
    pub is_official: Option<bool>,
    /// Only images with so many stars.
    pub stars_min: u64,
}

/// A repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// Its name, as `pull` takes it.
    pub name: String,
    /// In one line.
    pub description: String,
    /// Stars.
    pub star_count: u64,
    /// Whether the registry's owner curates it.
    pub is_official: bool,
    /// Whether it is built automatically; long out of use.
    pub is_automated: bool,
}

impl Client {
    /// Repositories that fit, the registry's best first (docker's search v1; Hub's v2 where that is refused).
    pub fn search(&self, query: &SearchQuery) -> Result<Vec<SearchResult>> {
        let endpoint = self.settings().registries.endpoint_of(&query.registry)?;
        let is_hub = endpoint.host == HUB_IMAGES;
        let at = |host: &str| {
            let host = if is_hub { host.to_owned() } else { endpoint.host.clone() };
            Endpoint { host, ..endpoint.clone() }
        };
        let limit = match query.limit {
            0 => SEARCH_LIMIT_DEFAULT,
            limit => limit.min(SEARCH_LIMIT_MAX),
        };
        let number = limit.to_string();
        let (term, number) = (Some(query.term.as_str()), Some(number.as_str()));
        let v1 = format!("/v1/search{}", route::to_query(&[("q", term), ("n", number)]));
        let body = match self.search_at(query, &at(HUB_SEARCH_V1), &v1) {
            Ok(body) => body,
            // Gone, or never there; what else goes wrong would go wrong again.
            Err(error) if is_refused(&error) => {
                let values = [("query", term), ("page_size", number)];
                let v2 = format!("/v2/search/repositories/{}", route::to_query(&values));
                match self.search_at(query, &at(HUB_SEARCH_V2), &v2) {
                    Ok(body) => body,
                    Err(_) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        let mut found = body.results();
        found.retain(|result| {
            query.is_official.is_none_or(|wanted| wanted == result.is_official)
                && result.star_count >= query.stars_min
        });
        found.truncate(limit as usize);
        for result in &mut found {
            result.name = as_pulled(&query.registry, &result.name);
        }
        Ok(found)
    }

    fn search_at(&self, query: &SearchQuery, endpoint: &Endpoint, path: &str) -> Result<Reply> {
        let subject = Subject::Registry(query.registry.clone());
        let mut request =
            Request::new(Method::GET, At::Endpoint(endpoint), Target::Path(path), subject.clone());
        request.access = Access::None;
        let response = self.send(&request)?;
        let body = response.bytes(REPLY_SIZE_BYTES_MAX)?;
        Reply::parse(&body).map_err(|problem| match body.trim_ascii_start().first() {
            Some(b'<') => RegistryError::HtmlReply {
                subject,
                host: endpoint.host.clone(),
                expected: "a list of repositories",
            },
            _ => RegistryError::InvalidReply { subject, host: endpoint.host.clone(), problem },
        })
    }

    /// Asks a registry whether a login is right. Answers the credential to keep: an identity token, if the registry gives one.
    pub fn check_login(&self, registry: &str, credential: &Credential) -> Result<Credential> {
        let endpoint = self.settings().registries.endpoint_of(registry)?;
        let subject = Subject::Registry(registry.to_owned());
        let mut request = Request::new(Method::GET, At::Endpoint(&endpoint), Target::Below("/"), subject);
        request.access = Access::None;
        request.login = Login::Given(credential);
        let response = self.send(&request)?;
        Ok(response.identity_token.map_or_else(|| credential.clone(), Credential::IdentityToken))
    }
}

/// Whether the registry does not have this kind of search.
fn is_refused(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotFound { .. } | RegistryError::Denied { .. } | RegistryError::HtmlReply { .. } => {
            true
        }
        RegistryError::Status { refusal, .. } => refusal.status < 500 || refusal.status == 501,
        _ => false,
    }
}

/// What both searches answer; only the results count.
#[derive(Deserialize)]
struct Reply {
    results: Vec<Value>,
}

/// A result of either search, as it is sent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Found {
    name: Option<String>,
    repo_name: Option<String>,
    description: Option<String>,
    short_description: Option<String>,
    star_count: Option<i64>,
    is_official: Option<bool>,
    is_automated: Option<bool>,
}

impl Reply {
    fn parse(body: &[u8]) -> std::result::Result<Reply, String> {
        serde_json::from_slice(body).map_err(|error| format!("not a list of repositories: {error}"))
    }

    /// The results that have a name. One that is not what it should be hides no others.
    fn results(self) -> Vec<SearchResult> {
        self.results
            .into_iter()
            .filter_map(|value| serde_json::from_value(value).ok())
            .filter_map(result_of)
            .collect()
    }
}

fn result_of(found: Found) -> Option<SearchResult> {
    let name = found.name.or(found.repo_name)?;
    // Printed, and pasted into commands.
    if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let description = found.description.filter(|text| !text.is_empty()).or(found.short_description);
    Some(SearchResult {
        name,
        description: printable(&description.unwrap_or_default(), DESCRIPTION_LENGTH_MAX),
        star_count: found.star_count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default(),
        is_official: found.is_official.unwrap_or_default(),
        is_automated: found.is_automated.unwrap_or_default(),
    })
}

/// A name that a registry said, as `pull` takes it.
fn as_pulled(registry: &str, name: &str) -> String {
    if registry == HUB {
        // Its second search says `library/debian`, its first `debian`.
        return name.strip_prefix("library/").unwrap_or(name).to_owned();
    }
    let is_full = name.strip_prefix(registry).is_some_and(|rest| rest.starts_with('/'));
    if is_full { name.to_owned() } else { format!("{registry}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: &[(&str, &str, u64, bool)]) {
        let results = Reply::parse(body.as_bytes()).unwrap().results();
        let found: Vec<_> = results
            .iter()
            .map(|found| {
                (found.name.as_str(), found.description.as_str(), found.star_count, found.is_official)
            })
            .collect();
        assert_eq!(found, expect, "{body}");
    }

    #[test]
    fn replies_of_both_kinds() {
        check(
            r#"{"num_results":1,"results":[{"name":"debian","description":"An OS","star_count":5,"is_official":true}]}"#,
            &[("debian", "An OS", 5, true)],
        );
        check(
            r#"{"count":1,"next":"","results":[{"repo_name":"library/debian","short_description":"An OS","star_count":5,
                "pull_count":7,"repo_owner":"","is_automated":false,"is_official":true}]}"#,
            &[("library/debian", "An OS", 5, true)],
        );
        check(r#"{"results":[]}"#, &[]);
    }

    #[test]
    fn names_are_as_pull_takes_them() {
        let check =
            |registry, name, expect| assert_eq!(as_pulled(registry, name), expect, "{registry} {name}");
        check("docker.io", "debian", "debian");
        check("docker.io", "library/debian", "debian");
        check("docker.io", "a/b", "a/b");
        check("localhost:5000", "debian", "localhost:5000/debian");
        check("localhost:5000", "library/debian", "localhost:5000/library/debian");
        check("localhost:5000", "localhost:5000/a", "localhost:5000/a");
        check("r.io", "r.iot/a", "r.io/r.iot/a");
    }

    #[test]
    fn what_is_odd_hides_nothing() {
        check(
            r#"{"results":[1, {"description":"no name"}, {"name":""}, {"name":"a b"}, {"name":"\u001b[2J"},
                {"name":"x","star_count":"many"}, {"name":"y","star_count":-1,"description":null},
                {"name":"z","description":"\u001b[31mred\n  and\tmore\u202e"}]}"#,
            &[("y", "", 0, false), ("z", "\\u{1b}[31mred and more\\u{202e}", 0, false)],
        );
    }

    #[test]
    fn other_replies_are_refused() {
        for body in ["", "<html>", "[]", "{}", r#"{"results":{}}"#, r#"{"results":null}"#] {
            assert!(Reply::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
