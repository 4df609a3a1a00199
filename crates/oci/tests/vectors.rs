//! Holds the room against recorded answers of the Go libraries; skipped where the corpus is absent.

use std::path::PathBuf;

use mica_oci::{
    AnyReference, Descriptor, Digest, DigestError, Document, DocumentError, ImageConfig, Index, Manifest,
    Platform, Reference, docker_archive,
};
use serde_json::Value;

fn corpus() -> PathBuf {
    match std::env::var_os("MICA_CORPUS") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus")),
    }
}

fn cases(name: &str) -> Vec<Value> {
    let Ok(bytes) = std::fs::read(corpus().join("vectors").join(name)) else {
        println!("skipped: corpus is absent");
        return Vec::new();
    };
    let file: Value = serde_json::from_slice(&bytes).unwrap();
    let cases = file["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn text<'a>(case: &'a Value, field: &str) -> Option<&'a str> {
    case.get(field).and_then(Value::as_str)
}

#[test]
fn digests() {
    for case in cases("digests.json") {
        let input = text(&case, "in").unwrap();
        match (Digest::parse(input), text(&case, "error")) {
            (Ok(digest), None) => {
                assert_eq!(Some(digest.algorithm().name()), text(&case, "algorithm"), "{input}");
                assert_eq!(Some(digest.hex()), text(&case, "encoded"), "{input}");
                assert_eq!(digest.to_string(), input);
            }
            (Err(DigestError::Format { .. }), Some("invalid checksum digest format"))
            | (Err(DigestError::Length { .. }), Some("invalid checksum digest length")) => {}
            (actual, expect) => panic!("{input}: {actual:?}, expected {expect:?}"),
        }
    }
}

#[test]
fn platforms() {
    // The corpus says which host its answers were recorded on.
    let host = Platform::new("linux", "amd64");
    for case in cases("platforms.json") {
        let input = text(&case, "in").unwrap();
        match (Platform::parse_with_host(input, &host), case.get("platform")) {
            (Ok(platform), Some(expect)) => {
                let expect: Platform = serde_json::from_value(expect.clone()).unwrap();
                assert_eq!(platform, expect, "{input}");
                assert_eq!(
                    Some(platform.normalized().to_string().as_str()),
                    text(&case, "formatted"),
                    "{input}"
                );
            }
            (Err(_), None) => assert!(text(&case, "error").is_some(), "{input}"),
            (actual, expect) => panic!("{input}: {actual:?}, expected {expect:?}"),
        }
    }
}

#[test]
fn references() {
    for case in cases("image-references.json") {
        let input = text(&case, "in").unwrap();
        match Reference::parse(input) {
            Ok(reference) => {
                let check = |actual: String, field: &str| {
                    assert_eq!(Some(actual.as_str()), text(&case, field), "{field} of {input}");
                };
                check(reference.canonical(), "normalized");
                check(reference.registry().to_owned(), "domain");
                check(reference.repository().to_owned(), "path");
                check(reference.familiar(), "familiar");
                check(reference.with_default_tag().canonical(), "tag_name_only");
                check(reference.resolvable().canonical(), "dockerref");
                assert_eq!(reference.tag(), text(&case, "tag"), "{input}");
                assert_eq!(reference.digest().map(Digest::as_str), text(&case, "digest"), "{input}");
                assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference), "{input}");
            }
            Err(error) => assert!(text(&case, "normalized_error").is_some(), "{input}: {error}"),
        }
        match AnyReference::parse(input) {
            Ok(AnyReference::Name(reference)) => {
                assert_eq!(Some(reference.canonical().as_str()), text(&case, "any"), "{input}");
            }
            Ok(AnyReference::Id(digest)) => assert_eq!(Some(digest.as_str()), text(&case, "any"), "{input}"),
            Err(error) => assert!(text(&case, "any_error").is_some(), "{input}: {error}"),
        }
    }
}

/// Whether the documents' own refusal is that a digest's algorithm is not registered; the schema lets those pass.
fn is_unsupported_algorithm(error: &str) -> bool {
    error.contains("unsupported digest algorithm")
}

#[test]
fn documents() {
    for case in cases("image-spec-json.json") {
        let (input, kind) = (text(&case, "in").unwrap(), text(&case, "kind").unwrap());
        let bytes = input.as_bytes();
        let result: Result<(), String> = match kind {
            "image-config" => check(ImageConfig::parse(bytes), ImageConfig::validate),
            "image-index" => check(Index::parse(bytes), Index::validate),
            "image-manifest" => check(Manifest::parse(bytes), Manifest::validate),
            "descriptor" => match serde_json::from_slice::<Descriptor>(bytes) {
                Ok(descriptor) => descriptor.validate().map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            other => panic!("unknown kind: `{other}`"),
        };
        match (result, case["valid"].as_bool().unwrap()) {
            (Ok(()), true) | (Err(_), false) => {}
            (Err(error), true) => assert!(is_unsupported_algorithm(&error), "{error}: {input}"),
            (Ok(()), false) => panic!("accepted: {input}"),
        }
    }
}

fn check<T>(
    parsed: Result<T, DocumentError>,
    validate: impl Fn(&T) -> Result<(), DocumentError>,
) -> Result<(), String> {
    parsed.and_then(|document| validate(&document)).map_err(|error| error.to_string())
}

#[test]
fn layouts() {
    let Ok(layouts) = std::fs::read_dir(corpus().join("archives/oci-layouts")) else {
        println!("skipped: corpus is absent");
        return;
    };
    for layout in layouts {
        let path = layout.unwrap().path();
        let bytes = std::fs::read(path.join("index.json")).unwrap();
        let Document::Index(index) = Document::parse(&bytes, None).unwrap() else {
            panic!("not an index: {}", path.display());
        };
        for descriptor in &index.manifests {
            assert!(mica_oci::ImageLayout::blob_path(&descriptor.digest).starts_with("blobs/sha256/"));
        }
    }
}

#[test]
fn saved_archives() {
    let Ok(entries) = std::fs::read_dir(corpus().join("archives")) else {
        println!("skipped: corpus is absent");
        return;
    };
    let mut images_count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        let tar = std::fs::read(&path).unwrap();
        let Some(manifest) = entry_of_tar(&tar, "manifest.json") else { continue };
        let Ok(images) = docker_archive::parse_manifest(manifest) else { continue };
        for image in images {
            let config = entry_of_tar(&tar, &image.config).unwrap();
            let config = ImageConfig::parse(config).unwrap();
            assert_eq!(config.rootfs.diff_ids.len(), image.layers.len(), "{}", path.display());
            let written = config.to_canonical_json();
            assert_eq!(
                ImageConfig::parse(&written).unwrap().to_canonical_json(),
                written,
                "{}",
                path.display()
            );
            images_count += 1;
        }
    }
    assert!(images_count > 0);
}

/// The bytes of an entry of a plain tar; enough of tar for these small files.
fn entry_of_tar<'a>(tar: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = tar;
    while let Some((header, tail)) = rest.split_at_checked(512) {
        let end = header[..100].iter().position(|&byte| byte == 0).unwrap_or(100);
        let octal: String =
            header[124..136].iter().map(|&byte| char::from(byte)).filter(char::is_ascii_digit).collect();
        let size = usize::from_str_radix(&octal, 8).unwrap_or(0);
        if &header[..end] == name.as_bytes() {
            return tail.get(..size);
        }
        rest = tail.get(size.next_multiple_of(512)..)?;
    }
    None
}
