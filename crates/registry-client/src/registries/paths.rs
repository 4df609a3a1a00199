//! Where settings about registries are looked for.

use std::path::PathBuf;

/// Files and directories of settings, each list in the order in which it is read. None of them need be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// containers-registries.conf(5) files: the first that is there is read, and no other.
    pub registries_conf: Vec<PathBuf>,
    /// The variable that names the one file, if one does: then it must be there.
    pub registries_conf_named_by: Option<&'static str>,
    /// Directories of drop-ins for it; later ones count more.
    pub registries_conf_d: Vec<PathBuf>,
    /// The user's own drop-ins are the last of `registries_conf_d`, and the only ones if this file is the one that is read.
    pub registries_conf_of_user: Option<PathBuf>,
    /// Directories that hold one directory a registry: `hosts.toml` (the first that is found counts) and certificates (all
    /// of them count).
    pub certs_d: Vec<PathBuf>,
    /// docker's `daemon.json`; all of them count.
    pub docker_daemon: Vec<PathBuf>,
}

impl Paths {
    /// Those of this machine and user, the user's first: podman's, containerd's and docker's own places.
    /// `CONTAINERS_REGISTRIES_CONF` names another registries.conf; `HOME` and `XDG_CONFIG_HOME` are where the user's are.
    pub fn of_user() -> Paths {
        Paths::of_environment(|name| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        })
    }

    fn of_environment(variable: impl Fn(&str) -> Option<PathBuf>) -> Paths {
        let home = variable("HOME").filter(|path| path.is_absolute());
        let config = variable("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| home.as_ref().map(|home| home.join(".config")));
        let of_user = |name: &str| config.as_ref().map(|config| config.join(name));
        let of_system = |name: &str| Some(PathBuf::from("/etc").join(name));
        let list = |paths: &[Option<PathBuf>]| paths.iter().flatten().cloned().collect::<Vec<_>>();
        let given = ["CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH"];
        let given = given.into_iter().find_map(|name| Some((name, variable(name)?)));
        let user_conf = of_user("containers/registries.conf");
        Paths {
            registries_conf_named_by: given.as_ref().map(|(name, _)| *name),
            registries_conf: match given {
                Some((_, path)) => vec![path],
                None => list(&[user_conf.clone(), of_system("containers/registries.conf")]),
            },
            registries_conf_d: list(&[
                of_system("containers/registries.conf.d"),
                of_user("containers/registries.conf.d"),
            ]),
            registries_conf_of_user: user_conf,
            certs_d: list(&[
                of_user("containers/certs.d"),
                of_user("containerd/certs.d"),
                of_user("docker/certs.d"),
                home.as_ref().map(|home| home.join(".docker/certs.d")),
                of_system("containers/certs.d"),
                of_system("containerd/certs.d"),
                of_system("docker/certs.d"),
            ]),
            docker_daemon: list(&[of_user("docker/daemon.json"), of_system("docker/daemon.json")]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_where() {
        let check = |environment: &[(&str, &str)], confs: &[&str], certs_first: &str| {
            let paths = Paths::of_environment(|name| {
                environment.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
            });
            let found: Vec<_> = paths.registries_conf.iter().map(|path| path.to_str().unwrap()).collect();
            assert_eq!(found, confs, "{environment:?}");
            assert_eq!(paths.certs_d[0].to_str().unwrap(), certs_first, "{environment:?}");
        };
        let etc = "/etc/containers/registries.conf";
        check(&[], &[etc], "/etc/containers/certs.d");
        check(
            &[("HOME", "/h")],
            &["/h/.config/containers/registries.conf", etc],
            "/h/.config/containers/certs.d",
        );
        check(
            &[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")],
            &["/c/containers/registries.conf", etc],
            "/c/containers/certs.d",
        );
        check(&[("HOME", "relative")], &[etc], "/etc/containers/certs.d");
        check(
            &[("HOME", "/h"), ("CONTAINERS_REGISTRIES_CONF", "/x")],
            &["/x"],
            "/h/.config/containers/certs.d",
        );
        check(&[("REGISTRIES_CONFIG_PATH", "/y")], &["/y"], "/etc/containers/certs.d");
    }
}
