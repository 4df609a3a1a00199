//! What goes wrong, and when.

use std::time::Duration;

/// Which requests a fault meets: a method, a part of the path (with its query), and which of those that fit.
///
/// Requests that are refused for want of a login meet no fault and are not counted.
#[derive(Debug, Clone)]
pub struct When {
    method: &'static str,
    part: String,
    skip: usize,
    times: usize,
}

impl When {
    /// Every request of this method (`*`: of any) whose path contains `part`.
    pub fn is(method: &'static str, part: &str) -> When {
        When { method, part: part.into(), skip: 0, times: usize::MAX }
    }

    /// Every GET whose path contains `part`.
    pub fn get(part: &str) -> When {
        When::is("GET", part)
    }

    /// All requests.
    pub fn always() -> When {
        When::is("*", "")
    }

    /// Not the first `count` of them.
    pub fn skip(self, count: usize) -> When {
        When { skip: count, ..self }
    }

    /// Only so many of them.
    pub fn times(self, count: usize) -> When {
        When { times: count, ..self }
    }

    /// Only the first of them.
    pub fn once(self) -> When {
        self.times(1)
    }

    /// Only the `number`th of them, from 1.
    pub fn nth(self, number: usize) -> When {
        self.skip(number.saturating_sub(1)).once()
    }

    /// Whether it meets this request. Counts it.
    pub(super) fn meets(&mut self, method: &str, path: &str) -> bool {
        if (self.method != "*" && self.method != method) || !path.contains(&self.part) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.times == 0 {
            return false;
        }
        self.times = self.times.saturating_sub(usize::from(self.times != usize::MAX));
        true
    }
}

/// One way to misbehave. Numbers of bytes are those of the body of that reply or request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Another reply; the request has no effect.
    Reply {
        /// Its status.
        status: u16,
        /// Its headers, beside `Content-Length`.
        headers: Vec<(String, String)>,
        /// Its body.
        body: Vec<u8>,
    },
    /// The connection is closed without a reply; the request has no effect.
    Close,
    /// The request is answered as if nothing were wrong, but the reply is lost: the connection is closed instead.
    LoseReply,
    /// A header of the reply is this one, or absent.
    Header(&'static str, Option<String>),
    /// Headers, and more headers.
    EndlessHeaders,
    /// The body is another, of right length.
    Body(Vec<u8>),
    /// The connection is closed after so many bytes.
    Cut(u64),
    /// Nothing more comes after so many bytes, and the connection stays open.
    Stall(u64),
    /// So many bytes, a pause, and so on.
    Slow(usize, Duration),
    /// The byte at this place is another.
    Flip(u64),
    /// After so many bytes the body begins again, up to its right length.
    StartOver(u64),
    /// The body ends after so many bytes, and `Content-Length` says so.
    Truncate(u64),
    /// So many bytes more follow, and `Content-Length` says so.
    Append(u64),
    /// So many bytes more follow than `Content-Length` says.
    Trail(u64),
    /// No `Content-Length`: the body ends with the connection.
    NoLength,
    /// The body comes in chunks, without its length.
    Chunked,
    /// The body does not end (and has no `Content-Length`).
    Endless,
    /// `Range` is not looked at: 200 with all.
    IgnoreRange,
    /// 206, and `Content-Range` speaks of other bytes than those that come.
    WrongContentRange,
    /// The request's body is read in pieces of at most 64 KiB, with a pause after each.
    SlowRequest(Duration),
    /// The connection is closed after so many bytes of the request's body. An upload keeps them, or not.
    CutRequest {
        /// So many.
        after: u64,
        /// Whether the upload keeps them.
        keeps: bool,
    },
}

impl Fault {
    /// Another status, with the specification's error of that code and message.
    pub fn error(status: u16, code: &str, message: &str) -> Fault {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message, "detail": null }] });
        Fault::Reply {
            status,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: body.to_string().into_bytes(),
        }
    }

    /// Another status and an empty body.
    pub fn status(status: u16) -> Fault {
        Fault::Reply { status, headers: Vec::new(), body: Vec::new() }
    }

    /// 429 with `Retry-After`: seconds, or a date.
    pub fn too_many_requests(retry_after: &str) -> Fault {
        Fault::with_header(Fault::error(429, "TOOMANYREQUESTS", "slow down"), "Retry-After", retry_after)
    }

    /// A page for people, status 200.
    pub fn html() -> Fault {
        Fault::Reply {
            status: 200,
            headers: vec![("Content-Type".into(), "text/html; charset=utf-8".into())],
            body: b"<!DOCTYPE html><html><body>Please sign in to the network</body></html>".to_vec(),
        }
    }

    /// 307 to another place.
    pub fn redirect(location: &str) -> Fault {
        Fault::with_header(Fault::status(307), "Location", location)
    }

    /// A reply with one header more.
    pub fn with_header(fault: Fault, name: &str, value: &str) -> Fault {
        match fault {
            Fault::Reply { status, mut headers, body } => {
                headers.push((name.into(), value.into()));
                Fault::Reply { status, headers, body }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mut when: When, expected: &str) {
        let met: String =
            (0..5).map(|_| if when.meets("GET", "/v2/a/blobs/b") { 'x' } else { '.' }).collect();
        assert_eq!(met, expected);
    }

    #[test]
    fn faults_meet_the_requests_that_they_are_for() {
        check(When::always(), "xxxxx");
        check(When::get("/blobs/"), "xxxxx");
        check(When::is("PUT", "/blobs/"), ".....");
        check(When::get("/manifests/"), ".....");
        check(When::get("/blobs/").once(), "x....");
        check(When::get("/blobs/").nth(3), "..x..");
        check(When::get("/blobs/").skip(1).times(2), ".xx..");
    }
}
