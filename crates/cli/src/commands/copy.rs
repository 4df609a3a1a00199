//! `mica copy`: an image from one place to another, without the store in between.

use std::path::PathBuf;

use mica_image::{LayerState, TransferEvent};
use mica_oci::{Digest, Platform};
use mica_transfer::{BlobState, CopyEvent, CopyOptions, Place};

use crate::commands::remote::client;
use crate::error::CliError;
use crate::format::output::print;
use crate::progress::{Stream, Transfer};

/// Flags of `mica copy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Places:
  docker://NAME[:TAG|@DIGEST]   a registry; NAME alone is one too
  oci:DIR[:TAG]                 a directory with an OCI layout
  oci-archive:FILE[:TAG]        a tar with an OCI layout
  docker-archive:FILE[:NAME]    a tar as `docker save` writes it: one platform
  ./PATH, /PATH                 a layout or archive that is there

The digest of what is at DST is printed; it is the one at SRC.")]
pub(crate) struct Args {
    /// Copy this platform's image alone [default: all]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Accepted for skopeo's sake: all platforms are copied unless one is named
    #[arg(short, long, hide = true)]
    all: bool,
    /// Where the image is
    #[arg(value_name = "SRC")]
    from: String,
    /// Where it goes
    #[arg(value_name = "DST")]
    to: String,
}

/// Copies.
pub(crate) fn run(args: Args) -> Result<u8, CliError> {
    if args.all && args.platform.is_some() {
        return Err(CliError::new("`--all` cannot be used with `--platform`").code(2));
    }
    let options = CopyOptions {
        platform: args.platform.as_deref().map(Platform::parse).transpose()?,
        spool_dir: spool_dir(),
    };
    let (from, to) = (Place::parse(&args.from)?, Place::parse(&args.to)?);
    let progress = Progress::start(args.quiet);
    let client = client()?;
    let copied = mica_transfer::copy(&client, &from, &to, &options, &|event| progress.tell(event));
    drop(progress);
    print(&format!("{}\n", copied?.digest))?;
    Ok(0)
}

/// Where bytes wait on their way: the user's choice, else a directory that is not in memory.
pub(crate) fn spool_dir() -> Option<PathBuf> {
    std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// How a copy goes, on stderr: bars on a terminal, a line a blob elsewhere.
enum Progress {
    Bars(Box<Transfer>, std::sync::Mutex<Vec<Digest>>),
    Lines,
    Nothing,
}

impl Progress {
    fn start(quiet: bool) -> Self {
        match (quiet, Stream::Err.size()) {
            (true, _) => Self::Nothing,
            (false, Some(_)) => {
                Self::Bars(Box::new(Transfer::start(Stream::Err)), std::sync::Mutex::default())
            }
            (false, None) => Self::Lines,
        }
    }

    fn tell(&self, event: CopyEvent) {
        match self {
            Self::Nothing => {}
            Self::Lines => {
                if let Some(line) = line(&event) {
                    Stream::Err.line(&line);
                }
            }
            Self::Bars(transfer, blobs) => {
                let mut known = blobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                match event {
                    CopyEvent::Planned { blobs, .. } => {
                        *known = blobs.into_iter().map(|(digest, _)| digest).collect();
                        transfer.tell(TransferEvent::Layers(known.clone()));
                    }
                    CopyEvent::Blob { digest, state } => {
                        let Some(position) = known.iter().position(|known| *known == digest) else { return };
                        transfer.tell(TransferEvent::Layer { position, state: layer_state(state) });
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The same in docker's words of a push.
fn layer_state(state: BlobState) -> LayerState {
    match state {
        BlobState::Copying(so_far, of) => LayerState::Pushing(so_far, of),
        BlobState::Copied => LayerState::Pushed,
        BlobState::Exists => LayerState::LayerAlreadyExists,
        BlobState::MountedFrom(name) => LayerState::MountedFrom(name),
        BlobState::SkippedForeign => LayerState::SkippedForeign,
    }
}

/// What is written of an event where there is no terminal.
fn line(event: &CopyEvent) -> Option<String> {
    Some(match event {
        CopyEvent::Blob { digest, state } => {
            let outcome = match state {
                BlobState::Copying(..) => return None,
                BlobState::Copied => "done".to_owned(),
                BlobState::Exists => "skipped: already exists".to_owned(),
                BlobState::MountedFrom(name) => format!("mounted from {name}"),
                BlobState::SkippedForeign => "skipped: foreign layer".to_owned(),
            };
            format!("Copying blob {} {outcome}", digest.short())
        }
        CopyEvent::WritingManifests => "Writing manifest to destination".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(state: BlobState, expect: Option<&str>) {
        let digest = Digest::sha256(b"");
        assert_eq!(line(&CopyEvent::Blob { digest, state }).as_deref(), expect);
    }

    #[test]
    fn lines() {
        check(BlobState::Copying(1, 2), None);
        check(BlobState::Copied, Some("Copying blob e3b0c44298fc done"));
        check(BlobState::Exists, Some("Copying blob e3b0c44298fc skipped: already exists"));
        check(BlobState::MountedFrom("a/b".into()), Some("Copying blob e3b0c44298fc mounted from a/b"));
        check(BlobState::SkippedForeign, Some("Copying blob e3b0c44298fc skipped: foreign layer"));
        assert_eq!(line(&CopyEvent::WritingManifests).as_deref(), Some("Writing manifest to destination"));
    }
}
