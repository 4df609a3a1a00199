//! Two files, byte by byte, as far as people can see something in it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Bytes that are compared at a time.
const BLOCK_BYTES: usize = 64 * 1024;
/// Bytes from the start of each file: enough for every magic number, that of tar included.
const START_BYTES: usize = 512;
/// Bytes of a line that are shown, and how many of them stand before the first difference in a long line.
const LINE_BYTES_MAX: usize = 160;
const BEFORE_BYTES_MAX: u64 = 60;

/// How two files differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentDifference {
    /// Lengths.
    pub sizes_bytes: [u64; 2],
    /// BLAKE3 of each.
    pub digests: [[u8; 32]; 2],
    /// The first byte that differs, or that only one of them has.
    pub offset: u64,
    /// How each begins.
    pub starts: [Vec<u8>; 2],
    /// The first lines that differ, if both are text.
    pub lines: Option<TextLines>,
}

/// The first line that is not the same in two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextLines {
    /// From 1.
    pub number: u64,
    /// Each without its end, cut where it is long; `None` where the file has ended.
    pub texts: [Option<String>; 2],
}

/// Compares two files from their beginning; `None` if they are the same.
pub(super) fn compare_files(mut files: [File; 2]) -> io::Result<Option<ContentDifference>> {
    let mut hashers = [blake3::Hasher::new(), blake3::Hasher::new()];
    let mut sizes_bytes = [0_u64; 2];
    let mut blocks = [vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]];
    let mut offset = None;
    // Lines before the first difference, and where the line begins that has it.
    let (mut number, mut line_start) = (1_u64, 0_u64);
    loop {
        let before = sizes_bytes[0];
        let mut lengths = [0; 2];
        for side in 0..2 {
            lengths[side] = fill(&mut files[side], &mut blocks[side])?;
            hashers[side].update(&blocks[side][..lengths[side]]);
            sizes_bytes[side] += lengths[side] as u64;
        }
        let (one, other) = (&blocks[0][..lengths[0]], &blocks[1][..lengths[1]]);
        if offset.is_none() {
            let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
            for (at, _) in one[..same].iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                number += 1;
                line_start = before + at as u64 + 1;
            }
            if same < one.len().max(other.len()) {
                offset = Some(before + same as u64);
            }
        }
        if lengths == [0, 0] {
            break;
        }
    }
    let Some(offset) = offset else { return Ok(None) };
    let start = |file: &File| read_at(file, 0, START_BYTES);
    let starts = [start(&files[0])?, start(&files[1])?];
    let lines = match starts.iter().any(|start| start.contains(&0)) {
        true => None,
        false => texts(&files, sizes_bytes, line_start, offset)?.map(|texts| TextLines { number, texts }),
    };
    let digests = hashers.map(|hasher| *hasher.finalize().as_bytes());
    Ok(Some(ContentDifference { sizes_bytes, digests, offset, starts, lines }))
}

/// The lines from `line_start` on, or from shortly before the difference where they are long; nothing if one is no text.
fn texts(
    files: &[File; 2],
    sizes_bytes: [u64; 2],
    line_start: u64,
    offset: u64,
) -> io::Result<Option<[Option<String>; 2]>> {
    let from = line_start.max(offset.saturating_sub(BEFORE_BYTES_MAX));
    let mut texts = [None, None];
    for side in 0..2 {
        if from >= sizes_bytes[side] {
            continue;
        }
        let bytes = read_at(&files[side], from, LINE_BYTES_MAX)?;
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.contains(&0) {
            return Ok(None);
        }
        // A cut may have gone through a letter, at either end.
        let text = String::from_utf8_lossy(line);
        let strange = text.chars().filter(|letter| *letter == char::REPLACEMENT_CHARACTER).count();
        if strange > 2 {
            return Ok(None);
        }
        let cut = if from > line_start { "…" } else { "" };
        let end = if line.len() == LINE_BYTES_MAX { "…" } else { "" };
        texts[side] = Some(format!("{cut}{text}{end}"));
    }
    Ok(Some(texts))
}

fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// As much as there is and has room.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    /// `expect` is the offset, then the line's number and both texts, or `binary`.
    #[track_caller]
    fn check(first: &[u8], second: &[u8], expect: &str) {
        let found = compare_files([file(first), file(second)]).unwrap();
        let text = match &found {
            None => "same".to_owned(),
            Some(found) => {
                assert_eq!(found.sizes_bytes, [first.len() as u64, second.len() as u64]);
                assert_eq!(found.digests[0], *blake3::hash(first).as_bytes());
                assert_eq!(found.digests[1], *blake3::hash(second).as_bytes());
                let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "(end)".to_owned());
                match &found.lines {
                    None => format!("{} binary", found.offset),
                    Some(lines) => {
                        format!(
                            "{} {}: {} | {}",
                            found.offset,
                            lines.number,
                            shown(&lines.texts[0]),
                            shown(&lines.texts[1])
                        )
                    }
                }
            }
        };
        assert_eq!(text, expect);
    }

    #[test]
    fn where_files_differ() {
        check(b"", b"", "same");
        check(b"a\nb\n", b"a\nb\n", "same");
        check(b"a\nb\n", b"a\nc\n", "2 2: b | c");
        check(b"a\n", b"a\nc\n", "2 2: (end) | c");
        check(b"", b"x", "0 1: (end) | x");
        check(b"same same 1", b"same same 22", "10 1: same same 1 | same same 22");
        check(b"\x7fELF\0a", b"\x7fELF\0b", "5 binary");
        check(b"\xff\xfe\xfd\xfca", b"\xff\xfe\xfd\xfcb", "4 binary");
        let long = vec![b'x'; 3 * BLOCK_BYTES];
        let (mut one, mut other) = (long.clone(), long.clone());
        check(&one, &other, "same");
        one.extend(b"\nlast 1");
        other.extend(b"\nlast 2");
        check(&one, &other, &format!("{} 2: last 1 | last 2", 3 * BLOCK_BYTES + 6));
        one[BLOCK_BYTES + 1] = b'1';
        other[BLOCK_BYTES + 1] = b'2';
        let (before, after) = ("x".repeat(60), "x".repeat(99));
        check(&one, &other, &format!("{} 1: …{before}1{after}… | …{before}2{after}…", BLOCK_BYTES + 1));
    }
}
