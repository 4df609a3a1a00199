//! What an image runs on: operating system, architecture, variant.
//!
//! Spelling, normalisation and preference follow containerd's `platforms` package, because users and indexes were
//! taught by it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::absent::{empty_as_none, is_blank, null_as_default};
use crate::digest::shorten;

/// The operating system of this program, in Go's spelling.
pub const HOST_OS: &str = if cfg!(target_os = "macos") {
    "darwin"
} else if cfg!(target_os = "windows") {
    "windows"
} else if cfg!(target_os = "freebsd") {
    "freebsd"
} else {
    "linux"
};

/// The architecture of this program, in Go's spelling.
pub const HOST_ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else if cfg!(target_arch = "x86") {
    "386"
} else if cfg!(target_arch = "arm") {
    "arm"
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    "ppc64le"
} else if cfg!(target_arch = "powerpc64") {
    "ppc64"
} else if cfg!(target_arch = "s390x") {
    "s390x"
} else if cfg!(target_arch = "riscv64") {
    "riscv64"
} else if cfg!(target_arch = "loongarch64") {
    "loong64"
} else {
    "unknown"
};

/// Systems that a bare word may name.
pub const KNOWN_OS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Architectures that a bare word may name.
pub const KNOWN_ARCHITECTURES: [&str; 24] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// Why a text does not name a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// `*` is not supported.
    #[error("wildcards are not supported in a platform: `{specifier}`")]
    Wildcard {
        /// The whole text.
        specifier: String,
    },
    /// The first part is not `os` or `os(version+feature)`.
    #[error("invalid operating system `{component}` in platform: `{specifier}`")]
    InvalidOs {
        /// The part that is wrong.
        component: String,
        /// The whole text.
        specifier: String,
    },
    /// A later part has other characters than letters, digits, `_`, `.` and `-`.
    #[error("invalid component `{component}` in platform: `{specifier}`")]
    InvalidComponent {
        /// The part that is wrong.
        component: String,
        /// The whole text.
        specifier: String,
    },
    /// More parts than `os/architecture/variant`.
    #[error("too many components, expected `os/architecture/variant`: `{specifier}`")]
    TooManyComponents {
        /// The whole text.
        specifier: String,
    },
    /// One word that is neither a known system nor a known architecture.
    #[error("unknown operating system or architecture: `{specifier}`")]
    Unknown {
        /// The whole text.
        specifier: String,
    },
}

impl PlatformError {
    /// The text that names no platform.
    pub fn specifier(&self) -> &str {
        match self {
            Self::Wildcard { specifier }
            | Self::InvalidOs { specifier, .. }
            | Self::InvalidComponent { specifier, .. }
            | Self::TooManyComponents { specifier }
            | Self::Unknown { specifier } => specifier,
        }
    }
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's spelling: `amd64`, `arm64`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub architecture: String,
    /// Operating system in Go's spelling: `linux`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub os: String,
    /// Version of the operating system; Windows has it.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "empty_as_none",
        skip_serializing_if = "is_blank"
    )]
    pub os_version: Option<String>,
    /// Required features of the operating system, as `win32k`.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the architecture: `v7`, `v8`.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub variant: Option<String>,
}

impl Platform {
    /// A platform without variant.
    pub fn new(os: &str, architecture: &str) -> Platform {
        Platform { os: os.to_owned(), architecture: architecture.to_owned(), ..Platform::default() }
    }

    /// A platform with variant.
    pub fn with_variant(os: &str, architecture: &str, variant: &str) -> Platform {
        Platform { variant: Some(variant.to_owned()), ..Platform::new(os, architecture) }
    }

    /// What this program was built for.
    pub fn host() -> Platform {
        Platform::new(HOST_OS, HOST_ARCHITECTURE)
    }

    /// Reads `os`, `architecture`, `os/architecture` or `os/architecture/variant`; the host gives what is absent.
    ///
    /// The result is spelled canonically but not fully normalised (`linux/arm` has no variant); compare platforms by
    /// [`Platform::normalized`].
    pub fn parse(specifier: &str) -> Result<Platform, PlatformError> {
        Platform::parse_with_host(specifier, &Platform::host())
    }

    /// As [`Platform::parse`], with what is absent taken from `host`.
    pub fn parse_with_host(specifier: &str, host: &Platform) -> Result<Platform, PlatformError> {
        let quoted = || shorten(specifier);
        if specifier.contains('*') {
            return Err(PlatformError::Wildcard { specifier: quoted() });
        }
        let mut components = specifier.split('/');
        let first = components.next().unwrap_or_default();
        let mut platform = parse_os(first)
            .ok_or_else(|| PlatformError::InvalidOs { component: shorten(first), specifier: quoted() })?;
        let checked = |components: &mut std::str::Split<'_, char>| match components.next() {
            Some(component) if !is_component(component) => {
                Err(PlatformError::InvalidComponent { component: shorten(component), specifier: quoted() })
            }
            component => Ok(component.map(str::to_owned)),
        };
        let architecture = checked(&mut components)?;
        let variant = checked(&mut components)?;
        if components.next().is_some() {
            return Err(PlatformError::TooManyComponents { specifier: quoted() });
        }
        match (architecture, variant) {
            (Some(architecture), Some(variant)) => {
                platform.set_architecture(&architecture, &variant);
                // A variant that was asked for by name stays visible, even if it is the usual one.
                if platform.architecture == "arm64" && platform.variant.is_none() {
                    platform.variant = Some("v8".to_owned());
                }
            }
            (Some(architecture), None) => {
                platform.set_architecture(&architecture, "");
                platform.hide_usual_arm_variant();
            }
            (None, _) if KNOWN_OS.contains(&platform.os.as_str()) => {
                platform.architecture.clone_from(&host.architecture);
                if host.architecture == "arm" {
                    platform.variant = host.variant.clone().filter(|variant| variant != "v7");
                }
            }
            (None, _) => {
                let mut bare = Platform { os: host.os.clone(), ..Platform::default() };
                bare.set_architecture(first, "");
                bare.hide_usual_arm_variant();
                if !KNOWN_ARCHITECTURES.contains(&bare.architecture.as_str()) {
                    return Err(PlatformError::Unknown { specifier: quoted() });
                }
                platform = bare;
            }
        }
        Ok(platform)
    }

    /// The canonical spelling: `aarch64` is `arm64`, `arm64/v8` is `arm64`, `arm` is `arm/v7`, `macos` is `darwin`.
    pub fn normalized(&self) -> Platform {
        let mut platform = self.clone();
        platform.os = if self.os.is_empty() { HOST_OS.to_owned() } else { canonical_os(&self.os) };
        platform.set_architecture(&self.architecture, self.variant.as_deref().unwrap_or_default());
        platform.os_features.sort();
        platform.os_features.dedup();
        platform
    }

    /// Whether both name the same system, architecture and variant; versions and features are not compared.
    pub fn is_same(&self, other: &Platform) -> bool {
        let (a, b) = (self.normalized(), other.normalized());
        a.os == b.os && a.architecture == b.architecture && a.variant == b.variant
    }

    /// The platforms whose programs run on this one, the best first: this one, lower variants, then what it emulates in
    /// hardware (`amd64` runs `386`, `arm64` runs `arm`).
    pub fn runs(&self) -> Vec<Platform> {
        let this = self.normalized();
        let level =
            this.variant.as_deref().and_then(|variant| variant.trim_start_matches('v').parse::<u8>().ok());
        let make = |architecture: &str, variant: String| {
            Platform { architecture: architecture.to_owned(), variant: Some(variant), ..this.clone() }
                .normalized()
        };
        let mut platforms = vec![this.clone()];
        match this.architecture.as_str() {
            "amd64" => {
                platforms
                    .extend((1..level.unwrap_or(1)).rev().map(|level| make("amd64", format!("v{level}"))));
                platforms.push(make("386", String::new()));
            }
            "arm" => {
                platforms.extend((5..level.unwrap_or(5)).rev().map(|level| make("arm", format!("v{level}"))))
            }
            "arm64" => {
                if this.variant.is_some() {
                    platforms.push(make("arm64", "v8".to_owned()));
                }
                platforms.extend((5..=8).rev().map(|level| make("arm", format!("v{level}"))));
            }
            _ => {}
        }
        platforms
    }

    /// The full specifier, with version and features of the operating system: `windows(10.0.17763+win32k)/amd64`.
    pub fn specifier(&self) -> String {
        let mut options = self.os_version.as_deref().map(escape_option).unwrap_or_default();
        let mut features: Vec<&String> = self.os_features.iter().collect();
        features.sort();
        for feature in features {
            options.push('+');
            options.push_str(&escape_option(feature));
        }
        if options.is_empty() || self.os.is_empty() {
            return self.to_string();
        }
        let os = format!("{}({options})", self.os);
        Platform { os, ..self.clone() }.to_string()
    }

    /// Sets architecture and variant in canonical spelling.
    fn set_architecture(&mut self, architecture: &str, variant: &str) {
        let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        self.architecture = architecture.to_owned();
        self.variant = (!variant.is_empty()).then(|| variant.to_owned());
    }

    /// `linux/arm` as a user wrote it means v7, and is kept without it.
    fn hide_usual_arm_variant(&mut self) {
        if self.architecture == "arm" && self.variant.as_deref() == Some("v7") {
            self.variant = None;
        }
    }
}

fn canonical_os(os: &str) -> String {
    let os = os.to_ascii_lowercase();
    if os == "macos" { "darwin".to_owned() } else { os }
}

/// `os` or `os(version+feature+feature)`, values percent-encoded.
fn parse_os(text: &str) -> Option<Platform> {
    let (os, options) = match text.split_once('(') {
        None => (text, None),
        Some((os, options)) => (os, Some(options.strip_suffix(')')?)),
    };
    if os.is_empty() || !os.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
        return None;
    }
    let mut platform = Platform { os: canonical_os(os), ..Platform::default() };
    let mut options = options.unwrap_or_default().split('+').map(unescape_option);
    // Splitting always gives one item, and that one is the version, perhaps empty.
    platform.os_version = Some(options.next()??).filter(|version| !version.is_empty());
    platform.os_features = options.collect::<Option<Vec<String>>>()?;
    Some(platform)
}

fn is_component(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Whether a byte stands for itself in an option.
fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// Encodes what would be read as syntax, and all else that [`unescape_option`] would refuse.
fn escape_option(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if is_plain_byte(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Checks the characters of an option and decodes `%2F`.
fn unescape_option(value: &str) -> Option<String> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                decoded.push(u8::try_from(high * 16 + low).ok()?);
            }
            byte if is_plain_byte(byte) => decoded.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(decoded).ok()
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return formatter.pad("unknown");
        }
        let mut text = self.os.clone();
        for part in [self.architecture.as_str(), self.variant.as_deref().unwrap_or_default()] {
            if !part.is_empty() {
                text.push('/');
                text.push_str(part);
            }
        }
        formatter.pad(&text)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(specifier: &str) -> Result<Platform, PlatformError> {
        Platform::parse(specifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(specifier: &str, expect: &str) {
        let host = Platform::new("linux", "amd64");
        let actual = Platform::parse_with_host(specifier, &host).map(|platform| platform.specifier());
        assert_eq!(actual.as_deref().unwrap_or("refused"), expect, "{specifier}");
    }

    #[test]
    fn specifiers() {
        check("linux/arm64/v8", "linux/arm64/v8");
        check("linux/armel", "linux/arm/v6");
        check("linux/armhf", "linux/arm");
        check("linux/x86-64/v3", "linux/amd64/v3");
        check("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64");
        check("windows(+b+a)", "windows(+a+b)/amd64");
        check("windows(10%2F0)/amd64", "windows(10%2F0)/amd64");
        check("windows(%00+%0a)/amd64", "windows(%00+%0A)/amd64");
        check("windows()/amd64", "windows/amd64");
        check("windows(%zz)/amd64", "refused");
        check("windows(%)/amd64", "refused");
        check("windows(%ff)/amd64", "refused");
        check("windows(1/amd64", "refused");
        check("linux/*", "refused");
        check("linux/amd64/", "refused");
        check("linux/é", "refused");
        check("toaster", "refused");
    }

    #[test]
    fn what_runs_where() {
        let names = |platform: Platform| {
            platform.runs().iter().map(Platform::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(Platform::new("linux", "amd64")), "linux/amd64 linux/386");
        assert_eq!(
            names(Platform::with_variant("linux", "amd64", "v3")),
            "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386"
        );
        assert_eq!(
            names(Platform::new("linux", "arm64")),
            "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"
        );
        assert_eq!(names(Platform::new("linux", "arm")), "linux/arm/v7 linux/arm/v6 linux/arm/v5");
        assert_eq!(names(Platform::new("linux", "s390x")), "linux/s390x");
    }

    #[test]
    fn json_has_dotted_names() {
        let platform = Platform::parse("windows(10.0+win32k)/amd64").unwrap();
        let json = serde_json::to_string(&platform).unwrap();
        assert_eq!(
            json,
            r#"{"architecture":"amd64","os":"windows","os.version":"10.0","os.features":["win32k"]}"#
        );
        assert_eq!(serde_json::from_str::<Platform>(&json).unwrap(), platform);
    }
}
