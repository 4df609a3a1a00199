//! What `pull` draws on a terminal.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mica_testkit::images::TestImage;
use mica_testkit::{Fault, When};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{World, short};

/// How long a command may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a command on a terminal of this size. `watch` sees all that came so far, and may end the command with SIGINT by
/// answering `true`. Answers what came, and the exit code.
fn on_terminal(
    world: &World,
    words: &[&str],
    columns: u16,
    watch: impl Fn(&str) -> bool,
) -> (String, Option<i32>) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&outer).unwrap();
    unlockpt(&outer).unwrap();
    let name = ptsname(&outer, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let inner: OwnedFd = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&inner, size).unwrap();
    let mut child = mica_testkit::with_interrupt(&world.mica.command(words))
        .stdin(Stdio::null())
        .stdout(Stdio::from(inner.try_clone().unwrap()))
        .stderr(Stdio::from(inner))
        .spawn()
        .unwrap();
    rustix::io::ioctl_fionbio(&outer, true).unwrap();
    let mut outer: File = outer.into();
    let (mut seen, mut is_ended) = (String::new(), false);
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = child.try_wait().unwrap();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = outer.read(&mut bytes) {
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        if let Some(status) = status {
            return (seen, status.code());
        }
        if !is_ended && watch(&seen) {
            is_ended = true;
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{words:?} does not end: {seen:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a terminal shows in the end: `\r`, `\n`, cursor up and erasing are all that is used.
fn screen(written: &str) -> Vec<String> {
    let (mut lines, mut row, mut column): (Vec<Vec<char>>, usize, usize) = (vec![Vec::new()], 0, 0);
    let mut letters = written.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(letters.next(), Some('['));
                let mut number = String::new();
                let end = letters.by_ref().find(|letter| {
                    number.push(*letter);
                    !letter.is_ascii_digit()
                });
                number.pop();
                match end {
                    Some('A') => row -= number.parse::<usize>().unwrap(),
                    Some('K') => lines[row].clear(),
                    Some('J') => lines.truncate(row),
                    other => panic!("{other:?} in {written:?}"),
                }
            }
            letter => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = letter;
                column += 1;
            }
        }
        if lines.len() <= row {
            lines.resize(row + 1, Vec::new());
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
}

#[test]
fn layers_are_rows_that_are_drawn_over() {
    let world = World::new();
    let image = TestImage::random(&[3_000_000, 2_000_000], 1);
    image.put(&world.hub, "library/node", "latest");
    world.hub.fault(When::get("/blobs/"), Fault::Slow(200_000, Duration::from_millis(30)));
    let (written, code) = on_terminal(&world, &["pull", "node"], 80, |_| false);
    assert_eq!(code, Some(0), "{written}");
    let [first, second] = [0, 1].map(|at| image.layers[at].digest());
    let (first, second) = (short(&first), short(&second));
    assert!(written.contains(&format!("{first}: Downloading [")), "{written:?}");
    assert!(written.contains("MB/3."), "{written:?}");
    // Nothing is wider than the terminal.
    let rows = written.split(['\n', '\r']).filter_map(|line| line.strip_prefix("\x1b[2K"));
    let longest = rows.map(|row| row.chars().count()).max();
    assert!(longest <= Some(80), "{longest:?} {written:?}");
    // The cursor is never hidden.
    assert!(!written.contains("\x1b[?25l"), "{written:?}");
    assert_eq!(
        screen(&written),
        [
            "Using default tag: latest".to_owned(),
            "latest: Pulling from library/node".to_owned(),
            format!("{first}: Pull complete"),
            format!("{second}: Pull complete"),
            format!("Digest: {}", image.digest()),
            "Status: Downloaded newer image for node:latest".to_owned(),
            "docker.io/library/node:latest".to_owned(),
            String::new(),
        ]
    );
}

#[test]
fn an_interrupt_ends_a_pull_and_what_has_come_is_kept() {
    let world = World::new();
    let image = TestImage::random(&[4_000_000], 2);
    image.put(&world.hub, "library/node", "latest");
    world.hub.fault(When::get("/blobs/"), Fault::Slow(100_000, Duration::from_millis(30)));
    // Of a bar of 13 letters.
    let is_far = |seen: &str| seen.contains("Downloading [========");
    let (written, code) = on_terminal(&world, &["pull", "node"], 60, is_far);
    // The default of the signal: no code of its own.
    assert_eq!(code, None, "{written:?}");
    assert!(written.trim_end_matches("\x1b[J").ends_with("\n"), "{written:?}");
    assert_eq!(world.stdout(&["images", "-q"]), "");
    world.hub.clear_faults();
    world.hub.clear_requests();
    world.stdout(&["pull", "-q", "node"]);
    let blob = format!("/blobs/{}", image.layers[0].digest());
    let sent = world.hub.sent_bytes(&blob);
    assert!(sent < image.layers[0].blob.len() as u64 - 2_000_000, "{sent} bytes came again");
}

#[test]
fn a_build_shows_its_bases_on_their_way() {
    let world = World::new();
    let image = TestImage::random(&[3_000_000, 2_000_000], 3);
    image.put(&world.hub, "library/base", "latest");
    world.hub.fault(When::get("/blobs/"), Fault::Slow(200_000, Duration::from_millis(30)));
    let context = mica_testkit::Mica::temporary_dir();
    std::fs::write(context.path().join("Dockerfile"), "FROM base\nENV A=b\n").unwrap();
    let path = context.path().to_string_lossy().into_owned();
    // An interrupt while a base comes ends the build at once: nothing runs yet.
    let (written, code) = on_terminal(&world, &["build", &path], 80, |seen| seen.contains("MB / "));
    assert_eq!(code, Some(130), "{written}");
    assert_eq!(world.stdout(&["images", "-q"]), "", "the base was waited for");
    assert!(written.contains(" => FROM docker.io/library/base:latest (0/2 layers) "), "{written}");
    let layer = image.layers[0].digest();
    assert!(written.contains(&format!(" => => {} ", &layer[..19])), "{written}");
    let (written, code) = on_terminal(&world, &["build", "-t", "app", &path], 80, |_| false);
    assert_eq!(code, Some(0), "{written}");
    let shown = screen(&written).join("\n");
    assert!(shown.contains("FINISHED"), "{shown}");
    assert!(shown.contains(" => FROM docker.io/library/base:latest: 2 layers in "), "{shown}");
    assert!(!shown.contains(" => => sha256:"), "{shown}");
}
