//! The tags of a repository, page after page.

use std::collections::HashSet;

use mica_oci::{Reference, reference};
use mica_registry_api::{Item, Page, pagination, printable};
use reqwest::header::LINK;

use crate::client::Client;
use crate::endpoint::Purpose;
use crate::error::{RegistryError, Result};
use crate::exchange::is_same_origin;
use crate::fetch::{media_type_of, refuse_html};
use crate::refusal::Subject;
use crate::transport::{At, Method, Request, Target, Url};

/// Bytes of one page.
const PAGE_SIZE_BYTES_MAX: u64 = 16 << 20;
/// Pages of one list.
const PAGES_MAX: usize = 10_000;
/// Tags of one repository; the largest of Docker Hub have some hundred thousand.
const TAGS_MAX: usize = 1_000_000;

impl Client {
    /// All tags of a repository, page after page, in the registry's order; bounded.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let subject = Subject::repository(reference);
        // Without a number: registries refuse different ones, and every one has a page size of its own.
        let item = Item::Tags(Page::default());
        let at = At::Reference(reference, Purpose::Resolve);
        let mut request = Request::new(Method::GET, at, Target::Item(&item), subject.clone());
        request.whole = Some(PAGE_SIZE_BYTES_MAX);
        let mut response = self.send(&request)?;
        let mut tags = Vec::new();
        let mut seen: HashSet<Url> = HashSet::new();
        loop {
            let (asked, host, endpoint) =
                (response.asked.clone(), response.host(), response.endpoint.clone());
            let invalid = |problem: &str| RegistryError::InvalidReply {
                subject: subject.clone(),
                host: host.clone(),
                problem: problem.to_owned(),
            };
            let links = response.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
            let next = match pagination::next_link(links) {
                None => None,
                Some(link) => Some(
                    asked.join(link).map_err(|_| invalid("the link to the next page of tags is no URL"))?,
                ),
            };
            let media_type = media_type_of(&response);
            let bytes = response.bytes(PAGE_SIZE_BYTES_MAX)?;
            refuse_html(&subject, &host, &media_type, &bytes, "a list of tags")?;
            read_page(&bytes, &mut tags).map_err(|problem| invalid(&problem))?;
            let Some(next) = next else { return Ok(tags) };
            if !is_same_origin(&next, &asked) {
                return Err(invalid("the next page of tags is on another host"));
            }
            seen.insert(asked);
            if seen.contains(&next) {
                return Err(invalid("the pages of tags go round in a circle"));
            }
            if seen.len() >= PAGES_MAX || tags.len() > TAGS_MAX {
                return Err(invalid("the list of tags does not end"));
            }
            let mut request =
                Request::new(Method::GET, At::Endpoint(&endpoint), Target::Url(&next), subject.clone());
            request.whole = Some(PAGE_SIZE_BYTES_MAX);
            response = self.send(&request)?;
        }
    }
}

fn read_page(bytes: &[u8], tags: &mut Vec<String>) -> std::result::Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Wire {
        // `null` where there are none.
        tags: Option<Vec<String>>,
    }
    let page: Wire = serde_json::from_slice(bytes).map_err(|_| "not a list of tags".to_owned())?;
    for tag in page.tags.unwrap_or_default() {
        if !reference::is_tag(&tag) {
            return Err(format!("a tag that is none: `{}`", printable(&tag, 140)));
        }
        tags.push(tag);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: std::result::Result<&[&str], &str>) {
        let mut tags = Vec::new();
        let result = read_page(body.as_bytes(), &mut tags);
        let actual = result.map(|()| tags.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(actual, expect.map(<[&str]>::to_vec).map_err(str::to_owned), "{body}");
    }

    #[test]
    fn pages() {
        check(r#"{"name":"a","tags":["1","latest"]}"#, Ok(&["1", "latest"]));
        check(r#"{"name":"a","tags":null}"#, Ok(&[]));
        check(r#"{"name":"a"}"#, Ok(&[]));
        check(r#"{"tags":["a\u001b[2J"]}"#, Err("a tag that is none: `a\\u{1b}[2J`"));
        check(r#"{"tags":[""]}"#, Err("a tag that is none: ``"));
        check(r#"{"tags":"a"}"#, Err("not a list of tags"));
        check("[]", Err("not a list of tags"));
    }
}
