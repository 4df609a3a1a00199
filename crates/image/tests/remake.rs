//! Layers made anew: with other times, or several as one.

mod common;

use common::{import_files, rootless, store};
use mica_image::{
    BasePart, BuiltImage, Chain, config, put_built, read_index, rewrite_image_times, rewrite_times, save,
    squash,
};
use mica_oci::{DiffId, History, ImageConfig, ImageId};
use mica_store::Store;
use mica_tree::Kind;

/// The image, with its layers' sizes as a build knows them.
fn built(store: &Store, ids: &[&ImageId]) -> BuiltImage {
    let mut made = config(store, ids[0]).unwrap();
    made.rootfs.diff_ids.clear();
    made.history.clear();
    let mut layers = Vec::new();
    for id in ids {
        for diff_id in config(store, id).unwrap().rootfs.diff_ids {
            let layer = store.layer(&diff_id, None).unwrap().unwrap();
            layers.push((diff_id.clone(), layer.record.tar_size_bytes));
            made.rootfs.diff_ids.push(diff_id);
            let created = Some("2026-01-02T03:04:05Z".to_owned());
            made.history.push(History { created, created_by: Some("step".to_owned()), ..History::default() });
        }
    }
    BuiltImage { config: made, layers }
}

fn times(store: &Store, layer: &DiffId) -> Vec<(String, i64)> {
    let index = read_index(&store.layer(layer, None).unwrap().unwrap()).unwrap();
    let time =
        |entry: &mica_tree::Entry| (String::from_utf8(entry.path.clone()).unwrap(), entry.mtime.seconds);
    index.entries().iter().map(time).collect()
}

#[test]
fn times_are_rewritten_in_new_layers() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let base = import_files(&store, "base", &[("a/", b""), ("a/x", b"below")]);
    let top = import_files(&store, "top", &[("a/", b""), ("a/y", b"above")]);
    let image = built(&store, &[&base, &top]);
    let (layer, size) = image.layers[1].clone();
    let rewrite = |epoch| rewrite_times(&store, &lease, &layer, epoch, rootless()).unwrap();
    assert_eq!(rewrite(1_700_000_000), (layer.clone(), size), "no time is later");
    let (made, _) = rewrite(1_600_000_000);
    assert_ne!(made, layer);
    let at = |path: &str| (path.to_owned(), 1_600_000_000);
    assert_eq!(times(&store, &made), [at("a"), at("a/y")]);
    assert_eq!(rewrite(1_600_000_000).0, made);
    // The image: its base stays.
    let part = BasePart { id: Some(base), layers: 1, history: 1 };
    let rewritten = rewrite_image_times(&store, &lease, &image, &part, 1_600_000_000, rootless()).unwrap();
    assert_eq!(rewritten.layers[0], image.layers[0]);
    assert_eq!(rewritten.layers[1].0, made);
    let created = |at: usize| rewritten.config.history[at].created.clone().unwrap();
    assert_eq!([created(0), created(1)], ["2026-01-02T03:04:05Z", "2020-09-13T12:26:40Z"]);
    // It is an image like any other: what is written of it has the digests that are told.
    let (id, _) = put_built(&store, &rewritten, &[]).unwrap();
    save(&store, &[id.to_string()], &mut std::io::sink()).unwrap();
}

#[test]
fn layers_become_one_above_the_base() {
    let (_directory, store) = store();
    let lease = store.lease().unwrap();
    let base = import_files(&store, "base", &[("a/", b""), ("a/x", b"below"), ("gone", b"g")]);
    let one = import_files(&store, "one", &[("a/", b""), ("a/y", b"first"), (".wh.gone", b"")]);
    let two = import_files(&store, "two", &[("a/", b""), ("a/y", b"second"), ("b", b"b"), ("a/.wh.x", b"")]);
    let image = built(&store, &[&base, &one, &two]);
    let part = BasePart { id: Some(base.clone()), layers: 1, history: 1 };
    let made = squash(&store, &lease, &image, &part, rootless()).unwrap();
    assert_eq!(made.layers.len(), 2);
    assert_eq!(made.layers[0], image.layers[0]);
    let layer = store.layer(&made.layers[1].0, None).unwrap().unwrap();
    let words = |index: &mica_tree::Index| {
        let word = |entry: &mica_tree::Entry| {
            let mark = if entry.kind == Kind::Whiteout { "-" } else { "" };
            format!("{mark}{}", String::from_utf8_lossy(&entry.path))
        };
        index.entries().iter().map(word).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(&read_index(&layer).unwrap()), "a -a/x a/y b -gone");
    assert_eq!(std::fs::read(layer.tree_path().join("a/y")).unwrap(), b"second");
    let history = &made.config.history;
    let empty: Vec<bool> = history.iter().map(|entry| entry.empty_layer).collect();
    assert_eq!(empty, [false, true, true, false]);
    let comment = history[3].comment.clone().unwrap();
    assert!(comment.starts_with("merge sha256:") && comment.ends_with(&format!(" to {base}")), "{comment}");
    let (id, _) = put_built(&store, &made, &[]).unwrap();
    let stored: ImageConfig = config(&store, &id).unwrap();
    assert_eq!(Chain::of_image(&store, &stored.rootfs.diff_ids).unwrap().layers().len(), 2);
    save(&store, &[id.to_string()], &mut std::io::sink()).unwrap();
    // Nothing above the base: nothing to do. No base: one layer for all.
    let all = BasePart { layers: 3, ..part };
    assert_eq!(squash(&store, &lease, &image, &all, rootless()).unwrap(), image);
    let none = squash(&store, &lease, &image, &BasePart::default(), rootless()).unwrap();
    assert_eq!(none.layers.len(), 1);
    assert!(none.config.history[3].comment.clone().unwrap().starts_with("create new from sha256:"));
}
