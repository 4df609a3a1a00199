//! COPY and ADD.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use mica_diagnostic::Span;
use mica_layer::LayerError;
use mica_layer::apply::extract_archive;
use mica_layer::assemble::{AssembleOptions, Item, assemble};
use mica_layer::compress::{Compression, Limits, decompress};
use mica_layer::tar_entry::{TarLimits, TarReader};
use mica_plan::{CopySourceSpec, CopyStep, FileSource, PlannedSource};
use mica_store::Ingest;
use mica_trace::Watched;
use mica_tree::{Entry, Index, Kind, MergedIndex};

use crate::build::Build;
use crate::error::StepError;
use crate::filesystem::Chain;
use crate::outcomes::Made;
use crate::owner;
use crate::place::{
    Attributes, Origin, PlaceError, Placed, Placement, apply_chmod, clean, follow, join, matches,
};
use crate::previous::{self, FirstChange, Standing};
use crate::remote;
use crate::reuse::Key;
use crate::select::{self, Selection};
use crate::unpack::{UnpackError, copy_error, copy_with_holes};
use crate::verdict::Changed;

/// Directory in an ingest for what is unpacked.
const SPOOL: &str = "spool";

/// Where COPY and ADD look names up.
pub(crate) enum SourceTree {
    /// The build context.
    Context {
        /// The directory.
        directory: Arc<mica_context::SourceDir>,
        /// Its entries.
        merged: Arc<MergedIndex>,
    },
    /// A stage or an image.
    State {
        /// Its layers.
        chain: Arc<Chain>,
        /// What they show.
        merged: Arc<MergedIndex>,
    },
}

impl SourceTree {
    pub fn merged(&self) -> &MergedIndex {
        match self {
            Self::Context { merged, .. } | Self::State { merged, .. } => merged,
        }
    }

    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        match self {
            Self::Context { directory, .. } => {
                let entry = directory.index().get(path).ok_or(io::ErrorKind::NotFound)?;
                directory.open_file(entry).map_err(|error| io::Error::other(error.to_string()))
            }
            Self::State { chain, merged } => chain.open_file(merged, path),
        }
    }
}

/// What a COPY picked: for each source word, the paths that it names.
pub(crate) struct Picked {
    words: Vec<Vec<Vec<u8>>>,
    /// What stands for each word in the step's key, if it has to be fetched.
    remote: Vec<Option<Key>>,
}

/// Resolves the words of the instruction against the source.
pub(crate) fn pick(build: &Build<'_>, copy: &CopyStep, source: &SourceTree) -> Result<Picked, StepError> {
    let mut words = Vec::with_capacity(copy.sources.len());
    let mut remote = Vec::with_capacity(copy.sources.len());
    for planned in &copy.sources {
        let PlannedSource { spec, span } = planned;
        remote.push(remote::is_remote(spec).then(|| build.remote_key(copy, planned)).transpose()?);
        words.push(match spec {
            CopySourceSpec::Path(word) => {
                let named = match copy.parents {
                    true => select::beginnings(source.merged(), word),
                    false => matches(source.merged(), word),
                };
                named.map_err(|error| match error {
                    PlaceError::Missing { path } => missing(build, &copy.from, source.merged(), path, *span),
                    error => error.into(),
                })?
            }
            CopySourceSpec::Heredoc { .. } | CopySourceSpec::Url(_) | CopySourceSpec::Git(_) => Vec::new(),
        });
    }
    Ok(Picked { words, remote })
}

/// What is told of a source that is not there.
pub(crate) fn missing(
    build: &Build<'_>,
    from: &FileSource,
    tree: &MergedIndex,
    path: String,
    span: Span,
) -> StepError {
    StepError::SourceMissing {
        hidden_by: build.hidden_by(from, &path).map(Box::new),
        similar: similar(tree, &path).filter(|similar| *similar != path.trim_start_matches("./")),
        place: build.place_name(from),
        path,
        span,
    }
}

/// A name in the directory of `path` that differs in case or by little.
fn similar(tree: &MergedIndex, path: &str) -> Option<String> {
    let path = clean(path);
    let directory = mica_tree::parent(&path)?;
    let wanted = String::from_utf8_lossy(&path[directory.len()..]).trim_start_matches('/').to_lowercase();
    let real = follow(tree, directory).ok().flatten()?.path;
    let names = tree.list(&real).into_iter().map(|entry| String::from_utf8_lossy(entry.name()).into_owned());
    let close = |name: &String| {
        let name = name.to_lowercase();
        name == wanted
            || name.strip_suffix(&wanted).or(name.strip_prefix(&wanted)).is_some_and(|rest| rest.len() < 3)
    };
    names
        .into_iter()
        .find(close)
        .map(|name| String::from_utf8_lossy(&join(directory, name.as_bytes())).into_owned())
}

/// Digests for the step's key: of everything that is copied, without times.
pub(crate) struct Contents {
    /// What the sources hold, or `None` when that would mean reading files of the context.
    pub digest: Option<[u8; 32]>,
    /// The same without the contents of files.
    pub shape: [u8; 32],
}

/// BLAKE3 of many small pieces: it is made for large ones.
#[derive(Default)]
struct PieceHasher {
    hasher: blake3::Hasher,
    waiting: Vec<u8>,
}

impl PieceHasher {
    /// Enough for all lanes of the widest instructions.
    const WAITING_BYTES: usize = 64 << 10;

    fn update(&mut self, piece: &[u8]) {
        self.waiting.extend_from_slice(piece);
        if self.waiting.len() >= Self::WAITING_BYTES {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
    }

    fn finish(mut self) -> [u8; 32] {
        *self.hasher.update(&self.waiting).finalize().as_bytes()
    }
}

/// What the step would copy, as digests. `read` allows reading files whose digest is not known.
pub(crate) fn contents(
    copy: &CopyStep,
    source: &SourceTree,
    picked: &Picked,
    read: bool,
) -> Result<Contents, StepError> {
    let mut shape = PieceHasher::default();
    let mut files = Vec::new();
    for ((paths, remote), planned) in picked.words.iter().zip(&picked.remote).zip(&copy.sources) {
        let mark = |hasher: &mut PieceHasher, tag: &[u8], bytes: &[u8]| {
            hasher.update(tag);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        if let CopySourceSpec::Heredoc { content, .. } = &planned.spec {
            mark(&mut shape, b"heredoc", content.as_bytes());
            continue;
        }
        if let Some(key) = remote {
            mark(&mut shape, b"remote", key);
            continue;
        }
        let selection = Selection::of(copy, planned)?;
        mark(&mut shape, b"word", &(paths.len() as u64).to_le_bytes());
        for path in paths {
            mark(&mut shape, b"match", path);
            let Some(found) = follow(source.merged(), path)? else { continue };
            let real = found.path;
            // As `Placement::copy` asks: a directory that is copied is not hidden itself.
            let below = match found.entry.is_none_or(Entry::is_directory) {
                true => selection.inside(source.merged(), &real),
                false if !selection.takes_file(path) => continue,
                false => Vec::new(),
            };
            for entry in found.entry.filter(|_| !copy.parents).into_iter().chain(below) {
                let relative = entry.path.get(real.len()..).unwrap_or_default();
                mark(&mut shape, b"path", relative);
                let owner = matches!(source, SourceTree::State { .. }).then_some((entry.uid, entry.gid));
                let (uid, gid) = owner.unwrap_or_default();
                for number in [entry.mode, uid, gid] {
                    shape.update(&number.to_le_bytes());
                }
                // Those of files are in their digests.
                if !matches!(entry.kind, Kind::File { .. }) {
                    for (name, value) in &entry.xattrs {
                        mark(&mut shape, b"attribute", name);
                        mark(&mut shape, b"value", value);
                    }
                }
                match &entry.kind {
                    Kind::File { size, .. } => {
                        mark(&mut shape, b"file", &size.to_le_bytes());
                        files.push(entry);
                    }
                    Kind::Directory { .. } => mark(&mut shape, b"directory", b""),
                    Kind::Symlink { target } => mark(&mut shape, b"symlink", target),
                    Kind::Hardlink { target } => {
                        mark(&mut shape, b"hardlink", target);
                        files.extend(source.merged().entry_of_link(entry));
                    }
                    Kind::CharDevice { rdev } => mark(&mut shape, b"character", &numbers(*rdev)),
                    Kind::BlockDevice { rdev } => mark(&mut shape, b"block", &numbers(*rdev)),
                    Kind::Fifo => mark(&mut shape, b"pipe", b""),
                    Kind::Socket => mark(&mut shape, b"socket", b""),
                    Kind::Whiteout => mark(&mut shape, b"whiteout", b""),
                }
            }
        }
    }
    let shape = shape.finish();
    let mut hasher = PieceHasher::default();
    hasher.update(&shape);
    let complete = match source {
        SourceTree::State { .. } => {
            for file in &files {
                let Kind::File { content: Some(content), .. } = file.kind else {
                    return Ok(Contents { digest: None, shape });
                };
                hasher.update(&mica_context::identity(content, &file.xattrs));
            }
            true
        }
        SourceTree::Context { directory, .. } => {
            let mut next = 0;
            let mut position = |file: &&Entry| {
                let found = directory.index().position_near(&file.path, next)?;
                next = found + 1;
                Some(found)
            };
            let positions: Vec<usize> = files.iter().filter_map(&mut position).collect();
            if read || positions.iter().all(|position| directory.known_content(*position).is_some()) {
                for content in directory.content(&positions)? {
                    hasher.update(&content);
                }
                true
            } else {
                false
            }
        }
    };
    Ok(Contents { digest: complete.then(|| hasher.finish()), shape })
}

fn numbers(rdev: (u32, u32)) -> [u8; 8] {
    let (major, minor) = (u64::from(rdev.0), u64::from(rdev.1));
    (major << 32 | minor).to_le_bytes()
}

/// A COPY whose entries have their places and are not made yet.
pub(crate) struct Placing<'p> {
    placed: Vec<Placed>,
    previous: Option<(&'p Index, Vec<Standing>)>,
}

impl<'p> Placing<'p> {
    /// Compares with what the last result of the same instruction holds.
    pub fn beside(mut self, source: &SourceTree, previous: Option<&'p Index>) -> Result<Self, StepError> {
        self.previous = match previous {
            Some(previous) => Some((previous, previous::compare(source, &self.placed, previous)?)),
            None => None,
        };
        Ok(self)
    }

    /// The first path whose content, mode, kind or presence is not that of the last result; `None` if there is no such
    /// result or no such path.
    pub fn first_change(&self, build: &Build<'_>, copy: &CopyStep) -> Option<Changed> {
        let (previous, standings) = self.previous.as_ref()?;
        let FirstChange { path, in_source, change } =
            previous::first_change(&self.placed, standings, previous)?;
        let path = String::from_utf8_lossy(&path);
        let is_context = in_source && matches!(copy.from, FileSource::Context);
        Some(Changed {
            place: if in_source { build.place_name(&copy.from) } else { String::new() },
            path: if is_context { path.into_owned() } else { format!("/{path}") },
            what: change.what().to_owned(),
            old: change.old_in_words(),
            new: change.new_in_words(),
        })
    }

    /// Makes the layer in `ingest`.
    pub fn make(
        mut self,
        build: &Build<'_>,
        source: &SourceTree,
        ingest: &Ingest,
    ) -> Result<Made, StepError> {
        let mut known: &[Standing] = &[];
        if let Some((previous, standings)) = &self.previous {
            // A result that depends on the one before is none that anybody else would get.
            let with_times = build.times.fixed.is_none();
            previous::keep(&mut self.placed, standings, previous, with_times);
            known = standings;
        }
        let made = make_layer(build, Some(source), &self.placed, known, ingest)?;
        remove_spool(ingest)?;
        if let Some((previous, standings)) = &self.previous {
            previous::check_unchanged(&made.index, standings, previous)?;
        }
        if let SourceTree::Context { directory, .. } = source {
            remember(directory, &self.placed, &made.index);
        }
        Ok(made)
    }
}

/// Whether the layer of a COPY or ADD does not depend on where it is put, as `--link` says. Not with `--chmod`: BuildKit has
/// it so, and whoever knows that counts on what is there keeping its mode.
pub(crate) fn stands_alone(copy: &CopyStep) -> bool {
    copy.link && copy.chmod.is_none()
}

/// Whether a COPY or ADD asks nothing of the layers below: `--chown` with names looks them up there.
pub(crate) fn asks_nothing(copy: &CopyStep) -> bool {
    stands_alone(copy) && copy.chown.as_deref().is_none_or(owner::is_numeric)
}

/// Tells of several files that are copied onto one path: the last one stays, which is hardly what was meant.
fn warn_of_same_target(build: &Build<'_>, copy: &CopyStep, source: &SourceTree, picked: &Picked) {
    let is_file = |path: &&Vec<u8>| {
        let found = follow(source.merged(), path).ok().flatten();
        found.and_then(|found| found.entry).is_some_and(|entry| !entry.is_directory())
    };
    let files = picked.words.iter().flatten().filter(is_file).take(2).count();
    if files > 1 {
        let (keyword, to) = (if copy.add { "ADD" } else { "COPY" }, &copy.destination);
        let message =
            format!("{keyword} of several files to `{to}`, which is a file then: the last one stays");
        build.warn_once(&format!("{message}; write `{to}/` for a directory"));
    }
}

/// Decides what goes where. `lower` notes all that this depends on; archives are unpacked into `ingest`.
pub(crate) fn place(
    build: &Build<'_>,
    copy: &CopyStep,
    lower: &Watched<'_>,
    lower_chain: &Chain,
    source: &SourceTree,
    picked: &Picked,
    ingest: &Ingest,
) -> Result<Placing<'static>, StepError> {
    let owner = match &copy.chown {
        Some(chown) => Some(owner::resolve(chown, &|path| lower_chain.read_small(lower, path))?),
        // What the context says of owners is about this machine; what a stage says is about the image.
        None => matches!(source, SourceTree::Context { .. }).then_some((0, 0)),
    };
    let attributes = Attributes { owner, chmod: copy.chmod.clone(), time: build.time_of_new_directories() };
    // A layer that stands alone is made as if there were nothing below.
    let nothing = MergedIndex::default();
    let nothing = Watched::new(&nothing);
    let lower = if stands_alone(copy) { &nothing } else { lower };
    let mut placement = Placement::new(lower, attributes);
    let destination = placement.destination(&copy.destination)?;
    let written_as_directory = copy.destination.ends_with('/');
    if !written_as_directory && !copy.parents && !placement.is_directory(&destination) {
        warn_of_same_target(build, copy, source, picked);
    }
    for (paths, planned) in picked.words.iter().zip(&copy.sources) {
        match &planned.spec {
            CopySourceSpec::Heredoc { name, content } => {
                let into = written_as_directory || placement.is_directory(&destination);
                let path = if into { join(&destination, name.as_bytes()) } else { destination.clone() };
                let (uid, gid) = owner.unwrap_or_default();
                let mode = copy.chmod.as_ref().map_or(0o644, |chmod| apply_chmod(chmod, 0o644, false));
                let entry = Entry {
                    path,
                    kind: Kind::File { size: content.len() as u64, content: None },
                    mode,
                    uid,
                    gid,
                    mtime: build.time_of_new_directories(),
                    xattrs: Vec::new(),
                };
                placement.put(entry, Origin::Bytes(content.as_bytes().into()))?;
            }
            CopySourceSpec::Path(_) => {
                let selection = Selection::of(copy, planned)?;
                for path in paths {
                    let archive = Archive {
                        tree: source.merged(),
                        open: &|path| source.open(path),
                        path,
                        keep_owners: copy.chown.is_none(),
                    };
                    if copy.add
                        && copy.unpack != Some(false)
                        && archive.unpack(&destination, &mut placement, ingest)?
                    {
                        continue;
                    }
                    placement.copy(source.merged(), path, &destination, written_as_directory, &selection)?;
                }
            }
            CopySourceSpec::Url(_) | CopySourceSpec::Git(_) => {
                let files = build.remote_files(copy, planned)?;
                let into = written_as_directory || placement.is_directory(&destination);
                let path = files.path(into).map_err(|error| remote::at(planned.span, error))?;
                let archive = Archive {
                    tree: &files.merged,
                    open: &|path| files.open(path),
                    path,
                    keep_owners: copy.chown.is_none(),
                };
                // What comes from elsewhere is only unpacked where the instruction says so.
                if copy.unpack == Some(true) && archive.unpack(&destination, &mut placement, ingest)? {
                    continue;
                }
                placement.take_from(Some(files.root.clone()));
                let selection = Selection::of(copy, planned)?;
                placement.copy(&files.merged, path, &destination, written_as_directory, &selection)?;
                placement.take_from(None);
            }
        }
    }
    Ok(Placing { placed: placement.finish(), previous: None })
}

/// Unpacked files wait here until they are placed; a layer has no place for it.
fn remove_spool(ingest: &Ingest) -> mica_sys::Result<()> {
    let spool = ingest.path().join(SPOOL);
    match std::fs::remove_dir_all(&spool) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(mica_sys::Error::new("rmdir", spool, error))
        }
        _ => Ok(()),
    }
}

/// Copies the placed entries into the tree of `ingest`. `standings` are those of the placed, or empty when they are not known.
pub(crate) fn make_layer(
    build: &Build<'_>,
    source: Option<&SourceTree>,
    placed: &[Placed],
    standings: &[Standing],
    ingest: &Ingest,
) -> Result<Made, StepError> {
    use mica_layer::assemble::Source;
    let from_context = matches!(source, Some(SourceTree::Context { .. }));
    let items = placed
        .iter()
        .enumerate()
        .map(|(token, placed)| Item {
            entry: build.times.entry(&placed.entry),
            source: match &placed.origin {
                Origin::None => Source::None,
                Origin::Bytes(bytes) => Source::Bytes(bytes.clone()),
                // What a layer's index says of a file is complete; what a walk of the context says is not.
                Origin::Source(_) => Source::File {
                    token,
                    read_xattrs: from_context && !matches!(standings.get(token), Some(Standing::Same(_))),
                },
                Origin::Spooled(_) => Source::File { token, read_xattrs: false },
            },
        })
        .collect();
    let open = |token: usize| match &placed[token].origin {
        Origin::Source(path) => source.ok_or(io::ErrorKind::InvalidInput)?.open(path),
        Origin::Spooled(path) => File::open(path),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let tree = rustix::fs::open(
        ingest.tree(),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| mica_sys::Error::new("open", ingest.tree(), error))?;
    let options = AssembleOptions { rootless: build.rootless() };
    let assembled = assemble(tree.as_fd(), items, &open, options)?;
    Ok(Made {
        index: Arc::new(assembled.index),
        diff_id: assembled.diff_id,
        tar_size_bytes: assembled.tar_size_bytes,
    })
}

/// Digests that were computed on the way need not be computed again by the next build.
fn remember(directory: &mica_context::SourceDir, placed: &[Placed], index: &Index) {
    let mut next = 0;
    for (placed, made) in placed.iter().zip(index.entries()) {
        if let (Origin::Source(path), Kind::File { content: Some(content), .. }) =
            (&placed.origin, &made.kind)
            && let Some(mut position) = directory.index().position_near(path, next)
        {
            next = position + 1;
            if let Kind::Hardlink { target } = &directory.index().entries()[position].kind {
                let Some(first) = directory.index().position(target) else { continue };
                position = first;
            }
            directory.remember(position, mica_context::identity(*content, &made.xattrs));
        }
    }
}

/// A file that ADD may unpack.
struct Archive<'a> {
    /// Where it stands.
    tree: &'a MergedIndex,
    /// Opens files of the tree.
    open: &'a dyn Fn(&[u8]) -> io::Result<File>,
    /// Its name there.
    path: &'a [u8],
    /// Whether owners are the archive's own.
    keep_owners: bool,
}

impl Archive<'_> {
    /// Unpacks the file if it is an archive; false when it is not.
    fn unpack(
        &self,
        destination: &[u8],
        placement: &mut Placement<'_>,
        ingest: &Ingest,
    ) -> Result<bool, StepError> {
        let Some(found) = follow(self.tree, self.path)? else { return Ok(false) };
        let Some(Kind::File { .. } | Kind::Hardlink { .. }) = found.entry.map(|entry| &entry.kind) else {
            return Ok(false);
        };
        let name = String::from_utf8_lossy(self.path).into_owned();
        let failed = |error: io::Error| mica_sys::Error::new("open", &name, error);
        if !is_archive((self.open)(&found.path).map_err(failed)?) {
            return Ok(false);
        }
        let wrong = |source: UnpackError| StepError::Unpack { name: name.clone(), source: source.into() };
        let (_, content) = decompress((self.open)(&found.path).map_err(failed)?, Limits::default())
            .map_err(|error| wrong(error.into()))?;
        unpack(content, destination, !self.keep_owners, placement, ingest, &wrong)?;
        Ok(true)
    }
}

/// Unpacks a tar into the layer.
fn unpack(
    content: impl io::Read,
    destination: &[u8],
    chown: bool,
    placement: &mut Placement<'_>,
    ingest: &Ingest,
    wrong: &dyn Fn(UnpackError) -> StepError,
) -> Result<(), StepError> {
    let spool = ingest.path().join(SPOOL);
    std::fs::create_dir_all(&spool).map_err(|error| mica_sys::Error::new("mkdir", &spool, error))?;
    placement.make_directory(destination)?;
    let mut entries = Vec::new();
    extract_archive(io::BufReader::new(content), TarLimits::default(), &mut |entry,
                                                                             content|
     -> Result<(), StepError> {
        let origin = if let Kind::File { .. } = entry.kind {
            let path = spool.join(entries.len().to_string());
            let mut file = File::create(&path).map_err(|error| mica_sys::Error::new("open", &path, error))?;
            copy_with_holes(content, &mut file)
                .map_err(|error| wrong(copy_error(error, &path.to_string_lossy())))?;
            Origin::Spooled(path)
        } else {
            Origin::None
        };
        entries.push((entry, origin));
        Ok(())
    })
    .map_err(|error| match error {
        StepError::Archive(error) => wrong(error.into()),
        error => error,
    })?;
    for (mut entry, origin) in entries {
        if entry.path.is_empty() {
            continue;
        }
        let own_path = std::mem::take(&mut entry.path);
        entry.path = join(destination, &own_path);
        let mut own_target = None;
        if let Kind::Hardlink { target } = &mut entry.kind {
            own_target = Some(std::mem::replace(target, join(destination, target)));
        }
        // Owners are the archive's own, unless the instruction names one.
        if chown {
            placement.give_owner(&mut entry);
        }
        placement.put_unpacked(entry, origin).map_err(|error| match (error, own_target) {
            (PlaceError::Missing { .. }, Some(target)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                wrong(UnpackError::LinkOutside { path: text(&own_path), target: text(&target) })
            }
            (error, _) => error.into(),
        })?;
    }
    Ok(())
}

/// Whether the file is a tar, compressed or not: judged by its first header, as docker does, not by its name.
fn is_archive(file: File) -> bool {
    let Ok((compression, content)) = decompress(file, Limits::default()) else { return false };
    let mut reader = TarReader::new(io::BufReader::new(content), TarLimits::default());
    match reader.next_entry() {
        Ok(Some(_)) => true,
        // An empty tar has nothing that would tell it from a file of zeros, unless it was compressed.
        Ok(None) => compression != Compression::None,
        Err(LayerError::Header { .. } | LayerError::Truncated { .. } | LayerError::Read { .. }) => false,
        // A header that holds together and says something that no layer may have: unpacking tells what.
        Err(_) => true,
    }
}
