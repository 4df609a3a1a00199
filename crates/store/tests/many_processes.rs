//! Many processes at once, kills at random moments, and a failure or kill at every fail point. A child is this
//! test binary again, running `child` with a job in the environment.

mod common;

use common::*;
use mica_store::*;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const JOB: &str = "MICA_STORE_TEST_JOB";
const ROOT: &str = "MICA_STORE_TEST_ROOT";

/// Not a test by itself: what a child does.
#[test]
fn child() {
    let (Ok(job), Ok(root)) = (std::env::var(JOB), std::env::var(ROOT)) else { return };
    let (job, seed) = job.split_once(' ').unwrap();
    let root = Path::new(&root);
    let result = match job {
        "commit" => commit_many(root, seed),
        "churn" => churn(root, seed),
        "story" => story(root),
        "steps" => record_steps(root, seed),
        "forget" => Store::open(root).and_then(|store| forget(&store)),
        "fill" => fill(root),
        _ => panic!("no such job"),
    };
    if let Err(error) = result {
        eprintln!("{error}");
        // The faults that a job is given must come out as errors, never as panics (101).
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

/// 50 images with a layer each, half of the layers shared with the other processes; opened anew for each.
fn commit_many(root: &Path, seed: &str) -> Result<()> {
    for number in 0..50 {
        let store = Store::open(root)?;
        let layer = if number % 2 == 0 { format!("shared {number}") } else { format!("{seed} {number}") };
        commit_image(&store, &format!("i{seed}-{number}"), &[&layer])?;
    }
    Ok(())
}

#[test]
fn eight_processes_make_a_store_and_commit_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let children: Vec<Child> = (0..8).map(|seed| spawn(&format!("commit {seed}"), &root, None)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check_store(&root);
    let store = Store::open(&root).unwrap();
    assert_eq!(store.images().unwrap().len(), 400);
    assert_eq!(store.layers().unwrap().len(), 25 + 8 * 25);
}

/// Everything that writes, over and over, until killed.
fn churn(root: &Path, seed: &str) -> Result<()> {
    for number in 0..10_000 {
        let store = Store::open(root)?;
        store.sweep()?;
        let lease = store.lease()?;
        let image =
            commit_image(&store, &format!("i{seed}-{number}"), &["base", &format!("{seed} {number}")])?;
        let made = step_record([1; 32], &format!("{seed} {number}"));
        store.put_step_record(&made, &vec![1; 20_000])?;
        store.put_step_record(&step_record([1; 32], "base"), b"the same again")?;
        store.put_build_report(&image.id, seed.as_bytes())?;
        let id = format!("{:0>60}{:0>4}", seed, number % 10_000);
        let record = ContainerRecord { id, ..container_record('a', &format!("c{seed}-{number}"), &image) };
        store.create_container(&record)?;
        drop(lease);
        store.remove_container(&record.id)?;
        if number % 3 == 0 {
            store.remove_image(&image.id)?;
            store.gc(GcOptions { keep_cache: number % 2 == 0, ..Default::default() })?;
        }
    }
    Ok(())
}

#[test]
fn killed_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let started = Instant::now();
    for round in 0..40u64 {
        let mut child = spawn(&format!("churn {round}"), &root, None);
        // Spread over the first tens of milliseconds, making the store included.
        std::thread::sleep(Duration::from_micros(4_000 + (round * 7919) % 61_000));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "the child ended by itself: {status}");
        check_store(&root);
        let store = Store::open(&root).unwrap();
        commit_image(&store, &format!("after-{round}"), &["base", &format!("after {round}")]).unwrap();
        if started.elapsed() > Duration::from_secs(15) {
            println!("stopped after {round} rounds: slow machine");
            break;
        }
    }
    let store = Store::open(&root).unwrap();
    store.gc(GcOptions::default()).unwrap();
    check_store(&root);
    let layers_count = std::fs::read_dir(root.join("layers")).unwrap().count();
    assert_eq!(layers_count, store.layers().unwrap().len(), "no orphan survives a collection");
}

/// One pass over all that has fail points.
fn story(root: &Path) -> Result<()> {
    let store = Store::open(root)?;
    store.sweep()?;
    let image = commit_image(&store, "story", &["base", "story"])?;
    let record = container_record('a', "story", &image);
    store.create_container(&record)?;
    for (layer, inputs) in [("base", "x"), ("story", "y"), ("base", "x")] {
        store.put_step_record(&step_record([1; 32], layer), inputs.as_bytes())?;
    }
    store.put_build_report(&image.id, b"report")?;
    pull_again(&store, &image)?;
    let damaged = layer_record("damaged");
    commit_layer(&store, &damaged)?;
    store.put_step_record(&step_record([1; 32], "damaged"), b"z")?;
    store.forget_layer(&damaged.diff_id, None)?;
    for context in ["one", "two", "one"] {
        let ingest = store.ingest()?;
        store.keep_failed_step(ingest, context, b"{}", &[(image.layers[0].clone(), None)])?;
    }
    store.forget_failed_steps("two")?;
    let begin = |directory: &Path| -> Result<_> {
        let path = directory.join("begun");
        std::fs::create_dir(&path).unwrap();
        Ok(path)
    };
    drop(store.try_cache_mount("id", CacheMountSharing::Locked, &begin)?);
    store.make_durable()?;
    store.remove_container(&record.id)?;
    store.remove_image(&image.id)?;
    store.gc(GcOptions { failed_steps: true, cache_mounts: true, ..GcOptions::default() })?;
    Ok(())
}

/// What is kept of a pull and a push.
fn pull_again(store: &Store, image: &ImageRecord) -> Result<()> {
    let target = digest("index");
    let (names, target) = (["example.test/story:latest", "example.test/story@x"], Some(&target));
    let with = ImageCommit { names: &names, target, ..ImageCommit::default() };
    store.commit_image(image, &with)?;
    store.copy_name("example.test/story:latest", "example.test/copy:latest")?;
    let blob = digest("blob");
    store.put_blob_source(&blob, "example.test", "story")?;
    store.set_upload("example.test", "story", &blob, Some("/upload"))?;
    let form = CompressedForm { digest: blob, size_bytes: 1 };
    store.put_compressed_form(&image.layers[0], "gzip-6", &form)?;
    store.put_manifest_list("list", b"{}")
}

fn every_fail_point(action: &str, expect: impl Fn(std::process::ExitStatus) -> bool) {
    let mut reached_end = false;
    for position in 1..200 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        if position > 2 {
            // Before that the making of the store itself fails.
            commit_image(&Store::open(&root).unwrap(), "before", &["base"]).unwrap();
        }
        let status = spawn("story 0", &root, Some(&format!("store.*:{position}:{action}"))).wait().unwrap();
        if status.success() {
            reached_end = true;
            break;
        }
        assert!(expect(status), "{action} {position}: {status}");
        check_store(&root);
        // What was refused or cut short can be done again, and leaves what it should.
        assert!(
            spawn("story 0", &root, None).wait().unwrap().success() || has_container(&root),
            "{position}"
        );
        let store = Store::open(&root).unwrap();
        for container in store.containers().unwrap() {
            store.remove_container(&container.record.id).unwrap();
        }
        story(&root).unwrap();
        check_store(&root);
        let before = usize::from(position > 2);
        assert_eq!(store.images().unwrap().len(), before, "{action} {position}");
        assert_eq!(std::fs::read_dir(root.join("layers")).unwrap().count(), before, "{action} {position}");
        for empty in ["containers", "failed", "cache"] {
            assert_eq!(
                std::fs::read_dir(root.join(empty)).unwrap().count(),
                0,
                "{action} {position}: {empty}"
            );
        }
    }
    assert!(reached_end, "the story has fewer than 200 fail points");
}

/// A hundred records of one key, half of them the same as those of the other processes.
fn record_steps(root: &Path, seed: &str) -> Result<()> {
    for number in 0..100 {
        let store = Store::open(root)?;
        let text = if number % 2 == 0 { format!("shared {number}") } else { format!("{seed} {number}") };
        commit_layer(&store, &layer_record(&text))?;
        let id = store.put_step_record(&step_record([1; 32], &text), text.as_bytes())?;
        store.touch_step_record(id)?;
        if store.step_records(&[1; 32])?.len() > STEP_RECORDS_MAX as usize {
            return Err(StoreError::InvalidName { what: "number of records", value: text });
        }
    }
    Ok(())
}

#[test]
fn many_processes_record_steps_of_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let children: Vec<Child> = (0..6).map(|seed| spawn(&format!("steps {seed}"), &root, None)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    check_store(&root);
    let store = Store::open(&root).unwrap();
    let records = store.step_records(&[1; 32]).unwrap();
    assert_eq!(records.len(), STEP_RECORDS_MAX as usize);
    let inputs: std::collections::HashSet<_> =
        records.iter().map(|record| store.step_inputs(record.id).unwrap()).collect();
    assert_eq!(inputs.len(), records.len(), "the same is kept once");
}

fn forget(store: &Store) -> Result<()> {
    store.sweep()?;
    store.forget_layer(&layer_record("needed").diff_id, None)?;
    Ok(())
}

/// Whatever happens while a layer is forgotten that an image needs: it is there whole or not at all, and made again it
/// heals the image.
#[test]
fn a_kill_or_failure_while_a_needed_layer_is_forgotten() {
    for action in ["kill", "fail", "full"] {
        let mut interrupted = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            let store = Store::open(&root).unwrap();
            let image = commit_image(&store, "one", &["needed"]).unwrap();
            store.put_step_record(&step_record([1; 32], "needed"), b"inputs").unwrap();
            let point = format!("store.*:{}:{action}", interrupted + 1);
            let was_done = spawn("forget 0", &root, Some(&point)).wait().unwrap().success();
            store.sweep().unwrap();
            let is_there = store.layer(&image.layers[0], None).unwrap().is_some();
            let place = root.join("layers").join(image.layers[0].0.hex());
            assert_eq!(place.exists(), is_there, "{point}");
            assert_eq!(store.step_records(&[1; 32]).unwrap().len(), usize::from(is_there), "{point}");
            assert_eq!(std::fs::read_dir(root.join("ingest")).unwrap().count(), 0, "{point}");
            assert!(!(was_done && is_there), "{point}");
            commit_layer(&store, &layer_record("needed")).unwrap();
            check_store(&root);
            if was_done {
                break;
            }
            interrupted += 1;
            assert!(interrupted < 50, "{action}: more fail points than there can be");
        }
        assert!(interrupted >= 3, "{action}: {interrupted} fail points");
    }
}

/// A story cut short after it made its container cannot make it again: the name is taken.
fn has_container(root: &Path) -> bool {
    !Store::open(root).unwrap().containers().unwrap().is_empty()
}

#[test]
fn a_failure_at_every_fail_point() {
    every_fail_point("fail", |status| status.code() == Some(5));
}

#[test]
fn a_kill_at_every_fail_point() {
    every_fail_point("kill", |status| status.signal() == Some(9));
}

#[test]
fn a_full_disk_at_every_fail_point() {
    every_fail_point("full", |status| status.code() == Some(28));
}

/// Commits until the disk is full.
fn fill(root: &Path) -> Result<()> {
    let store = Store::open(root)?;
    for number in 0..100_000 {
        commit_image(&store, &format!("fill-{number}"), &[&format!("fill {number}")])?;
    }
    Ok(())
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
        let root = mount.join("root");
        let status = spawn("fill 0", &root, None).wait().unwrap();
        assert_eq!(status.code(), Some(28), "disk full is its own error");
        let store = Store::open(&root).unwrap();
        let images = store.images().unwrap();
        assert!(!images.is_empty());
        // Room again: the store goes on, with all that was committed.
        let larger = rustix::mount::mount_remount(&mount, flags, c"size=8m");
        larger.unwrap();
        check_store(&root);
        commit_image(&store, "after", &["after"]).unwrap();
        assert_eq!(store.images().unwrap().len(), images.len() + 1);
    });
    rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH).unwrap();
    outcome.unwrap();
}
