//! Capabilities by name and as a set of bits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A set of capabilities; bit n is capability n of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilitySet(pub u64);

/// Names in the order of their numbers, from include/uapi/linux/capability.h.
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl CapabilitySet {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// Every capability there is.
    pub const ALL: Self = Self(u64::MAX);
    /// The 14 that docker gives a container.
    pub const DEFAULT: Self = Self(0xa804_25fb);

    /// The set of one capability, by name with or without `CAP_`, in any case; `ALL` is every one.
    pub fn parse_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            return Some(Self::ALL);
        }
        NAMES.iter().position(|known| *known == bare).map(|number| Self(1 << number))
    }

    /// These and those.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are among these.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the named capability (without `CAP_`) is among these; an unknown name is not.
    pub fn has_name(self, name: &str) -> bool {
        Self::parse_name(name).is_some_and(|capability| self.has(capability))
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (number, name) in NAMES.iter().enumerate() {
            if self.0 & (1 << number) != 0 {
                write!(f, "{separator}CAP_{name}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers_fourteen() {
        assert_eq!(
            CapabilitySet::DEFAULT.to_string(),
            "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP \
             CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SYS_CHROOT CAP_MKNOD CAP_AUDIT_WRITE CAP_SETFCAP"
        );
    }

    #[test]
    fn names_are_read_with_and_without_prefix() {
        for (name, expected) in [
            ("CAP_CHOWN", Some(1)),
            ("chown", Some(1)),
            ("cap_sys_admin", Some(1 << 21)),
            ("all", Some(u64::MAX)),
            ("CAP_", None),
            ("nonsense", None),
        ] {
            assert_eq!(CapabilitySet::parse_name(name).map(|set| set.0), expected, "{name}");
        }
    }
}
