//! The output of a container as kept: docker's json-file format, one object a line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mica_sys::error::ErrorAt;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Longer lines are kept in parts of this size, as docker does.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The text with its line end; without one it is a part of a longer line.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// When it came, RFC 3339.
    pub time: String,
}

/// The file of a container's log.
pub fn log_path(container: &mica_store::Container) -> PathBuf {
    container.path().join("log")
}

/// Writes a log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    file: File,
    /// The beginnings of lines of either stream.
    partial: [Vec<u8>; 2],
}

pub(crate) const STREAM_NAMES: [&str; 2] = ["stdout", "stderr"];

impl LogWriter {
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).at("open", path)?;
        Ok(Self { file, partial: Default::default() })
    }

    /// Keeps what came from stream 0 (output) or 1 (error output). A full disk loses lines, not the container.
    pub fn write(&mut self, stream: usize, bytes: &[u8]) {
        let Some(partial) = self.partial.get_mut(stream) else { return };
        partial.extend_from_slice(bytes);
        let mut text = Vec::new();
        let mut taken = 0;
        loop {
            let rest = partial.get(taken..).unwrap_or_default();
            let length = match rest.iter().position(|byte| *byte == b'\n') {
                Some(position) if position < LINE_BYTES_MAX => position + 1,
                _ if rest.len() >= LINE_BYTES_MAX => LINE_BYTES_MAX,
                _ => break,
            };
            push_entry(&mut text, stream, rest.get(..length).unwrap_or_default());
            taken += length;
        }
        partial.drain(..taken);
        let _ = self.file.write_all(&text);
    }

    /// Keeps the last line too, if it had no end.
    pub fn finish(&mut self) {
        for stream in 0..2 {
            let rest = self.partial.get_mut(stream).map(std::mem::take).unwrap_or_default();
            if !rest.is_empty() {
                let mut text = Vec::new();
                push_entry(&mut text, stream, &rest);
                let _ = self.file.write_all(&text);
            }
        }
    }
}

fn push_entry(text: &mut Vec<u8>, stream: usize, bytes: &[u8]) {
    let entry = LogEntry {
        log: String::from_utf8_lossy(bytes).into_owned(),
        stream: STREAM_NAMES.get(stream).copied().unwrap_or_default().to_owned(),
        time: jiff::Timestamp::now().to_string(),
    };
    if serde_json::to_writer(&mut *text, &entry).is_ok() {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_whole_and_long_ones_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path).unwrap();
        log.write(0, b"a\nb");
        log.write(1, b"error\n");
        log.write(0, b"c\n\xff\n");
        log.write(0, &vec![b'x'; LINE_BYTES_MAX + 5]);
        log.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<LogEntry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let shown: Vec<_> = entries.iter().map(|entry| (entry.stream.as_str(), entry.log.len())).collect();
        assert_eq!(
            shown,
            [
                ("stdout", 2),
                ("stderr", 6),
                ("stdout", 3),
                ("stdout", 4),
                ("stdout", LINE_BYTES_MAX),
                ("stdout", 5)
            ]
        );
        assert_eq!(entries[2].log, "bc\n");
    }
}
