//! Symbolic modes of `--chmod`, as chmod(1) reads them with a umask of zero.

/// `mode` after `changes` (`u=rwX,go-w`). Whether the text is well-formed was checked when the Dockerfile was planned;
/// what is not understood changes nothing.
pub(crate) fn apply(changes: &str, mode: u32, directory: bool) -> u32 {
    changes.split(',').fold(mode, |mode, change| apply_one(change, mode, directory).unwrap_or(mode))
}

fn apply_one(change: &str, mut mode: u32, directory: bool) -> Option<u32> {
    let operators = change.find(['+', '-', '='])?;
    let (who, mut actions) = change.split_at(operators);
    let mut scope = 0;
    for letter in who.chars() {
        scope |= match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if who.is_empty() {
        scope = 0o7777;
    }
    while let Some(operator) = actions.chars().next() {
        let rest = &actions[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let executable = directory || mode & 0o111 != 0;
        let mut bits = 0;
        for letter in rest[..end].chars() {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if executable => 0o111,
                'X' => 0,
                's' => 0o6000,
                't' => 0o1000,
                'u' => (mode >> 6 & 7) * 0o111,
                'g' => (mode >> 3 & 7) * 0o111,
                'o' => (mode & 7) * 0o111,
                _ => return None,
            };
        }
        bits &= scope;
        mode = match operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            // A directory keeps its set-id bits unless they are named, as in chmod(1).
            _ => mode & !(scope & if directory { 0o1777 } else { 0o7777 }) | bits,
        };
        actions = &rest[end..];
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn symbolic_modes() {
        let check = |changes: &str, mode: u32, directory: bool, expect: u32| {
            assert_eq!(apply(changes, mode, directory), expect, "{changes} on {mode:o}");
        };
        check("u=rwX,go-w", 0o666, false, 0o644);
        check("u=rwX,go-w", 0o777, true, 0o755);
        check("+x", 0o644, false, 0o755);
        check("a=r", 0o755, false, 0o444);
        check("g=u", 0o640, false, 0o660);
        check("u+s,o+t", 0o755, false, 0o5755);
        check("u+x-w", 0o644, false, 0o544);
        check("nonsense", 0o644, false, 0o644);
    }

    /// What chmod(1) makes of a file and of a directory of each mode.
    #[test]
    fn root_modes_are_those_of_chmod() {
        use std::os::unix::fs::PermissionsExt as _;
        if !rustix::process::geteuid().is_root() {
            println!("skipped: set-id bits of any group need root");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let changes = [
            "u=rwX,go-w",
            "a+X",
            "+x",
            "-x",
            "=",
            "=r",
            "u=",
            "g=u",
            "o=g",
            "u=o,g+u",
            "go=",
            "a=rX",
            "u+s",
            "g+s",
            "ug+s",
            "+s",
            "-s",
            "o+s",
            "+t",
            "-t",
            "u+t",
            "o+t",
            "a=t",
            "g=s",
            "u=s,g=s",
            "u+x-w",
            "u-x+X",
            "-x+X",
            "ug=rw,o=r,a+X",
            "o-rwx",
            "g=u-w",
            "u=g+x",
            "a=u",
            "a-st",
            "u=rws",
            "g=rxs",
            "=rwX",
            "u+r,u-r,u+w",
        ];
        let modes = [0o644, 0o755, 0o600, 0, 0o4755, 0o2750, 0o1777, 0o7777, 0o640, 0o111, 0o6644];
        let paths = modes.map(|mode| [false, true].map(|is_directory| (mode, is_directory)));
        let paths = paths.as_flattened().to_vec();
        let place = |(mode, is_directory): (u32, bool)| dir.path().join(format!("{mode:o}{is_directory}"));
        for (mode, is_directory) in &paths {
            match is_directory {
                true => std::fs::create_dir(place((*mode, true))).expect("a directory"),
                false => std::fs::write(place((*mode, false)), "").expect("a file"),
            }
        }
        for change in changes {
            for path in &paths {
                std::fs::set_permissions(place(*path), std::fs::Permissions::from_mode(path.0))
                    .expect("a mode");
            }
            let mut command = std::process::Command::new("sh");
            command
                .args(["-c", "umask 0; chmod -- \"$@\"", "sh", change])
                .args(paths.iter().copied().map(place));
            assert!(command.status().expect("chmod").success(), "{change}");
            for (mode, is_directory) in &paths {
                let made =
                    std::fs::metadata(place((*mode, *is_directory))).expect("a mode").permissions().mode();
                let (got, expect) = (apply(change, *mode, *is_directory), made & 0o7777);
                assert_eq!(
                    got, expect,
                    "{change} on {mode:o}, directory {is_directory}: {got:o}, not {expect:o}"
                );
            }
        }
    }
}
