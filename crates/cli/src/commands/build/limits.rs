//! Limits of steps. What docker accepts is accepted; what has no meaning here is told of.

use mica_build::StepLimits;
use mica_container::{parse_size_bytes, parse_ulimit};

use crate::error::CliError;

use super::args::Args;
use super::fields;

/// docker's length of a period of processor time.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;

/// With less, docker starts nothing.
const MEMORY_BYTES_MIN: u64 = 6 << 20;

/// `--shm-size`, `--ulimit`, `--memory`, `--cpu-*`, `--cpuset-*`, `--cgroup-parent`, `--resource`
pub(super) fn limits(args: &Args) -> Result<StepLimits, CliError> {
    for ulimit in &args.ulimit {
        parse_ulimit(ulimit)?;
    }
    let size = |text: &Option<String>| text.as_deref().map(parse_size_bytes).transpose();
    // Zero is docker's word for "not limited".
    let limited = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0);
    let memory_swap_bytes = match args.memory_swap.as_deref() {
        Some("-1") => None,
        _ => limited(size(&args.memory_swap)?),
    };
    let mut limits = StepLimits {
        shm_size_bytes: limited(size(&args.shm_size)?),
        ulimits: args.ulimit.clone(),
        memory_bytes: limited(size(&args.memory)?),
        memory_swap_bytes,
        cpu_millis: cpu_millis(args.cpu_quota, args.cpu_period),
        cpu_shares: args.cpu_shares.filter(|shares| *shares > 0),
        cpuset_cpus: list("--cpuset-cpus", &args.cpuset_cpus)?,
        cpuset_mems: list("--cpuset-mems", &args.cpuset_mems)?,
        cgroup_parent: args.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
    };
    for resource in &args.resource {
        for (key, value) in fields::pairs("--resource", resource)? {
            match key.as_str() {
                "memory" => limits.memory_bytes = limited(Some(parse_size_bytes(&value)?)),
                "memory-swap" => limits.memory_swap_bytes = limited(Some(parse_size_bytes(&value)?)),
                "cpuset-cpus" => limits.cpuset_cpus = list("--resource", &Some(value))?,
                "cpuset-mems" => limits.cpuset_mems = list("--resource", &Some(value))?,
                _ => eprintln!("warning: `--resource {key}` is not supported, and not heeded"),
            }
        }
    }
    if limits.memory_bytes.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN) {
        return Err(CliError::new("the limit of `--memory` is too small: programs need at least 6m"));
    }
    if limits.memory_swap_bytes.is_some_and(|both| both < limits.memory_bytes.unwrap_or(u64::MAX)) {
        return Err(CliError::new("`--memory-swap` is memory and swap together, and less than `--memory`"));
    }
    for option in &args.security_opt {
        eprintln!("warning: `--security-opt {option}` is not heeded: `RUN --security` says it for one step");
    }
    if let Some(way) = args.isolation.as_deref().filter(|way| !way.is_empty() && *way != "default") {
        eprintln!("warning: `--isolation {way}` is not heeded: there is one way to isolate");
    }
    Ok(limits)
}

fn cpu_millis(quota: Option<i64>, period: Option<u64>) -> Option<u64> {
    let quota = quota.and_then(|quota| u64::try_from(quota).ok()).filter(|quota| *quota > 0)?;
    let period = period.filter(|period| *period > 0).unwrap_or(CPU_PERIOD_MICROSECONDS);
    Some((quota.saturating_mul(1000) / period).max(1))
}

/// A list of the kernel's, `0-2,7`: it goes into a file of its own.
fn list(flag: &str, text: &Option<String>) -> Result<Option<String>, CliError> {
    let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    let is_range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if first <= last)
    };
    match text.split(',').all(is_range) {
        true => Ok(Some(text.to_owned())),
        false => {
            Err(CliError::new(format!("invalid value `{text}` for `{flag}`")).hint("write it as `0-2,7`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time() {
        let check = |quota, period, expect| assert_eq!(cpu_millis(quota, period), expect);
        check(None, None, None);
        check(Some(50_000), None, Some(500));
        check(Some(50_000), Some(25_000), Some(2000));
        check(Some(-1), None, None);
        check(Some(0), Some(5), None);
        check(Some(1), Some(u64::MAX), Some(1));
    }

    #[test]
    fn lists_of_the_kernel() {
        let check = |text: &str, is_right: bool| {
            assert_eq!(list("-x", &Some(text.to_owned())).is_ok(), is_right, "{text}");
        };
        for right in ["0", "0-2", "0-2,7", "3,1", ""] {
            check(right, true);
        }
        for wrong in ["a", "2-1", "0-", ",", "0\n1", "-1"] {
            check(wrong, false);
        }
    }
}
