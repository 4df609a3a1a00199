//! The Dockerfile language with the real binary: what is built, and what is told.

mod args;
mod check;
mod config;
mod copy;
mod support;
mod syntax;
