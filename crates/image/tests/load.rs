//! Loading: archives of other tools, and broken ones.

mod common;

use std::fs::File;
use std::io::Cursor;

use common::{corpus, import_files, rootless, store, tar};
use mica_image::{ImageError, Loaded, Source, config, import, load, manifest, resolve};
use mica_oci::{DiffId, Digest};
use mica_store::Store;

fn load_file(store: &Store, path: &std::path::Path) -> Result<Vec<Loaded>, ImageError> {
    if path.is_dir() {
        return load(store, Source::Directory(File::open(path).unwrap().into()), rootless());
    }
    load(store, Source::File(File::open(path).unwrap()), rootless())
}

fn load_bytes(store: &Store, bytes: Vec<u8>) -> Result<Vec<Loaded>, ImageError> {
    load(store, Source::Stream(Box::new(Cursor::new(bytes))), rootless())
}

#[test]
fn archives_of_the_corpus() {
    let Some(root) = corpus("archives") else { return };
    let expect = [
        ("v1_mutate_overwritten_file.tar", vec!["bazel/pkg/v1/mutate:overwritten_file"]),
        ("v1_mutate_source_image.tar", vec!["bazel/pkg/v1/mutate:source_image"]),
        ("v1_mutate_whiteout_image.tar", vec!["bazel/pkg/v1/mutate:whiteout_image"]),
        ("v1_mutate_whiteout_dir.tar", vec!["localhost:5000/whiteout:latest"]),
        ("v1_tarball_hello-world-v25.tar", vec![]),
        ("v1_tarball_test_image_1.tar", vec!["bazel/v1/tarball:test_image_1"]),
        ("v1_tarball_test_link.tar", vec!["bazel/v1/tarball:test_image_1", "bazel/v1/tarball:test_image_3"]),
    ];
    let (_directory, store) = store();
    for (file, names) in expect {
        let path = root.join(file);
        let loaded = load_file(&store, &path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let found: Vec<&str> =
            loaded.iter().flat_map(|image| image.names.iter().map(String::as_str)).collect();
        assert_eq!(found, names, "{file}");
        for image in &loaded {
            assert_eq!(resolve(&store, &image.id.to_string()).unwrap().as_ref(), Some(&image.id));
            manifest(&store, &image.id).unwrap();
            for name in &image.names {
                assert_eq!(resolve(&store, name).unwrap().as_ref(), Some(&image.id), "{name}");
            }
        }
        // Again, through a pipe: nothing changes.
        assert_eq!(load_bytes(&store, std::fs::read(&path).unwrap()).unwrap(), loaded, "{file}");
    }
}

#[test]
fn broken_layouts_of_the_corpus() {
    let Some(root) = corpus("archives/oci-layouts") else { return };
    let (_directory, store) = store();
    let expect = [
        (
            "test_gc_image_unknown_mediatype",
            "the archive refers to `blobs/sha256/32589985702551b6c56033bb3334432a0a513bf9d6aceda0f67c42b003850720`, which is not in it",
        ),
        (
            "test_index_media_type",
            "manifest sha256:b544f71ecd82372bc9a3c0dbef378abfd2734fe437df81ff6e242a0d720d8e3e is not of an image: its config is `application/vnd.cncf.helm.config.v1+json`",
        ),
    ];
    for (name, message) in expect {
        let error = load_file(&store, &root.join(name)).unwrap_err();
        assert_eq!(error.to_string(), message, "{name}");
    }
}

/// A docker archive of one image of one layer; `say` may alter what is in it.
fn archive(say: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let layer = tar(&[("d/", b""), ("d/f", b"content")]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        DiffId(Digest::sha256(&layer))
    );
    let mut members = vec![
        (
            "manifest.json".to_owned(),
            br#"[{"Config":"c.json","RepoTags":["a:1","b"],"Layers":["l.tar"]}]"#.to_vec(),
        ),
        ("c.json".to_owned(), config.into_bytes()),
        ("l.tar".to_owned(), layer),
    ];
    say(&mut members);
    let members: Vec<(&str, &[u8])> =
        members.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    tar(&members)
}

fn check(expect: Result<&[&str], &str>, say: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) {
    let (_directory, store) = store();
    let found = load_bytes(&store, archive(say));
    match (found, expect) {
        (Ok(loaded), Ok(names)) => assert_eq!(loaded[0].names, names),
        (Err(error), Err(message)) => {
            assert!(error.to_string().contains(message), "`{error}`, not `{message}`");
            assert!(store.images().unwrap().is_empty());
        }
        (found, expect) => panic!("{found:?}, not {expect:?}"),
    }
}

#[test]
fn hostile_archives() {
    let set = |name: &'static str, bytes: &'static [u8]| {
        move |members: &mut Vec<(String, Vec<u8>)>| {
            for (path, content) in members.iter_mut() {
                if path == name {
                    *content = bytes.to_vec();
                }
            }
        }
    };
    check(Ok(&["a:1", "b:latest"]), |_| {});
    check(Ok(&["a:1", "b:latest"]), |members| members.reverse());
    check(Err("layer 1 of 1 (`l.tar`) does not match the image config: expected sha256:"), |members| {
        members[2].1[1024] ^= 1;
    });
    check(Err("layer 1 of 1 (`l.tar`): "), |members| members[2].1.truncate(700));
    check(Err("refers to `l.tar`, which is not in it"), |members| members.truncate(2));
    check(Err("refers to `c.json`, which is not in it"), |members| members.truncate(1));
    check(Err("neither `manifest.json` nor `index.json`"), Vec::clear);
    check(Err("`manifest.json` in the archive: "), set("manifest.json", b"null"));
    check(Err("lists no image"), set("manifest.json", b"[]"));
    check(
        Err("config lists 0 layers, but 1 are given"),
        set("c.json", br#"{"os":"linux","architecture":"amd64"}"#),
    );
    check(Err("`c.json` in the archive: "), set("c.json", b"{"));
    check(
        Err("refers to `../../../../etc/passwd`, which is not in it"),
        set("manifest.json", br#"[{"Config":"../../../../etc/passwd","Layers":[]}]"#),
    );
    check(
        Err("refers to `/etc/passwd`, which is not in it"),
        set("manifest.json", br#"[{"Config":"c.json","Layers":["/etc/passwd"]}]"#),
    );
    check(
        Err("INVALID"),
        set("manifest.json", br#"[{"Config":"c.json","RepoTags":["INVALID!"],"Layers":["l.tar"]}]"#),
    );
    let wrong = br#"[{"Config":"0000000000000000000000000000000000000000000000000000000000000000.json","Layers":["l.tar"]}]"#;
    check(Err("is damaged: expected sha256:0000"), move |members| {
        members[0].1 = wrong.to_vec();
        members[1].0 = format!("{}.json", "0".repeat(64));
    });
}

#[test]
fn bytes_that_are_no_archive() {
    for bytes in [&b""[..], b"hello", &[0; 1024], &[0xff; 4096]] {
        let (_directory, store) = store();
        assert!(load_bytes(&store, bytes.to_vec()).is_err());
    }
}

#[test]
fn a_foreign_tar_keeps_its_bytes_and_ours_does_not() {
    let (_directory, store) = store();
    let loaded = load_bytes(&store, archive(|_| {})).unwrap();
    let config_of = config(&store, &loaded[0].id).unwrap();
    let layer = store.layer(&config_of.rootfs.diff_ids[0], None).unwrap().unwrap();
    assert_eq!(layer.record.origin, None, "this tar is as mica writes it");
    let foreign = corpus("archives/v1_mutate_source_image.tar");
    if let Some(path) = foreign {
        let loaded = load_file(&store, &path).unwrap();
        let diff_id = config(&store, &loaded[0].id).unwrap().rootfs.diff_ids[0].clone();
        let layer = store.layer(&diff_id, None).unwrap().unwrap();
        assert_eq!(layer.record.origin.map(|(digest, _)| digest), Some(diff_id.0));
    }
}

#[test]
fn import_makes_one_layer() {
    let (_directory, store) = store();
    let files: &[(&str, &[u8])] = &[("bin/", b""), ("bin/sh", b"#!"), ("etc/deep/conf", b"x")];
    let id = import_files(&store, "rootfs:1", files);
    assert_eq!(resolve(&store, "rootfs:1").unwrap(), Some(id.clone()));
    let image = config(&store, &id).unwrap();
    assert_eq!(image.history[0].comment.as_deref(), Some("Imported from -"));
    assert_eq!(store.image(&id).unwrap().unwrap().size_bytes, 3);
    let layer = store.layer(&image.rootfs.diff_ids[0], None).unwrap().unwrap();
    assert_eq!(std::fs::read(layer.tree_path().join("etc/deep/conf")).unwrap(), b"x");
    // The same tree compressed is the same layer.
    let folded = zstd::encode_all(tar(files).as_slice(), 1).unwrap();
    let again = import(&store, Cursor::new(folded), &common::options("", &["CMD x"])).unwrap();
    assert_eq!(config(&store, &again).unwrap().rootfs, image.rootfs);
}

/// An OCI layout of one image a platform, in one index, which may lie in others.
fn layout(platforms: &[&str], depth: usize, name: &str) -> Vec<u8> {
    use mica_oci::image_layout::ANNOTATION_REF_NAME;
    use mica_oci::{Descriptor, Index, Manifest, Platform, media_type};
    let layer = tar(&[("f", b"x")]);
    let mut members = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut put = |media_type: &str, bytes: Vec<u8>| {
        let descriptor = Descriptor::of(media_type, &bytes);
        members.push((mica_oci::ImageLayout::blob_path(&descriptor.digest), bytes));
        descriptor
    };
    let layer_descriptor = put(media_type::OCI_LAYER_ZSTD, zstd::encode_all(layer.as_slice(), 1).unwrap());
    let manifest = |platform: &&str| {
        let platform = Platform::parse(platform).unwrap();
        let config = format!(
            r#"{{"architecture":"{}","os":"{}","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            platform.architecture,
            platform.os,
            Digest::sha256(&layer)
        );
        let config = put(media_type::OCI_CONFIG, config.into_bytes());
        let bytes = Manifest::oci(config, vec![layer_descriptor.clone()]).to_canonical_json();
        Descriptor { platform: Some(platform), ..put(media_type::OCI_MANIFEST, bytes) }
    };
    let mut manifests: Vec<Descriptor> = platforms.iter().map(manifest).collect();
    for _ in 0..depth {
        manifests = vec![put(media_type::OCI_INDEX, Index::oci(manifests).to_canonical_json())];
    }
    for descriptor in &mut manifests {
        descriptor.annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.to_owned());
    }
    members.push(("index.json".to_owned(), Index::oci(manifests).to_canonical_json()));
    let members: Vec<(&str, &[u8])> =
        members.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    tar(&members)
}

#[test]
fn layouts_and_nested_indexes() {
    let host = mica_oci::Platform::host().architecture;
    let other = if host == "s390x" { "linux/ppc64le" } else { "linux/s390x" };
    let own = format!("linux/{host}");
    let check = |platforms: &[&str], depth: usize, name: &str, expect: Result<&[&str], &str>| {
        let (_directory, store) = store();
        match (load_bytes(&store, layout(platforms, depth, name)), expect) {
            (Ok(loaded), Ok(names)) => {
                assert_eq!(
                    (loaded.len(), &loaded[0].names[..]),
                    (1, &names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..])
                );
                let (_, manifest) = manifest(&store, &loaded[0].id).unwrap();
                assert!(store.has_blob(&manifest.layers[0].digest).unwrap(), "compressed bytes are kept");
                if platforms.contains(&own.as_str()) {
                    assert_eq!(config(&store, &loaded[0].id).unwrap().architecture, host);
                }
            }
            (Err(error), Err(message)) => assert!(error.to_string().contains(message), "{error}"),
            (found, expect) => panic!("{found:?}, not {expect:?}"),
        }
    };
    check(&[&own], 0, "latest", Ok(&[]));
    check(&[&own], 0, "a:1", Ok(&["a:1"]));
    check(&[other, &own], 0, "docker.io/x/y:1", Ok(&["x/y:1"]));
    check(&[other, &own], 1, "a:1", Ok(&["a:1"]));
    check(&[other, &own], 3, "a:1", Ok(&["a:1"]));
    check(&[other], 1, "a:1", Ok(&["a:1"]));
    check(&[other, "windows/amd64"], 1, "a:1", Err(&format!("is for {own}; it has {other}, windows/amd64")));
    check(&[&own], 6, "a:1", Err("nested more than 4 deep"));
    check(&[], 0, "a:1", Err("lists no image"));
}
