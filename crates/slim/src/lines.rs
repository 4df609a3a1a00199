//! What a command wrote, as lines: told as they come, the last ones kept for its error.

use std::collections::VecDeque;

/// Lines that are kept.
const LINES_KEPT: usize = 40;
/// The longest line; what is longer is cut into several.
const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    kept: VecDeque<String>,
}

impl Lines {
    /// Takes bytes and tells the lines that end in them.
    pub fn take(&mut self, mut bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end], tell);
            self.line(tell);
            bytes = &bytes[end + 1..];
        }
        self.add(bytes, tell);
    }

    /// The last lines; one without an end is a line as well.
    pub fn finish(&mut self, tell: &mut dyn FnMut(&str)) -> Vec<String> {
        if !self.partial.is_empty() {
            self.line(tell);
        }
        std::mem::take(&mut self.kept).into()
    }

    fn add(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        for piece in bytes.chunks(LINE_BYTES_MAX) {
            self.partial.extend_from_slice(piece);
            if self.partial.len() >= LINE_BYTES_MAX {
                self.line(tell);
            }
        }
    }

    fn line(&mut self, tell: &mut dyn FnMut(&str)) {
        let line = String::from_utf8_lossy(&self.partial).trim_end_matches('\r').to_owned();
        self.partial.clear();
        tell(&line);
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines() {
        let check = |pieces: &[&[u8]], expect: &[&str]| {
            let (mut lines, mut told) = (Lines::default(), Vec::new());
            for piece in pieces {
                lines.take(piece, &mut |line| told.push(line.to_owned()));
            }
            let kept = lines.finish(&mut |line| told.push(line.to_owned()));
            assert_eq!(told, expect);
            assert_eq!(kept, expect);
        };
        check(&[b"a\nb", b"c\r\n\nd"], &["a", "bc", "", "d"]);
        check(&[b"\xff\n"], &["\u{fffd}"]);
        check(&[], &[]);
        let (mut lines, mut count) = (Lines::default(), 0);
        let long = vec![b'x'; LINE_BYTES_MAX * 100];
        lines.take(&long, &mut |line| count += line.len());
        assert_eq!((count, lines.finish(&mut |_| {}).len()), (long.len(), LINES_KEPT));
    }
}
