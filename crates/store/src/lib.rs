//! What mica keeps on disk: blobs, layers, images and their names, build cache records, reports of builds, containers,
//! volumes, what is known of registries.
//!
//! Not here: what is in a layer's tree or index (`mica-layer`), how trees are stacked (`mica-runtime`), how
//! images come and go (`mica-image`), what is in a cache key (`mica-plan`), what is in a step's inputs and in a report
//! (`mica-build`).
//!
//! ```text
//! format                      version of this layout: 1
//! blobs/<alg>/<hex>           exact bytes: manifests, indexes, configs, compressed layers that came from outside
//! ingest/<kind>-<random>      on its way in or out, locked by the process that works on it (see `ingest`)
//! ingest/download-<alg>-<hex> a blob on its way in from a registry, kept to be gone on with (see `download`)
//! layers/<hex of diff ID>/    tree/ and index; `chain-<hex of chain ID>/` for a layer that depends on its parents
//! containers/<id>/            config.json, lock, and what the runtime puts there
//! volumes/<name>/_data        cache/<hex>/  RUN cache mounts        context/  stat caches, ETags
//! failed/<id>/                tree/: what a failed step wrote, for `mica debug` (see `failed`)
//! state.db                    SQLite in WAL mode: all that refers to the above (tables in `format`)
//! reserve                     space given up when a full disk is to be freed
//! ```
//!
//! A *blob* is stored bytes under their digest, a *download* the beginning of one; a *layer* a tree with its index under its diff ID; an *ingest* what
//! is not committed; a *lease* the promise that a running job's things are not collected; *trash* what is no longer
//! visible and not yet deleted. Of the build cache there are two kinds of records, and both keep their layer until
//! they are pruned: from the key of a step with all below it to its layer (`build_cache`), and from the key of a step
//! alone to its newest layers, each with the values it used (`step_record`). What is known of registries (`remote`) only
//! saves work. A *failed step* is what the last step of a build left that failed, with a description of the build's.
//!
//! A version of the tables (in `format`) only ever adds; an older mica refuses newer tables. The directory layout is still of version
//! 1: `failed/` is made where it is missing.
//!
//! Invariants:
//! 1. Nothing is visible before it is whole: files are renamed into place first, then one transaction makes the
//!    rows that lead to them.
//! 2. An image's row means its blobs and layers are stored; a name leads to an image that is stored, and a name that was
//!    pulled may have images of other platforms beside it (`name`).
//! 3. Committed bytes match their digest; [`Store::read_blob`] checks it on every read.
//! 4. A row never loses its files: removal renames inside the transaction and deletes after it; what a kill leaves
//!    in between is put back by the next sweep.
//! 5. Collection takes nothing that an image, a container, a build cache record of either kind or a living lease needs.
//! 6. A container is running only while its monitor holds its lock.
//!
//! **Several processes, kills.** Readers take no lock. Writers take turns through SQLite (`BEGIN IMMEDIATE`), for
//! microseconds. Every work in progress is an entry of `ingest/` under flock, so what a dead process left is known
//! by its lock being free; [`Store::sweep`] removes it (a download stays a week, or until [`Store::gc`]: the next try goes on
//! with it, once all bytes that are there were hashed anew). A directory that was renamed into place by a process killed
//! before its transaction has no row: it is invisible, replaced by the next commit, and removed by [`Store::gc`].
//!
//! **Power cuts.** Nothing on the user's path is synced. A layer's row carries the boot ID until
//! [`Store::make_durable`]; found under another boot ID, its index must have the committed size, and it is handed
//! out with `is_trusted == false` until it was compared with the index. Blobs are checked as they are read.
//!
//! **Damage.** A layer found damaged is forgotten ([`Store::forget_layer`]) with all records that stand on it, so that
//! the next build makes it again; images that need it miss it until then. Under a running container it stays. The one
//! exception to invariant 2, with power cuts.
//!
//! Start reading in `store` (the handle), `layer` (the longest way in) and `trash` (the way out). Tested by tables,
//! and in `tests/` by many processes, by kills at random moments and by fail points at each step.

mod blob;
mod build_cache;
mod codec;
mod container;
mod download;
mod error;
mod failed;
mod format;
mod gc;
mod image;
mod ingest;
mod layer;
mod lease;
mod manifest_list;
mod name;
mod random_name;
mod remote;
mod remove_tree;
mod reserve;
mod step_record;
mod store;
mod sweep;
mod trash;
mod usage;
mod volume;

pub use blob::BlobWriter;
pub use build_cache::{CacheKey, CacheRecord};
pub use container::{Container, ContainerRecord, ContainerState, Starting, random_container_id};
pub use download::{Download, PartialBlob};
pub use error::{Result, StoreError};
pub use failed::{FAILED_DESCRIPTION_BYTES_MAX, FAILED_STEPS_MAX, FailedStep};
pub use gc::{Freed, GcOptions};
pub use image::{ImageCommit, ImageRecord, ImageSummary};
pub use ingest::Ingest;
pub use layer::{Forgotten, Layer, LayerRecord};
pub use lease::Lease;
pub use random_name::random_name;
pub use remote::CompressedForm;
pub use step_record::{
    BUILD_REPORT_BYTES_MAX, STEP_EXTRA_BYTES_MAX, STEP_INPUTS_BYTES_MAX, STEP_RECORDS_MAX, StepRecord,
};
pub use store::Store;
pub use sweep::Swept;
pub use usage::{Usage, UsageOf, tree_size_bytes};
pub use volume::{CacheMount, CacheMountSharing, Volume};
