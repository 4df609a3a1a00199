//! What COPY, ADD and WORKDIR depend on.

use mica_testkit::Need;

use crate::below::Below;
use crate::bench::Bench;

/// Name, what makes the files below at first and after the edit, the COPY or WORKDIR over them, whether it has to be done
/// again. The context has `d/x/f`, `d/l` (a link), `f`, `g` (a second name of `f`) and `a.tar` (of `d`).
const COPIES: &[Below] = &[
    ("beside other files", "mkdir /t", "mkdir /t; echo >/t/other; echo >/new", "COPY d /t/", false),
    ("a link as the destination", "mkdir /t", "mkdir /u; ln -s u /t", "COPY d /t/", true),
    ("a link in the destination", "mkdir -p /t/x", "mkdir /t /u; ln -s /u /t/x", "COPY d /t/", true),
    ("a link on the way", "mkdir -p /p/t", "mkdir -p /q/t; ln -s q /p", "COPY d /p/t/", true),
    ("a file as the destination", "mkdir /t", "echo >/t", "COPY f /t", true),
    ("a file where a directory comes", "mkdir /t", "mkdir /t; echo >/t/x", "COPY d /t/", true),
    ("a directory where a file comes", "mkdir /t", "mkdir -p /t/x/f", "COPY d /t/", true),
    ("a directory where a link comes", "mkdir /t", "mkdir -p /t/l", "COPY d /t/", true),
    ("another mode of the destination", "mkdir -m 755 /t", "mkdir -m 700 /t", "COPY f /t/", true),
    (
        "another mode of a directory that is copied over",
        "mkdir -p /t/x",
        "mkdir -p /t; mkdir -m 700 /t/x",
        "COPY d /t/",
        true,
    ),
    ("a file that is replaced", "mkdir /t; echo a>/t/f", "mkdir /t; ln -s /etc /t/f", "COPY f /t/", true),
    ("no destination", "mkdir /t", "true", "COPY f /t/", true),
    ("no destination, a directory or a file", "mkdir /t", "true", "COPY f /t", true),
    (
        "the owner by name",
        "true",
        "sed -i s/^daemon:x:1:/daemon:x:7:/ /etc/passwd",
        "COPY --chown=daemon f /t",
        true,
    ),
    (
        "the group by name",
        "true",
        "sed -i s/^staff:x:50/staff:x:51/ /etc/group",
        "COPY --chown=1:staff f /t",
        true,
    ),
    (
        "the file of users is a link",
        "true",
        "sed s/^daemon:x:1:/daemon:x:7:/ /etc/passwd >/p; ln -sf /p /etc/passwd",
        "COPY --chown=daemon f /t",
        true,
    ),
    (
        "the file of users, no name",
        "true",
        "sed -i s/^daemon:x:1:/daemon:x:7:/ /etc/passwd",
        "COPY --chown=7 f /t",
        false,
    ),
    ("an archive over a link", "mkdir -p /t/x", "mkdir /t /u; ln -s /u /t/x", "ADD a.tar /t/", true),
    ("an archive over a file", "mkdir -p /t/x", "mkdir /t; echo >/t/x", "ADD a.tar /t/", true),
    ("an archive over a directory", "mkdir -p /t", "mkdir -p /t/x/f/n", "ADD a.tar /t/", true),
    ("an archive beside other files", "mkdir -p /t", "mkdir -p /t; echo >/t/other", "ADD a.tar /t/", false),
    ("a directory to work in", "mkdir -p /w0", "true", "WORKDIR /w0/n", true),
    ("a link to work in", "mkdir -p /w1 /v", "mkdir /v; ln -s v /w1", "WORKDIR /w1/n", true),
    ("a file to work in", "mkdir -p /w2", "echo >/w2", "WORKDIR /w2", true),
    ("a directory of another mode to work in", "mkdir /w3", "mkdir -m 700 /w3", "WORKDIR /w3", true),
    ("other files where one works", "mkdir /w4", "mkdir /w4; echo >/w4/f", "WORKDIR /w4", false),
    (
        "all of another stage",
        "mkdir /t; echo a>/t/f",
        "mkdir /t; echo a>/t/f; echo >/t/g",
        "COPY --from=one /t/ /o/",
        true,
    ),
    (
        "files beside what is copied of another stage",
        "mkdir /t; echo a>/t/f",
        "mkdir /t; echo a>/t/f; echo >/g",
        "COPY --from=one /t/ /o/",
        false,
    ),
    (
        "content in another stage",
        "echo a>/f; touch -d @5 /f",
        "echo b>/f; touch -d @5 /f",
        "COPY --from=one /f /o",
        true,
    ),
    ("owner in another stage", "echo a>/f", "echo a>/f; chown 1:1 /f", "COPY --from=one /f /o", true),
    (
        "mode of a directory in another stage",
        "mkdir /t",
        "mkdir -m 700 /t; chmod 700 /t",
        "COPY --from=one /t /o",
        true,
    ),
    (
        "mode inside of another stage",
        "mkdir -p /t/n",
        "mkdir -p /t/n; chmod 700 /t/n",
        "COPY --from=one /t /o",
        true,
    ),
    (
        "a link in another stage",
        "echo a>/a; echo b>/b; ln -s a /l",
        "echo a>/a; echo b>/b; ln -s b /l",
        "COPY --from=one /l /o",
        true,
    ),
    (
        "names of a file in another stage",
        "mkdir /t; echo a>/t/a; ln /t/a /t/b",
        "mkdir /t; echo a>/t/a; echo a>/t/b",
        "COPY --from=one /t /o",
        true,
    ),
    ("a pattern", "echo >/fa", "echo >/fa; echo >/fb", "COPY --from=one /f* /o/", true),
    (
        "a directory of a user to work in",
        "true",
        "sed -i s/^daemon:x:1:/daemon:x:7:/ /etc/passwd",
        "USER daemon\nWORKDIR /w",
        true,
    ),
];

#[test]
fn root_what_a_copy_depends_on_is_an_input() {
    let Some(bench) = Bench::new(Need::Root) else { return };
    check_copies(&bench);
}

#[test]
fn rootless_what_a_copy_depends_on_is_an_input() {
    let Some(bench) = Bench::new(Need::Unprivileged) else { return };
    check_copies(&bench);
}

fn check_copies(bench: &Bench) {
    let mut wrong = Vec::new();
    for (name, before, edit, step, runs) in COPIES {
        let below = "COPY setup /setup\nRUN sh -e /setup\n";
        let dockerfile = match step.contains("--from=one") {
            true => format!("FROM base:1 AS one\n{below}FROM base:1\nRUN true\n{step}\n"),
            false => format!("FROM base:1\n{below}{step}\n"),
        };
        let setup = |script: &str| {
            let context = format!(
                "mkdir -p d/x; echo '{name}' >d/x/f; ln -sf x/f d/l; cp d/x/f f; ln -f f g; tar -C d -cf a.tar ."
            );
            format!("{context}\ncat >setup <<'END'\n{script}\nEND\n")
        };
        let again =
            bench.ran_again(name, &dockerfile, &setup(before), &format!("cat >setup <<'END'\n{edit}\nEND\n"));
        if again != *runs {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "done again, or not: {wrong:?}");
}
