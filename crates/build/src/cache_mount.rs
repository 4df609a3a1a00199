//! `RUN --mount=type=cache`: which directory it is, what a new one begins with, and waiting for it.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mica_dockerfile::instruction::CacheSharing;
use mica_plan::{RunStep, StepMount};
use mica_store::{CacheMount, CacheMountSharing};
use mica_sys::error::ErrorAt;

use crate::build::Build;
use crate::error::StepError;
use crate::exec_copy;
use crate::materialize;
use crate::outcomes::Outcomes;
use crate::place::{clean, follow};
use crate::traced::tree_of;

/// What BuildKit gives a cache that nothing is said of.
const MODE: u32 = 0o755;
/// How often a step that waits for a cache looks again, and whether it should end.
const PAUSE: Duration = Duration::from_millis(20);

/// The caches of a step, by their names in the store.
pub(crate) type Caches = BTreeMap<String, CacheMount>;

/// Takes all caches of a step. One that is mounted twice is one.
///
/// Those of one step are taken in the order of their names, so that two steps that want the same ones do not wait for each
/// other for ever.
pub(crate) fn caches(build: &Build<'_>, run: &RunStep, outcomes: &Outcomes) -> Result<Caches, StepError> {
    let mut wanted = BTreeMap::new();
    for mount in &run.mounts {
        if let StepMount::Cache { sharing, .. } = mount {
            wanted.entry(cache_name(build, mount, outcomes)?).or_insert((mount, *sharing));
        }
    }
    let mut caches = Caches::new();
    for (name, (mount, sharing)) in wanted {
        let sharing = match sharing {
            CacheSharing::Shared => CacheMountSharing::Shared,
            CacheSharing::Private => CacheMountSharing::Private,
            CacheSharing::Locked => CacheMountSharing::Locked,
        };
        build.fill_mount(&name);
        let begin = |directory: &Path| begin(build, mount, outcomes, directory);
        let cache = loop {
            if let Some(cache) = build.store.try_cache_mount(&name, sharing, &begin)? {
                break cache;
            }
            if build.stopped() {
                return Err(StepError::Cancelled);
            }
            // Another process may have it, and a lock cannot be waited for together with an interruption.
            std::thread::sleep(PAUSE);
        };
        caches.insert(name, cache);
    }
    Ok(caches)
}

/// What the cache is called in the store. As with BuildKit, one that begins with other files, or has another owner, is
/// another one; where nothing is said of either it is the id alone.
pub(crate) fn cache_name(
    build: &Build<'_>,
    mount: &StepMount,
    outcomes: &Outcomes,
) -> Result<String, StepError> {
    let StepMount::Cache { id, from, source, mode, uid, gid, .. } = mount else {
        return Ok(String::new());
    };
    let mut name = id.clone();
    if let Some(from) = from {
        let contents = match tree_of(build, from, outcomes)?.bytes.chain() {
            Some(chain) => chain.chain_id().map(|chain| chain.to_string()).unwrap_or_default(),
            None => "context".to_owned(),
        };
        name.push_str(&format!("\0from {contents} {source}"));
    } else if source != "/" {
        name.push_str(&format!("\0source {source}"));
    }
    // The files have owners of their own.
    if from.is_none() && (*mode, *uid, *gid) != (MODE, 0, 0) {
        name.push_str(&format!("\0owner {mode:o} {uid} {gid}"));
    }
    Ok(name)
}

/// Makes a new cache in a directory.
fn begin(
    build: &Build<'_>,
    mount: &StepMount,
    outcomes: &Outcomes,
    directory: &Path,
) -> Result<PathBuf, StepError> {
    let StepMount::Cache { from, source, mode, uid, gid, span, .. } = mount else {
        return Err(StepError::Cancelled);
    };
    let Some(from) = from else {
        let path = directory.join("cache");
        std::fs::DirBuilder::new().mode(0o700).create(&path).at("mkdir", &path)?;
        std::os::unix::fs::chown(&path, Some(*uid), Some(*gid)).at("chown", &path)?;
        // The umask must not decide what a container may do.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).at("chmod", &path)?;
        return Ok(path);
    };
    let tree = tree_of(build, from, outcomes)?;
    let found = follow(&tree.merged, &clean(source))?;
    match found {
        Some(found) if found.entry.is_none_or(mica_tree::Entry::is_directory) => {}
        Some(_) => return Err(StepError::CacheSource { path: source.clone(), span: *span }),
        None => return Err(exec_copy::missing(build, from, &tree.merged, source.clone(), *span)),
    }
    let path = directory.join("from");
    std::fs::create_dir(&path).at("mkdir", &path)?;
    materialize::materialize(build.rootless(), &tree, source, path)
}
