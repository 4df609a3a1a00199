//! What a step could have seen of the files it started from, and whether that still holds elsewhere.
//!
//! Here: a merged tree as a mount that notes what is asked of it ([`serve`]), the same for our own instructions, which ask
//! in memory ([`Watched`]), what was used as values ([`Record`]) and as bytes, and the comparison with another tree
//! ([`verify()`]). Not here: the overlay above the mount and its namespace (`runtime`), which records there are (`store`),
//! when a record counts (`build`).
//!
//! Nouns: *use* a path that was looked up, and what it showed; *value* what a path showed, without a word of layers or
//! positions; *difference* the first value that is another one elsewhere; *fault* a reason to believe nothing of a record.
//!
//! Invariants
//! 1. What a step could have seen of its lower tree is in the record, or there is no record: the server answers from the
//!    index alone, and notes a name before the kernel learns of it. The kernel asks once and keeps the answer.
//! 2. What is no value is the same for every step: times of all but files, sizes and link counts of directories, order of
//!    names, numbers of the filesystem.
//! 3. Every name that was found counts as looked at as well (size, time, attributes): the answer to a lookup has them.
//!    Content and names of a directory count only when they were asked for.
//! 4. A file of a layer that is not what its index says is an error to the step and a fault of the record.
//! 5. Nobody waits for a dead server: the thread owns the device, and its end fails all that is asked. Nothing here waits
//!    for a step either.
//! 6. Memory is bounded: one byte for each path of the tree, a limited set of names that were not there.
//!
//! ```text
//! step -> overlay -> FUSE mount -> /dev/fuse -> session -> served -> index, files of the layers
//!            |                                              |
//!          upper                                       observation -> record
//! ```
//!
//! The protocol is that of `linux/fuse.h`, in the mode without opens (`FUSE_NO_OPEN_SUPPORT`): one round trip for each path
//! that is used, however often it is used. The mount is attached nowhere by this room. Killed in the middle, it takes the
//! mount with it; there is nothing to clean up.
//!
//! Start reading at `record.rs`, then `served.rs`. Tests: `tests/record` (tables and a second opinion, no privileges),
//! `tests/served` (real mounts; each operation alone, and a real program against strace).

mod codec;
mod difference;
mod error;
mod observation;
mod probe;
mod protocol;
mod record;
mod served;
#[cfg(test)]
mod served_tests;
mod session;
mod two_runs;
mod value;
mod verify;
mod view;
mod watched;

pub use codec::RecordError;
pub use difference::{Change, Difference};
pub use error::{Fault, ServeError, Unavailable};
pub use probe::probe;
pub use record::{Attributes, ListedKind, Listing, Record, TreeUse, Use, Value};
pub use served::Files;
pub use session::{Observed, ServeOptions, Served, serve};
pub use two_runs::{UsedDifferently, compare_uses};
pub use value::{Contents, NoContents};
pub use verify::{changed_paths, verify};
pub use watched::Watched;

/// The time that a served tree shows for everything but regular files.
pub const SHOWN_TIME: mica_tree::Time = mica_tree::Time { seconds: view::TIME_SECONDS, nanoseconds: 0 };
