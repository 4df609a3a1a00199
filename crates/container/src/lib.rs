//! Containers: made from an image, run, watched over, ended, removed. docker's rules, without a daemon.
//!
//! Not here: namespaces, mounts and the first process (`mica-runtime`), links, addresses and ports (`mica-network`),
//! rows and locks (`mica-store`), how images come (`mica-image`), flags and tables (`mica`, the command line).
//!
//! # Nouns
//!
//! *options* what the user types; *settings* what was decided from options and image, stored as `config.json`;
//! *monitor* the process that started a container, holds its lock, copies its streams and tidies up after it;
//! *client* a process attached to a monitor over a socket; *pump* the monitor's one loop; *supervised* a container whose
//! monitor is a caller that wants its output as bytes.
//!
//! # Invariants
//!
//! 1. A container runs only while its monitor lives; the monitor holds the lock before the state says "running".
//! 2. The image's layers are never written to: a container has its own upper directory.
//! 3. Ports are bound before anything is started; an error names the port.
//! 4. What a container was given is taken back when it ends: by its monitor, or, if that was killed, by the next
//!    [`sweep`].
//! 5. Whoever starts a background monitor waits for its word, never for its silence: a frame says that the command
//!    runs or why it does not.
//! 6. A container that is removed as it ends still tells its exit code to who waits: it is written into the lock's
//!    file, which waiters hold open.
//!
//! # In a container's directory
//!
//! ```text
//! config.json  Settings, version 1        lock   held by the monitor; the exit code once it ended
//! upper/ work/ overlay                    log    docker's json-file lines, unless it runs in the foreground with --rm
//! attach       socket of a background monitor    ports.json  published ports, as bound
//! mount-points.json  what stands in upper/ only to be mounted on
//! ```
//!
//! # Kills
//!
//! The runtime's helper ends the container when the monitor dies, and the kernel drops the lock. The row still says
//! "running"; readers see by the lock that it is not (exited 137), and a sweep removes it if it was to be removed.
//!
//! # Where to start
//!
//! `settings.rs`, `create.rs`, then `launch.rs` and `pump.rs`. `network.rs` is used by build steps too.
//!
//! # How it is tested
//!
//! Pure rules as tables beside them; whole containers through the command line (`crates/cli/tests/run.rs`).

mod client;
mod create;
mod error;
mod exec;
mod frame;
mod image_files;
mod launch;
mod limit;
mod log;
mod monitor;
pub mod network;
mod process;
mod pump;
mod settings;
mod stop;
mod supervised;
pub mod terminal;
mod volume_mount;

pub use client::{AttachOptions, Attached};
pub use create::{
    FoundImage, MadeContainer, create_container, find_container, find_image, image_layers, sweep,
};
pub use error::{ContainerError, Result};
pub use exec::{ExecOptions, exec};
pub use launch::{Context, read_created_mount_points};
pub use limit::{parse_cpu_millis, parse_signal, parse_size_bytes, parse_ulimit};
pub use log::{LogEntry, log_path};
pub use monitor::{attach, monitor_main_if_requested, run_in_background, run_in_foreground};
pub use process::parse_variable_file;
pub use settings::{RunOptions, Settings, read_bound_ports};
pub use stop::{end_now, kill, remove, stop, wait};
pub use supervised::{Supervised, supervise};
pub use volume_mount::{MountSource, VolumeMount, parse_mount, parse_tmpfs, parse_volume};
