//! Containers, whole: the built program on a store of its own.

mod background;
mod builder;
mod docker_arguments;
mod foreground;
mod limits;
mod rootless;
mod support;
mod terminal;
