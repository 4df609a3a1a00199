//! Requests that no kernel sends are answered, without a mount.

use std::fs::File;
use std::sync::Arc;

use mica_tree::{Entry, Index, Kind, MergedIndex, Time};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::protocol::{Answer, READ_BYTES_MAX, Request};
use crate::served::{Files, Served};
use crate::view::{Owners, View};

struct NoFiles;

impl Files for NoFiles {
    fn open(&self, _: &MergedIndex, _: usize) -> std::io::Result<File> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

fn served() -> Served {
    let kinds = [
        (b"".as_slice(), Kind::Directory { opaque: false, implied: false }),
        (b"a", Kind::File { size: u64::MAX, content: None }),
        (b"b", Kind::Hardlink { target: b"a".to_vec() }),
        (b"c", Kind::Hardlink { target: b"nothing".to_vec() }),
        (b"d", Kind::Directory { opaque: false, implied: false }),
        (b"d/e", Kind::Symlink { target: vec![b'x'; 4000] }),
        (b"f", Kind::BlockDevice { rdev: (u32::MAX, u32::MAX) }),
        (b"g/h", Kind::Fifo),
    ];
    let entry = |(path, kind): (&[u8], Kind)| Entry {
        path: path.to_vec(),
        kind,
        mode: u32::MAX,
        uid: u32::MAX,
        gid: 0,
        mtime: Time { seconds: i64::MIN, nanoseconds: u32::MAX },
        xattrs: vec![(b"user.x".to_vec(), vec![0; 300])],
    };
    let tree = MergedIndex::new([Arc::new(Index::new(kinds.into_iter().map(entry).collect()).unwrap())]);
    let view = View::new(Arc::new(tree), Owners::of_this_process().unwrap());
    Served::new(view, Arc::new(NoFiles), 3)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..16_u64, any::<u64>(), Just(u64::MAX)]
}

/// A header that is right, and a body that is what it likes.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        vec(any::<u8>(), 0..64),
        vec(prop_oneof![Just(b'a'), Just(b'd'), Just(b'/'), Just(b'.'), Just(0)], 0..4),
        (number(), number(), number()).prop_map(|(a, b, c)| [
            a.to_ne_bytes(),
            b.to_ne_bytes(),
            c.to_ne_bytes()
        ]
        .concat()),
    ];
    (0..50_u32, number(), number(), body).prop_map(|(opcode, unique, node, body)| {
        let length = (40 + body.len()) as u32;
        let mut bytes = [length.to_ne_bytes(), opcode.to_ne_bytes()].concat();
        bytes.extend([unique.to_ne_bytes(), node.to_ne_bytes(), [0; 8], [0; 8]].concat());
        bytes.extend(body);
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_none(bytes in vec(any::<u8>(), 0..100)) {
        let _ = Request::parse(&bytes);
    }

    #[test]
    fn every_request_has_a_whole_answer(requests in vec(request(), 1..20)) {
        let mut served = served();
        let mut answer = Answer::default();
        for bytes in &requests {
            let Some(request) = Request::parse(bytes) else { continue };
            let Some(result) = served.answer(&request, &mut answer) else { continue };
            let bytes = answer.finish(request.unique, result);
            prop_assert!(bytes.len() >= 16 && bytes.len() <= 16 + READ_BYTES_MAX);
            prop_assert_eq!(bytes[..4].to_vec(), (bytes.len() as u32).to_ne_bytes());
            prop_assert_eq!(bytes[8..16].to_vec(), request.unique.to_ne_bytes());
            let error = i32::from_ne_bytes(bytes[4..8].try_into().unwrap());
            prop_assert!(error == 0 || (error < 0 && bytes.len() == 16), "{}", error);
        }
    }
}

#[test]
fn kernels_that_lack_what_is_needed_are_refused() {
    const ALL: u32 = u32::MAX;
    const NO_OPEN: u32 = 1 << 17;
    for (version, flags, expected) in [
        ((7, 45), ALL, Some(64)),
        ((7, 31), ALL, Some(64)),
        ((7, 45), ALL & !NO_OPEN, None),
        ((7, 29), ALL, None),
        ((6, 99), ALL, None),
        // It asks again in our version.
        ((8, 0), 0, Some(8)),
    ] {
        for has_acls in [false, true] {
            let mut answer = Answer::default();
            let result = answer.init(version, 1 << 20, flags, has_acls);
            assert_eq!(result.is_ok().then(|| answer.len()), expected, "{version:?} {flags:x}");
        }
    }
}
