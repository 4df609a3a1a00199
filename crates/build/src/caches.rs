//! Results of steps from elsewhere, and for there: what a build takes from caches, and what it leaves for them.

use std::collections::BTreeSet;
use std::sync::Mutex;

use mica_cache::{ExportedStep, Imports};

use crate::build::lock;

/// What a build takes from caches, and what it leaves for them. One value serves all platforms of a build.
#[derive(Default)]
pub struct Caches {
    /// Caches that results are taken from.
    pub imports: Imports,
    /// Whether results are gathered, to be exported when the build is done.
    pub gather: bool,
    /// Whether the image carries the results of its own steps.
    pub inline: bool,
    results: Mutex<Vec<ExportedStep>>,
    mounts: Mutex<BTreeSet<String>>,
}

impl Caches {
    /// Results of the builds that were done with this value.
    pub fn results(&self) -> Vec<ExportedStep> {
        lock(&self.results).clone()
    }

    /// Names in the store of the cache mounts that their steps have, whether they ran or not. The id is what stands before a
    /// NUL, if there is one.
    pub fn mounts(&self) -> Vec<String> {
        lock(&self.mounts).iter().cloned().collect()
    }

    pub(crate) fn add(&self, results: Vec<ExportedStep>, mounts: impl Iterator<Item = String>) {
        lock(&self.results).extend(results);
        lock(&self.mounts).extend(mounts);
    }
}
