//! How absent things are read: as Go's decoder reads them, because the documents come from Go programs.
//!
//! To those, `null`, the empty value and absence are the same for nearly every field, and old images are full of
//! `"Labels":null`.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's default.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads `null` and the empty string as `None`.
pub(crate) fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Whether nothing would be written for this text.
pub(crate) fn is_blank(text: &Option<String>) -> bool {
    text.as_deref().is_none_or(str::is_empty)
}

/// Whether nothing would be written for this list: neither an absent nor an empty one is written.
pub(crate) fn is_empty_list(list: &Option<Vec<String>>) -> bool {
    list.as_deref().is_none_or(<[String]>::is_empty)
}

/// Whether a number has the value that is not written.
pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Whether a flag has the value that is not written.
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}
