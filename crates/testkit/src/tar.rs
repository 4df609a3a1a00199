//! Tar archives read and written by hand, so that tests can make what honest tools refuse to make.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// One entry's header, extension headers applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The name as written.
    pub path: String,
    /// The type flag: `0` file, `1` hard link, `2` symbolic link, `3` and `4` devices, `5` directory, `6` fifo.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes that follow.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// What a link points at.
    pub link: String,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    /// A regular file of root's, mode 0644.
    pub fn file(path: &str) -> Entry {
        Entry { path: path.into(), kind: b'0', mode: 0o644, ..Entry::default() }
    }

    /// A directory of root's, mode 0755.
    pub fn dir(path: &str) -> Entry {
        Entry { path: path.into(), kind: b'5', mode: 0o755, ..Entry::default() }
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Entry {
        Entry { path: path.into(), kind: b'2', mode: 0o777, link: target.into(), ..Entry::default() }
    }

    /// A hard link.
    pub fn hard_link(path: &str, target: &str) -> Entry {
        Entry { path: path.into(), kind: b'1', mode: 0o644, link: target.into(), ..Entry::default() }
    }
}

/// Reads an archive to its end; `visit` may read an entry's bytes or leave them.
pub fn read(
    mut source: impl Read,
    mut visit: impl FnMut(Entry, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut pax = BTreeMap::new();
    let (mut long_path, mut long_link) = (None, None);
    loop {
        let mut header = [0u8; 512];
        if !read_block(&mut source, &mut header)? || header.iter().all(|byte| *byte == 0) {
            io::copy(&mut source, &mut io::sink())?;
            return Ok(());
        }
        let mut entry = parse_header(&header);
        if matches!(entry.kind, b'x' | b'L' | b'K' | b'g') {
            let data = read_exactly(&mut source, entry.size)?;
            match entry.kind {
                b'x' => pax = parse_pax(&data)?,
                b'L' => long_path = Some(text(&data)),
                b'K' => long_link = Some(text(&data)),
                _ => {}
            }
            continue;
        }
        entry.path = long_path.take().unwrap_or(entry.path);
        entry.link = long_link.take().unwrap_or(entry.link);
        apply_pax(&mut entry, std::mem::take(&mut pax));
        let size = if matches!(entry.kind, b'0' | 0 | b'7') { entry.size } else { 0 };
        if entry.kind == 0 || entry.kind == b'7' {
            entry.kind = b'0';
        }
        let mut content = source.by_ref().take(size);
        visit(entry, &mut content)?;
        io::copy(&mut content, &mut io::sink())?;
        io::copy(&mut source.by_ref().take((512 - size % 512) % 512), &mut io::sink())?;
    }
}

fn read_block(source: &mut impl Read, block: &mut [u8; 512]) -> io::Result<bool> {
    match source.read_exact(block) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_exactly(source: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    source.by_ref().take(size).read_to_end(&mut data)?;
    io::copy(&mut source.by_ref().take((512 - size % 512) % 512), &mut io::sink())?;
    Ok(data)
}

fn parse_header(header: &[u8; 512]) -> Entry {
    let number = |range: std::ops::Range<usize>| parse_number(&header[range]);
    let name = text(&header[..100]);
    let prefix = if &header[257..263] == b"ustar\0" { text(&header[345..500]) } else { String::new() };
    Entry {
        path: if prefix.is_empty() { name } else { format!("{prefix}/{name}") },
        kind: header[156],
        mode: (number(100..108) & 0o7777) as u32,
        uid: number(108..116) as u32,
        gid: number(116..124) as u32,
        size: number(124..136),
        mtime: number(136..148) as i64,
        link: text(&header[157..257]),
        device: (number(329..337) as u32, number(337..345) as u32),
        xattrs: BTreeMap::new(),
    }
}

fn parse_number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[1..].iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
    }
    let digits = text(field);
    u64::from_str_radix(digits.trim(), 8).unwrap_or(0)
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn parse_pax(mut data: &[u8]) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let bad = || io::Error::other("broken extension header");
    let mut records = BTreeMap::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length: usize = text(&data[..space]).parse().map_err(|_| bad())?;
        let record = data.get(space + 1..length.saturating_sub(1)).ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        records.insert(text(&record[..equals]), record[equals + 1..].to_vec());
        data = &data[length..];
    }
    Ok(records)
}

fn apply_pax(entry: &mut Entry, records: BTreeMap<String, Vec<u8>>) {
    for (key, value) in records {
        let number =
            || String::from_utf8_lossy(&value).split('.').next().and_then(|digits| digits.parse().ok());
        match key.as_str() {
            "path" => entry.path = text(&value),
            "linkpath" => entry.link = text(&value),
            "size" => entry.size = number().unwrap_or(entry.size),
            "uid" => entry.uid = number().map_or(entry.uid, |value| value as u32),
            "gid" => entry.gid = number().map_or(entry.gid, |value| value as u32),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    entry.xattrs.insert(name.into(), value);
                }
            }
        }
    }
}

/// Makes an archive in memory, one entry after another, without asking whether they make sense.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts from the bytes of another archive, without its end.
    pub fn from_archive(mut bytes: Vec<u8>) -> Writer {
        while bytes.len() >= 512 && bytes[bytes.len() - 512..].iter().all(|byte| *byte == 0) {
            bytes.truncate(bytes.len() - 512);
        }
        Writer { bytes }
    }

    /// Adds an entry with content; the header tells the content's true size.
    pub fn add(&mut self, entry: Entry, content: &[u8]) -> &mut Writer {
        self.add_lying(Entry { size: content.len() as u64, ..entry }, content)
    }

    /// Adds an entry whose header says what `entry.size` says, whatever follows.
    pub fn add_lying(&mut self, entry: Entry, content: &[u8]) -> &mut Writer {
        if entry.path.len() > 100 || entry.link.len() > 100 || !entry.xattrs.is_empty() {
            let mut records = Vec::new();
            pax_record(&mut records, "path", entry.path.as_bytes());
            pax_record(&mut records, "linkpath", entry.link.as_bytes());
            for (name, value) in &entry.xattrs {
                pax_record(&mut records, &format!("SCHILY.xattr.{name}"), value);
            }
            let extension = Entry { kind: b'x', size: records.len() as u64, ..Entry::file("extension") };
            self.put(&extension, &records);
        }
        self.put(&entry, content);
        self
    }

    fn put(&mut self, entry: &Entry, content: &[u8]) {
        self.bytes.extend_from_slice(&header(entry));
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// The archive with its end.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

fn pax_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let payload = key.len() + value.len() + 3;
    let mut length = payload + payload.to_string().len();
    length = payload + length.to_string().len();
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn header(entry: &Entry) -> [u8; 512] {
    let mut header = [0u8; 512];
    let mut put = |offset: usize, value: &[u8]| {
        let length = value.len().min(100);
        header[offset..offset + length].copy_from_slice(&value[..length]);
    };
    put(0, entry.path.as_bytes());
    put(100, format!("{:07o}", entry.mode).as_bytes());
    put(108, format!("{:07o}", entry.uid).as_bytes());
    put(116, format!("{:07o}", entry.gid).as_bytes());
    put(124, format!("{:011o}", entry.size).as_bytes());
    put(136, format!("{:011o}", entry.mtime).as_bytes());
    put(148, b"        ");
    put(156, &[entry.kind]);
    put(157, entry.link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", entry.device.0).as_bytes());
    put(337, format!("{:07o}", entry.device.1).as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let long = "d/".repeat(80) + "name";
        let mut attributes = Entry::file("attributes");
        attributes.xattrs.insert("user.note".into(), b"a\nb=c".to_vec());
        let entries = [
            Entry::dir("d"),
            Entry::file(&long),
            Entry::symlink("s", &long),
            Entry::hard_link("h", "d"),
            attributes,
        ];
        let mut writer = Writer::default();
        for entry in &entries {
            writer.add(entry.clone(), if entry.kind == b'0' { b"content" } else { b"" });
        }
        let mut position = 0;
        read(&writer.finish()[..], |entry, content| {
            let mut expect = entries[position].clone();
            expect.size = if expect.kind == b'0' { 7 } else { 0 };
            assert_eq!(entry, expect);
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            assert_eq!(bytes.len() as u64, expect.size);
            position += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(position, entries.len());
    }
}
