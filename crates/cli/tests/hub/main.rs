//! Whole commands with a registry on loopback in Docker Hub's place: what people read, and what the registry is asked.

mod build;
mod pull;
mod push;
mod run;
mod search;
mod support;
mod terminal;
mod tutorial;
