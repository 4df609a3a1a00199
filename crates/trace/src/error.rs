//! How serving a tree fails.

use thiserror::Error;

/// Why a tree cannot be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// There is no FUSE on this machine, or nobody made the device.
    #[error(
        "there is no `/dev/fuse`; load the kernel module (`modprobe fuse`), or give the device to the container that this runs in (`--device /dev/fuse`)"
    )]
    NoDevice,
    /// The device belongs to others.
    #[error(
        "`/dev/fuse` may not be opened; distributions let everybody: `chmod 0666 /dev/fuse`, or a udev rule `KERNEL==\"fuse\", MODE=\"0666\"`"
    )]
    DeviceDenied,
    /// The device answers otherwise.
    #[error("`/dev/fuse` cannot be opened: {0}")]
    Device(#[source] std::io::Error),
    /// The kernel does not mount it: too old, or a policy forbids it.
    #[error(
        "the kernel refuses the mount: {0}; Linux 5.11 or later is needed, and mounting must be allowed here"
    )]
    Mount(#[source] mica_sys::Error),
    /// The server could not be started.
    #[error("the server of a tree cannot be started: {0}")]
    Start(#[source] std::io::Error),
    /// The mount was made, and is not answered.
    #[error("the mounted tree is not answered: {0}")]
    NoAnswer(#[source] std::io::Error),
}

/// What [`crate::probe()`] finds wrong with this machine; the same things as for a real tree.
pub type Unavailable = ServeError;

/// Why nothing can be said of what a step saw.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The server ended before the step.
    #[error("the server of the step's files ended early: {reason}")]
    Died {
        /// Why.
        reason: String,
    },
    /// A file of a layer is not what the index says.
    #[error("`/{}` of layer {layer} is damaged: {reason}", String::from_utf8_lossy(path))]
    Damaged {
        /// The layer, counted from the lowest of the tree.
        layer: usize,
        /// Its path, as in an index.
        path: Vec<u8>,
        /// What is wrong.
        reason: String,
    },
}
