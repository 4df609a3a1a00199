//! The command: its exit, its user, its environment, its terminal, and what may come in its way.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use mica_runtime::spec::{Network, UserSpec};
use mica_runtime::{CapabilitySet, ProcessSpec, Stdio, Stream};

use crate::Test;
use crate::support::{Scratch, check_script, finish, piped, run, try_run};

pub const TESTS: &[Test] = &[
    ("root_exit_codes_and_signals_are_reported", root_exit_codes_and_signals_are_reported),
    ("root_commands_that_cannot_run_are_told_apart", root_commands_that_cannot_run_are_told_apart),
    ("root_users_are_looked_up_in_the_container", root_users_are_looked_up_in_the_container),
    ("root_the_first_process_has_its_environment", root_the_first_process_has_its_environment),
    ("root_a_terminal_is_the_controlling_one", root_a_terminal_is_the_controlling_one),
    ("root_init_reaps_and_forwards", root_init_reaps_and_forwards),
    ("root_signals_are_sent", root_signals_are_sent),
    ("root_exec_joins_a_container", root_exec_joins_a_container),
    ("root_a_killed_parent_leaves_nothing", root_a_killed_parent_leaves_nothing),
    ("root_a_killed_helper_takes_the_container_along", root_a_killed_helper_takes_the_container_along),
    ("root_a_dropped_container_is_killed", root_a_dropped_container_is_killed),
    ("root_many_threads_spawn_at_once", root_many_threads_spawn_at_once),
    ("root_no_descriptor_leaks_into_the_container", root_no_descriptor_leaks_into_the_container),
];

fn root_exit_codes_and_signals_are_reported() {
    let scratch = Scratch::new();
    for (script, expected) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("ulimit -c 0; (kill -SEGV $$); exit 3", 3)]
    {
        assert_eq!(run(&scratch.script(script)).status.code(), expected, "{script}");
    }
    // Process 1 of a pid namespace is not killed by signals of its own namespace; without one it is.
    let mut spec = scratch.script("kill -TERM $$");
    spec.namespaces.pid_host = true;
    assert_eq!(run(&spec).status.code(), 128 + libc::SIGTERM);
}

fn root_commands_that_cannot_run_are_told_apart() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("image/etc/plain"), "text").unwrap();
    std::fs::write(scratch.path("image/bin/lost"), "#!/no/such/interpreter\n").unwrap();
    std::fs::write(scratch.path("image/bin/garbage"), "\0\0\0\0").unwrap();
    for name in ["lost", "garbage"] {
        let file = scratch.path("image/bin").join(name);
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let check = |argv: &[&str], code: i32, message: &str| {
        let error = try_run(&scratch.spec(argv)).map(|outcome| format!("{outcome:?}")).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (code, message));
    };
    check(&["foo"], 127, "exec: \"foo\": executable file not found in $PATH");
    check(&["/bin/foo"], 127, "exec: \"/bin/foo\": stat /bin/foo: no such file or directory");
    check(&["/etc/plain"], 126, "exec: \"/etc/plain\": permission denied");
    check(&["/etc"], 126, "exec: \"/etc\": is a directory");
    check(&["lost"], 127, "exec /bin/lost: no such file or directory");
    check(&["/bin/garbage"], 126, "exec /bin/garbage: exec format error");
    check(&["/proc/self/exe"], 126, "exec /proc/self/exe: permission denied");
    check(&[], 125, "no command specified");
    let mut spec = scratch.spec(&["true"]);
    spec.process.user = UserSpec::Names("bert".to_owned());
    let error = try_run(&spec).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "unable to find user bert: no matching entries in passwd file");
    assert_eq!(error.exit_code(), 125);
    let mut spec = scratch.spec(&["true"]);
    spec.mounts.push(mica_runtime::spec::Mount::Bind {
        source: "/no/such/source".into(),
        target: "/mnt".to_owned(),
        read_only: true,
        recursive: true,
    });
    let error = try_run(&spec).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "container set-up failed at mounts: open_tree `/no/such/source`: no such file or directory"
    );
}

fn root_users_are_looked_up_in_the_container() {
    for (user, expected) in [
        ("anna", "1000 100 100 10 /home/anna"),
        ("1000", "1000 100 100 10 /home/anna"),
        ("anna:wheel", "1000 10 10 /home/anna"),
        ("4711", "4711 0 0 /"),
        ("", "0 0 0 /root"),
    ] {
        check_script(
            |spec| spec.process.user = UserSpec::Names(user.to_owned()),
            "echo $(id -u) $(id -g) $(id -G) $HOME",
            expected,
        );
    }
    check_script(
        |spec| spec.process.user = UserSpec::Ids { uid: 5, gid: 6, groups: vec![7, 8] },
        "echo $(id -u) $(id -g) $(id -G) $HOME",
        "5 6 6 7 8 /",
    );
    // A named user may open the streams by name, as they are pipes of ours.
    check_script(
        |spec| spec.process.user = UserSpec::Names("anna".to_owned()),
        "echo written > /dev/stdout",
        "written",
    );
}

fn root_the_first_process_has_its_environment() {
    check_script(
        |spec| {
            spec.process.env = vec!["PATH=/bin".to_owned(), "COLOUR=red".to_owned(), "HOME=/tmp".to_owned()];
            spec.process.cwd = "/work/deep/er".to_owned();
            spec.hostname = "box".to_owned();
            spec.domainname = "example".to_owned();
        },
        "echo $$ $COLOUR $HOME $(pwd) $(hostname) $(cat /proc/sys/kernel/domainname) $(umask)",
        "1 red /tmp /work/deep/er box example 0022",
    );
    check_script(|_| {}, "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2 | sort -u", "0000000000000000");
    check_script(|_| {}, "ps -o pid,comm | wc -l", "4");
    check_script(|spec| spec.namespaces.network = Network::New, "ip -o link | grep -c 'lo:.*UP'", "1");
}

fn root_a_terminal_is_the_controlling_one() {
    let scratch = Scratch::new();
    let mut spec = scratch
        .script("tty; test -c /dev/console && echo console; read word; echo got $word; echo x > /dev/tty");
    spec.process.terminal = true;
    spec.process.user = UserSpec::Names("anna".to_owned());
    let mut created = mica_runtime::spawn(&spec, Stdio::default()).unwrap();
    let mut terminal = std::fs::File::from(created.terminal.take().unwrap());
    let mut running = created.start().unwrap();
    terminal.write_all(b"word\n").unwrap();
    let mut output = Vec::new();
    let mut buffer = [0; 512];
    // The end of a terminal is an error (EIO) to its reader.
    while let Ok(length) = terminal.read(&mut buffer) {
        output.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(running.wait().unwrap().code(), 0);
    let output = String::from_utf8(output).unwrap();
    for expected in ["/dev/pts/0\r\n", "console\r\n", "got word\r\n", "x\r\n"] {
        assert!(output.contains(expected), "{output:?} has no {expected:?}");
    }
}

fn root_init_reaps_and_forwards() {
    check_script(
        |spec| spec.init = true,
        "test $$ != 1 && (sleep 0.01 &) ; ps -o pid,comm | grep -c mica-init",
        "1",
    );
    let scratch = Scratch::new();
    let mut spec = scratch.script("trap 'exit 9' TERM; echo ready; while true; do sleep 0.02; done");
    spec.init = true;
    let (stdio, out, _err) = piped();
    let mut running = mica_runtime::spawn(&spec, stdio).unwrap().start().unwrap();
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).unwrap();
    running.kill(libc::SIGTERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), 9);
    let mut spec = scratch.spec(&["nonsense"]);
    spec.init = true;
    assert_eq!(try_run(&spec).map(|_| ()).unwrap_err().exit_code(), 127);
    let mut spec = scratch.script("kill -KILL $$");
    spec.init = true;
    assert_eq!(run(&spec).status.code(), 137);
}

fn root_signals_are_sent() {
    let scratch = Scratch::new();
    let (stdio, _out, _err) = piped();
    let mut running = mica_runtime::spawn(&scratch.spec(&["sleep", "60"]), stdio).unwrap().start().unwrap();
    running.kill(libc::SIGKILL).unwrap();
    assert_eq!(running.wait().unwrap().code(), 137);
    assert_eq!(running.wait().unwrap().code(), 137, "a second wait");
    running.kill(libc::SIGKILL).unwrap();
}

fn root_exec_joins_a_container() {
    let scratch = Scratch::new();
    let mut spec = scratch.script("echo mark > /tmp/mark; echo ready; sleep 60");
    spec.hostname = "joined".to_owned();
    let (stdio, out, _err) = piped();
    let mut running = mica_runtime::spawn(&spec, stdio).unwrap().start().unwrap();
    BufReader::new(out).read_line(&mut String::new()).unwrap();
    let script = "echo $(hostname) $(cat /tmp/mark) $(grep CapEff /proc/self/status | cut -c9-); exit 5";
    let mut process = ProcessSpec::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
    process.user = UserSpec::Names("anna".to_owned());
    let (stdio, out, err) = piped();
    let created = mica_runtime::exec_in(running.pid(), &process, false, stdio).unwrap();
    let outcome = finish(created, out, err).unwrap();
    assert_eq!(
        (outcome.stdout.trim_end(), outcome.status.code()),
        ("joined mark 0000000000000000", 5),
        "{outcome:?}"
    );
    process.argv = vec!["tty".to_owned()];
    process.terminal = true;
    let mut created = mica_runtime::exec_in(running.pid(), &process, false, Stdio::default()).unwrap();
    let mut terminal = std::fs::File::from(created.terminal.take().unwrap());
    let mut joined = created.start().unwrap();
    let mut buffer = [0; 64];
    let length = terminal.read(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..length]), "/dev/pts/0\r\n");
    assert_eq!(joined.wait().unwrap().code(), 0);
    process.argv = vec!["nonsense".to_owned()];
    let error = mica_runtime::exec_in(running.pid(), &process, false, Stdio::default()).unwrap_err();
    assert_eq!(error.exit_code(), 127);
    running.kill(libc::SIGKILL).unwrap();
    running.wait().unwrap();
}

fn root_a_killed_parent_leaves_nothing() {
    for _ in 0..8 {
        let scratch = Scratch::new();
        let mut parent = Command::new("/proc/self/exe")
            .arg("spawn-and-wait")
            .arg(scratch.directory.path())
            .stdout(ProcessStdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let process = format!("/proc/{}", line.trim());
        assert!(std::fs::metadata(&process).is_ok(), "{process}");
        parent.kill().unwrap();
        parent.wait().unwrap();
        let begin = Instant::now();
        while std::fs::metadata(&process).is_ok() {
            assert!(begin.elapsed() < Duration::from_secs(5), "{process} still lives");
            std::thread::sleep(Duration::from_millis(2));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(scratch.directory.path().to_str().unwrap()));
    }
}

fn root_a_killed_helper_takes_the_container_along() {
    for user in ["root", "anna"] {
        let scratch = Scratch::new();
        let (stdio, _out, _err) = piped();
        let mut spec = scratch.spec(&["sleep", "60"]);
        spec.process.user = UserSpec::Names(user.to_owned());
        let mut running = mica_runtime::spawn(&spec, stdio).unwrap().start().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
        let helper = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(helper).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        // Without a wait, which would kill it.
        let begin = Instant::now();
        while std::fs::metadata(format!("/proc/{}/root/bin", running.pid())).is_ok() {
            assert!(begin.elapsed() < Duration::from_secs(5), "the container still lives");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(running.wait().unwrap().code(), 137);
    }
}

fn root_a_dropped_container_is_killed() {
    let scratch = Scratch::new();
    let null = || Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
    let created = mica_runtime::spawn(&scratch.spec(&["sleep", "60"]), null()).unwrap();
    let first = format!("/proc/{}", created.pid());
    drop(created);
    assert!(std::fs::metadata(first).is_err());
    let running = mica_runtime::spawn(&scratch.spec(&["sleep", "60"]), null()).unwrap().start().unwrap();
    let second = format!("/proc/{}", running.pid());
    drop(running);
    assert!(std::fs::metadata(second).is_err());
}

fn root_many_threads_spawn_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let scratch = Scratch::new();
                for turn in 0..50 {
                    let outcome = run(&scratch.script(&format!("echo {thread} {turn}; exit {turn}")));
                    assert_eq!(outcome.stdout, format!("{thread} {turn}\n"));
                    assert_eq!(outcome.status.code(), turn);
                }
            });
        }
    });
}

fn root_no_descriptor_leaks_into_the_container() {
    let mut all = CapabilitySet::DEFAULT;
    all = all.with(CapabilitySet::parse_name("SYS_PTRACE").unwrap());
    check_script(|spec| spec.process.capabilities = all, "ls /proc/1/fd; true", "0\n1\n2");
    let scratch = Scratch::new();
    for number in 3..12 {
        let mut spec = scratch.spec(&["true"]);
        spec.process.cwd = format!("/proc/self/fd/{number}");
        assert!(try_run(&spec).is_err(), "{number}");
    }
}
