//! ARG: who sees what, and what a value has to do with earlier results.

use crate::support::Bench;

/// Steps of a file that were taken over, by the last word of their instruction.
fn cached(bench: &Bench, dockerfile: &str, flags: &[&str]) -> String {
    let stderr = bench.build(dockerfile, flags).outcome.stderr;
    let mut names = std::collections::BTreeMap::new();
    let mut cached = Vec::new();
    for line in stderr.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else {
            continue;
        };
        if rest.starts_with('[') {
            names.insert(number.to_owned(), rest.rsplit(' ').next().unwrap_or_default().to_owned());
        } else if rest.starts_with("CACHED") {
            cached.push(names.get(number).cloned().unwrap_or_default());
        }
    }
    cached.join(" ")
}

#[test]
fn root_an_argument_misses_at_its_first_use() {
    let Some(bench) = Bench::new() else { return };
    bench.write("f", "f");
    let file =
        "FROM busybox\nRUN true before\nARG A=0\nCOPY f /unused\nWORKDIR /w\nRUN true run\nCOPY f /x$A\n";
    assert_eq!(cached(&bench, file, &[]), "");
    assert_eq!(cached(&bench, file, &[]), "before /unused /w run /x0");
    // Each RUN behind the ARG uses it, a COPY only if it says so.
    assert_eq!(cached(&bench, file, &["--build-arg=A=1", "--cache=exact"]), "before /unused /w");
    assert_eq!(cached(&bench, file, &["--build-arg=A=2"]), "before /unused /w");
    assert_eq!(cached(&bench, file, &["--build-arg=A=0"]), "before /unused /w run /x0");
    // An ENV of the name hides it.
    let file = file.replace("ARG A=0", "ARG A=0\nENV A=same");
    cached(&bench, &file, &[]);
    assert_eq!(cached(&bench, &file, &["--build-arg=A=9"]), "before /unused /w run /xsame");
}

#[test]
fn root_proxies_are_in_no_key_and_no_history() {
    let Some(bench) = Bench::new() else { return };
    let file = "FROM busybox\nRUN env | grep -i ^http_proxy | sort > /proxy; true proxies\n";
    let built = bench.build(file, &["--build-arg=HTTP_PROXY=http://user:word@one"]);
    assert_eq!(built.node("/proxy").size, 2 * "http_proxy=http://user:word@one\n".len() as u64);
    assert!(!built.image.config.to_string().contains("user:word"), "{}", built.image.config);
    assert_eq!(cached(&bench, file, &["--build-arg=http_proxy=http://two"]), "proxies");
    // Declared, it is an argument as any other.
    let file = file.replace("RUN", "ARG HTTP_PROXY\nRUN");
    let built = bench.build(&file, &["--build-arg=HTTP_PROXY=http://one"]);
    assert!(built.image.config.to_string().contains("|1 HTTP_PROXY=http://one"), "{}", built.image.config);
    assert_eq!(cached(&bench, &file, &["--build-arg=HTTP_PROXY=http://two"]), "");
}

#[test]
fn root_scopes() {
    let Some(bench) = Bench::new() else { return };
    let built = bench.build(
        "# syntax=nowhere.invalid/docker/dockerfile:99\n\
         ARG TAG=latest\nARG JOINED=${TAG}-${NONE:-x}\nARG EMPTY\n\
         FROM busybox:$TAG AS one\nRUN echo \"[$TAG][$JOINED]\" > /outside\n\
         ARG TAG\nARG JOINED=own\nARG NOTHING\nARG A=1 B=$A\nRUN echo \"[$TAG][$JOINED][${NOTHING-unset}][$A$B]\" > /inside\n\
         FROM one\nRUN echo \"[$TAG][$JOINED]\" > /inherited\nENV JOINED=env\nARG JOINED=again\nRUN echo \"[$JOINED]\" > /env\n\
         FROM busybox AS other\nRUN echo \"[$TAG]\" > /other\n\
         FROM busybox\nARG TARGETSTAGE BUILDPLATFORM TARGETARCH\nCOPY --from=1 /outside /inside /inherited /env /\n\
         COPY --from=other /other /\nRUN echo \"[$TARGETSTAGE][$BUILDPLATFORM]\" > /platform; [ -n \"$TARGETARCH\" ]\n\
         RUN [ \"$(cat /outside)\" = '[][]' ]\nRUN [ \"$(cat /inside)\" = '[latest][own][unset][11]' ]\n\
         RUN [ \"$(cat /inherited)\" = '[latest][own]' ]\nRUN [ \"$(cat /other)\" = '[]' ]\nRUN cat /env /platform\n",
        &["--progress=plain"],
    );
    assert!(built.outcome.stderr.contains("[default][linux/"), "{}", built.outcome.stderr);
}

#[test]
fn root_arguments_that_are_for_the_builder() {
    let Some(bench) = Bench::new() else { return };
    let flags = [
        "--build-arg=BUILDKIT_SYNTAX=nowhere.invalid/x",
        "--build-arg=BUILDKIT_BUILD_NAME=me",
        "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1",
        "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=boxy",
        "--build-arg=BUILDKIT_CACHE_MOUNT_NS=mine",
        "--build-arg=BUILDKIT_SBOM_SCAN_STAGE=true",
    ];
    let file = "FROM busybox\nRUN [ \"$(hostname)\" = boxy ] && grep -q boxy /etc/hosts || hostname > /other; true named\n";
    let built = bench.build(file, &flags);
    assert!(!built.has("/other") && !built.outcome.stderr.contains("consumed"), "{}", built.outcome.stderr);
    // Another name is another machine.
    assert!(bench.build(file, &[]).has("/other"));
    assert_eq!(cached(&bench, file, &flags), "named");
    let stderr = bench.build(file, &["--build-arg=BUILDKIT_SANDBOX_HOSTNAME=a b"]).outcome.stderr;
    assert!(stderr.contains("BUILDKIT_SANDBOX_HOSTNAME is not a host name"), "{stderr}");
}
