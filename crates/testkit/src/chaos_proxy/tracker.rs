//! Follows HTTP/1.1 in one direction of a connection, just so far that heads and bodies can be told apart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What the request side tells the reply side: the methods of requests that are not answered yet.
pub(super) type Methods = Arc<Mutex<VecDeque<String>>>;

/// Where in the conversation the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a head, or between chunks.
    Head,
    /// In a body: bytes of it before this one, and how many it has if that was said.
    Body(u64, Option<u64>),
}

#[derive(Debug)]
enum Where {
    /// A head's bytes so far.
    Head(Vec<u8>),
    /// Bytes before and bytes in all.
    Body(u64, u64),
    /// Bytes of the body before, and the line of the next chunk's size so far.
    ChunkSize(u64, Vec<u8>),
    /// Bytes of the body before, and those left of this chunk with its end of line.
    Chunk(u64, u64),
    /// Not HTTP that is understood here, or a body up to the connection's end.
    Opaque(u64),
}

#[derive(Debug)]
pub(super) struct Tracker {
    is_reply: bool,
    methods: Methods,
    now: Where,
}

impl Tracker {
    pub fn new(is_reply: bool, methods: Methods) -> Tracker {
        Tracker { is_reply, methods, now: Where::Head(Vec::new()) }
    }

    /// Where the next byte stands.
    pub fn place(&self) -> Place {
        match &self.now {
            Where::Head(_) | Where::ChunkSize(..) => Place::Head,
            Where::Body(before, all) => Place::Body(*before, Some(*all)),
            Where::Chunk(before, _) | Where::Opaque(before) => Place::Body(*before, None),
        }
    }

    /// Whether the next byte is the first of a head.
    pub fn is_before_head(&self) -> bool {
        matches!(&self.now, Where::Head(head) if head.is_empty())
    }

    /// Goes over bytes that all stand in one place: [`Tracker::run`] says how many do.
    pub fn pass(&mut self, bytes: &[u8]) {
        let count = bytes.len() as u64;
        match &mut self.now {
            Where::Head(head) => {
                head.extend_from_slice(bytes);
                let is_strange = head.first().is_some_and(|byte| !byte.is_ascii_uppercase());
                if is_strange || head.len() > 1 << 20 {
                    self.now = Where::Opaque(0);
                } else if head.ends_with(b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(head).into_owned();
                    self.now = self.after_head(&head);
                }
            }
            Where::Body(before, all) => {
                *before += count;
                if before >= all {
                    self.now = Where::Head(Vec::new());
                }
            }
            Where::ChunkSize(before, line) => {
                line.extend_from_slice(bytes);
                if line.ends_with(b"\r\n") && line.len() > 2 {
                    let text = String::from_utf8_lossy(line).into_owned();
                    let size = u64::from_str_radix(text.trim().split(';').next().unwrap_or_default(), 16);
                    self.now = match size {
                        Ok(0) => Where::Body(0, 2),
                        Ok(size) => Where::Chunk(*before, size + 2),
                        Err(_) => Where::Opaque(*before),
                    };
                }
            }
            Where::Chunk(before, left) => {
                *before += count;
                *left = left.saturating_sub(count);
                if *left == 0 {
                    self.now = Where::ChunkSize(*before, Vec::new());
                }
            }
            Where::Opaque(before) => *before += count,
        }
    }

    /// How many of these bytes stand in the same place as the first of them.
    pub fn run(&self, bytes: &[u8]) -> usize {
        match &self.now {
            // Byte for byte: heads are small.
            Where::Head(_) | Where::ChunkSize(..) => bytes.len().min(1),
            Where::Body(before, all) => bytes.len().min((all - before) as usize),
            Where::Chunk(_, left) => bytes.len().min(*left as usize),
            Where::Opaque(_) => bytes.len(),
        }
    }

    fn after_head(&self, head: &str) -> Where {
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let header = |name: &str| {
            let mut pairs = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
            pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let mut methods = self.methods.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut has_body = true;
        if self.is_reply {
            let status = first.split(' ').nth(1).unwrap_or_default();
            if status.starts_with('1') {
                return Where::Head(Vec::new());
            }
            let method = methods.pop_front().unwrap_or_default();
            has_body = method != "HEAD" && status != "204" && status != "304";
        } else {
            methods.push_back(first.split(' ').next().unwrap_or_default().to_owned());
        }
        let is_chunked = header("transfer-encoding").is_some_and(|text| text.eq_ignore_ascii_case("chunked"));
        let length = header("content-length").and_then(|text| text.parse().ok());
        match (has_body, is_chunked, length) {
            (false, _, _) | (_, false, Some(0)) => Where::Head(Vec::new()),
            (_, true, _) => Where::ChunkSize(0, Vec::new()),
            (_, _, Some(length)) => Where::Body(0, length),
            (_, _, None) if self.is_reply => Where::Opaque(0),
            (_, _, None) => Where::Head(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with every byte of a body in brackets' place: `h` for heads, `b` for bodies.
    fn places(tracker: &mut Tracker, text: &str) -> String {
        let mut said = String::new();
        for byte in text.as_bytes() {
            said.push(if tracker.place() == Place::Head { 'h' } else { 'b' });
            assert_eq!(tracker.run(&[*byte]), 1);
            tracker.pass(&[*byte]);
        }
        said
    }

    #[test]
    fn heads_and_bodies_are_told_apart() {
        let methods = Methods::default();
        let mut requests = Tracker::new(false, methods.clone());
        let mut replies = Tracker::new(true, methods);
        #[track_caller]
        fn check(tracker: &mut Tracker, text: &str, bodies: usize) {
            let said = places(tracker, text);
            assert_eq!(said.matches('b').count(), bodies, "{said} {text:?}");
            assert_eq!(tracker.place(), Place::Head, "{text:?}");
        }
        check(&mut requests, "HEAD /a HTTP/1.1\r\nA: b\r\n\r\n", 0);
        check(&mut requests, "PUT /a HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd", 4);
        check(&mut requests, "GET /a HTTP/1.1\r\n\r\n", 0);
        // A chunk's end of line counts as its body's, and so does the last one.
        let chunks = "PATCH /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        check(&mut requests, chunks, 10);
        check(&mut requests, "GET /a HTTP/1.1\r\n\r\n", 0);
        check(&mut replies, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", 0);
        check(
            &mut replies,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            0,
        );
        check(&mut replies, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 3);
        check(&mut replies, "HTTP/1.1 204 No Content\r\n\r\n", 0);
        let mut other = Tracker::new(true, Methods::default());
        assert_eq!(places(&mut other, "\u{16}\u{3}\u{1}\r\n\r\n"), "hbbbbbb");
    }
}
