//! A directory as build context.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use mica_dockerfile::dockerignore::Dockerignore;
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::ContextError;
use crate::stat_cache::{Known, StatCache, StatCacheWriter, StatKey};
use crate::walk::{Found, display, walk};

/// Bytes read at a time while hashing.
const BUFFER_BYTES: usize = 256 * 1024;

/// A directory whose files may be copied into an image, read once for names and attributes.
pub struct SourceDir {
    root: OwnedFd,
    index: Arc<Index>,
    /// One for each entry of `index`, in its order.
    keys: Vec<StatKey>,
    /// Digests of files, by position in `index`, as far as they are known.
    contents: Mutex<Vec<Option<[u8; 32]>>>,
    /// How many digests were known from an earlier build.
    known_before: usize,
    cache_path: Option<PathBuf>,
    started_ns: i128,
}

impl SourceDir {
    /// Walks `path`. What `ignore` hides is not read. `cache_path` names the file that remembers digests between builds.
    ///
    /// The index holds no root entry; hard links among the files are kept as such, the first name in order first.
    pub fn open(
        path: &Path,
        ignore: Option<&Dockerignore>,
        cache_path: Option<&Path>,
    ) -> Result<Self, ContextError> {
        let root =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| match error {
                    rustix::io::Errno::NOENT => ContextError::Missing { path: path.into() },
                    rustix::io::Errno::NOTDIR => ContextError::NotADirectory { path: path.into() },
                    rustix::io::Errno::ACCESS => ContextError::Denied { path: path.into() },
                    error => ContextError::System(mica_sys::Error::new("open", path, error)),
                })?;
        let found = walk(root.as_fd(), ignore)?;
        let mut cache = cache_path.map(StatCache::read).unwrap_or_default();
        let mut contents = Vec::with_capacity(found.len());
        let mut keys = Vec::with_capacity(found.len());
        let mut entries = Vec::with_capacity(found.len());
        let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        for Found { mut entry, key, links, device, .. } in found {
            let mut content = None;
            if let Kind::File { .. } = entry.kind {
                match (links > 1).then(|| first_names.get(&(device, key.inode))).flatten() {
                    Some(first) => entry.kind = Kind::Hardlink { target: first.clone() },
                    None => {
                        if links > 1 {
                            first_names.insert((device, key.inode), entry.path.clone());
                        }
                        let known = cache.look_up(&entry.path).filter(|known| known.key == key);
                        content = known.map(|known| known.content);
                    }
                }
            }
            contents.push(content);
            keys.push(key);
            entries.push(entry);
        }
        let known_before = contents.iter().flatten().count();
        // The walk gives index order, each path once.
        let index = Arc::new(Index::from_sorted(entries));
        Ok(Self {
            root,
            index,
            keys,
            contents: Mutex::new(contents),
            known_before,
            cache_path: cache_path.map(Path::to_path_buf),
            started_ns: now_ns(),
        })
    }

    /// All that may be copied. The entries of files hold no digest: see [`SourceDir::content`].
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Opens the file of an entry of the index.
    pub fn open_file(&self, entry: &Entry) -> Result<File, ContextError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.root.as_fd(), entry.path.as_slice(), flags, Mode::empty(), resolve)
            .at("openat2", display(&entry.path))
            .map(File::from)
            .map_err(ContextError::on)
    }

    /// The digest ([`crate::identity`]) of a file if it is known without reading.
    pub fn known_content(&self, position: usize) -> Option<[u8; 32]> {
        self.contents().get(position).copied().flatten()
    }

    /// Digests ([`crate::identity`]) of the files at these positions of the index; what is not known is read, on all cores.
    /// Positions of entries that are not files give zeros.
    pub fn content(&self, positions: &[usize]) -> Result<Vec<[u8; 32]>, ContextError> {
        let unknown: Vec<usize> = {
            let contents = self.contents();
            positions.iter().copied().filter(|position| self.is_unread_file(&contents, *position)).collect()
        };
        if !unknown.is_empty() {
            self.hash(&unknown)?;
        }
        let contents = self.contents();
        Ok(positions.iter().map(|position| contents[*position].unwrap_or_default()).collect())
    }

    /// Whether the file at this position of the index is still the one that was walked over, and was not written to since.
    pub fn is_unchanged(&self, position: usize) -> bool {
        let (Some(entry), Some(key)) = (self.index.entries().get(position), self.keys.get(position)) else {
            return false;
        };
        let stat = self.open_file(entry).ok().and_then(|file| rustix::fs::fstat(file).ok());
        stat.is_some_and(|stat| StatKey::of(&stat) == *key)
    }

    /// Takes over a digest ([`crate::identity`]) that somebody else computed while copying the file at `position`.
    pub fn remember(&self, position: usize, content: [u8; 32]) {
        if let Some(slot) = self.contents().get_mut(position) {
            *slot = Some(content);
        }
    }

    /// Writes down what was learnt, for the next build. Failing to do so costs that build time and nothing else.
    pub fn save(&self) {
        let Some(path) = &self.cache_path else { return };
        let contents = self.contents();
        let known = contents.iter().flatten().count();
        if known == self.known_before {
            return;
        }
        let mut writer = StatCacheWriter::new(self.started_ns);
        for ((entry, key), content) in self.index.entries().iter().zip(&self.keys).zip(contents.iter()) {
            if let Some(content) = content {
                writer.push(&entry.path, &Known { key: *key, content: *content });
            }
        }
        let temporary = path.with_extension(format!("{}", std::process::id()));
        if std::fs::write(&temporary, writer.finish())
            .and_then(|()| std::fs::rename(&temporary, path))
            .is_err()
        {
            let _ = std::fs::remove_file(&temporary);
        }
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, Vec<Option<[u8; 32]>>> {
        self.contents.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn is_unread_file(&self, contents: &[Option<[u8; 32]>], position: usize) -> bool {
        contents.get(position).is_some_and(Option::is_none)
            && matches!(self.index.entries()[position].kind, Kind::File { .. })
    }

    fn hash(&self, positions: &[usize]) -> Result<(), ContextError> {
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
        let threads = threads.min(positions.len().div_ceil(32)).max(1);
        let work = || -> Result<Vec<(usize, [u8; 32])>, ContextError> {
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut done = Vec::new();
            while let Some(position) = positions.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push((*position, self.hash_file(&self.index.entries()[*position], &mut buffer)?));
            }
            Ok(done)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut results = vec![work()];
            for other in others {
                results.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            results
        });
        for result in results {
            for (position, content) in result? {
                self.remember(position, content);
            }
        }
        Ok(())
    }

    fn hash_file(&self, entry: &Entry, buffer: &mut [u8]) -> Result<[u8; 32], ContextError> {
        let changed = || ContextError::Changed { path: display(&entry.path) };
        let Kind::File { size, .. } = entry.kind else { return Err(changed()) };
        let mut file = self.open_file(entry)?;
        let mut hasher = blake3::Hasher::new();
        let mut length = 0;
        // A file that somebody keeps writing to has no end.
        while length <= size {
            let count = match file.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).at("read", display(&entry.path)).map_err(ContextError::on),
            };
            if count == 0 {
                break;
            }
            length += count as u64;
            hasher.update(&buffer[..count]);
        }
        if length != size {
            return Err(changed());
        }
        let xattrs = mica_sys::xattr::read_portable(&file).map_err(ContextError::on)?;
        Ok(crate::identity(*hasher.finalize().as_bytes(), &xattrs))
    }
}

fn now_ns() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as i128)
}
