//! The build cache goes when it is told to, and images stay.

use crate::world_or_skip;

#[test]
fn root_builder_prune_removes_the_build_cache() {
    let world = world_or_skip!();
    let context = world.directory.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("big"), vec![7; 100_000]).unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch AS a\nCOPY big /big\nFROM scratch\nCOPY --from=a /big /b\n",
    )
    .unwrap();
    let id = world.ok(&["builder", "build", "-q", "-t", "made", context.to_str().unwrap()]);
    assert!(id.starts_with("sha256:"), "{id}");
    // What the next build can use stays; what was used a moment ago is not that old.
    for words in [&["builder", "prune", "-f"][..], &["builder", "prune", "-af", "--filter", "until=24h"]] {
        assert_eq!(world.ok(words), "Total:\t0B", "{words:?}");
    }
    // Each of the two steps is known by the layers below it and by what it used.
    let pruned = world.ok(&["buildx", "prune", "-af"]);
    assert!(pruned.starts_with("Deleted records: 4\nDeleted layers: 1\n"), "{pruned}");
    assert!(pruned.contains("\nTotal:\t1"), "{pruned}");
    let archive = context.join("made.tar");
    world.ok(&["save", "-o", archive.to_str().unwrap(), "made"]);
    assert!(std::fs::metadata(&archive).unwrap().len() > 100_000);
    assert_eq!(world.ok(&["builder", "prune", "-af"]), "Total:\t0B");
}
