//! Copies between all kinds of places.

mod hostile;
mod places;
mod registries;
mod support;
