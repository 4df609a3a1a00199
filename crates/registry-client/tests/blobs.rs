//! Blobs: whole, from an offset, through broken connections, and not from liars.

mod common;

use std::io::Read;

use common::*;
use mica_oci::{Descriptor, Digest};
use mica_registry_client::{Client, RegistryError};
use mica_testkit::{FakeOptions, FakeRegistry, Fault, When};

const SIZE: usize = 1 << 20;

fn registry_error(error: std::io::Error) -> RegistryError {
    *error.into_inner().expect("an inner error").downcast::<RegistryError>().expect("an error of this room")
}

fn read_from(
    client: &Client,
    registry: &FakeRegistry,
    descriptor: &Descriptor,
    offset: u64,
) -> Result<Vec<u8>, RegistryError> {
    let mut reader = client.blob(&reference(registry, "a"), descriptor, offset)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(registry_error)?;
    Ok(bytes)
}

/// Reads a blob with these faults on its requests; `Ok` is the number of requests that it took.
fn check(faults: &[(When, Fault)], offset: u64, expect: Result<usize, &str>) {
    let registry = FakeRegistry::new();
    let bytes = noise(SIZE);
    registry.put_blob("a", &bytes);
    for (when, fault) in faults {
        registry.fault(when.clone(), fault.clone());
    }
    let result = read_from(&client(), &registry, &layer(&bytes), offset);
    match (result, expect) {
        (Ok(found), Ok(requests)) => {
            assert!(found == bytes[usize::try_from(offset).unwrap()..], "{faults:?}: other bytes");
            assert_eq!(registry.requests().len(), requests, "{faults:?}");
        }
        (Err(error), Err(expect)) => {
            let text = error.to_string().replace(&registry.host(), "HOST");
            assert!(text.contains(expect), "{faults:?}: {text}");
            assert!(text.contains("HOST/a") && text.contains("sha256:"), "{text}");
        }
        (Ok(_), Err(expect)) => panic!("{faults:?}: read to the end, expected `{expect}`"),
        (Err(error), Ok(_)) => panic!("{faults:?}: {error}"),
    }
}

fn blobs() -> When {
    When::get("/blobs/")
}

#[test]
fn from_any_offset() {
    let size = SIZE as u64;
    check(&[], 0, Ok(1));
    check(&[], 1, Ok(1));
    check(&[], size - 1, Ok(1));
    // Nothing is missing: nobody is asked.
    check(&[], size, Ok(0));
    check(&[], size + 1, Err("size"));
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let cut = SIZE as u64 * 9 / 10;
    check(&[(blobs().once(), Fault::Cut(cut))], 0, Ok(2));
    check(&[(blobs().once(), Fault::Stall(cut))], 0, Ok(2));
    check(&[(blobs().once(), Fault::Close)], 0, Ok(2));
    // Each time a little further.
    check(&[(blobs().times(10), Fault::Cut(80 << 10))], 0, Ok(11));
    let registry = FakeRegistry::new();
    let bytes = noise(SIZE);
    registry.put_blob("a", &bytes);
    registry.fault(blobs().once(), Fault::Cut(cut));
    assert!(read_from(&client(), &registry, &layer(&bytes), 0).unwrap() == bytes);
    let ranges: Vec<_> =
        registry.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some(format!("bytes={cut}-"))]);
    assert_eq!(registry.sent_bytes("/blobs/"), SIZE as u64, "only the rest is fetched");
}

#[test]
fn registries_without_ranges() {
    let cut = SIZE as u64 / 2;
    check(&[(blobs(), Fault::IgnoreRange)], 1000, Ok(1));
    check(&[(blobs(), Fault::IgnoreRange), (blobs().once(), Fault::Cut(cut))], 0, Ok(2));
    check(&[(blobs().once(), Fault::status(416))], 1000, Ok(2));
    // It always starts over and never comes further.
    check(&[(blobs(), Fault::IgnoreRange), (blobs(), Fault::Cut(cut))], 0, Err("broke 5 times"));
}

#[test]
fn what_never_ends_or_never_comes_is_given_up() {
    check(&[(blobs(), Fault::Cut(0))], 0, Err("broke 5 times, last at byte 0"));
    check(&[(blobs(), Fault::Cut(100))], 0, Err("broke 5 times"));
    check(&[(blobs(), Fault::Close)], 0, Err("connection was closed"));
    check(&[(blobs(), Fault::status(500))], 0, Err("status 500"));
    check(&[(blobs().skip(1), Fault::status(404)), (blobs().once(), Fault::Cut(9))], 0, Err("not found"));
}

#[test]
fn lies_about_the_size() {
    check(&[(blobs(), Fault::Append(1))], 0, Err("size of the bytes"));
    check(&[(blobs(), Fault::Truncate(10))], 0, Err("size of the bytes"));
    check(&[(blobs(), Fault::Endless)], 0, Err("size of the bytes"));
    check(&[(blobs(), Fault::html())], 0, Err("HTML"));
    check(&[(blobs(), Fault::WrongContentRange)], 1000, Err("Content-Range"));
    check(&[(blobs(), Fault::Header("Content-Range", None))], 1000, Err("Content-Range"));
    let largest = "bytes 0-18446744073709551615/*".to_owned();
    check(&[(blobs(), Fault::Header("Content-Range", Some(largest)))], 1000, Err("Content-Range"));
    // Of the right length, from another place.
    let other = format!("bytes 0-{}/{SIZE}", SIZE - 1001);
    check(
        &[(blobs(), Fault::Header("Content-Range", Some(other)))],
        1000,
        Err("expected `1000-1048575`: `0-1047575`"),
    );
    check(
        &[(blobs(), Fault::Header("Content-Range", Some("bytes 1000-1099/1100".into())))],
        1000,
        Err("size"),
    );
    // Without a length, but right.
    check(&[(blobs(), Fault::NoLength)], 0, Ok(1));
    check(&[(blobs(), Fault::Chunked)], 0, Ok(1));
}

#[test]
fn what_fails_stays_failed() {
    let registry = FakeRegistry::new();
    let bytes = noise(SIZE);
    registry.put_blob("a", &bytes);
    registry.fault(blobs(), Fault::Cut(10));
    let mut reader = client().blob(&reference(&registry, "a"), &layer(&bytes), 0).unwrap();
    let mut found = Vec::new();
    reader.read_to_end(&mut found).unwrap_err();
    assert!(reader.read(&mut [0; 10]).is_err());
}

#[test]
fn small_blobs_are_checked() {
    let registry = FakeRegistry::new();
    let bytes = b"{}".to_vec();
    registry.put_blob("a", &bytes);
    let name = reference(&registry, "a");
    assert_eq!(client().blob_bytes(&name, &layer(&bytes)).unwrap(), bytes);
    assert_eq!(client().blob_bytes(&name, &Descriptor { size: 0, ..layer(b"") }).unwrap(), b"");
    let error = client().blob_bytes(&name, &Descriptor { size: 1 << 40, ..layer(&bytes) }).unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
    registry.fault(blobs(), Fault::Flip(0));
    let error = client().blob_bytes(&name, &layer(&bytes)).unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    let missing = layer(b"missing");
    let error = client().blob_bytes(&name, &missing).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains(missing.digest.as_str()), "{error}");
}

#[test]
fn addresses_of_a_descriptor_are_asked_where_the_registry_has_nothing() {
    let (registry, other) = (FakeRegistry::new(), FakeRegistry::new());
    let bytes = noise(SIZE);
    let digest = other.put_blob("b", &bytes);
    let url = format!("http://user:hush@{}/v2/b/blobs/{digest}", other.host());
    let urls =
        vec!["ftp://x/".to_owned(), "http://192.0.2.1/".to_owned(), "http://127.0.0.1:1/".to_owned(), url];
    let descriptor = Descriptor { urls, ..layer(&bytes) };
    other.fault(blobs().once(), Fault::Cut(1000));
    assert!(read_from(&client(), &registry, &descriptor, 0).unwrap() == bytes);
    assert_eq!(registry.requests().len(), 1);
    assert_eq!(other.requests().len(), 2);
    assert!(other.requests().iter().all(|request| request.header("authorization").is_none()));
    // The registry's own comes first, and only its 404 counts.
    registry.fault(blobs(), Fault::status(403));
    let error = read_from(&client(), &registry, &descriptor, 0).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    registry.clear_faults();
    registry.put_blob("a", &bytes);
    other.clear_requests();
    assert!(read_from(&client(), &registry, &descriptor, 0).unwrap() == bytes);
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn redirects_keep_ranges() {
    let other = FakeRegistry::new();
    let registry =
        FakeRegistry::start(FakeOptions { redirect_blobs: Some(other.base_url()), ..Default::default() });
    let bytes = noise(SIZE);
    registry.put_blob("a", &bytes);
    other.put_blob("a", &bytes);
    other.fault(blobs().once(), Fault::Cut(1000));
    assert!(read_from(&client(), &registry, &layer(&bytes), 0).unwrap() == bytes);
    // Taken up from the registry: what it signed for the first time may be too old.
    assert_eq!((registry.requests().len(), other.requests().len()), (2, 2));
    assert_eq!(other.requests()[1].header("range"), Some("bytes=1000-"));
}

#[test]
fn several_at_once() {
    let registry = FakeRegistry::new();
    let bytes = noise(SIZE);
    registry.put_blob("a", &bytes);
    let client = client();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(read_from(&client, &registry, &layer(&bytes), 0).unwrap() == bytes));
        }
    });
}

#[test]
fn corrupt_bytes_have_the_right_size() {
    // The digest is the caller's to check; here it is shown that nothing hides a flip.
    let registry = FakeRegistry::new();
    let bytes = noise(SIZE);
    registry.put_blob("a", &bytes);
    registry.fault(blobs(), Fault::Flip(5));
    let found = read_from(&client(), &registry, &layer(&bytes), 0).unwrap();
    assert_eq!(found.len(), bytes.len());
    assert_ne!(Digest::sha256(&found), Digest::sha256(&bytes));
}

#[test]
fn connections_are_used_again() {
    let registry = FakeRegistry::new();
    put_manifest(&registry, &manifest());
    let bytes = noise(SIZE);
    registry.put_blob("a", &bytes);
    registry.put_blob("a", b"{}");
    let client = client();
    client.head_manifest(&reference(&registry, "a:latest")).unwrap();
    client.manifest(&reference(&registry, "a:latest")).unwrap();
    client.blob_bytes(&reference(&registry, "a"), &layer(b"{}")).unwrap();
    assert!(read_from(&client, &registry, &layer(&bytes), 0).unwrap() == bytes);
    assert!(read_from(&client, &registry, &layer(&bytes), 5).unwrap() == bytes[5..]);
    client.tags(&reference(&registry, "a")).unwrap();
    let connections: std::collections::BTreeSet<usize> =
        registry.requests().iter().map(|request| request.connection).collect();
    // A connection goes back to the pool a moment after its reply was read: the next request may be faster.
    assert!(connections.len() < 5, "{connections:?}");
}

/// Whatever goes wrong: the right bytes, or an error.
#[test]
fn random_faults() {
    let bytes = noise(SIZE);
    let size = SIZE as u64;
    let mut outcomes = [0, 0];
    for seed in 0..150 {
        let mut random = mica_testkit::Random::new(seed);
        let registry = FakeRegistry::new();
        registry.put_blob("a", &bytes);
        let mut starts_over = false;
        for _ in 0..random.below(4) {
            let when = blobs()
                .skip(usize::try_from(random.below(3)).unwrap())
                .times(usize::try_from(random.below(3)).unwrap());
            let place = random.below(size);
            let fault = match random.below(14) {
                0 => Fault::Close,
                1 | 2 => Fault::Cut(place),
                3 => Fault::LoseReply,
                4 => Fault::StartOver(place),
                5 => Fault::Truncate(place),
                6 => Fault::Append(place),
                7 => Fault::Trail(place),
                8 => Fault::NoLength,
                9 => Fault::Chunked,
                10 => Fault::IgnoreRange,
                11 => Fault::WrongContentRange,
                12 => Fault::status(503),
                _ => Fault::Stall(place),
            };
            starts_over |= matches!(fault, Fault::StartOver(_));
            registry.fault(when, fault);
        }
        let offset = random.below(2) * random.below(size);
        let digest = Digest::sha256(&bytes[usize::try_from(offset).unwrap()..]);
        match read_from(&client(), &registry, &layer(&bytes), offset) {
            Ok(found) => {
                assert_eq!(found.len() as u64, size - offset, "seed {seed}");
                // What starts over in the middle has the right size and other bytes: the digest tells.
                let is_altered = Digest::sha256(&found) != digest;
                assert!(!is_altered || starts_over, "seed {seed}");
                outcomes[0] += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains(&registry.host()), "seed {seed}: {error}");
                outcomes[1] += 1;
            }
        }
    }
    assert!(outcomes[0] > outcomes[1] && outcomes[1] > 0, "{outcomes:?}");
}
