//! What a container runs, from what the image says and what the user gives. Pure; the rules are docker's.

use crate::error::{ContainerError, Result};

/// Command and arguments. `entrypoint` of the user clears the image's CMD; given arguments replace CMD.
pub fn command(
    image_entrypoint: &[String],
    image_cmd: &[String],
    entrypoint: Option<&str>,
    arguments: &[String],
) -> Result<Vec<String>> {
    let mut argv: Vec<String> = match entrypoint {
        None => image_entrypoint.to_vec(),
        Some("") => Vec::new(),
        Some(entrypoint) => vec![entrypoint.to_owned()],
    };
    if !arguments.is_empty() {
        argv.extend_from_slice(arguments);
    } else if entrypoint.is_none() {
        argv.extend_from_slice(image_cmd);
    }
    if argv.is_empty() { Err(ContainerError::CommandMissing) } else { Ok(argv) }
}

/// The environment: docker's own, then the image's, then the user's; a later value takes the earlier one's place.
/// A name of the user's without `=` takes the value from `host`, or removes the variable.
pub fn environment(
    image: &[String],
    user: &[String],
    hostname: &str,
    terminal: bool,
    host: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut env = vec![format!("PATH={}", mica_runtime::spec::DEFAULT_PATH), format!("HOSTNAME={hostname}")];
    if terminal {
        env.push("TERM=xterm".to_owned());
    }
    for variable in image {
        set(&mut env, variable);
    }
    for variable in user {
        if variable.contains('=') {
            set(&mut env, variable);
        } else if let Some(value) = host(variable) {
            set(&mut env, &format!("{variable}={value}"));
        } else {
            env.retain(|known| name_of(known) != variable);
        }
    }
    env
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

fn set(env: &mut Vec<String>, variable: &str) {
    match env.iter_mut().find(|known| name_of(known) == name_of(variable)) {
        Some(known) => variable.clone_into(known),
        None => env.push(variable.to_owned()),
    }
}

/// Checks `-e`.
pub fn check_variable(variable: &str) -> Result<()> {
    if name_of(variable).is_empty() {
        return Err(ContainerError::OptionInvalid {
            what: "environment variable",
            value: variable.to_owned(),
            reason: "no name".to_owned(),
        });
    }
    Ok(())
}

/// The variables of an `--env-file`, or the labels of a `--label-file`: one a line; `#` begins a comment line.
pub fn parse_variable_file(file: &str, text: &str) -> Result<Vec<String>> {
    let wrong = |line: &str, reason: &str| ContainerError::OptionInvalid {
        what: "line of file",
        value: format!("{file}: {line}"),
        reason: reason.to_owned(),
    };
    let mut variables = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, _) = line.split_once('=').unwrap_or((line, ""));
        if name.is_empty() {
            return Err(wrong(line, "no variable name"));
        }
        if name.contains(char::is_whitespace) {
            return Err(wrong(line, "the name contains whitespace"));
        }
        variables.push(line.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn commands_are_put_together_as_docker_does() {
        let check = |image_entrypoint, image_cmd, entrypoint, arguments, expect: &str| {
            let found = command(&words(image_entrypoint), &words(image_cmd), entrypoint, &words(arguments));
            let found = found.map_or_else(|error| error.to_string(), |argv| argv.join(" "));
            assert_eq!(found, expect);
        };
        check("", "sh", None, "", "sh");
        check("", "sh", None, "echo a", "echo a");
        check("ls -a", "b", None, "", "ls -a b");
        check("ls -a", "b", None, "c", "ls -a c");
        check("ls -a", "b", Some("cat"), "", "cat");
        check("ls -a", "b", Some("cat"), "c", "cat c");
        check("ls -a", "b", Some(""), "c", "c");
        check("ls -a", "b", Some(""), "", "no command specified");
        check("", "", None, "", "no command specified");
    }

    #[test]
    fn environments_are_merged_in_order() {
        let host = |name: &str| (name == "FROM_HOST").then(|| "h".to_owned());
        let env =
            environment(&words("A=1 PATH=/p B=2"), &words("B=3 C=4 A FROM_HOST ABSENT"), "name", true, host);
        assert_eq!(env, words("PATH=/p HOSTNAME=name TERM=xterm B=3 C=4 FROM_HOST=h"));
    }

    #[test]
    fn variable_files_are_docker_s() {
        let check = |text: &str, expect: std::result::Result<&[&str], &str>| {
            let found = parse_variable_file("f", text).map_err(|error| error.to_string());
            let found = found.as_ref().map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found.map_err(String::as_str), expect.map(<[&str]>::to_vec), "{text:?}");
        };
        check(
            "# c\nA=1\nB= two \n  C=3\nD\nE=\"q\"\nF=a=b\n\nG=\n",
            Ok(&["A=1", "B= two ", "C=3", "D", "E=\"q\"", "F=a=b", "G="]),
        );
        check("=x", Err("invalid line of file: `f: =x`: no variable name"));
        check("A B=1", Err("invalid line of file: `f: A B=1`: the name contains whitespace"));
    }
}
