//! Sizes of `RUN --mount=type=tmpfs,size=` against the vectors of the corpus.

mod common;

use mica_dockerfile::parse_run_mount;

#[test]
fn corpus_sizes() {
    let Some(vectors) = common::corpus_json("vectors/size-strings.json") else { return };
    for case in vectors["cases"].as_array().expect("cases") {
        let text = case["in"].as_str().expect("in");
        // A value without its quotes ends at a comma.
        let mount = parse_run_mount(&format!("type=tmpfs,target=/t,\"size={text}\""), &|value| {
            Ok::<_, mica_dockerfile::ExpandError>(value.to_owned())
        });
        // Nothing is no limit.
        let size = mount.ok().and_then(|mount| mount.size_bytes).filter(|_| !text.is_empty());
        assert_eq!(size, case["ram_in_bytes"].as_u64(), "{text:?}");
    }
}
