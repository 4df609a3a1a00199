//! Downloads: one at a time for each blob, gone on with after any end, visible only when whole. A child is this test
//! binary again, running `child` with a job in the environment.

mod common;

use common::{check_store, commit_layer, layer_record};
use mica_oci::{Digest, ImageId};
use mica_store::*;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

const JOB: &str = "MICA_STORE_TEST_JOB";
const ROOT: &str = "MICA_STORE_TEST_ROOT";
/// Bytes that a child writes at a time.
const PIECE: usize = 4096;

/// Not a test by itself: what a child does.
#[test]
fn child() {
    let (Ok(job), Ok(root)) = (std::env::var(JOB), std::env::var(ROOT)) else { return };
    let (job, seed) = job.split_once(' ').unwrap();
    let (root, seed) = (Path::new(&root), seed.parse().unwrap());
    let result = match job {
        "fetch" => fetch_all(root, seed),
        "story" => story(root),
        "slow" => Store::open(root).and_then(|store| fetch_slowly(&store)),
        "churn" => churn(root, seed),
        "pulls" => pulls(root, seed),
        _ => panic!("no such job"),
    };
    if let Err(error) = result {
        eprintln!("{error}");
        std::process::exit(if matches!(error, StoreError::DiskFull { .. }) { 28 } else { 5 });
    }
}

fn spawn(job: &str, root: &Path, fail_point: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(JOB, job).env(ROOT, root);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_remove("MICA_FAIL_POINT");
    if let Some(fail_point) = fail_point {
        command.env("MICA_FAIL_POINT", fail_point);
    }
    command.spawn().unwrap()
}

/// What the registry would answer: 64 pieces, no two alike.
fn content(number: usize) -> Vec<u8> {
    (0..64 * PIECE).map(|at| ((at / PIECE) * 31 + at % 251 + number * 7) as u8).collect()
}

fn digest(number: usize) -> Digest {
    let bytes = content(number);
    if number % 4 == 3 { Digest::sha512(&bytes) } else { Digest::sha256(&bytes) }
}

/// Downloads one blob piece by piece; answers from which byte on, if it was not stored.
fn fetch(store: &Store, number: usize) -> Result<Option<u64>> {
    let bytes = content(number);
    let mut partial = match store.download(&digest(number), &mut || ())? {
        Download::Stored => return Ok(None),
        Download::Partial(partial) => partial,
    };
    let from = partial.size_bytes();
    log(store, &format!("{number} {from}\n"));
    for piece in bytes[from as usize..].chunks(PIECE) {
        partial.append(piece)?;
    }
    assert_eq!(partial.finish()?, bytes.len() as u64);
    Ok(Some(from))
}

/// Downloads a quarter of a blob and then waits to be killed; the last quarter it ends.
fn fetch_slowly(store: &Store) -> Result<()> {
    let bytes = content(0);
    let Download::Partial(mut partial) = store.download(&digest(0), &mut || ())? else { return Ok(()) };
    let from = partial.size_bytes() as usize;
    log(store, &format!("0 {from}\n"));
    for (position, piece) in bytes[from..].chunks(PIECE).enumerate() {
        partial.append(piece)?;
        std::thread::sleep(match position {
            16.. => Duration::from_secs(600),
            _ => Duration::from_micros(200),
        });
    }
    partial.finish().map(|_| ())
}

fn log(store: &Store, line: &str) {
    let path = log_path(store.root());
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

fn log_path(root: &Path) -> PathBuf {
    root.with_extension("log")
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    (dir, store)
}

fn partial(store: &Store, digest: &Digest) -> PartialBlob {
    match store.download(digest, &mut || panic!("nobody else is there")).unwrap() {
        Download::Partial(partial) => partial,
        Download::Stored => panic!("it is not stored"),
    }
}

fn ingest_count(store: &Store) -> usize {
    std::fs::read_dir(store.root().join("ingest")).unwrap().count()
}

#[test]
fn a_download_is_gone_on_with_and_visible_when_whole() {
    for digest in [Digest::sha256(b"hello world"), Digest::sha512(b"hello world")] {
        let (_dir, store) = open();
        let mut first = partial(&store, &digest);
        first.append(b"hello").unwrap();
        drop(first);
        assert_eq!(store.sweep().unwrap(), Swept::default());
        assert!(!store.has_blob(&digest).unwrap());
        let mut second = partial(&store, &digest);
        assert_eq!((second.size_bytes(), second.digest()), (5, &digest));
        let mut reader = second.reader().unwrap();
        assert_eq!(second.write(b" world").unwrap(), 6);
        assert!(!store.has_blob(&digest).unwrap());
        assert_eq!(second.durable(true).finish().unwrap(), 11);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello world", "the reader outlives the download");
        assert_eq!(store.read_blob(&digest, 11).unwrap(), b"hello world");
        assert!(matches!(store.download(&digest, &mut || panic!()).unwrap(), Download::Stored));
        assert_eq!(ingest_count(&store), 0);
    }
}

#[test]
fn what_does_not_match_is_thrown_away() {
    let (_dir, store) = open();
    let expected = Digest::sha256(b"right");
    let mut wrong = partial(&store, &expected);
    wrong.append(b"wrong").unwrap();
    let error = wrong.finish().unwrap_err();
    let actual = Digest::sha256(b"wrong");
    assert!(
        matches!(&error, StoreError::DigestMismatch { expected: e, actual: a } if *e == expected && *a == actual)
    );
    assert!(!store.has_blob(&expected).unwrap() && !store.has_blob(&actual).unwrap());
    assert_eq!(ingest_count(&store), 0);
    // Begun wrongly by a process that died, and noticed too late: the next try is not spoiled by it.
    let mut begun = partial(&store, &expected);
    begun.append(b"wro").unwrap();
    drop(begun);
    let mut again = partial(&store, &expected);
    again.append(b"ht").unwrap();
    assert!(again.finish().is_err());
    let mut again = partial(&store, &expected);
    assert_eq!(again.size_bytes(), 0);
    again.append(b"wrong, and longer").unwrap();
    again.restart().unwrap();
    assert_eq!(again.size_bytes(), 0);
    again.append(b"right").unwrap();
    again.finish().unwrap();
    assert_eq!(store.read_blob(&expected, 5).unwrap(), b"right");
    let blake = format!("blake3:{}", expected.hex()).parse().unwrap();
    let mut never = partial(&store, &blake);
    never.append(b"x").unwrap();
    assert!(matches!(never.finish(), Err(StoreError::DigestMismatch { .. })));
    let mut discarded = partial(&store, &blake);
    discarded.append(b"x").unwrap();
    discarded.discard().unwrap();
    // Nothing came: nothing to keep.
    drop(partial(&store, &blake));
    assert_eq!(ingest_count(&store), 0);
}

#[test]
fn others_wait_and_find_it_stored_or_take_over() {
    for is_finished in [true, false] {
        let (_dir, store) = open();
        let digest = Digest::sha256(b"content");
        let mut first = partial(&store, &digest);
        first.append(b"con").unwrap();
        // Another blob does not wait.
        drop(partial(&store, &Digest::sha256(b"other")));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..4)
                .map(|_| {
                    let (store, digest, tell) = (store.clone(), digest.clone(), tell.clone());
                    scope.spawn(move || {
                        match store.download(&digest, &mut || tell.send(()).unwrap()).unwrap() {
                            Download::Stored => None,
                            Download::Partial(mut partial) => {
                                let from = partial.size_bytes();
                                partial.append(&b"content"[from as usize..]).unwrap();
                                partial.finish().unwrap();
                                Some(from)
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..4 {
                told.recv_timeout(Duration::from_secs(60)).unwrap();
            }
            if is_finished {
                first.append(b"tent").unwrap();
                first.finish().unwrap();
            } else {
                drop(first);
            }
            let mut fetched: Vec<_> =
                waiters.into_iter().filter_map(|waiter| waiter.join().unwrap()).collect();
            assert!(told.try_recv().is_err(), "told once");
            fetched.sort_unstable();
            assert_eq!(fetched, if is_finished { vec![] } else { vec![3] });
        });
        assert_eq!(store.read_blob(&digest, 7).unwrap(), b"content");
        assert_eq!(ingest_count(&store), 0);
    }
}

#[test]
fn collection_and_sweep_know_what_may_go() {
    let (_dir, store) = open();
    let (held, loose) = (Digest::sha256(b"held"), Digest::sha256(b"loose"));
    let begin = |digest| {
        let mut partial = partial(&store, digest);
        partial.append(&vec![1; 5000]).unwrap();
        partial
    };
    let held = begin(&held);
    drop(begin(&loose));
    assert_eq!(store.sweep().unwrap(), Swept::default());
    let usage = store.usage().unwrap();
    assert!(usage.images.size_bytes >= 10_000 && usage.images.reclaimable_bytes >= 10_000, "{usage:?}");
    let keeping = GcOptions { keep_downloads: true, ..GcOptions::default() };
    assert_eq!(store.gc(keeping).unwrap(), Freed::default());
    let freed = store.gc(GcOptions::default()).unwrap();
    assert!(freed.downloads == 1 && freed.bytes >= 5000, "{freed:?}");
    assert_eq!(ingest_count(&store), 1, "what is worked on stays");
    let path = std::fs::read_dir(store.root().join("ingest")).unwrap().next().unwrap().unwrap().path();
    let week_ago = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    std::fs::File::open(&path).unwrap().set_modified(week_ago).unwrap();
    assert_eq!(store.sweep().unwrap(), Swept::default());
    drop(held);
    assert_eq!(store.sweep().unwrap(), Swept { ingests: 1, ..Swept::default() });
    assert_eq!(ingest_count(&store), 0);
}

#[test]
fn a_lease_protects_what_is_downloaded_under_it() {
    let (_dir, store) = open();
    let (whole, stored) = (Digest::sha256(b"whole"), Digest::sha256(b"stored"));
    let old = SystemTime::now() - Duration::from_secs(5000);
    store.put_blob(b"stored").unwrap();
    std::fs::File::open(store.blob_path(&stored)).unwrap().set_modified(old).unwrap();
    // All bytes came, and the process died before it said so.
    let mut first = partial(&store, &whole);
    first.append(b"whole").unwrap();
    first.reader().unwrap().set_modified(old).unwrap();
    drop(first);
    let lease = store.lease().unwrap();
    partial(&store, &whole).finish().unwrap();
    assert!(matches!(store.download(&stored, &mut || ()).unwrap(), Download::Stored));
    assert_eq!(store.gc(GcOptions::default()).unwrap().blobs, 0);
    drop(lease);
    assert_eq!(store.gc(GcOptions::default()).unwrap().blobs, 2);
}

/// So small that one is stored while others are on their way from the look to the lock.
#[test]
fn many_threads_fetch_tiny_blobs_once() {
    let (_dir, store) = open();
    let fetched = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // Of its own: threads that share a connection take turns.
                let store = Store::open(store.root()).unwrap();
                for number in 0..300_u32 {
                    let bytes = number.to_le_bytes();
                    let digest = Digest::sha256(&bytes);
                    if let Download::Partial(mut partial) = store.download(&digest, &mut || ()).unwrap() {
                        fetched.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        partial.append(&bytes).unwrap();
                        partial.finish().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(fetched.into_inner(), 300);
    assert_eq!(ingest_count(&store), 0);
}

/// Eight blobs, in an order of its own.
fn fetch_all(root: &Path, seed: usize) -> Result<()> {
    let store = Store::open(root)?;
    let _lease = store.lease()?;
    for number in 0..8 {
        fetch(&store, (number * 3 + seed) % 8)?;
    }
    Ok(())
}

/// Each line of the log: blob, first byte fetched.
fn fetched(root: &Path) -> Vec<(usize, u64)> {
    let text = std::fs::read_to_string(log_path(root)).unwrap_or_default();
    let line = |line: &str| {
        let (number, from) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), from.parse().unwrap())
    };
    text.lines().map(line).collect()
}

#[test]
fn many_processes_fetch_each_blob_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let children: Vec<Child> = (0..8).map(|seed| spawn(&format!("fetch {seed}"), &root, None)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut fetched = fetched(&root);
    fetched.sort_unstable();
    assert_eq!(fetched, (0..8).map(|number| (number, 0)).collect::<Vec<_>>());
    let store = Store::open(&root).unwrap();
    for number in 0..8 {
        assert_eq!(store.read_blob(&digest(number), 1 << 20).unwrap(), content(number));
    }
    check_store(&root);
}

#[test]
fn killed_while_writing_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let store = Store::open(&root).unwrap();
    let path = root.join("ingest").join(format!("download-sha256-{}", digest(0).hex()));
    let mut rounds = 0;
    let mut kept = 0;
    while !store.has_blob(&digest(0)).unwrap() {
        let mut child = spawn("slow 0", &root, None);
        // Killed as soon as it has added a little.
        while child.try_wait().unwrap().is_none() {
            let size_bytes = path.metadata().map_or(0, |metadata| metadata.len());
            if size_bytes >= kept + 8 * PIECE as u64 {
                child.kill().unwrap();
                assert!(child.wait().unwrap().signal().is_none_or(|signal| signal == 9));
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        check_store(&root);
        kept = path.metadata().map_or(0, |metadata| metadata.len());
        rounds += 1;
        assert!(rounds < 1000);
    }
    let fetched: Vec<u64> = fetched(&root).into_iter().map(|(_, from)| from).collect();
    assert!(fetched.len() > 1 && fetched.is_sorted_by(|a, b| a < b), "each went on: {fetched:?}");
    assert_eq!(store.read_blob(&digest(0), 1 << 20).unwrap(), content(0));
}

/// One pass over all that downloads have fail points for.
fn story(root: &Path) -> Result<()> {
    let store = Store::open(root)?;
    let mut wrong = match store.download(&digest(5), &mut || ())? {
        Download::Partial(partial) => partial,
        Download::Stored => panic!("it never matches"),
    };
    wrong.append(b"wrong")?;
    wrong.restart()?;
    wrong.append(b"wrong")?;
    match wrong.finish() {
        Err(StoreError::DigestMismatch { .. }) => {}
        Err(error) => return Err(error),
        Ok(_) => panic!("matched"),
    }
    if let Download::Partial(mut loose) = store.download(&digest(6), &mut || ())? {
        loose.append(b"loose")?;
    }
    if let Download::Partial(mut partial) = store.download(&digest(7), &mut || ())? {
        let bytes = content(7);
        let from = partial.size_bytes() as usize;
        let middle = bytes.len() / 2;
        partial.append(&bytes[from..middle.max(from)])?;
        partial.append(&bytes[middle.max(from)..])?;
        partial.finish()?;
    }
    store.gc(GcOptions::default())?;
    Ok(())
}

#[test]
fn a_failure_a_kill_and_a_full_disk_at_every_fail_point() {
    for (action, code, signal) in [("fail", Some(5), None), ("kill", None, Some(9)), ("full", Some(28), None)]
    {
        let mut position = 0;
        loop {
            position += 1;
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            let store = Store::open(&root).unwrap();
            let point = format!("store.download.*:{position}:{action}");
            let status = spawn("story 0", &root, Some(&point)).wait().unwrap();
            let is_over = status.success();
            assert!(is_over || (status.code(), status.signal()) == (code, signal), "{point}: {status}");
            assert!(!store.has_blob(&digest(5)).unwrap() && !store.has_blob(&digest(6)).unwrap(), "{point}");
            assert!(
                is_over
                    || store.read_blob(&digest(7), 1 << 20).is_ok_and(|bytes| bytes == content(7))
                        == store.has_blob(&digest(7)).unwrap()
            );
            check_store(&root);
            assert!(spawn("story 0", &root, None).wait().unwrap().success(), "{point}");
            assert_eq!(ingest_count(&store), 0, "{point}");
            if is_over {
                break;
            }
        }
        assert!(position > 11, "{action}: {position}");
    }
}

#[test]
fn root_a_disk_that_is_really_full() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let flags = rustix::mount::MountFlags::NODEV;
    if let Err(error) = rustix::mount::mount("tmpfs", &mount, "tmpfs", flags, c"size=2m") {
        println!("skipped: no tmpfs: {error}");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let store = Store::open(&mount.join("root")).unwrap();
        let bytes = vec![1; 4 << 20];
        let digest = Digest::sha256(&bytes);
        let mut first = partial(&store, &digest);
        assert!(matches!(first.append(&bytes), Err(StoreError::DiskFull { .. })));
        drop(first);
        // What came is kept, until the room is needed for something else or there is more of it.
        assert!(partial(&store, &digest).size_bytes() > 1 << 20);
        store.make_room();
        assert_eq!(store.gc(GcOptions::default()).unwrap().downloads, 1);
        let mut again = partial(&store, &digest);
        assert_eq!(again.size_bytes(), 0);
        again.append(&bytes[..1 << 20]).unwrap();
        drop(again);
        rustix::mount::mount_remount(&mount, flags, c"size=16m").unwrap();
        let mut again = partial(&store, &digest);
        again.append(&bytes[1 << 20..]).unwrap();
        again.finish().unwrap();
        check_store(store.root());
    });
    rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).unwrap();
    outcome.unwrap();
}

/// Whatever comes up, over and over, until killed: downloads that end in every way, sweeps, collections.
fn churn(root: &Path, seed: usize) -> Result<()> {
    let mut random = random(seed);
    loop {
        let store = Store::open(root)?;
        match random(12) {
            0 => drop(store.sweep()?),
            1 => drop(store.gc(GcOptions { keep_downloads: random(2) == 0, ..GcOptions::default() })?),
            _ => {
                let number = random(4);
                let bytes = content(number);
                let lease = store.lease()?;
                without_slack(&store);
                let Download::Partial(mut partial) = store.download(&digest(number), &mut || ())? else {
                    // Under a lease what was handed out stays.
                    assert_eq!(store.read_blob(&digest(number), 1 << 20)?, bytes);
                    continue;
                };
                let from = partial.size_bytes() as usize;
                assert!(from <= bytes.len());
                match random(6) {
                    0 => partial.discard()?,
                    1 => {
                        partial.append(b"wrong")?;
                        assert!(matches!(partial.finish(), Err(StoreError::DigestMismatch { .. })));
                    }
                    2 => {
                        let to = bytes.len().min(from + random(9) * PIECE);
                        partial.append(&bytes[from..to])?;
                    }
                    3 => {
                        partial.restart()?;
                        partial.append(&bytes[..random(9) * PIECE])?;
                    }
                    _ => {
                        let mut reader = partial.reader()?;
                        partial.append(&bytes[from..])?;
                        partial.finish()?;
                        let mut read = Vec::new();
                        reader.read_to_end(&mut read).unwrap();
                        assert_eq!(read, bytes);
                        assert_eq!(store.read_blob(&digest(number), 1 << 20)?, bytes);
                    }
                }
                drop(lease);
            }
        }
    }
}

fn random(seed: usize) -> impl FnMut(u64) -> usize {
    let mut state = seed as u64 * 2_654_435_761 + 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as usize
    }
}

/// Collection keeps what was stored up to ten minutes before a lease, for clocks that are set back: so much later the leases
/// begin here, or nothing would ever be collected.
fn without_slack(store: &Store) {
    let Ok(entries) = std::fs::read_dir(store.root().join("ingest")) else { return };
    let now = SystemTime::now();
    for entry in entries.flatten() {
        let is_lease = entry.file_name().to_string_lossy().starts_with("lease-");
        // Gone, or seen to by another process.
        let Ok(begun) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
        if is_lease
            && begun <= now
            && let Ok(file) = std::fs::File::open(entry.path())
        {
            let _ = file.set_modified(begun + Duration::from_secs(600));
        }
    }
}

/// Pulls, tags and removals of a few images that share blobs and layers, until killed. Under its lease nobody misses
/// anything, whatever the others remove and collect.
fn pulls(root: &Path, seed: usize) -> Result<()> {
    let mut random = random(seed);
    loop {
        let store = Store::open(root)?;
        let name = ["n", "m"][random(2)];
        match random(10) {
            0 => drop(store.sweep()?),
            1 => drop(store.gc(GcOptions { keep_downloads: random(2) == 0, ..GcOptions::default() })?),
            2 => drop(store.remove_name(name)?),
            3 => drop(store.copy_name(["n", "m"][random(2)], name)?),
            4 => {
                let images = store.images()?;
                if let Some(image) = images.get(random(images.len().max(1) as u64)) {
                    match random(2) {
                        0 => drop(store.remove_image(&image.record.id)?),
                        _ => drop(store.remove_image_of(name, &image.record.id)?),
                    }
                }
            }
            _ => pull(&store, random(6), random(2), name)?,
        }
    }
}

/// An image of two layers, and one compressed blob for each, under an index.
fn pull(store: &Store, number: usize, index: usize, name: &str) -> Result<()> {
    let lease = store.lease()?;
    without_slack(store);
    let index = store.put_blob(format!("index {index}").as_bytes())?;
    let mut blobs = vec![index.clone()];
    let mut layers = Vec::new();
    for part in [number % 4, (number + 1) % 4] {
        fetch(store, part)?;
        blobs.push(digest(part));
        let mut layer = layer_record(&format!("layer {part}"));
        layer.origin = Some((digest(part), "layer".to_owned()));
        commit_layer(store, &layer)?;
        layers.push(layer.diff_id);
    }
    let id = ImageId(store.put_blob(format!("config {number}").as_bytes())?);
    let manifest = store.put_blob(format!("manifest {number}").as_bytes())?;
    let (created, os, size_bytes) = (String::new(), "linux".to_owned(), 1);
    let (architecture, variant) = (format!("a{number}"), String::new());
    let record =
        ImageRecord { id, manifest, layers, parent: None, created, size_bytes, architecture, os, variant };
    let names = [name, &format!("{name}@{index}")];
    let with = ImageCommit { blobs: &blobs, names: &names, target: Some(&index), ..ImageCommit::default() };
    store.commit_image(&record, &with)?;
    for part in [number % 4, (number + 1) % 4] {
        assert_eq!(store.read_blob(&digest(part), 1 << 20)?, content(part));
    }
    for text in [&record.id.0, &record.manifest, &index] {
        store.read_blob(text, 1 << 20)?;
    }
    drop(lease);
    Ok(())
}

#[test]
fn many_processes_at_random_killed_at_random() {
    at_random("churn");
}

#[test]
fn many_pulls_at_random_killed_at_random() {
    at_random("pulls");
}

/// Killed when it is let go, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn at_random(job: &str) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    Store::open(&root).unwrap();
    let seconds = std::env::var("MICA_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let until = std::time::Instant::now() + Duration::from_secs(seconds);
    let start = |seed: usize| Running(spawn(&format!("{job} {seed}"), &root, None));
    let mut children: Vec<Running> = (0..6).map(start).collect();
    let mut seed = 6;
    while std::time::Instant::now() < until {
        for child in &mut children {
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(child.0.try_wait().unwrap(), None, "it ends only when killed");
            *child = start(seed);
            seed += 1;
        }
    }
    for mut child in children {
        assert_eq!(child.0.try_wait().unwrap(), None, "it ends only when killed");
    }
    check_store(&root);
    let store = Store::open(&root).unwrap();
    for number in 0..4 {
        if store.has_blob(&digest(number)).unwrap() {
            assert_eq!(store.read_blob(&digest(number), 1 << 20).unwrap(), content(number));
        }
    }
    for image in store.images().unwrap() {
        for name in image.names.iter().chain(&image.other_names) {
            assert!(store.images_of(name).unwrap().contains(&image.record.id), "{name}");
        }
    }
    store.gc(GcOptions::default()).unwrap();
    check_store(&root);
    assert_eq!(ingest_count(&store), 0);
}
