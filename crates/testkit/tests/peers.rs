//! The comparison is itself compared: what buildah builds has the tree that its Dockerfile says.

use std::fs;

use mica_testkit::{Kind, Mica, Need, Peers, bases, changed, differences, missing, tree_of_tar};

#[test]
fn root_an_image_of_buildah_has_the_expected_tree() {
    let base = match missing(&[Need::Root, Need::Tool("buildah"), Need::Tool("crun")]) {
        Some(reason) => Err(reason),
        None => bases::busybox(),
    };
    let base = match base {
        Ok(base) => base,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let peers = Peers::new();
    peers.import(&base, "base:1");
    let context = Mica::temporary_dir();
    fs::write(context.path().join("file"), "hello").expect("a file");
    let dockerfile =
        "FROM base:1\nCOPY file /app/\nRUN ln /app/file /app/other && chmod 4750 /app/file && rm /bin/ls\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
    peers.build(context.path(), "made:1");

    let base_tree = tree_of_tar(&base).expect("the base's tree");
    assert!(differences(&base_tree, &peers.image("base:1").tree, |_| false).is_empty());
    let made = peers.image("made:1").tree;
    let (new, gone) = changed(&base_tree, &made);
    assert!(new.keys().map(String::as_str).all(|path| !path.starts_with("bin")), "{new:#?}");
    assert_eq!((made["app/file"].mode, made["app/file"].kind), (0o4750, Kind::File));
    assert_eq!(made["app/other"].hardlink_to.as_deref(), Some("app/file"));
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), ["bin/ls"]);
}
