//! Results of steps that travel: `--cache-to` on one machine, `--cache-from` on another.

mod bucket;
mod flags;
mod kills;
mod local;
mod mounts;
mod registry;
mod secrets;
mod support;
