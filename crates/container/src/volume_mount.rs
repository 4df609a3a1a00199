//! `-v`, `--mount` and `--tmpfs`: the text to values, as docker reads it. Pure.

use serde::{Deserialize, Serialize};

use crate::error::{ContainerError, Result};
use crate::limit::parse_size_bytes;

/// Something that is mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// What.
    pub source: MountSource,
    /// Absolute path in the container.
    pub target: String,
    /// Not to be written to.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Its path; relative ones are the caller's.
        path: String,
        /// Make a directory if nothing is there (`-v` does, `--mount` does not).
        create: bool,
    },
    /// A volume.
    Volume {
        /// Its name; empty for one of its own that is still to be made.
        name: String,
        /// Leaves with the container when that is removed with its volumes.
        anonymous: bool,
        /// Filled from the image when it is new.
        copy: bool,
    },
    /// Memory.
    Tmpfs {
        /// Most it may hold.
        size_bytes: Option<u64>,
        /// Permissions of its root.
        mode: u32,
    },
}

/// docker's permissions of a tmpfs.
const TMPFS_MODE: u32 = 0o1777;

fn wrong(what: &'static str, value: &str, reason: impl Into<String>) -> ContainerError {
    ContainerError::OptionInvalid { what, value: value.to_owned(), reason: reason.into() }
}

fn check_target(what: &'static str, text: &str, target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(wrong(what, text, "the path in the container must be absolute"));
    }
    let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(wrong(what, text, "the path in the container must not hold `..`"));
    }
    if parts.is_empty() {
        return Err(wrong(what, text, "the destination cannot be `/`"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Reads `-v`: `[host path or volume name:]path in the container[:options]`.
pub fn parse_volume(text: &str) -> Result<VolumeMount> {
    const WHAT: &str = "volume specification";
    let fields: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match *fields.as_slice() {
        [target] => ("", target, ""),
        // `/data:ro` names no source, as docker has it.
        [target, options] if target.starts_with('/') && matches!(options, "ro" | "rw") => {
            ("", target, options)
        }
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(wrong(WHAT, text, "too many colons")),
    };
    if fields.len() > 1 && source.is_empty() && fields.first() == Some(&"") {
        return Err(wrong(WHAT, text, "no source"));
    }
    let target = check_target(WHAT, text, target)?;
    let (mut read_only, mut copy, mut modes) = (false, true, 0);
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match option {
            "ro" | "rw" => {
                read_only = option == "ro";
                modes += 1;
            }
            "nocopy" => copy = false,
            // Labels of SELinux, consistency of other systems, and what is the default anyway.
            "z" | "Z" | "consistent" | "cached" | "delegated" | "private" | "rprivate" => {}
            _ => return Err(wrong(WHAT, text, format!("option is not supported: `{option}`"))),
        }
    }
    if modes > 1 {
        return Err(wrong(WHAT, text, "more than one of `ro` and `rw`"));
    }
    let is_path = source.starts_with(['/', '.', '~']);
    let source = if is_path {
        MountSource::Bind { path: source.to_owned(), create: true }
    } else {
        if source.contains('/') {
            let reason = "a volume name holds no `/`; a path of the host begins with `/` or `.`";
            return Err(wrong(WHAT, text, reason));
        }
        MountSource::Volume { name: source.to_owned(), anonymous: source.is_empty(), copy }
    };
    Ok(VolumeMount { source, target, read_only })
}

/// Reads `--mount`: `type=bind,src=/a,dst=/b,readonly`.
pub fn parse_mount(text: &str) -> Result<VolumeMount> {
    const WHAT: &str = "mount";
    let (mut kind, mut source, mut target) = (String::from("volume"), String::new(), String::new());
    let (mut read_only, mut copy, mut size_bytes, mut mode) = (false, true, None, TMPFS_MODE);
    let mut of_kinds = Vec::new();
    for field in split_fields(text) {
        let (key, value) =
            field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.trim().to_ascii_lowercase();
        let flag = |value: Option<&str>| match value.unwrap_or("true") {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(wrong(WHAT, text, format!("invalid value for {key}: {other}"))),
        };
        if let Some((kind, _)) =
            key.split_once('-').filter(|(kind, _)| matches!(*kind, "volume" | "tmpfs" | "bind"))
        {
            of_kinds.push(kind.to_owned());
        }
        match key.as_str() {
            "type" => kind = value.unwrap_or_default().to_ascii_lowercase(),
            "source" | "src" => source = value.unwrap_or_default().to_owned(),
            "target" | "dst" | "destination" => target = value.unwrap_or_default().to_owned(),
            "readonly" | "ro" => read_only = flag(value)?,
            "volume-nocopy" => copy = !flag(value)?,
            "volume-label" | "consistency" => {}
            "tmpfs-size" => size_bytes = Some(parse_size_bytes(value.unwrap_or_default())?),
            "tmpfs-mode" => {
                mode = u32::from_str_radix(value.unwrap_or_default(), 8)
                    .map_err(|_| wrong(WHAT, text, "tmpfs-mode is not an octal number"))?;
            }
            "bind-propagation" if matches!(value, Some("private" | "rprivate")) => {}
            _ => return Err(wrong(WHAT, text, format!("unexpected key `{key}`"))),
        }
    }
    if let Some(other) = of_kinds.iter().find(|other| **other != kind) {
        return Err(wrong(WHAT, text, format!("cannot mix `{other}-*` options with mount type `{kind}`")));
    }
    if target.is_empty() {
        return Err(wrong(WHAT, text, "target is required"));
    }
    let target = check_target(WHAT, text, &target)?;
    let source = match kind.as_str() {
        "bind" if !source.starts_with(['/', '.']) => {
            return Err(wrong(WHAT, text, "the source must be an absolute path"));
        }
        "bind" => MountSource::Bind { path: source, create: false },
        "volume" if source.contains('/') => return Err(wrong(WHAT, text, "a volume name holds no `/`")),
        "volume" => MountSource::Volume { anonymous: source.is_empty(), name: source, copy },
        "tmpfs" if !source.is_empty() => return Err(wrong(WHAT, text, "a tmpfs has no source")),
        "tmpfs" => MountSource::Tmpfs { size_bytes, mode },
        _ => return Err(wrong(WHAT, text, format!("type is not supported: `{kind}`"))),
    };
    Ok(VolumeMount { source, target, read_only })
}

/// Fields of a line of CSV: a quoted one may hold commas, a doubled quote is one.
fn split_fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

/// Reads `--tmpfs`: `/path[:size=64m,mode=1777]`.
pub fn parse_tmpfs(text: &str) -> Result<VolumeMount> {
    const WHAT: &str = "tmpfs";
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size_bytes, mut mode, mut read_only) = (None, TMPFS_MODE, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", size) => size_bytes = Some(parse_size_bytes(size)?),
            ("mode", text) => {
                mode = u32::from_str_radix(text, 8).map_err(|_| wrong(WHAT, text, "not an octal number"))?;
            }
            ("ro", "") => read_only = true,
            // Its mount is without devices and setuid anyway.
            ("rw" | "noexec" | "exec" | "nosuid" | "nodev" | "noatime" | "relatime", "") => {}
            _ => return Err(wrong(WHAT, text, format!("option is not supported: `{option}`"))),
        }
    }
    let target = check_target(WHAT, text, target)?;
    Ok(VolumeMount { source: MountSource::Tmpfs { size_bytes, mode }, target, read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(found: Result<VolumeMount>) -> String {
        match found {
            Ok(mount) => {
                let source = match mount.source {
                    MountSource::Bind { path, create } => format!("bind {path} {create}"),
                    MountSource::Volume { name, anonymous, copy } => {
                        format!("volume {name} {anonymous} {copy}")
                    }
                    MountSource::Tmpfs { size_bytes, mode } => format!("tmpfs {size_bytes:?} {mode:o}"),
                };
                format!("{source} {}{}", mount.target, if mount.read_only { " ro" } else { "" })
            }
            Err(ContainerError::OptionInvalid { reason, .. }) => format!("! {reason}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn volumes_parse() {
        let check = |text: &str, expect: &str| assert_eq!(show(parse_volume(text)), expect, "{text}");
        check("/a:/b", "bind /a true /b");
        check("/a:/b:ro", "bind /a true /b ro");
        check("./a:/b/", "bind ./a true /b");
        check("v:/b//c", "volume v false true /b/c");
        check("v:/b:nocopy,ro", "volume v false false /b ro");
        check("/b", "volume  true true /b");
        check("/b:ro", "volume  true true /b ro");
        check("v:b", "! the path in the container must be absolute");
        check("v:/", "! the destination cannot be `/`");
        check("v:/a/../..", "! the path in the container must not hold `..`");
        check("a:b:c:d", "! too many colons");
        check(":/b", "! no source");
        check("a/b:/c", "! a volume name holds no `/`; a path of the host begins with `/` or `.`");
        check("/a:/b:ro,rw", "! more than one of `ro` and `rw`");
        check("/a:/b:rshared", "! option is not supported: `rshared`");
    }

    #[test]
    fn mounts_parse() {
        let check = |text: &str, expect: &str| assert_eq!(show(parse_mount(text)), expect, "{text}");
        check("type=bind,source=/a,target=/b", "bind /a false /b");
        check("type=bind,src=/a,dst=/b,readonly", "bind /a false /b ro");
        check("type=bind,src=/a,dst=/b,ro=false", "bind /a false /b");
        check("type=bind,\"src=/a,b\",dst=/b", "bind /a,b false /b");
        check("type=volume,src=v,dst=/b,volume-nocopy", "volume v false false /b");
        check("dst=/b", "volume  true true /b");
        check("type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=700", "tmpfs Some(1048576) 700 /b");
        check("type=tmpfs,src=/a,dst=/b", "! a tmpfs has no source");
        check("type=bind,src=rel,dst=/b", "! the source must be an absolute path");
        check("type=bind,src=/a,dst=/b,foo=bar", "! unexpected key `foo`");
        check(
            "type=bind,src=/a,dst=/b,volume-nocopy",
            "! cannot mix `volume-*` options with mount type `bind`",
        );
        check("type=bind,src=/a,dst=/b,readonly=x", "! invalid value for readonly: x");
        check("type=bind,src=/a", "! target is required");
        check("", "! unexpected key ``");
    }

    #[test]
    fn tmpfs_parse() {
        let check = |text: &str, expect: &str| assert_eq!(show(parse_tmpfs(text)), expect, "{text}");
        check("/t", "tmpfs None 1777 /t");
        check("/t:size=64m,mode=755,noexec", "tmpfs Some(67108864) 755 /t");
        check("t", "! the path in the container must be absolute");
    }
}
