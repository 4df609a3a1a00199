//! Soundness and precision of the build cache, seen through the binary.
//!
//! A step is a hit when nothing that it used has changed. Two ways to be wrong: a stale result (`differential` looks for
//! one at random, `faults` with broken stores and machines), and a step that runs although it need not (`naive` has a table).

mod differential;
mod edit;
mod faults;
mod naive;
mod packages;
mod progress;
mod project;
mod real;
mod real_bench;
mod real_edit;
mod real_table;
mod scenario;
mod steps;
