//! What images show, as plain files: in a tar, with their owners.

use std::io::{self, Read, Write};

use mica_layer::write_tar::{END, encode_header};
use mica_oci::{DiffId, Platform};
use mica_tree::{Entry, Flat, Kind, Time, compare_paths};

use super::{ExportContext, ExportError, ExportSource};
use crate::chain::Chain;
use crate::error::Result;
use crate::remake::Stack;
use crate::save::{write_error, write_padding};

/// The files of images, each in a directory of its own if there are several platforms.
pub struct FileTree {
    pub(super) stacks: Vec<(Stack, Vec<Flat>)>,
}

impl FileTree {
    /// Looks up what the images show. With `split`, each stands in a directory named for its platform (`linux_arm64`); without,
    /// one lies over the other. With `time`, every file has it (seconds since 1970).
    pub fn of(
        context: &ExportContext<'_>,
        sources: &[ExportSource],
        split: bool,
        time: Option<i64>,
    ) -> Result<Self> {
        let mut stacks = Vec::new();
        for source in sources {
            let diff_ids: Vec<DiffId> =
                source.image.layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
            let chain = Chain::of_image(context.store, &diff_ids)?;
            let layers: Vec<_> = chain
                .layers()
                .iter()
                .map(|layer| (&layer.record.diff_id, layer.record.chain_id.as_ref()))
                .collect();
            context.lease.protect_layers(&layers)?;
            let stack = Stack::of(chain.layers())?;
            let mut flat = stack.merged.flatten(0);
            if let Some(seconds) = time {
                for Flat { entry, .. } in &mut flat {
                    entry.mtime = Time { seconds, nanoseconds: 0 };
                }
            }
            if split {
                flat = below(&platform_directory(&source.platform), flat, time);
            }
            stacks.push((stack, flat));
        }
        Ok(Self { stacks })
    }

    /// How long all files together are.
    pub fn size_bytes(&self) -> u64 {
        let entries = self.stacks.iter().flat_map(|(_, flat)| flat);
        entries.map(|flat| size_of(&flat.entry)).fold(0, u64::saturating_add)
    }
}

pub(super) fn size_of(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    }
}

/// As buildkit names it: `linux_arm_v7`.
fn platform_directory(platform: &Platform) -> String {
    platform.specifier().replace('/', "_")
}

fn below(directory: &str, flat: Vec<Flat>, time: Option<i64>) -> Vec<Flat> {
    let inside = |path: &[u8]| match path {
        b"" => directory.as_bytes().to_vec(),
        path => [directory.as_bytes(), b"/", path].concat(),
    };
    let mut moved: Vec<Flat> = Vec::with_capacity(flat.len() + 1);
    if flat.first().is_none_or(|first| !first.entry.path.is_empty()) {
        let mtime = Time { seconds: time.unwrap_or_default(), nanoseconds: 0 };
        let kind = Kind::Directory { opaque: false, implied: false };
        let entry = Entry { path: inside(b""), kind, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
        moved.push(Flat { entry, position: None });
    }
    for Flat { mut entry, position } in flat {
        entry.path = inside(&entry.path);
        if let Kind::Hardlink { target } = &mut entry.kind {
            *target = inside(target);
        }
        moved.push(Flat { entry, position });
    }
    moved
}

/// Writes all files as one tar. Of those that lie over each other, the last one is what an unpacked tar has.
pub fn write_files_tar(context: &ExportContext<'_>, files: &FileTree, out: &mut dyn Write) -> Result<()> {
    let mut out = io::BufWriter::with_capacity(256 << 10, out);
    let mut header = Vec::new();
    for (stack, flat) in &files.stacks {
        for Flat { entry, position } in flat {
            context.check()?;
            header.clear();
            let first = match &entry.kind {
                Kind::Hardlink { target } => {
                    let found = flat.binary_search_by(|other| compare_paths(&other.entry.path, target));
                    found.ok().and_then(|at| flat.get(at)).map(|flat| &flat.entry)
                }
                _ => None,
            };
            encode_header(entry, first, &mut header);
            out.write_all(&header).map_err(write_error)?;
            if let (Kind::File { size, .. }, Some(position)) = (&entry.kind, position) {
                copy_file(stack, *position, entry, *size, &mut out)
                    .map_err(|failure| failure.of(write_error))?;
                write_padding(&mut out, *size)?;
            }
        }
    }
    out.write_all(&END).map_err(write_error)?;
    out.flush().map_err(write_error)
}

/// How copying a file failed.
pub(super) enum CopyFailure {
    /// On this side.
    Read(crate::error::ImageError),
    /// Where it goes.
    Write(io::Error),
}

impl CopyFailure {
    pub fn of(self, write: impl FnOnce(io::Error) -> crate::error::ImageError) -> crate::error::ImageError {
        match self {
            Self::Read(error) => error,
            Self::Write(source) => write(source),
        }
    }
}

/// Copies a file that must be as long as the index of its layer says.
pub(super) fn copy_file(
    stack: &Stack,
    position: usize,
    entry: &Entry,
    size_bytes: u64,
    out: &mut impl Write,
) -> std::result::Result<(), CopyFailure> {
    let path = || String::from_utf8_lossy(&entry.path).into_owned();
    let read = |source| CopyFailure::Read(mica_sys::Error::new("open", path(), source).into());
    let mut file = stack.open(position).map_err(read)?;
    let mut buffer = vec![0; 256 << 10];
    let mut left = size_bytes;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() && left == 0 {
            return Ok(());
        }
        let rest = left.checked_sub(count as u64).filter(|_| !bytes.is_empty());
        left = rest.ok_or_else(|| CopyFailure::Read(ExportError::Length { path: path() }.into()))?;
        out.write_all(bytes).map_err(CopyFailure::Write)?;
    }
}
