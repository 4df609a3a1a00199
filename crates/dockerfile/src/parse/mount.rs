//! `--mount=` of RUN.

use crate::expand::ExpandError;
use crate::fields::split_fields;
use crate::instruction::{CacheSharing, RunMount, RunMountKind};
use crate::suggest::suggest;

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// Why a mount is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Quotes that do not fit together.
    #[error("invalid quotes in mount `{text}`")]
    Quotes {
        /// The whole value.
        text: String,
    },
    /// `typ=tmpfs`
    #[error("unexpected key `{key}` in `{field}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// Key and value.
        field: String,
    },
    /// `size=` of a cache, `required` of a bind.
    #[error("unexpected key `{key}` for mount type `{kind}`")]
    KeyOfOtherKind {
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// `z`
    #[error("invalid field `{field}` must be a key=value pair")]
    NoValue {
        /// As written.
        field: String,
    },
    /// `type=volume`
    #[error("unsupported mount type `{value}`")]
    Kind {
        /// As written.
        value: String,
    },
    /// `sharing=all`
    #[error("unsupported sharing `{value}`")]
    Sharing {
        /// As written.
        value: String,
    },
    /// `uid=root`
    #[error("invalid value of `{key}`: `{value}`")]
    Value {
        /// The key.
        key: String,
        /// As written.
        value: String,
    },
    /// `from=$STAGE`
    #[error("variables are not expanded in `from`")]
    VariableInFrom,
    /// `type=secret` alone.
    #[error("secret mount needs an id, a source or a target")]
    SecretWithoutId,
    /// `type=secret,source=a,id=b`
    #[error("secret mount with both source and id")]
    SecretWithSourceAndId,
    /// A variable that cannot be expanded.
    #[error("cannot expand `{value}`: {error}")]
    Expand {
        /// As written.
        value: String,
        /// Why.
        error: ExpandError,
    },
}

impl MountError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let did_you_mean = |meant: Option<&str>| meant.map(|meant| format!("did you mean `{meant}`?"));
        match self {
            Self::UnknownKey { key, .. } => did_you_mean(suggest(key, &KEYS)),
            Self::Kind { value } => did_you_mean(suggest(value, &KINDS))
                .or_else(|| Some("use bind, cache, tmpfs, secret or ssh".to_owned())),
            Self::Sharing { value } => did_you_mean(suggest(value, &["shared", "private", "locked"]))
                .or_else(|| Some("use shared, private or locked".to_owned())),
            Self::VariableInFrom => {
                Some("define a stage with `FROM ${VARIABLE} AS name` and use its name".to_owned())
            }
            _ => None,
        }
    }
}

/// Parses a mount as it stands in the Dockerfile. Values that hold variables are not looked at yet: text is kept as
/// written, and typed options keep their defaults until [`parse_run_mount`] is called with values at hand.
pub(super) fn parse_literal_mount(text: &str) -> Result<RunMount, MountError> {
    parse(text, &|value| Ok(if value.contains('$') { None } else { Some(value.to_owned()) }))
}

/// Parses a mount, expanding each value but `from`.
pub fn parse_run_mount(
    text: &str,
    expand: &dyn Fn(&str) -> Result<String, ExpandError>,
) -> Result<RunMount, MountError> {
    parse(text, &|value| expand(value).map(Some))
}

/// The expander gives `None` for a value that is to be left for later.
fn parse(
    text: &str,
    expand: &dyn Fn(&str) -> Result<Option<String>, ExpandError>,
) -> Result<RunMount, MountError> {
    let mut mount = RunMount {
        kind: RunMountKind::Bind,
        target: None,
        source: None,
        from: None,
        id: None,
        read_only: true,
        sharing: CacheSharing::Shared,
        required: false,
        env: None,
        mode: None,
        uid: None,
        gid: None,
        size_bytes: None,
        text: text.to_owned(),
    };
    let mut read_only = None;
    let mut sharing = None;
    let mut required = None;
    let mut kind_is_known = true;
    let fields = split_fields(text).map_err(|_| MountError::Quotes { text: text.to_owned() })?;
    for field in &fields {
        let (key, written) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let key = key.as_str();
        let Some(written) = written else {
            match key {
                "readonly" | "ro" => read_only = Some(true),
                "readwrite" | "rw" => read_only = Some(false),
                "required" => required = Some(true),
                _ => return Err(MountError::NoValue { field: field.clone() }),
            }
            continue;
        };
        if key != "size" && !KEYS.contains(&key) {
            return Err(MountError::UnknownKey { key: key.to_owned(), field: field.clone() });
        }
        if key == "from" {
            if written.contains('$') && !written.ends_with('$') {
                return Err(MountError::VariableInFrom);
            }
            mount.from = Some(written.to_owned()).filter(|from| !from.is_empty());
            continue;
        }
        let expanded =
            expand(written).map_err(|error| MountError::Expand { value: written.to_owned(), error })?;
        let is_text = ["source", "src", "target", "dst", "destination", "id", "env"].contains(&key);
        let Some(value) = expanded.or_else(|| is_text.then(|| written.to_owned())) else {
            kind_is_known &= key != "type";
            continue;
        };
        let invalid = || MountError::Value { key: key.to_owned(), value: value.clone() };
        let flag = || parse_bool(&value).ok_or_else(invalid);
        let number = |radix| u32::from_str_radix(&value, radix).map_err(|_| invalid());
        match key {
            "type" => {
                mount.kind = match value.to_ascii_lowercase().as_str() {
                    "bind" => RunMountKind::Bind,
                    "cache" => RunMountKind::Cache,
                    "tmpfs" => RunMountKind::Tmpfs,
                    "secret" => RunMountKind::Secret,
                    "ssh" => RunMountKind::Ssh,
                    _ => return Err(MountError::Kind { value }),
                }
            }
            "source" | "src" => mount.source = Some(value),
            "target" | "dst" | "destination" => mount.target = Some(value),
            "id" => mount.id = Some(value),
            "env" => mount.env = Some(value),
            "readonly" | "ro" => read_only = Some(flag()?),
            "readwrite" | "rw" => read_only = Some(!flag()?),
            "required" => required = Some(flag()?),
            "sharing" => {
                sharing = Some(match value.to_ascii_lowercase().as_str() {
                    "shared" => CacheSharing::Shared,
                    "private" => CacheSharing::Private,
                    "locked" => CacheSharing::Locked,
                    _ => return Err(MountError::Sharing { value }),
                });
            }
            "mode" => mount.mode = Some(number(8)?),
            "uid" => mount.uid = Some(number(10)?),
            "gid" => mount.gid = Some(number(10)?),
            "size" => mount.size_bytes = Some(parse_size_bytes(&value).ok_or_else(invalid)?),
            _ => {}
        }
    }
    if kind_is_known {
        check_keys(&mount, sharing.is_some(), required.is_some())?;
    }
    mount.read_only = read_only.unwrap_or(!matches!(mount.kind, RunMountKind::Cache | RunMountKind::Tmpfs));
    mount.sharing = sharing.unwrap_or(CacheSharing::Shared);
    mount.required = required.unwrap_or(false);
    Ok(mount)
}

/// Options that only some types know.
fn check_keys(mount: &RunMount, sharing: bool, required: bool) -> Result<(), MountError> {
    let (kind, is_secret, is_ssh, is_cache) = match mount.kind {
        RunMountKind::Bind => ("bind", false, false, false),
        RunMountKind::Cache => ("cache", false, false, true),
        RunMountKind::Tmpfs => ("tmpfs", false, false, false),
        RunMountKind::Secret => ("secret", true, false, false),
        RunMountKind::Ssh => ("ssh", false, true, false),
    };
    let has_owner = is_secret || is_ssh || is_cache;
    let wrong = [
        ("mode", mount.mode.is_some() && !has_owner),
        ("uid", mount.uid.is_some() && !has_owner),
        ("gid", mount.gid.is_some() && !has_owner),
        ("size", mount.size_bytes.is_some() && mount.kind != RunMountKind::Tmpfs),
        ("sharing", sharing && !is_cache),
        ("required", required && !(is_secret || is_ssh)),
        ("from", mount.from.is_some() && is_secret),
        ("env", mount.env.is_some() && !is_secret),
    ];
    if let Some((key, _)) = wrong.into_iter().find(|(_, wrong)| *wrong) {
        return Err(MountError::KeyOfOtherKind { key, kind });
    }
    if is_secret {
        let given = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
        match (given(&mount.source), given(&mount.id), given(&mount.target)) {
            (true, true, _) => return Err(MountError::SecretWithSourceAndId),
            (false, false, false) => return Err(MountError::SecretWithoutId),
            _ => {}
        }
    }
    Ok(())
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `64m`, `1.5GiB`, `2 kb`: units of 1024, as docker reads sizes.
fn parse_size_bytes(text: &str) -> Option<u64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))?;
    let (number, unit) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number).replace('_', "");
    let number = number.parse::<f64>().ok()?;
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    (bytes >= 0.0 && bytes < 2_f64.powi(63)).then_some(bytes as u64)
}
