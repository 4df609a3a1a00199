//! Paths inside an image, as text: nothing here looks at files.

/// `path` seen from the absolute `directory`: absolute, without `.`, `..`, double or trailing slashes.
pub(crate) fn join(directory: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_string() } else { format!("{directory}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// [`join`], with a slash at the end when a directory was meant: nothing, or `/`, `.` or `..` at the end of what was written.
pub(crate) fn join_destination(directory: &str, path: &str) -> String {
    let mut joined = join(directory, path);
    let last = path.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") && !joined.ends_with('/') {
        joined.push('/');
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_whether_a_directory_was_meant() {
        for (directory, path, expect) in [
            ("/", "a", "/a"),
            ("/w", "a/", "/w/a/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/", ".", "/"),
            ("/w", "/x/.", "/x/"),
            ("/w", "..", "/"),
            ("/w/v", "../../../../etc", "/etc"),
            ("/w", "//a//./b", "/a/b"),
        ] {
            assert_eq!(join_destination(directory, path), expect, "{directory} {path}");
        }
    }
}
