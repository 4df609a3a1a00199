//! What a program can learn of the files it started from.

use mica_testkit::Need;

use crate::bench::Bench;

/// Name, what makes the files below at first and after the edit, the step that looks at them, whether it has to run again.
pub type Below = (&'static str, &'static str, &'static str, &'static str, bool);

const BELOW: &[Below] = &[
    ("a path that is not looked at", "echo a>/f", "echo b>/f; mkdir /d; echo >/d/x", "echo 1 >/out", false),
    ("content", "echo a>/f", "echo b>/f", "cat /f >/out", true),
    ("content of a second name", "echo a>/x; ln /x /y", "echo b>/x; ln /x /y", "cat /y >/out", true),
    ("content of a first name", "echo a>/x; ln /x /y", "echo b>/x; ln /x /y", "cat /x >/out", true),
    (
        "number of names",
        "echo a>/x; touch -d @1000 /x; ln /x /y",
        "echo a>/x; touch -d @1000 /x",
        "stat -c %h /x >/out",
        true,
    ),
    (
        "whether two names are one file",
        "echo a>/x; ln /x /y; echo a>/z; ln /z /v; touch -d @1000 /x /y /z /v",
        "echo a>/x; ln /x /z; echo a>/y; ln /y /v; touch -d @1000 /x /y /z /v",
        "test /x -ef /y && echo same >/out; true",
        true,
    ),
    (
        "a file in place of a directory, listed",
        "mkdir -p /d/n",
        "mkdir /d; echo >/d/n",
        "find /d -type d | sort >/out",
        true,
    ),
    ("a file in place of a directory, passed", "mkdir -p /d/n", "echo >/d", "ls /d/n || echo no >/out", true),
    ("a directory in place of a file", "echo >/d", "mkdir -p /d/n", "cat /d/n || echo no >/out", true),
    ("a name in a listed directory", "mkdir /d", "mkdir /d; echo >/d/x", "echo /d/* >/out", true),
    (
        "names in a directory that is only passed",
        "mkdir /d; touch -d @5 /d/f",
        "mkdir /d; touch -d @5 /d/f; echo >/d/x",
        "cat /d/f >/out",
        false,
    ),
    (
        "time of a directory",
        "mkdir /d; touch -d @5 /d/f /d",
        "mkdir /d; touch -d @5 /d/f; touch -d @9 /d",
        "ls -ld /d; cat /d/f >/out",
        false,
    ),
    ("time of a file", "echo >/f; touch -d @5 /f", "echo >/f; touch -d @9 /f", "stat -c %Y /f >/out", true),
    (
        "order of times",
        "echo >/a; echo >/b; touch -d @5 /a; touch -d @9 /b",
        "echo >/a; echo >/b; touch -d @9 /a; touch -d @5 /b",
        "test /a -nt /b && echo newer >/out; true",
        true,
    ),
    (
        "mode of a directory on the way",
        "mkdir -m 755 /d; echo >/d/f",
        "mkdir -m 700 /d; echo >/d/f",
        "su nobody -s /bin/sh -c 'cat /d/f' || echo denied >/out",
        true,
    ),
    (
        "owner of a file",
        "echo >/f; touch -d @5 /f; chmod 600 /f",
        "echo >/f; touch -d @5 /f; chmod 600 /f; chown nobody /f",
        "su nobody -s /bin/sh -c 'cat /f' || echo denied >/out",
        true,
    ),
    (
        "group of a directory whose files inherit it",
        "mkdir /d; chgrp 50 /d; chmod 2755 /d",
        "mkdir /d; chgrp 50 /d; chmod 755 /d",
        "echo >/d/new",
        true,
    ),
    (
        "target of a link",
        "echo a>/a; echo b>/b; ln -s a /l",
        "echo a>/a; echo b>/b; ln -s b /l",
        "cat /l >/out",
        true,
    ),
    (
        "a link that leads nowhere",
        "ln -s gone /l",
        "ln -s gone /l; echo >/gone",
        "test -e /l && echo >/out; true",
        true,
    ),
    ("a link on the way", "mkdir /a /b; ln -s a /l", "mkdir /a /b; ln -s b /l", "echo >/l/new", true),
    (
        "a directory that became a link to an equal one",
        "mkdir /d /e; echo >/d/f; echo >/e/f; touch -d @5 /d/f /e/f",
        "mkdir /e; ln -s e /d; echo >/e/f; touch -d @5 /e/f",
        "cd /d && pwd -P >/out",
        true,
    ),
    ("a directory made that is a link now", "true", "mkdir /z; ln -s z /d", "mkdir -p /d/n", true),
    ("a directory made that is there now", "true", "mkdir -m 700 /d", "mkdir -p /d/n", true),
    ("a directory made that is a file now", "true", "echo >/d", "mkdir -p /d/n || echo no >/out", true),
    (
        "a name that shadows",
        "printf '#!/bin/sh\\necho a' >/bin/tool; chmod 755 /bin/tool",
        "printf '#!/bin/sh\\necho a' >/bin/tool; printf '#!/bin/sh\\necho b' >/usr/bin/tool; chmod 755 /bin/tool /usr/bin/tool",
        "PATH=/usr/bin:/bin tool >/out",
        true,
    ),
    (
        "the interpreter of a script",
        "ln -s /bin/busybox /sh; printf '#!/i/sh\\necho a >/out' >/s; chmod 755 /s; mkdir /i; ln -s /bin/sh /i/sh; touch -hd @5 /s",
        "ln -s /bin/busybox /sh; printf '#!/i/sh\\necho a >/out' >/s; chmod 755 /s; mkdir /i; ln -s /bin/false /i/sh; touch -hd @5 /s",
        "/s || echo failed >/out",
        true,
    ),
    ("a name in another case", "echo >/File", "echo >/file", "test -e /File && echo >/out; true", true),
    ("number of a device", "mknod /n c 1 3", "mknod /n c 1 5", "stat -c %t:%T /n >/out", true),
    (
        "a pipe in place of a device",
        "mknod /n c 1 3",
        "mkfifo /n",
        "test -p /n && echo pipe >/out; true",
        true,
    ),
    (
        "what is copied up by a change of mode",
        "echo a>/f; touch -d @5 /f",
        "echo b>/f; touch -d @5 /f",
        "chmod 600 /f",
        true,
    ),
    (
        "what is copied up by a new name",
        "echo a>/f; touch -d @5 /f",
        "echo b>/f; touch -d @5 /f",
        "mv /f /g",
        true,
    ),
    (
        "what is copied up by one name more",
        "echo a>/f; touch -d @5 /f",
        "echo b>/f; touch -d @5 /f",
        "ln /f /g",
        true,
    ),
    (
        "what is copied up by a longer file",
        "echo a>/f; touch -d @5 /f",
        "echo b>/f; touch -d @5 /f",
        "echo >>/f",
        true,
    ),
    (
        "what is copied up by a shorter file",
        "echo abc>/f; touch -d @5 /f",
        "echo bcd>/f; touch -d @5 /f",
        "truncate -s 2 /f",
        true,
    ),
    (
        "what is copied up by a time",
        "echo abc>/f; touch -d @5 /f",
        "echo bcd>/f; touch -d @5 /f",
        "touch -d @7 /f",
        true,
    ),
    ("what is written over", "echo a>/f; touch -d @5 /f", "echo b>/f; touch -d @5 /f", "echo new >/f", false),
    ("what is removed", "echo a>/f; touch -d @5 /f", "echo b>/f; touch -d @5 /f", "rm /f", false),
    ("what is removed and gone", "echo a>/f", "true", "rm -f /f", true),
    (
        "what is removed with all inside",
        "mkdir -p /d/e; echo >/d/e/f",
        "mkdir -p /d/e; echo >/d/e/g",
        "rm -rf /d",
        true,
    ),
    (
        "a directory that cannot be removed",
        "mkdir /d",
        "mkdir /d; echo >/d/f",
        "rmdir /d || echo full >/out",
        true,
    ),
    (
        "a directory moved",
        "mkdir /d; echo a>/d/f; touch -d @5 /d/f",
        "mkdir /d; echo b>/d/f; touch -d @5 /d/f",
        "mv /d /e",
        true,
    ),
    (
        "a tree copied",
        "mkdir -p /d/e; ln -s a /d/e/l",
        "mkdir -p /d/e; ln -s b /d/e/l",
        "cp -a /d /copy",
        true,
    ),
    (
        "a directory hidden and made anew",
        "mkdir /d; echo >/d/f",
        "mkdir /d; echo >/d/g",
        "rm -r /d; mkdir /d",
        true,
    ),
    ("the mode of a directory written to", "mkdir -m 755 /d", "mkdir -m 750 /d", "echo >/d/new", true),
    ("how much room files take", "mkdir /d; echo >/d/f", "mkdir /d; seq 9999 >/d/f", "du -s /d >/out", true),
    (
        "seen through /proc",
        "echo a>/f; touch -d @5 /f",
        "echo b>/f; touch -d @5 /f",
        "cat /proc/self/root/f >/out",
        true,
    ),
    ("an exit status", "echo >/f", "true", "test -e /f", true),
    (
        "a mount point that is a link",
        "true",
        "mkdir -p /run; ln -sf /run/resolv.conf /etc/resolv.conf",
        "readlink /etc/resolv.conf >/out; ls /run >>/out; true",
        true,
    ),
    (
        "a name of 255 bytes",
        "true",
        "echo >/$(printf %0255d 0)",
        "test -e /$(printf %0255d 0) && echo >/out; true",
        true,
    ),
    (
        "a name that is no text",
        "true",
        "echo >\"$(printf '/\\377\\n')\"",
        "test -e \"$(printf '/\\377\\n')\" && echo >/out; true",
        true,
    ),
    (
        "a walk over everything",
        "true",
        "mkdir -p /var/x/y",
        "all=$(find / -xdev | sort); echo \"$all\" >/out",
        true,
    ),
];

#[test]
fn root_what_a_step_can_learn_of_the_files_below_it_is_an_input() {
    let Some(bench) = Bench::new(Need::Root) else { return };
    check_below(&bench);
}

#[test]
fn rootless_what_a_step_can_learn_of_the_files_below_it_is_an_input() {
    let Some(bench) = Bench::new(Need::Unprivileged) else { return };
    check_below(&bench);
}

fn check_below(bench: &Bench) {
    let mut wrong = Vec::new();
    for (name, before, edit, step, runs) in BELOW {
        if !mica_testkit::is_root() && (before.contains("mknod") || edit.contains("mknod")) {
            continue;
        }
        let dockerfile =
            format!("FROM base:1\nCOPY setup /setup\nRUN sh -e /setup\nRUN : {name:?}; {step}\n");
        let setup = |script: &str| format!("cat >setup <<'END'\n{script}\nEND\n");
        let again = bench.ran_again(name, &dockerfile, &setup(before), &setup(edit));
        if again != *runs {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "ran again, or did not: {wrong:?}");
}
