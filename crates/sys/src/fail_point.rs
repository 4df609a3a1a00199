//! Places where a test makes the Nth call fail or the process die.
//!
//! `fail_point!("store.commit.rename")?` stands before a call whose failure or kill must be survived. A test runs
//! a child with `MICA_FAIL_POINT=<name>:<N>:<action>`; a name ending in `*` counts every point that begins so.
//! Actions: `fail` answers EIO, `full` answers ENOSPC, `kill` ends the process with SIGKILL. In a release build
//! the macro is `Ok(())` and no environment is read.

use crate::error::{Error, Result};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Fails or dies here if the environment asks for it; see the module.
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {
        if ::core::cfg!(debug_assertions) { $crate::fail_point::hit($name) } else { Ok(()) }
    };
}

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Fail,
    Full,
    Kill,
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    name: String,
    position: u64,
    action: Action,
}

// The count spans all threads of the process, as "the Nth call" does; debug builds only.
static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Counts a call of the point `name`. Use the macro, which is nothing in release builds.
pub fn hit(name: &'static str) -> Result<()> {
    let plan = PLAN.get_or_init(|| parse_plan(&std::env::var("MICA_FAIL_POINT").ok()?));
    let Some(plan) = plan.as_ref().filter(|plan| matches(&plan.name, name)) else { return Ok(()) };
    if COUNT.fetch_add(1, Ordering::SeqCst) + 1 != plan.position {
        return Ok(());
    }
    match plan.action {
        Action::Fail => Err(Error::new("fail_point", name, Errno::IO)),
        Action::Full => Err(Error::new("fail_point", name, Errno::NOSPC)),
        Action::Kill => {
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort();
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

fn parse_plan(text: &str) -> Option<Plan> {
    let mut parts = text.split(':');
    let (name, position, action) = (parts.next()?, parts.next()?, parts.next()?);
    let action = match action {
        "fail" => Action::Fail,
        "full" => Action::Full,
        "kill" => Action::Kill,
        _ => return None,
    };
    Some(Plan { name: name.to_owned(), position: position.parse().ok()?, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans() {
        let plan = parse_plan("store.commit.*:3:kill").unwrap();
        assert_eq!(plan, Plan { name: "store.commit.*".into(), position: 3, action: Action::Kill });
        for bad in ["", "name", "name:1", "name:x:fail", "name:1:explode"] {
            assert_eq!(parse_plan(bad), None, "{bad}");
        }
        assert!(matches("store.*", "store.commit.rename"));
        assert!(!matches("store", "store.commit.rename"));
        assert!(matches("store.gc", "store.gc"));
    }

    #[test]
    fn without_a_plan_nothing_happens() {
        for _ in 0..3 {
            hit("sys.test").unwrap();
        }
    }
}
