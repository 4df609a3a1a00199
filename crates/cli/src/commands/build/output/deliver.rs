//! Bringing a result to where it goes. What is written is written while progress is shown; what is pushed comes after, with
//! the lines of a push.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use mica_build::{BuildRequest, Built, Event, Events};
use mica_image::{
    ArchiveKind, CompressedLayers, Export, ExportContext, ExportOptions, ExportSource, FileTree, ImageError,
    LocalMode, PushExport, TransferEvent, platform_in_index, prepare_export, rewrite_image_times,
    write_files_tar, write_local,
};
use mica_oci::{Descriptor, MANIFEST_SIZE_BYTES_MAX, Reference};
use mica_store::Store;

use super::{Destination, ImageKeys, Metadata, Output, Outputs};
use crate::commands::build::args::Args;
use crate::commands::{build, push, remote};
use crate::error::CliError;
use crate::format::output::write_whole;
use crate::progress::{Stream, Transfer};

/// What bringing a result elsewhere needs.
pub(in crate::commands::build) struct Delivery<'a> {
    pub args: &'a Args,
    pub store: &'a Store,
    pub rootless: bool,
    pub interrupted: &'a AtomicBool,
    /// While it is not nought, the first signal ends the process.
    pub is_transferring: &'a AtomicUsize,
}

/// The same with a finished build, while progress is shown.
struct Exporting<'a> {
    delivery: &'a Delivery<'a>,
    request: &'a BuildRequest,
    built: &'a Built,
    events: &'a Events<'a>,
    compressed: CompressedLayers,
}

impl<'a> std::ops::Deref for Exporting<'a> {
    type Target = Delivery<'a>;

    fn deref(&self) -> &Delivery<'a> {
        self.delivery
    }
}

/// What is still to be done when progress is over.
pub(in crate::commands::build) struct Rest<'o> {
    pushes: Vec<(&'o ImageKeys, Option<Export>)>,
    metadata: Metadata,
}

impl Outputs {
    /// Brings the result to where it goes on this machine.
    pub fn export(
        &self,
        delivery: &Delivery<'_>,
        request: &BuildRequest,
        built: &Built,
        events: &Events<'_>,
    ) -> Result<Rest<'_>, CliError> {
        let delivery =
            Exporting { delivery, request, built, events, compressed: CompressedLayers::default() };
        let mut rest = Rest { pushes: Vec::new(), metadata: delivery.of_build()? };
        for (position, output) in self.outputs.iter().enumerate() {
            let done = match output {
                Output::Image(image) => {
                    let is_kept = self.kept == Some(position);
                    delivery.image(image, is_kept, &mut rest.metadata).map(|export| {
                        if image.push {
                            rest.pushes.push((image, export));
                        }
                    })
                }
                Output::Oci { to, is_tar, image } => delivery.oci(to, *is_tar, image, &mut rest.metadata),
                Output::Docker { to, image } => delivery.docker(to, image, &mut rest.metadata),
                Output::Local { into, split, mode } => delivery.local(into, *split, *mode),
                Output::Tar { to, split } => delivery.tar(to, *split),
            };
            done.map_err(|error| delivery.unless_interrupted(error))?;
        }
        Ok(rest)
    }

    /// Pushes what is to be pushed, and tells what came of it all.
    pub fn finish(&self, delivery: &Delivery<'_>, built: &Built, mut rest: Rest<'_>) -> Result<(), CliError> {
        // What was sent is known to the next push, which goes on from there.
        delivery.is_transferring.fetch_add(1, Ordering::Relaxed);
        if !rest.pushes.is_empty() && delivery.interrupted.load(Ordering::Relaxed) {
            return Err(interrupted());
        }
        for (image, export) in rest.pushes {
            if let Some(pushed) = delivery.push(built, image, export.as_ref())? {
                let platform = rest.metadata.descriptor.take().and_then(|descriptor| descriptor.platform);
                rest.metadata.descriptor = Some(Descriptor { platform, ..pushed });
            }
        }
        delivery.is_transferring.fetch_sub(1, Ordering::Relaxed);
        let (args, metadata) = (delivery.args, &rest.metadata);
        let write =
            |path: &Path, text: &str| write_whole(path, &mut |out| Ok(out.write_all(text.as_bytes())?));
        if let Some(path) = &args.iidfile {
            write(path, &metadata.id)?;
        }
        if let Some(path) = &args.metadata_file {
            write(path, &metadata.to_json())?;
        }
        if args.quiet && !self.is_stdout_taken() {
            println!("{}", metadata.id);
        }
        Ok(())
    }
}

impl Rest<'_> {
    /// Whether something is still to be pushed.
    pub fn is_pushing(&self) -> bool {
        !self.pushes.is_empty()
    }
}

impl Delivery<'_> {
    fn descriptor_of(&self, digest: &mica_oci::Digest) -> Result<Descriptor, CliError> {
        let bytes = self.store.read_blob(digest, MANIFEST_SIZE_BYTES_MAX)?;
        let media_type = match mica_oci::Document::parse(&bytes, None) {
            Ok(mica_oci::Document::Index(index)) => index.media_type().to_owned(),
            Ok(mica_oci::Document::Manifest(manifest)) => manifest.media_type().to_owned(),
            Err(error) => return Err(ImageError::from(error).into()),
        };
        Ok(Descriptor::of(&media_type, &bytes))
    }

    /// A signal is what people want to hear of, not what it broke.
    fn unless_interrupted(&self, error: CliError) -> CliError {
        match self.interrupted.load(Ordering::Relaxed) {
            true => interrupted(),
            false => error,
        }
    }

    /// Pushes under all names; answers what a registry has then, if that is another document than the store's.
    fn push(
        &self,
        built: &Built,
        keys: &ImageKeys,
        export: Option<&Export>,
    ) -> Result<Option<Descriptor>, CliError> {
        let stream = if build::is_silent(self.args) { Stream::Quiet } else { Stream::Err };
        let client = remote::client_for(keys.insecure, &keys.names)?;
        let mut pushed_digest = None;
        for name in &keys.names {
            stream.line(&format!("The push refers to repository [{}]", name.name()));
            let Some(export) = export else {
                pushed_digest = Some(push::push(self.store, &client, name, None, stream)?.digest);
                continue;
            };
            let Some(first) = built.images.first() else { continue };
            let compressed = CompressedLayers::default();
            let context = ExportContext {
                store: self.store,
                lease: &first.lease,
                compressed: &compressed,
                is_stopped: &|| false,
            };
            let transfer = Transfer::start(stream);
            let watch = |event: TransferEvent| transfer.tell(event);
            let to = PushExport { reference: name, by_digest: keys.push_by_digest };
            let pushed = export.push(&context, &client, &to, &watch);
            drop(transfer);
            let pushed = pushed.map_err(|error| push::explain(name, error))?;
            let place = if keys.push_by_digest { None } else { name.tag() };
            let place = place.map(|tag| format!("{tag}: ")).unwrap_or_default();
            stream.line(&format!("{place}digest: {} size: {}", pushed.digest, pushed.size_bytes));
        }
        match pushed_digest.filter(|digest| self.store.has_blob(digest).unwrap_or(false)) {
            Some(digest) => Ok(Some(self.descriptor_of(&digest)?)),
            None => Ok(None),
        }
    }
}

impl Exporting<'_> {
    /// What the build itself says of the result: all there is to say where the image is not changed on its way.
    fn of_build(&self) -> Result<Metadata, CliError> {
        let id = build::image_id(self.built);
        let mut metadata = Metadata { id, names: self.request.names.clone(), ..Metadata::default() };
        if !self.request.keep_image {
            return Ok(metadata);
        }
        let root = match (&self.built.index, self.built.images.as_slice()) {
            (Some(index), _) => Some(index),
            (None, [image]) => {
                metadata.config = Some(image.image.to_string());
                Some(&image.manifest)
            }
            (None, _) => None,
        };
        if let Some(digest) = root {
            let mut descriptor = self.descriptor_of(digest)?;
            if let (None, [image]) = (&self.built.index, self.built.images.as_slice()) {
                descriptor.platform = Some(platform_in_index(&image.platform, &image.content.config));
            }
            metadata.descriptor = Some(descriptor);
        }
        Ok(metadata)
    }

    /// Runs `work` as one item of the progress.
    fn item<T>(
        &self,
        name: &str,
        work: impl FnOnce(&ExportContext<'_>) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let Some(first) = self.built.images.first() else {
            return Err(CliError::new("the build has no image"));
        };
        let started = Instant::now();
        (self.events)(Event::ExportStarted { name: name.to_owned() });
        let is_stopped = || self.interrupted.load(Ordering::Relaxed);
        let context = ExportContext {
            store: self.store,
            lease: &first.lease,
            compressed: &self.compressed,
            is_stopped: &is_stopped,
        };
        let done = work(&context);
        match &done {
            Ok(_) => (self.events)(Event::ExportFinished { elapsed: started.elapsed() }),
            Err(error) => (self.events)(Event::ExportFailed { message: error.message.clone() }),
        }
        done
    }

    fn step<T, E>(&self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let started = Instant::now();
        let done = work()?;
        (self.events)(Event::ExportStep { what: what.to_owned(), elapsed: started.elapsed() });
        Ok(done)
    }

    fn told(&self, what: String) {
        (self.events)(Event::ExportStep { what, elapsed: Default::default() });
    }

    fn warn(&self, message: &str) {
        (self.events)(Event::Warning { message: message.to_owned() });
    }

    /// The images, with other times if that is asked for.
    fn sources(&self, context: &ExportContext<'_>, keys: &ImageKeys) -> Result<Vec<ExportSource>, CliError> {
        let epoch = self.built.source_date_epoch;
        if keys.rewrite_timestamp && epoch.is_none() {
            self.warn("rewrite-timestamp is without effect: SOURCE_DATE_EPOCH is not set");
        }
        let mut sources = Vec::new();
        for built in &self.built.images {
            let image = match epoch.filter(|_| keys.rewrite_timestamp) {
                Some(epoch) => self.step("rewriting layers with source-date-epoch", || {
                    let (content, base) = (&built.content, &built.base);
                    rewrite_image_times(self.store, context.lease, content, base, epoch, self.rootless)
                })?,
                None => built.content.clone(),
            };
            sources.push(ExportSource { platform: built.platform.clone(), image });
        }
        Ok(sources)
    }

    fn options(&self, keys: &ImageKeys, docker_types: bool, makes_index: bool) -> ExportOptions {
        let mut docker_types = keys.oci_types.map_or(docker_types, |oci| !oci);
        let form = keys.form.unwrap_or_default();
        let is_zstd = form.algorithm() == mica_image::Algorithm::Zstd;
        // As buildkit: docker's documents have no place for either.
        if docker_types && (is_zstd || !keys.annotations.is_empty()) {
            let why = if is_zstd { "zstd" } else { "annotations" };
            if keys.oci_types == Some(false) {
                self.warn(&format!("forcibly turning on oci-mediatype mode for {why}"));
            }
            docker_types = false;
        }
        let annotations = keys.annotations.clone();
        ExportOptions {
            form,
            force_compression: keys.force_compression,
            docker_types,
            makes_index: makes_index && self.request.makes_index(),
            annotations,
        }
    }

    /// Makes the documents, and says what they are.
    fn prepare(
        &self,
        context: &ExportContext<'_>,
        sources: &[ExportSource],
        keys: &ImageKeys,
        docker_types: bool,
        metadata: &mut Metadata,
    ) -> Result<Export, CliError> {
        let options = self.options(keys, docker_types, !docker_types);
        let export = self.step("exporting layers", || prepare_export(context, sources, &options))?;
        for (id, manifest) in export.images() {
            self.told(format!("exporting manifest {}", manifest.digest));
            self.told(format!("exporting config {id}"));
        }
        let single = match export.images().collect::<Vec<_>>().as_slice() {
            [(id, _)] => Some(id.to_string()),
            _ => {
                self.told(format!("exporting manifest list {}", export.root().digest));
                None
            }
        };
        metadata.id = single.clone().unwrap_or_else(|| export.root().digest.to_string());
        metadata.config = single;
        metadata.descriptor = Some(export.root().clone());
        metadata.names = match keys.push_by_digest {
            true => keys.names.iter().map(Reference::name_only).collect(),
            false => keys.names.clone(),
        };
        Ok(export)
    }

    /// The image in the store. What the build kept is there already.
    fn image(
        &self,
        keys: &ImageKeys,
        is_kept: bool,
        metadata: &mut Metadata,
    ) -> Result<Option<Export>, CliError> {
        if is_kept {
            return Ok(None);
        }
        self.item("exporting to image", |context| {
            let sources = self.sources(context, keys)?;
            let export = self.prepare(context, &sources, keys, false, metadata)?;
            if !keys.no_store {
                let names = names_in_store(keys, &export);
                export.put(context, &sources, &names)?;
                for (id, _) in export.images() {
                    mica_build::keep_report(self.store, id, &self.built.report)?;
                }
                for name in &names {
                    self.told(format!("naming to {}", name.canonical()));
                }
            }
            Ok(Some(export))
        })
    }

    fn oci(
        &self,
        to: &Destination,
        is_tar: bool,
        keys: &ImageKeys,
        metadata: &mut Metadata,
    ) -> Result<(), CliError> {
        self.item("exporting to oci image format", |context| {
            let sources = self.sources(context, keys)?;
            let export = self.prepare(context, &sources, keys, false, metadata)?;
            match to {
                Destination::Path(into) if !is_tar => {
                    self.step("writing layout", || Ok(export.write_layout(context, &keys.names, into)?))
                }
                to => self.archive(context, &export, ArchiveKind::Oci, &keys.names, to),
            }
        })
    }

    fn docker(&self, to: &Destination, keys: &ImageKeys, metadata: &mut Metadata) -> Result<(), CliError> {
        self.item("exporting to docker image format", |context| {
            let sources = self.sources(context, keys)?;
            if sources.len() > 1 {
                return Err(ImageError::from(mica_image::ExportError::SeveralPlatforms).into());
            }
            let export = self.prepare(context, &sources, keys, true, metadata)?;
            self.archive(context, &export, ArchiveKind::Docker, &keys.names, to)
        })
    }

    fn archive(
        &self,
        context: &ExportContext<'_>,
        export: &Export,
        kind: ArchiveKind,
        names: &[Reference],
        to: &Destination,
    ) -> Result<(), CliError> {
        self.step("sending tarball", || {
            write_to(to, &mut |out| Ok(export.write_archive(context, kind, names, out)?))
        })
    }

    fn files(&self, context: &ExportContext<'_>, split: bool) -> Result<FileTree, CliError> {
        let sources = self.sources(context, &ImageKeys::default())?;
        let split = split && sources.len() > 1;
        Ok(FileTree::of(context, &sources, split, self.built.source_date_epoch)?)
    }

    fn local(&self, into: &Path, split: bool, mode: LocalMode) -> Result<(), CliError> {
        if mode == LocalMode::Delete {
            self.check_delete(into)?;
        }
        self.item("exporting to client directory", |context| {
            let files = self.files(context, split)?;
            let what = format!("copying files {}", crate::format::size::human_size(files.size_bytes()));
            let written = self.step(&what, || write_local(context, &files, into, mode))?;
            if written.devices > 0 {
                self.warn(&format!("{} device files were left out", written.devices));
            }
            Ok(())
        })
    }

    /// Whoever writes `dest=.` with `mode=delete` does not mean to lose the sources.
    fn check_delete(&self, into: &Path) -> Result<(), CliError> {
        let Ok(into) = into.canonicalize() else { return Ok(()) };
        let context = self.request.context.as_ref().and_then(|context| context.canonicalize().ok());
        let here = std::env::current_dir().ok().and_then(|here| here.canonicalize().ok());
        match context.into_iter().chain(here).find(|place| place.starts_with(&into)) {
            Some(place) => Err(CliError::new(format!(
                "`mode=delete` would remove `{}`, which is in `{}`",
                place.display(),
                into.display()
            ))
            .hint("name a directory of its own")),
            None => Ok(()),
        }
    }

    fn tar(&self, to: &Destination, split: bool) -> Result<(), CliError> {
        self.item("exporting to client tarball", |context| {
            let files = self.files(context, split)?;
            self.step("sending tarball", || {
                write_to(to, &mut |out| Ok(write_files_tar(context, &files, out)?))
            })
        })
    }
}

fn interrupted() -> CliError {
    CliError::new("interrupted; what was built is kept, and the next build goes on from there")
        .code(build::INTERRUPTED)
}

/// The names that an image gets in the store.
fn names_in_store(keys: &ImageKeys, export: &Export) -> Vec<Reference> {
    let digest = &export.root().digest;
    let mut names = if keys.push_by_digest { Vec::new() } else { keys.names.clone() };
    if keys.name_canonical || keys.push_by_digest {
        names.extend(keys.names.iter().map(|name| name.name_only().with_digest(digest.clone())));
    }
    if let (true, Some(prefix)) = (names.is_empty(), &keys.dangling_prefix) {
        names.push(prefix.with_digest(digest.clone()));
    }
    names
}

fn write_to(
    to: &Destination,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), CliError>,
) -> Result<(), CliError> {
    match to {
        Destination::Stdout => write(&mut std::io::stdout().lock()),
        Destination::Path(path) => write_whole(path, write),
    }
}
