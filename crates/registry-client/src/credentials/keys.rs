//! The keys of logins: one registry has many spellings, and a key may be about a part of it.

use crate::registries::registry_of;

/// The key that docker has for Docker Hub.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What helpers know a registry as: docker's spelling, and podman's where it is another.
pub(crate) fn servers(registry: &str) -> Vec<String> {
    let mut servers = vec![docker_key(registry).to_owned(), registry.to_owned()];
    servers.dedup();
    servers
}

/// How well a key fits: the length of the part that it is about, whether it is docker's spelling, whether it is podman's.
pub(crate) type Fit = (usize, bool, bool);

/// How docker spells the key of a registry.
pub(crate) fn docker_key(registry: &str) -> &str {
    if registry == mica_oci::reference::DEFAULT_REGISTRY { HUB_KEY } else { registry }
}

/// How well a key of a file fits a repository; the greatest is taken. `None` if it is about something else.
///
/// docker writes the host alone, and Docker Hub as a URL; older tools write URLs with `/v1/` or `/v2/`; podman also writes
/// `host/namespace` and `host/namespace/repository`, which are about what is below them alone. After a scheme, a path says
/// nothing: docker ignores it.
pub(crate) fn fit(key: &str, registry: &str, repository: &str) -> Option<Fit> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    if registry_of(key).ok()? != registry {
        return None;
    }
    let path = bare.unwrap_or(key).split_once('/').map_or("", |(_, path)| path).trim_end_matches('/');
    let path = if bare.is_some() || matches!(path, "v1" | "v2") { "" } else { path };
    let rest = match path {
        "" => Some(""),
        path => repository.strip_prefix(path).filter(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    rest.map(|_| (path.len(), key == docker_key(registry), key == registry))
}

/// Whether a key is about a registry as a whole, in whatever spelling.
pub(crate) fn is_whole(key: &str, registry: &str) -> bool {
    fit(key, registry, "").is_some()
}
