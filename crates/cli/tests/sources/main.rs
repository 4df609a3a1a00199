//! All that a build fetches or reads as a source: ADD of URLs and git, contexts of every kind, and what is refused.

mod add_git;
mod add_url;
mod archives;
mod contexts;
mod epoch;
mod named;
mod support;
