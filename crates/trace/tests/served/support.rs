//! Layers on disk with their indexes, trees served over them, and what somebody does inside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use mica_sys::mount::{self, Overlay};
use mica_sys::namespace::{self, Namespaces};
use mica_trace::{Contents, Files, NoContents, Observed, ServeOptions, Served, TreeUse, Value, serve};
use mica_tree::{Entry, Index, Kind, MergedIndex, Time};

/// Where trees, uppers and mount points of tests are made, unless `MICA_TEST_DIR` says otherwise: not in memory.
const TEMPORARY_DIR: &str = "/var/tmp";

/// A directory that goes away with the value.
pub fn temporary_directory() -> tempfile::TempDir {
    let parent =
        std::env::var_os("MICA_TEST_DIR").map_or_else(|| PathBuf::from(TEMPORARY_DIR), PathBuf::from);
    tempfile::Builder::new().prefix("mtrace").tempdir_in(parent).unwrap()
}
/// The time of every file that does not say another.
pub const TIME: Time = Time { seconds: 1_000_000_000, nanoseconds: 0 };

/// A layer in the making: its files are written at once.
pub struct Layer {
    directory: PathBuf,
    entries: BTreeMap<Vec<u8>, Entry>,
    has_digests: bool,
}

impl Layer {
    pub fn add(&mut self, path: &[u8], kind: Kind, mode: u32) -> &mut Entry {
        let path = path.to_vec();
        let entry = Entry { path: path.clone(), kind, mode, uid: 0, gid: 0, mtime: TIME, xattrs: Vec::new() };
        self.entries.entry(path).insert_entry(entry).into_mut()
    }

    pub fn directory(&mut self, path: &[u8]) -> &mut Self {
        self.add(path, Kind::Directory { opaque: false, implied: false }, 0o755);
        self
    }

    /// The files added from now on have no digest in the index.
    pub fn without_digests(&mut self) -> &mut Self {
        self.has_digests = false;
        self
    }

    /// A file and the bytes that it has on disk.
    pub fn file(&mut self, path: &[u8], content: &[u8]) -> &mut Self {
        let on_disk = self.directory.join(std::ffi::OsStr::from_bytes(path));
        fs::create_dir_all(on_disk.parent().unwrap()).unwrap();
        fs::write(on_disk, content).unwrap();
        self.file_elsewhere(path, content)
    }

    /// A file that is on no disk.
    pub fn file_elsewhere(&mut self, path: &[u8], content: &[u8]) -> &mut Self {
        let digest = self.has_digests.then(|| *blake3::hash(content).as_bytes());
        self.add(path, Kind::File { size: content.len() as u64, content: digest }, 0o755);
        self
    }

    pub fn symlink(&mut self, path: &[u8], target: &[u8]) -> &mut Self {
        self.add(path, Kind::Symlink { target: target.to_vec() }, 0o777);
        self
    }

    pub fn hard_link(&mut self, path: &[u8], target: &[u8]) -> &mut Self {
        self.add(path, Kind::Hardlink { target: target.to_vec() }, 0);
        self
    }
}

/// The bytes of layers, each in a directory.
pub struct Store(Vec<PathBuf>);

impl Files for Store {
    fn open(&self, tree: &MergedIndex, position: usize) -> io::Result<File> {
        let entry = tree.attributes_at(position).ok_or(io::ErrorKind::NotFound)?;
        File::open(self.0[tree.layer_at(position)].join(std::ffi::OsStr::from_bytes(&entry.path)))
    }
}

/// A stack of layers on disk.
pub struct Stack {
    /// Everything of this test.
    pub directory: tempfile::TempDir,
    layers: Vec<Layer>,
}

impl Stack {
    pub fn new() -> Self {
        let directory = temporary_directory();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, layers: Vec::new() }
    }

    /// One more layer, with a root.
    pub fn layer(&mut self) -> &mut Layer {
        let directory = self.layer_directory(self.layers.len());
        fs::create_dir(&directory).unwrap();
        self.layers.push(Layer { directory, entries: BTreeMap::new(), has_digests: true });
        let layer = self.layers.last_mut().unwrap();
        layer.directory(b"");
        layer
    }

    pub fn layer_directory(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("layer{number}"))
    }

    pub fn tree(&self) -> Arc<MergedIndex> {
        let index = |layer: &Layer| Arc::new(Index::new(layer.entries.values().cloned().collect()).unwrap());
        Arc::new(MergedIndex::new(self.layers.iter().map(index)))
    }

    pub fn store(&self) -> Store {
        Store((0..self.layers.len()).map(|number| self.layer_directory(number)).collect())
    }

    pub fn serve(&self) -> Served {
        serve(self.tree(), Arc::new(self.store()), ServeOptions::default()).unwrap()
    }

    /// A child of this program that mounts an overlay over the served tree and becomes `actor` with that as its working
    /// directory; see [`child`].
    pub fn command(&self, served: &Served, actor: &str) -> Command {
        let run = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(run.join(name)).unwrap();
        }
        // The child is to have it, so it is not closed there.
        let mount = rustix::io::dup(served.mount()).unwrap();
        let mut command = Command::new("/proc/self/exe");
        command.args(["child", actor, &mount.as_raw_fd().to_string()]).arg(run);
        // It stays open until the child has it: tests are processes that end soon.
        std::mem::forget(mount);
        command
    }

    /// Serves the tree to an actor and tells what was seen, and what it printed.
    pub fn observe(&self, actor: &str) -> (Observed, Output) {
        self.observe_with(actor, ServeOptions::default(), &NoContents)
    }

    pub fn observe_with(
        &self,
        actor: &str,
        options: ServeOptions,
        contents: &dyn Contents,
    ) -> (Observed, Output) {
        let served = serve(self.tree(), Arc::new(self.store()), options).unwrap();
        let output = self.command(&served, actor).output().unwrap();
        (served.finish(contents), output)
    }

    /// What an actor that succeeds used.
    pub fn uses(&self, actor: &str) -> (TreeUse, Output) {
        let (observed, output) = self.observe(actor);
        assert!(output.status.success(), "{actor}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(observed.fault, None, "{actor}");
        let uses = observed.uses.unwrap();
        // What was noted is what the tree shows.
        assert_eq!(mica_trace::verify(0, &uses, &self.tree(), &NoContents), Ok(()), "{actor}");
        (uses, output)
    }
}

/// One word for each use: a letter for what was used, then the path; the root is `.`. Capitals are read or listed.
pub fn words(uses: &TreeUse) -> Vec<String> {
    let word = |used: &mica_trace::Use| {
        let letter = match &used.value {
            Value::Absent => '-',
            Value::Directory { listing: None, .. } => 'd',
            Value::Directory { .. } => 'D',
            Value::File { content: None, .. } => 'f',
            Value::File { .. } => 'F',
            Value::Symlink { .. } => 'l',
            Value::Special { .. } => 's',
        };
        let path = String::from_utf8_lossy(&used.path).into_owned();
        format!("{letter} {}", if path.is_empty() { "." } else { &path })
    };
    uses.uses.iter().map(word).collect()
}

/// The child's side of [`Stack::command`]: its arguments are the descriptor of the mount and a directory of its own.
pub fn mount_and_enter(mount: &str, run: &Path) {
    namespace::unshare(Namespaces::MOUNT).unwrap();
    mount::make_all_private().unwrap();
    let served = PathBuf::from("/proc/self/fd").join(mount);
    let flags = rustix::fs::OFlags::PATH;
    let open = |path: &Path| rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
    mount::attach(open(&served), open(&run.join("lower")), run).unwrap();
    let lowers = [run.join("lower")];
    let (upper, work, user_xattr) =
        (run.join("upper"), run.join("work"), mica_sys::idmap::in_user_namespace());
    let overlay = Overlay { lowers: &lowers, upper: &upper, work: &work, user_xattr, volatile: true };
    overlay.mount(&run.join("merged")).unwrap();
    std::env::set_current_dir(run.join("merged")).unwrap();
}
