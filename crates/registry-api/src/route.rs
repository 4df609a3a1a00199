//! Paths under `/v2/` and what they ask for (distribution spec 1.1.1, "Endpoints"), `_catalog`, and docker's search v1.

use mica_oci::{Digest, reference};

/// The most entries that a page may be asked for.
pub const PAGE_SIZE_MAX: u32 = 10_000;
/// The most characters of an upload's name.
pub const UPLOAD_LENGTH_MAX: usize = 512;

/// What a path with its query asks for. The method says what is to be done with it: see [`Route::methods`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Whether this is a registry, and whether the asker may come in (end-1).
    Base,
    /// All repositories; not in the spec, but every client expects it.
    Catalog(Page),
    /// Repositories whose names or descriptions have these words (docker's search v1).
    Search {
        /// The words.
        term: String,
        /// Results at most.
        limit: Option<u32>,
    },
    /// Something of a repository.
    Repository {
        /// Its name.
        repository: String,
        /// What of it.
        item: Item,
    },
}

/// What is asked of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A blob (end-2, end-10).
    Blob(Digest),
    /// A manifest (end-3, end-7, end-9).
    Manifest(ManifestName),
    /// The tags (end-8a, end-8b).
    Tags(Page),
    /// New uploads (end-4a, end-4b, end-11).
    Uploads {
        /// Digest of the whole blob, if the request brings it.
        digest: Option<Digest>,
        /// Digest of a blob that another repository has.
        mount: Option<Digest>,
        /// That repository; it may be left out.
        from: Option<String>,
    },
    /// One upload (end-5, end-6, end-13, end-14).
    Upload {
        /// Its name, as the registry gave it.
        id: String,
        /// Digest of the whole blob, when it is closed.
        digest: Option<Digest>,
    },
    /// The manifests that say something about this one (end-12a, end-12b).
    Referrers {
        /// The manifest that they are about.
        digest: Digest,
        /// The only kind that is wanted.
        artifact_type: Option<String>,
    },
}

/// What a manifest is called in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// A tag.
    Tag(String),
    /// A digest.
    Digest(Digest),
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries at most.
    pub limit: Option<u32>,
    /// The entry after which the page begins.
    pub last: Option<String>,
}

/// Why a path asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No such path.
    #[error("no such path")]
    UnknownPath,
    /// The name of the repository is none.
    #[error("invalid repository name")]
    InvalidName,
    /// The name of the manifest is neither a tag nor a digest.
    #[error("invalid tag or digest of a manifest")]
    InvalidManifestName,
    /// The digest is none.
    #[error("invalid digest")]
    InvalidDigest,
    /// The upload's name is none.
    #[error("invalid upload")]
    InvalidUpload,
    /// The page is none.
    #[error("invalid page")]
    InvalidPage,
    /// The path or the query has a broken escape or text that is not UTF-8.
    #[error("invalid escape in path or query")]
    InvalidEscape,
}

impl ManifestName {
    /// Reads a tag or a digest.
    pub fn parse(text: &str) -> Option<ManifestName> {
        if text.contains(':') {
            return Digest::parse(text).ok().map(ManifestName::Digest);
        }
        reference::is_tag(text).then(|| ManifestName::Tag(text.to_owned()))
    }
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ManifestName::Tag(tag) => formatter.pad(tag),
            ManifestName::Digest(digest) => formatter.pad(digest.as_str()),
        }
    }
}

impl Route {
    /// Reads the path of a request, and its query without the question mark (empty if there is none).
    pub fn parse(path: &str, query: &str) -> Result<Route, RouteError> {
        let query = parse_query(query)?;
        match path {
            "/v2" | "/v2/" => return Ok(Route::Base),
            "/v2/_catalog" => return Ok(Route::Catalog(page_of(&query)?)),
            "/v1/search" => {
                let limit = number_of(&query, "n")?;
                return Ok(Route::Search { term: find(&query, "q").unwrap_or_default().to_owned(), limit });
            }
            _ => {}
        }
        let path = unescape(path, false)?;
        let rest = path.strip_prefix("/v2/").ok_or(RouteError::UnknownPath)?;
        let (repository, item) = parse_item(rest, &query)?;
        if !reference::is_repository(repository) {
            return Err(RouteError::InvalidName);
        }
        Ok(Route::Repository { repository: repository.to_owned(), item })
    }

    /// The path and query of this, as they stand in a request.
    pub fn path_and_query(&self) -> String {
        match self {
            Route::Base => "/v2/".to_owned(),
            Route::Catalog(page) => format!("/v2/_catalog{}", page.query()),
            Route::Search { term, limit } => {
                let limit = limit.map(|limit| limit.to_string());
                format!("/v1/search{}", to_query(&[("q", Some(term)), ("n", limit.as_deref())]))
            }
            Route::Repository { repository, item } => format!("/v2/{repository}{}", item.path_and_query()),
        }
    }

    /// The methods that this can be asked with.
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Route::Base | Route::Catalog(_) | Route::Search { .. } => &["GET", "HEAD"],
            Route::Repository { item, .. } => match item {
                Item::Blob(_) => &["GET", "HEAD", "DELETE"],
                Item::Manifest(_) => &["GET", "HEAD", "PUT", "DELETE"],
                Item::Tags(_) | Item::Referrers { .. } => &["GET", "HEAD"],
                Item::Uploads { .. } => &["POST"],
                Item::Upload { .. } => &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
            },
        }
    }
}

impl Item {
    /// What stands behind the repository: `/manifests/latest`. Clients put it behind a path of their own settings.
    pub fn path_and_query(&self) -> String {
        match self {
            Item::Blob(digest) => format!("/blobs/{digest}"),
            Item::Manifest(name) => format!("/manifests/{name}"),
            Item::Tags(page) => format!("/tags/list{}", page.query()),
            Item::Uploads { digest, mount, from } => {
                let digest = digest.as_ref().map(Digest::as_str);
                let mount = mount.as_ref().map(Digest::as_str);
                let query = [("digest", digest), ("mount", mount), ("from", from.as_deref())];
                format!("/blobs/uploads/{}", to_query(&query))
            }
            Item::Upload { id, digest } => {
                let query = to_query(&[("digest", digest.as_ref().map(Digest::as_str))]);
                format!("/blobs/uploads/{}{query}", escape(id))
            }
            Item::Referrers { digest, artifact_type } => {
                format!("/referrers/{digest}{}", to_query(&[("artifactType", artifact_type.as_deref())]))
            }
        }
    }
}

impl Page {
    fn query(&self) -> String {
        let limit = self.limit.map(|limit| limit.to_string());
        to_query(&[("n", limit.as_deref()), ("last", self.last.as_deref())])
    }
}

/// Splits `name/blobs/digest` and its like from the right: a repository may have any of these words in its own name.
fn parse_item<'a>(path: &'a str, query: &[(String, String)]) -> Result<(&'a str, Item), RouteError> {
    let digest_of =
        |name| find(query, name).map(Digest::parse).transpose().map_err(|_| RouteError::InvalidDigest);
    if let Some(repository) = path.strip_suffix("/tags/list") {
        return Ok((repository, Item::Tags(page_of(query)?)));
    }
    if let Some(repository) =
        path.strip_suffix("/blobs/uploads/").or_else(|| path.strip_suffix("/blobs/uploads"))
    {
        let from = find(query, "from").map(str::to_owned);
        if from.as_deref().is_some_and(|from| !reference::is_repository(from)) {
            return Err(RouteError::InvalidName);
        }
        let item = Item::Uploads { digest: digest_of("digest")?, mount: digest_of("mount")?, from };
        return Ok((repository, item));
    }
    let (parent, last) = path.rsplit_once('/').ok_or(RouteError::UnknownPath)?;
    let item = |kind: &str| parent.strip_suffix(kind).and_then(|rest| rest.strip_suffix('/'));
    if let Some(repository) = item("blobs/uploads") {
        let is_id = !last.is_empty() && last.len() <= UPLOAD_LENGTH_MAX && !last.contains(char::is_control);
        if !is_id {
            return Err(RouteError::InvalidUpload);
        }
        return Ok((repository, Item::Upload { id: last.to_owned(), digest: digest_of("digest")? }));
    }
    if let Some(repository) = item("manifests") {
        let name = ManifestName::parse(last).ok_or(RouteError::InvalidManifestName)?;
        return Ok((repository, Item::Manifest(name)));
    }
    let digest = || Digest::parse(last).map_err(|_| RouteError::InvalidDigest);
    if let Some(repository) = item("blobs") {
        return Ok((repository, Item::Blob(digest()?)));
    }
    if let Some(repository) = item("referrers") {
        let artifact_type = find(query, "artifactType").map(str::to_owned);
        return Ok((repository, Item::Referrers { digest: digest()?, artifact_type }));
    }
    Err(RouteError::UnknownPath)
}

fn page_of(query: &[(String, String)]) -> Result<Page, RouteError> {
    Ok(Page { limit: number_of(query, "n")?, last: find(query, "last").map(str::to_owned) })
}

fn number_of(query: &[(String, String)], name: &str) -> Result<Option<u32>, RouteError> {
    let Some(text) = find(query, name) else { return Ok(None) };
    let number: u32 = text.parse().map_err(|_| RouteError::InvalidPage)?;
    Ok(Some(number.min(PAGE_SIZE_MAX)))
}

/// The first value of a name; an empty one counts as absent.
fn find<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, RouteError> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((unescape(key, true)?, unescape(value, true)?))
        })
        .collect()
}

/// A query of the values that are there and not empty, with its question mark; empty if there are none.
pub fn to_query(values: &[(&str, Option<&str>)]) -> String {
    let mut result = String::new();
    for (name, value) in values {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        result.push(if result.is_empty() { '?' } else { '&' });
        result.push_str(name);
        result.push('=');
        result.push_str(&escape(value));
    }
    result
}

/// Percent-encodes what is not plain in any part of a URL. Colons and slashes of digests and repositories stay: the
/// grammar of a query allows them, and registries' logs are read by people.
pub fn escape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/') {
            result.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            result.push('%');
            result.push(char::from(DIGITS[usize::from(byte >> 4)]));
            result.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    result
}

fn unescape(text: &str, plus_is_blank: bool) -> Result<String, RouteError> {
    let mut result = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| {
                    char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
                };
                let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                    return Err(RouteError::InvalidEscape);
                };
                result.push(high << 4 | low);
            }
            b'+' if plus_is_blank => result.push(b' '),
            byte => result.push(byte),
        }
    }
    String::from_utf8(result).map_err(|_| RouteError::InvalidEscape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn digest() -> Digest {
        Digest::parse(DIGEST).unwrap()
    }

    fn check(target: &str, expect: Result<Route, RouteError>) {
        let target = target.replace("{d}", DIGEST);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let actual = Route::parse(path, query);
        assert_eq!(actual, expect, "{target}");
        // What is written reads back (invariant 2).
        if let Ok(route) = actual {
            let text = route.path_and_query();
            let (path, query) = text.split_once('?').unwrap_or((&text, ""));
            assert_eq!(Route::parse(path, query), Ok(route), "{text}");
        }
    }

    fn item(repository: &str, item: Item) -> Result<Route, RouteError> {
        Ok(Route::Repository { repository: repository.to_owned(), item })
    }

    #[test]
    fn table_of_the_spec() {
        let no_upload = Item::Uploads { digest: None, mount: None, from: None };
        let page = |limit, last: Option<&str>| Page { limit, last: last.map(str::to_owned) };
        let tag = |tag: &str| Item::Manifest(ManifestName::Tag(tag.to_owned()));
        check("/v2/", Ok(Route::Base));
        check("/v2", Ok(Route::Base));
        check("/v2/a/b/blobs/{d}", item("a/b", Item::Blob(digest())));
        check("/v2/a/manifests/latest", item("a", tag("latest")));
        check("/v2/a/manifests/{d}", item("a", Item::Manifest(ManifestName::Digest(digest()))));
        check("/v2/a/blobs/uploads/", item("a", no_upload.clone()));
        check("/v2/a/blobs/uploads", item("a", no_upload));
        check(
            "/v2/a/blobs/uploads/?digest={d}",
            item("a", Item::Uploads { digest: Some(digest()), mount: None, from: None }),
        );
        check(
            "/v2/a/blobs/uploads/?mount={d}&from=b%2Fc",
            item("a", Item::Uploads { digest: None, mount: Some(digest()), from: Some("b/c".to_owned()) }),
        );
        check("/v2/a/blobs/uploads/1-2_x", item("a", Item::Upload { id: "1-2_x".to_owned(), digest: None }));
        check(
            "/v2/a/blobs/uploads/u?_state=abc&digest={d}",
            item("a", Item::Upload { id: "u".to_owned(), digest: Some(digest()) }),
        );
        check("/v2/a/tags/list", item("a", Item::Tags(page(None, None))));
        check("/v2/a/tags/list?n=10&last=v1", item("a", Item::Tags(page(Some(10), Some("v1")))));
        check("/v2/a/tags/list?n=4000000000", item("a", Item::Tags(page(Some(PAGE_SIZE_MAX), None))));
        check("/v2/a/referrers/{d}", item("a", Item::Referrers { digest: digest(), artifact_type: None }));
        check(
            "/v2/a/referrers/{d}?artifactType=a%2Fb",
            item("a", Item::Referrers { digest: digest(), artifact_type: Some("a/b".to_owned()) }),
        );
        check("/v2/_catalog?n=2&last=a%2fb", Ok(Route::Catalog(page(Some(2), Some("a/b")))));
        check(
            "/v1/search?q=two+words&n=25",
            Ok(Route::Search { term: "two words".to_owned(), limit: Some(25) }),
        );
        check("/v1/search", Ok(Route::Search { term: String::new(), limit: None }));
    }

    #[test]
    fn names_that_look_like_routes() {
        let tag = |tag: &str| Item::Manifest(ManifestName::Tag(tag.to_owned()));
        check("/v2/blobs/manifests/tags", item("blobs", tag("tags")));
        check("/v2/a/manifests/b/manifests/c", item("a/manifests/b", tag("c")));
        check("/v2/a/blobs/uploads/manifests/c", item("a/blobs/uploads", tag("c")));
        check("/v2/tags/list/tags/list", item("tags/list", Item::Tags(Page::default())));
    }

    #[test]
    fn refused() {
        check("/", Err(RouteError::UnknownPath));
        check("/v1/", Err(RouteError::UnknownPath));
        check("/v2/a", Err(RouteError::UnknownPath));
        check("/v2/a/b/c", Err(RouteError::UnknownPath));
        check("/v2//manifests/x", Err(RouteError::InvalidName));
        check("/v2/A/manifests/x", Err(RouteError::InvalidName));
        check("/v2/../manifests/x", Err(RouteError::InvalidName));
        check("/v2/a%2f..%2fb/manifests/x", Err(RouteError::InvalidName));
        check("/v2/manifests/x", Err(RouteError::UnknownPath));
        check("/v2/a/manifests/", Err(RouteError::InvalidManifestName));
        check("/v2/a/manifests/-x", Err(RouteError::InvalidManifestName));
        check("/v2/a/manifests/sha256:00", Err(RouteError::InvalidManifestName));
        check("/v2/a/blobs/sha256:00", Err(RouteError::InvalidDigest));
        check("/v2/a/blobs/x", Err(RouteError::InvalidDigest));
        check("/v2/a/blobs/uploads/?mount=x", Err(RouteError::InvalidDigest));
        check("/v2/a/blobs/uploads/?mount={d}&from=..", Err(RouteError::InvalidName));
        check("/v2/a/tags/list?n=x", Err(RouteError::InvalidPage));
        check("/v2/a/tags/list?n=-1", Err(RouteError::InvalidPage));
        check("/v2/a/tags/list?last=%zz", Err(RouteError::InvalidEscape));
        check("/v2/a/tags/list?last=%f", Err(RouteError::InvalidEscape));
        check("/v2/a%ff/tags/list", Err(RouteError::InvalidEscape));
    }

    #[test]
    fn methods_are_those_of_the_spec() {
        for (target, methods) in [
            ("/v2/", "GET HEAD"),
            ("/v2/a/blobs/uploads/", "POST"),
            ("/v2/a/blobs/uploads/x", "GET HEAD PATCH PUT DELETE"),
            ("/v2/a/manifests/x", "GET HEAD PUT DELETE"),
            ("/v2/a/tags/list", "GET HEAD"),
        ] {
            assert_eq!(Route::parse(target, "").unwrap().methods().join(" "), methods, "{target}");
        }
    }
}
