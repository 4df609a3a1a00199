//! `--secret` and `RUN --mount=type=secret`.

use crate::bench::{as_root_and_user, said};

#[test]
fn root_secrets_are_files_and_variables_of_their_step_only() {
    as_root_and_user(|bench| {
        let file = bench.write("token", "s3cr3t");
        let given = format!("id=token,src={}", file.display());
        let check = |mount: &str, command: &str, arguments: &[&str], expect: &str| {
            let dockerfile = format!("FROM box\nRUN {mount} echo said $({command})\n");
            let outcome = bench.builds(&dockerfile, arguments);
            assert_eq!(said(&outcome.stderr), [expect], "{dockerfile}: {outcome}");
        };
        let secret = ["--no-cache", "--secret", &given];
        let default = "--mount=type=secret,id=token";
        check(default, "cat /run/secrets/token", &secret, "s3cr3t");
        check(default, "stat -c %a-%u-%g-%s /run/secrets/token", &secret, "400-0-0-6");
        check(default, "grep -c /run/secrets/token.*tmpfs /proc/mounts", &secret, "1");
        check(
            default,
            "grep /run/secrets/token /proc/mounts | cut -d' ' -f4 | cut -d, -f1-4",
            &secret,
            "ro,nosuid,nodev,noexec",
        );
        check(default, "echo x 2>&1 >/run/secrets/token | grep -o Read-only", &secret, "Read-only");
        check(
            &format!("{default},mode=640,uid=7,gid=8"),
            "stat -c %a-%u-%g /run/secrets/token",
            &secret,
            "640-7-8",
        );
        check(&format!("{default},target=/x/y"), "cat /x/y; ls /run/secrets", &secret, "s3cr3t");
        check("--mount=type=secret,target=sub/token", "cat /sub/token", &secret, "s3cr3t");
        check(&format!("{default},env=T"), "echo $T; ls /run/secrets", &secret, "s3cr3t");
        check(&format!("{default},env=T,target=/y"), "echo $T-$(cat /y)", &secret, "s3cr3t-s3cr3t");
        check(&format!("{default},env=PATH"), "echo $PATH", &secret, "s3cr3t");
        // What is not given is not there.
        check(default, "ls /run/secrets 2>/dev/null | wc -l", &["--no-cache"], "0");
        check(&format!("{default},env=T"), "echo ${T-unset}", &["--no-cache"], "unset");
        // Nothing is left where they were mounted.
        let dockerfile = format!("FROM box\nRUN {default} true\nRUN echo said $(ls / | grep -c run)\n");
        assert_eq!(said(&bench.builds(&dockerfile, &secret).stderr), ["0"]);
    });
}

#[test]
fn root_a_required_secret_that_is_not_given_is_underlined() {
    as_root_and_user(|bench| {
        let dockerfile = "FROM box\nRUN --mount=type=secret,id=a,required \\\n  true\n";
        let expect = [
            "secret `a` is required and was not given",
            "Dockerfile:2:13",
            "^^^^^^^^^^^^^^^^^^^^^^^^^",
            "`--secret id=a,src=FILE`",
        ];
        bench.refuses(dockerfile, &[], &expect);
        bench.refuses(dockerfile, &["--secret", "id=b,env=HOME"], &expect[..1]);
        bench.builds(dockerfile, &["--secret", "id=a,env=HOME"]);
        // Now its result is known, as it is for BuildKit.
        bench.builds(dockerfile, &[]);
    });
}

#[test]
fn root_the_value_of_a_secret_is_no_part_of_the_key() {
    as_root_and_user(|bench| {
        let ran = |dockerfile: &str, value: &str| {
            let mut command = bench.build_command(dockerfile, &["--secret", "id=a,env=A_SECRET"]);
            command.env("A_SECRET", value);
            let outcome = mica_testkit::run_bounded(command, std::time::Duration::from_secs(100));
            assert_eq!(outcome.code, 0, "{outcome}");
            !outcome.stderr.contains("CACHED")
        };
        let step = "FROM box\nRUN --mount=type=secret,id=a wc -c < /run/secrets/a\n";
        assert!(ran(step, "one"));
        assert!(!ran(step, "one"));
        assert!(!ran(step, "another"));
        // How it is given is.
        assert!(ran(
            "FROM box\nRUN --mount=type=secret,id=a,target=/run/secrets/b wc -c < /run/secrets/b\n",
            "one"
        ));
        // Also where the step is found by what it used.
        let on = |first: &str| {
            format!(
                "FROM box\nRUN echo {first} > /unused\nRUN --mount=type=secret,id=a wc -c < /run/secrets/a > /n\n"
            )
        };
        assert!(ran(&on("a"), "one"));
        let outcome = bench.builds(&on("b"), &["--secret", "id=a,env=HOME", "--explain"]);
        assert!(outcome.stderr.contains("CACHED"), "{outcome}");
    });
}

#[test]
fn root_secrets_that_cannot_be_had_stop_the_build_before_it_begins() {
    as_root_and_user(|bench| {
        let large = bench.write("large", vec![b'x'; 500 * 1024 + 1]);
        let check = |secret: &str, expect: &str| {
            let outcome = bench.refuses("FROM box\nRUN echo said it\n", &["--secret", secret], &[expect]);
            assert!(said(&outcome.stderr).is_empty(), "{outcome}");
        };
        check("id=a,src=/nowhere/b", "cannot read secret `a` from `/nowhere/b`");
        check(&format!("id=a,src={}", large.display()), "larger than 500 KiB");
        check("id=a,src=/", "is a directory");
        check("src=/etc/hostname", "it has no `id`");
        check("id=a,src=b,what=c", "unknown key `what`");
        let outcome = bench.builds(
            "FROM box\nRUN --mount=type=secret,id=a,env=A echo said [$A]\n",
            &["--secret", "id=a,env=MICA_NOT_SET"],
        );
        assert_eq!(said(&outcome.stderr), ["[]"]);
        assert!(outcome.stderr.contains("the variable `MICA_NOT_SET` is not set"), "{outcome}");
        let binary = bench.write("binary", [0xff, 0]);
        let given = format!("id=a,src={}", binary.display());
        bench.refuses(
            "FROM box\nRUN --mount=type=secret,id=a,env=A true\n",
            &["--no-cache", "--secret", &given],
            &["is not text", "leave `env` out"],
        );
        bench.builds(
            "FROM box\nRUN --mount=type=secret,id=a test $(wc -c < /run/secrets/a) = 2\n",
            &["--secret", &given],
        );
    });
}
