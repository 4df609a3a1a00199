//! Names as pulls leave them: by digest beside those by tag, with targets and images of several platforms.

mod common;

use std::io::Cursor;

use common::{import_files, options, store, tar};
use mica_image::{
    ImageError, ListFilter, PruneFilter, Pruned, Removed, Source, config, history, import, inspect, list,
    load_for, manifest, prune, remove, remove_platforms, resolve, resolve_platform, save, save_for, tag,
};
use mica_oci::{Descriptor, Digest, ImageId, Index, Platform};
use mica_store::{ContainerRecord, ContainerState, Download, ImageCommit, Store, random_container_id};

/// An image of one file for a platform, without a name.
fn image(store: &Store, platform: &str, content: &str) -> ImageId {
    let mut options = options("", &[]);
    options.platform = Platform::parse(platform).unwrap();
    import(store, Cursor::new(tar(&[("file", content.as_bytes())])), &options).unwrap()
}

/// An index of images, stored as a pull stores it.
fn index(store: &Store, images: &[&ImageId]) -> Digest {
    let descriptors = images.iter().map(|id| {
        let (digest, manifest) = manifest(store, id).unwrap();
        let size = store.blob_size_bytes(&digest).unwrap().unwrap();
        Descriptor::new(manifest.media_type(), digest, size)
    });
    store.put_blob(&Index::oci(descriptors.collect()).to_canonical_json()).unwrap()
}

/// What a pull of `name:tag` commits.
fn pull(store: &Store, name: &str, id: &ImageId, target: &Digest) {
    let record = store.image(id).unwrap().unwrap();
    let tagged = format!("docker.io/library/{name}");
    let repository = tagged.split(':').next().unwrap();
    let by_digest = format!("{repository}@{target}");
    let blobs = [target.clone()];
    let names = [by_digest.as_str(), tagged.as_str()];
    let with = ImageCommit { blobs: &blobs, names: &names, target: Some(target), ..ImageCommit::default() };
    store.commit_image(&record, &with).unwrap();
}

fn container(store: &Store, image: &ImageId) -> String {
    let record = ContainerRecord {
        id: random_container_id().unwrap(),
        name: "c".to_owned(),
        image: image.clone(),
        image_name: "x".to_owned(),
        created_unix_ns: 0,
        config: b"{}".to_vec(),
        state: ContainerState::Created,
        remove_on_exit: false,
        volumes: Vec::new(),
    };
    store.create_container(&record).unwrap();
    record.id
}

/// Rows as `REPOSITORY TAG DIGEST IMAGE`, images by a letter, digests by a number.
fn rows(store: &Store, filter: &ListFilter, images: &[&ImageId], targets: &[&Digest]) -> Vec<String> {
    let mut rows: Vec<String> = list(store, filter)
        .unwrap()
        .iter()
        .map(|row| {
            let position = images.iter().position(|id| **id == row.id).unwrap();
            let target = |digest| targets.iter().position(|target| **target == digest).unwrap().to_string();
            format!(
                "{} {} {} {}",
                row.repository.as_deref().unwrap_or("-"),
                row.tag.as_deref().unwrap_or("-"),
                row.digest.clone().map_or("-".to_owned(), target),
                ["a", "b", "c"][position]
            )
        })
        .collect();
    rows.sort();
    rows
}

/// What goes with a text, images as their letters, without layers; or why it does not.
fn removed(store: &Store, text: &str, force: bool, images: &[&ImageId]) -> Result<Vec<String>, String> {
    let removal = remove(store, &[text.to_owned()], force).unwrap();
    if let Some(error) = removal.errors.first() {
        return Err(error.to_string());
    }
    Ok(removal.removed.iter().filter_map(|removed| told(removed, images)).collect())
}

fn told(removed: &Removed, images: &[&ImageId]) -> Option<String> {
    match removed {
        Removed::Untagged(name) => Some(name.clone()),
        Removed::Deleted(digest) => {
            let position = images.iter().position(|id| id.0 == *digest)?;
            Some(["a", "b", "c"][position].to_owned())
        }
    }
}

fn pruned(store: &Store, all: bool, images: &[&ImageId]) -> Vec<String> {
    let pruned = prune(store, all, &PruneFilter::default()).unwrap();
    let deleted = pruned.deleted.into_iter().filter_map(|digest| told(&Removed::Deleted(digest), images));
    pruned.untagged.into_iter().chain(deleted).collect()
}

#[test]
fn a_tag_that_moved_leaves_the_digest() {
    let (_directory, store) = store();
    let (a, b) = (image(&store, "linux/amd64", "a"), image(&store, "linux/amd64", "b"));
    let (one, two) = (manifest(&store, &a).unwrap().0, manifest(&store, &b).unwrap().0);
    let (images, targets) = ([&a, &b], [&one, &two]);
    let all = ListFilter::default();
    let dangling = |dangling| ListFilter { dangling: Some(dangling), ..ListFilter::default() };
    pull(&store, "n:1", &a, &one);
    assert_eq!(rows(&store, &all, &images, &targets), ["- - - b", "n 1 0 a"]);
    let user = container(&store, &a);
    pull(&store, "n:1", &b, &two);
    assert_eq!(rows(&store, &all, &images, &targets), ["n - 0 a", "n 1 1 b"]);
    assert_eq!(rows(&store, &dangling(true), &images, &targets), ["n - 0 a"]);
    assert_eq!(rows(&store, &dangling(false), &images, &targets), ["n - 0 a", "n 1 1 b"]);
    let named = ListFilter { references: vec!["n:1".to_owned()], ..all.clone() };
    assert_eq!(rows(&store, &named, &images, &targets), ["n 1 1 b"]);
    let named = ListFilter { references: vec!["n".to_owned()], ..all.clone() };
    assert_eq!(rows(&store, &named, &images, &targets), ["n - 0 a", "n 1 1 b"]);
    let find = |text: &str| resolve(&store, text).unwrap();
    assert_eq!(find("n:1"), Some(b.clone()));
    assert_eq!(find(&format!("n@{one}")), Some(a.clone()));
    assert_eq!(find(&format!("n:1@{one}")), Some(a.clone()), "the digest decides");
    assert_eq!(find(&format!("n:no@{one}")), Some(a.clone()));
    assert_eq!(find(&format!("m@{one}")), None);
    let value = inspect(&store, &a).unwrap();
    assert_eq!(value["RepoTags"], serde_json::json!([]));
    assert_eq!(value["RepoDigests"], serde_json::json!([format!("n@{one}")]));
    assert_eq!(value["Descriptor"]["digest"], one.to_string());
    assert_eq!(value["Descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert!(value["Descriptor"]["size"].as_u64().unwrap() > 100);
    // A container keeps it; then it goes with its digest.
    assert_eq!(pruned(&store, false, &images), [""; 0]);
    store.remove_container(&user).unwrap();
    assert_eq!(pruned(&store, false, &images), [format!("n@{one}"), "a".to_owned()]);
    assert_eq!(removed(&store, "n:1", false, &images).unwrap(), ["n:1", &format!("n@{two}"), "b"]);
    assert!(store.images().unwrap().is_empty() && store.layers().unwrap().is_empty());
}

#[test]
fn removing_by_digest() {
    let (_directory, store) = store();
    let a = image(&store, "linux/amd64", "a");
    let one = manifest(&store, &a).unwrap().0;
    let two = index(&store, &[&a]);
    let by_digest = |digest: &Digest| format!("n@{digest}");
    pull(&store, "n:1", &a, &one);
    pull(&store, "n:2", &a, &two);
    assert_eq!(rows(&store, &ListFilter::default(), &[&a], &[&one, &two]), ["n 1 0 a", "n 2 1 a"]);
    assert_eq!(removed(&store, &by_digest(&one), false, &[&a]).unwrap(), [by_digest(&one)]);
    assert_eq!(resolve(&store, "n:1").unwrap(), Some(a.clone()), "the tag stays");
    pull(&store, "n:2", &a, &one);
    assert_eq!(removed(&store, "n:1", false, &[&a]).unwrap(), ["n:1"]);
    store.remove_name("docker.io/library/n:2").unwrap();
    let user = container(&store, &a);
    // Of two digests one may go, of the last one the container keeps hold.
    assert_eq!(removed(&store, &by_digest(&two), true, &[&a]).unwrap(), [by_digest(&two)]);
    let error = removed(&store, &by_digest(&one), false, &[&a]).unwrap_err();
    assert!(error.contains("must force"), "{error}");
    store.remove_container(&user).unwrap();
    assert_eq!(removed(&store, &by_digest(&one), false, &[&a]).unwrap(), [by_digest(&one).as_str(), "a"]);
    // An image that was not pulled is found by its manifest too, and then is the one that is meant.
    let a = import_files(&store, "n:1", &[("x", b"x")]);
    let one = manifest(&store, &a).unwrap().0;
    assert_eq!(removed(&store, &by_digest(&one), false, &[&a]).unwrap(), ["n:1", "a"]);
}

#[test]
fn platforms_of_one_name() {
    let (_directory, store) = store();
    let (a, b) = (image(&store, "linux/amd64", "a"), image(&store, "linux/arm64", "b"));
    let c = image(&store, "windows/amd64", "c");
    let images = [&a, &b, &c];
    let target = index(&store, &images);
    for id in images {
        pull(&store, "n:1", id, &target);
    }
    let shown = |filter: &ListFilter| rows(&store, filter, &images, &[&target]);
    assert_eq!(shown(&ListFilter::default()), ["n 1 0 c"], "once");
    assert_eq!(shown(&ListFilter { dangling: Some(true), ..ListFilter::default() }), [""; 0]);
    assert_eq!(tag(&store, "n:1", "m:2").unwrap(), c);
    let check = |text: &str, platform: &str, expect: Result<&ImageId, &str>| {
        let found = resolve_platform(&store, text, &Platform::parse(platform).unwrap());
        match (found, expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, *expect, "{text} {platform}"),
            (Err(error), Err(expect)) => assert_eq!(error.to_string(), expect, "{text} {platform}"),
            (found, _) => panic!("{text} {platform}: {found:?}"),
        }
    };
    for text in ["n:1", "m:2", &format!("n@{target}"), &format!("n:1@{target}")] {
        check(text, "linux/amd64", Ok(&a));
        check(text, "linux/x86_64", Ok(&a));
        check(text, "linux/amd64/v3", Ok(&a));
        check(text, "linux/arm64/v8", Ok(&b));
        check(text, "windows/amd64", Ok(&c));
    }
    check(
        "n:1",
        "linux/s390x",
        Err(
            "image with reference n:1 was found but does not provide the specified platform (linux/s390x); it has windows/amd64, linux/amd64, linux/arm64",
        ),
    );
    check(b.0.short(), "linux/arm64", Ok(&b));
    check(
        b.0.as_str(),
        "linux/amd64",
        Err(&format!(
            "image with reference {b} was found but does not provide the specified platform (linux/amd64); it has linux/arm64"
        )),
    );
    check("no", "linux/amd64", Err("No such image: no:latest"));
    let (manifest_of_b, _) = manifest(&store, &b).unwrap();
    assert_eq!(resolve(&store, &format!("n@{manifest_of_b}")).unwrap(), Some(b.clone()));
    let value = inspect(&store, &b).unwrap();
    assert_eq!(value["RepoTags"], serde_json::json!(["m:2", "n:1"]));
    assert_eq!(value["RepoDigests"], serde_json::json!([format!("n@{target}")]));
    assert_eq!(value["Descriptor"]["digest"], target.to_string());
    assert_eq!(value["Descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    // While a name is there, all its images are; and with the last name they all go.
    assert_eq!(pruned(&store, false, &images), [""; 0]);
    let user = container(&store, &b);
    assert_eq!(removed(&store, "n:1", false, &images).unwrap(), ["n:1".to_owned(), format!("n@{target}")]);
    let error = removed(&store, "m:2", false, &images).unwrap_err();
    assert!(error.contains(b.0.short()) && error.contains("must force"), "{error}");
    // What a container stands on keeps the name.
    assert_eq!(pruned(&store, true, &images), ["c"]);
    assert_eq!(resolve(&store, "m:2").unwrap(), Some(a.clone()));
    store.remove_container(&user).unwrap();
    assert_eq!(removed(&store, "m:2", false, &images).unwrap(), ["m:2", "a", "b"]);
    assert!(store.images().unwrap().is_empty() && store.layers().unwrap().is_empty());
}

#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);

impl Flag {
    fn is_set(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Sets the flag, also when a test fails: a thread waits for it.
struct Over<'a>(&'a Flag);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// An image that has no tag at one moment may be pulled at the next: who prunes must not take it then.
#[test]
fn what_is_pulled_while_others_prune_stays() {
    let (_directory, store) = store();
    let made = [image(&store, "linux/amd64", "a"), image(&store, "linux/amd64", "b")];
    let records = made.clone().map(|id| store.image(&id).unwrap().unwrap());
    let targets = made.clone().map(|id| manifest(&store, &id).unwrap().0);
    // Their bytes are wanted again and again.
    for (number, id) in made.iter().enumerate() {
        store.set_name(&format!("kept:{number}"), id).unwrap();
    }
    let _lease = store.lease().unwrap();
    let is_over = Flag::default();
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            let store = Store::open(store.root()).unwrap();
            let mut count = 0;
            while !is_over.is_set() {
                count += prune(&store, false, &PruneFilter::default()).unwrap().deleted.len();
            }
            count
        });
        let over = Over(&is_over);
        for number in 0..2 {
            store.remove_name(&format!("kept:{number}")).unwrap();
        }
        for round in 0..300 {
            let (record, target) = (&records[round % 2], &targets[round % 2]);
            let name = format!("docker.io/library/n@{target}");
            let names = [name.as_str(), "docker.io/library/n:1"];
            let with = ImageCommit { names: &names, target: Some(target), ..ImageCommit::default() };
            store.commit_image(record, &with).unwrap();
            assert_eq!(store.name("docker.io/library/n:1").unwrap().as_ref(), Some(&record.id), "{round}");
            std::thread::yield_now();
            assert_eq!(store.name("docker.io/library/n:1").unwrap().as_ref(), Some(&record.id), "{round}");
        }
        drop(over);
        assert!(pruner.join().unwrap() > 0, "what lost its tag was pruned");
    });
}

#[test]
fn a_download_that_was_cut_short_goes_with_prune() {
    let (_directory, store) = store();
    let a = import_files(&store, "n:1", &[("x", b"x")]);
    let size = || match store.download(&Digest::sha256(b"y"), &mut || ()).unwrap() {
        Download::Partial(partial) => partial.size_bytes(),
        Download::Stored => panic!("it never ended"),
    };
    let begin = || match store.download(&Digest::sha256(b"y"), &mut || ()).unwrap() {
        Download::Partial(mut partial) => partial.append(b"y").unwrap(),
        Download::Stored => panic!("it never ended"),
    };
    begin();
    let filter = PruneFilter { until_unix_s: Some(0), ..PruneFilter::default() };
    assert_eq!(prune(&store, false, &filter).unwrap(), Pruned::default());
    assert_eq!(removed(&store, "n:1", false, &[&a]).unwrap(), ["n:1", "a"]);
    assert_eq!(size(), 1, "what is removed says nothing of what is being pulled");
    assert!(prune(&store, false, &PruneFilter::default()).unwrap().reclaimed_bytes > 0);
    assert_eq!(size(), 0);
}

#[test]
fn one_platform_of_several() {
    let (_directory, store) = store();
    let (a, b) = (image(&store, "linux/amd64", "a"), image(&store, "linux/arm64", "b"));
    let images = [&a, &b];
    let target = index(&store, &images);
    for id in images {
        pull(&store, "n:1", id, &target);
    }
    let platform = |text: &str| Platform::parse(text).unwrap();
    for (text, id) in [("linux/amd64", &a), ("linux/arm64", &b)] {
        let mut out = Vec::new();
        save_for(&store, &["n:1".to_owned()], Some(&platform(text)), &mut out).unwrap();
        let load = |platform: Option<&Platform>| {
            let (_keep, other) = common::store();
            let source = Source::Stream(Box::new(Cursor::new(out.clone())));
            load_for(&other, source, platform, common::rootless())
        };
        let loaded = load(Some(&platform(text))).unwrap();
        assert_eq!((&loaded[0].id, loaded[0].names.as_slice()), (id, ["n:1".to_owned()].as_slice()));
        assert_eq!(load(None).unwrap(), loaded);
        let error = load(Some(&platform("linux/s390x"))).unwrap_err().to_string();
        assert_eq!(error, format!("no image of the archive is for linux/s390x; it has {text}"));
    }
    assert!(save_for(&store, &["n".to_owned()], Some(&platform("linux/s390x")), &mut Vec::new()).is_err());
    let removed = |text: &str, wanted: &str, force: bool| {
        let removal = remove_platforms(&store, &[text.to_owned()], &[platform(wanted)], force).unwrap();
        match removal.errors.first() {
            Some(error) => Err(error.to_string()),
            None => {
                Ok(removal.removed.iter().filter_map(|removed| told(removed, &images)).collect::<Vec<_>>())
            }
        }
    };
    tag(&store, "n:1", "m:1").unwrap();
    assert_eq!(removed("n:1", "linux/arm64", false).unwrap(), [""; 0], "the other repository has it");
    assert_eq!(resolve(&store, "n:1").unwrap(), Some(a.clone()));
    assert_eq!(resolve(&store, &format!("n@{target}")).unwrap(), Some(a.clone()));
    assert!(removed("n:1", "linux/arm64", false).unwrap_err().contains("does not provide"));
    let user = container(&store, &b);
    assert!(removed("m:1", "linux/arm64", false).unwrap_err().contains("must be forced"));
    store.remove_container(&user).unwrap();
    assert_eq!(removed("m:1", "linux/arm64", false).unwrap(), ["b"]);
    assert_eq!(removed("m:1", "linux/amd64", false).unwrap(), ["m:1"]);
    // The last one is the whole name.
    assert_eq!(
        removed("n:1", "linux/amd64", false).unwrap(),
        ["n:1".to_owned(), format!("n@{target}"), "a".to_owned()]
    );
    assert!(store.images().unwrap().is_empty() && store.layers().unwrap().is_empty());
}

#[test]
fn platforms_whose_tag_moved_on() {
    let (_directory, store) = store();
    let (a, b) = (image(&store, "linux/amd64", "a"), image(&store, "linux/arm64", "b"));
    let c = image(&store, "linux/amd64", "c");
    let images = [&a, &b, &c];
    let (one, two) = (index(&store, &[&a, &b]), index(&store, &[&c]));
    pull(&store, "n:1", &a, &one);
    pull(&store, "n:1", &b, &one);
    pull(&store, "n:1", &c, &two);
    assert_eq!(rows(&store, &ListFilter::default(), &images, &[&one, &two]), ["n - 0 b", "n 1 1 c"]);
    let mut gone = pruned(&store, false, &images);
    gone.sort();
    assert_eq!(gone, ["a".to_owned(), "b".to_owned(), format!("n@{one}")]);
    // By its ID, the led-to image takes its names and the images of other platforms with it.
    let (a, b) = (image(&store, "linux/amd64", "a"), image(&store, "linux/arm64", "b"));
    let images = [&a, &b, &c];
    let one = index(&store, &[&a, &b]);
    pull(&store, "n:2", &a, &one);
    pull(&store, "n:2", &b, &one);
    let mut gone = removed(&store, b.0.short(), false, &images).unwrap();
    gone.sort();
    assert_eq!(gone, ["a".to_owned(), "b".to_owned(), "n:2".to_owned(), format!("n@{one}")]);
    assert_eq!(pruned(&store, true, &images), ["n:1".to_owned(), format!("n@{two}"), "c".to_owned()]);
    assert!(store.images().unwrap().is_empty() && store.layers().unwrap().is_empty());
}

#[test]
fn an_image_of_windows_is_an_image() {
    let (_directory, store) = store();
    let id = image(&store, "windows(10.0.20348)/amd64", "Files");
    tag(&store, id.0.short(), "w:1").unwrap();
    assert_eq!(config(&store, &id).unwrap().os, "windows");
    let value = inspect(&store, &id).unwrap();
    assert_eq!((&value["Os"], &value["RepoTags"][0]), (&"windows".into(), &"w:1".into()));
    assert_eq!(history(&store, &id).unwrap().len(), 1);
    let mut out = Vec::new();
    save(&store, &["w:1".to_owned()], &mut out).unwrap();
    let (_keep, other) = common::store();
    let source = Source::Stream(Box::new(Cursor::new(out)));
    assert_eq!(mica_image::load(&other, source, common::rootless()).unwrap()[0].id, id);
    let linux = resolve_platform(&store, "w:1", &Platform::parse("linux/amd64").unwrap());
    assert!(matches!(linux, Err(ImageError::PlatformMissing { .. })));
    assert_eq!(removed(&store, "w:1", false, &[&id]).unwrap(), ["w:1", "a"]);
}
