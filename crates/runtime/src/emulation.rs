//! Which programs of other CPUs run here: what `binfmt_misc` hands to an emulator (kernel documentation,
//! `admin-guide/binfmt-misc.rst`).
//!
//! The kernel picks an emulator by the first bytes of a program. With the flag `F` it opened the emulator when that was
//! registered, so it works in every root; else the emulator must stand under its path in the container's own root.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use mica_oci::Platform;

/// Where the kernel shows what is registered.
const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";
/// Registrations that are looked at; a machine with all of qemu's has forty.
const REGISTRATIONS_MAX: usize = 1_000;
/// A registration's file: two texts of at most 256 bytes in hexadecimal, and a path.
const REGISTRATION_BYTES_MAX: u64 = 16 << 10;
/// Length of a 64-bit ELF header; no registration of a CPU looks further.
pub const HEADER_BYTES: usize = 64;

/// The first bytes of a program.
pub type Header = [u8; HEADER_BYTES];

/// What the kernel runs by way of other programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emulators {
    /// The list cannot be seen from here (`binfmt_misc` is not mounted), and there may be any.
    Unknown,
    /// These.
    Known(Vec<Registration>),
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The emulator.
    pub interpreter: PathBuf,
    /// Whether the emulator was opened when it was registered.
    pub is_fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    /// As long as `magic`.
    mask: Vec<u8>,
}

impl Registration {
    /// Reads an entry as the kernel shows it; `None` for one that is disabled, or goes by the end of a file's name, or is
    /// not understood.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "enabled" {
            return None;
        }
        let (mut interpreter, mut flags, mut offset, mut magic, mut mask) = (None, "", 0, None, None);
        for line in lines {
            match line.split_once(' ') {
                Some(("interpreter", path)) => interpreter = Some(PathBuf::from(path)),
                Some(("flags:", value)) => flags = value,
                Some(("offset", value)) => offset = value.parse().ok()?,
                Some(("magic", value)) => magic = Some(bytes_of(value)?),
                Some(("mask", value)) => mask = Some(bytes_of(value)?),
                _ => {}
            }
        }
        let magic = magic?;
        let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
        let (interpreter, is_fixed) = (interpreter?, flags.contains('F'));
        (mask.len() == magic.len()).then_some(Self { interpreter, is_fixed, offset, magic, mask })
    }

    /// Whether the kernel would take this emulator for a program that begins so.
    pub fn serves(&self, header: &Header) -> bool {
        let end = self.offset.checked_add(self.magic.len());
        let Some(bytes) = end.and_then(|end| header.get(self.offset..end)) else { return false };
        bytes.iter().zip(&self.magic).zip(&self.mask).all(|((byte, magic), mask)| (byte ^ magic) & mask == 0)
    }
}

fn bytes_of(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.trim().as_bytes();
    let pair = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        }
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

/// What is registered and enabled.
pub fn emulators() -> Emulators {
    emulators_in(Path::new(DIRECTORY))
}

fn emulators_in(directory: &Path) -> Emulators {
    match read(&directory.join("status")) {
        Some(status) if status.trim() == "enabled" => {}
        Some(_) => return Emulators::Known(Vec::new()),
        None => return Emulators::Unknown,
    }
    let Ok(entries) = fs::read_dir(directory) else { return Emulators::Unknown };
    let entries =
        entries.flatten().filter(|entry| !matches!(entry.file_name().to_str(), Some("status" | "register")));
    let texts = entries.take(REGISTRATIONS_MAX).filter_map(|entry| read(&entry.path()));
    Emulators::Known(texts.filter_map(|text| Registration::parse(&text)).collect())
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(REGISTRATION_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Class (1 for 32 bits, 2 for 64), byte order (1 for little, 2 for big) and machine of the programs of an architecture.
fn elf_of(architecture: &str) -> Option<(u8, u8, u16)> {
    Some(match architecture {
        "386" => (1, 1, 3),
        "amd64" => (2, 1, 62),
        "arm" => (1, 1, 40),
        "armbe" => (1, 2, 40),
        "arm64" => (2, 1, 183),
        "arm64be" => (2, 2, 183),
        "loong64" => (2, 1, 258),
        "mips" => (1, 2, 8),
        "mipsle" => (1, 1, 8),
        "mips64" => (2, 2, 8),
        "mips64le" => (2, 1, 8),
        "ppc" => (1, 2, 20),
        "ppc64" => (2, 2, 21),
        "ppc64le" => (2, 1, 21),
        "riscv" => (1, 1, 243),
        "riscv64" => (2, 1, 243),
        "s390x" => (2, 2, 22),
        "sparc64" => (2, 2, 43),
        _ => return None,
    })
}

/// How a program of a platform begins; `None` where that is not known.
pub fn header_of(platform: &Platform) -> Option<Header> {
    let (class, order, machine) = elf_of(&platform.normalized().architecture)?;
    let half = |value: u16| if order == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
    let (executable, machine) = (half(2), half(machine));
    let mut header = [0; HEADER_BYTES];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1]);
    header[16..18].copy_from_slice(&executable);
    header[18..20].copy_from_slice(&machine);
    let version: [u8; 4] = if order == 1 { [1, 0, 0, 0] } else { [0, 0, 0, 1] };
    header[20..24].copy_from_slice(&version);
    Some(header)
}

/// Whether these are the first bytes of a program for a CPU.
pub fn is_program(header: &Header) -> bool {
    header.starts_with(b"\x7fELF")
}

/// Whether the kernel runs programs that begin so without anybody's help: of this machine's architecture, or of one that
/// its hardware has besides.
pub fn is_native(header: &Header) -> bool {
    let identity = |header: &Header| [header[4], header[5], header[18], header[19]];
    let own = Platform::host().runs();
    own.iter().filter_map(header_of).any(|own| identity(&own) == identity(header))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn registrations() {
        let check = |text: &str, expect: Option<(&str, bool)>| {
            let found = Registration::parse(text);
            let found =
                found.as_ref().map(|found| (found.interpreter.to_str().unwrap_or_default(), found.is_fixed));
            assert_eq!(found, expect, "{text}");
        };
        check(AARCH64, Some(("/usr/libexec/qemu-binfmt/aarch64-binfmt-P", true)));
        check(&AARCH64.replace("enabled", "disabled"), None);
        check("enabled\ninterpreter /q\nflags: \noffset 4\nmagic 0aff\n", Some(("/q", false)));
        check("enabled\ninterpreter /q\nflags: F\nextension .exe\n", None);
        check("enabled\ninterpreter /q\nflags: F\noffset 0\nmagic 0aff\nmask ff\n", None);
        check("enabled\ninterpreter /q\nflags: F\noffset 0\nmagic 0af\n", None);
        check("enabled\ninterpreter /q\nflags: F\noffset 0\nmagic 0g\n", None);
        check("enabled\ninterpreter /q\nflags: F\noffset -1\nmagic 00\n", None);
        check("enabled\nflags: F\noffset 0\nmagic 00\n", None);
        check("", None);
    }

    #[test]
    fn what_an_emulator_serves() {
        let check = |text: &str, platform: &str, expect: bool| {
            let registration = Registration::parse(text).expect(text);
            let header = header_of(&Platform::parse(platform).expect(platform)).expect(platform);
            assert_eq!(registration.serves(&header), expect, "{platform}: {text}");
        };
        check(AARCH64, "linux/arm64", true);
        check(AARCH64, "linux/arm64/v8", true);
        check(AARCH64, "linux/arm/v7", false);
        check(AARCH64, "linux/amd64", false);
        check(AARCH64, "linux/riscv64", false);
        // Big-endian: the machine stands at the other end.
        let s390x = "enabled\ninterpreter /q\nflags: \noffset 0\nmagic 7f454c4602020100000000000000000000020016\n\
            mask fffffffffffffffcfffffffffffffffffffeffff\n";
        check(s390x, "linux/s390x", true);
        check(s390x, "linux/ppc64le", false);
        // Windows' programs, and what begins beyond the header.
        check("enabled\ninterpreter /wine\nflags: \noffset 0\nmagic 4d5a\n", "linux/arm64", false);
        check("enabled\ninterpreter /q\nflags: \noffset 63\nmagic 0000\n", "linux/arm64", false);
        check(
            &format!("enabled\ninterpreter /q\nflags: \noffset {}\nmagic 00\n", usize::MAX),
            "linux/arm64",
            false,
        );
        assert_eq!(header_of(&Platform::new("wasi", "wasm")), None);
    }

    #[test]
    fn what_runs_by_itself() {
        let own = Platform::host();
        for (platform, expect) in [
            (own.to_string(), true),
            (format!("{own}/v3"), true),
            ("linux/386".to_owned(), own.architecture == "amd64"),
            ("linux/s390x".to_owned(), own.architecture == "s390x"),
        ] {
            let header = Platform::parse(&platform).ok().as_ref().and_then(header_of);
            assert_eq!(header.map(|header| is_native(&header)), Some(expect), "{platform}");
        }
        let program = fs::read("/proc/self/exe").expect("this program");
        let header: Header = program[..HEADER_BYTES].try_into().expect("a header");
        assert!(is_program(&header) && is_native(&header));
        assert!(!is_program(&[0; HEADER_BYTES]));
    }

    #[test]
    fn the_kernels_list() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
        let count = || match emulators_in(directory.path()) {
            Emulators::Unknown => None,
            Emulators::Known(known) => Some(known.len()),
        };
        write("qemu-aarch64", AARCH64);
        assert_eq!(count(), None);
        write("status", "enabled\n");
        write("register", AARCH64);
        write("other", "disabled\n");
        assert_eq!(count(), Some(1));
        write("status", "disabled\n");
        assert_eq!(count(), Some(0));
        assert_eq!(emulators_in(Path::new("/nowhere")), Emulators::Unknown);
    }
}
