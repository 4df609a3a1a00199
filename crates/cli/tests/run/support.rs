//! A store with a busybox image, made by hand, and the built program on it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mica_oci::{DiffId, Digest, ImageConfig, ImageId};
use mica_store::{ImageCommit, ImageRecord, LayerRecord, Store};

pub const MICA: &str = env!("CARGO_BIN_EXE_mica");
const BUSYBOX: &str = "/bin/busybox";

/// A store of its own, with the image `box`. What still runs when it is dropped is removed.
pub struct World {
    pub directory: tempfile::TempDir,
}

/// Why no test of this program can run here.
pub fn reason_to_skip() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let bytes = fs::read(BUSYBOX).unwrap_or_default();
    // A dynamically linked program names its interpreter.
    if bytes.is_empty() || bytes.windows(8).take(4096).any(|window| window == b"/lib64/l") {
        return Some("needs a statically linked busybox in /bin");
    }
    None
}

/// Returns from a test that cannot run here.
#[macro_export]
macro_rules! world_or_skip {
    () => {
        match $crate::support::reason_to_skip() {
            Some(reason) => {
                println!("skipped: {reason}");
                return;
            }
            None => $crate::support::World::new(),
        }
    };
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = Self { directory };
        let store = Store::open(&world.root()).unwrap();
        let ingest = store.ingest().unwrap();
        make_files(&ingest.tree());
        fs::write(ingest.index(), b"").unwrap();
        let layer = DiffId::parse(&Digest::sha256(b"layer of busybox").to_string()).unwrap();
        let record = LayerRecord {
            diff_id: layer.clone(),
            chain_id: None,
            size_bytes: 0,
            tar_size_bytes: 1_000_000,
            origin: None,
        };
        store.commit_layer(ingest, &record).unwrap();
        world.add_image("box:latest", &[layer], |_| {});
        world
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Another image on the same layer.
    pub fn derive_image(&self, name: &str, change: impl Fn(&mut ImageConfig)) {
        let store = Store::open(&self.root()).unwrap();
        let layers: Vec<DiffId> = store.layers().unwrap().into_iter().map(|layer| layer.diff_id).collect();
        self.add_image(name, &layers, change);
    }

    fn add_image(&self, name: &str, layers: &[DiffId], change: impl Fn(&mut ImageConfig)) {
        let store = Store::open(&self.root()).unwrap();
        let mut config =
            ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
        config.rootfs.diff_ids = layers.to_vec();
        config.config.cmd = Some(vec!["sh".into()]);
        config.config.env = vec!["FROM_IMAGE=1".into()];
        change(&mut config);
        let bytes = config.to_canonical_json();
        let digest = store.put_blob(&bytes).unwrap();
        let manifest = store.put_blob(format!("manifest of {digest}").as_bytes()).unwrap();
        let image = ImageRecord {
            id: ImageId::parse(&digest.to_string()).unwrap(),
            manifest,
            layers: layers.to_vec(),
            parent: None,
            created: String::new(),
            size_bytes: 1_000_000,
            architecture: "amd64".into(),
            os: "linux".into(),
            variant: String::new(),
        };
        let name = mica_oci::Reference::parse(name).unwrap().with_default_tag().canonical();
        store.commit_image(&image, &ImageCommit { names: &[&name], ..ImageCommit::default() }).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(MICA);
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        mica_testkit::isolate(&mut command, &self.directory.path().join("settings"));
        command
    }

    pub fn mica(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed, without the last line end.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.mica(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text(&output.stdout)
    }

    /// `run --rm --network=none box` and this.
    pub fn run(&self, arguments: &[&str]) -> String {
        let mut all = vec!["run", "--rm", "--network=none"];
        all.extend(arguments);
        self.ok(&all)
    }

    /// Exit code and standard error.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.mica(arguments);
        (output.status.code().unwrap_or(-1), text(&output.stderr))
    }

    pub fn start_in_background(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Containers that are left, as directories and as rows.
    pub fn left(&self) -> Vec<String> {
        let directory = self.root().join("containers");
        let mut left: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        left.extend(self.ok(&["ps", "-aq"]).lines().map(str::to_owned));
        left
    }

    /// Pid of a container's first process.
    pub fn pid(&self, name: &str) -> i32 {
        let store = Store::open(&self.root()).unwrap();
        match store.container(name).unwrap().unwrap().record.state {
            mica_store::ContainerState::Running { pid, .. } => pid,
            state => panic!("{name} is {state:?}"),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let ids = text(&self.mica(&["ps", "-aq"]).stdout);
        for id in ids.lines() {
            self.mica(&["rm", "-f", "-v", id]);
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// Tries for some seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "never came to be: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn make_files(tree: &Path) {
    for name in ["bin", "etc", "tmp", "root", "data/sub"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(BUSYBOX, tree.join("bin/busybox")).unwrap();
    for name in [
        "sh", "true", "false", "cat", "id", "ls", "echo", "sleep", "hostname", "stat", "tty", "kill", "env",
        "pwd", "touch", "mkdir", "ps", "wc", "test", "httpd", "wget", "ip", "stty", "head", "yes", "grep",
        "seq", "mount",
    ] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nanna:x:1000:100::/home/anna:/bin/sh\n")
        .unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\nusers:x:100:\n").unwrap();
    fs::write(tree.join("data/sub/file"), "from the image\n").unwrap();
    fs::write(tree.join("bin/notexec"), "x").unwrap();
}
