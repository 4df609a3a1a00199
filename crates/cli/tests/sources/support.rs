//! A store, a web server, and repositories that are made in the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mica_testkit::{Mica, Outcome, SavedImage, Web, run_bounded};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
const DEADLINE: Duration = Duration::from_secs(300);
/// When commits of tests are made.
pub const COMMIT_TIME: i64 = 1_700_000_000;

pub struct Bench {
    pub mica: Mica,
    pub dir: tempfile::TempDir,
    pub web: Web,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = Mica::temporary_dir();
        fs::create_dir(dir.path().join("git")).expect("a directory");
        Bench { mica: Mica::new(BINARY), dir, web: Web::start() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, bytes).expect("a file");
    }

    /// Runs `mica build` in the directory of the test.
    pub fn build(&self, arguments: &[&str], stdin: &[u8]) -> Outcome {
        let input = self.path(".stdin");
        fs::write(&input, stdin).expect("standard input");
        let mut command = self.mica.command(&[&["build"], arguments].concat());
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::from(fs::File::open(&input).expect("standard input")));
        run_bounded(command, DEADLINE)
    }

    /// Builds and answers what the image holds.
    #[track_caller]
    pub fn image(&self, arguments: &[&str], stdin: &[u8]) -> SavedImage {
        let outcome = self.build(&[&["-t", "made"], arguments].concat(), stdin);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        SavedImage::of(&self.mica, "made")
    }

    /// Paths, modes and lengths of what is built: `d 755 a`, `f 644 a/b 3`, `l a/c -> b`.
    #[track_caller]
    pub fn tree(&self, arguments: &[&str], stdin: &[u8]) -> String {
        listing(&self.image(arguments, stdin))
    }

    /// Builds what must fail, and says why. Nothing gets the name.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], stdin: &[u8], expect: &str) -> String {
        let outcome = self.build(&[&["-t", "never"], arguments].concat(), stdin);
        assert_eq!(outcome.code, 1, "{} {}", outcome.stdout, outcome.stderr);
        assert!(outcome.stderr.contains(expect), "expected {expect}\nfound {}", outcome.stderr);
        let images = self.mica.ok(&["images", "--format", "{{.Repository}}"]).stdout;
        assert!(!images.lines().any(|name| name == "never"), "{images}");
        let left: Vec<_> = fs::read_dir(self.mica.root().join("ingest")).expect("ingest").collect();
        assert!(left.is_empty(), "{left:?}");
        outcome.stderr
    }

    /// A repository `git/NAME.git`, served below `/git/`.
    pub fn repository(&self, name: &str) -> Repository<'_> {
        let work = self.path(&format!("work-{name}"));
        fs::create_dir(&work).expect("a directory");
        let repository = Repository { bench: self, name: name.to_owned(), work };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }
}

/// A repository of a test, with its working directory.
pub struct Repository<'a> {
    bench: &'a Bench,
    name: String,
    pub work: PathBuf,
}

impl Repository<'_> {
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.work, arguments)
    }

    pub fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.work.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("a file");
        self
    }

    /// Commits all there is and puts it where it is served; the commit's name.
    #[track_caller]
    pub fn publish(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "a commit"]);
        let bare = self.bench.path(&format!("git/{}.git", self.name));
        let _ = fs::remove_dir_all(&bare);
        git(
            self.bench.dir.path(),
            &["clone", "-q", "--bare", &self.work.to_string_lossy(), &bare.to_string_lossy()],
        );
        self.bench.web.serve_git(&self.bench.path("git"), None);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.bench.web.url(&format!("/git/{}.git", self.name))
    }
}

#[track_caller]
fn git(directory: &Path, arguments: &[&str]) -> String {
    let date = format!("{COMMIT_TIME} +0000");
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_DATE", &date)
        .env("GIT_COMMITTER_DATE", &date)
        .output()
        .expect("git");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn listing(image: &SavedImage) -> String {
    use mica_testkit::Kind;
    let line = |(path, node): (&String, &mica_testkit::Node)| match node.kind {
        Kind::Dir => format!("d {:o} {path}\n", node.mode),
        Kind::File => format!("f {:o} {path} {}\n", node.mode, node.size),
        _ => format!("l {path} -> {}\n", node.link),
    };
    image.tree.iter().filter(|(path, _)| !path.is_empty()).map(line).collect()
}

/// The times of files, by path, of the layers of an image.
pub fn times(bench: &Bench, name: &str) -> Vec<(String, i64)> {
    let archive = bench.path("times.tar");
    bench.mica.ok(&["save", "-o", &archive.to_string_lossy(), name]);
    let mut found = Vec::new();
    let mut layers = Vec::new();
    mica_testkit::tar::read(fs::File::open(&archive).expect("an archive"), |entry, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        if entry.kind == b'0' && bytes.get(257..262) == Some(b"ustar") {
            layers.push(bytes);
        }
        Ok(())
    })
    .expect("an archive");
    for layer in layers {
        mica_testkit::tar::read(&layer[..], |entry, _| {
            found.push((entry.path.trim_end_matches('/').to_owned(), entry.mtime));
            Ok(())
        })
        .expect("a layer");
    }
    found
}
