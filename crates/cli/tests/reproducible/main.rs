//! Builds of the same sources: times that are told, digests that are the same everywhere, and `--verify`.

mod debian;
mod digests;
mod epoch;
mod support;
mod verify;
