use std::process::{Command, Stdio};

use crate::support::{MICA, World, eventually, text};
use crate::world_or_skip;

fn start(world: &World, name: &str, arguments: &[&str]) -> String {
    let mut all = vec!["run", "-d", "--network=none", "--name", name];
    all.extend(arguments);
    world.ok(&all)
}

#[test]
fn root_a_container_lives_in_the_background() {
    let world = world_or_skip!();
    let id = start(&world, "web", &["box", "sh", "-c", "echo hello; echo err >&2; sleep 60"]);
    assert_eq!(id.len(), 64);
    for words in [&["ps"][..], &["container", "ls"], &["container", "list"], &["container", "ps"]] {
        assert_eq!(world.ok(&[words, &["-q", "--no-trunc"]].concat()), id, "{words:?}");
    }
    let branches = "{{if eq .State \"running\"}}up{{else}}down{{end}} {{.Label \"none\"}}{{upper .Names}}";
    assert_eq!(world.ok(&["ps", "--format", branches]), "up WEB");
    let row = world.ok(&["ps", "--format", "{{.ID}} {{.Image}} {{.Names}} {{.State}} {{.Command}}"]);
    assert_eq!(row, format!("{} box web running \"sh -c echo hello; e…\"", &id[..12]));
    let table = world.ok(&["ps"]);
    let header: Vec<&str> =
        table.lines().next().unwrap().split("   ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(header, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    eventually("its output", || world.ok(&["logs", "web"]) == "hello");
    assert_eq!(text(&world.mica(&["logs", "web"]).stderr), "err");
    assert_eq!(world.ok(&["logs", "-n", "0", "web"]), "");
    assert!(world.ok(&["logs", "-t", "web"]).ends_with("Z hello"));
    assert_eq!(world.ok(&["logs", "--since", "10m", "web"]), "hello");
    assert_eq!(world.ok(&["logs", "--until", "10m", "web"]), "");

    let (code, stderr) = world.fails(&["run", "--name", "web", "box"]);
    assert_eq!(code, 125);
    assert!(
        stderr.contains(&format!("the container name \"/web\" is already in use by container \"{id}\"")),
        "{stderr}"
    );

    assert_eq!(world.ok(&["exec", "web", "echo", "-n", "inside"]), "inside");
    assert_eq!(
        world.ok(&[
            "exec",
            "-e",
            "X=1",
            "-w",
            "/tmp",
            "-u",
            "anna",
            "web",
            "sh",
            "-c",
            "echo $X $PWD $(id -u)"
        ]),
        "1 /tmp 1000"
    );
    assert_eq!(world.mica(&["exec", "web", "sh", "-c", "exit 4"]).status.code(), Some(4));
    assert_eq!(world.mica(&["exec", "web", "nope"]).status.code(), Some(127));

    let (code, stderr) = world.fails(&["rm", "web"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is running"), "{stderr}");
    assert_eq!(world.ok(&["stop", "-t", "0", "web"]), "web");
    assert_eq!(world.ok(&["ps", "-q"]), "");
    assert!(world.ok(&["ps", "-a", "--format", "{{.Status}}"]).starts_with("Exited (137) "));
    assert_eq!(world.ok(&["start", "web"]), "web");
    assert_eq!(world.ok(&["rm", "-f", "web"]), "web");
    assert_eq!(world.left(), Vec::<String>::new());
    let (code, stderr) = world.fails(&["rm", "web"]);
    assert_eq!(
        (code, stderr.as_str()),
        (1, "error: No such container: web\nhint: `mica ps -a` lists all containers")
    );
}

#[test]
fn root_what_cannot_start_is_told() {
    let world = world_or_skip!();
    let (code, stderr) = world.fails(&["run", "-d", "--rm", "--network=none", "box", "nope"]);
    assert_eq!(code, 127);
    assert!(stderr.contains("\"nope\": executable file not found in $PATH"), "{stderr}");
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn root_stop_asks_before_it_kills() {
    let world = world_or_skip!();
    start(&world, "s", &["box", "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"]);
    eventually("a ready program", || world.ok(&["logs", "s"]) == "up");
    world.ok(&["stop", "s"]);
    assert_eq!(world.ok(&["wait", "s"]), "7");
    start(
        &world,
        "k",
        &[
            "--stop-signal",
            "USR1",
            "box",
            "sh",
            "-c",
            "trap 'exit 8' USR1; echo up; while :; do sleep 0.01; done",
        ],
    );
    eventually("a ready program", || world.ok(&["logs", "k"]) == "up");
    world.ok(&["stop", "k"]);
    assert_eq!(world.ok(&["wait", "k"]), "8");
    assert_eq!(world.fails(&["kill", "k"]).0, 1);
}

#[test]
fn root_wait_knows_the_code_of_what_is_removed() {
    let world = world_or_skip!();
    start(&world, "w", &["--rm", "-i", "box", "sh", "-c", "sleep 0.3; exit 9"]);
    assert_eq!(world.ok(&["wait", "w"]), "9");
    eventually("its removal", || world.left().is_empty());
}

#[test]
fn root_logs_are_followed_to_the_end() {
    let world = world_or_skip!();
    start(&world, "l", &["box", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done"]);
    assert_eq!(world.ok(&["logs", "-f", "l"]), "1\n2\n3");
    assert_eq!(world.ok(&["logs", "--tail", "2", "l"]), "2\n3");
}

#[test]
fn root_changes_last_from_start_to_start() {
    let world = world_or_skip!();
    let id =
        world.ok(&["create", "--name", "c", "--network=none", "box", "sh", "-c", "echo x >> /f; wc -l < /f"]);
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Status}}"]), "Created");
    assert_eq!(world.ok(&["start", "-a", "c"]), "1");
    assert_eq!(world.ok(&["start", "-a", &id[..8]]), "2");
    assert_eq!(world.ok(&["container", "prune", "-f"]).lines().nth(1), Some(id.as_str()));
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn root_a_killed_monitor_takes_its_container_along() {
    let world = world_or_skip!();
    start(&world, "m", &["box", "sleep", "60"]);
    start(&world, "r", &["--rm", "box", "sleep", "60"]);
    for name in ["m", "r"] {
        let pid = world.pid(name);
        // The first process is the helper's child, the helper the monitor's.
        let monitor = parent(parent(pid));
        assert!(
            std::fs::read_to_string(format!("/proc/{monitor}/cmdline")).unwrap().contains("mica-monitor")
        );
        let monitor = rustix::process::Pid::from_raw(monitor).unwrap();
        rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
        eventually("its end", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
    assert_eq!(
        world.ok(&["ps", "-a", "-f", "name=m", "--format", "{{.State}} {{.Status}}"]),
        "exited Exited (137)"
    );
    world.run(&["box", "true"]);
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}}"]), "m");
    assert_eq!(world.ok(&["start", "m"]), "m");
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn root_filters_choose() {
    let world = world_or_skip!();
    world.ok(&["create", "--name", "one", "-l", "a=1", "box"]);
    world.ok(&["create", "--name", "two", "-l", "a=2", "-l", "b", "box", "echo"]);
    let check = |filters: &[&str], expect: &str| {
        let mut all = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|filter| all.extend(["-f", filter]));
        assert_eq!(world.ok(&all), expect, "{filters:?}");
    };
    check(&[], "two\none");
    check(&["name=on"], "one");
    check(&["label=a"], "two\none");
    check(&["label=a=1"], "one");
    check(&["label=a", "label=b"], "two");
    check(&["status=exited"], "");
    check(&["status=created"], "two\none");
    check(&["ancestor=box"], "two\none");
    check(&["name=one", "name=two"], "two\none");
    assert_eq!(world.ok(&["ps", "-l", "--format", "{{.Label \"a\"}}"]), "2");
    assert_eq!(world.ok(&["ps", "-n", "1", "-q"]).lines().count(), 1);
    assert!(world.ok(&["ps", "-as"]).contains("0B (virtual 1MB)"));
    assert_eq!(world.fails(&["ps", "-f", "nope=1"]).0, 1);
    let json: serde_json::Value = serde_json::from_str(&world.ok(&["ps", "-l", "--format", "json"])).unwrap();
    assert_eq!(json["Names"], "two");
}

/// In a network namespace of the test's own, so that the host gets no bridge.
#[test]
fn root_published_ports_answer() {
    let world = world_or_skip!();
    let script = "set -e
        mount -t tmpfs none /run; ip link set lo up 2>/dev/null || busybox ip link set lo up
        $MICA run -d --name web -p 18080:80 box sh -c 'mkdir /www; echo served > /www/index.html; httpd -f -h /www' >/dev/null
        for try in 1 2 3 4 5 6 7 8 9 10; do
            answer=$(busybox wget -q -O - http://127.0.0.1:18080/ 2>/dev/null) && break; sleep 0.1
        done
        echo \"$answer\"
        $MICA ps --format '{{.Ports}}'
        $MICA run --rm -p 18080:80 box true 2>&1 || echo code $?
        $MICA run --rm box sh -c 'ip -4 -o address show eth0 | wc -l; grep -c $(hostname) /etc/hosts'
        $MICA inspect -f 'own {{.NetworkSettings.IPAddress}} {{json .NetworkSettings.Ports}}' web
        $MICA inspect -f 'asked {{json .HostConfig.PortBindings}}' web
        $MICA rm -f web >/dev/null
        $MICA container prune -f >/dev/null";
    let mica = format!("{MICA} --root {}", world.root().display());
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .env("MICA", mica)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = text(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"served"), "{output:?}");
    let own = lines.iter().find_map(|line| line.strip_prefix("own ")).unwrap_or_default();
    assert!(own.starts_with("10."), "{own}");
    assert!(own.contains(r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"18080"}"#), "{own}");
    assert!(stdout.contains(r#"asked {"80/tcp":[{"HostIp":"","HostPort":"18080"}]}"#), "{stdout}");
    assert!(lines.get(1).is_some_and(|line| line.contains("0.0.0.0:18080->80/tcp")), "{output:?}");
    assert!(
        lines.get(2).is_some_and(|line| line.contains("port is already allocated") && line.contains("18080")),
        "{output:?}"
    );
    assert_eq!(lines.get(3..6).map(|lines| lines.join(" ")), Some("code 125 1 1".to_owned()), "{output:?}");
}

#[test]
fn root_inspect_shows_a_container() {
    let world = world_or_skip!();
    let arguments =
        ["-l", "a.b=c", "--expose", "81", "-v", "data:/data", "-v", "/tmp:/t:ro", "box", "sleep", "60"];
    let id = start(&world, "web", &arguments);
    let value: serde_json::Value = serde_json::from_str(&world.ok(&["inspect", "web"])).unwrap();
    let value = &value[0];
    assert_eq!(value["Id"], id.as_str());
    assert_eq!(value["State"]["Pid"], world.pid("web"));
    let check = |template: &str, expect: &str| {
        for words in
            [&["inspect", "-f", template, "web"][..], &["container", "inspect", "-f", template, "web"]]
        {
            assert_eq!(world.ok(words), expect, "{words:?}");
        }
    };
    check("{{.Name}} {{.Path}} {{.Args}}", "/web sleep [60]");
    check("{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}", "running true 0");
    check("{{json .NetworkSettings.Ports}}", r#"{"81/tcp":null}"#);
    check("{{json .Config.ExposedPorts}} {{index .Config.Labels \"a.b\"}}", r#"{"81/tcp":{}} c"#);
    check("{{.Config.Image}} {{.Config.Hostname}}", &format!("box {}", &id[..12]));
    check("{{.HostConfig.NetworkMode}} {{.HostConfig.AutoRemove}}", "none false");
    check("{{json .HostConfig.Binds}}", r#"["data:/data","/tmp:/t:ro"]"#);
    check("{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}", "volume /data true;bind /t false;");
    check("{{.NetworkSettings.IPAddress}}", "");
    assert_eq!(value["State"]["FinishedAt"], "0001-01-01T00:00:00Z");

    let whole: serde_json::Value = serde_json::from_str(&world.ok(&["inspect", "-s", "/web"])).unwrap();
    assert!(whole[0]["SizeRootFs"].as_u64() >= Some(1_000_000), "{whole}");
    world.ok(&["kill", "web"]);
    eventually("its end", || world.ok(&["inspect", "-f", "{{.State.Status}}", "web"]) == "exited");
    check("{{.State.ExitCode}} {{.State.Pid}} {{json .NetworkSettings.Ports}}", "137 0 {}");

    assert_eq!(world.ok(&["inspect", "--type", "container", "-f", "{{.Id}}", &id[..5]]), id);
    for (words, expect) in [
        (&["inspect", "--type=image", "web"][..], "error: No such image: web\nhint: `mica images` lists"),
        (&["container", "inspect", "box"], "error: No such container: box\nhint: `mica ps -a` lists"),
    ] {
        let (code, stderr) = world.fails(words);
        assert!(code == 1 && stderr.starts_with(expect), "{words:?}: {stderr}");
    }
    let (_, stderr) = world.fails(&["rmi", "box"]);
    assert!(
        stderr.contains(&format!("\nhint: remove the container first with `mica rm {}`", &id[..12])),
        "{stderr}"
    );
    assert!(world.ok(&["inspect", "-f", "{{.Id}}", "box"]).starts_with("sha256:"));
}
