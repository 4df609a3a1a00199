//! Stores and directories in which a project is built with the cache and without.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use mica_testkit::{Flattened, Mica, Need, Outcome, SavedImage, Tree, bases, flattened_tar, missing};

use crate::project::Project;
use crate::scenario::{Item, Scenario};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// Places of files that tell the time: two builds agree on them by chance.
const UNSTEADY: [&str; 3] = ["var/log/", "var/cache/apt/", "var/cache/ldconfig/"];
/// Ends of the names of files that tell what `stat` says of other files: compiled Python the time of its source, git's index
/// inode numbers too. That they are there is compared, what they hold is not.
const UNSTEADY_ENDS: [&str; 2] = [".pyc", "/.git/index"];

/// The base with the tools, read once.
struct Tools {
    tar: PathBuf,
    tree: Flattened,
}

fn tools() -> Result<&'static Tools, String> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    let made = TOOLS.get_or_init(|| {
        if let Some(reason) = missing(&[Need::Root]) {
            return Err(reason);
        }
        let tar = bases::debian_with_tools()?;
        let tree = flattened_tar(&tar).map_err(|error| format!("{}: {error}", tar.display()))?;
        Ok(Tools { tar, tree })
    });
    made.as_ref().map_err(Clone::clone)
}

/// A store with the tools, and the directory that it builds.
pub struct Bench {
    pub mica: Mica,
    tools: &'static Tools,
    layer: String,
}

impl Bench {
    /// An error is a reason to skip.
    pub fn new() -> Result<Bench, String> {
        let tools = tools()?;
        let mica = Mica::new(BINARY);
        mica.import(&tools.tar, "tools:1");
        let layer = SavedImage::layers(&mica, "tools:1").remove(0);
        Ok(Bench { mica, tools, layer })
    }

    /// Builds the base that the project stands on.
    pub fn build_base(&self, directory: &Directory) {
        let context = directory.base().to_string_lossy().into_owned();
        self.mica.ok(&["build", "-q", "-t", "base:1", &context]);
    }

    /// Builds the project.
    pub fn build(&self, directory: &Directory, flags: &[&str]) -> Outcome {
        let context = directory.context().to_string_lossy().into_owned();
        let mut arguments = vec!["build", "--progress=plain", "-t", "built:1"];
        arguments.extend(flags);
        arguments.push(&context);
        self.mica.run(&arguments)
    }

    /// What was built, without what two builds agree on by chance.
    pub fn built(&self) -> Tree {
        let mut tree = SavedImage::above(&self.mica, "built:1", &self.tools.tree, &self.layer).tree;
        tree.retain(|path, node| {
            if UNSTEADY_ENDS.iter().any(|end| path.ends_with(end)) {
                (node.sha256, node.size) = (String::new(), 0);
            }
            !UNSTEADY.iter().any(|start| path.starts_with(start))
        });
        tree
    }
}

/// The directories of a project and its base, made equal to it from edit to edit.
pub struct Directory {
    dir: tempfile::TempDir,
    context: Option<Scenario>,
    base: Option<Scenario>,
    /// The time that the next edit's files get.
    clock: Option<SystemTime>,
}

impl Directory {
    pub fn new() -> Directory {
        let dir = Mica::temporary_dir();
        for name in ["context", "base"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        Directory { dir, context: None, base: None, clock: None }
    }

    /// The files of an edit are a minute younger than those of the one before, as a person's are. What is put back and what is
    /// changed within one second cannot be told apart by age, so it loses its earlier times.
    pub fn with_minutes_between_edits() -> Directory {
        Directory { clock: Some(SystemTime::now() - Duration::from_secs(86_400)), ..Directory::new() }
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    /// Keeps the files; where they are.
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// Puts the project on disk; whether its base is another than before.
    pub fn write(&mut self, project: &Project) -> bool {
        let new = project.scenario();
        new.write(self.context.as_ref(), &self.context()).expect("the context");
        fs::write(self.context().join("Dockerfile"), project.dockerfile()).expect("the Dockerfile");
        if let Some(clock) = self.clock {
            let clock = clock + Duration::from_secs(60);
            for (path, item) in &new.context {
                let was = self.context.as_ref().and_then(|old| old.context.get(path));
                if matches!(item, Item::File { .. }) && was != Some(item) {
                    let file = File::options().append(true).open(self.context().join(path));
                    file.and_then(|file| file.set_modified(clock)).expect("a time");
                }
            }
            self.clock = Some(clock);
        }
        self.context = Some(new);
        let new = project.base_scenario();
        if self.base.as_ref() == Some(&new) {
            return false;
        }
        new.write(self.base.as_ref(), &self.base()).expect("the base");
        fs::write(self.base().join("Dockerfile"), "FROM tools:1\nCOPY root /\n").expect("the Dockerfile");
        self.base = Some(new);
        true
    }
}
