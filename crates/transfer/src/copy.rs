//! Copying: what is to be copied, several blobs at a time, then the documents.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use mica_oci::{Digest, Platform};
use mica_registry_client::Client;

use crate::archive_destination::ArchiveDestination;
use crate::destination::{Blobs, Destination};
use crate::error::{CopyError, Result};
use crate::event::{BlobState, CopyEvent};
use crate::layout_destination::LayoutDestination;
use crate::place::Place;
use crate::plan::{Plan, Wanted};
use crate::registry_destination::RegistryDestination;
use crate::source::Source;

/// Blobs that are copied at a time: docker fetches 3 and sends 5. Each holds a buffer of 256 KiB.
const BLOBS_AT_A_TIME: usize = 4;
/// Where bytes wait that are sent to a registry, and compressed archives: large, so not in `/tmp`, which may be memory.
const SPOOL_DIR: &str = "/var/tmp";

/// What is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Only this platform; all of an index otherwise.
    pub platform: Option<Platform>,
    /// Where bytes wait in files without a name, `/var/tmp` if it is not said.
    pub spool_dir: Option<PathBuf>,
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Digest of the index or manifest at the destination.
    pub digest: Digest,
}

/// Copies an image, bytes as they are.
///
/// The digest at the destination is the one of the source, or, with a platform or into a docker archive, of the source's
/// manifest for one platform. Only a docker archive that has no manifests (of docker before version 25) gets a new one.
pub fn copy(
    client: &Client,
    from: &Place,
    to: &Place,
    options: &CopyOptions,
    watch: &(dyn Fn(CopyEvent) + Sync),
) -> Result<Copied> {
    let spool_dir = options.spool_dir.clone().unwrap_or_else(|| PathBuf::from(SPOOL_DIR));
    let source = Source::open(client, from, &spool_dir)?;
    let is_docker_archive = matches!(to, Place::DockerArchive(..));
    let wanted = Wanted {
        platform: options.platform.as_ref(),
        is_single: is_docker_archive,
        // Nobody who loads the archive could fetch what is not in it.
        foreign: is_docker_archive,
    };
    let plan = Plan::make(&source, wanted)?;
    let Some(root) = plan.root() else {
        return Err(CopyError::NoSuchImage { place: from.boxed(), offered: "none".to_owned() });
    };
    let digest = root.digest.clone();
    let destination: Box<dyn Destination + '_> = match to {
        Place::Registry(reference) => {
            Box::new(RegistryDestination::new(client, reference, &plan, spool_dir)?)
        }
        Place::Layout(path, tag) => Box::new(LayoutDestination::open(to, path, tag.as_deref())?),
        Place::LayoutArchive(path, tag) => {
            Box::new(ArchiveDestination::layout(to, path, tag.as_deref(), &plan)?)
        }
        Place::DockerArchive(path, name) => {
            Box::new(ArchiveDestination::docker(to, path, name.as_ref(), &source, &plan)?)
        }
    };
    watch(CopyEvent::Planned {
        documents: plan.documents.len(),
        blobs: plan.blobs.iter().map(|blob| (blob.digest.clone(), blob.size)).collect(),
    });
    for foreign in &plan.foreign {
        watch(CopyEvent::Blob { digest: foreign.digest.clone(), state: BlobState::SkippedForeign });
    }
    copy_blobs(&source, destination.as_ref(), &plan, watch)?;
    watch(CopyEvent::WritingManifests);
    destination.finish(&plan)?;
    Ok(Copied { digest })
}

fn copy_blobs(
    source: &Source<'_>,
    destination: &(dyn Destination + '_),
    plan: &Plan,
    watch: &(dyn Fn(CopyEvent) + Sync),
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<CopyError>> = Mutex::default();
    let tell = |digest: &Digest, state| watch(CopyEvent::Blob { digest: digest.clone(), state });
    let blobs = Blobs { source, stop: &stop, watch: &tell };
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(blob) = plan.blobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match destination.blob(&blobs, blob) {
                Ok(state) => tell(&blob.digest, state),
                Err(error) => {
                    // The first one: the others end because of it.
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..BLOBS_AT_A_TIME.min(plan.blobs.len()) {
            // Where no thread can be had, fewer do it.
            if std::thread::Builder::new().name("copy".to_owned()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
