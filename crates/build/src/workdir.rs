//! WORKDIR: a directory that has to exist.

use mica_plan::WorkdirStep;
use mica_store::Ingest;
use mica_trace::Watched;
use mica_tree::Kind;

use crate::build::Build;
use crate::error::StepError;
use crate::exec_copy;
use crate::filesystem::Chain;
use crate::outcomes::Made;
use crate::owner;
use crate::place::{Attributes, Placement};

/// Makes the layer that has the directory, empty when it was there. `lower` notes what that depends on.
pub(crate) fn execute(
    build: &Build<'_>,
    workdir: &WorkdirStep,
    lower: &Watched<'_>,
    chain: &Chain,
    ingest: &Ingest,
) -> Result<Made, StepError> {
    let owner = match workdir.user.is_empty() {
        true => (0, 0),
        false => owner::resolve(&workdir.user, &|path| chain.read_small(lower, path))?,
    };
    let attributes = Attributes { owner: Some(owner), chmod: None, time: build.time_of_new_directories() };
    let mut placement = Placement::new(lower, attributes);
    let path = placement.destination(&workdir.path)?;
    placement.make_directory(&path)?;
    let mut placed = placement.finish();
    if placed.iter().all(|placed| matches!(placed.entry.kind, Kind::Directory { implied: true, .. })) {
        placed.clear();
    }
    exec_copy::make_layer(build, None, &placed, &[], ingest)
}
