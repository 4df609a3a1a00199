//! A secret that a step is given is nowhere in a cache.

use std::fs;
use std::io::Read as _;

use crate::support::{Machine, can_build, to_local};

const SECRET: &str = "correct-horse-battery-staple-0451";

#[test]
fn root_no_secret_is_in_a_cache() {
    if !can_build() {
        return;
    }
    let here = Machine::new();
    here.write(
        "Dockerfile",
        "FROM base:1\nRUN --mount=type=secret,id=s --mount=type=secret,id=e,env=TOKEN test -n \"$TOKEN\" && cat /run/secrets/s > /dev/null && wc -c < /run/secrets/s > /size\n",
    );
    let secret = here.dir.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let source = secret.display();
    let arguments = [
        format!("--secret=id=s,src={source}"),
        format!("--secret=id=e,src={source}"),
        to_local(cache.path(), ",mode=max"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    here.build(&[&arguments[..], &["--cache-to=type=inline"]].concat());
    let mut seen = 0;
    let mut waiting = vec![cache.path().to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let mut plain = Vec::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
        } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            plain = zstd::decode_all(&bytes[..]).unwrap();
        }
        for bytes in [&bytes, &plain] {
            assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 4, "{seen} files");
    let config = here.mica.ok(&["image", "inspect", "app:1"]).stdout;
    assert!(!config.contains(SECRET));
}
