//! Names of signals.

/// Linux names without `SIG`, the real-time ones aside.
const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Whether `text` is a signal's number or name, `SIG` and case being of no matter.
pub(crate) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number > 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if NAMES.contains(&name) {
        return true;
    }
    // SIGRTMIN is 34 and SIGRTMAX 64 for programs (libc keeps two for itself), so half of the 30 between is counted from each end.
    let offset = |rest: &str, sign: char, limit: u32| {
        rest.is_empty()
            || rest
                .strip_prefix(sign)
                .and_then(|n| n.parse::<u32>().ok())
                .is_some_and(|n| (1..=limit).contains(&n))
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => offset(rest, '+', 15),
        (_, Some(rest)) => offset(rest, '-', 14),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn names_and_numbers_are_signals() {
        for signal in ["9", "SIGKILL", "kill", "SIGRTMIN", "SIGRTMIN+3", "RTMAX-14"] {
            assert!(is_signal(signal), "{signal}");
        }
        for other in ["", "0", "-1", "SIG", "SIGFOO", "SIGRTMIN+16", "SIGRTMIN-1", "RTMAX-15", "$SIG"] {
            assert!(!is_signal(other), "{other}");
        }
    }
}
