//! Other tools of the field, run on stores of their own, to compare with.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::{Mica, Outcome, SavedImage, run_bounded};

/// A build of an example by another tool.
const DEADLINE: Duration = Duration::from_secs(1200);

/// podman, buildah, skopeo and umoci with one store in a temporary directory.
#[derive(Debug)]
pub struct Peers {
    dir: tempfile::TempDir,
}

impl Peers {
    /// An empty store, and settings that work for a root without all capabilities and without a cgroup of its own.
    pub fn new() -> Peers {
        let peers = Peers { dir: Mica::temporary_dir() };
        let write = |name: &str, text: &str| {
            fs::write(peers.dir.path().join(name), text).expect("settings of a peer")
        };
        // Their default limits are above the hard limits of a container's root, who may not raise them. They lower their
        // own number of processes to the kernel's last process id before they set it for others.
        let limit = |resource| getrlimit(resource).maximum.unwrap_or(1 << 20);
        let processes_max =
            fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
        let files = limit(Resource::Nofile);
        let processes = limit(Resource::Nproc).min(processes_max.unwrap_or(1 << 15));
        write(
            "containers.conf",
            &format!(
                "[containers]\npids_limit=0\nnetns=\"host\"\nlog_driver=\"k8s-file\"\n\
                 default_ulimits=[\"nofile={files}:{files}\",\"nproc={processes}:{processes}\"]\n\
                 [engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"none\"\nruntime=\"crun\"\n"
            ),
        );
        let store = peers.dir.path().display();
        write(
            "storage.conf",
            &format!("[storage]\ndriver=\"overlay\"\ngraphroot=\"{store}/graph\"\nrunroot=\"{store}/run\"\n"),
        );
        write("registries.conf", "unqualified-search-registries=[]\n");
        write("policy.json", "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}\n");
        peers
    }

    /// A file in the directory of these peers.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a tool, whatever the result.
    pub fn run<S: AsRef<OsStr>>(&self, tool: &str, arguments: &[S]) -> Outcome {
        let mut command = Command::new(tool);
        command.args(arguments).stdin(Stdio::null()).current_dir(self.dir.path());
        command.env("CONTAINERS_CONF", self.file("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.file("storage.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", self.file("registries.conf"));
        command.env("TMPDIR", self.dir.path());
        run_bounded(command, DEADLINE)
    }

    /// Runs a tool and insists on exit code 0.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, tool: &str, arguments: &[S]) -> Outcome {
        let outcome = self.run(tool, arguments);
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        assert!(outcome.code == 0, "`{tool} {}`: {outcome}", words.join(" "));
        outcome
    }

    /// Runs a container with podman and insists on exit code 0.
    ///
    /// crun refuses a machine that has both kinds of cgroup trees, so there it gets a mount namespace with one kind.
    #[track_caller]
    pub fn run_container(&self, image: &str) -> Outcome {
        let script = "if findmnt -rnt cgroup >/dev/null; then \
                        for dir in $(findmnt -rnt cgroup2 -o TARGET); do umount -l $dir; done; \
                      fi; exec podman run --rm --network=none --cgroups=disabled $0";
        self.ok("unshare", &["--mount", "sh", "-c", script, image])
    }

    /// Makes a base image from a root filesystem tar, with buildah.
    #[track_caller]
    pub fn import(&self, tar: &Path, name: &str) {
        let container = self.ok("buildah", &["from", "scratch"]).stdout.trim().to_owned();
        self.ok("buildah", &["add", "-q", &container, &tar.to_string_lossy(), "/"]);
        let policy = self.file("policy.json");
        self.ok(
            "buildah",
            &["commit", "-q", "--signature-policy", &policy.to_string_lossy(), &container, name],
        );
        self.ok("buildah", &["rm", &container]);
    }

    /// Builds a context with `buildah bud`, without its cache.
    #[track_caller]
    pub fn build(&self, context: &Path, name: &str) {
        let policy = self.file("policy.json");
        let (policy, context) = (policy.to_string_lossy(), context.to_string_lossy());
        self.ok(
            "buildah",
            &[
                "bud",
                "--isolation=chroot",
                "--network=host",
                "--no-cache",
                "--pull-never",
                "--layers",
                "--signature-policy",
                &policy,
                "-t",
                name,
                &context,
            ],
        );
    }

    /// The image as a docker archive, opened.
    #[track_caller]
    pub fn image(&self, name: &str) -> SavedImage {
        let file = self.file(&format!("{}.tar", crate::sha256(name.as_bytes())));
        let policy = self.file("policy.json");
        let target = format!("docker-archive:{}:{name}", file.display());
        self.ok("buildah", &["push", "-q", "--signature-policy", &policy.to_string_lossy(), name, &target]);
        SavedImage::read(&file).unwrap_or_else(|error| panic!("the archive of `{name}`: {error}"))
    }
}

impl Default for Peers {
    fn default() -> Peers {
        Peers::new()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.run("buildah", &["rm", "--all"]);
        // The overlay driver mounts its store on itself.
        let _ = Command::new("umount").arg("-q").arg(self.file("graph/overlay")).status();
    }
}
