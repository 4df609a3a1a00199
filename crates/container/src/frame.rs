//! What a monitor and the processes attached to its container say to each other over a unix socket.
//!
//! ```text
//! kind: 1 byte   length: 4 bytes, little end first   payload
//! ```

use std::os::unix::net::UnixStream;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the client: the command runs; payload: JSON list of warnings.
    Started = 1,
    /// To the client: it does not; payload: JSON of `[exit code, message]`.
    Failed = 2,
    /// To the client: output.
    Output = 3,
    /// To the client: error output.
    ErrorOutput = 4,
    /// To the client: it ended, and all is cleaned up; payload: exit code, 4 bytes.
    Exited = 5,
    /// To the monitor: input.
    Input = 6,
    /// To the monitor: no more input.
    InputEnd = 7,
    /// To the monitor: size of the terminal; payload: rows, columns, 2 bytes each.
    Resize = 8,
    /// To the monitor: a signal for the command; payload: number, 4 bytes.
    Signal = 9,
}

/// Neither side sends more at once.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

pub(crate) fn encode(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Bytes on their way to being frames.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
}

/// The other side does not keep to the format.
#[derive(Debug)]
pub(crate) struct Garbled;

impl FrameReader {
    /// Reads what has come; `false` at the end of the stream.
    pub fn fill(&mut self, stream: &UnixStream) -> rustix::io::Result<bool> {
        let mut bytes = [0u8; 16 * 1024];
        match rustix::io::read(stream, &mut bytes) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
                Ok(true)
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Garbled> {
        let [kind, a, b, c, d, ..] = *self.buffer.as_slice() else { return Ok(None) };
        let kind = match kind {
            1 => Kind::Started,
            2 => Kind::Failed,
            3 => Kind::Output,
            4 => Kind::ErrorOutput,
            5 => Kind::Exited,
            6 => Kind::Input,
            7 => Kind::InputEnd,
            8 => Kind::Resize,
            9 => Kind::Signal,
            _ => return Err(Garbled),
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(Garbled);
        }
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        let payload = self.buffer.get(5..5 + length).unwrap_or_default().to_vec();
        self.buffer.drain(..5 + length);
        Ok(Some((kind, payload)))
    }
}

pub(crate) fn number(payload: &[u8]) -> Option<i32> {
    payload.try_into().ok().map(i32::from_le_bytes)
}

pub(crate) fn size(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload else { return None };
    Some((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = encode(Kind::Output, b"hello");
        bytes.extend(encode(Kind::Exited, &7i32.to_le_bytes()));
        for cut in 0..bytes.len() {
            let mut reader = FrameReader::default();
            let mut found = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                reader.buffer.extend_from_slice(part);
                while let Some(frame) = reader.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [(Kind::Output, b"hello".to_vec()), (Kind::Exited, vec![7, 0, 0, 0])]);
        }
    }

    #[test]
    fn garbled_frames_are_refused() {
        for bytes in [&[0u8, 0, 0, 0, 0][..], &[10, 0, 0, 0, 0], &[3, 255, 255, 255, 255]] {
            let mut reader = FrameReader { buffer: bytes.to_vec() };
            assert!(reader.next().is_err(), "{bytes:?}");
        }
    }
}
