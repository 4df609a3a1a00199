//! Names of `--chown`, looked up in the image.

use crate::error::StepError;

/// Largest passwd or group file that is read, bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Gives a file of the image, `None` when it is not there.
type ReadFile<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>, StepError> + 'a;

/// `user[:group]` as numbers. `read` gives a file of the image, `None` when it is not there. Without a group, a user
/// found by name has its group of passwd, and a number is its own group, as BuildKit does it.
pub(crate) fn resolve(chown: &str, read: &ReadFile<'_>) -> Result<(u32, u32), StepError> {
    let (user, group) = match chown.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (chown, None),
    };
    let (uid, own_gid) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let fields = find(read("etc/passwd")?, user);
            let number =
                |position: usize| fields.as_ref().and_then(|fields| fields.get(position)?.parse().ok());
            match (number(2), number(3)) {
                (Some(uid), Some(gid)) => (uid, gid),
                _ => return Err(unknown("user", user, "/etc/passwd")),
            }
        }
    };
    let gid = match group {
        None => own_gid,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => find(read("etc/group")?, group)
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| unknown("group", group, "/etc/group"))?,
        },
    };
    Ok((uid, gid))
}

/// Whether nothing needs to be looked up.
pub(crate) fn is_numeric(chown: &str) -> bool {
    let is_number = |text: &str| text.is_empty() || text.parse::<u32>().is_ok();
    chown.split(':').all(is_number)
}

fn unknown(kind: &'static str, name: &str, file: &'static str) -> StepError {
    StepError::UnknownOwner { kind, name: name.to_owned(), file }
}

/// Fields of the first line that begins with `name`.
fn find(file: Option<Vec<u8>>, name: &str) -> Option<Vec<String>> {
    let file = file?;
    let text = String::from_utf8_lossy(&file);
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let read = |path: &str| -> Result<Option<Vec<u8>>, StepError> {
            Ok(match path {
                "etc/passwd" => Some(b"root:x:0:0::/:/bin/sh\ndaemon:x:1:7::/:\nbroken\n".to_vec()),
                "etc/group" => Some(b"root:x:0:\nstaff:x:50:\n".to_vec()),
                _ => None,
            })
        };
        let check = |chown: &str, expect: Option<(u32, u32)>| {
            assert_eq!(resolve(chown, &read).ok(), expect, "{chown}");
        };
        check("daemon", Some((1, 7)));
        check("daemon:staff", Some((1, 50)));
        check("1000", Some((1000, 1000)));
        check("1000:2000", Some((1000, 2000)));
        check("1000:", Some((1000, 1000)));
        check(":staff", Some((0, 50)));
        check("nobody", None);
        check("daemon:nogroup", None);
        check("broken", None);
    }
}
