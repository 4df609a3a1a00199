//! What is to be built, and what comes of it.

use std::path::PathBuf;
use std::sync::Arc;

use mica_diagnostic::{Diagnostic, Source};
use mica_dockerfile::Finding;
use mica_image::{BasePart, BuiltImage};
use mica_oci::{Digest, ImageId, Platform, Reference};
use mica_plan::PlanOptions;
use mica_store::Lease;

use crate::fetched::FetchedContext;
use crate::policy::CacheMode;
use crate::secret::{SecretSource, SshSource};
use crate::verdict::BuildReport;

/// Network of RUN steps that do not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuildNetwork {
    /// One of its own with a way out: the bridge as root, pasta otherwise.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// An ignore file.
#[derive(Debug, Clone)]
pub struct IgnoreFile {
    /// Name shown to people.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The Dockerfile.
    pub dockerfile: Source,
    /// The context directory; `None` when there is none (a Dockerfile on standard input).
    pub context: Option<PathBuf>,
    /// Directories that stand for named contexts of [`PlanOptions::named_contexts`].
    pub named_directories: Vec<NamedDirectory>,
    /// What was fetched for this build: directories that live as long as the request does.
    pub fetched: Vec<Arc<FetchedContext>>,
    /// Images that stand in the store without a name, for named contexts that refer to them.
    pub named_images: Vec<NamedImage>,
    /// The ignore file that applies.
    pub ignore: Option<IgnoreFile>,
    /// Target, arguments, labels, and the platform if there is one only.
    pub plan: PlanOptions,
    /// What is built for, in order and each once; several make one index. Empty for the platform of `plan`.
    pub platforms: Vec<Platform>,
    /// Names for the image.
    pub names: Vec<Reference>,
    /// Ask for base images even if they are there.
    pub pull: bool,
    /// Use no result of earlier builds.
    pub no_cache: bool,
    /// Stages, by name or number, that no result of earlier builds is used for.
    pub no_cache_stages: Vec<String>,
    /// On which layers results of earlier builds are used; a step's own comment can be stricter.
    pub cache: CacheMode,
    /// How old a result may be that was made with the network.
    pub cache_ttl_seconds: Option<u64>,
    /// Network of RUN.
    pub network: BuildNetwork,
    /// Lines for /etc/hosts, `NAME:ADDRESS`.
    pub add_hosts: Vec<String>,
    /// What `RUN --mount=type=secret` and logins of ADD may use.
    pub secrets: Vec<SecretSource>,
    /// What `RUN --mount=type=ssh` may use.
    pub ssh: Vec<SshSource>,
    /// What steps may do that could harm the machine.
    pub allow: Entitlements,
    /// Limits of every RUN.
    pub limits: StepLimits,
    /// What a failed step left is kept for `mica debug`.
    pub keep_failed: bool,
    /// Every time that the image tells is SOURCE_DATE_EPOCH, or this one where that is not given, in seconds since 1970, or an
    /// earlier one; and modes of the context are those that git knows.
    pub reproducible: Option<i64>,
    /// Make one layer of all that the build adds to its base image.
    pub squash: bool,
    /// Whether the image is to stand in the store; else only its layers are there, as results of steps.
    pub keep_image: bool,
    /// The caller is in a user namespace.
    pub rootless: bool,
    /// Say also what changed below steps that are taken over; costs a look at the earlier layers.
    pub explain: bool,
    /// Tell also what steps wait for and weigh ([`crate::PlannedStep`], [`crate::StepResult`]).
    pub timings: bool,
    /// Now, seconds since 1970, whatever SOURCE_DATE_EPOCH says.
    pub now_seconds: i64,
}

impl BuildRequest {
    /// The host name that steps are to have, if the build says so.
    pub fn host_name(&self) -> Option<&str> {
        let mut args = self.plan.build_args.iter().rev();
        let (_, name) = args.find(|(name, _)| name == "BUILDKIT_SANDBOX_HOSTNAME")?;
        Some(name.as_str()).filter(|name| !name.is_empty())
    }

    /// Nothing but a Dockerfile, everything else as a build without flags has it. The time is 1970.
    pub fn new(dockerfile: Source, plan: PlanOptions) -> Self {
        Self {
            dockerfile,
            context: None,
            named_directories: Vec::new(),
            fetched: Vec::new(),
            named_images: Vec::new(),
            ignore: None,
            plan,
            platforms: Vec::new(),
            names: Vec::new(),
            pull: false,
            no_cache: false,
            no_cache_stages: Vec::new(),
            cache: CacheMode::Precise,
            cache_ttl_seconds: None,
            network: BuildNetwork::Default,
            add_hosts: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            allow: Entitlements::default(),
            limits: StepLimits::default(),
            keep_failed: false,
            reproducible: None,
            squash: false,
            keep_image: true,
            rootless: false,
            explain: false,
            timings: false,
            now_seconds: 0,
        }
    }

    /// Whether an index is made: of several platforms, and of one where that was asked for.
    pub fn makes_index(&self) -> bool {
        self.plan.multi_platform || self.platforms.len() > 1
    }
}

/// A directory that a name of `--build-context` stands for.
#[derive(Debug, Clone)]
pub struct NamedDirectory {
    /// As in [`mica_plan::NamedContext::name`].
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its own ignore file.
    pub ignore: Option<IgnoreFile>,
}

/// An image of a named context that has no name of its own.
#[derive(Debug, Clone)]
pub struct NamedImage {
    /// As in [`mica_plan::NamedContext::image`].
    pub reference: Reference,
    /// What it is for.
    pub platform: Platform,
    /// What it is.
    pub image: ImageId,
}

/// `--allow`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entitlements {
    /// `network.host`: `RUN --network=host`.
    pub network_host: bool,
    /// `security.insecure`: `RUN --security=insecure`.
    pub security_insecure: bool,
}

/// Limits of every RUN; what is absent is not limited beyond what the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepLimits {
    /// Size of /dev/shm; 64 MiB when absent.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`, as written and checked: `nofile=1024:2048`.
    pub ulimits: Vec<String>,
    /// `--memory`
    pub memory_bytes: Option<u64>,
    /// `--memory-swap`: memory and swap together.
    pub memory_swap_bytes: Option<u64>,
    /// `--cpu-quota` of `--cpu-period`: processor time in thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// `--cpu-shares`
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`, as the kernel writes it: `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`
    pub cpuset_mems: Option<String>,
    /// `--cgroup-parent`
    pub cgroup_parent: Option<String>,
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image of each platform, in the order of the request; at least one.
    pub images: Vec<BuiltPlatform>,
    /// Digest of the index, if [`BuildRequest::makes_index`].
    pub index: Option<Digest>,
    /// The time that the image tells of itself, if that is not when it was built: files written elsewhere have it too.
    pub source_date_epoch: Option<i64>,
    /// Warnings about the Dockerfile.
    pub warnings: Vec<Diagnostic>,
    /// What its rules find.
    pub findings: Vec<Finding>,
    /// Build arguments that nothing asked for.
    pub unused_args: Vec<String>,
    /// What is said of each step.
    pub report: BuildReport,
}

/// The image of one platform.
#[derive(Debug, Clone)]
pub struct BuiltPlatform {
    /// What it is for.
    pub platform: Platform,
    /// Digest of the config.
    pub image: ImageId,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Config and layers, for those who bring it elsewhere.
    pub content: BuiltImage,
    /// What of it comes from the base image.
    pub base: BasePart,
    /// Keeps its layers in the store, also where no image has them.
    pub lease: Arc<Lease>,
}
