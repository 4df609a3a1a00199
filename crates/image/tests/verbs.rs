//! Naming, listing, removing, saving.

mod common;

use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use common::{import_files, options, rootless, store, tar};
use mica_image::{
    BuiltImage, ListFilter, PruneFilter, Removed, Source, config, history, import, inspect, list, load,
    manifest, prune, put_built, remove, resolve, save, tag,
};
use mica_oci::{ImageId, Reference};
use mica_store::{ContainerRecord, ContainerState, Store, random_container_id};

const FILES: &[(&str, &[u8])] = &[("bin/", b""), ("bin/hello", b"hello"), ("etc/", b"")];

fn container(store: &Store, image: &ImageId, name: &str) -> String {
    let id = random_container_id().unwrap();
    let record = ContainerRecord {
        id: id.clone(),
        name: name.to_owned(),
        image: image.clone(),
        image_name: "x".to_owned(),
        created_unix_ns: 0,
        config: b"{}".to_vec(),
        state: ContainerState::Created,
        remove_on_exit: false,
        volumes: Vec::new(),
    };
    store.create_container(&record).unwrap();
    id
}

fn remove_text(store: &Store, text: &str, force: bool) -> Result<Vec<String>, String> {
    let removal = remove(store, &[text.to_owned()], force).unwrap();
    match removal.errors.first() {
        Some(error) => Err(error.to_string()),
        None => Ok(removal
            .removed
            .iter()
            .map(|removed| match removed {
                Removed::Untagged(name) => format!("Untagged: {name}"),
                Removed::Deleted(digest) => format!("Deleted: {digest}"),
            })
            .collect()),
    }
}

#[test]
fn names_and_prefixes() {
    let (_directory, store) = store();
    let id = import_files(&store, "demo", FILES);
    let hex = id.0.hex();
    let check = |text: &str, expect: bool| {
        assert_eq!(resolve(&store, text).unwrap().is_some(), expect, "{text}");
    };
    check("demo", true);
    check("demo:latest", true);
    check("docker.io/library/demo", true);
    check("library/demo", true);
    check("demo:1", false);
    check(&hex[..12], true);
    check(hex, true);
    check(&format!("sha256:{}", &hex[..6]), true);
    check(id.0.as_str(), true);
    let (digest, _) = manifest(&store, &id).unwrap();
    check(&format!("demo@{digest}"), true);
    check(&format!("other@{digest}"), false);
    check(digest.as_str(), true);
    check("nothing", false);
    assert!(resolve(&store, "UPPER").is_err());
    assert_eq!(tag(&store, &hex[..12], "demo:v2").unwrap(), id);
    assert!(tag(&store, "demo", &format!("demo@{digest}")).is_err());
    assert_eq!(tag(&store, "nope", "x").unwrap_err().to_string(), "No such image: nope:latest");
}

#[test]
fn identical_builds_change_nothing() {
    let (_directory, store) = store();
    let id = import_files(&store, "base", FILES);
    let image = config(&store, &id).unwrap();
    let diff_id = image.rootfs.diff_ids[0].clone();
    let size = store.layer(&diff_id, None).unwrap().unwrap().record.tar_size_bytes;
    let built = BuiltImage { config: image.clone(), layers: vec![(diff_id, size)] };
    let names = [Reference::parse("a").unwrap(), Reference::parse("b:1").unwrap()];
    let first = put_built(&store, &built, &names).unwrap();
    let started = std::time::Instant::now();
    assert_eq!(put_built(&store, &built, &names).unwrap(), first);
    assert!(started.elapsed().as_millis() < 50);
    let mut other = built.clone();
    other.config.author = Some("me".to_owned());
    let (other_id, _) = put_built(&store, &other, &names).unwrap();
    assert_eq!(resolve(&store, "a").unwrap(), Some(other_id));
    assert_eq!(resolve(&store, "base").unwrap(), Some(id));
    let wrong = BuiltImage { layers: Vec::new(), ..built };
    assert!(put_built(&store, &wrong, &[]).is_err());
}

#[test]
fn rows_of_the_list() {
    let (_directory, store) = store();
    import_files(&store, "a:1", FILES);
    tag(&store, "a:1", "b:2").unwrap();
    import(&store, Cursor::new(tar(&[("x", b"123")])), &options("", &["LABEL k=v"])).unwrap();
    let check = |filter: ListFilter, expect: &[&str]| {
        let rows = list(&store, &filter).unwrap();
        let mut names: Vec<String> = rows
            .iter()
            .map(|row| match (&row.repository, &row.tag) {
                (Some(repository), Some(tag)) => format!("{repository}:{tag} {}", row.size_bytes),
                _ => format!("none {}", row.size_bytes),
            })
            .collect();
        names.sort();
        assert_eq!(names, expect, "{filter:?}");
    };
    let all = ListFilter::default();
    check(all.clone(), &["a:1 5", "b:2 5", "none 3"]);
    check(ListFilter { dangling: Some(true), ..all.clone() }, &["none 3"]);
    check(ListFilter { dangling: Some(false), ..all.clone() }, &["a:1 5", "b:2 5"]);
    check(ListFilter { labels: vec![("k".into(), Some("v".into()))], ..all.clone() }, &["none 3"]);
    check(ListFilter { references: vec!["a".into()], ..all.clone() }, &["a:1 5"]);
    check(ListFilter { references: vec!["*:2".into()], ..all.clone() }, &["b:2 5"]);
    check(ListFilter { until_unix_s: Some(0), ..all }, &[]);
}

#[test]
fn removing_by_the_rules_of_docker() {
    let (_directory, store) = store();
    let id = import_files(&store, "a:1", FILES);
    let short = id.0.short().to_owned();
    tag(&store, "a:1", "b:1").unwrap();
    assert_eq!(
        remove_text(&store, &short, false).unwrap_err(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(remove_text(&store, "b:1", false).unwrap(), ["Untagged: b:1"]);
    let user = container(&store, &id, "c");
    let user_short = &user[..12];
    assert_eq!(
        remove_text(&store, "a:1", false).unwrap_err(),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container {user_short} is using its referenced image {short}"
        )
    );
    assert_eq!(
        remove_text(&store, &short, false).unwrap_err(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {user_short}"
        )
    );
    assert_eq!(remove_text(&store, "a:1", true).unwrap(), ["Untagged: a:1"]);
    assert!(store.image(&id).unwrap().is_some(), "the container still stands on it");
    store.remove_container(&user).unwrap();
    let chain = config(&store, &id).unwrap().chain_id().unwrap();
    let lines = remove_text(&store, &short, false).unwrap();
    assert_eq!(lines, [format!("Deleted: {id}"), format!("Deleted: {chain}")]);
    assert!(store.layers().unwrap().is_empty(), "the disk is really free");
    assert_eq!(remove_text(&store, "a:1", false).unwrap_err(), "No such image: a:1");
}

#[test]
fn pruning() {
    let (_directory, store) = store();
    let named = import_files(&store, "a:1", FILES);
    let used = import_files(&store, "", &[("u", b"u")]);
    container(&store, &used, "c");
    let dangling = import_files(&store, "", &[("d", b"d")]);
    let pruned = prune(&store, false, &PruneFilter::default()).unwrap();
    assert_eq!(pruned.deleted[0], dangling.0);
    assert!(pruned.untagged.is_empty() && pruned.reclaimed_bytes > 0);
    let filter = PruneFilter { until_unix_s: Some(0), ..PruneFilter::default() };
    assert_eq!(prune(&store, true, &filter).unwrap().deleted, []);
    let pruned = prune(&store, true, &PruneFilter::default()).unwrap();
    assert_eq!((pruned.untagged, &pruned.deleted[0]), (vec!["a:1".to_owned()], &named.0));
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn history_and_inspect() {
    let (_directory, store) = store();
    let id = import(&store, Cursor::new(tar(FILES)), &options("h", &["CMD [\"/bin/hello\"]"])).unwrap();
    let rows = history(&store, &id).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].size_bytes, rows[0].comment.as_str()), (5, "Imported from -"));
    assert_eq!(rows[0].id.as_ref(), Some(&id));
    let value = inspect(&store, &id).unwrap();
    assert_eq!(value["Id"], id.to_string());
    assert_eq!(value["RepoTags"][0], "h:latest");
    assert_eq!(value["Config"]["Cmd"][0], "/bin/hello");
    assert_eq!(value["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert_eq!(value["Size"], 5);
}

fn saved(store: &Store, texts: &[&str]) -> Vec<u8> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    let mut out = Vec::new();
    save(store, &texts, &mut out).unwrap();
    out
}

#[test]
fn what_is_saved_loads_again_with_the_same_digests() {
    let (_directory, from) = store();
    let a = import_files(&from, "a:1", FILES);
    tag(&from, "a:1", "a:2").unwrap();
    let b = import_files(&from, "b", &[("b", b"b")]);
    let tar = saved(&from, &["a", "b", b.0.short()]);
    assert_eq!(tar, saved(&from, &["a", "b", b.0.short()]), "the same bytes");
    let (_directory, to) = store();
    let loaded = load(&to, Source::Stream(Box::new(Cursor::new(tar.clone()))), rootless()).unwrap();
    assert_eq!(loaded.iter().map(|image| image.id.clone()).collect::<Vec<_>>(), [a.clone(), b]);
    assert_eq!(loaded[0].names, ["a:1", "a:2"]);
    assert_eq!(manifest(&from, &a).unwrap(), manifest(&to, &a).unwrap());
    assert_eq!(saved(&to, &["a", "b"]), tar);
    // Without `manifest.json` it is an OCI layout.
    let directory = tempfile::tempdir().unwrap();
    unpack(&tar, directory.path());
    std::fs::remove_file(directory.path().join("manifest.json")).unwrap();
    let (_keep, again) = store();
    let source = Source::Directory(File::open(directory.path()).unwrap().into());
    assert_eq!(load(&again, source, rootless()).unwrap(), loaded);
    assert!(save(&from, &["nope".to_owned()], &mut Vec::new()).is_err());
}

fn unpack(tar: &[u8], directory: &Path) {
    let file = directory.join(".tar");
    std::fs::write(&file, tar).unwrap();
    run(Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(directory));
    std::fs::remove_file(file).unwrap();
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_installed(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {tool} is not installed");
    }
    found
}

#[test]
fn skopeo_reads_what_is_saved() {
    if !is_installed("skopeo") {
        return;
    }
    let (directory, store) = store();
    let id = import_files(&store, "a:1", FILES);
    let file = directory.path().join("a.tar");
    std::fs::write(&file, saved(&store, &["a:1"])).unwrap();
    let file = file.to_str().unwrap();
    for transport in ["docker-archive", "oci-archive"] {
        let told = run(Command::new("skopeo").args(["inspect", "--raw", &format!("{transport}:{file}")]));
        assert!(told.contains(id.0.hex()), "{told}");
        run(Command::new("skopeo").args(["inspect", &format!("{transport}:{file}")]));
    }
    // And back through it, compressed. (From `docker-archive` it would write the config anew.)
    let copy = directory.path().join("copy.tar");
    let copy = format!("oci-archive:{}:docker.io/library/back:1", copy.display());
    let policy = ["--insecure-policy", "copy", "-q", "--dest-compress"];
    run(Command::new("skopeo").args(policy).args([&format!("oci-archive:{file}"), &copy]));
    let (_keep, other) = common::store();
    let source = Source::File(File::open(directory.path().join("copy.tar")).unwrap());
    let loaded = load(&other, source, rootless()).unwrap();
    assert_eq!((loaded[0].names.clone(), &loaded[0].id), (vec!["back:1".to_owned()], &id));
    let layer = store.layers().unwrap().remove(0);
    let other_layer = other.layers().unwrap().remove(0);
    assert_eq!((layer.diff_id, layer.origin), (other_layer.diff_id, None));
    assert!(other_layer.origin.is_some(), "the compressed bytes are kept");
}

#[test]
fn root_umoci_unpacks_what_is_saved() {
    if rootless() || !is_installed("umoci") {
        println!("skipped: needs root and umoci");
        return;
    }
    let (directory, store) = store();
    import_files(&store, "a:1", FILES);
    let layout = directory.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    unpack(&saved(&store, &["a:1"]), &layout);
    let bundle = directory.path().join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:1", layout.display()))
        .arg(&bundle));
    assert_eq!(std::fs::read(bundle.join("rootfs/bin/hello")).unwrap(), b"hello");
}

#[test]
fn layers_that_lean_on_lower_ones() {
    let (_directory, store) = store();
    let lower = tar(&[("d/", b""), ("d/f", b"content")]);
    let mut link = Vec::new();
    let target = mica_tree::Kind::Hardlink { target: b"d/f".to_vec() };
    mica_layer::write_tar::encode_header(&common::entry("d/g", target, 0o644), None, &mut link);
    link.extend_from_slice(&mica_layer::write_tar::END);
    let ids = [&lower, &link].map(|layer| mica_oci::Digest::sha256(layer).to_string());
    let config_text = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#,
        ids[0], ids[1]
    );
    let manifest = br#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["0.tar","1.tar"]}]"#;
    let archive = tar(&[
        ("manifest.json", manifest),
        ("c.json", config_text.as_bytes()),
        ("0.tar", &lower),
        ("1.tar", &link),
    ]);
    let loaded = load(&store, Source::Stream(Box::new(Cursor::new(archive))), rootless()).unwrap();
    let image = config(&store, &loaded[0].id).unwrap();
    let top = store.layer(&image.rootfs.diff_ids[1], image.chain_id().as_ref()).unwrap().unwrap();
    assert_eq!(top.record.chain_id, image.chain_id(), "kept for this chain only");
    assert_eq!(std::fs::read(top.tree_path().join("d/g")).unwrap(), b"content");
    // Its own bytes are kept, so that it is saved as it came.
    let out = saved(&store, &["a:1"]);
    let (_keep, other) = common::store();
    assert_eq!(load(&other, Source::Stream(Box::new(Cursor::new(out))), rootless()).unwrap(), loaded);
}
