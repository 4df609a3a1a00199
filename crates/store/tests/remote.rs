//! What is remembered of registries, and how it is forgotten; manifest lists.

mod common;

use common::*;
use mica_store::*;

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    (dir, store)
}

fn database(store: &Store) -> rusqlite::Connection {
    rusqlite::Connection::open(store.root().join("state.db")).unwrap()
}

#[test]
fn sources_of_blobs() {
    let check = |put: &str, remove: &str, expect: &str| {
        let (_dir, store) = open();
        let (blob, other) = (digest("blob"), digest("other"));
        store.put_blob_source(&other, "r", "x").unwrap();
        store.put_blob_source(&blob, "s", "y").unwrap();
        for repository in put.split_whitespace() {
            store.put_blob_source(&blob, "r", repository).unwrap();
        }
        for repository in remove.split_whitespace() {
            store.remove_blob_source(&blob, "r", repository).unwrap();
        }
        assert_eq!(store.blob_sources(&blob, "r").unwrap().join(" "), expect, "{put}");
        assert_eq!(store.blob_sources(&other, "r").unwrap(), ["x"]);
        assert_eq!(store.blob_sources(&blob, "s").unwrap(), ["y"]);
    };
    check("", "a", "");
    check("a b c", "", "c b a");
    check("a b a", "", "a b");
    check("a b c", "b", "c a");
    check("a b c d e f g h i j", "", "j i h g f e d c");
    check("a b c d e f g h a i", "", "i a h g f e d c");
    check("a b c d e f g h i", "i", "h g f e d c b");
}

#[test]
fn sources_are_bounded_in_all() {
    let (_dir, store) = open();
    store.put_blob_source(&digest("old"), "r", "a").unwrap();
    database(&store).execute("UPDATE blob_sources SET sequence=sequence+5", []).unwrap();
    database(&store).execute("UPDATE sqlite_sequence SET seq=100005 WHERE name='blob_sources'", []).unwrap();
    store.put_blob_sources(&[digest("new"), digest("newer")], "r", "a").unwrap();
    for (text, count) in [("old", 0), ("new", 1), ("newer", 1)] {
        assert_eq!(store.blob_sources(&digest(text), "r").unwrap().len(), count, "{text}");
    }
}

#[test]
fn uploads_are_forgotten_after_a_week() {
    let (_dir, store) = open();
    let blob = digest("blob");
    let get = |repository| store.upload("r", repository, &blob).unwrap();
    let set =
        |repository, location: Option<&str>| store.set_upload("r", repository, &blob, location).unwrap();
    assert_eq!(get("a"), None);
    set("a", Some("/x"));
    set("a", Some("/y"));
    set("b", Some("/z"));
    assert_eq!((get("a").as_deref(), get("b").as_deref()), (Some("/y"), Some("/z")));
    assert_eq!(store.upload("other", "a", &blob).unwrap(), None);
    assert_eq!(store.upload("r", "a", &digest("other")).unwrap(), None);
    database(&store).execute("UPDATE uploads SET begun=begun-7*24*3600 WHERE repository='a'", []).unwrap();
    assert_eq!(get("a"), None);
    set("b", None);
    assert_eq!(get("b"), None);
    set("c", Some(&"x".repeat(20_000)));
    assert_eq!(get("c"), None, "too long to be kept");
    let count = database(&store).query_row("SELECT count(*) FROM uploads", [], |row| row.get::<_, i64>(0));
    assert_eq!(count.unwrap(), 0);
}

#[test]
fn compressed_forms_go_with_their_layer() {
    let (_dir, store) = open();
    let diff_id = layer_record("a").diff_id;
    let form = |text| CompressedForm { digest: digest(text), size_bytes: 7 };
    store.put_compressed_form(&diff_id, "gzip-6", &form("1")).unwrap();
    assert_eq!(store.compressed_form(&diff_id, "gzip-6").unwrap(), None, "there is no such layer");
    commit_layer(&store, &layer_record("a")).unwrap();
    store.put_compressed_form(&diff_id, "gzip-6", &form("1")).unwrap();
    store.put_compressed_form(&diff_id, "zstd-3", &form("2")).unwrap();
    store.put_compressed_form(&diff_id, "zstd-3", &form("3")).unwrap();
    assert_eq!(store.compressed_form(&diff_id, "gzip-6").unwrap(), Some(form("1")));
    assert_eq!(store.compressed_form(&diff_id, "zstd-3").unwrap(), Some(form("3")));
    assert_eq!(store.compressed_form(&diff_id, "gzip-9").unwrap(), None);
    assert_eq!(store.layer_of_compressed(&digest("3")).unwrap(), Some(diff_id.clone()));
    assert_eq!(store.layer_of_compressed(&digest("2")).unwrap(), None);
    // The layer of a chain has the same tar: they go with the last of the two.
    let chain = mica_oci::ChainId(digest("chain"));
    commit_layer(&store, &LayerRecord { chain_id: Some(chain.clone()), ..layer_record("a") }).unwrap();
    store.forget_layer(&diff_id, None).unwrap();
    assert_eq!(store.compressed_form(&diff_id, "gzip-6").unwrap(), Some(form("1")));
    store.gc(GcOptions::default()).unwrap();
    assert_eq!(store.compressed_form(&diff_id, "gzip-6").unwrap(), None);
    assert_eq!(store.layer_of_compressed(&digest("3")).unwrap(), None);
}

#[test]
fn manifest_lists_are_kept_until_removed() {
    let (_dir, store) = open();
    assert_eq!(store.manifest_list("a").unwrap(), None);
    store.put_manifest_list("a", b"{}").unwrap();
    store.put_manifest_list("a", b"[]").unwrap();
    store.put_manifest_list("b", b"").unwrap();
    store.gc(GcOptions::default()).unwrap();
    assert_eq!(store.manifest_list("a").unwrap().unwrap(), b"[]");
    assert_eq!(store.manifest_list("b").unwrap().unwrap(), b"");
    assert!(store.remove_manifest_list("a").unwrap());
    assert!(!store.remove_manifest_list("a").unwrap());
    assert_eq!(store.manifest_list("a").unwrap(), None);
    let large = vec![b' '; (4 << 20) + 1];
    assert!(matches!(store.put_manifest_list("c", &large), Err(StoreError::RecordTooLarge { .. })));
    assert!(matches!(store.put_manifest_list("", b"{}"), Err(StoreError::InvalidName { .. })));
}
