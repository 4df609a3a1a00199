//! Runs containers: mica's own runtime, small and complete, because its time is the floor of every step.
//!
//! A caller describes a container ([`ContainerSpec`]), [`spawn`]s it up to the execution of its command, [`Created::start`]s
//! it and [`Running::wait`]s for its end. [`exec_in`] puts a further process into a container. Every `main` that does so
//! calls [`init_main_if_requested`] before anything else.
//!
//! Not here: layers and upper directories (`store` has them), bridges and published ports (`network` makes a
//! namespace, [`spec::Network::Path`] names it), logs, restarts and monitors (`cli`), entering a user namespace
//! (`mica_sys::idmap`, before anything else of an ordinary user's process), outside runtimes.
//!
//! # The processes
//! ```text
//! parent (any threads)          helper (this program again, or   first process (pid 1)
//!                               a fork of one thread)
//! spawn: spec in a memfd,  ---> pidfd of the parent, clone3 ---> dies with the helper; cgroup; overlay, /proc, /dev,
//!        streams, trees                                          /sys, mounts, masks; pivot_root; user, capabilities,
//!        by SCM_RIGHTS
//!        Cloned, Ready     <--- <------------------------------- seccomp; finds the command
//! start: the byte `g`      ------------------------------------> `x` to the helper, execve
//!        Started           <--- end of its pipe after an `x`
//! wait:  Exited            <--- waitid                       <-- exits
//! ```
//! Messages (`wire`) are JSON, one packet each; a failure says stage, call, path and errno.
//!
//! # Invariants
//! 1. A container leaves no mount, cgroup or process behind: mounts are made only in its own mount namespace; the helper
//!    polls a pidfd of the parent and kills the container when the parent goes; the kernel kills the first process when
//!    the helper goes (`PR_SET_PDEATHSIG`, set again after the change of user, each time with a look whether the helper
//!    still lives). Only an empty cgroup can be left by a killed parent: [`sweep_cgroups`].
//! 2. Nobody waits for the end of a stream that a process of another container might hold: only explicit bytes, and the
//!    pipe between helper and first process, whose ends exist in just these two.
//! 3. No descriptor of ours but the three streams is open in the container's command; no directory of the host is open
//!    when a path of the image is walked.
//! 4. Paths of the image are followed as inside the container, never out of it (`openat2`, `RESOLVE_IN_ROOT`).
//! 5. Users and groups come from the container's files, by our own parser.
//! 6. What was created only to mount on it is reported, so that it does not become part of a layer.
//! 7. Capabilities, filter, masked and read-only paths are docker's unless the spec says otherwise.
//!
//! 8. A mount that the caller hands over attached nowhere ([`spawn_with_trees`]) is attached in the container's mount
//!    namespace only, and only until its overlays are made.
//! 9. The watch on sockets ([`SocketWatch`]) refuses nothing, and says that there was one whenever it cannot tell.
//!
//! Nothing is stored. A `volatile` overlay wants a fresh work directory each time: the kernel marks it.
//!
//! Start reading at [`spawn`], then `helper`, `container_init`, `rootfs`, `process_setup`. [`emulation`] tells which programs
//! of other CPUs the kernel runs.
//!
//! Tested by containers of a static busybox as root and as an ordinary user (tests/container, with a `main` of its own),
//! and by tables for users, capabilities and the filter, which is evaluated as the kernel would.

mod capability;
mod cgroup;
mod command_path;
mod container_init;
mod device;
pub mod emulation;
mod error;
mod helper;
mod process_setup;
mod rootfs;
mod seccomp;
mod socket_watch;
mod spawn;
pub mod spec;
mod syscall_table;
mod target;
mod tiny_init;
mod tree;
mod user;
mod wire;

pub use capability::CapabilitySet;
pub use cgroup::sweep_cgroups;
pub use error::{Result, RuntimeError, Stage};
pub use helper::init_main_if_requested;
pub use socket_watch::SocketWatch;
pub(crate) use spawn::JoinSpec;
pub use spawn::{
    Created, CreatedMountPoint, ExitStatus, MountPointKind, Running, Stdio, Stream, exec_in, spawn,
    spawn_with_trees,
};
pub use spec::{ContainerSpec, ProcessSpec};
