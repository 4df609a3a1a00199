//! `--reproducible`: the same sources give the same digest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use mica_testkit::{Mica, Need, missing, tar};

use crate::support::{User, build, check_out, id, ok, project, run, store, with_umask};

/// 1980-01-01T00:00:00Z
const EARLIEST_OF_ZIP: i64 = 315_532_800;

/// Something of everything that makes layers.
const DOCKERFILE: &str = r#"FROM base:1 AS one
WORKDIR /w/x
COPY --chown=daemon:staff a.txt src/ /w/
RUN echo hi > /w/made && ln /w/made /w/again && ln -s made /w/sym && mkdir -p /w/d/e && mkfifo /w/pipe \
 && touch -d '1975-01-01 00:00:00' /w/old && touch -d '2030-01-01 00:00:00' /w/new && cp -p /bin/busybox /w/
RUN umask > /w/umask && env | sort > /w/env && hostname > /w/hostname && cat /etc/hosts > /w/hosts && id > /w/id
RUN chmod 600 /etc/passwd && rm /etc/group && chmod 700 /root && echo x > /etc/x
COPY <<END <<OTHER /w/heredocs/
one
END
other
OTHER
ADD some.tar /unpacked
RUN --mount=type=bind,target=/ctx --mount=type=tmpfs,target=/tmp \
 cd /ctx && stat -c '%n %a %Y %u %g' a.txt src/run.sh src/deep > /w/seen; tar -cf /w/ctx.tar a.txt src/run.sh; cp -a /ctx/src /w/ctx
RUN <<END
#!/bin/sh
stat -c '%n %a %Y' /w/made /w/new /w/old /w/a.txt /w/run.sh > /w/seen-later
tar -cf /w/w.tar /w/made /w/run.sh
END
FROM base:1
COPY --from=one /w /final
COPY --from=one /unpacked/old/again /etc/passwd /final/
RUN stat -c '%n %Y' /final/* | sort > /list
ENV DONE=1
"#;

fn flags() -> [&'static str; 3] {
    ["--reproducible", "-t", "r:1"]
}

/// A checkout that is as different as checkouts are.
fn checkout(umask: u32, days_ago: u64) -> tempfile::TempDir {
    let dir = project(DOCKERFILE, &[]);
    let time = SystemTime::now() - Duration::from_secs(days_ago * 86_400 + 17);
    check_out(dir.path(), umask, time);
    dir
}

#[test]
fn directories_umasks_times_and_users_do_not_matter() {
    let Some(first) = store() else { return };
    let saved = Mica::temporary_dir();
    let base = saved.path().join("base.tar");
    first.ok(&["save", "-o", &base.to_string_lossy(), "base:1"]);
    let mut digests = BTreeMap::new();
    for (umask, days_ago) in [(0o022, 0), (0o077, 1), (0o002, 400), (0o022, 3)] {
        // An import of its own, which tells in the history of the base when it was done.
        let Some(mica) = store() else { return };
        let dir = checkout(umask, days_ago);
        let mut command = build(&mica, dir.path(), &flags());
        command.arg("-q");
        let built = ok(with_umask(umask, &command)).stdout.trim().to_owned();
        digests.insert(format!("umask {umask:o}, {days_ago} days"), built);
        // Again, and with another file time: everything is known.
        let again = id(&mica, checkout(umask, days_ago + 5).path(), &flags());
        digests.insert(format!("umask {umask:o}, {days_ago} days, again"), again);
    }
    if let Some(user) = User::new() {
        let root = Mica::temporary_dir();
        let dir = checkout(0o022, 9);
        fs::create_dir(root.path().join("settings")).expect("a directory");
        fs::copy(&base, root.path().join("base.tar")).expect("a copy of the base");
        // Makes the settings, as root.
        user.command(root.path(), &[]);
        user.give(root.path());
        user.give(dir.path());
        let tar = root.path().join("base.tar").to_string_lossy().into_owned();
        ok(user.command(root.path(), &["load", "-i", &tar]));
        let path = dir.path().to_string_lossy().into_owned();
        // Two builds at once: the second has to give the same.
        let all = ["build", "-q", "--network=none", "--reproducible", "--verify", &path];
        digests.insert(
            "an ordinary user".to_owned(),
            ok(user.command(root.path(), &all)).stdout.trim().to_owned(),
        );
        let rm = ["--user", "--map-auto", "--map-root-user", "rm", "-rf"];
        let mut clean = Command::new("unshare");
        run({
            clean.args(rm).arg(root.path().join("store")).uid(user.id).gid(user.id).current_dir("/");
            clean
        });
    }
    let first = digests.values().next().cloned();
    assert!(digests.values().all(|digest| Some(digest) == first.as_ref()), "{digests:#?}");
}

/// Paths and times of all that the layers above the base hold.
fn layer_times(mica: &Mica, name: &str) -> Vec<(String, i64)> {
    let dir = Mica::temporary_dir();
    let archive = dir.path().join("saved.tar");
    mica.ok(&["save", "-o", &archive.to_string_lossy(), name]);
    let manifest = member(&archive, "manifest.json").expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    let mut times = Vec::new();
    for layer in &layers[1..] {
        let bytes = member(&archive, layer.as_str().expect("a name")).expect("a layer");
        tar::read(&bytes[..], |entry, _| {
            times.push((entry.path, entry.mtime));
            Ok(())
        })
        .expect("a tar");
    }
    times
}

fn member(archive: &Path, name: &str) -> Option<Vec<u8>> {
    let mut found = None;
    tar::read(fs::File::open(archive).ok()?, |entry, content| {
        if entry.path == name {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            found = Some(bytes);
        }
        Ok(())
    })
    .ok()?;
    found
}

#[test]
fn no_time_is_later_than_the_epoch() {
    let Some(mica) = store() else { return };
    let dir = checkout(0o022, 2);
    let check = |epoch: Option<i64>, expect: i64| {
        let mut command = build(&mica, dir.path(), &flags());
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch.to_string());
        }
        ok(command);
        let times = layer_times(&mica, "r:1");
        assert!(times.len() > 30, "{times:?}");
        let wrong: Vec<_> = times.iter().filter(|(_, time)| *time > expect).collect();
        assert!(wrong.is_empty(), "later than {expect}: {wrong:?}");
        let time_of = |path: &str| times.iter().find(|(name, _)| name == path).map(|(_, time)| *time);
        assert_eq!(time_of("final/made"), Some(expect));
        assert_eq!(time_of("final/run.sh"), Some(expect));
        assert_eq!(time_of("final/heredocs/END"), Some(expect));
        // What a program set is part of what it made.
        assert_eq!(time_of("final/old"), Some(157_766_400));
        let run = ["run", "--rm", "--network=none", "r:1"];
        let seen = |words: &[&str]| mica.ok(&[&run[..], words].concat()).stdout;
        assert_eq!(
            seen(&["stat", "-c", "%Y", "/final/made", "/final/sym", "/final/pipe"]),
            format!("{expect}\n").repeat(3)
        );
        assert!(seen(&["cat", "/final/env"]).contains(&format!("SOURCE_DATE_EPOCH={expect}\n")));
        // On disk as well: what a later step saw, and what it put into an archive.
        assert!(seen(&["cat", "/final/seen-later"]).contains(&format!("/w/made 644 {expect}\n")));
        assert!(seen(&["cat", "/final/seen"]).contains(&format!("src/run.sh 755 {expect} 0 0\n")));
    };
    check(None, EARLIEST_OF_ZIP);
    check(Some(1_500_000_000), 1_500_000_000);
    check(Some(EARLIEST_OF_ZIP + 1), EARLIEST_OF_ZIP + 1);
}

#[test]
fn an_epoch_in_the_future_fixes_times_as_well() {
    let Some(mica) = store() else { return };
    let dir = checkout(0o022, 2);
    let future = ["--build-arg=SOURCE_DATE_EPOCH=4000000000", "--no-cache"];
    let build = || id(&mica, dir.path(), &[&flags()[..], &future].concat());
    assert_eq!(build(), build());
    let times = layer_times(&mica, "r:1");
    assert_eq!(
        times.iter().find(|(path, _)| path == "final/made").map(|(_, time)| *time),
        Some(4_000_000_000)
    );
}

/// What the variable is for a step must not be told of its layer's history.
#[test]
fn the_variable_is_not_told() {
    let Some(mica) = store() else { return };
    let dir = project("FROM base:1\nRUN echo $SOURCE_DATE_EPOCH > /e\n", &[]);
    ok(build(&mica, dir.path(), &flags()));
    let inspected = mica.ok(&["inspect", "r:1"]).stdout;
    assert!(!inspected.contains("SOURCE_DATE_EPOCH="), "{inspected}");
    let history = mica.ok(&["history", "--no-trunc", "r:1"]).stdout;
    assert!(!history.contains(&EARLIEST_OF_ZIP.to_string()), "{history}");
    let e = mica.ok(&["run", "--rm", "--network=none", "r:1", "cat", "/e"]).stdout;
    assert_eq!(e, format!("{EARLIEST_OF_ZIP}\n"));
}

/// Results of plain builds and of reproducible ones, and of two epochs, are not each other's.
#[test]
fn plain_and_reproducible_results_do_not_mix() {
    let Some(mica) = store() else { return };
    let dir = project("FROM base:1\nWORKDIR /w\nCOPY f /f\nRUN echo a > /a\n", &[("f", "f")]);
    let cached = |flags: &[&str]| {
        let outcome = ok(build(&mica, dir.path(), flags));
        outcome.stderr.matches("CACHED").count()
    };
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=1234567890";
    assert_eq!(cached(&[]), 0);
    assert_eq!(cached(&flags()), 0);
    assert_eq!(cached(&["--reproducible", epoch]), 0);
    assert_eq!(cached(&[]), 3);
    assert_eq!(cached(&flags()), 3);
    assert_eq!(cached(&["--reproducible", epoch]), 3);
}

/// A result that is taken over after the files below changed is what running again would give.
#[test]
fn taken_over_and_made_anew_are_the_same() {
    let Some(mica) = store() else { return };
    let text = "FROM base:1\nRUN mkdir /d && echo 1 > /d/1\nCOPY f /g/f\nRUN echo 2 > /d/2; chmod 700 /g\nADD t.tar /\n";
    let archive = |mtime| {
        let mut writer = tar::Writer::default();
        writer.add(tar::Entry { mtime, ..tar::Entry::file("t/in") }, b"in").finish()
    };
    let dir = project(text, &[("f", "f")]);
    fs::write(dir.path().join("t.tar"), archive(1000)).expect("an archive");
    let first = id(&mica, dir.path(), &flags());
    fs::write(dir.path().join("t.tar"), archive(2000)).expect("an archive");
    fs::write(dir.path().join("f"), "other").expect("a file");
    let taken = id(&mica, dir.path(), &flags());
    let anew = id(&mica, dir.path(), &[&flags()[..], &["--no-cache"]].concat());
    assert_ne!(first, anew);
    assert_eq!(taken, anew);
}

/// Where steps cannot be traced, they run on the layers themselves. What tells them apart are times of directories and the
/// order of listings, and nothing here asks for these.
#[test]
fn untraced_steps_make_the_same() {
    let Some(mica) = store() else { return };
    let text = "FROM base:1 AS one\nWORKDIR /w/x\nCOPY . /w/\n\
                RUN echo hi > /w/made && ln /w/made /w/again && ln -s made /w/sym && mkdir -p /w/d/e && mkfifo /w/pipe\n\
                RUN chmod 600 /etc/passwd && rm /etc/group && chown -h 1:1 /bin/ls && chown 3:3 /usr\n\
                RUN rm -rf /w/d && mkdir /w/d && mv /w/x /w/y && chmod g+s /w/y && touch -h -d '1975-01-01 00:00:00' /w/sym\n\
                RUN --mount=type=bind,target=/ctx cp -a /ctx/. /w/ctx && cp -a /etc /etc2\n\
                FROM base:1\nCOPY --from=one / /\n";
    let dir = project(text, &[]);
    check_out(dir.path(), 0o022, SystemTime::now());
    let traced = id(&mica, dir.path(), &flags());
    let untraced = id(&mica, dir.path(), &["--reproducible", "--no-cache", "--cache=exact"]);
    assert_eq!(traced, untraced);
}

/// Two clones of a repository, one of them with a careful umask.
#[test]
fn clones_of_a_repository_make_the_same() {
    if let Some(reason) = missing(&[Need::Tool("git")]) {
        println!("skipped: {reason}");
        return;
    }
    let Some(mica) = store() else { return };
    let text = "FROM base:1\nCOPY . /src\nRUN cd /src && ls -l src > /list && sh src/run.sh > /ran\n";
    let dir = project(text, &[(".dockerignore", ".git\n")]);
    check_out(dir.path(), 0o022, SystemTime::now());
    let places = Mica::temporary_dir();
    let git = |umask: u32, words: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=n", "-c", "user.email=e@example"])
            .args(words)
            .current_dir(places.path());
        // The clones are root's, whoever made the directory.
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let mut command = with_umask(umask, &command);
        command.current_dir(places.path());
        ok(command)
    };
    let origin = dir.path().to_string_lossy().into_owned();
    git(0o022, &["init", "-q", &origin]);
    git(0o022, &["-C", &origin, "add", "."]);
    git(0o022, &["-C", &origin, "commit", "-q", "-m", "all"]);
    git(0o022, &["clone", "-q", &origin, "one"]);
    git(0o077, &["clone", "-q", &origin, "other"]);
    let build = |name: &str| id(&mica, &places.path().join(name), &["--reproducible", "--no-cache"]);
    let (one, other) = (build("one"), build("other"));
    assert_eq!(one, other);
    assert_eq!(one, id(&mica, dir.path(), &["--reproducible", "--no-cache"]));
    // Plain builds are as different as the clones are.
    assert_ne!(
        id(&mica, &places.path().join("one"), &["--no-cache"]),
        id(&mica, &places.path().join("other"), &["--no-cache"])
    );
}

/// The layer of `--squash` names directories of the base, whose times are later.
#[test]
fn one_layer_of_all_has_no_later_time() {
    let Some(mica) = store() else { return };
    let base = project("FROM base:1\nRUN mkdir -p /b/c && echo b > /b/c/b\n", &[]);
    id(&mica, base.path(), &["-t", "base:2"]);
    let dir = project("FROM base:2\nRUN echo 1 > /b/c/1\nRUN echo 2 > /b/c/2 && rm /b/c/b\n", &[]);
    let build = || id(&mica, dir.path(), &["--reproducible", "--squash", "--no-cache", "-t", "r:1"]);
    assert_eq!(build(), build());
    // Two layers of the base are passed over here and by `layer_times`.
    let times = layer_times(&mica, "r:1");
    let made: Vec<_> = times
        .iter()
        .filter(|(path, _)| path != "b/c/b")
        .skip_while(|(_, time)| *time > EARLIEST_OF_ZIP)
        .collect();
    assert!(made.iter().any(|(path, _)| path == "b/c/2"), "{times:?}");
    assert!(made.iter().all(|(_, time)| *time <= EARLIEST_OF_ZIP), "{times:?}");
}
