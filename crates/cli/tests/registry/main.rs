//! Pulls and pushes, whole: the built program against registries, honest ones and others.

mod bad_input;
mod faults;
mod kills;
mod peers;
mod support;
