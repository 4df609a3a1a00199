//! What a program can learn besides: instructions, mounts, the context, earlier steps.

use mica_testkit::Need;

use crate::bench::Bench;

/// Name, Dockerfile, what makes the context at first and after the edit, whether the last step has to run again.
type Beside = (&'static str, &'static str, &'static str, &'static str, bool);

const BESIDE: &[Beside] = &[
    (
        "a file of the context",
        "FROM base:1\nRUN --mount=type=bind,target=/c cat /c/f >/out\n",
        "echo a>f",
        "echo b>f",
        true,
    ),
    (
        "a file of the context that is not read",
        "FROM base:1\nRUN --mount=type=bind,target=/c cat /c/f >/out\n",
        "echo a>f; echo >g",
        "echo b>g; echo >h",
        false,
    ),
    (
        "times of the context",
        "FROM base:1\nRUN --mount=type=bind,target=/c cat /c/f >/out\n",
        "echo a>f",
        "touch -d @5 f; touch -d @7 .",
        false,
    ),
    (
        "a second name of a file of the context",
        "FROM base:1\nRUN --mount=type=bind,target=/c cat /c/b >/out\n",
        "echo one>a; ln a b",
        "echo two>a",
        true,
    ),
    (
        "a file in place of a directory as the source",
        "FROM base:1\nRUN --mount=type=bind,source=s,target=/c ls -F /c >/out\n",
        "mkdir s; echo >s/f",
        "rm -r s; echo >s",
        true,
    ),
    (
        "another target of a link as the source",
        "FROM base:1\nRUN --mount=type=bind,source=s,target=/c cat /c/f >/out\n",
        "mkdir a b; echo a>a/f; echo b>b/f; ln -s a s",
        "ln -sfn b s",
        true,
    ),
    (
        "no source any more",
        "FROM base:1\nRUN --mount=type=bind,source=s,target=/c ls /c >/out\n",
        "mkdir s",
        "rmdir s",
        true,
    ),
    (
        "a file that is ignored now",
        "FROM base:1\nRUN --mount=type=bind,target=/c ls /c >/out\n",
        "echo >f; echo >g",
        "echo g >.dockerignore",
        true,
    ),
    (
        "a file that is not read and ignored now",
        "FROM base:1\nRUN --mount=type=bind,target=/c cat /c/f >/out\n",
        "echo >f; echo >g",
        "echo g >.dockerignore",
        false,
    ),
    (
        "mode of a file of the context",
        "FROM base:1\nRUN --mount=type=bind,target=/c test -x /c/f && echo >/out; true\n",
        "echo >f",
        "chmod 755 f",
        true,
    ),
    (
        "a file of another stage",
        "FROM base:1 AS one\nCOPY f /f\nFROM base:1\nRUN --mount=type=bind,from=one,target=/c cat /c/f >/out\n",
        "echo a>f",
        "echo b>f",
        true,
    ),
    (
        "one of two mounts of a stage",
        "FROM base:1 AS one\nCOPY . /d\nFROM base:1\nRUN --mount=type=bind,from=one,source=/d,target=/c \
         --mount=type=bind,from=one,target=/e cat /c/f /e/d/g >/out\n",
        "echo a>f; echo a>g",
        "echo b>g",
        true,
    ),
    (
        "stages changed places",
        "FROM base:1 AS one\nRUN echo a >/f\nFROM base:1 AS two\nRUN echo b >/f\nFROM base:1\n\
         RUN --mount=type=bind,from=one,target=/c --mount=type=bind,from=two,target=/e cat /c/f /e/f >/out\n",
        "true",
        "sed -i 's/from=one/from=x/; s/from=two/from=one/; s/from=x/from=two/' Dockerfile",
        true,
    ),
    (
        "what was written to a mount",
        "FROM base:1\nRUN --mount=type=bind,target=/c,rw echo x >>/c/f; cat /c/f >/out\n",
        "echo a>f",
        "echo b>f",
        true,
    ),
    (
        "the user by name",
        "FROM base:1\nCOPY passwd /etc/passwd\nUSER anna\nRUN id -u >/tmp/out\n",
        "echo 'anna:x:1000:1000::/:/bin/sh' >passwd",
        "echo 'anna:x:1001:1000::/:/bin/sh' >passwd",
        true,
    ),
    (
        "another user of the file of users",
        "FROM base:1\nCOPY passwd /etc/passwd\nUSER anna\nRUN cat /proc/self/status | grep Uid >/tmp/out\n",
        "echo 'anna:x:1000:1000::/:/bin/sh' >passwd",
        "echo 'anna:x:1000:1000::/:/bin/sh' >passwd; echo 'bert:x:5:5::/:/bin/sh' >>passwd",
        true,
    ),
    (
        "a directory of work that is there",
        "FROM base:1\nCOPY setup /setup\nRUN sh /setup\nWORKDIR /w\nRUN stat -c %a . >/out\n",
        "echo true >setup",
        "echo 'mkdir -m 700 /w' >setup",
        true,
    ),
    (
        "a mount point that is there",
        "FROM base:1\nCOPY d /etc/\nRUN echo 1 >/out\n",
        "mkdir d",
        "echo mine >d/hosts",
        true,
    ),
    (
        "order of times in a context, one file as it was",
        "FROM base:1\nCOPY s /kept\nRUN test /kept/y -nt /kept/c && echo old >/out; true\n",
        "mkdir s; echo 1 >s/y; echo c >s/c; echo d >s/d; touch -d @1000 s/y; touch -d @1100 s/c s/d",
        "echo e >s/d; touch -d @2000 s/d",
        false,
    ),
    (
        "a mount over the files that mica mounts itself",
        "FROM base:1\nRUN --mount=type=bind,source=e,target=/etc ls /etc >/out\n",
        "mkdir e; echo >e/x",
        "echo >e/y",
        true,
    ),
    (
        "times of the moment",
        "FROM base:1\nCOPY f /f\nRUN cat /f >/dev/null; echo made >/made\nRUN test /f -nt /made && echo old >/out; true\n",
        "echo 1 >f; touch -d @1000 f",
        "sleep 1.1; echo 2 >f",
        true,
    ),
    (
        "an argument that is used",
        "FROM base:1\nARG A=1\nRUN echo $A >/out\n",
        "true",
        "sed -i s/A=1/A=2/ Dockerfile",
        true,
    ),
    (
        "a step put before",
        "FROM base:1\nRUN echo 1 >/out\n",
        "true",
        "sed -i '1aRUN echo 2 >/other' Dockerfile",
        false,
    ),
    (
        "a name hidden in a layer above",
        "FROM base:1\nRUN echo a >/x; ln /x /y; touch -d @5 /x\nCOPY setup /setup\nRUN sh /setup\nRUN test /x -ef /y && echo same >/out; true\n",
        "echo true >setup",
        "echo 'rm /y' >setup",
        true,
    ),
    (
        "a directory replaced in a layer above",
        "FROM base:1\nRUN mkdir /d; echo >/d/f\nCOPY setup /setup\nRUN sh /setup\nRUN ls /d >/out\n",
        "echo true >setup",
        "echo 'rm -r /d; mkdir /d; echo >/d/g' >setup",
        true,
    ),
];

#[test]
fn root_what_a_step_can_learn_beside_the_files_below_it_is_an_input() {
    let Some(bench) = Bench::new(Need::Root) else { return };
    check_beside(&bench);
}

#[test]
fn rootless_what_a_step_can_learn_beside_the_files_below_it_is_an_input() {
    let Some(bench) = Bench::new(Need::Unprivileged) else { return };
    check_beside(&bench);
}

fn check_beside(bench: &Bench) {
    let mut wrong = Vec::new();
    for (name, dockerfile, before, edit, runs) in BESIDE {
        if bench.ran_again(name, dockerfile, before, edit) != *runs {
            wrong.push(*name);
        }
    }
    assert!(wrong.is_empty(), "ran again, or did not: {wrong:?}");
}
