//! What a step used, as lines and as JSON.

use mica_trace::{Attributes, ListedKind, Record, TreeUse, Use, Value};
use mica_tree::Time;
use serde_json::json;

use crate::format::path::escaped;
use crate::format::verdict::grouped;
use crate::progress::printable;

/// The tree whose paths people know without a slash in front.
const CONTEXT: &str = "the build context";

/// In which way a path was used: the strongest of what was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum InputKind {
    /// The content of a file
    Read,
    /// The names in a directory
    List,
    /// Size, time, mode and owner only
    Stat,
    /// Where a symbolic link leads
    Link,
    /// That nothing is there
    Absent,
}

impl InputKind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Absent => Self::Absent,
            Value::Directory { listing: Some(_), .. } => Self::List,
            Value::File { content: Some(_), .. } => Self::Read,
            Value::Symlink { .. } => Self::Link,
            Value::Directory { .. } | Value::File { .. } | Value::Special { .. } => Self::Stat,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Stat => "stat",
            Self::Link => "link",
            Self::Absent => "absent",
        }
    }
}

/// One tree of a record, and what it is.
pub(crate) struct Tree<'a> {
    /// Empty for the step's own files, else `the build context`, `stage build`, ...
    pub place: &'a str,
    /// What was used of it.
    pub uses: &'a TreeUse,
}

impl Tree<'_> {
    fn path(&self, path: &[u8]) -> String {
        match (self.place == CONTEXT, path.is_empty()) {
            (true, true) => ".".to_owned(),
            (true, false) => escaped(path),
            (false, _) => format!("/{}", escaped(path)),
        }
    }

    fn wanted(&self, kinds: &[InputKind]) -> impl Iterator<Item = (InputKind, &Use)> {
        let uses = self.uses.uses.iter().map(|input| (InputKind::of(&input.value), input));
        uses.filter(move |(kind, _)| kinds.is_empty() || kinds.contains(kind))
    }
}

/// A line a path, below the name of the tree if it is not the step's own.
pub(crate) fn lines(tree: &Tree<'_>, kinds: &[InputKind]) -> String {
    let mut text = String::new();
    for (kind, input) in tree.wanted(kinds) {
        if text.is_empty() && !tree.place.is_empty() {
            text.push_str(&format!("{}:\n", printable(tree.place)));
        }
        text.push_str(&format!("{:<6} {}", kind.word(), tree.path(&input.path)));
        match &input.value {
            Value::Directory { listing: Some(names), .. } => {
                let noun = if names.len() == 1 { "name" } else { "names" };
                text.push_str(&format!(" ({} {noun})", grouped(names.len())));
            }
            Value::Symlink { target, .. } => text.push_str(&format!(" -> {}", escaped(target))),
            _ => {}
        }
        text.push('\n');
    }
    text
}

/// `353 files (333 read), 120 directories (14 listed), 12 links, 2,590 absent names, network: no`
pub(crate) fn summary(record: &Record, network: Option<bool>) -> String {
    let count = |is_meant: &dyn Fn(&Value) -> bool| {
        let uses = record.trees.iter().flat_map(|tree| &tree.uses);
        uses.filter(|input| is_meant(&input.value)).count()
    };
    let noun = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {many}", grouped(count)),
    };
    let mut parts = vec![
        format!(
            "{} ({} read)",
            noun(count(&|value| matches!(value, Value::File { .. })), "file", "files"),
            grouped(count(&|value| InputKind::of(value) == InputKind::Read))
        ),
        format!(
            "{} ({} listed)",
            noun(count(&|value| matches!(value, Value::Directory { .. })), "directory", "directories"),
            grouped(count(&|value| InputKind::of(value) == InputKind::List))
        ),
        noun(count(&|value| matches!(value, Value::Symlink { .. })), "link", "links"),
    ];
    let special = count(&|value| matches!(value, Value::Special { .. }));
    if special > 0 {
        parts.push(noun(special, "device, pipe or socket", "devices, pipes and sockets"));
    }
    parts.push(noun(count(&|value| *value == Value::Absent), "absent name", "absent names"));
    parts.push(match network {
        Some(true) => "network: yes".to_owned(),
        Some(false) => "network: no".to_owned(),
        None => "network: not watched".to_owned(),
    });
    parts.join(", ")
}

/// An object a path.
pub(crate) fn json(step: &str, tree: &Tree<'_>, kinds: &[InputKind]) -> Vec<serde_json::Value> {
    let object = |(kind, input): (InputKind, &Use)| {
        json!({
            "step": step,
            "place": tree.place,
            "path": tree.path(&input.path),
            "use": kind.word(),
            "value": value_json(&input.value),
        })
    };
    tree.wanted(kinds).map(object).collect()
}

fn value_json(value: &Value) -> serde_json::Value {
    let (kind, attributes) = match value {
        Value::Absent => return json!({ "type": "absent" }),
        Value::Directory { attributes, .. } => (ListedKind::Directory, attributes),
        Value::File { attributes, .. } => (ListedKind::File, attributes),
        Value::Symlink { attributes, .. } => (ListedKind::Symlink, attributes),
        Value::Special { attributes, kind, .. } => (*kind, attributes),
    };
    let Attributes { mode, uid, gid, xattrs } = attributes;
    let mut object =
        json!({ "type": kind_word(kind), "mode": format!("{mode:04o}"), "uid": uid, "gid": gid });
    let mut set = |name: &str, value: serde_json::Value| {
        if let Some(fields) = object.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    if let Some(xattrs) = xattrs {
        set("xattrs", json!(digest(xattrs)));
    }
    match value {
        Value::Directory { listing: Some(listing), .. } => {
            let names = listing.iter().map(|(name, kind)| (escaped(name), kind_word(*kind).into()));
            set("names", serde_json::Value::Object(names.collect()));
        }
        Value::File { size_bytes, mtime, names, content, .. } => {
            set("size_bytes", json!(size_bytes));
            // In a build context times do not count.
            if let Some(mtime) = mtime {
                set("mtime", json!(time(*mtime)));
            }
            if !names.is_empty() {
                set("hard_links", names.iter().map(|name| escaped(name)).collect());
            }
            if let Some(content) = content {
                set("content", json!(digest(content)));
            }
        }
        Value::Symlink { target, .. } => set("target", json!(escaped(target))),
        Value::Special { rdev: (major, minor), .. } => set("device", json!([major, minor])),
        Value::Absent | Value::Directory { listing: None, .. } => {}
    }
    object
}

fn kind_word(kind: ListedKind) -> &'static str {
    match kind {
        ListedKind::File => "file",
        ListedKind::Directory => "directory",
        ListedKind::Symlink => "symlink",
        ListedKind::CharDevice => "character_device",
        ListedKind::BlockDevice => "block_device",
        ListedKind::Fifo => "fifo",
        ListedKind::Socket => "socket",
    }
}

fn digest(bytes: &[u8; 32]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("blake3:{digits}")
}

/// RFC 3339 in UTC with all digits; a time that has no year there as seconds since 1970.
fn time(time: Time) -> String {
    match i32::try_from(time.nanoseconds).map(|nanoseconds| jiff::Timestamp::new(time.seconds, nanoseconds)) {
        Ok(Ok(timestamp)) => timestamp.to_string(),
        _ => time.seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> TreeUse {
        let attributes = Attributes { mode: 0o644, uid: 0, gid: 5, xattrs: None };
        let labelled = Attributes { xattrs: Some([1; 32]), ..attributes.clone() };
        let file = |content: Option<[u8; 32]>| Value::File {
            attributes: attributes.clone(),
            size_bytes: 7,
            mtime: content.is_none().then_some(Time { seconds: 0, nanoseconds: 500_000_000 }),
            names: content.iter().map(|_| b"bin/b\xff".to_vec()).collect(),
            content,
        };
        let names = vec![(b"x".to_vec(), ListedKind::File), (b"y\n".to_vec(), ListedKind::Fifo)];
        let listed = |listing| Value::Directory { attributes: attributes.clone(), listing };
        let uses = [
            (&b""[..], listed(Some(names))),
            (b"bin", listed(None)),
            (b"bin/a", file(None)),
            (b"bin/b\xff", file(Some([0xab; 32]))),
            (
                b"dev/null",
                Value::Special { attributes: labelled, kind: ListedKind::CharDevice, rdev: (1, 3) },
            ),
            (b"etc/no", Value::Absent),
            (b"lib64", Value::Symlink { attributes: attributes.clone(), target: b"usr/lib64\x1b".to_vec() }),
        ];
        TreeUse { uses: uses.map(|(path, value)| Use { path: path.to_vec(), value }).into() }
    }

    #[test]
    fn text() {
        let uses = tree();
        let check = |place: &str, kinds: &[InputKind], expect: &str| {
            assert_eq!(lines(&Tree { place, uses: &uses }, kinds), expect);
        };
        check(
            "",
            &[],
            "list   / (2 names)\nstat   /bin\nstat   /bin/a\nread   /bin/b\\xff\nstat   /dev/null\nabsent /etc/no\n\
             link   /lib64 -> usr/lib64\\x1b\n",
        );
        check("stage a", &[InputKind::Read], "stage a:\nread   /bin/b\\xff\n");
        check(
            CONTEXT,
            &[InputKind::List, InputKind::Absent],
            "the build context:\nlist   . (2 names)\nabsent etc/no\n",
        );
        let none = TreeUse::default();
        assert_eq!(lines(&Tree { place: "stage a", uses: &none }, &[]), "");
    }

    #[test]
    fn sums() {
        let check = |trees: Vec<TreeUse>, network: Option<bool>, expect: &str| {
            assert_eq!(summary(&Record { trees }, network), expect);
        };
        check(
            vec![tree(), tree()],
            Some(true),
            "4 files (2 read), 4 directories (2 listed), 2 links, 2 devices, pipes and sockets, 2 absent names, network: yes",
        );
        check(
            vec![],
            Some(false),
            "0 files (0 read), 0 directories (0 listed), 0 links, 0 absent names, network: no",
        );
        let absent = Use { path: b"a".to_vec(), value: Value::Absent };
        check(
            vec![TreeUse { uses: vec![absent; 2590] }],
            None,
            "0 files (0 read), 0 directories (0 listed), 0 links, 2,590 absent names, network: not watched",
        );
    }

    #[test]
    fn objects() {
        let uses = tree();
        let check = |kind: InputKind, expect: &[&str]| {
            let found = json("[2/2] RUN a", &Tree { place: "", uses: &uses }, &[kind]);
            let found: Vec<String> = found.iter().map(|object| object.to_string()).collect();
            let prefix = "{\"step\":\"[2/2] RUN a\",\"place\":\"\",\"path\":";
            assert_eq!(found, expect.iter().map(|rest| format!("{prefix}{rest}")).collect::<Vec<_>>());
        };
        let ab = "ab".repeat(32);
        check(
            InputKind::Read,
            &[&format!(
                r#""/bin/b\\xff","use":"read","value":{{"type":"file","mode":"0644","uid":0,"gid":5,"size_bytes":7,"hard_links":["bin/b\\xff"],"content":"blake3:{ab}"}}}}"#
            )],
        );
        check(
            InputKind::List,
            &[
                r#""/","use":"list","value":{"type":"directory","mode":"0644","uid":0,"gid":5,"names":{"x":"file","y\\x0a":"fifo"}}}"#,
            ],
        );
        check(InputKind::Absent, &[r#""/etc/no","use":"absent","value":{"type":"absent"}}"#]);
        check(
            InputKind::Link,
            &[
                r#""/lib64","use":"link","value":{"type":"symlink","mode":"0644","uid":0,"gid":5,"target":"usr/lib64\\x1b"}}"#,
            ],
        );
        let xattrs = "01".repeat(32);
        check(
            InputKind::Stat,
            &[
                r#""/bin","use":"stat","value":{"type":"directory","mode":"0644","uid":0,"gid":5}}"#,
                r#""/bin/a","use":"stat","value":{"type":"file","mode":"0644","uid":0,"gid":5,"size_bytes":7,"mtime":"1970-01-01T00:00:00.5Z"}}"#,
                &format!(
                    r#""/dev/null","use":"stat","value":{{"type":"character_device","mode":"0644","uid":0,"gid":5,"xattrs":"blake3:{xattrs}","device":[1,3]}}}}"#
                ),
            ],
        );
        assert_eq!(time(Time { seconds: i64::MAX, nanoseconds: 0 }), i64::MAX.to_string());
        assert_eq!(time(Time { seconds: 1, nanoseconds: u32::MAX }), "1");
    }
}
