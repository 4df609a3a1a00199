use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use flate2::read::MultiGzDecoder;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::encode::{Algorithm, EncodeError, FORM, Form, Sizes, compress, compress_from};

/// Bytes that are the same on every machine: noise, or pieces of up to `run` bytes of the same 4 KiB, so that there is much
/// to refer to, near and far.
fn sample(size_bytes: usize, run: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 12) as usize % below
    };
    let noise: Vec<u8> = (0..4096).map(|_| next(256) as u8).collect();
    let mut bytes = Vec::with_capacity(size_bytes + run);
    while bytes.len() < size_bytes {
        if run == 0 {
            bytes.push(next(256) as u8);
        } else {
            let start = next(noise.len() - run);
            bytes.extend_from_slice(&noise[start..start + 1 + next(run)]);
        }
    }
    bytes.truncate(size_bytes);
    bytes
}

fn compressed(content: &[u8], threads: usize) -> Vec<u8> {
    compressed_as(Form::default(), content, threads)
}

fn compressed_as(form: Form, content: &[u8], threads: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let sizes = compress(form, content, &mut out, threads).unwrap();
    let expect = Sizes { plain_size_bytes: content.len() as u64, compressed_size_bytes: out.len() as u64 };
    assert_eq!(sizes, expect);
    out
}

/// A change of these is a change of the form: give [`FORM`] another version then.
#[test]
fn the_form_has_these_bytes() {
    let of = |content: Vec<u8>| {
        let out = compressed(&content, 2);
        format!(
            "{} {}",
            out.len(),
            Sha256::digest(&out).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        )
    };
    let made = [
        of(sample(0, 0)),
        of(sample(5, 3)),
        of(sample(512 << 10, 20)),
        of(sample((512 << 10) + 1, 20)),
        of(sample(3_000_000, 1)),
        of(sample(3_000_000, 40)),
        of(sample(3_000_000, 300)),
        of(sample(3_000_000, 0)),
        of(vec![0; 3_000_000]),
    ];
    let expect = [
        "20 ac73670af3abed54ac6fb4695131f4099be9fbe39d6076c5d0264a6bbdae9d83",
        "31 3ebd36339eecdecb8e277ac5edda0e376a4046c3ecdbb7cb01b87d71ff535697",
        "157082 fc758f1e4e955ca68324d4107177ebaae7c5219a41d5ffe8b4984ca05d55a375",
        "157089 c8e9d3aed7a72376dbb011d41bbe9183bb6328242fd0de97b92723d44dc593bd",
        "2998152 ea05269613976c1b5ffe0bc30617a73d7a751ee738c940ba05dcd0a56db53a19",
        "486664 1677d12d7f496eab25bc04d34483b3b315fec01e976e9e26b80205183b449155",
        "92045 f809ed570ba4e2df0ff17a5ee708c6bfd5f62592247272e03e25cfd7b5dcc69a",
        "3000989 664cafc2a6e2f2529c566fc2c226580c823b38a4ca924175bea074ee3d550de8",
        "3049 b8d85e62d6c9466c76177ea2690c66f01a4dcb1e83454f5d36a051ffb609d4a7",
    ];
    assert_eq!(made.join("\n"), expect.join("\n"), "the bytes have changed, so {FORM} needs another name");
    assert_eq!(FORM, "gzip-6.1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_number_of_threads_shows_nowhere(
        size_bytes in prop_oneof![0_usize..2000, 520_000_usize..530_000, 0_usize..4_000_000],
        run in prop_oneof![Just(0_usize), 1_usize..40, 40_usize..1000],
        threads in 2_usize..=8,
    ) {
        let content = sample(size_bytes, run);
        let out = compressed(&content, 1);
        prop_assert!(out == compressed(&content, threads));
        let mut back = Vec::new();
        MultiGzDecoder::new(out.as_slice()).read_to_end(&mut back).unwrap();
        prop_assert!(back == content);
    }
}

fn form(algorithm: &str, level: u8) -> Form {
    Form::parse(algorithm, Some(&level.to_string())).unwrap()
}

fn unfolded(form: Form, bytes: &[u8]) -> Vec<u8> {
    let mut back = Vec::new();
    match form.algorithm() {
        Algorithm::Uncompressed => back.extend_from_slice(bytes),
        Algorithm::Gzip => _ = MultiGzDecoder::new(bytes).read_to_end(&mut back).unwrap(),
        Algorithm::Zstd => zstd::stream::copy_decode(bytes, &mut back).unwrap(),
    }
    back
}

/// A change of these is a change of the forms: they need another version in [`Form::name`] then.
#[test]
fn other_forms_have_these_bytes() {
    let content = [sample(5_000_000, 40), sample(4_000_000, 0)].concat();
    let of = |form: Form, content: &[u8]| {
        let out = compressed_as(form, content, 2);
        let digest = Sha256::digest(&out);
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{} {} {hex}", form.name(), out.len())
    };
    let made = [
        of(form("gzip", 0), &content),
        of(form("gzip", 1), &content),
        of(form("gzip", 9), &content),
        of(form("zstd", 1), &content),
        of(form("zstd", 3), &content),
        of(form("zstd", 3), b""),
        of(form("zstd", 3), &vec![0; (4 << 20) + 1]),
        of(form("zstd", 19), &content),
        of(form("zstd", 22), &content[4_000_000..6_000_000]),
    ];
    let expect = [
        "gzip-0.1 9000795 7648129999ce375c",
        "gzip-1.1 5522578 5c47dcaca30aa6fb",
        "gzip-9.1 4792973 114edc03f6188537",
        "zstd-1.1 5205404 ad1f19ea5ed461c8",
        "zstd-3.1 2742248 2db04439c15f011d",
        "zstd-3.1 9 6fb8543883dafcc2",
        "zstd-3.1 157 ccf702796bc979b6",
        "zstd-19.1 2345764 45d90df144520312",
        "zstd-22.1 1142016 8d1be54975b85e4b",
    ];
    assert_eq!(made.join("\n"), expect.join("\n"), "the bytes have changed, so their names must");
}

#[test]
fn the_number_of_threads_shows_in_no_form() {
    let content = [sample(9_000_000, 40), sample(4_500_000, 0), vec![0; 5_000_000]].concat();
    let forms = [
        Form::of(Algorithm::Uncompressed),
        form("gzip", 0),
        form("gzip", 1),
        form("zstd", 1),
        form("zstd", 3),
        form("zstd", 13),
    ];
    for form in forms {
        let out = compressed_as(form, &content, 1);
        assert!(unfolded(form, &out) == content, "{form}");
        for threads in [2, 3, 8] {
            assert!(compressed_as(form, &content, threads) == out, "{form} on {threads} threads");
        }
    }
}

#[test]
fn zstd_unfolds_it() {
    if Command::new("zstd").arg("--version").stdout(Stdio::null()).status().is_err() {
        return println!("skipped: `zstd` is not installed");
    }
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("frames.zst");
    for content in [sample(9_500_000, 30), Vec::new()] {
        std::fs::write(&path, compressed_as(form("zstd", 3), &content, 4)).unwrap();
        let output = Command::new("zstd").arg("-dc").arg(&path).output().unwrap();
        assert!(output.status.success());
        assert!(output.stdout == content);
    }
}

/// Each call gives few bytes; the blocks are the same all the same.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(buffer.len());
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn the_size_of_writes_shows_nowhere() {
    let content = sample(1_700_000, 30);
    let whole = compressed(&content, 3);
    for piece in [1, 511, 4096, 70_001] {
        let mut out = Vec::new();
        let produce = |plain: &mut crate::encode::Plain| {
            content.chunks(piece).try_for_each(|bytes| plain.write_all(bytes))
        };
        compress_from(Form::default(), produce, &mut out, 3).unwrap();
        assert!(out == whole, "pieces of {piece}");
        let mut out = Vec::new();
        compress(Form::default(), Trickle(&content, piece), &mut out, 3).unwrap();
        assert!(out == whole, "reads of {piece}");
    }
}

#[test]
fn a_block_refers_to_what_came_before_it() {
    // 16 KiB that do not compress, again and again: each copy but the first must be found, also over the edge of a block.
    let once = sample(16 << 10, 0);
    let content = once.repeat(256);
    let out = compressed(&content, 4);
    assert!(out.len() < once.len() * 5, "{} bytes", out.len());
}

#[test]
fn gzip_unfolds_it() {
    if Command::new("gzip").arg("--version").stdout(Stdio::null()).status().is_err() {
        return println!("skipped: `gzip` is not installed");
    }
    let content = sample(2_500_000, 30);
    let out = compressed(&content, 4);
    let mut child =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || stdin.write_all(&out).unwrap());
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == content);
}

struct Failing(usize);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn failures_of_both_sides_are_told_apart() {
    let content = sample(20_000_000, 0);
    for room in [0, 9, 10, 600_000, 10_000_000] {
        let error = compress(Form::default(), content.as_slice(), Failing(room), 3).unwrap_err();
        assert!(
            matches!(&error, EncodeError::Write(error) if error.kind() == io::ErrorKind::StorageFull),
            "{error:?}"
        );
    }
    let broken = content.chain(Broken);
    let error = compress(Form::default(), broken, io::sink(), 3).unwrap_err();
    assert!(
        matches!(&error, EncodeError::Produce(error) if error.kind() == io::ErrorKind::TimedOut),
        "{error:?}"
    );
    let produce = |plain: &mut crate::encode::Plain| {
        plain.write_all(&content).map_err(|_| "written")?;
        Err("the maker's own")
    };
    let error = compress_from(Form::default(), produce, io::sink(), 3).unwrap_err();
    assert!(matches!(error, EncodeError::Produce("the maker's own")), "{error:?}");
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::TimedOut.into())
    }
}
