//! SOURCE_DATE_EPOCH that names something which has a time.

use mica_testkit::{Need, Page, images, missing};

use crate::support::{Bench, COMMIT_TIME};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// When the image says that it was made.
fn created(bench: &Bench, arguments: &[&str], stdin: &[u8]) -> String {
    let image = bench.image(arguments, stdin);
    image.config["created"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn times_of_contexts_and_of_what_is_fetched() {
    let bench = Bench::new();
    let dockerfile = b"FROM scratch\nCOPY a /a\n";
    let archive = images::tar_of(&[("Dockerfile", dockerfile), ("a", b"1")]);
    bench.web.put("/c.tar", Page::of(archive).with("Last-Modified", MODIFIED));
    bench.web.put("/f", Page::of("x").with("Last-Modified", MODIFIED));
    let (tar, file) = (bench.web.url("/c.tar"), bench.web.url("/f"));
    let modified = "1994-11-06T08:49:37Z";
    let epoch = |name: &str| format!("SOURCE_DATE_EPOCH={name}");
    let context = epoch("context");
    assert_eq!(created(&bench, &["--build-arg", &context, &tar], b""), modified);
    let named = format!("n={tar}");
    let arguments = ["--build-context", &named, "--build-arg", &epoch("n"), "-"];
    assert_eq!(created(&bench, &arguments, b"FROM scratch\nCOPY --from=n a /\n"), modified);
    let stage = format!("FROM scratch AS dated\nADD {file} /\nFROM scratch\nCOPY <<x /x\n1\nx\n");
    assert_eq!(created(&bench, &["--build-arg", &epoch("dated"), "-"], stage.as_bytes()), modified);
    // A directory has none.
    bench.write("c/Dockerfile", dockerfile);
    bench.write("c/a", "1");
    assert_ne!(created(&bench, &["--build-arg", &context, "c"], b""), modified);
    if let Some(reason) = missing(&[Need::Tool("git")]) {
        println!("skipped: {reason}");
        return;
    }
    let repository = bench.repository("r");
    repository.write("Dockerfile", "FROM scratch\nCOPY a /a\n").write("a", "1").publish();
    assert_eq!(COMMIT_TIME, 1_700_000_000);
    assert_eq!(created(&bench, &["--build-arg", &context, &repository.url()], b""), "2023-11-14T22:13:20Z");
}
