//! What is tried again, when, and how often.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use crate::error::RegistryError;

/// How long is waited, and how often is tried. The default is for people who wait; tests shrink it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// Without a single byte in either direction.
    pub idle: Duration,
    /// For the answer to something that was sent whole: a registry may copy a blob before it answers.
    pub answer: Duration,
    /// Tries of one request; of a transfer, tries in a row that bring nothing new.
    pub tries_max: u32,
    /// Before the second try, at most; doubled with every further one.
    pub delay_first: Duration,
    /// Between two tries, at most.
    pub delay_max: Duration,
    /// What a registry may ask for with `Retry-After`. If it asks for more, it is not tried again.
    pub retry_after_max: Duration,
    /// For all tries of one request together: after that, none begins.
    pub total: Duration,
    /// How often one transfer is taken up again, however much each time brings.
    pub resumes_max: u32,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            // docker's and containerd's own.
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            answer: Duration::from_secs(300),
            tries_max: 5,
            delay_first: Duration::from_millis(500),
            delay_max: Duration::from_secs(15),
            retry_after_max: Duration::from_secs(60),
            total: Duration::from_secs(300),
            resumes_max: 1000,
        }
    }
}

/// What may help after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nothing.
    None,
    /// Trying again, patiently.
    Wait,
    /// Trying again once.
    Again,
    /// The other scheme. Without one: nothing.
    OtherScheme,
    /// The other scheme, or trying again: the connection broke before it was clear what is spoken.
    OtherSchemeOrWait,
}

/// A try that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: RegistryError,
    pub remedy: Remedy,
    /// What the registry asks to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(error: RegistryError, remedy: Remedy) -> Failure {
        Failure { error, remedy, retry_after: None }
    }
}

impl From<RegistryError> for Failure {
    /// Most failures are final.
    fn from(error: RegistryError) -> Failure {
        Failure::new(error, Remedy::None)
    }
}

/// Whether a status may be another one soon.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    patience: &'a Patience,
    begun: Instant,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(patience: &'a Patience) -> Tries<'a> {
        Tries { patience, begun: Instant::now(), failed: 0 }
    }

    /// How long to wait after so many tries that failed alike.
    pub(crate) fn after_failures(&mut self, count: u32, failure: &Failure) -> Option<Duration> {
        self.failed = count.saturating_sub(1);
        self.after(failure)
    }

    /// Counts from the start again: something was gained.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
        self.begun = Instant::now();
    }

    /// How long to wait before the next try; `None` to give up.
    pub(crate) fn after(&mut self, failure: &Failure) -> Option<Duration> {
        self.failed += 1;
        let tries_max = match failure.remedy {
            Remedy::None | Remedy::OtherScheme => return None,
            Remedy::Again => self.patience.tries_max.min(2),
            Remedy::Wait | Remedy::OtherSchemeOrWait => self.patience.tries_max,
        };
        if self.failed >= tries_max {
            return None;
        }
        let delay = match failure.retry_after {
            Some(asked) if asked > self.patience.retry_after_max => return None,
            // Everybody was told the same time: not all should come back at once.
            Some(asked) => asked + self.patience.delay_first.mul_f64(jitter() / 2.0),
            None => {
                let doubled = 2u32.saturating_pow((self.failed - 1).min(20));
                let delay = self.patience.delay_first.saturating_mul(doubled).min(self.patience.delay_max);
                delay.mul_f64(0.5 + jitter() / 2.0)
            }
        };
        (self.begun.elapsed() + delay <= self.patience.total).then_some(delay)
    }
}

/// Between 0 and 1. The standard library's hasher has random keys of this process, which is as random as a delay must be.
fn jitter() -> f64 {
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u8(0);
    (hasher.finish() >> 40) as f64 / (1u64 << 24) as f64
}

/// What `Retry-After` asks for (RFC 9110, section 10.2.3): seconds, or a date, which `now_s` (seconds since 1970) is
/// taken from.
pub(crate) fn parse_retry_after(text: &str, now_s: u64) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX >> 1)));
    }
    Some(Duration::from_secs(parse_http_date(text)?.saturating_sub(now_s)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7; the two older forms are not sent any more).
fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut parts = date.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let month_name = parts.next()?;
    let month = u64::try_from(MONTHS.iter().position(|name| *name == month_name)?).ok()? + 1;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let is_date =
        (1970..10_000).contains(&year) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !is_date || parts.next() != Some("GMT") {
        return None;
    }
    // Days since 1970 of the civil calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(((days.checked_sub(719_468)?) * 24 + hour) * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(parse_retry_after(text, 784_111_700).map(|wait| wait.as_secs()), expect, "{text}");
        };
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("99999999999999999999", Some(u64::MAX >> 1));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(77));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("Sun, 06 Nov 1994 08:49:37 CET", None);
        check("Sun, 06 Foo 1994 08:49:37 GMT", None);
        check("Sun, 99 Nov 1994 08:49:37 GMT", None);
        check("Sun, 06 Nov 0000 08:49:37 GMT", None);
        check("Sunday, 06-Nov-94 08:49:37 GMT", None);
        check("-1", None);
        check("soon", None);
        check("", None);
    }

    #[test]
    fn dates() {
        for (text, expect) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Fri, 31 Dec 2100 23:59:59 GMT", 4_133_980_799),
        ] {
            assert_eq!(parse_http_date(text), Some(expect), "{text}");
        }
    }

    fn failure(remedy: Remedy, retry_after_s: Option<u64>) -> Failure {
        let retry_after = retry_after_s.map(Duration::from_secs);
        Failure { retry_after, ..Failure::new(RegistryError::NoAuthorities, remedy) }
    }

    /// Counts the tries until it gives up, and checks that the delays grow within their bounds.
    fn check(remedy: Remedy, retry_after_s: Option<u64>, expect: u32) {
        let patience = Patience::default();
        let mut tries = Tries::new(&patience);
        let failure = failure(remedy, retry_after_s);
        let mut count = 1;
        while let Some(delay) = tries.after(&failure) {
            let least = Duration::from_secs(retry_after_s.unwrap_or(0));
            assert!(delay >= least && delay <= least + patience.delay_max);
            count += 1;
        }
        assert_eq!(count, expect, "{remedy:?} {retry_after_s:?}");
    }

    #[test]
    fn tries_are_bounded() {
        check(Remedy::None, None, 1);
        check(Remedy::OtherScheme, None, 1);
        check(Remedy::Again, None, 2);
        check(Remedy::Wait, None, 5);
        check(Remedy::Wait, Some(3), 5);
        check(Remedy::Wait, Some(60), 5);
        check(Remedy::Wait, Some(61), 1);
    }

    #[test]
    fn delays_double_and_differ() {
        let patience = Patience { tries_max: 100, ..Patience::default() };
        let mut tries = Tries::new(&patience);
        let delays: Vec<Duration> =
            (0..20).map_while(|_| tries.after(&failure(Remedy::Wait, None))).collect();
        for (number, delay) in delays.iter().enumerate() {
            let most = patience.delay_first.saturating_mul(1 << number.min(16)).min(patience.delay_max);
            assert!(*delay <= most && *delay >= most / 2, "{number}: {delay:?}");
        }
        assert!(delays.windows(2).any(|pair| pair[0] != pair[1]));
        // The whole is bounded as well, whatever the number of tries.
        let short = Patience { total: Duration::ZERO, ..patience };
        assert_eq!(Tries::new(&short).after(&failure(Remedy::Wait, None)), None);
    }
}
