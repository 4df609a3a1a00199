//! Limits as users write them: sizes, processors, ulimits, signals. Pure.

use mica_runtime::spec::Rlimit;

use crate::error::{ContainerError, Result};

fn wrong(what: &'static str, value: &str, reason: &str) -> ContainerError {
    ContainerError::OptionInvalid { what, value: value.to_owned(), reason: reason.to_owned() }
}

/// `512`, `64m`, `1.5G`, `2 gib`: units are powers of 1024, and the rest is as docker reads sizes.
pub fn parse_size_bytes(text: &str) -> Result<u64> {
    let not_a_number = || wrong("size", text, "not a number");
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ' ');
    let last = text.rfind(is_number).ok_or_else(not_a_number)?;
    let (number, unit) = text.split_at(last + 1);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong("size", text, "unknown unit")),
    };
    let number = number.strip_suffix(' ').unwrap_or(number).replace('_', "");
    let number: f64 = number.parse().map_err(|_| not_a_number())?;
    let bytes = number * (1u64 << shift) as f64;
    if !(0.0..9.0e18).contains(&bytes) {
        return Err(wrong("size", text, "out of range"));
    }
    Ok(bytes as u64)
}

/// `1.5` processors, in thousandths.
pub fn parse_cpu_millis(text: &str) -> Result<u64> {
    let number: f64 = text.parse().map_err(|_| wrong("number of CPUs", text, "not a number"))?;
    if !(0.0..1.0e6).contains(&number) {
        return Err(wrong("number of CPUs", text, "out of range"));
    }
    let millis = (number * 1000.0).round();
    if millis == 0.0 && number > 0.0 {
        return Err(wrong("number of CPUs", text, "less than a thousandth"));
    }
    Ok(millis as u64)
}

/// Limits of processes, setrlimit(2).
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `nofile=1024` or `nofile=1024:2048`; `-1` is unlimited.
pub fn parse_ulimit(text: &str) -> Result<Rlimit> {
    let (name, values) = text.split_once('=').ok_or_else(|| wrong("ulimit", text, "no `=`"))?;
    if !ULIMITS.contains(&name) {
        return Err(wrong("ulimit", text, "no such limit"));
    }
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let parse = |value: &str| match value {
        "-1" | "unlimited" => Ok(None),
        // As docker has it: numbers that a signed one holds.
        _ => match value.parse::<i64>().map(u64::try_from) {
            Ok(Ok(number)) => Ok(Some(number)),
            _ => Err(wrong("ulimit", text, "not a number")),
        },
    };
    let (soft, hard) = (parse(soft)?, parse(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err(wrong("ulimit", text, "the soft limit is above the hard limit"));
    }
    Ok(Rlimit { name: name.to_owned(), soft, hard })
}

/// Names by number, signal(7) on x86 and ARM.
const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `SIGTERM`, `term` or `15`.
pub fn parse_signal(text: &str) -> Result<i32> {
    let found = match text.parse::<i32>() {
        Ok(number) => Some(number).filter(|number| (1..=64).contains(number)),
        Err(_) => {
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("SIG").unwrap_or(&upper);
            let real_time = || {
                let offset: i32 = name.strip_prefix("RTMIN")?.trim_start_matches('+').parse().ok()?;
                Some(34 + offset).filter(|number| (34..=64).contains(number))
            };
            match name {
                "RTMIN" => Some(34),
                "RTMAX" => Some(64),
                _ => SIGNALS
                    .iter()
                    .position(|known| *known == name)
                    .and_then(|position| i32::try_from(position + 1).ok())
                    .or_else(real_time),
            }
        }
    };
    found.ok_or_else(|| wrong("signal", text, "no such signal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        let check =
            |text: &str, expect: Option<u64>| assert_eq!(parse_size_bytes(text).ok(), expect, "{text}");
        check("0", Some(0));
        check("512", Some(512));
        check("64m", Some(64 << 20));
        check("1.5G", Some(3 << 29));
        check("2 gib", Some(2 << 30));
        check("10kb", Some(10 << 10));
        for text in ["", "m", "4x", "-1", "1..2", "99999999p"] {
            check(text, None);
        }
    }

    /// A file of the corpus; told when it is not there.
    fn corpus(path: &str) -> Option<Vec<u8>> {
        let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus");
        let root = std::env::var("MICA_CORPUS").unwrap_or_else(|_| beside.to_owned());
        let found = std::fs::read(format!("{root}/{path}")).ok();
        if found.is_none() {
            println!("skipped: corpus is absent");
        }
        found
    }

    #[test]
    fn sizes_of_the_corpus() {
        let Some(text) = corpus("vectors/size-strings.json") else { return };
        let vectors: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let text = case["in"].as_str().unwrap();
            assert_eq!(parse_size_bytes(text).ok(), case["ram_in_bytes"].as_u64(), "{text:?}");
        }
    }

    #[test]
    fn ulimits_parse() {
        let check = |text: &str, expect: Option<(Option<u64>, Option<u64>)>| {
            assert_eq!(parse_ulimit(text).ok().map(|limit| (limit.soft, limit.hard)), expect, "{text}");
        };
        check("nofile=10", Some((Some(10), Some(10))));
        check("nofile=10:20", Some((Some(10), Some(20))));
        check("core=-1", Some((None, None)));
        check("core=5:-1", Some((Some(5), None)));
        for text in ["nofile", "nofile=3:2", "nofile=-1:5", "nofile=x"] {
            check(text, None);
        }
    }

    /// docker's own parser on the same texts.
    #[test]
    fn ulimits_are_read_as_docker_reads_them() {
        let Some(text) = corpus("vectors/ulimits.json") else { return };
        let vectors: serde_json::Value = serde_json::from_slice(&text).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let parsed = parse_ulimit(case["in"].as_str().unwrap()).ok();
            let number = |limit: Option<u64>| limit.map_or(-1, |limit| limit as i64);
            let found = parsed.map(|limit| (limit.name, number(limit.soft), number(limit.hard)));
            let expect = case["name"].as_str().map(|name| {
                (name.to_owned(), case["soft"].as_i64().unwrap(), case["hard"].as_i64().unwrap())
            });
            assert_eq!(found, expect, "{case}");
        }
    }

    #[test]
    fn signals_parse() {
        let check = |text: &str, expect: Option<i32>| assert_eq!(parse_signal(text).ok(), expect, "{text}");
        check("SIGTERM", Some(15));
        check("term", Some(15));
        check("9", Some(9));
        check("WINCH", Some(28));
        check("RTMIN+3", Some(37));
        for text in ["0", "65", "SIGFOO", "", "-1", "RTMIN+99"] {
            check(text, None);
        }
    }
}
