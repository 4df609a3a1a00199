//! Names: what they lead to, their targets, and the images that they have beside it.

mod common;

use common::*;
use mica_oci::{Digest, ImageId};
use mica_store::*;

/// What is done to the names `n` and `m` of a store with the images a, b and c.
enum Do {
    /// Commits an image under `n`, with a target.
    Pull(&'static str, &'static str),
    /// Commits an image under `n`, without.
    Build(&'static str),
    SetName(&'static str),
    SetTarget(&'static str),
    /// From, to.
    Copy(&'static str, &'static str),
    RemoveName(&'static str),
    /// From an image, whether it was removed.
    RemoveNameOf(&'static str, bool),
    RemoveImage(&'static str),
    /// Whether it went.
    RemoveUnnamed(&'static str, bool),
    /// Leads `n` to one of its images; whether it is one.
    Lead(&'static str, bool),
    /// Commits several images under `n`, with a target.
    BuildAll(&'static [&'static str], &'static str),
    /// From `n`; whether it was taken.
    RemoveImageOf(&'static str, bool),
}

#[test]
fn the_contract_of_names() {
    use Do::*;
    // Images of `n`, the one it leads to first, and its target; then those of `m`.
    check("none", &[], "", "");
    check("built", &[Build("a")], "a", "");
    check("pulled", &[Pull("a", "1")], "a 1", "");
    check("another platform", &[Pull("a", "1"), Pull("b", "1")], "b a 1", "");
    check("three platforms", &[Pull("a", "1"), Pull("b", "1"), Pull("c", "1")], "c a b 1", "");
    check("the first again", &[Pull("a", "1"), Pull("b", "1"), Pull("a", "1")], "a b 1", "");
    check("the same again", &[Pull("a", "1"), Pull("a", "1")], "a 1", "");
    check("another target", &[Pull("a", "1"), Pull("b", "1"), Pull("b", "2")], "b 2", "");
    check("there and back", &[Pull("a", "1"), Pull("a", "2"), Pull("b", "1")], "b 1", "");
    check("built over it", &[Pull("a", "1"), Pull("b", "1"), Build("b")], "b", "");
    check("built twice", &[Build("a"), Build("b")], "b", "");
    check("named over it", &[Pull("a", "1"), Pull("b", "1"), SetName("a")], "a", "");
    check("pulled over built", &[Build("a"), Pull("b", "1")], "b 1", "");
    check("pushed", &[Build("a"), SetTarget("1")], "a 1", "");
    check("pushed and pulled", &[Build("a"), SetTarget("1"), Pull("b", "1")], "b a 1", "");
    check("pushed elsewhere", &[Pull("a", "1"), Pull("b", "1"), SetTarget("2")], "b a 2", "");
    check("a target of nothing", &[SetTarget("1")], "", "");
    check("copied", &[Pull("a", "1"), Pull("b", "1"), Copy("n", "m")], "b a 1", "b a 1");
    check("copied to itself", &[Pull("a", "1"), Pull("b", "1"), Copy("n", "n")], "b a 1", "");
    check("copied nothing", &[Pull("a", "1"), Copy("m", "n")], "a 1", "");
    let pulled_and_copied = [Pull("a", "1"), Copy("n", "m"), Pull("b", "1")];
    check("copied before", &pulled_and_copied, "b a 1", "a 1");
    check("copied back", &[Pull("a", "1"), Copy("n", "m"), Pull("b", "1"), Copy("m", "n")], "a 1", "a 1");
    check(
        "built and copied over",
        &[Build("a"), Copy("n", "m"), Pull("b", "1"), Copy("n", "m")],
        "b 1",
        "b 1",
    );
    check("removed", &[Pull("a", "1"), Pull("b", "1"), RemoveName("n")], "", "");
    check(
        "removed and pulled",
        &[Pull("a", "1"), Pull("b", "1"), RemoveName("n"), Pull("c", "1")],
        "c 1",
        "",
    );
    check("the copy stays", &[Pull("a", "1"), Pull("b", "1"), Copy("n", "m"), RemoveName("n")], "", "b a 1");
    check("its image removed", &[Pull("a", "1"), Pull("b", "1"), RemoveImage("b")], "", "");
    check("the other image removed", &[Pull("a", "1"), Pull("b", "1"), RemoveImage("a")], "b 1", "");
    check("its name removed", &[Pull("a", "1"), Pull("b", "1"), RemoveNameOf("b", true)], "", "");
    check("not of another", &[Pull("a", "1"), Pull("b", "1"), RemoveNameOf("a", false)], "b a 1", "");
    check("a named one stays", &[Pull("a", "1"), RemoveUnnamed("a", false)], "a 1", "");
    check("an unnamed one goes", &[Pull("a", "1"), Pull("b", "2"), RemoveUnnamed("a", true)], "b 2", "");
    check("another platform goes", &[Pull("a", "1"), Pull("b", "1"), RemoveUnnamed("a", true)], "b 1", "");
    check("one taken", &[Pull("a", "1"), Pull("b", "1"), RemoveImageOf("b", true)], "a 1", "");
    check("the other taken", &[Pull("a", "1"), Pull("b", "1"), RemoveImageOf("a", true)], "b 1", "");
    check("not the last", &[Pull("a", "1"), RemoveImageOf("a", false)], "a 1", "");
    check("the one before", &[Pull("a", "1"), Pull("b", "1"), Lead("a", true)], "a b 1", "");
    check("the same one", &[Pull("a", "1"), Pull("b", "1"), Lead("b", true)], "b a 1", "");
    check("to what it has not", &[Pull("a", "1"), Pull("b", "1"), Lead("c", false)], "b a 1", "");
    check("of nothing", &[Lead("a", false)], "", "");
    let led_and_pulled = [Pull("a", "1"), Pull("b", "1"), Lead("a", true), Pull("c", "1")];
    check("led and pulled", &led_and_pulled, "c a b 1", "");
    check("several built", &[BuildAll(&["b", "a", "c"], "1")], "b a c 1", "");
    check("several built again", &[BuildAll(&["b", "a"], "1"), BuildAll(&["b", "a"], "1")], "b a 1", "");
    check("others built", &[BuildAll(&["b", "a"], "1"), BuildAll(&["c", "a"], "2")], "c a 2", "");
    check("one built over several", &[BuildAll(&["b", "a"], "1"), Build("a")], "a", "");
    check("several built over one", &[Build("a"), BuildAll(&["b", "c"], "2")], "b c 2", "");
    check("not what it has not", &[Pull("a", "1"), Pull("b", "1"), RemoveImageOf("c", false)], "b a 1", "");
}

fn check(name: &str, actions: &[Do], expect_n: &str, expect_m: &str) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    let records = ["a", "b", "c"].map(|text| {
        let record = commit_image(&store, text, &[text]).unwrap();
        store.remove_name(&format!("example.test/{text}:latest")).unwrap();
        record
    });
    let record = |text: &str| &records[usize::from(text.as_bytes()[0] - b'a')];
    for action in actions {
        match action {
            Do::Pull(image, target) => {
                let target = digest(target);
                let with = ImageCommit { names: &["n"], target: Some(&target), ..ImageCommit::default() };
                let before = store.name("n").unwrap();
                assert_eq!(store.commit_image(record(image), &with).unwrap(), [before], "{name}");
            }
            Do::Build(image) => {
                let with = ImageCommit { names: &["n"], ..ImageCommit::default() };
                store.commit_image(record(image), &with).unwrap();
            }
            Do::SetName(image) => drop(store.set_name("n", &record(image).id).unwrap()),
            Do::SetTarget(target) => store.set_target("n", &digest(target)).unwrap(),
            Do::Copy(from, to) => {
                assert_eq!(store.copy_name(from, to).unwrap(), store.name(from).unwrap(), "{name}");
            }
            Do::RemoveName(of) => drop(store.remove_name(of).unwrap()),
            Do::RemoveImage(image) => assert!(store.remove_image(&record(image).id).unwrap(), "{name}"),
            Do::RemoveNameOf(image, is_gone) => {
                assert_eq!(store.remove_name_of("n", &record(image).id).unwrap(), *is_gone, "{name}");
            }
            Do::RemoveUnnamed(image, is_gone) => {
                assert_eq!(store.remove_unnamed_image(&record(image).id).unwrap(), *is_gone, "{name}");
            }
            Do::Lead(image, is_its) => {
                assert_eq!(store.lead_name_to("n", &record(image).id).unwrap(), *is_its, "{name}");
            }
            Do::BuildAll(images, target) => {
                let target = digest(target);
                let with = ImageCommit { names: &["n"], target: Some(&target), ..ImageCommit::default() };
                let records: Vec<_> = images.iter().map(|image| record(image).clone()).collect();
                let before = store.name("n").unwrap();
                assert_eq!(store.commit_images(&records, &with).unwrap(), [before], "{name}");
            }
            Do::RemoveImageOf(image, taken) => {
                assert_eq!(store.remove_image_of("n", &record(image).id).unwrap(), *taken, "{name}");
            }
        }
    }
    for (of, expect) in [("n", expect_n), ("m", expect_m)] {
        let images = store.images_of(of).unwrap();
        let text = |id: &ImageId| {
            let position = records.iter().position(|record| record.id == *id).unwrap();
            ["a", "b", "c"][position].to_owned()
        };
        let target =
            |target: Digest| ["1", "2"].into_iter().find(|text| digest(text) == target).unwrap().to_owned();
        let found: Vec<String> =
            images.iter().map(text).chain(store.target_of(of).unwrap().map(target)).collect();
        assert_eq!(found.join(" "), expect, "{name}: {of}");
        assert_eq!(store.name(of).unwrap().as_ref(), images.first(), "{name}: {of}");
        for summary in store.images().unwrap() {
            let id = &summary.record.id;
            let position = images.iter().position(|image| image == id);
            assert_eq!(summary.names.iter().any(|name| name == of), position == Some(0), "{name}: {of}");
            let is_other = position.is_some_and(|position| position > 0);
            assert_eq!(summary.other_names.iter().any(|name| name == of), is_other, "{name}: {of}");
            assert_eq!(store.names_of(id).unwrap(), summary.names, "{name}: {of}");
            assert_eq!(store.other_names_of(id).unwrap(), summary.other_names, "{name}: {of}");
        }
    }
    check_store(store.root());
}
