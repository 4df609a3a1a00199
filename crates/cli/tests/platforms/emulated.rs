//! RUN for another CPU: through an emulator where one is registered, else an error that tells how to register one.

use mica_testkit::emulation::{AARCH64, qemu_arm64};
use mica_testkit::images::this_platform;
use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{
    Emulation, FakeRegistry, Mica, Need, Outcome, TestImage, TestIndex, TestLayer, bases, missing,
    run_bounded,
};

use crate::{BINARY, DEADLINE, Project, shown};

/// A registry with a busybox for this machine and for 64-bit ARM behind one tag. `None` when that is not to be had, and
/// the reason is told.
fn registry() -> Option<(FakeRegistry, String)> {
    let base = || {
        if let Some(reason) = missing(&[Need::Root]) {
            return Err(reason);
        }
        if this_platform() != "linux/amd64" {
            return Err("the programs of another CPU are those of arm64".to_owned());
        }
        let image = |platform: &str, base: std::path::PathBuf| {
            let tar = std::fs::read(base).expect("a base");
            TestImage::oci(platform, vec![TestLayer::gzip(&tar)])
        };
        let (own, arm) = (bases::busybox()?, bases::busybox_arm64()?);
        Ok(TestIndex::oci(vec![image("linux/amd64", own), image("linux/arm64", arm)]))
    };
    match base() {
        Ok(index) => {
            let registry = FakeRegistry::new();
            index.put(&registry, "test/box", "1");
            let name = format!("{}/test/box:1", registry.host());
            Some((registry, name))
        }
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

fn emulation(made: Result<Emulation, String>) -> Option<Emulation> {
    made.map_err(|reason| println!("skipped: {reason}")).ok()
}

/// Builds where the kernel's list can be seen.
fn build_inside(emulation: &Emulation, mica: &Mica, project: &Project, flags: &[&str]) -> Outcome {
    let path = project.path().to_string_lossy();
    let command = mica.command(&[&["build", "--progress=plain"], flags, &[&path]].concat());
    run_bounded(emulation.inside(&command), DEADLINE)
}

/// The whole hint, and the line underlined.
#[track_caller]
fn check_not_emulated(outcome: &Outcome, platform: &str, instruction: &str) {
    assert_eq!(outcome.code, 1, "{outcome}");
    let architecture = platform.split('/').nth(1).unwrap_or_default();
    for part in [
        &format!("error: programs for {platform} do not run on this machine"),
        &format!(" | {instruction}\n   | ^^^^"),
        "hint: ",
        "`apt-get install qemu-user-static binfmt-support` (Debian, Ubuntu)",
        "`dnf install qemu-user-static` (Fedora)",
        &format!("`mica run --privileged --rm tonistiigi/binfmt --install {architecture}`"),
        "`FROM --platform=$BUILDPLATFORM`",
    ] {
        assert!(outcome.stderr.contains(part), "no `{part}`: {outcome}");
    }
}

#[test]
fn a_foreign_run_goes_through_the_emulator() {
    let Some((registry, base)) = registry() else { return };
    let Some(arm) = emulation(Emulation::of_arm64("PF")) else { return };
    let mica = Mica::new(BINARY);
    let project = Project::new(&format!(
        "FROM {base}\nCOPY f /f\nRUN uname -m > /arch && cat /arch && echo $(ls /bin | wc -l) programs\n"
    ));
    project.write("f", b"1");
    let flags = ["--platform=linux/amd64,linux/arm64", "-t", "x"];
    let said = build_inside(&arm, &mica, &project, &flags);
    assert_eq!(said.code, 0, "{said}");
    for line in [" x86_64\n", " aarch64\n", "[linux/amd64 3/3] RUN uname", "[linux/arm64 3/3] RUN uname"] {
        assert!(said.stderr.contains(line), "no `{line}`: {said}");
    }
    // One name, one index: it is asked for once for each platform, its blobs once.
    assert_eq!(registry.count("GET", "/manifests/1"), 2, "{:?}", registry.requests());
    for (platform, expect) in [("linux/amd64", "x86_64\n"), ("linux/arm64", "aarch64\n")] {
        let run = mica.command(&["run", "--rm", "--platform", platform, "x", "cat", "/arch"]);
        assert_eq!(run_bounded(arm.inside(&run), DEADLINE).stdout, expect);
    }
    // What an emulated program uses is traced: a file that it did not look at may change.
    project.write("f", b"2");
    let said = build_inside(&arm, &mica, &project, &flags);
    assert_eq!(said.stderr.matches("CACHED (nothing it used changed)").count(), 2, "{said}");
    // The emulator works as well where the kernel's list cannot be seen.
    let said = project.ok(&mica, &["--no-cache", "--platform=linux/arm64", "-t", "x"]);
    assert!(said.stderr.contains(" aarch64\n"), "{said}");
    mica.check_nothing_left();
}

#[test]
fn an_emulator_that_was_not_opened_must_be_in_the_image() {
    let Some((_registry, base)) = registry() else { return };
    let Some(arm) = emulation(Emulation::of_arm64("P")) else { return };
    if arm.has("aarch64") {
        return println!("skipped: an emulator of arm64 is registered here");
    }
    let mica = Mica::new(BINARY);
    let run = "RUN echo it is $(uname -m)";
    let project = Project::new(&format!("FROM {base}\n{run}\n"));
    let said = build_inside(&arm, &mica, &project, &["--platform=linux/arm64"]);
    check_not_emulated(&said, "linux/arm64", run);
    let qemu = qemu_arm64().expect("it is registered");
    assert!(said.stderr.contains(&format!("`{}`, which is not in the image", qemu.display())), "{said}");

    project.write("qemu", &std::fs::read(&qemu).expect("the emulator"));
    project.write(
        "Dockerfile",
        format!("FROM {base}\nCOPY --chmod=755 qemu {}\n{run}\n", qemu.display()).as_bytes(),
    );
    let said = build_inside(&arm, &mica, &project, &["--platform=linux/arm64"]);
    assert!(said.code == 0 && said.stderr.contains("it is aarch64"), "{said}");
}

#[test]
fn without_an_emulator_the_run_is_underlined() {
    let Some((registry, base)) = registry() else { return };
    let Some(list) = emulation(Emulation::list()) else { return };
    if list.has("s390x") {
        return println!("skipped: an emulator of s390x is registered here");
    }
    let mica = Mica::new(BINARY);
    // The base is of another CPU than it says, and the shell of neither.
    let program = b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16\0\0\0\x01";
    let project = Project::new(&format!(
        "FROM --platform=$BUILDPLATFORM {base} AS native\nRUN echo native work\n\
         FROM scratch AS files\nCOPY --chmod=755 sh /bin/sh\nWORKDIR /w\nENV A=1\nCOPY --from=native /etc/passwd /\n\
         FROM files\nRUN make everything\n"
    ));
    let shell = [&program[..], &[0; 64]].concat();
    project.write("sh", &shell);
    let flags = ["--platform=linux/amd64,linux/s390x", "-t", "x"];
    // Only files: nothing of another CPU runs.
    let files =
        build_inside(&list, &mica, &project, &["--platform=linux/s390x", "--target=files", "-t", "files"]);
    assert_eq!(files.code, 0, "{files}");
    assert_eq!(shown(&mica, &["files"], "{{.Architecture}}"), "s390x");
    let said = build_inside(&list, &mica, &project, &flags);
    check_not_emulated(&said, "linux/s390x", "RUN make everything");
    mica.fails(&["image", "inspect", "x"], 1);
    // Where the list cannot be seen, the kernel's own answer tells the same.
    let said = project.build(&mica, &["--platform=linux/s390x", "-t", "x"]);
    check_not_emulated(&said, "linux/s390x", "RUN make everything");
    mica.fails(&["image", "inspect", "x"], 1);
    // Known before anything ran, it is told before the work of others.
    let mut tar = Writer::default();
    tar.add(Entry { mode: 0o755, ..Entry::file("bin/sh") }, &shell);
    TestImage::oci("linux/s390x", vec![TestLayer::gzip(&tar.finish())]).put(&registry, "test/foreign", "1");
    let foreign = format!("{}/test/foreign:1", registry.host());
    let native = format!("FROM --platform=$BUILDPLATFORM {base} AS native\nRUN echo long work > /x\n");
    let dockerfile = format!("{native}FROM {foreign}\nRUN make everything\nCOPY --from=native /x /\n");
    project.write("Dockerfile", dockerfile.as_bytes());
    let said = build_inside(&list, &mica, &project, &["--platform=linux/s390x"]);
    check_not_emulated(&said, "linux/s390x", "RUN make everything");
    assert!(!said.stderr.contains("RUN echo long work"), "{said}");
    let said = mica.run(&["run", "--rm", "--platform=linux/s390x", "files", "/bin/sh", "-c", "true"]);
    assert_eq!(said.code, 126, "{said}");
    assert!(said.stderr.contains("exec format error") && said.stderr.contains("hint: "), "{said}");
    assert!(said.stderr.contains("tonistiigi/binfmt --install"), "{said}");
    mica.check_nothing_left();
}

/// A stage for another CPU may hold programs of this one, as a cross-compiler's toolbox does.
#[test]
fn a_native_program_in_a_foreign_stage_runs() {
    let Some((_registry, _)) = registry() else { return };
    let Some(list) = emulation(Emulation::list()) else { return };
    let mica = Mica::new(BINARY);
    let project =
        Project::new("FROM scratch\nADD box.tar /\nRUN echo it runs\nRUN [\"busybox\", \"true\"]\n");
    project.write("box.tar", &std::fs::read(bases::busybox().expect("it was there")).expect("a base"));
    let said = build_inside(&list, &mica, &project, &["--platform=linux/s390x"]);
    assert!(said.code == 0 && said.stderr.contains("it runs"), "{said}");
}

/// What the hint tells people to do: a privileged container registers an emulator that it holds.
#[test]
fn a_privileged_container_registers_an_emulator() {
    let Some((_registry, base)) = registry() else { return };
    let Some(list) = emulation(Emulation::list()) else { return };
    let qemu = match qemu_arm64() {
        Ok(qemu) => qemu,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let mica = Mica::new(BINARY);
    let name = format!("mica-test-container-{}", std::process::id());
    let place = "/proc/sys/fs/binfmt_misc";
    let register = format!(
        "mount -t binfmt_misc binfmt_misc {place} && printf %s ':{name}:M::{AARCH64}:/qemu:PF' > {place}/register && \
         cat {place}/{name}"
    );
    let volume = format!("{}:/qemu", qemu.display());
    let run = |script: &str| {
        let arguments = ["run", "--rm", "--privileged", "-v", &volume, &base, "sh", "-c", script];
        run_bounded(list.inside(&mica.command(&arguments)), DEADLINE)
    };
    let said = run(&register);
    assert!(said.stdout.contains("interpreter /qemu\nflags: PF\n"), "{said}");
    let project = Project::new(&format!("FROM {base}\nRUN echo it is $(uname -m)\n"));
    let built = build_inside(&list, &mica, &project, &["--platform=linux/arm64"]);
    let taken_back = run(&format!("mount -t binfmt_misc binfmt_misc {place} && echo -1 > {place}/{name}"));
    assert!(built.code == 0 && built.stderr.contains("it is aarch64"), "{built}");
    assert_eq!(taken_back.code, 0, "{taken_back}");
}
