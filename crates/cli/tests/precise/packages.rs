//! Packages of three kinds made by hand, always the same bytes: Debian's, Python wheels, npm's tarballs.

use mica_testkit::tar::{Entry, Writer};

/// What a package is made of: a name, a version, and a number that what it installs tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    pub version: u64,
    pub body: u64,
    /// The package that it needs.
    pub needs: Option<&'static str>,
}

impl Package {
    /// The file name of the Debian package.
    pub fn deb_name(&self) -> String {
        format!("{}_{}_all.deb", self.name, self.version)
    }

    /// The file name of the wheel.
    pub fn wheel_name(&self) -> String {
        format!("{}-{}-py3-none-any.whl", self.name, self.version)
    }

    /// The file name of the npm tarball.
    pub fn tgz_name(&self) -> String {
        format!("{}-{}.0.0.tgz", self.name, self.version)
    }

    /// The fields that a Debian package and the index of a repository share.
    fn control(&self) -> String {
        let needs = self.needs.map_or(String::new(), |name| format!("Depends: {name}\n"));
        format!(
            "Package: {}\nVersion: {}\nArchitecture: all\nMaintainer: none <none@localhost>\n{needs}Description: a test\n",
            self.name, self.version
        )
    }

    /// A Debian package with a program, a configuration file and a script that runs after it is unpacked.
    pub fn deb(&self) -> Vec<u8> {
        let (name, body) = (self.name, self.body);
        let mut control = Writer::default();
        control.add(Entry::file("./control"), self.control().as_bytes());
        control.add(Entry::file("./conffiles"), format!("/etc/{name}.conf\n").as_bytes());
        control.add(
            Entry { mode: 0o755, ..Entry::file("./postinst") },
            format!(
                "#!/bin/sh\nset -e\nmkdir -p /var/lib/{name}\necho \"$1 {body}\" > /var/lib/{name}/state\n"
            )
            .as_bytes(),
        );
        let mut data = Writer::default();
        for dir in ["./", "./etc/", "./usr/", "./usr/bin/", "./usr/share/"] {
            data.add(Entry::dir(dir), b"");
        }
        data.add(Entry::dir(&format!("./usr/share/{name}/")), b"");
        data.add(Entry::file(&format!("./etc/{name}.conf")), format!("number={body}\n").as_bytes());
        data.add(
            Entry { mode: 0o755, ..Entry::file(&format!("./usr/bin/{name}")) },
            format!("#!/bin/sh\necho {name} {} {body}\ncat /etc/{name}.conf\n", self.version).as_bytes(),
        );
        data.add(Entry::file(&format!("./usr/share/{name}/data")), format!("data {body}\n").as_bytes());
        let mut archive = b"!<arch>\n".to_vec();
        for (member, bytes) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", control.finish()),
            ("data.tar", data.finish()),
        ] {
            let header = format!("{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len());
            archive.extend_from_slice(header.as_bytes());
            archive.extend_from_slice(&bytes);
            if bytes.len() % 2 == 1 {
                archive.push(b'\n');
            }
        }
        archive
    }

    /// The paragraph of this package in the index of a repository.
    pub fn deb_paragraph(&self) -> String {
        let deb = self.deb();
        let digest = mica_testkit::sha256(&deb);
        format!(
            "{}Filename: ./{}\nSize: {}\nSHA256: {digest}\n\n",
            self.control(),
            self.deb_name(),
            deb.len()
        )
    }

    /// A wheel with one module.
    pub fn wheel(&self) -> Vec<u8> {
        let Package { name, version, body, .. } = self;
        let info = format!("{name}-{version}.dist-info");
        let needs = self.needs.map_or(String::new(), |name| format!("Requires-Dist: {name}\n"));
        let files = [
            (format!("{name}/__init__.py"), format!("VALUE = {body}\n")),
            (format!("{name}/data.txt"), format!("data {body}\n")),
            (
                format!("{info}/METADATA"),
                format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"),
            ),
            (
                format!("{info}/WHEEL"),
                "Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: true\nTag: py3-none-any\n".into(),
            ),
            (format!("{info}/entry_points.txt"), format!("[console_scripts]\nrun-{name} = {name}:main\n")),
            (
                format!("{info}/RECORD"),
                format!(
                    "{name}/__init__.py,,\n{name}/data.txt,,\n{info}/METADATA,,\n{info}/WHEEL,,\n\
                     {info}/entry_points.txt,,\n{info}/RECORD,,\n"
                ),
            ),
        ];
        zip(&files)
    }

    /// An npm tarball with one module and a program.
    pub fn tgz(&self) -> Vec<u8> {
        let Package { name, version, body, .. } = self;
        let mut tar = Writer::default();
        tar.add(
            Entry::file("package/package.json"),
            format!(
                "{{\"name\":\"{name}\",\"version\":\"{version}.0.0\",\"main\":\"index.js\",\"bin\":{{\"{name}\":\"cli.js\"}}}}\n"
            )
            .as_bytes(),
        );
        tar.add(Entry::file("package/index.js"), format!("module.exports = {body};\n").as_bytes());
        tar.add(
            Entry { mode: 0o755, ..Entry::file("package/cli.js") },
            format!("#!/usr/bin/env node\nconsole.log('{name}', {body});\n").as_bytes(),
        );
        gzip(&tar.finish())
    }
}

/// A zip of files that are stored as they are.
fn zip(files: &[(String, String)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (path, content) in files {
        let offset = archive.len() as u32;
        let mut common = Vec::new();
        // Version 2.0, no flags, stored, 1980-01-01.
        for half in [20u16, 0, 0, 0, 0x21] {
            common.extend_from_slice(&half.to_le_bytes());
        }
        for word in [crc32(content.as_bytes()), content.len() as u32, content.len() as u32] {
            common.extend_from_slice(&word.to_le_bytes());
        }
        common.extend_from_slice(&(path.len() as u16).to_le_bytes());
        common.extend_from_slice(&0u16.to_le_bytes());
        archive.extend_from_slice(b"PK\x03\x04");
        archive.extend_from_slice(&common);
        archive.extend_from_slice(path.as_bytes());
        archive.extend_from_slice(content.as_bytes());
        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&(3u16 << 8 | 20).to_le_bytes());
        directory.extend_from_slice(&common);
        // No comment, first disk, no internal attributes.
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(0o100_644u32 << 16).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(path.as_bytes());
    }
    let (offset, size, count) = (archive.len() as u32, directory.len() as u32, files.len() as u16);
    archive.extend_from_slice(&directory);
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    archive.extend_from_slice(&count.to_le_bytes());
    archive.extend_from_slice(&count.to_le_bytes());
    archive.extend_from_slice(&size.to_le_bytes());
    archive.extend_from_slice(&offset.to_le_bytes());
    archive.extend_from_slice(&[0; 2]);
    archive
}

/// Gzip around stored blocks.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let count = bytes.chunks(0xffff).count();
    for (position, block) in bytes.chunks(0xffff).enumerate() {
        let length = block.len() as u16;
        packed.push(u8::from(position + 1 == count));
        packed.extend_from_slice(&length.to_le_bytes());
        packed.extend_from_slice(&(!length).to_le_bytes());
        packed.extend_from_slice(block);
    }
    packed.extend_from_slice(&crc32(bytes).to_le_bytes());
    packed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    packed
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
    !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn check_values_are_right() {
    // The check value that every table of CRCs gives.
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
