//! Bind mounts of RUN where steps cannot be traced: all of what is mounted counts, and is copied to where the step finds
//! it, because neither the context nor a stack of layers is a directory that could be mounted as it is.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mica_diagnostic::Span;
use mica_layer::assemble::{AssembleOptions, Item, Source, assemble};
use mica_plan::{CopySourceSpec, CopyStep, FileSource, PlannedSource};
use mica_sys::error::ErrorAt;
use mica_trace::Files;
use mica_tree::{Entry, Kind};
use rustix::fs::{Mode, OFlags};

use crate::build::Build;
use crate::error::StepError;
use crate::exec_copy;
use crate::outcomes::Outcomes;
use crate::place::{PlaceError, clean, follow};
use crate::traced::{StepTree, TreeBytes};

/// Name of a mounted file, or of the mounted directory, in the directory that it is copied to.
const NAME: &[u8] = b"mounted";

/// A digest of all that stands at `source` in the context.
pub(crate) fn context_contents(
    build: &Build<'_>,
    source: &str,
    span: Span,
    outcomes: &Outcomes,
) -> Result<[u8; 32], StepError> {
    // As if it were copied.
    let copy = CopyStep {
        add: false,
        from: FileSource::Context,
        sources: vec![PlannedSource {
            // Without its slash, as people write it.
            spec: CopySourceSpec::Path(
                source.strip_prefix('/').filter(|path| !path.is_empty()).unwrap_or(source).to_owned(),
            ),
            span,
        }],
        destination: "/".into(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        excludes: Vec::new(),
        checksum: None,
        keep_git_dir: false,
        unpack: None,
    };
    let tree = build.source(&copy.from, outcomes)?;
    let picked = exec_copy::pick(build, &copy, &tree)?;
    let contents = exec_copy::contents(&copy, &tree, &picked, true)?;
    Ok(contents.digest.unwrap_or(contents.shape))
}

/// Copies what stands at `source` in the tree into `directory`, and answers where it is to be mounted from.
pub(crate) fn materialize(
    rootless: bool,
    tree: &StepTree,
    source: &str,
    directory: PathBuf,
) -> Result<PathBuf, StepError> {
    let path = clean(source);
    let missing = || PlaceError::Missing { path: source.to_owned() };
    let found = follow(&tree.merged, &path)?.ok_or_else(missing)?;
    let root = Entry {
        path: Vec::new(),
        kind: Kind::Directory { opaque: false, implied: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: mica_trace::SHOWN_TIME,
        xattrs: Vec::new(),
    };
    let top = found.entry.cloned().unwrap_or(root);
    let below = top.is_directory().then(|| tree.merged.walk(&found.path)).into_iter().flatten();
    let read_xattrs = matches!(tree.bytes, TreeBytes::Context(_));
    let (mut items, mut origins) = (Vec::new(), Vec::new());
    for entry in std::iter::once(&top).chain(below) {
        let mut copied = Entry { path: below_name(&found.path, &entry.path), ..entry.clone() };
        // The first name of a hard link may stand outside of what is mounted; a file of its own shows the same.
        if let Some(file) = tree.merged.entry_of_link(entry) {
            copied = Entry { path: copied.path, ..file.clone() };
        }
        // As it is where files are served: the same step gives the same result with tracing and without.
        if !matches!(copied.kind, Kind::File { .. }) {
            copied.mtime = mica_trace::SHOWN_TIME;
        }
        let source = match copied.kind {
            Kind::File { .. } => {
                origins.push(tree.merged.position(&entry.path));
                Source::File { token: origins.len() - 1, read_xattrs }
            }
            _ => Source::None,
        };
        items.push(Item { entry: copied, source });
    }
    let open = |token: usize| -> std::io::Result<File> {
        let position = origins.get(token).copied().flatten().ok_or(std::io::ErrorKind::NotFound)?;
        tree.bytes.open(&tree.merged, position)
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let into = rustix::fs::open(&directory, flags, Mode::empty()).at("open", &directory)?;
    assemble(into.as_fd(), items, &open, AssembleOptions { rootless })?;
    Ok(directory.join(Path::new("mounted")))
}

/// The path of an entry, which stands at or below `root`, at or below [`NAME`].
fn below_name(root: &[u8], path: &[u8]) -> Vec<u8> {
    let inside = path.strip_prefix(root).unwrap_or(path);
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    match inside {
        b"" => NAME.to_vec(),
        inside => [NAME, b"/", inside].concat(),
    }
}
