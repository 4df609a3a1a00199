//! The platform that a command is asked for: its flag, else docker's variable.

use mica_oci::{Platform, PlatformError};

/// What docker's client looks at, in `build`, `pull`, `run` and `create`.
const VARIABLE: &str = "DOCKER_DEFAULT_PLATFORM";

/// Docker's default, if it is set.
pub(crate) fn default_platform() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())
}

/// The platform that is wanted; `None` where nobody said.
pub(crate) fn wanted_platform(flag: Option<&str>) -> Result<Option<Platform>, PlatformError> {
    let text = flag.map(str::to_owned).or_else(default_platform);
    text.as_deref().map(Platform::parse).transpose()
}
