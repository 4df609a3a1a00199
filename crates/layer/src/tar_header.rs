//! The fields of a tar header block and the records of a PAX header, as values. No IO.
//!
//! Where tar programs disagree, this follows Go's `archive/tar`, which docker reads layers with: what it would not see, or
//! would see differently, must not get past a check that was made with another reader.

/// Size of a tar block.
pub(crate) const BLOCK_SIZE_BYTES: usize = 512;

pub(crate) type Block = [u8; BLOCK_SIZE_BYTES];

/// What a header block says, before long names and PAX records change it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Header {
    pub name: Vec<u8>,
    pub link_name: Vec<u8>,
    pub type_flag: u8,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime: i64,
    pub device: (i64, i64),
    pub is_gnu: bool,
}

/// Reads a header block; the error says which rule it breaks.
pub(crate) fn parse_header(block: &Block) -> Result<Header, &'static str> {
    let field = |start: usize, size_bytes: usize| block.get(start..start + size_bytes).unwrap_or_default();
    let checksum = parse_number(field(148, 8)).ok_or("the checksum is not a number")?;
    let outside = |position: usize| !(148..156).contains(&position);
    let unsigned: i64 =
        block.iter().enumerate().map(|(at, b)| if outside(at) { i64::from(*b) } else { 32 }).sum();
    // Some old programs summed up signed characters.
    let signed: i64 =
        block.iter().enumerate().map(|(at, b)| if outside(at) { i64::from(*b as i8) } else { 32 }).sum();
    if checksum != unsigned && checksum != signed {
        return Err("the checksum does not match");
    }
    let is_ustar = field(257, 6) == b"ustar\0";
    let is_gnu = field(257, 8) == b"ustar  \0";
    let mut name = until_nul(field(0, 100)).to_vec();
    if is_ustar {
        let prefix = until_nul(field(345, 155));
        if !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
    }
    let number = |start, size_bytes, reason| parse_number(field(start, size_bytes)).ok_or(reason);
    Ok(Header {
        name,
        link_name: until_nul(field(157, 100)).to_vec(),
        type_flag: field(156, 1).first().copied().unwrap_or(0),
        mode: number(100, 8, "the mode is not a number")?,
        uid: number(108, 8, "the owner is not a number")?,
        gid: number(116, 8, "the group is not a number")?,
        size: number(124, 12, "the size is not a number")?,
        mtime: number(136, 12, "the time is not a number")?,
        // Without a magic the fields may hold anything.
        device: if is_ustar || is_gnu {
            (
                number(329, 8, "the major device number is not a number")?,
                number(337, 8, "the minor device number is not a number")?,
            )
        } else {
            (0, 0)
        },
        is_gnu,
    })
}

/// Octal text, or GNU's base-256 (first bit set, two's complement).
pub(crate) fn parse_number(field: &[u8]) -> Option<i64> {
    if let Some(first) = field.first().filter(|first| **first & 0x80 != 0) {
        // The second bit is the sign; the first one is the mark.
        let mut value: i64 = if first & 0x40 != 0 { -1 } else { 0 };
        for (position, byte) in field.iter().enumerate() {
            let byte = if position == 0 { (byte & 0x7f) | (first & 0x40) << 1 } else { *byte };
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let text = until_nul(trim(field));
    let text = trim(text);
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0_i64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let Some((b' ' | 0, rest)) = text.split_first() {
        text = rest;
    }
    while let Some((b' ' | 0, rest)) = text.split_last() {
        text = rest;
    }
    text
}

pub(crate) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Splits PAX data into records, `<length> <key>=<value>\n` each. `None` if any byte of it is not part of one: a reader that
/// goes on after a broken record sees other entries than one that stops.
pub(crate) fn parse_pax(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = decimal(data.get(..space)?)?.try_into().ok()?;
        let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
        if key.is_empty() || key.contains(&0) {
            return None;
        }
        records.push((key, value));
        data = data.get(length..)?;
    }
    Some(records)
}

/// Decimal digits and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Seconds with an optional sign and fraction, as in the PAX record `mtime`; nanoseconds count upwards, also before 1970.
pub(crate) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0_u32, |value, at| {
        value * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit.wrapping_sub(b'0')))
    });
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |field: &[u8], expect: Option<i64>| assert_eq!(parse_number(field), expect, "{field:?}");
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"\0\0\0\0", Some(0));
        check(b"", Some(0));
        check(b"12a4\0", None);
        check(b"9\0", None);
        check(b"-1\0", None);
        check(b"77777777777", Some(0o77_777_777_777));
        check(&[0x80, 0, 0, 0, 0, 0, 1, 0], Some(256));
        check(&[0xff; 12], Some(-1));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], Some(-2));
        check(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], None);
        check(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], None);
    }

    #[test]
    fn pax_records() {
        let check = |data: &[u8], expect: Option<&[(&[u8], &[u8])]>| {
            assert_eq!(parse_pax(data).as_deref(), expect, "{}", data.escape_ascii());
        };
        check(b"", Some(&[]));
        check(b"9 path=a\n", Some(&[(b"path", b"a")]));
        check(b"9 path=a\n8 path=\n", Some(&[(b"path", b"a"), (b"path", b"")]));
        check(b"12 path=a\nb\n", Some(&[(b"path", b"a\nb")]));
        check(b"9 path=a\nx", None);
        check(b"11 path=a\n", None);
        check(b"8 path=a\n", None);
        check(b"0 path=a\n", None);
        check(b"3 \n", None);
        check(b"2 ", None);
        check(b"-9 path=a\n", None);
        check(b"99999999999999999999 a=b\n", None);
        check(b"6 =ab\n", None);
    }

    #[test]
    fn times() {
        let check = |text: &str, expect: Option<(i64, u32)>| {
            assert_eq!(parse_time(text.as_bytes()), expect, "{text}")
        };
        check("0", Some((0, 0)));
        check("1700000000.5", Some((1_700_000_000, 500_000_000)));
        check("1.0000000019", Some((1, 1)));
        check("-1", Some((-1, 0)));
        check("-1.25", Some((-2, 750_000_000)));
        check("1.", Some((1, 0)));
        check(".5", None);
        check("1e9", None);
        check("--1", None);
        check("99999999999999999999", None);
        check("1.x", None);
    }
}
