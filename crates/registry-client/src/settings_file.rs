//! Settings files as others wrote them: read within bounds, with the line of every value for the errors.
//!
//! No error says what a value was where it can be a secret (headers, passwords).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use toml::de::{DeArray, DeTable, DeValue};

use crate::error::{RegistryError, Result, SettingsProblem};

/// Settings are written by hand or by small tools: what is larger is something else.
pub(crate) const SIZE_BYTES_MAX: u64 = 1 << 20;

/// Names of a directory of settings that are looked at.
const NAMES_MAX: usize = 10_000;

/// A place in a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file.
    pub path: PathBuf,
    /// Its line, from 1.
    pub line: usize,
}

impl Place {
    /// What is wrong here.
    pub fn error(&self, problem: SettingsProblem) -> RegistryError {
        RegistryError::Settings { path: self.path.clone(), line: Some(self.line), problem }
    }
}

/// The text of a settings file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    let problem = |problem| RegistryError::Settings { path: path.to_owned(), line: None, problem };
    let failed = |call, error: io::Error| match is_absence(&error) {
        true => Ok(None),
        false => Err(RegistryError::Sys(mica_sys::Error::new(call, path, error))),
    };
    // NONBLOCK: whatever stands at the path, a fifo or a terminal must not make us wait.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) => return failed("open", error),
    };
    let kind = match file.metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) => return failed("fstat", error),
    };
    // `/dev/null` is how people say "no settings".
    if kind.is_dir() || std::os::unix::fs::FileTypeExt::is_fifo(&kind) {
        return Err(problem(SettingsProblem::NotAFile));
    }
    let mut bytes = Vec::new();
    if let Err(error) = file.take(SIZE_BYTES_MAX + 1).read_to_end(&mut bytes) {
        return failed("read", error);
    }
    if bytes.len() as u64 > SIZE_BYTES_MAX {
        return Err(problem(SettingsProblem::TooLarge { size_bytes_max: SIZE_BYTES_MAX }));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| problem(SettingsProblem::NotUtf8))
}

/// Names in a directory, sorted; none if it is not there.
pub(crate) fn names(dir: &Path) -> Result<Vec<OsString>> {
    let failed = |error: io::Error| RegistryError::Sys(mica_sys::Error::new("readdir", dir, error));
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let names = entries.take(NAMES_MAX).map(|entry| Ok(entry.map_err(failed)?.file_name()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Nothing is there.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A TOML file.
#[derive(Debug)]
pub(crate) struct TomlFile {
    path: PathBuf,
    text: String,
    /// Where its lines end.
    line_ends: Vec<usize>,
}

impl TomlFile {
    /// The file, if there is one.
    pub fn read(path: &Path) -> Result<Option<TomlFile>> {
        Ok(read(path)?.map(|text| TomlFile {
            path: path.to_owned(),
            line_ends: text.match_indices('\n').map(|(offset, _)| offset).collect(),
            text,
        }))
    }

    /// Gives the root table to `take`.
    pub fn parse<T>(&self, take: impl FnOnce(Table<'_>) -> Result<T>) -> Result<T> {
        let root = DeTable::parse(&self.text).map_err(|error| RegistryError::Settings {
            path: self.path.clone(),
            line: error.span().map(|span| self.line(span.start)),
            problem: SettingsProblem::Syntax { format: "TOML", message: error.message().replace('\n', ", ") },
        })?;
        take(Table { file: self, table: root.get_ref(), start: 0 })
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    fn place(&self, offset: usize) -> Place {
        Place { path: self.path.clone(), line: self.line(offset) }
    }
}

/// A table of a TOML file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    file: &'a TomlFile,
    table: &'a DeTable<'a>,
    start: usize,
}

/// A value of a TOML file and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a> {
    file: &'a TomlFile,
    value: &'a DeValue<'a>,
    start: usize,
    key: &'a str,
}

impl<'a> Table<'a> {
    /// Where it stands.
    pub fn place(&self) -> Place {
        self.file.place(self.start)
    }

    /// A value, if the table has it.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(name, value)| Value {
            file: self.file,
            value: value.get_ref(),
            start: value.span().start,
            key: name.get_ref().as_ref(),
        })
    }

    /// All keys and values in the order of the file.
    pub fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let mut entries: Vec<_> = (self.table.iter())
            .map(|(name, value)| {
                let key = name.get_ref().as_ref();
                let start = value.span().start;
                (name.span().start, key, Value { file: self.file, value: value.get_ref(), start, key })
            })
            .collect();
        entries.sort_by_key(|(start, ..)| *start);
        entries.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    /// A text.
    pub fn string(&self, key: &str) -> Result<Option<(&'a str, Place)>> {
        self.get(key).map(|value| Ok((value.string()?, value.place()))).transpose()
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.value.as_bool().map(Some).ok_or_else(|| value.wrong("true or false"))
    }

    /// An array of texts.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<(&'a str, Place)>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.items().ok_or_else(|| value.wrong("an array of strings"))?;
        items.iter().map(|item| Ok((item.string()?, item.place()))).collect::<Result<_>>().map(Some)
    }

    /// An array of tables; empty if there is none.
    pub fn tables(&self, key: &str) -> Result<Vec<Table<'a>>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let items = value.items().ok_or_else(|| value.wrong("an array of tables"))?;
        items.iter().map(Value::table).collect()
    }
}

impl<'a> Value<'a> {
    /// Where it stands.
    pub fn place(&self) -> Place {
        self.file.place(self.start)
    }

    /// It is of another type than it must be.
    pub fn wrong(&self, expected: &'static str) -> RegistryError {
        self.place().error(SettingsProblem::WrongType { key: self.key.to_owned(), expected })
    }

    /// A text.
    pub fn string(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.wrong("a string"))
    }

    /// A table.
    pub fn table(&self) -> Result<Table<'a>> {
        let table = self.value.as_table().ok_or_else(|| self.wrong("a table"))?;
        Ok(Table { file: self.file, table, start: self.start })
    }

    /// The values of an array; `None` if it is none.
    pub fn items(&self) -> Option<Vec<Value<'a>>> {
        let array: &'a DeArray<'a> = self.value.as_array()?;
        let item = |item: &'a toml::Spanned<DeValue<'a>>| Value {
            value: item.get_ref(),
            start: item.span().start,
            ..*self
        };
        Some(array.iter().map(item).collect())
    }
}
