//! Values as ssh writes them (RFC 4251, section 5).

/// Reads from the front of a slice; `None` when it is too short.
pub(crate) struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    pub fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn string(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    /// A positive integer without the zeros before it.
    pub fn integer(&mut self) -> Option<&'b [u8]> {
        let mut bytes = self.string()?;
        while let [0, rest @ ..] = bytes {
            bytes = rest;
        }
        Some(bytes)
    }
}

/// Appends a string.
pub(crate) fn put_string(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend_from_slice(bytes);
}

/// Appends a positive integer.
pub(crate) fn put_integer(into: &mut Vec<u8>, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut integer = bytes.get(zeros..).unwrap_or_default().to_vec();
    if integer.first().is_some_and(|first| first & 0x80 != 0) {
        integer.insert(0, 0);
    }
    put_string(into, &integer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back() {
        let check = |bytes: &[u8], wire: &[u8]| {
            let mut written = Vec::new();
            put_integer(&mut written, bytes);
            assert_eq!(written, wire);
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            assert_eq!(Reader(&written).integer(), Some(&bytes[zeros..]));
        };
        check(&[], &[0, 0, 0, 0]);
        check(&[0, 0], &[0, 0, 0, 0]);
        check(&[1, 2], &[0, 0, 0, 2, 1, 2]);
        check(&[0x80], &[0, 0, 0, 2, 0, 0x80]);
        assert_eq!(Reader(&[0, 0, 0, 2, 1]).string(), None);
        assert_eq!(Reader(&[0xff; 4]).string(), None);
    }
}
