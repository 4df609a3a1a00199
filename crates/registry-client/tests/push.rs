//! Pushing to a registry that follows the specification, and misbehaves where it is told to.

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;

use mica_oci::{Descriptor, Digest, Reference, media_type};
use mica_registry_client::{Client, Content, Mounted, Patience, RegistryError, Settings, UploadWatch};
use mica_testkit::{FakeOptions, FakeRegistry, Fault, Locations, Random, When};

fn client() -> Client {
    let patience = Patience {
        delay_first: Duration::from_millis(10),
        delay_max: Duration::from_millis(50),
        ..Patience::default()
    };
    Client::new(Settings { patience, chunk_size_bytes: Some(CHUNK as u64), ..Settings::default() })
}

fn reference(registry: &FakeRegistry, name: &str) -> Reference {
    Reference::parse(&format!("{}/{name}", registry.host())).unwrap()
}

/// Bytes that fail to be read once so many of them were.
struct Blob {
    bytes: Vec<u8>,
    readable: u64,
}

impl Blob {
    fn random(size_bytes: usize) -> Blob {
        let mut bytes = vec![0; size_bytes];
        let mut random = Random::new(size_bytes as u64);
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&random.next_u64().to_le_bytes()[..chunk.len()]));
        Blob { bytes, readable: u64::MAX }
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor::of(media_type::OCI_LAYER_GZIP, &self.bytes)
    }
}

impl Content for Blob {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.bytes[offset as usize..].to_vec();
        let readable = self.readable.saturating_sub(offset);
        if readable >= bytes.len() as u64 {
            return Ok(Box::new(io::Cursor::new(bytes)));
        }
        Ok(Box::new(io::Cursor::new(bytes).take(readable).chain(Broken)))
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("stopped by the test"))
    }
}

#[derive(Default)]
struct Heard {
    sent: Mutex<Vec<u64>>,
    resumable: Mutex<Vec<Option<String>>>,
}

impl UploadWatch for Heard {
    fn sent(&self, bytes: u64) {
        self.sent.lock().unwrap().push(bytes);
    }

    fn resumable(&self, location: Option<&str>) {
        self.resumable.lock().unwrap().push(location.map(str::to_owned));
    }
}

impl Heard {
    fn last_resumable(&self) -> Option<String> {
        self.resumable.lock().unwrap().last().cloned().flatten()
    }
}

/// Methods of the requests that were about uploads, in order.
fn methods(registry: &FakeRegistry) -> String {
    let requests = registry.requests();
    let uploads = requests.iter().filter(|request| request.path.contains("/uploads/"));
    uploads.map(|request| request.method.as_str()).collect::<Vec<_>>().join(" ")
}

fn send(registry: &FakeRegistry, blob: &Blob, resume: Option<&str>) -> (Result<(), RegistryError>, Heard) {
    let heard = Heard::default();
    let result = client().upload_blob(&reference(registry, "a/b"), &blob.descriptor(), blob, resume, &heard);
    (result, heard)
}

#[track_caller]
fn check_there(registry: &FakeRegistry, blob: &Blob) {
    let stored = registry.blob("a/b", blob.descriptor().digest.as_str());
    assert!(stored.as_deref() == Some(&blob.bytes), "the blob is not there, or is another");
}

const MIB: usize = 1 << 20;
/// Smaller than it is without settings, so that blobs of many chunks are small.
const CHUNK: usize = 4 * MIB;

/// Sends a blob of that size to a registry with these faults; the methods of the requests must be these.
#[track_caller]
fn check(size_bytes: usize, faults: Vec<(When, Fault)>, expect: &str) {
    let registry = FakeRegistry::new();
    for (when, fault) in faults {
        registry.fault(when, fault);
    }
    let blob = Blob::random(size_bytes);
    let (result, heard) = send(&registry, &blob, None);
    result.unwrap_or_else(|error| panic!("{error}; {}", methods(&registry)));
    check_there(&registry, &blob);
    assert_eq!(methods(&registry), expect);
    assert_eq!(heard.last_resumable(), None);
    assert_eq!(heard.sent.lock().unwrap().last().copied().unwrap_or(0), size_bytes as u64);
}

#[test]
fn small_blobs_go_in_one_piece_and_large_ones_in_chunks() {
    check(0, vec![], "POST PUT");
    check(1, vec![], "POST PUT");
    check(MIB, vec![], "POST PUT");
    check(MIB + 1, vec![], "POST PATCH PUT");
    check(4 * MIB, vec![], "POST PATCH PUT");
    check(4 * MIB + 1, vec![], "POST PATCH PATCH PUT");
}

#[test]
fn chunks_say_where_they_belong() {
    let registry = FakeRegistry::new();
    let blob = Blob::random(5 * MIB);
    let (result, heard) = send(&registry, &blob, None);
    result.unwrap();
    let requests = registry.requests();
    let ranges: Vec<_> = requests.iter().filter_map(|request| request.header("content-range")).collect();
    assert_eq!(ranges, ["0-4194303", "4194304-5242879"]);
    for request in &requests {
        assert_eq!(request.header("content-length"), Some(request.received_bytes.to_string().as_str()));
    }
    for request in requests.iter().filter(|request| request.method != "POST") {
        assert_eq!(request.header("content-type"), Some("application/octet-stream"));
    }
    // After the POST, and after each chunk.
    assert_eq!(heard.resumable.lock().unwrap().iter().filter(|location| location.is_some()).count(), 3);
}

#[test]
fn locations_are_followed_whatever_they_look_like() {
    for locations in [Locations::Absolute, Locations::Relative, Locations::Changing] {
        let registry = FakeRegistry::start(FakeOptions { locations, ..FakeOptions::default() });
        let blob = Blob::random(5 * MIB);
        registry.fault(When::is("PATCH", "").nth(2), Fault::CutRequest { after: 100_000, keeps: true });
        send(&registry, &blob, None).0.unwrap();
        check_there(&registry, &blob);
        assert_eq!(methods(&registry), "POST PATCH PATCH GET PATCH PUT");
        assert_eq!(registry.received_bytes("/uploads/"), blob.bytes.len() as u64, "{locations:?}");
    }
}

#[test]
fn the_least_size_of_chunks_is_kept() {
    let registry =
        FakeRegistry::start(FakeOptions { chunk_min_length: Some(6 * MIB as u64), ..FakeOptions::default() });
    let blob = Blob::random(10 * MIB);
    send(&registry, &blob, None).0.unwrap();
    check_there(&registry, &blob);
    assert_eq!(methods(&registry), "POST PATCH PATCH PUT");
}

#[test]
fn an_upload_that_breaks_is_taken_up_again() {
    let cut = |after, keeps| Fault::CutRequest { after, keeps };
    let second = || When::is("PATCH", "").nth(2);
    // In the middle of a chunk, where the registry keeps what came, and where it does not.
    check(5 * MIB, vec![(second(), cut(300_000, true))], "POST PATCH PATCH GET PATCH PUT");
    check(5 * MIB, vec![(second(), cut(300_000, false))], "POST PATCH PATCH GET PATCH PUT");
    check(5 * MIB, vec![(second(), cut(0, false))], "POST PATCH PATCH GET PATCH PUT");
    // The reply was lost.
    check(5 * MIB, vec![(second(), Fault::LoseReply)], "POST PATCH PATCH GET PUT");
    check(5 * MIB, vec![(When::is("PUT", ""), Fault::LoseReply)], "POST PATCH PATCH PUT");
    check(MIB, vec![(When::is("PUT", ""), Fault::LoseReply)], "POST PUT");
    // Nothing was done.
    check(5 * MIB, vec![(When::is("PUT", "").once(), Fault::Close)], "POST PATCH PATCH PUT GET PUT");
    check(MIB, vec![(When::is("PUT", "").once(), Fault::Close)], "POST PUT POST PUT");
    check(MIB, vec![(When::is("PUT", "").once(), cut(1000, true))], "POST PUT POST PUT");
    check(5 * MIB, vec![(second(), Fault::status(503))], "POST PATCH PATCH GET PATCH PUT");
    check(5 * MIB, vec![(second(), Fault::too_many_requests("0"))], "POST PATCH PATCH GET PATCH PUT");
    // The upload is not known any more.
    let unknown = || Fault::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown");
    check(5 * MIB, vec![(second(), unknown())], "POST PATCH PATCH POST PATCH PATCH PUT");
    check(
        5 * MIB,
        vec![(second(), cut(5, false)), (When::get("/uploads/").once(), unknown())],
        "POST PATCH PATCH GET POST PATCH PATCH PUT",
    );
    // It is somewhere else than we believe.
    check(5 * MIB, vec![(second(), Fault::status(416))], "POST PATCH PATCH GET POST PATCH PATCH PUT");
}

#[test]
fn bodies_that_are_too_large_become_smaller() {
    check(
        5 * MIB,
        vec![(When::is("PATCH", "").once(), Fault::status(413))],
        "POST PATCH GET PATCH PATCH PATCH PATCH PATCH PUT",
    );
}

#[test]
fn registries_that_know_no_chunks_get_one_piece() {
    for status in [400, 405, 501] {
        check(2 * MIB, vec![(When::is("PATCH", ""), Fault::status(status))], "POST PATCH POST PUT");
    }
}

#[test]
fn a_push_that_was_cut_sends_only_the_rest() {
    // By another process: this one stopped at 90 %.
    let registry = FakeRegistry::new();
    let mut blob = Blob::random(5 * MIB);
    blob.readable = 9 * MIB as u64 / 2;
    let (result, heard) = send(&registry, &blob, None);
    assert!(matches!(result, Err(RegistryError::Content { .. })), "{result:?}");
    let location = heard.last_resumable().unwrap();
    // The registry hears of the end of that connection in its own time.
    for _ in 0..2000 {
        if registry.received_bytes("/uploads/") >= 9 * MIB as u64 / 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    registry.clear_requests();
    blob.readable = u64::MAX;
    send(&registry, &blob, Some(&location)).0.unwrap();
    check_there(&registry, &blob);
    assert_eq!(methods(&registry), "GET PATCH PUT");
    let rest = registry.received_bytes("/uploads/");
    assert!(rest <= MIB as u64, "{rest} bytes were sent again");
}

#[test]
fn a_location_that_leads_nowhere_is_a_new_beginning() {
    let blob = Blob::random(2 * MIB);
    for location in ["", "nonsense", "/v2/a/b/blobs/uploads/gone", "http://{host}/v2/a/b/blobs/uploads/gone"]
    {
        let registry = FakeRegistry::new();
        let location = location.replace("{host}", &registry.host());
        send(&registry, &blob, Some(&location)).0.unwrap();
        check_there(&registry, &blob);
    }
}

#[test]
fn bytes_that_are_others_are_not_sent_again_and_again() {
    let registry = FakeRegistry::new();
    let blob = Blob::random(MIB);
    let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::sha256(b"other"), MIB as u64);
    let error = client()
        .upload_blob(&reference(&registry, "a/b"), &descriptor, &blob, None, &Heard::default())
        .unwrap_err();
    // Once more, as the line may have spoilt them.
    assert_eq!(methods(&registry), "POST PUT POST PUT");
    assert!(error.to_string().contains("digest"), "{error}");
    assert!(error.to_string().contains(&format!("{}/a/b", registry.host())), "{error}");
    // And fewer than were said.
    let descriptor = Descriptor { size: 2 * MIB as u64, ..blob.descriptor() };
    let error = client()
        .upload_blob(&reference(&registry, "a/b"), &descriptor, &blob, None, &Heard::default())
        .unwrap_err();
    assert!(matches!(error, RegistryError::Content { .. }), "{error}");
}

#[test]
fn what_never_ends_well_ends() {
    let blob = Blob::random(2 * MIB);
    let always = [
        Fault::Close,
        Fault::CutRequest { after: 70_000, keeps: false },
        Fault::status(503),
        Fault::status(404),
        Fault::status(416),
        Fault::status(418),
        Fault::html(),
        Fault::Header("Range", Some("0-5".to_owned())),
    ];
    for fault in always {
        let registry = FakeRegistry::new();
        registry.fault(When::is("PATCH", ""), fault.clone());
        registry.fault(When::is("PUT", ""), fault.clone());
        let (result, _) = send(&registry, &blob, None);
        let count = registry.requests().len();
        assert!(count < 40, "{fault:?}: {count} requests");
        let is_harmless = matches!(fault, Fault::Header(..));
        assert_eq!(result.is_ok(), is_harmless, "{fault:?}: {result:?}");
        if let Err(error) = result {
            assert!(error.to_string().contains(&registry.host()), "{error}");
        }
    }
}

#[test]
fn blobs_are_asked_for_and_mounted() {
    let registry = FakeRegistry::new();
    let digest = Digest::parse(&registry.put_blob("other/one", b"blob")).unwrap();
    let here = reference(&registry, "a/b");
    let client = client();
    assert!(client.has_blob(&reference(&registry, "other/one"), &digest).unwrap());
    assert!(!client.has_blob(&here, &digest).unwrap());
    assert!(matches!(client.mount_blob(&here, &digest, "no/such").unwrap(), Mounted::Upload(_)));
    assert_eq!(client.mount_blob(&here, &digest, "other/one").unwrap(), Mounted::Yes);
    assert!(client.has_blob(&here, &digest).unwrap());
    // What a registry says to a mount that it does not like is no failure of the push.
    for status in [400, 401, 403, 404, 405] {
        registry.clear_faults();
        registry.fault(When::is("POST", "mount="), Fault::status(status));
        assert_eq!(client.mount_blob(&here, &digest, "other/one").unwrap(), Mounted::No, "{status}");
    }
}

#[test]
fn an_upload_that_a_mount_opened_is_used() {
    let registry = FakeRegistry::new();
    let blob = Blob::random(MIB);
    let digest = blob.descriptor().digest;
    let mounted = client().mount_blob(&reference(&registry, "a/b"), &digest, "no/such").unwrap();
    let Mounted::Upload(location) = mounted else { panic!("{mounted:?}") };
    send(&registry, &blob, Some(&location)).0.unwrap();
    check_there(&registry, &blob);
    assert_eq!(methods(&registry), "POST PUT");
}

#[test]
fn manifests_are_put_under_tags_and_digests() {
    let registry = FakeRegistry::new();
    let client = client();
    registry.put_blob("a/b", b"{}");
    let manifest = mica_oci::Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, b"{}"), Vec::new());
    let bytes = manifest.to_canonical_json();
    let digest = Digest::sha256(&bytes);
    let tagged = reference(&registry, "a/b:v1");
    assert_eq!(client.put_manifest(&tagged, media_type::OCI_MANIFEST, &bytes).unwrap(), digest);
    assert_eq!(registry.tags("a/b"), ["v1"]);
    assert_eq!(registry.manifest("a/b", "v1").unwrap(), (media_type::OCI_MANIFEST.to_owned(), bytes.clone()));
    let by_digest = tagged.name_only().with_digest(digest.clone());
    assert_eq!(client.put_manifest(&by_digest, media_type::OCI_MANIFEST, &bytes).unwrap(), digest);
    assert_eq!(registry.tags("a/b"), ["v1"]);
    // What a line has spoilt, and the registry has taken in, is put again.
    let other = Digest::sha256(b"other").to_string();
    registry.fault(When::is("PUT", "").once(), Fault::Header("Docker-Content-Digest", Some(other)));
    client.put_manifest(&tagged, media_type::OCI_MANIFEST, &bytes).unwrap();
    // A registry that says that it has stored something else.
    let other = Digest::sha256(b"other").to_string();
    registry.fault(When::is("PUT", ""), Fault::Header("Docker-Content-Digest", Some(other.clone())));
    let error = client.put_manifest(&tagged, media_type::OCI_MANIFEST, &bytes).unwrap_err();
    assert!(
        matches!(&error, RegistryError::DigestMismatch { found, .. } if found.to_string() == other),
        "{error}"
    );
    registry.clear_faults();
    // Its own words, when it refuses.
    let invalid = br#"{"schemaVersion":2,"config":"none"}"#;
    let error = client.put_manifest(&tagged, media_type::OCI_MANIFEST, invalid).unwrap_err().to_string();
    assert!(error.contains("manifest blob unknown") && error.contains("a/b:v1"), "{error}");
    registry.fault(When::is("PUT", ""), Fault::html());
    let error = client.put_manifest(&tagged, media_type::OCI_MANIFEST, &bytes).unwrap_err().to_string();
    assert!(error.contains("HTML") && error.contains("a/b:v1"), "{error}");
    registry.clear_faults();
    registry.fault(When::is("PUT", ""), Fault::status(413));
    let error = client.put_manifest(&tagged, media_type::OCI_MANIFEST, &bytes).unwrap_err().to_string();
    assert!(error.contains("413") && error.contains("a/b:v1"), "{error}");
}

#[test]
fn manifests_are_deleted() {
    let check = |options: FakeOptions<'_>,
                 reference_: &str,
                 faults: Vec<(When, Fault)>,
                 expect: Result<&str, &str>| {
        let registry = FakeRegistry::start(options);
        let bytes = br#"{"schemaVersion":2}"#;
        for tag in ["v1", "v2"] {
            registry.put_manifest("a/b", tag, media_type::OCI_MANIFEST, bytes);
        }
        for (when, fault) in faults {
            registry.fault(when, fault);
        }
        let name = format!("a/b{}", reference_.replace("DIGEST", Digest::sha256(bytes).as_str()));
        match (client().delete_manifest(&reference(&registry, &name)), expect) {
            (Ok(()), Ok(tags)) => assert_eq!(registry.tags("a/b").join(" "), tags, "{reference_}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (result, expect) => panic!("{reference_}: {result:?}, {expect:?}"),
        }
    };
    check(FakeOptions::default(), ":v1", vec![], Ok("v2"));
    check(FakeOptions::default(), "@DIGEST", vec![], Ok(""));
    check(FakeOptions::default(), ":nope", vec![], Err("not found"));
    // Only by digest, as docker's registry before version 3.
    let unsupported =
        (When::is("DELETE", "/v1"), Fault::error(405, "UNSUPPORTED", "the operation is unsupported"));
    check(FakeOptions::default(), ":v1", vec![unsupported], Ok(""));
    let off = || FakeOptions { deletes: false, ..FakeOptions::default() };
    check(off(), ":v1", vec![], Err("the registry does not allow it"));
    check(off(), "@DIGEST", vec![], Err("the registry does not allow it"));
}
#[test]
fn a_login_is_for_the_registry_alone() {
    use mica_registry_client::Credentials;
    let elsewhere = FakeRegistry::new();
    let registry =
        FakeRegistry::start(FakeOptions { auth: mica_testkit::FakeAuth::Basic, ..FakeOptions::default() });
    let home = tempfile::tempdir().unwrap();
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"dGVzdGVyOnN3b3JkZmlzaA=="}}}}}}"#, registry.host());
    std::fs::write(home.path().join("config.json"), text).unwrap();
    let credentials = Credentials::of_docker_config(home.path().join("config.json"));
    let location = format!("{}/v2/a/b/blobs/uploads/upload-1", elsewhere.base_url());
    // There is an upload of that name over there.
    elsewhere.http().request("POST", "/v2/a/b/blobs/uploads/", &[], b"").unwrap();
    elsewhere.clear_requests();
    registry.fault(When::is("POST", "/uploads/"), Fault::Header("Location", Some(location)));
    let blob = Blob::random(2 * MIB);
    let client = Client::new(Settings { credentials, ..Settings::default() });
    client
        .upload_blob(&reference(&registry, "a/b"), &blob.descriptor(), &blob, None, &Heard::default())
        .unwrap();
    assert!(registry.requests().iter().any(|request| request.header("authorization").is_some()));
    let requests = elsewhere.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.header("authorization").is_none()));
    check_there(&elsewhere, &blob);
}

/// `docker-registry`, as Debian has it.
mod docker_registry {
    use super::*;
    use mica_testkit::{
        Chaos, ChaosProxy, DockerRegistry, DockerRegistryOptions, NEEDS_DOCKER_REGISTRY, Then, missing,
    };

    fn reference(port: u16, name: &str) -> Reference {
        Reference::parse(&format!("127.0.0.1:{port}/{name}")).unwrap()
    }

    fn sent_paths(registry: &DockerRegistry) -> String {
        let requests = registry.requests();
        let uploads = requests.iter().filter(|access| access.path.contains("/uploads/"));
        uploads.map(|access| format!("{} {}", access.method, access.status)).collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn check_there(registry: &DockerRegistry, blob: &Blob) {
        let stored = std::fs::read(registry.blob_file(blob.descriptor().digest.as_str()));
        assert!(stored.is_ok_and(|stored| stored == blob.bytes), "{}", sent_paths(registry));
    }

    #[test]
    fn blobs_of_all_sizes_arrive() {
        if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
            return println!("skipped: {reason}");
        }
        let registry = DockerRegistry::new();
        for size_bytes in [0, 1, 1000, 2 * MIB, 10 * MIB] {
            let blob = Blob::random(size_bytes);
            let here = reference(registry.port(), "a/b");
            client().upload_blob(&here, &blob.descriptor(), &blob, None, &Heard::default()).unwrap();
            check_there(&registry, &blob);
            assert!(client().has_blob(&here, &blob.descriptor().digest).unwrap());
            let elsewhere = reference(registry.port(), "c");
            let mounted = client().mount_blob(&elsewhere, &blob.descriptor().digest, "a/b").unwrap();
            assert_eq!(mounted, Mounted::Yes);
        }
        let digest = Digest::sha256(b"nowhere");
        let here = reference(registry.port(), "a/b");
        assert!(matches!(client().mount_blob(&here, &digest, "c").unwrap(), Mounted::Upload(_)));
    }

    #[test]
    fn a_push_that_stopped_between_chunks_sends_only_the_rest() {
        if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
            return println!("skipped: {reason}");
        }
        let registry = DockerRegistry::new();
        let mut blob = Blob::random(9 * MIB);
        // Behind the second chunk nothing can be read: no byte of the third is sent.
        blob.readable = 8 * MIB as u64;
        let here = reference(registry.port(), "a/b");
        let heard = Heard::default();
        client().upload_blob(&here, &blob.descriptor(), &blob, None, &heard).unwrap_err();
        let location = heard.last_resumable().unwrap();
        blob.readable = u64::MAX;
        let proxy = ChaosProxy::before(registry.port());
        let location = location.replace(&registry.host(), &proxy.host());
        let here = reference(proxy.port(), "a/b");
        client().upload_blob(&here, &blob.descriptor(), &blob, Some(&location), &Heard::default()).unwrap();
        check_there(&registry, &blob);
        let rest = proxy.request_bytes();
        assert!(rest < 2 * MIB as u64, "{rest} bytes; {}", sent_paths(&registry));
    }

    /// It keeps what came of the chunk and refuses to go on from there (front page of `upload.rs`): the blob begins again.
    #[test]
    fn a_push_that_is_cut_within_a_chunk_ends_well() {
        if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
            return println!("skipped: {reason}");
        }
        let registry = DockerRegistry::new();
        let proxy = ChaosProxy::before(registry.port());
        proxy.set(Chaos::CutRequests { after: 9 * MIB as u64, then: Then::Calm });
        let blob = Blob::random(10 * MIB);
        let here = reference(proxy.port(), "a/b");
        client().upload_blob(&here, &blob.descriptor(), &blob, None, &Heard::default()).unwrap();
        check_there(&registry, &blob);
    }

    #[test]
    fn manifests_are_put_and_deleted() {
        if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
            return println!("skipped: {reason}");
        }
        for delete in [true, false] {
            let registry = DockerRegistry::start(DockerRegistryOptions { delete, ..Default::default() });
            let tagged = reference(registry.port(), "a/b:v1");
            let blob = Blob { bytes: b"{}".to_vec(), readable: u64::MAX };
            let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
            client().upload_blob(&tagged, &config, &blob, None, &Heard::default()).unwrap();
            let bytes = mica_oci::Manifest::oci(config, Vec::new()).to_canonical_json();
            let digest = client().put_manifest(&tagged, media_type::OCI_MANIFEST, &bytes).unwrap();
            assert_eq!(registry.http().manifest("a/b", "v1").body, bytes);
            let error = client()
                .put_manifest(&tagged, media_type::OCI_MANIFEST, b"nonsense")
                .unwrap_err()
                .to_string();
            assert!(error.contains("manifest invalid"), "{error}");
            match client().delete_manifest(&tagged) {
                Ok(()) => {
                    assert!(delete);
                    assert_eq!(registry.http().manifest("a/b", "v1").status, 404);
                    assert_eq!(registry.http().manifest("a/b", digest.as_str()).status, 404);
                    let error = client().delete_manifest(&tagged).unwrap_err();
                    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
                }
                Err(error) => {
                    assert!(
                        !delete && error.to_string().contains("the registry does not allow it"),
                        "{error}"
                    );
                }
            }
        }
    }
}
