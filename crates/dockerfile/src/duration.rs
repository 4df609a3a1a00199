//! Durations as Go writes them: `90s`, `1h15m30.5s`.

/// The units that Go knows, in nanoseconds.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", NS_PER_SECOND),
    ("m", 60 * NS_PER_SECOND),
    ("h", 3_600 * NS_PER_SECOND),
];

/// What an age may be told in as well; no duration of docker is.
const DAY: (&str, i64) = ("d", 86_400 * NS_PER_SECOND);

const NS_PER_SECOND: i64 = 1_000_000_000;

/// Why a text is no age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// Not numbers with units, or more than 292 years.
    #[error("not a duration: write numbers with units, like `90s`, `10m`, `1h30m` or `7d`")]
    NotADuration,
    /// Zero, negative, or a part of a second.
    #[error("shorter than a second")]
    TooShort,
}

/// How old something may be, in seconds: Go's durations, and days (`7d`). At least one second; parts of a second
/// beyond are dropped.
pub fn parse_age(text: &str) -> Result<u64, AgeError> {
    let duration_ns = parse(text, true).ok_or(AgeError::NotADuration)?;
    match u64::try_from(duration_ns / NS_PER_SECOND) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err(AgeError::TooShort),
    }
}

/// Go's `time.ParseDuration`: `[-+]` and numbers with units (`1h15m30.5s`), or `0`. In nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    parse(text, false)
}

fn parse(text: &str, with_days: bool) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let whole_length = rest.find(|c: char| !c.is_ascii_digit())?;
        let (whole, after) = rest.split_at(whole_length);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit())?),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let mut units = UNITS.iter().chain(with_days.then_some(&DAY));
        let (_, unit_ns) = *units.find(|(name, _)| *name == unit)?;
        let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
        total = total.checked_add(whole.checked_mul(unit_ns)?)?;
        // More digits than 18 are below a nanosecond of a day.
        let digits = fraction.get(..fraction.len().min(18)).unwrap_or_default();
        if !digits.is_empty() {
            let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
            let part = digits.parse::<i128>().ok()? * i128::from(unit_ns) / scale;
            total = total.checked_add(i64::try_from(part).ok()?)?;
        }
        rest = after;
    }
    Some(if negative { -total } else { total })
}
