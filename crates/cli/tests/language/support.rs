//! A store with `busybox` in it, and builds of files that a test writes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mica_testkit::{Mica, Need, Node, Outcome, SavedImage, bases, missing};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A store and a build context.
pub struct Bench {
    pub mica: Mica,
    context: tempfile::TempDir,
}

impl Bench {
    /// With the image `busybox`.
    pub fn new() -> Option<Bench> {
        let bench = Bench::empty(&[Need::Root, Need::Tool("busybox")])?;
        let base = bases::busybox().expect("a base image");
        let path = "ENV PATH=/bin";
        bench.mica.ok(&["import", "-c", path, "-c", "CMD [\"sh\"]", &base.to_string_lossy(), "busybox"]);
        Some(bench)
    }

    /// With nothing.
    pub fn empty(needs: &[Need]) -> Option<Bench> {
        if let Some(reason) = missing(needs) {
            println!("skipped: {reason}");
            return None;
        }
        Some(Bench { mica: Mica::new(BINARY), context: Mica::temporary_dir() })
    }

    pub fn context(&self) -> &Path {
        self.context.path()
    }

    /// A file of the context, 0644.
    pub fn write(&self, path: &str, content: &str) -> PathBuf {
        self.write_as(path, content, 0o644)
    }

    pub fn write_as(&self, path: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    /// The arguments of a build of the context with that Dockerfile.
    fn arguments(&self, dockerfile: &str, flags: &[&str]) -> Vec<String> {
        // Beside the context, so that it cannot be copied.
        let file = self.mica.root().with_extension("Dockerfile");
        fs::write(&file, dockerfile).expect("a Dockerfile");
        let (file, context) = (file.to_string_lossy(), self.context().to_string_lossy());
        let mut arguments = vec!["build", "-f", &file, "-t", "result"];
        arguments.extend(flags);
        arguments.push(&context);
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// Builds; it must go well.
    #[track_caller]
    pub fn build(&self, dockerfile: &str, flags: &[&str]) -> Built {
        let outcome = self.mica.run(&self.arguments(dockerfile, flags));
        assert_eq!(outcome.code, 0, "{dockerfile}\n{}", outcome.stderr);
        Built { image: SavedImage::of(&self.mica, "result"), outcome }
    }

    /// Runs a build that makes no image.
    pub fn run(&self, dockerfile: &str, flags: &[&str]) -> Outcome {
        self.mica.run(&self.arguments(dockerfile, flags))
    }

    /// Builds; it must fail and say all of `expect`.
    #[track_caller]
    pub fn fails(&self, dockerfile: &str, expect: &[&str]) {
        let outcome = self.run(dockerfile, &[]);
        assert_eq!(outcome.code, 1, "{dockerfile}\n{}", outcome.stderr);
        for text in expect {
            assert!(outcome.stderr.contains(text), "does not say `{text}`:\n{}", outcome.stderr);
        }
    }
}

/// What came of a build.
pub struct Built {
    pub image: SavedImage,
    pub outcome: Outcome,
}

impl Built {
    /// What stands at a path of the image.
    #[track_caller]
    pub fn node(&self, path: &str) -> &Node {
        let found = self.image.tree.get(path.trim_start_matches('/'));
        found.unwrap_or_else(|| panic!("no `{path}`:\n{}\n{:?}", self.outcome.stderr, self.image.tree.keys()))
    }

    /// Whether something stands at a path of the image.
    pub fn has(&self, path: &str) -> bool {
        self.image.tree.contains_key(path.trim_start_matches('/'))
    }

    /// `mode uid:gid` at a path of the image, or the mode alone where the owner is root.
    #[track_caller]
    pub fn shape(&self, path: &str) -> String {
        let node = self.node(path);
        match (node.uid, node.gid) {
            (0, 0) => format!("{:o}", node.mode & 0o7777),
            (uid, gid) => format!("{:o} {uid}:{gid}", node.mode & 0o7777),
        }
    }

    /// What the config says under a key of `config`.
    pub fn config(&self, key: &str) -> serde_json::Value {
        self.image.config["config"][key].clone()
    }
}
