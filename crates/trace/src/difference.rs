//! The first thing of a record that does not hold any more.

use mica_tree::Time;

/// A path whose value changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Position in [`crate::Record::trees`].
    pub tree: usize,
    /// Which path, as in an index.
    pub path: Vec<u8>,
    /// What of it.
    pub change: Change,
}

/// What of a path changed, from the recorded to the present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was absent and is there.
    Appeared,
    /// It was there and is gone.
    Disappeared,
    /// It is another kind of thing.
    Kind {
        /// In words: `file`, `directory`, `symbolic link`, ...
        old: &'static str,
        /// In words.
        new: &'static str,
    },
    /// The content of a file that was read, by BLAKE3.
    Content {
        /// Then.
        old: [u8; 32],
        /// Now.
        new: [u8; 32],
    },
    /// The size of a file that was not read.
    Size {
        /// Then.
        old: u64,
        /// Now.
        new: u64,
    },
    /// The time of last change of a file.
    Time {
        /// Then.
        old: Time,
        /// Now.
        new: Time,
    },
    /// Permission bits.
    Mode {
        /// Then.
        old: u32,
        /// Now.
        new: u32,
    },
    /// Owner and group.
    Owner {
        /// Then.
        old: (u32, u32),
        /// Now.
        new: (u32, u32),
    },
    /// Extended attributes.
    Xattrs,
    /// The names in a directory that was listed: the first that is new or gone, or is another kind of thing now.
    Listing {
        /// The name.
        name: Vec<u8>,
        /// Whether it was there.
        was_there: bool,
        /// Whether it is there now.
        is_there: bool,
    },
    /// What a symbolic link says.
    Target {
        /// Then.
        old: Vec<u8>,
        /// Now.
        new: Vec<u8>,
    },
    /// Which other names the file has.
    Names,
    /// The numbers of a device.
    Device,
    /// The content could not be read now, so nothing can be said of it.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl Change {
    /// One or two words for a short line.
    pub fn what(&self) -> &'static str {
        match self {
            Change::Appeared => "new",
            Change::Disappeared => "gone",
            Change::Kind { .. } => "another kind",
            Change::Content { .. } => "changed",
            Change::Size { .. } => "changed",
            Change::Time { .. } => "time changed",
            Change::Mode { .. } => "mode changed",
            Change::Owner { .. } => "owner changed",
            Change::Xattrs => "extended attributes changed",
            Change::Listing { was_there: false, .. } => "new name",
            Change::Listing { is_there: false, .. } => "name gone",
            Change::Listing { .. } => "name of another kind",
            Change::Target { .. } => "target changed",
            Change::Names => "other names changed",
            Change::Device => "another device",
            Change::Unreadable { .. } => "unreadable",
        }
    }

    /// What was there, empty when there is nothing to say.
    pub fn old_in_words(&self) -> String {
        match self {
            Change::Kind { old, .. } => (*old).to_owned(),
            Change::Content { old, .. } => digest_in_words(old),
            Change::Size { old, .. } => size_in_words(*old),
            Change::Time { old, .. } => time_in_words(*old),
            Change::Mode { old, .. } => mode_in_words(*old),
            Change::Owner { old, .. } => owner_in_words(*old),
            Change::Target { old, .. } => String::from_utf8_lossy(old).into_owned(),
            Change::Listing { name, was_there: true, .. } => String::from_utf8_lossy(name).into_owned(),
            _ => String::new(),
        }
    }

    /// What is there now, empty when there is nothing to say.
    pub fn new_in_words(&self) -> String {
        match self {
            Change::Kind { new, .. } => (*new).to_owned(),
            Change::Content { new, .. } => digest_in_words(new),
            Change::Size { new, .. } => size_in_words(*new),
            Change::Time { new, .. } => time_in_words(*new),
            Change::Mode { new, .. } => mode_in_words(*new),
            Change::Owner { new, .. } => owner_in_words(*new),
            Change::Target { new, .. } => String::from_utf8_lossy(new).into_owned(),
            Change::Listing { name, is_there: true, .. } => String::from_utf8_lossy(name).into_owned(),
            Change::Unreadable { reason } => reason.clone(),
            _ => String::new(),
        }
    }
}

fn digest_in_words(digest: &[u8; 32]) -> String {
    let hex = blake3::Hash::from_bytes(*digest).to_hex();
    format!("blake3:{}", &hex[..12])
}

fn size_in_words(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        bytes => format!("{bytes} bytes"),
    }
}

fn mode_in_words(mode: u32) -> String {
    format!("{mode:04o}")
}

fn owner_in_words((uid, gid): (u32, u32)) -> String {
    format!("{uid}:{gid}")
}

/// As RFC 3339; seconds since 1970 where the year has more than four digits.
fn time_in_words(time: Time) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or_default();
    match jiff::Timestamp::new(time.seconds, nanoseconds) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => time.seconds.to_string(),
    }
}
