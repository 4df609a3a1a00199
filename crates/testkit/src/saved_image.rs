//! An image as `save` wrote it: config and flattened tree, read without any of mica's own code.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Flattened, Mica, Tree, tar};

/// A docker archive (`docker save`, `podman save`, `buildah push docker-archive:`, `mica save`), opened.
#[derive(Debug)]
pub struct SavedImage {
    /// The image config, as JSON.
    pub config: Value,
    /// The digest of the config's bytes: the image ID.
    pub id: String,
    /// The names in the archive.
    pub names: Vec<String>,
    /// Every path of the image.
    pub tree: Tree,
}

impl SavedImage {
    /// Saves an image of this store to a temporary file and opens it.
    #[track_caller]
    pub fn of(mica: &Mica, name: &str) -> SavedImage {
        let dir = Mica::temporary_dir();
        let file = dir.path().join("saved.tar");
        mica.ok(&["save", "-o", &file.to_string_lossy(), name]);
        SavedImage::read(&file).unwrap_or_else(|error| panic!("the archive of `{name}`: {error}"))
    }

    /// The names of an image's layers in the archive that `save` writes, the lowest first.
    #[track_caller]
    pub fn layers(mica: &Mica, name: &str) -> Vec<String> {
        let (manifest, _) = stream(mica, name, |_| false);
        layer_names(&manifest)
    }

    /// The image on a large base that is known already: `base` is the flattened lowest layer, whose name in the archive is
    /// `layer`. Nothing is written to disk.
    #[track_caller]
    pub fn above(mica: &Mica, name: &str, base: &Flattened, layer: &str) -> SavedImage {
        let (manifest, members) = stream(mica, name, |member| member != layer);
        let names = layer_names(&manifest);
        assert!(names.first().is_some_and(|first| first == layer), "`{name}` stands on another base");
        let mut flattened = base.clone();
        for layer in &names[1..] {
            let bytes = &members[layer];
            flattened
                .apply(&bytes[..])
                .unwrap_or_else(|error| panic!("layer `{layer}` of `{name}`: {error}"));
        }
        let config = &members[manifest[0]["Config"].as_str().unwrap_or_default()];
        SavedImage {
            config: serde_json::from_slice(config).expect("a config"),
            id: format!("sha256:{}", crate::sha256(config)),
            names: serde_json::from_value(manifest[0]["RepoTags"].clone()).unwrap_or_default(),
            tree: flattened.finish(),
        }
    }

    /// Opens the first image of an archive.
    pub fn read(file: &Path) -> io::Result<SavedImage> {
        let members = members(file)?;
        let find = |name: &str| {
            members.get(name).copied().ok_or_else(|| io::Error::other(format!("no `{name}` in the archive")))
        };
        let manifest: Value = serde_json::from_slice(&read_member(file, find("manifest.json")?)?)?;
        let image = manifest.get(0).cloned().unwrap_or_default();
        let config = read_member(file, find(image["Config"].as_str().unwrap_or_default())?)?;
        let mut flattened = Flattened::default();
        for layer in image["Layers"].as_array().into_iter().flatten() {
            apply_layer(&mut flattened, file, find(layer.as_str().unwrap_or_default())?)?;
        }
        Ok(SavedImage {
            config: serde_json::from_slice(&config)?,
            id: format!("sha256:{}", crate::sha256(&config)),
            names: serde_json::from_value(image["RepoTags"].clone()).unwrap_or_default(),
            tree: flattened.finish(),
        })
    }
}

/// Reads an image as `save` writes it: the manifest, and the members that `keep` names.
#[track_caller]
fn stream(mica: &Mica, name: &str, keep: impl Fn(&str) -> bool) -> (Value, BTreeMap<String, Vec<u8>>) {
    let mut child = mica.command(&["save", name]).stdout(Stdio::piped()).spawn().expect("`mica save`");
    let output = child.stdout.take().expect("the output of `mica save`");
    let mut members = BTreeMap::new();
    tar::read(io::BufReader::with_capacity(1 << 16, output), |entry, content| {
        if entry.kind == b'0' && (entry.path == "manifest.json" || keep(&entry.path)) {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            members.insert(entry.path, bytes);
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("the archive of `{name}`: {error}"));
    let status = child.wait().expect("waiting for `mica save`");
    assert!(status.success(), "`mica save {name}`: {status}");
    let manifest = members.get("manifest.json").map(|bytes| serde_json::from_slice(bytes));
    (manifest.expect("a manifest").expect("a manifest in JSON"), members)
}

fn layer_names(manifest: &Value) -> Vec<String> {
    let layers = manifest[0]["Layers"].as_array().into_iter().flatten();
    layers.filter_map(|layer| layer.as_str().map(str::to_owned)).collect()
}

/// A root filesystem tar, gzip or plain, as a tree.
pub fn tree_of_tar(file: &Path) -> io::Result<Tree> {
    let mut flattened = Flattened::default();
    apply_layer(&mut flattened, file, (0, std::fs::metadata(file)?.len()))?;
    Ok(flattened.finish())
}

/// A root filesystem tar, plain, as what images on top of it begin with.
pub fn flattened_tar(file: &Path) -> io::Result<Flattened> {
    let mut flattened = Flattened::default();
    apply_layer(&mut flattened, file, (0, std::fs::metadata(file)?.len()))?;
    Ok(flattened)
}

/// Where in the file each member's bytes are. Links between members (docker's old form) point at the bytes.
fn members(file: &Path) -> io::Result<BTreeMap<String, (u64, u64)>> {
    // The position is only known to the reader, which the walk holds; so it is shared through a cell.
    struct Counting<'a>(File, &'a Cell<u64>);
    impl Read for Counting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.set(self.1.get() + count as u64);
            Ok(count)
        }
    }
    let position = Cell::new(0u64);
    let mut found = BTreeMap::new();
    let mut links = Vec::new();
    tar::read(Counting(File::open(file)?, &position), |entry, _| {
        if entry.kind == b'0' {
            found.insert(entry.path, (position.get(), entry.size));
        } else if matches!(entry.kind, b'1' | b'2') {
            links.push((entry.path, entry.link));
        }
        Ok(())
    })?;
    for (path, target) in links {
        let target = target.trim_start_matches("../").to_owned();
        if let Some(place) = found.get(&target).copied() {
            found.insert(path, place);
        }
    }
    Ok(found)
}

fn open_member(file: &Path, (offset, size): (u64, u64)) -> io::Result<io::Take<File>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.take(size))
}

fn read_member(file: &Path, place: (u64, u64)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_member(file, place)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn apply_layer(flattened: &mut Flattened, file: &Path, place: (u64, u64)) -> io::Result<()> {
    let mut magic = [0; 4];
    let _ = open_member(file, place)?.read(&mut magic)?;
    let mut source = open_member(file, place)?;
    if magic == [0x28, 0xb5, 0x2f, 0xfd] {
        return flattened.apply(zstd::Decoder::new(source)?);
    }
    if magic[..2] != [0x1f, 0x8b] {
        return flattened.apply(io::BufReader::with_capacity(1 << 16, source));
    }
    let mut child = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or_else(|| io::Error::other("no stdin of gzip"))?;
    let feed = std::thread::spawn(move || io::copy(&mut source, &mut input));
    let output = child.stdout.take().ok_or_else(|| io::Error::other("no stdout of gzip"))?;
    flattened.apply(output)?;
    let _ = feed.join();
    child.wait()?;
    Ok(())
}
