//! Times as people say them, and as docker's other columns write them.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Seconds since 1970.
pub(crate) fn now_unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// `3 weeks ago`.
pub(crate) fn ago(unix_s: i64) -> String {
    format!("{} ago", human_duration(now_unix_s().saturating_sub(unix_s)))
}

/// A length of time in its largest unit.
pub(crate) fn human_duration(seconds: i64) -> String {
    let hours = (seconds as f64 / 3600.0 + 0.5) as i64;
    match (seconds, seconds / 60, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes @ ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, ..336) => format!("{} days", hours / 24),
        (_, _, ..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// `2024-01-29 17:10:05 +0000 UTC`, in local time.
pub(crate) fn date(unix_s: i64) -> String {
    let Ok(time) = Timestamp::from_second(unix_s) else { return "N/A".to_owned() };
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// `2024-01-29T17:10:05Z`, in local time.
pub(crate) fn rfc3339(unix_s: i64) -> String {
    let Ok(time) = Timestamp::from_second(unix_s) else { return "N/A".to_owned() };
    let text = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    match text.strip_suffix("+00:00") {
        Some(utc) => format!("{utc}Z"),
        None => text,
    }
}

/// A time in RFC 3339 as seconds since 1970; 0 if it is none.
pub(crate) fn unix_seconds(text: &str) -> i64 {
    text.parse::<Timestamp>().map_or(0, |time| time.as_second())
}

/// The time that `until=` means: a time, seconds since 1970, or how long ago (`24h`, `10m`, `1h30m`).
pub(crate) fn parse_until(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_second());
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(seconds);
    }
    if let Some(seconds) = go_duration_s(text) {
        return Some(now_unix_s().saturating_sub(seconds));
    }
    // Times without a zone are local.
    let zone = TimeZone::system();
    let local = text
        .parse::<jiff::civil::DateTime>()
        .ok()
        .or_else(|| text.parse::<jiff::civil::Date>().ok().map(|date| date.at(0, 0, 0, 0)))?;
    Some(local.to_zoned(zone).ok()?.timestamp().as_second())
}

/// Go's durations, in whole seconds.
fn go_duration_s(text: &str) -> Option<i64> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    (!text.is_empty()).then_some(seconds as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |seconds: i64, expect: &str| assert_eq!(human_duration(seconds), expect, "{seconds}");
        check(-5, "Less than a second");
        check(0, "Less than a second");
        check(1, "1 second");
        check(59, "59 seconds");
        check(60, "About a minute");
        check(120, "2 minutes");
        check(3599, "59 minutes");
        check(3600, "About an hour");
        check(5400, "2 hours");
        check(47 * 3600, "47 hours");
        check(48 * 3600, "2 days");
        check(14 * 24 * 3600, "2 weeks");
        check(59 * 24 * 3600, "8 weeks");
        check(60 * 24 * 3600, "2 months");
        check(729 * 24 * 3600, "24 months");
        check(730 * 24 * 3600, "2 years");
    }

    #[test]
    fn until() {
        assert_eq!(parse_until("1970-01-01T00:01:00Z"), Some(60));
        assert_eq!(parse_until("77"), Some(77));
        assert!(parse_until("1h30m").is_some_and(|time| (time - now_unix_s() + 5400).abs() < 3));
        assert!(parse_until("2024-01-29").is_some());
        assert_eq!(parse_until("soon"), None);
        assert_eq!(parse_until(""), None);
    }
}
