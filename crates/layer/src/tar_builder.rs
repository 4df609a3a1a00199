//! A naive tar builder for tests: says whatever it is told to, also what no tar program would.

/// A tar in the making.
#[derive(Default)]
pub(crate) struct TarBuilder {
    pub bytes: Vec<u8>,
    pub uid: u64,
    pub mode: u32,
}

impl TarBuilder {
    pub fn new() -> Self {
        Self { bytes: Vec::new(), uid: 0, mode: 0o644 }
    }

    /// A header that may lie about its size, and whatever follows it.
    pub fn raw(mut self, type_flag: u8, name: &[u8], link: &[u8], size: u64, content: &[u8]) -> Self {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
        if name.len() > 100 || link.len() > 100 {
            if name.len() > 100 {
                self = self.raw(b'L', b"././@LongLink", b"", name.len() as u64 + 1, &[name, b"\0"].concat());
            }
            if link.len() > 100 {
                self = self.raw(b'K', b"././@LongLink", b"", link.len() as u64 + 1, &[link, b"\0"].concat());
            }
        }
        put(0, &name[..name.len().min(100)]);
        put(100, format!("{:07o}\0{:07o}\0{:07o}\0", self.mode, self.uid, self.uid).as_bytes());
        put(124, format!("{size:011o}\0{:011o}\0", 1_600_000_000).as_bytes());
        put(156, &[type_flag]);
        put(157, &link[..link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, b"0000001\x000000003\0");
        self.bytes.extend_from_slice(&block);
        self.sum();
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Sets the checksum of the last block.
    pub fn sum(&mut self) {
        let start = self.bytes.len() - 512;
        let block = &mut self.bytes[start..];
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        self.raw(b'0', name.as_bytes(), b"", content.len() as u64, content.as_bytes())
    }

    pub fn dir(mut self, name: &str) -> Self {
        let mode = self.mode;
        // What may be read may be looked into: without root's rights a test must see what is inside.
        self.mode |= (mode & 0o444) >> 2;
        let mut tar = self.raw(b'5', name.as_bytes(), b"", 0, b"");
        tar.mode = mode;
        tar
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name.as_bytes(), target.as_bytes(), 0, b"")
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name.as_bytes(), target.as_bytes(), 0, b"")
    }

    /// A PAX header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extension(b'x', &pax_records(records))
    }

    pub fn extension(self, type_flag: u8, data: &[u8]) -> Self {
        self.raw(type_flag, b"PaxHeaders/x", b"", data.len() as u64, data)
    }

    pub fn owner(mut self, uid: u64) -> Self {
        self.uid = uid;
        self
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

pub(crate) fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap_or_default();
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    data
}
