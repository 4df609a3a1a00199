//! What a test needs of the machine, and why it is skipped when that is absent.

use std::path::{Path, PathBuf};

use crate::is_root;

/// One thing that a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To be root.
    Root,
    /// To be an ordinary user with subordinate ids.
    Unprivileged,
    /// A program on the path.
    Tool(&'static str),
    /// The foreign test data.
    Corpus,
}

/// The first need that this machine does not meet, as the reason to print after `skipped: `.
pub fn missing(needs: &[Need]) -> Option<String> {
    needs.iter().find_map(|need| match need {
        Need::Root if !is_root() => Some("needs root".into()),
        Need::Unprivileged if is_root() => {
            Some("needs an unprivileged user (`cargo xtask test` runs it as one)".into())
        }
        Need::Tool(name) if find_tool(name).is_none() => Some(format!("`{name}` is not installed")),
        Need::Corpus if corpus().is_none() => Some("corpus is absent".into()),
        _ => None,
    })
}

/// Where a program is, on the path or where distributions put what only root runs.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| Path::new(dir).join(name))
        .find(|candidate| candidate.is_file())
}

/// The foreign test data: `MICA_CORPUS`, or the folder beside the checkout.
pub fn corpus() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus");
    let dir = std::env::var_os("MICA_CORPUS").map(PathBuf::from).unwrap_or_else(|| beside.into());
    dir.join("README.md").is_file().then_some(dir)
}

/// The examples: `MICA_EXAMPLES`, or the folder of the checkout.
pub fn examples() -> PathBuf {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    std::env::var_os("MICA_EXAMPLES").map_or_else(|| PathBuf::from(own), PathBuf::from)
}
