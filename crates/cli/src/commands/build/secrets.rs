//! What steps are given beyond files: secrets, agents, rights.

use std::path::PathBuf;

use mica_build::{Entitlements, SECRET_BYTES_MAX, SecretPlace, SecretSource, SshSource};

use crate::advice::Advise;
use crate::error::CliError;

use super::args::Args;
use super::fields;

/// `--secret`. What is a file must be there, before anything is built.
pub(super) fn secrets(args: &Args) -> Result<Vec<SecretSource>, CliError> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let secrets: Vec<_> =
        args.secret.iter().map(|text| parse_secret(text, &is_set)).collect::<Result<_, _>>()?;
    for secret in &secrets {
        match &secret.place {
            SecretPlace::File(path) => check_file(&secret.id, path)?,
            SecretPlace::Variable(name) if !is_set(name) => {
                eprintln!("warning: secret `{}` is empty: the variable `{name}` is not set", secret.id);
            }
            SecretPlace::Variable(_) => {}
        }
    }
    Ok(secrets)
}

/// `id=NAME[,src=FILE|env=VARIABLE][,type=file|env]`, with docker's rules for what is left out: a variable of that name,
/// else a file of that name.
fn parse_secret(text: &str, is_set: &dyn Fn(&str) -> bool) -> Result<SecretSource, CliError> {
    let invalid = |why: String| {
        CliError::new(format!("invalid value `{text}` for `--secret`: {why}"))
            .hint("say `--secret id=NAME,src=FILE` or `--secret id=NAME,env=VARIABLE`")
    };
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for (key, value) in fields::pairs("--secret", text)? {
        match key.as_str() {
            "id" => id = Some(value),
            "source" | "src" => file = Some(value),
            "env" => variable = Some(value),
            "type" if value == "file" || value == "env" => kind = Some(value),
            "type" => return Err(invalid(format!("unknown type `{value}`"))),
            _ => return Err(invalid(format!("unknown key `{key}`"))),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Err(invalid("it has no `id`".to_owned())) };
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let (mut file, mut variable) = (given(file), given(variable));
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    let place = match (variable, file) {
        (Some(name), _) => SecretPlace::Variable(name),
        (None, Some(path)) => SecretPlace::File(path.into()),
        (None, None) if is_set(&id) => SecretPlace::Variable(id.clone()),
        (None, None) => SecretPlace::File(PathBuf::from(&id)),
    };
    Ok(SecretSource { id, place })
}

fn check_file(id: &str, path: &std::path::Path) -> Result<(), CliError> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(CliError::new(format!("secret `{id}`: `{shown}` is a directory")))
        }
        Ok(metadata) if metadata.len() > SECRET_BYTES_MAX => {
            Err(CliError::new(format!("secret `{id}`: `{shown}` is larger than 500 KiB")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::new(format!("cannot read secret `{id}` from `{shown}`: {error}"))),
    }
}

/// `--ssh`. Keys must be readable before anything is built.
pub(super) fn ssh(args: &Args) -> Result<Vec<SshSource>, CliError> {
    let agents: Vec<_> = args.ssh.iter().map(|text| parse_ssh(text)).collect();
    for agent in &agents {
        agent.open().map_err(|error| {
            let hint = error.advice();
            CliError { hint, ..CliError::new(format!("ssh agent `{}`: {}", agent.id, error.message())) }
        })?;
    }
    Ok(agents)
}

/// `NAME`, `NAME=SOCKET`, `NAME=KEY,KEY`
fn parse_ssh(text: &str) -> SshSource {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let paths = paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    SshSource { id: id.to_owned(), paths }
}

/// `--allow`
pub(super) fn entitlements(args: &Args) -> Result<Entitlements, CliError> {
    let mut allowed = Entitlements::default();
    for entitlement in args.allow.iter().flat_map(|text| text.split(',')) {
        match entitlement {
            "network.host" => allowed.network_host = true,
            "security.insecure" => allowed.security_insecure = true,
            other => {
                let what = format!("invalid value `{other}` for `--allow`");
                return Err(CliError::new(what).hint("use `network.host` or `security.insecure`"));
            }
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_as_docker_writes_them() {
        let check = |text: &str, id: &str, paths: &[&str]| {
            let paths = paths.iter().map(PathBuf::from).collect();
            assert_eq!(parse_ssh(text), SshSource { id: id.into(), paths }, "{text}");
        };
        check("default", "default", &[]);
        check("", "default", &[]);
        check("a=", "a", &[]);
        check("a=/run/s", "a", &["/run/s"]);
        check("a=k1,k=2", "a", &["k1", "k=2"]);
    }

    #[test]
    fn secrets_as_docker_writes_them() {
        let is_set = |name: &str| name == "TOKEN";
        let check = |text: &str, expect: Result<(&str, SecretPlace), &str>| match (
            parse_secret(text, &is_set),
            expect,
        ) {
            (Ok(found), Ok((id, place))) => {
                assert_eq!(found, SecretSource { id: id.into(), place }, "{text}");
            }
            (Err(found), Err(why)) => assert!(found.message.contains(why), "{text}: {}", found.message),
            (found, expect) => panic!("{text}: {found:?}, expected {expect:?}"),
        };
        let file = |path: &str| SecretPlace::File(path.into());
        let variable = |name: &str| SecretPlace::Variable(name.into());
        check("id=a,src=f", Ok(("a", file("f"))));
        check("ID=a,Source=f", Ok(("a", file("f"))));
        check("type=file,id=a,src=/x=y", Ok(("a", file("/x=y"))));
        check("id=a,env=V", Ok(("a", variable("V"))));
        check("id=a,src=f,env=V", Ok(("a", variable("V"))));
        check("type=env,id=a,src=V", Ok(("a", variable("V"))));
        check("id=TOKEN", Ok(("TOKEN", variable("TOKEN"))));
        check("type=file,id=TOKEN", Ok(("TOKEN", variable("TOKEN"))));
        check("id=a", Ok(("a", file("a"))));
        check("\"id=a\",\"src=b,c\"", Ok(("a", file("b,c"))));
        check("src=f", Err("it has no `id`"));
        check("id=,src=f", Err("it has no `id`"));
        check("id=a,type=vault", Err("unknown type `vault`"));
        check("id=a,file=f", Err("unknown key `file`"));
        check("a", Err("is not `key=value`"));
    }
}
