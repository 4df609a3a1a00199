//! File trees as values: what a layer holds, and what a stack of layers shows, without touching a disk.
//!
//! Here: one path ([`Entry`]), all paths of a layer and their form on disk ([`Index`]), and the view through a stack of
//! layers ([`MergedIndex`]). Not here: reading and writing tars and trees (`layer`), which layers there are (`store`),
//! picking files for COPY (`build`).
//!
//! This room is pure and stands below the rooms of row 1, because layer, context and image all speak of the
//! same entries and must not know each other.
//!
//! Invariants
//! 1. Paths are relative and clean: no empty, `.` or `..` part. The root is the empty path.
//! 2. An index is sorted component by component, so that a directory is followed by all that is inside it.
//! 3. Any bytes decode to an index or an error, in memory that their length bounds: no count is believed, no path is longer
//!    than Linux allows.
//! 4. A merged index shows what overlayfs would show over the same layers, except that a directory that a layer only
//!    implies keeps the attributes of the layer below.
//! 5. Following a path never leaves the tree.
//!
//! On disk: an index file has a magic number with a version and ends in a checksum; see [`index`].
//!
//! Start reading at `entry.rs`. Tests: tables, altered bytes, and a comparison of the merged index with a naive model.

pub mod compact;
pub mod entry;
pub mod index;
pub mod merged;

pub use entry::{Entry, Kind, Time, compare_paths, parent};
pub use index::{Index, IndexError};
pub use merged::{Flat, MergedIndex, ResolveError, Resolved};
