//! How values look: tables, sizes, ages, and templates of the user.

pub(crate) mod ago;
pub(crate) mod comparison;
pub(crate) mod findings;
pub(crate) mod inputs;
pub(crate) mod listing;
pub(crate) mod output;
pub(crate) mod path;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod template;
mod template_value;
pub(crate) mod timings;
pub(crate) mod verdict;
