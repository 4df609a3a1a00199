//! Real tools on a real system: what compilers and packers of Debian make, twice.

use mica_testkit::{Mica, Need, bases, missing};

use crate::support::{BINARY, build, project, run};

const PROGRAM: &str = "#include <stdio.h>\nint main(void) { puts(__DATE__ \" \" __TIME__); return 0; }\n";

const DOCKERFILE: &str = "FROM debian:tools\nWORKDIR /src\nCOPY main.c module.py ./\n\
    RUN gcc -g -O2 -c main.c && gcc -g main.o -o main && ar rc lib.a main.o && ./main > told\n\
    RUN python3 -m compileall -q . && python3 -c 'import module' && gzip -nk main.c\n\
    RUN tar --sort=name -cf /all.tar . && useradd -m joe\n\
    RUN ldconfig && rm -f /var/cache/ldconfig/aux-cache\n";

/// What is known to differ, at the end of a Dockerfile of its own.
const CARELESS: &str = "FROM debian:tools\nWORKDIR /src\nCOPY main.c ./\n\
    RUN gcc -c main.c && ar rcU lib.a main.o\n\
    RUN gzip -k main.c; cp main.c b.c; gzip b.c\n\
    RUN env -u SOURCE_DATE_EPOCH gcc main.c -o main\n\
    RUN cat lib.a > lib.copy\n";

#[test]
fn compilers_and_packers() {
    if let Some(reason) = missing(&[Need::Root]) {
        println!("skipped: {reason}");
        return;
    }
    let base = match bases::debian_with_tools() {
        Ok(base) => base,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let mica = Mica::new(BINARY);
    mica.import(&base, "debian:tools");
    let verify = |dockerfile: &str| {
        let dir = project(dockerfile, &[("main.c", PROGRAM), ("module.py", "def f():\n    return 1\n")]);
        run(build(&mica, dir.path(), &["--reproducible", "--verify"]))
    };
    let outcome = verify(DOCKERFILE);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.starts_with("reproducible: sha256:"), "{outcome}");
    let outcome = verify(CARELESS);
    assert_eq!(outcome.code, 1, "{outcome}");
    let says = |text: &str| assert!(outcome.stdout.contains(text), "does not say `{text}`: {outcome}");
    for text in [
        "Dockerfile:4: [4/7] RUN gcc -c main.c && ar rcU lib.a main.o\n  /src/lib.a: content",
        "`ar rcD`",
        "/src/b.c.gz: content from byte 4 on",
        "`gzip -n`",
        "/src/main: content",
        "`__DATE__`",
        "Dockerfile:7: [7/7] RUN cat lib.a > lib.copy\n  follows from what it used: /src/lib.a of [4/7]\n  /src/lib.copy",
        "not reproducible: 3 steps make something else each time, 1 follows from that; 4 paths differ",
    ] {
        says(text);
    }
    // Its time is fixed before gzip sees it.
    assert!(!outcome.stdout.contains("/src/main.c.gz"), "{outcome}");
}
