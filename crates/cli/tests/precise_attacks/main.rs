//! Attempts to have a step taken over although running it would make something else: each edit changes one thing that a
//! process can learn of the files below it, and the build after it must be what a build without any earlier result is.

mod attributes;
mod below;
mod bench;
mod beside;
mod copies;
mod running;
