//! What is kept: what was used, and what rules keep.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::Arc;

use mica_dockerfile::Dockerignore;
use mica_dockerfile::dockerignore::ParentInfo;
use mica_dockerfile::glob::is_glob;
use mica_oci::ContainerConfig;
use mica_trace::Watched;
use mica_tree::{Kind, MergedIndex, parent};

use crate::error::SlimError;
use crate::packages::{Package, apk_packages, dpkg_package, dpkg_paths, filter_stanzas};
use crate::stack::WithoutDigests;

/// Longest database or list that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Kept with all that is below, if it is there: small, and missed only by what a short trial does not do.
const DEFAULTS: &[&str] = &[
    // Trust.
    "etc/ssl/certs",
    "etc/ssl/cert.pem",
    "etc/ca-certificates",
    "etc/ca-certificates.conf",
    "etc/pki/ca-trust",
    "etc/pki/tls/certs",
    "etc/pki/tls/cert.pem",
    "usr/share/ca-certificates",
    "usr/local/share/ca-certificates",
    // Time zones.
    "etc/localtime",
    "etc/timezone",
    "usr/share/zoneinfo",
    // Names of users, groups, services, hosts.
    "etc/passwd",
    "etc/group",
    "etc/nsswitch.conf",
    "etc/services",
    "etc/protocols",
    "etc/hosts",
    "etc/hostname",
    "etc/host.conf",
    "etc/gai.conf",
    "etc/resolv.conf",
    // What system it is; who looks for known weaknesses starts here.
    "etc/os-release",
    "usr/lib/os-release",
    "etc/debian_version",
    "etc/alpine-release",
    "etc/redhat-release",
    // How libraries are found.
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
];

/// Kept as they are, empty: programs expect them.
const DIRECTORIES: &[&str] =
    &["tmp", "var/tmp", "proc", "dev", "sys", "run", "var/run", "mnt", "root", "home"];

const DPKG_INFO: &[u8] = b"var/lib/dpkg/info";
const DPKG_STATUS: &[u8] = b"var/lib/dpkg/status";
const APK_INSTALLED: &[u8] = b"lib/apk/db/installed";
/// Their databases are not read, so that nobody knows which licence belongs to what.
const RPM: &[&str] = &["var/lib/rpm", "usr/lib/sysimage/rpm"];
const LICENSES: &str = "usr/share/licenses";

/// What the user wants kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// Absolute; globs as in an ignore file, directories with all below.
    pub patterns: &'a [String],
    /// The rules of this file.
    pub defaults: bool,
    /// Whole packages, and what the database says of them.
    pub packages: bool,
}

/// What is kept of a tree.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// By position.
    pub flags: Vec<bool>,
    /// Files that are kept with another content, by position.
    pub replaced: HashMap<usize, Arc<[u8]>>,
    /// What the user should know, one line each.
    pub warnings: Vec<String>,
}

/// Opens the regular file at a position.
pub(crate) type OpenAt<'a> = dyn Fn(usize) -> io::Result<std::fs::File> + 'a;

/// Refuses patterns that cannot be read, before anything is run.
pub(crate) fn check_patterns(patterns: &[String]) -> Result<(), SlimError> {
    patterns.iter().try_for_each(|pattern| parse_pattern(pattern).map(drop))
}

enum Pattern {
    Literal(String),
    Glob(Dockerignore),
}

fn parse_pattern(text: &str) -> Result<Pattern, SlimError> {
    let bad = |reason| SlimError::BadPattern { pattern: text.to_owned(), reason };
    let relative = text.strip_prefix('/').ok_or_else(|| bad("it must begin with `/`"))?;
    if !is_glob(relative) {
        return Ok(Pattern::Literal(relative.to_owned()));
    }
    match Dockerignore::from_patterns([relative]) {
        Ok(rules) if !relative.starts_with('!') => Ok(Pattern::Glob(rules)),
        _ => Err(bad("it is no glob; `mica slim` knows those of a .dockerignore, without `!`")),
    }
}

/// Decides by what was used (flags by position) and the rules.
pub(crate) fn decide(
    tree: &MergedIndex,
    open: &OpenAt<'_>,
    config: &ContainerConfig,
    used: &[bool],
    rules: Rules<'_>,
) -> Result<Kept, SlimError> {
    let mut keeper = Keeper {
        tree,
        open,
        used,
        by_rule: vec![false; tree.len()],
        watched: Watched::new(tree),
        kept: Kept::default(),
    };
    for pattern in rules.patterns {
        let found = match parse_pattern(pattern)? {
            Pattern::Literal(path) => keeper.keep_below(&path),
            Pattern::Glob(rule) => keeper.keep_matching(&rule),
        };
        if !found {
            keeper
                .kept
                .warnings
                .push(format!("`--keep {pattern}` keeps nothing: no path of the image matches"));
        }
    }
    if rules.defaults {
        for path in DEFAULTS {
            keeper.keep_below(path);
        }
        if let Ok(rule) = Dockerignore::from_patterns(["etc/ld-musl-*.path"]) {
            keeper.keep_matching(&rule);
        }
        let home = keeper.home(&config.user);
        let own = config.volumes.keys().chain([&config.working_dir]).chain(&home).map(String::as_str);
        for path in DIRECTORIES.iter().copied().chain(own) {
            keeper.keep_itself(path);
        }
    }
    if rules.defaults || rules.packages {
        keeper.keep_packages(rules);
    }
    Ok(keeper.finish())
}

struct Keeper<'a> {
    tree: &'a MergedIndex,
    open: &'a OpenAt<'a>,
    used: &'a [bool],
    by_rule: Vec<bool>,
    /// Notes the links and directories on the way to what rules keep.
    watched: Watched<'a>,
    kept: Kept,
}

impl Keeper<'_> {
    /// Keeps what a path leads to, links followed.
    fn keep_itself(&mut self, path: &str) -> Option<usize> {
        // A path through a file or a loop of links leads nowhere, for programs as well; then nothing on the way counts.
        let resolved = self.tree.resolve(path.as_bytes(), true).ok().flatten()?;
        let _ = self.watched.resolve(path.as_bytes(), true);
        self.tree.position(&resolved.path)
    }

    /// The same with all that is below.
    fn keep_below(&mut self, path: &str) -> bool {
        if path.split('/').all(|part| matches!(part, "" | ".")) {
            self.by_rule.fill(true);
            return true;
        }
        let Some(position) = self.keep_itself(path) else { return false };
        self.by_rule[position..self.tree.end_of(position)].fill(true);
        true
    }

    fn keep_matching(&mut self, rule: &Dockerignore) -> bool {
        let mut found = false;
        // What is known of the directories above, outermost first.
        let mut above: Vec<(Vec<u8>, ParentInfo)> = Vec::new();
        for position in 0..self.tree.len() {
            let entry = self.tree.entry(position);
            if entry.path.is_empty() {
                continue;
            }
            while above.last().is_some_and(|(path, _)| Some(path.as_slice()) != entry.parent()) {
                above.pop();
            }
            let none = ParentInfo::default();
            let info = above.last().map_or(&none, |(_, info)| info);
            let (matches, info) = rule.matches_in(info, &String::from_utf8_lossy(&entry.path));
            if matches {
                self.by_rule[position] = true;
                found = true;
            }
            if entry.is_directory() {
                above.push((entry.path.clone(), info));
            }
        }
        found
    }

    /// The home directory of `user[:group]`, as the image's passwd has it.
    fn home(&self, user: &str) -> Option<String> {
        let user = match user.split(':').next().unwrap_or_default() {
            "" => "0",
            user => user,
        };
        let text = self.read(b"etc/passwd")?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let own = lines.find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user))?;
        own.get(5).map(|home| (*home).to_owned())
    }

    /// A file of the tree, links followed; `None` when it cannot be had whole.
    fn read(&self, path: &[u8]) -> Option<Vec<u8>> {
        let resolved = self.tree.resolve(path, true).ok()??;
        let position = self.tree.position(&resolved.path)?;
        self.tree.file_at(position)?;
        let file = (self.open)(position).ok()?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= FILE_BYTES_MAX).then_some(bytes)
    }

    /// Position of a path as package managers write it: directories on the way may have become links.
    fn position(&self, path: &[u8]) -> Option<usize> {
        let found = self.tree.position(path);
        found.or_else(|| self.tree.position(&self.tree.resolve(path, false).ok()??.path))
    }

    fn is_used(&self, package: &Package) -> bool {
        // Directories belong to many packages.
        let is_used = |position: usize| self.used[position] && !self.tree.entry(position).is_directory();
        package.paths.iter().any(|path| self.position(path).is_some_and(is_used))
    }

    /// Licences of the packages of which a file was used; all of their files if the user wants so.
    fn keep_packages(&mut self, rules: Rules<'_>) {
        let mut known = false;
        let mut debian = HashSet::new();
        for list in self.tree.list(DPKG_INFO) {
            let Some((name, stem)) = dpkg_package(list.name()) else { continue };
            let Some(text) = self.read(&list.path) else { continue };
            known = true;
            let paths = dpkg_paths(&text).map(<[u8]>::to_vec).collect();
            let package = Package { name, paths };
            if !self.is_used(&package) {
                continue;
            }
            if rules.defaults {
                self.keep_below(&format!("usr/share/doc/{}/copyright", package.name));
            }
            if rules.packages {
                self.keep_paths(&package);
                let is_own = |name: &[u8]| name.strip_prefix(stem).is_some_and(|rest| rest.starts_with(b"."));
                for file in self.tree.list(DPKG_INFO).into_iter().filter(|file| is_own(file.name())) {
                    self.keep_path(&file.path);
                }
            }
            debian.insert(package.name);
        }
        if rules.packages && !debian.is_empty() {
            self.replace(DPKG_STATUS, "Package: ", &debian);
        }
        if let Some(text) = self.read(APK_INSTALLED) {
            known = true;
            let mut alpine = HashSet::new();
            for package in apk_packages(&text) {
                if !self.is_used(&package) {
                    continue;
                }
                if rules.defaults {
                    self.keep_below(&format!("{LICENSES}/{}", package.name));
                }
                if rules.packages {
                    self.keep_paths(&package);
                }
                alpine.insert(package.name);
            }
            if rules.packages && !alpine.is_empty() {
                self.replace(APK_INSTALLED, "P:", &alpine);
            }
        }
        if RPM.iter().any(|path| self.tree.position(path.as_bytes()).is_some()) {
            if rules.defaults {
                self.keep_below(LICENSES);
            }
            if rules.packages {
                self.kept.warnings.push("`--keep-packages` does not know the packages of rpm".to_owned());
            }
        } else if rules.packages && !known {
            self.kept
                .warnings
                .push("`--keep-packages` keeps nothing: no packages are known to the image".to_owned());
        }
    }

    fn keep_paths(&mut self, package: &Package) {
        for path in &package.paths {
            self.keep_path(path);
        }
    }

    fn keep_path(&mut self, path: &[u8]) {
        if let Some(position) = self.position(path) {
            self.by_rule[position] = true;
        }
    }

    /// Keeps a database with the packages of these names only: it must not name what is gone.
    fn replace(&mut self, path: &[u8], field: &str, names: &HashSet<String>) {
        let Some(text) = self.read(path) else { return };
        let resolved = self.watched.resolve(path, true).ok().flatten();
        if let Some(position) = resolved.and_then(|resolved| self.tree.position(&resolved.path)) {
            self.by_rule[position] = true;
            self.kept.replaced.insert(position, filter_stanzas(&text, field, names).into());
        }
    }

    /// Adds where kept links lead, and all directories above.
    fn finish(mut self) -> Kept {
        for position in 0..self.tree.len() {
            let entry = self.tree.entry(position);
            if self.by_rule[position] && matches!(entry.kind, Kind::Symlink { .. }) {
                let _ = self.watched.resolve(&entry.path, true);
            }
        }
        let mut flags = self.by_rule;
        flags.iter_mut().zip(self.used).for_each(|(flag, used)| *flag |= used);
        // No digest is asked for, so nothing can fail.
        let on_the_way = self.watched.finish(&WithoutDigests).unwrap_or_default();
        mark(self.tree, &on_the_way, &mut flags);
        for position in (0..self.tree.len()).rev() {
            if flags[position]
                && let Some(directory) = parent(&self.tree.entry(position).path)
                && let Some(above) = self.tree.position(directory)
            {
                flags[above] = true;
            }
        }
        self.kept.flags = flags;
        self.kept
    }
}

/// Marks what was looked up and found.
pub(crate) fn mark(tree: &MergedIndex, uses: &mica_trace::TreeUse, flags: &mut [bool]) {
    let mut next = 0;
    for used in &uses.uses {
        match tree.find_from(next, &used.path) {
            Ok(found) => {
                flags[found] = true;
                next = found + 1;
            }
            Err(place) => next = place,
        }
    }
}
