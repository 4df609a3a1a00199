//! What end-to-end tests stand on: a runner for the `mica` binary, base images, image trees to compare.
//!
//! Here: [`Mica`] (one store, one binary, every call with a deadline), [`bases`] (busybox, the corpus's base, Debian),
//! [`tar`] (a reader and a writer that allow what honest tools refuse), [`SavedImage`] (a saved archive as a [`Tree`] and a
//! config), [`http`] and [`Random`]. Registries: [`DockerRegistry`] (the one that people run), [`FakeRegistry`] (misbehaves
//! as it is told), [`ChaosProxy`] (spoils the conversation with either), [`images`] (what is put into them),
//! [`Certificates`]; [`Web`] (pages and git repositories). Programs of another CPU: [`Emulation`]. Not here: anything of mica's own crates. The tests see mica as a user does, and a mistake of a room
//! cannot hide itself by being used for the check as well.
//!
//! Nouns: *base* a root filesystem tar that tests import; *tree* every path of an image with all that matters but times;
//! *leftover* a mount, process or temporary directory that an ended command should have taken back; *fault* one way in
//! which the fake registry misbehaves; *chaos* what the proxy does to bytes.
//!
//! Invariants:
//! 1. Every wait is bounded; a command past its deadline is killed and the test fails.
//! 2. Bases are made once under a file lock and renamed into place, so that test programs running at the same time share
//!    them and a kill leaves no half of one.
//! 3. Servers listen on loopback alone, on ports that the kernel chose, and end with the value that stands for them.
//! 4. A test that cannot run says `skipped: <reason>` on stdout; `cargo xtask test` counts these lines.
//!
//! Environment: `MICA_BINARY` (in place of the built one), `MICA_TEST_BASES` (where bases are kept), `MICA_TEST_DIR` (where
//! stores are made, default `/var/tmp`), `MICA_CORPUS`. They exist for the run as an unprivileged user, who cannot read the
//! build directory. Start reading at [`Mica`]. A panic is the way to fail here: every caller is a test.

pub mod bases;
mod certificates;
mod chaos_proxy;
mod docker_registry;
pub mod emulation;
mod fake_registry;
pub mod http;
pub mod images;
mod leftovers;
mod mica;
mod needs;
mod peers;
mod random;
mod registry_http;
mod s3_server;
mod saved_image;
pub mod tar;
mod tree;
mod web;

pub use certificates::Certificates;
pub use chaos_proxy::{Chaos, ChaosProxy, Then};
pub use docker_registry::{
    Access, DockerRegistry, DockerRegistryOptions, NEEDS_DOCKER_REGISTRY, PASSWORD, USER,
};
pub use emulation::Emulation;
pub use fake_registry::{
    FakeAuth, FakeOptions, FakeRegistry, Fault, Found, Locations, Request, TokenRules, When,
};
pub use images::{TestImage, TestIndex, TestLayer};
pub use leftovers::leftovers;
pub use mica::{Mica, Outcome, is_root, isolate, run_bounded, with_interrupt};
pub use needs::{Need, corpus, examples, find_tool, missing};
pub use peers::Peers;
pub use random::Random;
pub use registry_http::{HttpReply, RegistryHttp};
pub use s3_server::{S3Server, moto_dir};
pub use saved_image::{SavedImage, flattened_tar, tree_of_tar};
pub use tree::{Flattened, Kind, Node, Tree, changed, differences};
pub use web::{Page, Web, WebRequest};

/// The lower-case hexadecimal form of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The base64 form of bytes.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The sha256 of bytes, as hexadecimal text.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}
