//! What each request is answered.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use super::connection::{Connection, Head, Reply};
use super::state::{State, Upload, fits};
use super::{Fault, Locations, Request, Shared, auth};

/// So much of a request's body is kept in the log.
const LOGGED_BODY_BYTES_MAX: usize = 64 << 10;

/// Serves one connection to its end.
pub(super) fn connection(shared: &Arc<Shared>, raw: TcpStream, number: usize) -> io::Result<()> {
    let mut connection = Connection::new(shared, raw)?;
    while let Some(head) = connection.read_head()? {
        let wants_close = head.header("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
        let place = {
            let mut state = shared.state();
            state.log.push(Request {
                method: head.method.clone(),
                path: head.path.clone(),
                headers: head.headers.clone(),
                connection: number,
                ..Request::default()
            });
            state.log.len() - 1
        };
        let note = |note: &dyn Fn(&mut Request)| {
            // Somebody may have cleared the log in the meantime.
            if let Some(request) = shared.state().log.get_mut(place) {
                note(request);
            }
        };
        let refusal = auth::refuse(&mut shared.state(), &shared.base_url_for(&head), &head);
        let faults =
            if refusal.is_some() { Vec::new() } else { shared.state().faults(&head.method, &head.path) };

        let cut = faults.iter().find_map(|fault| match fault {
            Fault::CutRequest { after, keeps } => Some((*after, *keeps)),
            _ => None,
        });
        connection.pause = faults.iter().find_map(|fault| match fault {
            Fault::SlowRequest(pause) => Some(*pause),
            _ => None,
        });
        let is_kept = refusal.is_none()
            && cut.is_none_or(|(_, keeps)| keeps)
            && !faults.iter().any(|fault| matches!(fault, Fault::Reply { .. } | Fault::Close));
        // Bytes of an upload are there as soon as they have come: a client that is killed finds them again.
        let upload = if is_kept { begin_writing(&mut shared.state(), &head, number) } else { None };
        let mut body = Vec::new();
        let limit = cut.map_or(u64::MAX, |(after, _)| after);
        let mut sink = |piece: &[u8]| {
            body.extend_from_slice(piece);
            let mut state = shared.state();
            let kept = upload.as_ref().and_then(|id| state.uploads.get_mut(id));
            let is_late = match kept {
                Some(upload) if upload.writer == number => {
                    upload.bytes.extend_from_slice(piece);
                    false
                }
                _ => upload.is_some(),
            };
            if let Some(request) = state.log.get_mut(place) {
                request.received_bytes = body.len() as u64;
                request.late_bytes += if is_late { piece.len() as u64 } else { 0 };
                let room = LOGGED_BODY_BYTES_MAX.saturating_sub(request.body.len());
                request.body.extend_from_slice(&piece[..piece.len().min(room)]);
            }
        };
        let is_whole = connection.read_body(&head, limit, &mut sink).unwrap_or(false);
        connection.pause = None;
        if cut.is_some() || !is_whole {
            connection.close();
            return Ok(());
        }
        let other = faults.iter().find_map(|fault| match fault {
            Fault::Reply { status, headers, body } => Some(Reply {
                status: *status,
                headers: headers.clone(),
                body: body.clone().into(),
                range: None,
            }),
            _ => None,
        });
        if faults.iter().any(|fault| matches!(fault, Fault::Close)) {
            connection.close();
            return Ok(());
        }
        let reply = match refusal.or(other) {
            Some(reply) => reply,
            None => {
                let asked = Asked { head: &head, number, is_written: upload.is_some() };
                answer(shared, &mut shared.state(), &asked, body, &faults)
            }
        };
        if faults.iter().any(|fault| matches!(fault, Fault::LoseReply)) {
            connection.close();
            return Ok(());
        }
        let status = reply.status;
        note(&|request| request.status = status);
        let note_sent = |bytes| note(&|request| request.sent_bytes += bytes);
        if !connection.send(head.method == "HEAD", reply, &faults, &note_sent) || wants_close {
            connection.close();
            return Ok(());
        }
    }
    Ok(())
}

/// `/v2/<repository>/<rest>`, where the rest begins with one of the words that no repository's last part can be.
pub(super) fn split_path(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/v2/")?;
    ["/blobs/", "/manifests/", "/tags/list"].iter().find_map(|word| {
        let place = path.find(word)?;
        Some((&path[..place], &path[place + 1..]))
    })
}

/// A request whose body has come.
struct Asked<'a> {
    head: &'a Head,
    /// Of its connection.
    number: usize,
    /// The upload has the body already.
    is_written: bool,
}

fn answer(shared: &Shared, state: &mut State, asked: &Asked<'_>, body: Vec<u8>, faults: &[Fault]) -> Reply {
    let head = asked.head;
    let (path, query) = head.path.split_once('?').unwrap_or((&head.path, ""));
    let fields = auth::parse_query(query);
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match path {
        "/v2" | "/v2/" => {
            return Reply::json(200, &serde_json::json!({}))
                .with("Docker-Distribution-Api-Version", "registry/2.0".into());
        }
        "/token" => return auth::token(state, head, &body),
        "/v1/search" => return search(state, field("q").unwrap_or_default(), field("n")),
        "/v2/_catalog" => {
            let names = state.repositories();
            return page(state, path, "repositories", None, names, field("n"), field("last"));
        }
        _ => {}
    }
    let Some((repository, rest)) = split_path(path) else {
        return Reply::error(404, "NAME_UNKNOWN", "no such place");
    };
    let method = head.method.as_str();
    if rest == "tags/list" {
        if !state.has_repository(repository) {
            return Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        }
        let tags = state.tags(repository);
        return page(state, path, "tags", Some(repository), tags, field("n"), field("last"));
    }
    if let Some(reference) = rest.strip_prefix("manifests/") {
        return manifest(state, head, repository, reference, body);
    }
    let rest = rest.trim_start_matches("blobs/");
    if let Some(id) = rest.strip_prefix("uploads").map(|id| id.trim_start_matches('/')) {
        return match (method, id) {
            ("POST", "") => begin_upload(shared, state, head, repository, body, &field),
            ("PATCH" | "PUT" | "GET" | "DELETE", id) => {
                upload(shared, state, asked, repository, id, body, &field)
            }
            _ => Reply::error(405, "UNSUPPORTED", "not with this method"),
        };
    }
    match method {
        "GET" | "HEAD" => blob(state, head, repository, rest, faults),
        "DELETE" if !state.options.deletes => Reply::error(405, "UNSUPPORTED", "deletion is off"),
        "DELETE" if state.remove_blob(rest) => Reply::status(202),
        "DELETE" => Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        _ => Reply::error(405, "UNSUPPORTED", "not with this method"),
    }
}

fn blob(state: &State, head: &Head, repository: &str, digest: &str, faults: &[Fault]) -> Reply {
    if let (Some(base), "GET") = (&state.options.redirect_blobs, head.method.as_str()) {
        return Reply::status(307).with("Location", format!("{base}{}", head.path));
    }
    let Some(bytes) = state.blob(repository, digest) else {
        return Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let length = bytes.len();
    let reply = Reply { status: 200, body: bytes, ..Reply::default() }
        .with("Content-Type", "application/octet-stream".into())
        .with("Docker-Content-Digest", digest.into())
        .with("Accept-Ranges", "bytes".into());
    let ignores = faults.iter().any(|fault| matches!(fault, Fault::IgnoreRange));
    let lies = faults.iter().any(|fault| matches!(fault, Fault::WrongContentRange));
    let range = head.header("range").filter(|_| !ignores).and_then(|text| text.strip_prefix("bytes="));
    let Some((from, to)) = range.and_then(|range| range.split_once('-')) else { return reply };
    let from: usize = from.parse().unwrap_or(0);
    let to = to.parse().unwrap_or(length.saturating_sub(1)).min(length.saturating_sub(1));
    if from >= length || from > to {
        return Reply::error(416, "RANGE_INVALID", "range not satisfiable")
            .with("Content-Range", format!("bytes */{length}"));
    }
    let said = if lies { (from + 1, to + 1) } else { (from, to) };
    Reply { status: 206, range: Some((from, to + 1)), ..reply }
        .with("Content-Range", format!("bytes {}-{}/{length}", said.0, said.1))
}

fn manifest(state: &mut State, head: &Head, repository: &str, reference: &str, body: Vec<u8>) -> Reply {
    match head.method.as_str() {
        "GET" | "HEAD" => match state.manifest(repository, reference) {
            Some((digest, kept)) => Reply { status: 200, body: kept.bytes.clone(), ..Reply::default() }
                .with("Content-Type", kept.media_type.clone())
                .with("Docker-Content-Digest", digest),
            None if state.has_repository(repository) => {
                Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            }
            None => Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry"),
        },
        "PUT" => {
            let Some(media_type) = head.header("content-type").map(str::to_owned) else {
                return Reply::error(400, "MANIFEST_INVALID", "no media type");
            };
            if reference.contains(':') && !fits(reference, &body) {
                return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            match state.missing_of_manifest(repository, &body) {
                Err(problem) => return Reply::error(400, "MANIFEST_INVALID", &problem),
                Ok(Some(digest)) => {
                    return Reply::error(400, "MANIFEST_BLOB_UNKNOWN", &format!("blob unknown: {digest}"));
                }
                Ok(None) => {}
            }
            let digest = state.put_manifest(repository, reference, &media_type, body.into());
            Reply::status(201)
                .with("Location", format!("/v2/{repository}/manifests/{digest}"))
                .with("Docker-Content-Digest", digest)
        }
        "DELETE" if !state.options.deletes => Reply::error(405, "UNSUPPORTED", "deletion is off"),
        "DELETE" if state.remove_manifest(repository, reference) => Reply::status(202),
        "DELETE" => Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        _ => Reply::error(405, "UNSUPPORTED", "not with this method"),
    }
}

fn begin_upload<'f>(
    shared: &Shared,
    state: &mut State,
    head: &Head,
    repository: &str,
    body: Vec<u8>,
    field: &dyn Fn(&str) -> Option<&'f str>,
) -> Reply {
    if let (Some(digest), Some(from)) = (field("mount"), field("from")) {
        let may = state.options.mounts && auth::covers(state, head, from, "pull");
        if may && state.mount(from, repository, digest) {
            return blob_created(repository, digest);
        }
    }
    if let Some(digest) = field("digest") {
        return finish_blob(state, repository, digest, body);
    }
    state.uploads_begun += 1;
    let id = format!("upload-{}", state.uploads_begun);
    state.uploads.insert(id.clone(), Upload { repository: repository.into(), ..Upload::default() });
    progress(shared, state, head, repository, &id, 202)
}

fn upload<'f>(
    shared: &Shared,
    state: &mut State,
    asked: &Asked<'_>,
    repository: &str,
    id: &str,
    body: Vec<u8>,
    field: &dyn Fn(&str) -> Option<&'f str>,
) -> Reply {
    let Asked { head, number, is_written } = *asked;
    let is_changing = state.options.locations == Locations::Changing;
    let chunk_min_length = state.options.chunk_min_length;
    let Some(upload) = state.uploads.get_mut(id).filter(|upload| upload.repository == repository) else {
        return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    };
    let writes = matches!(head.method.as_str(), "PATCH" | "PUT");
    if is_written && upload.writer != number {
        return Reply::error(400, "BLOB_UPLOAD_INVALID", "another connection goes on with this upload");
    }
    upload.writer = number;
    if writes && is_changing && field("_state") != Some(upload.version.to_string().as_str()) {
        return Reply::error(400, "BLOB_UPLOAD_INVALID", "this is not the last location of this upload");
    }
    match head.method.as_str() {
        "GET" => return progress(shared, state, head, repository, id, 204),
        "DELETE" => {
            state.uploads.remove(id);
            return Reply::status(204);
        }
        _ => {}
    }
    if !is_written && !body.is_empty() && !is_in_order(head, upload.bytes.len()) {
        return progress(shared, state, head, repository, id, 416);
    }
    if head.method == "PATCH" {
        if upload.had_short_chunk && !body.is_empty() {
            return Reply::error(400, "BLOB_UPLOAD_INVALID", "an earlier chunk was too short");
        }
        upload.had_short_chunk = chunk_min_length.is_some_and(|least| (body.len() as u64) < least);
        if !is_written {
            upload.bytes.extend_from_slice(&body);
        }
        return progress(shared, state, head, repository, id, 202);
    }
    let Some(digest) = field("digest") else {
        return Reply::error(400, "DIGEST_INVALID", "no digest");
    };
    if !is_written {
        upload.bytes.extend_from_slice(&body);
    }
    let bytes = std::mem::take(&mut upload.bytes);
    state.uploads.remove(id);
    finish_blob(state, repository, digest, bytes)
}

/// The upload that the body of a request goes on with, if it is one and begins in the right place.
fn begin_writing(state: &mut State, head: &Head, number: usize) -> Option<String> {
    if !matches!(head.method.as_str(), "PATCH" | "PUT") {
        return None;
    }
    let is_changing = state.options.locations == Locations::Changing;
    let (path, query) = head.path.split_once('?').unwrap_or((&head.path, ""));
    let (repository, rest) = split_path(path)?;
    let id = rest.strip_prefix("blobs/uploads/")?;
    let upload = state.uploads.get_mut(id).filter(|upload| upload.repository == repository)?;
    let version = upload.version.to_string();
    let is_last = auth::parse_query(query).contains(&("_state".to_owned(), version));
    if (is_changing && !is_last) || upload.had_short_chunk || !is_in_order(head, upload.bytes.len()) {
        return None;
    }
    upload.writer = number;
    Some(id.to_owned())
}

/// Whether a chunk begins where the upload ends. One that says nothing does.
fn is_in_order(head: &Head, length: usize) -> bool {
    let start = head.header("content-range").and_then(|range| {
        range.trim_start_matches("bytes").trim_start_matches([' ', '=']).split('-').next()?.parse().ok()
    });
    start.is_none_or(|start: usize| start == length)
}

fn finish_blob(state: &mut State, repository: &str, digest: &str, bytes: Vec<u8>) -> Reply {
    if !fits(digest, &bytes) {
        return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    state.put_blob(repository, digest, bytes.into());
    blob_created(repository, digest)
}

fn blob_created(repository: &str, digest: &str) -> Reply {
    Reply::status(201)
        .with("Location", format!("/v2/{repository}/blobs/{digest}"))
        .with("Docker-Content-Digest", digest.into())
}

/// How far an upload is, with its location.
fn progress(
    shared: &Shared,
    state: &mut State,
    head: &Head,
    repository: &str,
    id: &str,
    status: u16,
) -> Reply {
    let least = state.options.chunk_min_length;
    let locations = state.options.locations;
    let Some(upload) = state.uploads.get_mut(id) else { return Reply::status(404) };
    upload.version += 1;
    let path = format!("/v2/{repository}/blobs/uploads/{id}");
    let base = shared.base_url_for(head);
    let location = match locations {
        Locations::Absolute => format!("{base}{path}"),
        Locations::Relative => path,
        Locations::Changing => format!("{base}{path}?_state={}", upload.version),
    };
    // `0-0` says that nothing is there: docker-registry's way, which the specification took over.
    let mut reply = Reply::status(status)
        .with("Location", location)
        .with("Docker-Upload-UUID", id.into())
        .with("Range", format!("0-{}", upload.bytes.len().saturating_sub(1)));
    if let Some(least) = least {
        reply = reply.with("OCI-Chunk-Min-Length", least.to_string());
    }
    reply
}

fn search(state: &State, term: &str, limit: Option<&str>) -> Reply {
    let known = &state.options.search;
    if known.is_empty() {
        return Reply::error(404, "UNSUPPORTED", "no search here");
    }
    let limit = limit.and_then(|text| text.parse().ok()).unwrap_or(25);
    let found = known.iter().filter(|one| one.name.contains(term) || one.description.contains(term));
    let results: Vec<_> = found
        .take(limit)
        .map(|one| {
            serde_json::json!({
                "name": one.name,
                "description": one.description,
                "star_count": one.stars,
                "is_official": one.official,
                "is_automated": false,
            })
        })
        .collect();
    let reply = serde_json::json!({ "query": term, "num_results": results.len(), "results": results });
    Reply::json(200, &reply)
}

fn page(
    state: &State,
    path: &str,
    list: &str,
    repository: Option<&str>,
    names: Vec<String>,
    count: Option<&str>,
    last: Option<&str>,
) -> Reply {
    let count = count.and_then(|text| text.parse().ok()).unwrap_or(usize::MAX).min(state.options.page_size);
    let mut names: Vec<String> =
        names.into_iter().filter(|name| last.is_none_or(|last| name.as_str() > last)).collect();
    let has_more = names.len() > count;
    names.truncate(count);
    let next =
        names.last().filter(|_| has_more).map(|last| format!("<{path}?last={last}&n={count}>; rel=\"next\""));
    let mut value = serde_json::json!({ list: names });
    if let Some(repository) = repository {
        value["name"] = repository.into();
    }
    let reply = Reply::json(200, &value);
    match next {
        Some(next) => reply.with("Link", next),
        None => reply,
    }
}
