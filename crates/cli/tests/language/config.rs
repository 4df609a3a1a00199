//! Instructions that say something of the image, and those whose files they own.

use serde_json::{Value, json};

use crate::support::Bench;

/// The config's value for a key, after these lines on `busybox`.
struct Config<'a>(&'a Bench);

impl Config<'_> {
    #[track_caller]
    fn check(&self, lines: &str, key: &str, expect: Value) {
        let built = self.0.build(&format!("FROM busybox\n{lines}\n"), &[]);
        assert_eq!(built.config(key), expect, "{lines}");
    }

    #[track_caller]
    fn fails(&self, lines: &str, expect: &str) {
        self.0.fails(&format!("FROM busybox\n{lines}\n"), &[expect, "Dockerfile:2:"]);
    }
}

#[test]
fn root_commands() {
    let Some(bench) = Bench::new() else { return };
    let config = Config(&bench);
    config.check("CMD echo $HOME", "Cmd", json!(["/bin/sh", "-c", "echo $HOME"]));
    config.check("CMD [\"a\", \"$HOME\"]", "Cmd", json!(["a", "$HOME"]));
    config.check("CMD ['a', 'b']", "Cmd", json!(["/bin/sh", "-c", "['a', 'b']"]));
    config.check("CMD [\"a\"]\nCMD [\"b\"]", "Cmd", json!(["b"]));
    config.check("CMD []", "Cmd", Value::Null);
    // The base's command was for the base's entrypoint.
    config.check("ENTRYPOINT [\"e\"]", "Cmd", Value::Null);
    config.check("CMD [\"c\"]\nENTRYPOINT [\"e\"]", "Cmd", json!(["c"]));
    config.check("ENTRYPOINT e 1", "Entrypoint", json!(["/bin/sh", "-c", "e 1"]));
    config.check("SHELL [\"/bin/ash\", \"-ec\"]\nCMD x", "Cmd", json!(["/bin/ash", "-ec", "x"]));
    config.check("SHELL [\"/bin/ash\", \"-ec\"]", "Shell", json!(["/bin/ash", "-ec"]));
    config.fails("SHELL /bin/ash -c", "SHELL must be a JSON array");
    let built = bench.build("FROM busybox\nSHELL [\"/bin/sh\", \"-xc\"]\nRUN echo $0 > /x\n", &[]);
    assert!(built.outcome.stderr.contains("+ echo /bin/sh"), "{}", built.outcome.stderr);
}

#[test]
fn root_healthchecks() {
    let Some(bench) = Bench::new() else { return };
    let config = Config(&bench);
    config.check("HEALTHCHECK NONE", "Healthcheck", json!({"Test": ["NONE"]}));
    config.check(
        "HEALTHCHECK CMD [\"a\"]\nHEALTHCHECK CMD b",
        "Healthcheck",
        json!({"Test": ["CMD-SHELL", "b"]}),
    );
    config.check(
        "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=1h --start-interval=20ms --retries=4 CMD [\"a\", \"b\"]",
        "Healthcheck",
        json!({"Test": ["CMD", "a", "b"], "Interval": 90_000_000_000_u64, "Timeout": 1_500_000_000,
               "StartPeriod": 3_600_000_000_000_u64, "StartInterval": 20_000_000, "Retries": 4}),
    );
    // A zero is the default.
    config.check(
        "HEALTHCHECK --interval=0s --retries=0 CMD a",
        "Healthcheck",
        json!({"Test": ["CMD-SHELL", "a"]}),
    );
    config.fails("HEALTHCHECK --interval=5 CMD a", "--interval");
    config.fails("HEALTHCHECK --interval=1us CMD a", "--interval");
    config.fails("HEALTHCHECK --retries=-1 CMD a", "--retries");
    config.fails("HEALTHCHECK NONE a", "NONE");
    config.fails("HEALTHCHECK RUN a", "RUN");
    config.fails("HEALTHCHECK CMD", "CMD");
    config.fails("HEALTHCHECK --intervall=5s CMD a", "did you mean `--interval`?");
}

#[test]
fn root_signals_ports_volumes() {
    let Some(bench) = Bench::new() else { return };
    let config = Config(&bench);
    for signal in ["SIGKILL", "kill", "9", "SIGRTMIN+3"] {
        config.check(&format!("ARG S={signal}\nSTOPSIGNAL $S"), "StopSignal", json!(signal));
    }
    config.fails("STOPSIGNAL SIGNONE", "is not a signal");
    config.fails("STOPSIGNAL", "STOPSIGNAL requires exactly one argument");
    let ports = |ports: &[&str]| ports.iter().map(|port| (port.to_string(), json!({}))).collect::<Value>();
    config.check(
        "EXPOSE 80 81/udp 82/TCP 83/sctp",
        "ExposedPorts",
        ports(&["80/tcp", "81/udp", "82/tcp", "83/sctp"]),
    );
    config.check("EXPOSE 7000-7002/udp", "ExposedPorts", ports(&["7000/udp", "7001/udp", "7002/udp"]));
    config.check("ARG P=\"80 90\"\nEXPOSE $P", "ExposedPorts", ports(&["80/tcp", "90/tcp"]));
    config.fails("EXPOSE 70000", "70000");
    config.fails("EXPOSE 80/http", "http");
    config.fails("EXPOSE 90-80", "90-80");
    config.check("VOLUME /a /b", "Volumes", json!({"/a": {}, "/b": {}}));
    config.check(
        "ARG V=/v\nVOLUME [\"$V\", \"/with blank\"]",
        "Volumes",
        json!({"/v": {}, "/with blank": {}}),
    );
    // What is written behind a VOLUME stays.
    let built = bench.build("FROM busybox\nVOLUME /v\nRUN mkdir -p /v && echo > /v/kept\n", &[]);
    assert!(built.has("/v/kept"));
    let built = bench.build("FROM busybox\nVOLUME /only-told\n", &[]);
    assert!(!built.has("/only-told"));
}

#[test]
fn root_variables_and_labels() {
    let Some(bench) = Bench::new() else { return };
    let config = Config(&bench);
    config.check(
        "ENV A=1 B=$A C=\"two words\" D=a\\ b",
        "Env",
        json!(["PATH=/bin", "A=1", "B=", "C=two words", "D=a b"]),
    );
    config.check("ENV A=1\nENV A=2 B=$A", "Env", json!(["PATH=/bin", "A=2", "B=1"]));
    config.check(
        "ENV LEGACY some  text  # no comment",
        "Env",
        json!(["PATH=/bin", "LEGACY=some  text  # no comment"]),
    );
    config.check("ENV PATH=/x:$PATH", "Env", json!(["PATH=/x:/bin"]));
    config.check(
        "ENV A='$PATH' B=\"'$PATH'\" C=\\$PATH",
        "Env",
        json!(["PATH=/bin", "A=$PATH", "B='/bin'", "C=$PATH"]),
    );
    config.check(
        "ARG V=file.tar.gz\nENV A=${V#*.} B=${V##*.} C=${V%.*} D=${V%%.*} E=${V/tar/zip} F=${V//./_} G=${N:-d} H=${V:+s} I=${N+s}",
        "Env",
        json!(["PATH=/bin", "A=tar.gz", "B=gz", "C=file.tar", "D=file", "E=file.zip.gz", "F=file_tar_gz", "G=d", "H=s", "I="]),
    );
    config.fails("ENV A=${N:?is needed}", "is needed");
    config.fails("ENV A=${N", "missing `}`");
    config.fails("ENV =x", "names cannot be blank");
    config.check(
        "LABEL a=1 \"b c\"=\"d e\" f='$PATH' g=$PATH",
        "Labels",
        json!({"a": "1", "b c": "d e", "f": "$PATH", "g": "/bin"}),
    );
    config.check("LABEL a=1\nLABEL a=2", "Labels", json!({"a": "2"}));
    let built = bench.build("FROM busybox\nLABEL a=file b=file\n", &["--label", "a=flag"]);
    assert_eq!(built.config("Labels"), json!({"a": "flag", "b": "file"}));
    let built = bench.build("FROM busybox\nMAINTAINER  some one <a@b> \n", &[]);
    assert_eq!(built.image.config["author"], "some one <a@b>");
}

#[test]
fn root_users_and_directories() {
    let Some(bench) = Bench::new() else { return };
    bench.write("f", "f");
    let built = bench.build(
        "FROM busybox\nUSER daemon\nWORKDIR /own/deep\nRUN [ \"$(id -u):$(id -g)\" = 1:1 ] && touch made\nCOPY f .\n\
         USER 7\nRUN [ \"$(id -u):$(id -g)\" = 7:0 ]\nUSER 7:staff\nWORKDIR sub\nRUN [ \"$(id -u):$(id -g)\" = 7:50 ]\n\
         USER root\nWORKDIR /\nWORKDIR rel\nWORKDIR ..\nWORKDIR /own/./deep/../x/\nARG D=var\nWORKDIR $D\n",
        &[],
    );
    for (path, expect) in [
        ("/own", "755 1:1"),
        ("/own/deep", "755 1:1"),
        ("/own/deep/made", "644 1:1"),
        ("/own/deep/f", "644"),
        ("/own/deep/sub", "755 7:50"),
        ("/own/x", "755"),
    ] {
        assert_eq!(built.shape(path), expect, "{path}");
    }
    assert_eq!((built.config("WorkingDir"), built.config("User")), (json!("/own/x/var"), json!("root")));
    // A directory that is there keeps its owner.
    let built = bench.build("FROM busybox\nUSER daemon\nWORKDIR /root\n", &[]);
    assert_eq!(built.shape("/root"), "700");
    bench.fails("FROM busybox\nUSER nobody-knows\nRUN true\n", &["nobody-knows", "Dockerfile:3:"]);
    bench.fails("FROM busybox\nWORKDIR /bin/busybox/x\n", &["Dockerfile:2:"]);
}

#[test]
fn root_triggers() {
    let Some(bench) = Bench::new() else { return };
    bench.write("f", "f");
    let on = "FROM busybox\nONBUILD COPY f /trigger/\nONBUILD RUN echo $A > /ran\nONBUILD ENV T=1\nONBUILD WORKDIR /t\nONBUILD USER 7\n\
              ONBUILD LABEL l=1\n";
    let built = bench.build(on, &["-t", "on"]);
    assert_eq!(
        built.config("OnBuild"),
        json!(["COPY f /trigger/", "RUN echo $A > /ran", "ENV T=1", "WORKDIR /t", "USER 7", "LABEL l=1"])
    );
    assert!(!built.has("/trigger"));
    let built = bench.build("FROM on\nRUN id -u > /tmp/u\n", &[]);
    assert!(built.has("/trigger/f") && built.has("/ran"));
    assert_eq!((built.config("WorkingDir"), built.config("User")), (json!("/t"), json!("7")));
    // Only the direct child runs them, and its own child has none.
    assert_eq!(built.config("OnBuild"), Value::Null);
    // Within one file, and from stages and images.
    let built = bench.build(
        "FROM busybox AS files\nRUN echo > /x\nFROM busybox AS on\nONBUILD COPY --from=files /x /from-stage\n\
         ONBUILD COPY --from=busybox /etc/group /from-image\nONBUILD ARG N=1\nONBUILD RUN --mount=type=bind,from=files,target=/m cp /m/x /mounted$N\n\
         FROM on\n",
        &[],
    );
    assert!(built.has("/from-stage") && built.has("/from-image") && built.has("/mounted1"));
    for wrong in
        ["ONBUILD ONBUILD RUN x", "ONBUILD FROM x", "ONBUILD MAINTAINER x", "ONBUILD", "ONBUILD COPPY a b"]
    {
        assert_eq!(bench.run(&format!("FROM busybox\n{wrong}\n"), &[]).code, 1, "{wrong}");
    }
}
