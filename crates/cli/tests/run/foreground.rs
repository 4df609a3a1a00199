use std::io::Write;
use std::process::Stdio;

use crate::support::{eventually, text};
use crate::world_or_skip;

#[test]
fn root_exit_codes_are_docker_s() {
    let world = world_or_skip!();
    let check = |arguments: &[&str], code: i32| {
        let mut all = vec!["run", "--rm", "--network=none"];
        all.extend(arguments);
        let output = world.mica(&all);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    };
    check(&["box", "true"], 0);
    check(&["box", "sh", "-c", "exit 3"], 3);
    check(&["box", "nope"], 127);
    check(&["box", "/bin/nope"], 127);
    check(&["box", "/bin/notexec"], 126);
    check(&["box", "/etc"], 126);
    // Process 1 cannot kill itself.
    check(&["--init", "box", "sh", "-c", "kill -9 $$"], 137);
    check(&["--nope", "box"], 125);
    check(&["absent"], 125);
    check(&["-v", "rel:rel", "box"], 125);
    check(&["--user", "nobody-here", "box", "true"], 125);
    check(&["--restart=always", "box"], 125);
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn root_absent_images_say_how_to_get_them() {
    let world = world_or_skip!();
    let (code, stderr) = world.fails(&["run", "absent"]);
    assert_eq!(code, 125);
    assert!(stderr.starts_with("Unable to find image 'absent:latest' locally\n"), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1") && stderr.contains("mica load"), "{stderr}");
}

#[test]
fn root_streams_are_passed_on() {
    let world = world_or_skip!();
    let output = world.mica(&["run", "--rm", "--network=none", "box", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".to_owned(), "err".to_owned()));
    let mut child = world
        .command(&["run", "--rm", "-i", "--network=none", "box", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let big = "0123456789abcde\n".repeat(50_000);
    let mut stdin = child.stdin.take().unwrap();
    let expected = big.clone();
    let writer = std::thread::spawn(move || stdin.write_all(big.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.stdout.len(), expected.len());
    assert!(output.stdout == expected.as_bytes());
    // Without -i there is no input.
    assert_eq!(world.run(&["box", "cat"]), "");
    // Nobody reads on: the program is told so.
    let mut child = world
        .command(&["run", "--rm", "--network=none", "box", "yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    eventually("the end of `yes`", || child.try_wait().unwrap().is_some());
}

#[test]
fn root_process_options_take_effect() {
    let world = world_or_skip!();
    let check = |arguments: &[&str], expect: &str| assert_eq!(world.run(arguments), expect, "{arguments:?}");
    check(&["-e", "A=1", "box", "sh", "-c", "echo $A $FROM_IMAGE"], "1 1");
    check(&["-w", "/tmp", "box", "pwd"], "/tmp");
    check(&["-w", "/new/dir", "box", "pwd"], "/new/dir");
    check(&["-u", "anna", "box", "id", "-u"], "1000");
    check(&["-u", "12:34", "box", "sh", "-c", "id -u; id -g"], "12\n34");
    check(&["--entrypoint", "echo", "box", "a", "--rm", "-it"], "a --rm -it");
    check(&["--hostname", "h1", "box", "hostname"], "h1");
    check(&["--hostname", "h1", "box", "cat", "/etc/hostname"], "h1");
    check(&["--add-host", "db:10.1.2.3", "box", "grep", "db", "/etc/hosts"], "10.1.2.3\tdb");
    check(&["--dns", "9.9.9.9", "box", "grep", "nameserver", "/etc/resolv.conf"], "nameserver 9.9.9.9");
    check(&["--read-only", "box", "sh", "-c", "touch /x 2>/dev/null || echo no"], "no");
    check(&["--tmpfs", "/t:size=1m", "box", "sh", "-c", "touch /t/x && echo yes"], "yes");
    check(&["--ulimit", "nofile=77", "box", "sh", "-c", "ulimit -n"], "77");
    check(&["--init", "box", "sh", "-c", "echo $$"], "2");
    check(&["box", "sh", "-c", "echo $$"], "1");
    check(&["box", "ls", "/sys/class/net"], "lo");
    check(&["--", "box", "echo", "-x"], "-x");
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn root_entrypoints_and_commands_meet() {
    let world = world_or_skip!();
    world.derive_image("entry", |config| {
        config.config.entrypoint = Some(vec!["echo".into(), "-n".into()]);
        config.config.cmd = Some(vec!["a".into(), "b".into()]);
    });
    assert_eq!(world.run(&["entry"]), "a b");
    assert_eq!(world.run(&["entry", "c"]), "c");
    assert_eq!(world.run(&["--entrypoint", "pwd", "entry"]), "/");
}

#[test]
fn root_volumes_keep_what_is_written() {
    let world = world_or_skip!();
    let host = world.directory.path().join("host");
    let bind = format!("{}:/mnt", host.display());
    world.run(&["-v", &bind, "box", "sh", "-c", "echo x > /mnt/f"]);
    assert_eq!(std::fs::read_to_string(host.join("f")).unwrap(), "x\n");
    let read_only = format!("{bind}:ro");
    assert_eq!(
        world.run(&["-v", &read_only, "box", "sh", "-c", "touch /mnt/g 2>/dev/null || cat /mnt/f"]),
        "x"
    );
    // A new volume has what the image has there.
    assert_eq!(world.run(&["-v", "vol:/data", "box", "cat", "/data/sub/file"]), "from the image");
    world.run(&["-v", "vol:/data", "box", "sh", "-c", "echo changed > /data/sub/file"]);
    assert_eq!(world.run(&["--mount", "src=vol,dst=/d", "box", "cat", "/d/sub/file"]), "changed");
    // The image is as it was.
    assert_eq!(world.run(&["box", "cat", "/data/sub/file"]), "from the image");
    let missing = ["run", "--rm", "--mount", "type=bind,src=/nonexistent/x,dst=/d", "box"];
    let (code, stderr) = world.fails(&missing);
    assert_eq!(
        (code, stderr.as_str()),
        (
            125,
            "error: bind source path does not exist: /nonexistent/x\nhint: make it with `mkdir -p /nonexistent/x`, or use `-v`, which makes directories"
        )
    );
    // A volume of the image's own goes with --rm.
    world.derive_image("own", |config| {
        config.config.volumes.insert("/data".into(), mica_oci::Empty {});
    });
    assert_eq!(world.run(&["own", "cat", "/data/sub/file"]), "from the image");
    let volumes = std::fs::read_dir(world.root().join("volumes")).unwrap().count();
    assert_eq!(volumes, 1);
}

#[test]
fn root_a_signal_reaches_the_program() {
    let world = world_or_skip!();
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = world
        .command(&["run", "--name", "s", "--network=none", "box", "sh", "-c", script])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("a ready program", || world.mica(&["logs", "s"]).stdout == b"ready\n");
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "s exited");
}

#[test]
fn root_a_killed_foreground_is_cleaned_up_after() {
    let world = world_or_skip!();
    let mut child =
        world.start_in_background(&["run", "--rm", "--name", "k", "--network=none", "box", "sleep", "60"]);
    eventually("a running container", || world.ok(&["ps", "-q"]).len() == 12);
    let pid = world.pid("k");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the end of its process", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(world.run(&["box", "echo", "next"]), "next");
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn root_the_id_is_written_to_a_file() {
    let world = world_or_skip!();
    let file = world.directory.path().join("cid");
    let flag = format!("--cidfile={}", file.display());
    world.run(&[&flag, "box", "true"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap().len(), 64);
    assert_eq!(world.fails(&["run", "--rm", &flag, "box", "true"]).0, 125);
}
