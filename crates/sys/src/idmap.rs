//! A user namespace for an ordinary user: which ids it gets, and entering it.
//!
//! The process stays the same process: it keeps its pid, its terminal and its exit code, so nobody has to wait for it
//! or forward signals to it. Only the ids it sees change: it is root (0) and owns the subordinate ids that
//! /etc/subuid and /etc/subgid give its user. Writing more than one id into a map needs the setuid programs
//! `newuidmap` and `newgidmap`, run from a child that stays outside; without them, or without subordinate ids, the
//! map has one id, and files of other owners cannot be made.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags};

use crate::error::{Error, ErrorAt, Result};
use crate::namespace::{self, Namespaces};
use crate::process;

/// A run of ids: `inside + n` in the namespace is `outside + n` in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
    /// Why there is only one id of each, if so.
    pub single: Option<SingleIdReason>,
}

/// Why a user namespace has one id only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SingleIdReason {
    /// The user has no line in this file.
    NoSubordinateIds {
        /// /etc/subuid or /etc/subgid.
        file: PathBuf,
    },
    /// This program is not installed.
    ProgramMissing {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
    },
    /// This program refused.
    ProgramFailed {
        /// `newuidmap` and `newgidmap`: what they printed.
        message: String,
    },
}

/// Most of a file of accounts that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where the setuid programs are looked for: not in the caller's `PATH`.
const PROGRAM_DIRECTORIES: &[&str] =
    &["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"];

/// The subordinate ids (first, count) that lines `owner:first:count` give to a user by name or number.
pub fn parse_subordinate_ids(text: &str, name: Option<&str>, id: u32) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let first: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let is_owner = name == Some(owner) || owner.parse() == Ok(id);
            let fits = count > 0 && first.checked_add(count).is_some();
            (is_owner && fits && fields.next().is_none()).then_some((first, count))
        })
        .collect()
}

/// The name that the lines of /etc/passwd give to a user id.
pub fn parse_user_name(text: &str, id: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
}

/// The map with `own` as root and the subordinate ids behind it, in their order.
pub fn map_of(own: u32, subordinate: &[(u32, u32)]) -> Vec<IdRange> {
    let mut ranges = vec![IdRange { inside: 0, outside: own, count: 1 }];
    let mut inside = 1_u32;
    for (outside, count) in subordinate {
        let Some(next) = inside.checked_add(*count) else { break };
        ranges.push(IdRange { inside, outside: *outside, count: *count });
        inside = next;
    }
    ranges
}

/// Whether this process is in a user namespace that is not the first one (or one that looks like it).
pub fn in_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

/// Enters a new user namespace (and a new mount namespace) with the ids of the calling user.
///
/// To be called early in `main`: a process with more than one thread cannot.
pub fn enter_user_namespace() -> Result<IdMap> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let plan = plan_full_map(uid, gid);
    let mapper = match &plan {
        Ok(plan) => Some(Mapper::start(plan)?),
        Err(_) => None,
    };
    namespace::unshare(Namespaces::USER.and(Namespaces::MOUNT))?;
    let reason = match (plan, mapper) {
        (Ok(plan), Some(mapper)) => match mapper.map()? {
            None => return Ok(IdMap { uids: plan.uids, gids: plan.gids, single: None }),
            Some(message) => SingleIdReason::ProgramFailed { message },
        },
        (Err(reason), _) => reason,
        (Ok(_), None) => SingleIdReason::ProgramFailed { message: String::new() },
    };
    // One's own id may be mapped without help, for groups once setgroups(2) is given up.
    write_own("/proc/self/setgroups", "deny")?;
    write_own("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_own("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    Ok(IdMap { uids: map_of(uid, &[]), gids: map_of(gid, &[]), single: Some(reason) })
}

/// Enters the user namespace (and the mount namespace it came with, seen from outside) of another process of the user.
///
/// For acting on a container that another process of the user has made: a namespace of one's own, entered first,
/// would have no power over it.
pub fn join_user_namespace_of(pid: i32) -> Result<()> {
    let name = format!("process {pid}");
    let target =
        Pid::from_raw(pid).ok_or_else(|| Error::new("pidfd_open", &name, rustix::io::Errno::SRCH))?;
    let pidfd = rustix::process::pidfd_open(target, PidfdFlags::empty()).at("pidfd_open", &name)?;
    namespace::join(&pidfd, Namespaces::USER).at("setns", name)
}

fn write_own(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).at("write", path)
}

struct FullMap {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

fn plan_full_map(uid: u32, gid: u32) -> std::result::Result<FullMap, SingleIdReason> {
    let passwd = read_bounded("/etc/passwd");
    let name = parse_user_name(&passwd, uid);
    let subordinate = |file: &str| {
        let ids = parse_subordinate_ids(&read_bounded(file), name, uid);
        if ids.is_empty() { Err(SingleIdReason::NoSubordinateIds { file: file.into() }) } else { Ok(ids) }
    };
    let (subuids, subgids) = (subordinate("/etc/subuid")?, subordinate("/etc/subgid")?);
    let find = |program: &'static str| {
        PROGRAM_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(program))
            .find(|path| path.is_file())
            .ok_or(SingleIdReason::ProgramMissing { program })
    };
    Ok(FullMap {
        uids: map_of(uid, &subuids),
        gids: map_of(gid, &subgids),
        newuidmap: find("newuidmap")?,
        newgidmap: find("newgidmap")?,
    })
}

fn read_bounded(path: &str) -> String {
    let mut bytes = Vec::new();
    match fs::File::open(path).map(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)) {
        Ok(Ok(_)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}

/// A child that stays in the first user namespace and writes the maps of its parent when told to.
struct Mapper {
    child: Pid,
    tell: std::io::PipeWriter,
    answer: std::io::PipeReader,
}

impl Mapper {
    fn start(plan: &FullMap) -> Result<Self> {
        let (told, tell) = std::io::pipe().at("pipe2", "id map")?;
        let (answer, answering) = std::io::pipe().at("pipe2", "id map")?;
        let parent = std::process::id();
        match namespace::fork_process()? {
            Some(child) => Ok(Self { child, tell, answer }),
            None => {
                drop((tell, answer));
                run_mapper(plan, parent, told, answering)
            }
        }
    }

    /// Has the maps written; answers what went wrong, if anything.
    fn map(mut self) -> Result<Option<String>> {
        self.tell.write_all(b"g").at("write", "id map")?;
        let mut answer = String::new();
        self.answer.read_to_string(&mut answer).at("read", "id map")?;
        rustix::io::retry_on_intr(|| {
            rustix::process::waitpid(Some(self.child), rustix::process::WaitOptions::empty())
        })
        .at("waitpid", "id map")?;
        // The child says `ok` in so many words: an answer that ends early is not taken for success.
        Ok(if answer == "ok" { None } else { Some(answer) })
    }
}

fn run_mapper(
    plan: &FullMap,
    parent: u32,
    mut told: std::io::PipeReader,
    mut answering: std::io::PipeWriter,
) -> ! {
    let mut byte = [0];
    if !matches!(told.read(&mut byte), Ok(1)) {
        process::exit_now(1);
    }
    let start = |program: &Path, ranges: &[IdRange]| -> std::io::Result<Child> {
        let mut command = Command::new(program);
        command.arg(parent.to_string());
        for range in ranges {
            command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
        }
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    // Both at once: each is a program to load.
    let children = [start(&plan.newuidmap, &plan.uids), start(&plan.newgidmap, &plan.gids)];
    let mut message = String::new();
    for child in children {
        match child.and_then(Child::wait_with_output) {
            Ok(output) if output.status.success() => {}
            Ok(output) => message.push_str(String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => message.push_str(&error.to_string()),
        }
    }
    let answer = if message.is_empty() { "ok" } else { message.as_str() };
    let _ = answering.write_all(answer.as_bytes());
    process::exit_now(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_name_and_number() {
        let text = "anna:100000:65536\n1000:200000:10\nbert:1:1\nanna:x:1\nanna:5\nanna:1:0\nanna:4294967295:2\nanna:7:1:9\n";
        for (name, id, expected) in [
            (Some("anna"), 1000, vec![(100_000, 65_536), (200_000, 10)]),
            (Some("anna"), 1, vec![(100_000, 65_536)]),
            (None, 1000, vec![(200_000, 10)]),
            (Some("carl"), 5, vec![]),
        ] {
            assert_eq!(parse_subordinate_ids(text, name, id), expected, "{name:?} {id}");
        }
    }

    #[test]
    fn names_are_found_by_number() {
        let text = "root:x:0:0::/root:/bin/sh\nodd\nanna:x:1000:100::/:\n";
        assert_eq!(parse_user_name(text, 1000), Some("anna"));
        assert_eq!(parse_user_name(text, 0), Some("root"));
        assert_eq!(parse_user_name(text, 7), None);
    }

    #[test]
    fn the_user_is_root_and_the_rest_follows() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(map_of(1000, &[]), [range(0, 1000, 1)]);
        assert_eq!(
            map_of(1000, &[(100_000, 65_536), (5, 2)]),
            [range(0, 1000, 1), range(1, 100_000, 65_536), range(65_537, 5, 2)]
        );
        assert_eq!(map_of(7, &[(0, u32::MAX)]), [range(0, 7, 1)]);
    }
}
