//! Transfers as lines, in docker's words: one for each change of a layer, none for its bytes.

use std::borrow::Cow;

use mica_image::{LayerState, TransferEvent};
use mica_oci::Digest;

/// Remembers what layers are called, and what was said of each.
#[derive(Default)]
pub(super) struct Lines {
    layers: Vec<(String, String)>,
}

impl Lines {
    /// What happened, as lines.
    pub fn text(&mut self, event: TransferEvent) -> String {
        match event {
            TransferEvent::Layers(digests) => {
                self.layers = names(&digests).into_iter().map(|name| (name, String::new())).collect();
                String::new()
            }
            TransferEvent::Layer { position, state } => {
                let Some((name, said)) = self.layers.get_mut(position) else { return String::new() };
                let (word, amount) = words(&state);
                if amount.is_some() || *said == word {
                    return String::new();
                }
                *said = word.clone().into_owned();
                // docker says so before it compares digests; here they are compared while the bytes come.
                let before = match state {
                    LayerState::DownloadComplete => format!("{name}: Verifying Checksum\n"),
                    _ => String::new(),
                };
                format!("{before}{name}: {word}\n")
            }
            TransferEvent::Warning(_) => String::new(),
        }
    }
}

/// What layers are called.
pub(super) fn names(digests: &[Digest]) -> Vec<String> {
    digests.iter().map(|digest| digest.short().to_owned()).collect()
}

/// A state in docker's words, and bytes done of all where it has them.
pub(super) fn words(state: &LayerState) -> (Cow<'static, str>, Option<(u64, u64)>) {
    let (word, amount) = match state {
        LayerState::PullingFsLayer => ("Pulling fs layer", None),
        LayerState::Waiting => ("Waiting", None),
        LayerState::Downloading(done, all) => ("Downloading", Some((*done, *all))),
        LayerState::DownloadComplete => ("Download complete", None),
        LayerState::Extracting(done, all) => ("Extracting", Some((*done, *all))),
        LayerState::PullComplete => ("Pull complete", None),
        LayerState::AlreadyExists => ("Already exists", None),
        LayerState::Preparing => ("Preparing", None),
        LayerState::Compressing(done, all) => ("Compressing", Some((*done, *all))),
        LayerState::Pushing(done, all) => ("Pushing", Some((*done, *all))),
        LayerState::Pushed => ("Pushed", None),
        LayerState::LayerAlreadyExists => ("Layer already exists", None),
        LayerState::SkippedForeign => ("Skipped foreign layer", None),
        LayerState::MountedFrom(repository) => return (format!("Mounted from {repository}").into(), None),
        LayerState::Retrying(0) => ("Retrying", None),
        LayerState::Retrying(seconds) => {
            let plural = if *seconds == 1 { "" } else { "s" };
            return (format!("Retrying in {seconds} second{plural}").into(), None);
        }
    };
    (word.into(), amount)
}

/// Whether a layer needs nothing more.
pub(super) fn is_done(state: &LayerState) -> bool {
    matches!(
        state,
        LayerState::PullComplete
            | LayerState::AlreadyExists
            | LayerState::Pushed
            | LayerState::LayerAlreadyExists
            | LayerState::MountedFrom(_)
            | LayerState::SkippedForeign
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States of the only layer, and the lines that they give.
    #[track_caller]
    fn check(states: &[LayerState], expect: &[&str]) {
        let mut lines = Lines::default();
        let digest = Digest::sha256(b"x");
        assert_eq!(lines.text(TransferEvent::Layers(vec![digest.clone()])), "");
        let told =
            states.iter().map(|state| lines.text(TransferEvent::Layer { position: 0, state: state.clone() }));
        let told: String = told.collect();
        let expect: String = expect.iter().map(|line| format!("{}: {line}\n", digest.short())).collect();
        assert_eq!(told, expect);
    }

    #[test]
    fn a_line_a_change() {
        use LayerState::*;
        check(
            &[
                PullingFsLayer,
                Waiting,
                Downloading(0, 9),
                Downloading(9, 9),
                DownloadComplete,
                Extracting(3, 9),
                PullComplete,
            ],
            &["Pulling fs layer", "Waiting", "Verifying Checksum", "Download complete", "Pull complete"],
        );
        check(&[AlreadyExists], &["Already exists"]);
        check(&[Waiting, Waiting, Waiting], &["Waiting"]);
        check(
            &[PullingFsLayer, Downloading(1, 2), Retrying(1), Downloading(1, 2), Retrying(5), Retrying(0)],
            &["Pulling fs layer", "Retrying in 1 second", "Retrying in 5 seconds", "Retrying"],
        );
        check(&[Preparing, Waiting, Pushing(1, 2), Pushed], &["Preparing", "Waiting", "Pushed"]);
        check(&[Preparing, LayerAlreadyExists], &["Preparing", "Layer already exists"]);
        check(&[MountedFrom("library/x".to_owned())], &["Mounted from library/x"]);
        check(&[SkippedForeign], &["Skipped foreign layer"]);
    }

    #[test]
    fn what_nobody_announced_is_not_told() {
        let mut lines = Lines::default();
        assert_eq!(lines.text(TransferEvent::Layer { position: 7, state: LayerState::Pushed }), "");
        assert_eq!(lines.text(TransferEvent::Warning("w".to_owned())), "");
    }
}
