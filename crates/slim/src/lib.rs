//! Slim images: an image is run over files that are served, and what it used becomes an image of its own.
//!
//! Not here: how files are served and what is noted of it (`mica-trace`), containers (`mica-container`), how a layer is
//! made (`mica-layer`), flags and tables (`mica`, the command line).
//!
//! # Nouns
//!
//! *trial* one run of a command in a container of its own; *traced* over served files, so that each use is known;
//! *proof* the same trial on the result, over plain files; *used* looked up by a traced trial, whether it was read or not;
//! *rule* what is kept although nobody used it; *package* what dpkg or apk say belongs together.
//!
//! # Invariants
//!
//! 1. Whatever a traced trial looked up and found is in the result, with its attributes and all directories above it: the
//!    same trial finds all of it again.
//! 2. The result gets its name only after every trial has succeeded on it; the image that it came from is not touched.
//! 3. Every trial ends: by itself, or when its time is up.
//! 4. A trial is not recorded by halves: if the server of its files died, or there were more uses than can be noted, there
//!    is no result.
//!
//! Start reading at `slim.rs`. Tests: tables beside the pure parts (`http_check`, `packages`, `keep`, `pick`), whole images
//! through the command line (`cli/tests/slim.rs`).

mod error;
mod http;
mod http_check;
mod keep;
#[cfg(test)]
mod keep_tests;
mod lines;
mod make;
mod packages;
mod pick;
mod report;
mod slim;
mod stack;
mod trial;

pub use error::{Failure, SlimError};
pub use http_check::{HttpCheck, HttpCheckError};
pub use report::{Amount, RemovedDirectory, Slimmed};
pub use slim::{SlimRequest, default_name, slim};
pub use trial::{Ending, Event, Trial, parse_words};
