use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use crate::support::{World, eventually};
use crate::world_or_skip;

/// A terminal with the program on it.
struct Terminal {
    outer: File,
    seen: String,
    child: Child,
}

impl Terminal {
    fn start(world: &World, arguments: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let outer = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&outer).unwrap();
        unlockpt(&outer).unwrap();
        let name = ptsname(&outer, Vec::new()).unwrap();
        let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let inner: OwnedFd = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        rustix::termios::tcsetwinsize(&inner, size).unwrap();
        let child = world
            .command(arguments)
            .stdin(Stdio::from(inner.try_clone().unwrap()))
            .stdout(Stdio::from(inner.try_clone().unwrap()))
            .stderr(Stdio::from(inner))
            .spawn()
            .unwrap();
        rustix::io::ioctl_fionbio(&outer, true).unwrap();
        Self { outer: outer.into(), seen: String::new(), child }
    }

    fn look(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(count) = self.outer.read(&mut bytes) {
            if count == 0 {
                break;
            }
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn expect(&mut self, text: &str) {
        let start = std::time::Instant::now();
        while !self.seen.contains(text) {
            assert!(start.elapsed().as_secs() < 10, "no `{text}` in {:?}", self.seen);
            std::thread::sleep(std::time::Duration::from_millis(10));
            self.look();
        }
    }

    fn send(&mut self, text: &str) {
        self.outer.write_all(text.as_bytes()).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("its end", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        self.look();
        code.and_then(|code| code.code())
    }
}

#[test]
fn root_a_shell_on_a_terminal() {
    let world = world_or_skip!();
    let mut terminal = Terminal::start(&world, &["run", "-it", "--rm", "--network=none", "box", "sh"]);
    terminal.expect("# ");
    terminal.send("echo $((40 + 2)) $TERM; stty size; tty\n");
    terminal.expect("42 xterm");
    terminal.expect("33 77");
    terminal.expect("/dev/pts/0");
    terminal.send("exit 6\n");
    assert_eq!(terminal.code(), Some(6));
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn root_a_shell_is_left_and_found_again() {
    let world = world_or_skip!();
    let mut terminal = Terminal::start(&world, &["run", "-it", "--name", "t", "--network=none", "box", "sh"]);
    terminal.expect("# ");
    terminal.send("\u{10}\u{11}");
    assert_eq!(terminal.code(), Some(0));
    assert_eq!(world.ok(&["ps", "--format", "{{.Names}}"]), "t");
    let mut terminal = Terminal::start(&world, &["exec", "-it", "t", "sh", "-c", "stty size; tty"]);
    terminal.expect("33 77");
    assert_eq!(terminal.code(), Some(0));
    let mut terminal = Terminal::start(&world, &["attach", "t"]);
    terminal.send("echo $((1 + 2))$((3 + 4))\n");
    terminal.expect("37");
    terminal.send("exit 2\n");
    assert_eq!(terminal.code(), Some(2));
    assert_eq!(world.ok(&["wait", "t"]), "2");
    assert!(world.ok(&["logs", "t"]).contains("37"));
}

#[test]
fn root_without_a_terminal_there_is_none_to_give() {
    let world = world_or_skip!();
    let (code, stderr) = world.fails(&["run", "--rm", "-it", "box"]);
    assert_eq!((code, stderr.as_str()), (1, "error: the input device is not a TTY"));
}
