//! What mostly is behind a file that is another one after each build, and what helps.

use mica_build::{ContentDifference, DifferentPath, DifferentStep, PathDifference, TextLines};

const LOG: &str =
    "logs tell when they were written: remove them in the same RUN, as in `&& rm -rf /var/log/*`";
const CACHE: &str =
    "what is only a cache can live outside of the image: `RUN --mount=type=cache,target=DIRECTORY`";
const KEYS: &str =
    "keys are secret and made up anew: remove them in the same RUN, and make them when a container starts";
const PYTHON: &str = "byte code of Python holds the time of its source: `ENV PYTHONDONTWRITEBYTECODE=1`, \
                      or SOURCE_DATE_EPOCH in the environment, as `--reproducible` has it";
const LISTS: &str = "lists of packages are those of the day: `rm -rf /var/lib/apt/lists/*` in the same RUN; \
                     snapshot.debian.org has those of another day";
const APT: &str =
    "`apt-get clean` and `rm -rf /var/cache/apt/*` in the same RUN take away what apt noted for itself";
const LDCONFIG: &str =
    "ldconfig notes times and inode numbers: `rm -f /var/cache/ldconfig/aux-cache` in the same RUN";
const MACHINE_ID: &str =
    "an image should have no machine ID of its own: `: > /etc/machine-id` in the same RUN";
const SHADOW: &str = "the password file tells the day on which a user was made: `useradd` heeds SOURCE_DATE_EPOCH, \
                      which `--reproducible` sets, or `chage -d 0 USER` sets the day";
const GIT: &str = "a git repository holds times and inode numbers: name `.git` in `.dockerignore`, or remove it in the same RUN";
const RPM: &str = "the database of rpm holds times of installation: rpm heeds SOURCE_DATE_EPOCH \
                   from version 4.20 on, or remove it together with the package manager";
const FONTS: &str = "font caches hold times: `rm -rf /var/cache/fontconfig/*` in the same RUN";

/// Beginning and end of a path, and what helps.
const PATHS: &[(&str, &str, &str)] = &[
    ("", ".pyc", PYTHON),
    ("var/cache/ldconfig/aux-cache", "", LDCONFIG),
    ("var/lib/apt/lists/", "", LISTS),
    ("var/cache/apt/", "", APT),
    ("var/log/", "", LOG),
    ("etc/machine-id", "", MACHINE_ID),
    ("var/lib/dbus/machine-id", "", MACHINE_ID),
    ("etc/ssh/ssh_host_", "", KEYS),
    ("etc/ssl/private/", "", KEYS),
    ("etc/shadow", "", SHADOW),
    ("var/lib/rpm/", "", RPM),
    ("usr/lib/sysimage/rpm/", "", RPM),
    ("var/cache/fontconfig/", "", FONTS),
    ("var/cache/", "", CACHE),
    ("root/.cache/", "", CACHE),
    ("root/.npm/", "", CACHE),
    ("tmp/", "", "temporary files can stay out of the image: `RUN --mount=type=tmpfs,target=/tmp`"),
    ("", "/.git/index", GIT),
];

/// What a file begins with at which byte, and what helps.
const FORMATS: &[(usize, &[u8], &str)] = &[
    (0, b"\x1f\x8b", "gzip notes the time of the file: `gzip -n` does not"),
    (
        257,
        b"ustar",
        "tar takes times, owners and order from the disk: \
                     `tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner`",
    ),
    (
        0,
        b"PK\x03\x04",
        "zip notes times: `touch -d @$SOURCE_DATE_EPOCH` the files, and `zip -X`; `jar --date=`",
    ),
    (0, b"!<arch>\n", "archives of `ar` note times: `ar rcD`, `ranlib -D`"),
    (
        0,
        b"\x7fELF",
        "compilers write times for `__DATE__` and `__TIME__`: gcc and clang heed SOURCE_DATE_EPOCH, which \
                     `--reproducible` sets; `-ffile-prefix-map=OLD=NEW` takes out paths, and a seed (`-frandom-seed=`) chance",
    ),
];

const DATE: &str = "this looks like a time: tell `$SOURCE_DATE_EPOCH` in its place, as in `date -u -d @$SOURCE_DATE_EPOCH`; \
                    `--reproducible` sets it";
const NAME: &str =
    "names that are made up anew each time: remove such files in the same RUN, or give them fixed names";
const TIME: &str = "the program sets this time itself: `touch -d @$SOURCE_DATE_EPOCH FILE`";
const NETWORK: &str = "the step used the network: what it fetched may have been another; `ADD --checksum=` and fixed versions hold it";
const CONTEXT: &str = "the build context changed while it was verified";

/// Advice for a step, most special first, each once.
pub(crate) fn advice(step: &DifferentStep) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    let mut add = |hint: &'static str| {
        if !found.contains(&hint) {
            found.push(hint);
        }
    };
    if step.instruction == "COPY" {
        return vec![CONTEXT];
    }
    let mut has_unknown = false;
    for path in &step.paths {
        match of_path(path) {
            Some(hint) => add(hint),
            None => has_unknown = true,
        }
    }
    if has_unknown && step.network == Some(true) {
        add(NETWORK);
    }
    found
}

fn of_path(path: &DifferentPath) -> Option<&'static str> {
    let text = &path.path;
    let by_path = PATHS
        .iter()
        .find(|(start, end, _)| text.starts_with(start.as_bytes()) && text.ends_with(end.as_bytes()));
    by_path.map(|(_, _, hint)| *hint).or_else(|| path.differences.iter().find_map(of_difference))
}

fn of_difference(difference: &PathDifference) -> Option<&'static str> {
    match difference {
        PathDifference::Content(content) => of_content(content),
        PathDifference::Only { .. } => Some(NAME),
        PathDifference::Time(_) => Some(TIME),
        _ => None,
    }
}

fn of_content(content: &ContentDifference) -> Option<&'static str> {
    let has = |at: usize, magic: &[u8]| {
        content.starts.iter().all(|start| start.get(at..).is_some_and(|start| start.starts_with(magic)))
    };
    let by_format = FORMATS.iter().find(|(at, magic, _)| has(*at, magic));
    by_format
        .map(|(_, _, hint)| *hint)
        .or_else(|| content.lines.as_ref().is_some_and(looks_like_time).then_some(DATE))
}

/// Two lines that differ in digits alone, with the colons of a clock, or as many digits as seconds since 1970 have.
fn looks_like_time(lines: &TextLines) -> bool {
    let [Some(one), Some(other)] = &lines.texts else { return false };
    let masked = |text: &str| -> String {
        text.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect()
    };
    let has_time = |text: &str| {
        let text = masked(text);
        text.contains("00:00") || text.contains("000000000") || text.contains("0000-00-00")
    };
    masked(one) == masked(other) && has_time(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(start: &[u8], texts: Option<[&str; 2]>) -> PathDifference {
        let lines =
            texts.map(|texts| TextLines { number: 1, texts: texts.map(|text| Some(text.to_owned())) });
        let starts = [start.to_vec(), start.to_vec()];
        PathDifference::Content(ContentDifference {
            sizes_bytes: [1, 1],
            digests: [[0; 32], [1; 32]],
            offset: 4,
            starts,
            lines,
        })
    }

    /// `expect` is a part of the one hint, or empty.
    #[track_caller]
    fn check(path: &str, difference: PathDifference, network: bool, expect: &str) {
        let step = DifferentStep {
            name: "[2/2] RUN x".to_owned(),
            line: 2,
            instruction: "RUN".to_owned(),
            network: Some(network),
            cause: mica_build::Cause::Own { other_time: None },
            paths: vec![DifferentPath { path: path.as_bytes().to_vec(), differences: vec![difference] }],
        };
        let hints = advice(&step);
        match expect {
            "" => assert_eq!(hints, Vec::<&str>::new()),
            expect => assert!(hints.len() == 1 && hints[0].contains(expect), "{path}: {hints:?}"),
        }
    }

    #[test]
    fn well_known_causes() {
        let some = || content(b"x", None);
        check("usr/lib/python3/__pycache__/a.pyc", some(), false, "PYTHONDONTWRITEBYTECODE");
        check("var/log/dpkg.log", some(), false, "/var/log");
        check("var/log/apt/history.log", some(), false, "/var/log");
        check("var/cache/ldconfig/aux-cache", some(), false, "aux-cache");
        check("var/lib/apt/lists/deb_InRelease", some(), true, "apt/lists");
        check("var/cache/apt/pkgcache.bin", some(), false, "apt-get clean");
        check("var/cache/other", some(), false, "type=cache");
        check("etc/machine-id", some(), false, "machine ID");
        check("etc/ssh/ssh_host_rsa_key", some(), false, "keys");
        check("etc/ssh/sshd_config", some(), false, "");
        check("src/.git/index", some(), false, ".dockerignore");
        check("a.gz", content(b"\x1f\x8b\x08\0", None), false, "gzip -n");
        let mut tar = vec![0; 257];
        tar.extend(b"ustar\x0000");
        check("a.tar", content(&tar, None), false, "--mtime");
        check("a.jar", content(b"PK\x03\x04", None), false, "zip -X");
        check("a.o", content(b"\x7fELF\x02", None), false, "__DATE__");
        check("lib.a", content(b"!<arch>\n", None), false, "ar rcD");
        check(
            "stamp",
            content(b"Sat", Some(["Sat 21 10:11:12 2026", "Sat 21 10:11:14 2026"])),
            false,
            "date -u",
        );
        check("stamp", content(b"17", Some(["1700000001", "1700000003"])), false, "date -u");
        check("random", content(b"17", Some(["170", "171"])), false, "");
        check("random", content(b"17", Some(["a", "b"])), true, "--checksum");
        check("tmp.aXv3", PathDifference::Only { first: true, kind: "file" }, false, "made up");
    }
}
