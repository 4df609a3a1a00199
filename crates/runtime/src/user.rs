//! Who runs the process: the container's own /etc/passwd and /etc/group, read by our own parser.
//!
//! Never the host's name service: it knows other users, and its libraries are not the container's to call. The rules
//! are docker's: the first matching entry wins, a number needs no entry, an explicit group means no supplementary ones.

use crate::error::Failure;
use crate::spec::UserSpec;

/// The numbers of a user, and their home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Largest number a user or group may have, docker's limit.
const ID_MAX: u32 = i32::MAX as u32;

/// Finds the user; `passwd` and `group` are the contents of the files, empty when there are none.
pub(crate) fn resolve_user(spec: &UserSpec, passwd: &str, group: &str) -> Result<User, Failure> {
    match spec {
        UserSpec::Ids { uid, gid, groups } => {
            let home = passwd_entries(passwd).find(|entry| entry.uid == *uid).map_or("/", |entry| entry.home);
            Ok(User { uid: *uid, gid: *gid, groups: groups.clone(), home: home.to_owned() })
        }
        UserSpec::Names(names) => resolve_names(names, passwd, group),
    }
}

fn resolve_names(names: &str, passwd: &str, group: &str) -> Result<User, Failure> {
    let (user_name, group_name) = names.split_once(':').unwrap_or((names, ""));
    let user_number = parse_id(user_name)?;
    let group_number = parse_id(group_name)?;
    let entry = passwd_entries(passwd).find(|entry| match user_number {
        _ if user_name.is_empty() => entry.uid == 0,
        Some(number) => entry.uid == number,
        None => entry.name == user_name,
    });
    let mut user = match (&entry, user_number) {
        (Some(entry), _) => {
            User { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.to_owned() }
        }
        (None, number) if number.is_some() || user_name.is_empty() => {
            User { uid: number.unwrap_or(0), gid: 0, groups: Vec::new(), home: "/".to_owned() }
        }
        (None, _) => return Err(Failure::UserNotFound { user: user_name.to_owned() }),
    };
    if user.home.is_empty() {
        "/".clone_into(&mut user.home);
    }
    if !group_name.is_empty() {
        let found = group_entries(group).find(|entry| match group_number {
            Some(number) => entry.gid == number,
            None => entry.name == group_name,
        });
        user.gid = match (found, group_number) {
            (Some(entry), _) => entry.gid,
            (None, Some(number)) => number,
            (None, None) => return Err(Failure::GroupNotFound { group: group_name.to_owned() }),
        };
    } else if let Some(entry) = entry {
        user.groups = group_entries(group)
            .filter(|group| group.members.split(',').any(|member| member == entry.name))
            .map(|group| group.gid)
            .collect();
    }
    Ok(user)
}

/// The number that a name is, if it is one.
fn parse_id(text: &str) -> Result<Option<u32>, Failure> {
    match text.parse::<i64>() {
        Ok(number) => match u32::try_from(number) {
            Ok(number) if number <= ID_MAX => Ok(Some(number)),
            _ => Err(Failure::IdOutOfRange { number: text.to_owned() }),
        },
        Err(_) => Ok(None),
    }
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        (!name.is_empty()).then_some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "# a comment\nroot:x:0:0:root:/root:/bin/sh\nbroken\nanna:x:1000:100:Anna:/home/anna:/bin/sh\n\
                          anna:x:1001:101::/other:/bin/sh\n1002:x:77:77::/odd:\nhomeless:x:5:5:::\n";
    const GROUP: &str =
        "root:x:0:root\nusers:x:100:\nwheel:x:10:root,anna\naudio:x:29:other,anna\nbroken:x\n";

    fn check(names: &str, expected: Result<(u32, u32, &[u32], &str), &str>) {
        let user = resolve_user(&UserSpec::Names(names.to_owned()), PASSWD, GROUP);
        match (user, expected) {
            (Ok(user), Ok((uid, gid, groups, home))) => {
                assert_eq!(
                    user,
                    User { uid, gid, groups: groups.to_vec(), home: home.to_owned() },
                    "{names}"
                );
            }
            (Err(failure), Err(text)) => {
                assert_eq!(crate::RuntimeError::from(failure).to_string(), text, "{names}");
            }
            (user, expected) => panic!("{names}: {user:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", Ok((0, 0, &[0, 10], "/root")));
        check("root", Ok((0, 0, &[0, 10], "/root")));
        check("anna", Ok((1000, 100, &[10, 29], "/home/anna")));
        check("1000", Ok((1000, 100, &[10, 29], "/home/anna")));
        check("1001", Ok((1001, 101, &[10, 29], "/other")));
        check("anna:wheel", Ok((1000, 10, &[], "/home/anna")));
        check("anna:4711", Ok((1000, 4711, &[], "/home/anna")));
        check("4711", Ok((4711, 0, &[], "/")));
        check("4711:users", Ok((4711, 100, &[], "/")));
        // A number is a number, even where a user is so named.
        check("1002", Ok((1002, 0, &[], "/")));
        check("homeless", Ok((5, 5, &[], "/")));
        check(":users", Ok((0, 100, &[], "/root")));
        check("nobody", Err("unable to find user nobody: no matching entries in passwd file"));
        check("broken", Err("unable to find user broken: no matching entries in passwd file"));
        check("anna:nogroup", Err("unable to find group nogroup: no matching entries in group file"));
        check("-1", Err("uids and gids must be in range 0-2147483647: `-1`"));
        check("2147483648", Err("uids and gids must be in range 0-2147483647: `2147483648`"));
    }

    #[test]
    fn numbers_need_no_files() {
        let user = resolve_user(&UserSpec::Names("12:34".to_owned()), "", "").map_err(|_| ());
        assert_eq!(user, Ok(User { uid: 12, gid: 34, groups: vec![], home: "/".to_owned() }));
    }
}
