//! Which files belong together, as dpkg and apk write it down. Pure.

use std::collections::HashSet;

/// What a package manager says of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub name: String,
    /// Paths relative to the root, as written: links among their directories are not resolved.
    pub paths: Vec<Vec<u8>>,
}

/// The paths of `/var/lib/dpkg/info/*.list`: absolute, one a line; the first is `/.`.
pub(crate) fn dpkg_paths(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.strip_prefix(b"/")).filter(|path| !path.is_empty() && *path != b".")
}

/// The package of a list, by the list's name: `libc6:amd64.list`. With it the beginning of all of its other files.
pub(crate) fn dpkg_package(file: &[u8]) -> Option<(String, &[u8])> {
    let stem = file.strip_suffix(b".list")?;
    let name = stem.split(|byte| *byte == b':').next()?;
    Some((std::str::from_utf8(name).ok()?.to_owned(), stem))
}

/// The packages of `/lib/apk/db/installed`: stanzas of lines with a letter each, `P:` name, `F:` directory, `R:` file in it.
pub(crate) fn apk_packages(text: &[u8]) -> Vec<Package> {
    let mut packages = Vec::new();
    for stanza in stanzas(text) {
        let mut package = Package { name: String::new(), paths: Vec::new() };
        let mut directory: &[u8] = b"";
        for line in stanza.split(|byte| *byte == b'\n') {
            match line.split_at_checked(2) {
                Some((b"P:", name)) => package.name = String::from_utf8_lossy(name).into_owned(),
                Some((b"F:", path)) => directory = path,
                Some((b"R:", file)) if directory.is_empty() => package.paths.push(file.to_vec()),
                Some((b"R:", file)) => package.paths.push([directory, b"/", file].concat()),
                _ => {}
            }
        }
        if !package.name.is_empty() {
            packages.push(package);
        }
    }
    packages
}

/// The stanzas of a database whose line `field` names one of `names`, each with an empty line after it.
pub(crate) fn filter_stanzas(text: &[u8], field: &str, names: &HashSet<String>) -> Vec<u8> {
    let mut kept = Vec::new();
    for stanza in stanzas(text) {
        let mut lines = stanza.split(|byte| *byte == b'\n');
        let name = lines.find_map(|line| line.strip_prefix(field.as_bytes()));
        if name.is_some_and(|name| names.contains(String::from_utf8_lossy(name).trim())) {
            kept.extend_from_slice(stanza);
            kept.extend_from_slice(b"\n\n");
        }
    }
    kept
}

/// Pieces between empty lines.
fn stanzas(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while let Some(after) = rest.strip_prefix(b"\n") {
            rest = after;
        }
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|window| window == b"\n\n").unwrap_or(rest.len());
        let (stanza, after) = rest.split_at(end);
        rest = after;
        Some(stanza.strip_suffix(b"\n").unwrap_or(stanza))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpkg_lists() {
        let paths: Vec<&[u8]> = dpkg_paths(b"/.\n/usr\n/usr/b\xff\nrel\n\n/etc/x").collect();
        assert_eq!(paths, [b"usr".as_slice(), b"usr/b\xff", b"etc/x"]);
        let check = |file: &str, expect: Option<(&str, &str)>| {
            let found = dpkg_package(file.as_bytes());
            let expect = expect.map(|(name, stem)| (name.to_owned(), stem.as_bytes()));
            assert_eq!(found, expect);
        };
        check("libc6:amd64.list", Some(("libc6", "libc6:amd64")));
        check("dash.list", Some(("dash", "dash")));
        check("dash.md5sums", None);
        check("format", None);
    }

    #[test]
    fn apk_databases() {
        let text = b"\nC:Q1x\nP:musl\nV:1\nF:lib\nR:ld-musl-x86_64.so.1\na:0:0:755\nF:\nR:top\n\n\nP:empty\n\nV:none\n";
        let found = apk_packages(text);
        let shown: Vec<(&str, Vec<String>)> = found
            .iter()
            .map(|package| {
                let paths = package.paths.iter().map(|path| String::from_utf8_lossy(path).into_owned());
                (package.name.as_str(), paths.collect())
            })
            .collect();
        let expect =
            [("musl", vec!["lib/ld-musl-x86_64.so.1".to_owned(), "top".to_owned()]), ("empty", Vec::new())];
        assert_eq!(shown, expect);
        assert!(apk_packages(b"").is_empty());
        assert!(apk_packages(b"\xff\n\nP:\n").is_empty());
    }

    #[test]
    fn stanzas_are_chosen_by_name() {
        let names = HashSet::from(["b".to_owned(), "d".to_owned()]);
        let text = b"Package: a\nX: 1\n\nPackage: b\nX: 2\n y\n\n\n\nX: 3\n\nX: 4\nPackage: d";
        let expect: &[u8] = b"Package: b\nX: 2\n y\n\nX: 4\nPackage: d\n\n";
        assert_eq!(filter_stanzas(text, "Package: ", &names), expect);
        assert_eq!(filter_stanzas(b"", "P:", &names), b"");
    }
}
