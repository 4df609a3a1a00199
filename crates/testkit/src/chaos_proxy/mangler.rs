//! What becomes of bytes on their way through.

use std::time::Duration;

use super::tracker::{Place, Tracker};
use super::{Chaos, Plan, Then};

/// What follows after the bytes are handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    GoOn,
    Delay(Duration),
    /// This connection ends.
    Cut,
    /// All connections end.
    CutAll,
}

/// One direction of one connection.
#[derive(Debug)]
pub(super) struct Mangler {
    is_reply: bool,
    /// For people.
    number: usize,
    tracker: Tracker,
    /// Bytes of this direction before.
    position: u64,
    /// Where the next mischief is, once it is chosen.
    next: Option<u64>,
    /// Bytes were changed: one side may wait now for what the other has no reason to send.
    pub has_lied: bool,
}

impl Mangler {
    pub fn new(is_reply: bool, number: usize, tracker: Tracker) -> Mangler {
        Mangler { is_reply, number, tracker, position: 0, next: None, has_lied: false }
    }

    /// Takes bytes in and puts out what is handed on in their place.
    pub fn mangle(&mut self, plan: &mut Plan, bytes: &[u8], out: &mut Vec<u8>) -> Fate {
        match plan.chaos {
            Chaos::Calm | Chaos::Refuse => {
                self.pass(plan, bytes);
                out.extend_from_slice(bytes);
                Fate::GoOn
            }
            Chaos::Seeded { .. } => self.mangle_by_seed(plan, bytes, out),
            Chaos::CutReplies { after, then } if self.is_reply => {
                let before = plan.reply_bytes;
                self.cut_at(plan, after.saturating_sub(before), then, bytes, out)
            }
            Chaos::CutRequests { after, then } if !self.is_reply => {
                let before = plan.request_bytes;
                self.cut_at(plan, after.saturating_sub(before), then, bytes, out)
            }
            // A client waits for its answer before it sends the next request, so that one begins what is read here.
            Chaos::CutAtRequest { method, number, then } if !self.is_reply => {
                if self.tracker.is_before_head() && bytes.starts_with(method.as_bytes()) {
                    plan.requests += 1;
                    if plan.requests == number {
                        return self.cut_at(plan, 0, then, bytes, out);
                    }
                }
                self.pass(plan, bytes);
                out.extend_from_slice(bytes);
                Fate::GoOn
            }
            Chaos::CutReplyBody { percent, size_bytes_min, then } if self.is_reply => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let run = self.tracker.run(rest);
                    if let Place::Body(before, Some(all)) = self.tracker.place()
                        && all >= size_bytes_min
                        && before + run as u64 >= all * percent / 100
                    {
                        let left = (all * percent / 100).saturating_sub(before);
                        return self.cut_at(plan, left, then, rest, out);
                    }
                    self.pass(plan, &rest[..run]);
                    out.extend_from_slice(&rest[..run]);
                    rest = &rest[run..];
                }
                Fate::GoOn
            }
            _ => {
                self.pass(plan, bytes);
                out.extend_from_slice(bytes);
                Fate::GoOn
            }
        }
    }

    /// Hands on at most `left` bytes, and cuts when they are used up.
    fn cut_at(&mut self, plan: &mut Plan, left: u64, then: Then, bytes: &[u8], out: &mut Vec<u8>) -> Fate {
        let kept = (bytes.len() as u64).min(left) as usize;
        self.pass(plan, &bytes[..kept]);
        out.extend_from_slice(&bytes[..kept]);
        if (kept as u64) < left {
            return Fate::GoOn;
        }
        self.tell(plan, "all was cut");
        plan.chaos = match then {
            Then::Calm => Chaos::Calm,
            Then::Refuse => Chaos::Refuse,
        };
        Fate::CutAll
    }

    fn mangle_by_seed(&mut self, plan: &mut Plan, bytes: &[u8], out: &mut Vec<u8>) -> Fate {
        if plan.budget == 0 {
            self.pass(plan, bytes);
            out.extend_from_slice(bytes);
            return Fate::GoOn;
        }
        // Near places as likely as far ones, so that heads, manifests and the middle of layers all have their turn.
        let next = *self.next.get_or_insert_with(|| {
            let magnitude = plan.random.below(22);
            self.position + plan.random.below(1 << magnitude)
        });
        if next >= self.position + bytes.len() as u64 {
            self.pass(plan, bytes);
            out.extend_from_slice(bytes);
            return Fate::GoOn;
        }
        let at = next.saturating_sub(self.position) as usize;
        self.pass(plan, &bytes[..at]);
        out.extend_from_slice(&bytes[..at]);
        let rest = &bytes[at..];
        let is_safe = self.is_reply || self.tracker.place() != Place::Head;
        let kind = plan.random.below(if is_safe { 8 } else { 2 });
        plan.budget -= 1;
        self.next = None;
        self.has_lied = true;
        // Within one place: what follows a body on the same connection may be the head of the next request.
        let room = if self.is_reply { rest.len() } else { self.tracker.run(rest) };
        let length = (1 + plan.random.below(4096) as usize).min(room);
        let (segment, tail) = rest.split_at(length);
        match kind {
            0 => {
                self.tell(plan, "cut");
                return Fate::Cut;
            }
            1 => {
                let time = Duration::from_millis(plan.random.below(300));
                self.tell(plan, "delayed");
                self.pass(plan, rest);
                out.extend_from_slice(rest);
                return Fate::Delay(time);
            }
            2 | 3 => {
                self.tell(plan, "a byte altered");
                out.extend_from_slice(segment);
                let place = out.len() - 1 - plan.random.below(length as u64) as usize;
                out[place] ^= 1 << plan.random.below(8);
            }
            4 => {
                self.tell(plan, &format!("{length} bytes repeated"));
                out.extend_from_slice(segment);
                out.extend_from_slice(segment);
            }
            5 => {
                self.tell(plan, &format!("{length} bytes dropped, and then cut"));
                out.extend_from_slice(tail);
                return Fate::Cut;
            }
            6 => {
                self.tell(plan, &format!("{length} bytes in another order"));
                let (first, second) = segment.split_at(length / 2);
                out.extend_from_slice(second);
                out.extend_from_slice(first);
            }
            _ => {
                self.tell(plan, &format!("{length} bytes put in"));
                out.extend((0..length).map(|_| plan.random.next_u64() as u8));
                out.extend_from_slice(segment);
            }
        }
        // Heads and bodies are those that were meant, not what has become of them.
        self.pass(plan, rest);
        out.extend_from_slice(tail);
        Fate::GoOn
    }

    fn pass(&mut self, plan: &mut Plan, bytes: &[u8]) {
        let count = bytes.len() as u64;
        self.position += count;
        if self.is_reply {
            plan.reply_bytes += count;
        } else {
            plan.request_bytes += count;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let run = self.tracker.run(rest);
            self.tracker.pass(&rest[..run]);
            rest = &rest[run..];
        }
    }

    fn tell(&self, plan: &mut Plan, what: &str) {
        let side = if self.is_reply { "reply" } else { "request" };
        let place = match self.tracker.place() {
            Place::Head => "in a head".to_owned(),
            Place::Body(before, Some(all)) => format!("at {before} of {all} of a body"),
            Place::Body(before, None) => format!("at {before} of a body"),
        };
        let text = format!("connection {}, {side} byte {} ({place}): {what}", self.number, self.position);
        plan.happened.push(text);
    }
}
