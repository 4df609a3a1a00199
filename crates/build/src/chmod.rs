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
}
