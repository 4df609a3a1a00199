//! Platforms as people write them, and what they may have meant.

use crate::base_name::closest;
use mica_oci::Platform;
use mica_oci::platform::{KNOWN_ARCHITECTURES, KNOWN_OS};

/// Architectures that are real, that nobody has images for, and that look like a slip of others.
const RARE_ARCHITECTURES: [&str; 3] = ["riscv32", "mips64r6", "mipsr6"];

/// What a platform was probably meant to be that names a system or an architecture which nobody has; `None` if both are
/// known, or look like nothing that is.
pub fn meant_platform(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.trim().split('/').collect();
    let is_architecture = |name: &str| {
        let canonical = Platform::new("linux", name).normalized().architecture;
        KNOWN_ARCHITECTURES.contains(&canonical.as_str()) || RARE_ARCHITECTURES.contains(&name)
    };
    let near_architecture = |name: &str| match is_architecture(name) {
        true => None,
        false => {
            let is_as_long = |known: &&str| known.len().abs_diff(name.len()) <= 1;
            closest(name, KNOWN_ARCHITECTURES.into_iter().filter(is_as_long))
        }
    };
    let (system, version) =
        parts.first()?.split_once('(').map_or((*parts.first()?, false), |(os, _)| (os, true));
    let is_system = version || KNOWN_OS.contains(&system.to_ascii_lowercase().as_str()) || system == "macos";
    let meant = match parts.as_slice() {
        [word] if is_system || is_architecture(word) => return None,
        [word] => match closest(word, KNOWN_OS) {
            Some(near) => near.to_owned(),
            None => format!("linux/{}", near_architecture(word)?),
        },
        // The system was left out before a variant.
        [architecture, variant] if !is_system && is_architecture(architecture) => {
            format!("linux/{architecture}/{variant}")
        }
        [_, architecture, variant @ ..] => {
            let near_system = if is_system { None } else { Some(closest(system, KNOWN_OS)?) };
            let near = near_architecture(architecture);
            if near_system.is_none() && near.is_none() {
                return None;
            }
            let parts = [&[near_system.unwrap_or(system), near.unwrap_or(architecture)], variant].concat();
            parts.join("/")
        }
        [] => return None,
    };
    Platform::parse(&meant).ok().map(|_| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        for (text, expect) in [
            ("linux/amd64", None),
            ("Linux/AMD64", None),
            ("linux/x86_64", None),
            ("linux/aarch64", None),
            ("linux/arm/v7", None),
            ("linux/riscv32", None),
            ("linux/mips64r6", None),
            ("windows(10.0.17763)/amd64", None),
            ("macos", None),
            ("darwin/arm64", None),
            ("wasi/wasm", None),
            ("linux/e2k", None),
            ("linux/amd46", Some("linux/amd64")),
            ("linux/amd6", Some("linux/amd64")),
            ("linx/amd64", Some("linux/amd64")),
            ("lunix/arn64/v8", Some("linux/arm64/v8")),
            ("linux/ppc64el", Some("linux/ppc64le")),
            ("linux/i686", Some("linux/386")),
            ("arm64/v8", Some("linux/arm64/v8")),
            ("arm/v7", Some("linux/arm/v7")),
            ("amd46", Some("linux/amd64")),
            ("linu", Some("linux")),
            ("toaster", None),
            ("toaster/amd64", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(meant_platform(text).as_deref(), expect, "{text}");
        }
    }
}
