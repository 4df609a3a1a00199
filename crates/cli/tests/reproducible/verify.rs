//! `--verify`: what differs between two builds, and which step made it so.

use mica_testkit::{Mica, Outcome};

use crate::support::{build, project, run, store};

struct Verified {
    mica: Mica,
    outcome: Outcome,
}

/// Builds with `--verify`.
fn verify(dockerfile: &str, flags: &[&str]) -> Option<Verified> {
    let mica = store()?;
    let dir = project(&format!("FROM base:1\n{dockerfile}"), &[("f", "f"), ("g", "g")]);
    let flags = [&["--verify", "-t", "v:1"], flags].concat();
    let outcome = run(build(&mica, dir.path(), &flags));
    Some(Verified { mica, outcome })
}

impl Verified {
    fn is_named(&self) -> bool {
        self.mica.run(&["image", "inspect", "v:1"]).code == 0
    }

    /// Every line of `expect` is in the report, in that order, each the beginning of a line without its indentation.
    #[track_caller]
    fn check(&self, code: i32, expect: &[&str]) {
        assert_eq!(self.outcome.code, code, "{}", self.outcome);
        let mut lines = self.outcome.stdout.lines();
        for line in expect {
            assert!(
                lines.any(|found| found.trim_start().starts_with(line)),
                "no `{line}` at its place: {}",
                self.outcome
            );
        }
        assert_eq!(self.is_named(), code == 0, "{}", self.outcome);
    }

    #[track_caller]
    fn says_not(&self, text: &str) {
        assert!(!self.outcome.stdout.contains(text), "says `{text}`: {}", self.outcome);
    }
}

#[test]
fn a_date_is_found_with_what_follows_from_it() {
    let text = "RUN echo same > /same\nRUN date > /stamp; echo all > /other\nRUN cat /same > /copy-of-same\n\
         RUN cat /stamp > /copy && date -u +year-%C > /year\nCOPY f /f\n";
    for flags in [&["--reproducible"][..], &[]] {
        let Some(verified) = verify(text, flags) else { return };
        verified.check(
            1,
            &[
                "Dockerfile:3: [3/6] RUN date",
                "/stamp: content from byte",
                "- ",
                "+ ",
                "hint: this looks like a time",
                "Dockerfile:5: [5/6] RUN cat /stamp",
                "follows from what it used: /stamp of [3/6]",
                "/copy: content from byte",
                "first build:  sha256:",
                "second build: sha256:",
                "not reproducible: 1 step makes something else each time, 1 follows from that; 2 paths differ",
            ],
        );
        for text in ["/same:", "/other:", "/copy-of-same:", "/year:", "/f:", "[4/6]"] {
            verified.says_not(text);
        }
    }
}

#[test]
fn what_is_the_same_is_named() {
    let text = "WORKDIR /w\nRUN echo a > a; mkdir b; touch -d '1999-01-01 00:00:00' old\nCOPY f g /d/\n";
    let Some(verified) = verify(text, &["--reproducible"]) else { return };
    verified.check(0, &["reproducible: sha256:"]);
    let id = verified.mica.ok(&["images", "-q", "--no-trunc", "v:1"]).stdout;
    assert_eq!(verified.outcome.stdout.trim(), format!("reproducible: {}", id.trim()));
    // Both builds did all of it.
    assert!(!verified.outcome.stderr.contains("CACHED"), "{}", verified.outcome);
    assert_eq!(verified.outcome.stderr.matches("RUN echo a > a").count() % 2, 0, "{}", verified.outcome);
}

#[test]
fn times_of_the_moment_are_told_once() {
    let text = "RUN echo a > /a; mkdir /b; ln -s a /l\nRUN echo c > /c; chmod 600 /etc/passwd\n";
    let Some(verified) = verify(text, &[]) else { return };
    verified.check(0, &["the same but for times: sha256:"]);
    assert!(verified.outcome.stderr.contains("`--reproducible` fixes every time"), "{}", verified.outcome);
    // Nothing says more than that: two builds at one moment are no proof.
    let Some(verified) = verify("COPY f /f\n", &[]) else { return };
    verified.check(0, &["the same but for times: sha256:"]);
    let Some(verified) = verify("COPY f /f\n", &["--build-arg=SOURCE_DATE_EPOCH=5"]) else { return };
    verified.check(0, &["reproducible: sha256:"]);
}

#[test]
fn every_kind_of_difference_is_told() {
    let text = "RUN r=$(tr -dc a-z < /dev/urandom | head -c 12); n=$((1 + $(od -An -N2 -tu2 /dev/urandom))); \
                mkdir /r; cd /r; echo $r > $r; ln -s $r link; touch time; touch -d @$n time; echo a > owner; chown $n owner; \
                [ -e /r/$r ]\n";
    let Some(verified) = verify(text, &["--reproducible"]) else { return };
    verified.check(
        1,
        &[
            "Dockerfile:2: [2/2] RUN",
            "/r/link: leads to ",
            "/r/owner: owner ",
            "/r/time: time ",
            "hint: ",
            "not reproducible: 1 step",
        ],
    );
    let only = |which: &str| verified.outcome.stdout.contains(&format!(": file only in the {which} build"));
    assert!(only("first") && only("second"), "{}", verified.outcome);
}

/// Other stages, COPY and bind mounts bring it on, and none of them is blamed.
#[test]
fn what_is_brought_on_is_not_to_blame() {
    let text = "RUN head -c 9 /dev/urandom > /random\nRUN echo same > /same\nFROM base:1\nCOPY --from=0 /random /r/copied\n\
                RUN --mount=type=bind,from=0,target=/m cat /m/random > /mounted\n\
                RUN --mount=type=bind,from=0,target=/m cat /m/same > /not-mounted\nRUN wc -c < /r/copied > /size\n\
                RUN md5sum < /mounted > /sum\n";
    let text = text.replacen("FROM base:1\n", "FROM base:1 AS last\n", 1);
    let Some(verified) = verify(&text, &["--reproducible"]) else { return };
    verified.check(
        1,
        &[
            "Dockerfile:2: [stage-0 2/3] RUN head",
            "/random: content from byte",
            "Dockerfile:5: [last 2/6] COPY",
            "follows from what it used: /random of [stage-0 2/3]",
            "Dockerfile:6: [last 3/6] RUN",
            "follows from what it used: /random in the files after",
            "Dockerfile:9: [last 6/6] RUN md5sum",
            "follows from what it used: /mounted of [last 3/6]",
            "not reproducible: 1 step makes something else each time, 3 follow from that; 4 paths differ",
        ],
    );
    verified.says_not("/size");
    verified.says_not("not-mounted");
}

#[test]
fn two_causes_are_both_told() {
    let text = "RUN head -c 9 /dev/urandom | md5sum > /one\nRUN head -c 9 /dev/urandom | md5sum > /two\n\
                RUN cat /one /two > /three\n";
    let Some(verified) = verify(text, &["--reproducible", "--quiet"]) else { return };
    verified.check(
        1,
        &[
            "Dockerfile:2:",
            "/one: ",
            "Dockerfile:3:",
            "/two: ",
            "Dockerfile:4:",
            "follows from what it used: /one of [2/4], /two of [3/4]",
            "not reproducible: 2 steps make something else each time, 1 follows from that; 3 paths differ",
        ],
    );
}

#[test]
fn a_build_that_fails_is_not_verified() {
    let Some(verified) = verify("RUN exit 3\n", &["--reproducible"]) else { return };
    assert_ne!(verified.outcome.code, 0);
    assert_eq!(verified.outcome.stdout, "");
    assert!(verified.outcome.stderr.contains("exit"), "{}", verified.outcome);
}

/// What only its owner may read is not shown.
#[test]
fn secrets_are_not_shown() {
    let text = "RUN umask 077; echo secret-$(head -c 9 /dev/urandom | md5sum) > /key; echo made > /same\n";
    let Some(verified) = verify(text, &["--reproducible"]) else { return };
    verified.check(1, &["/key: content from byte ", "not reproducible"]);
    verified.says_not("    - ");
    verified.says_not("    + ");
}

/// Nor what a step with a secret made of it, nor what was made of that.
#[test]
fn what_is_made_with_a_secret_is_not_shown() {
    let text = "RUN --mount=type=secret,id=s,env=S echo $S-$(head -c 9 /dev/urandom | md5sum) > /made\n\
                RUN cat /made > /again\nRUN head -c 9 /dev/urandom | md5sum > /other\n";
    let Some(mica) = store() else { return };
    let dir = project(&format!("FROM base:1\n{text}"), &[]);
    let mut command = build(&mica, dir.path(), &["--verify", "--reproducible", "--secret=id=s,env=S"]);
    command.env("S", "hunter2");
    let outcome = run(command);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(!format!("{outcome}").contains("hunter2"), "{outcome}");
    assert_eq!(outcome.stdout.matches("blake3:").count(), 4, "{outcome}");
    assert_eq!(outcome.stdout.matches("\n    + ").count(), 1, "{outcome}");
}

/// What goes elsewhere is written if nothing differs, and only then.
#[test]
fn outputs_are_those_of_what_is_the_same() {
    let Some(mica) = store() else { return };
    let dest = Mica::temporary_dir();
    let check = |text: &str, code: i32| {
        let dir = project(&format!("FROM base:1\n{text}\n"), &[]);
        let file = dest.path().join(format!("{code}.tar"));
        let output = format!("--output=type=oci,dest={}", file.display());
        let outcome = run(build(&mica, dir.path(), &["--verify", "--reproducible", "-t", "o:1", &output]));
        assert_eq!(outcome.code, code, "{outcome}");
        assert_eq!(file.exists(), code == 0, "{outcome}");
    };
    check("RUN echo a > /a", 0);
    check("RUN date > /a", 1);
}

/// Without a record of what was used nobody is acquitted.
#[test]
fn untraced_steps_may_follow() {
    let text = "RUN date > /stamp\nRUN date > /another\nRUN echo same > /same\n";
    let Some(verified) = verify(text, &["--reproducible", "--cache=exact"]) else { return };
    verified.check(
        1,
        &[
            "Dockerfile:2: [2/4] RUN date > /stamp",
            "/stamp: content",
            "Dockerfile:3: [3/4] RUN date > /another",
            "(may follow from a step above: what it used is not known)",
            "/another: content",
            "not reproducible: 1 step makes something else each time, 1 follows from that; 2 paths differ",
        ],
    );
    verified.says_not("/same:");
}
