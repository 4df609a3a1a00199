//! What a record says, as bytes and against trees.

mod codec;
mod trees;
mod verify;
mod watched;
