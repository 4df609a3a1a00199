//! The grammar of the wire between a registry and its clients: one spelling for both sides.
//!
//! Here are paths, error bodies, challenges, ranges, pages and token replies as values: parsed from text, written as text.
//! Not here: sending and receiving (`mica-registry-client`), documents and references (`mica-oci`). This room does no IO and
//! knows no clock.
//!
//! # Nouns
//!
//! [`Route`]: what a path under `/v2/` asks for; [`Item`]: the part of it below a repository. [`ErrorCode`], [`ErrorReply`]:
//! what a registry says when it refuses. [`Challenge`]: how it wants to be asked (`WWW-Authenticate`). [`Scope`]: what a
//! token is good for; [`TokenReply`]: such a token. [`range::ByteRange`], [`range::ContentRange`]: parts of a blob, and of an
//! upload, which the specs write differently. [`pagination`]: the link to the next page.
//!
//! # Invariants
//!
//! 1. No input makes this room panic, and what is kept of foreign text is bounded.
//! 2. What is written reads back as the same value.
//! 3. Texts that come from the other side are shown by [`printable`] only: no control character of theirs reaches a terminal.
//! 4. Parsing decides nothing about trust: whether a link or realm on another host may be followed is the caller's to say.
//!
//! # On the wire
//!
//! Distribution spec 1.1.1, ends 1 to 14; `_catalog` and the token protocol of docker's registry; docker's search v1.
//!
//! Everything is a plain value: nothing to lock, nothing that a kill could leave behind.
//!
//! Start reading at `route.rs`, then `auth_challenge.rs`. Tables stand in each file; `tests/properties.rs` holds the room to
//! invariants 1 and 2 with random input.

pub mod auth_challenge;
pub mod error_code;
pub mod pagination;
mod printable;
pub mod range;
pub mod route;
pub mod token;

pub use auth_challenge::Challenge;
pub use error_code::{ErrorCode, ErrorEntry, ErrorReply};
pub use printable::printable;
pub use route::{Item, ManifestName, Page, Route, RouteError};
pub use token::{Scope, TokenReply};
