//! Changes of an image config as `--change` of `import` and `commit` has them: single instructions of a Dockerfile.

use mica_oci::{Empty, Healthcheck, ImageConfig};

/// A change that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The first word is none of the instructions that change a config.
    #[error("`{keyword}` is not a valid change command")]
    Keyword {
        /// It.
        keyword: String,
    },
    /// What follows the first word is not what it needs.
    #[error("{keyword} {reason}: `{arguments}`")]
    Arguments {
        /// The instruction.
        keyword: String,
        /// What it needs.
        reason: &'static str,
        /// What was given.
        arguments: String,
    },
}

const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies one instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, MAINTAINER, ONBUILD, SHELL, STOPSIGNAL, USER,
/// VOLUME or WORKDIR.
pub fn apply_change(image: &mut ImageConfig, change: &str) -> Result<(), ChangeError> {
    let change = change.trim();
    let (keyword, arguments) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let (keyword, arguments) = (keyword.to_ascii_uppercase(), arguments.trim());
    let wrong =
        |reason| ChangeError::Arguments { keyword: keyword.clone(), reason, arguments: arguments.to_owned() };
    let one =
        || if arguments.is_empty() { Err(wrong("needs an argument")) } else { Ok(arguments.to_owned()) };
    let config = &mut image.config;
    let shell = || match config.shell.as_slice() {
        [] => SHELL.map(str::to_owned).to_vec(),
        shell => shell.to_vec(),
    };
    match keyword.as_str() {
        "CMD" => config.cmd = Some(command(arguments, shell())),
        "ENTRYPOINT" => config.entrypoint = Some(command(arguments, shell())),
        "SHELL" => {
            config.shell = json_words(arguments).ok_or_else(|| wrong("needs the exec form"))?;
        }
        "ENV" => {
            for (name, value) in pairs(arguments).ok_or_else(|| wrong("needs `name=value`"))? {
                config.set_env(&name, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(arguments).ok_or_else(|| wrong("needs `name=value`"))?),
        "EXPOSE" => {
            for port in words(&one()?) {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let (first, last) = number.split_once('-').unwrap_or((number, number));
                let parse = |text: &str| text.parse::<u16>().map_err(|_| wrong("needs ports"));
                for number in parse(first)?..=parse(last)? {
                    config
                        .exposed_ports
                        .insert(format!("{number}/{}", protocol.to_ascii_lowercase()), Empty {});
                }
            }
        }
        "VOLUME" => {
            let paths = json_words(&one()?).unwrap_or_else(|| words(arguments));
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => config.user = one()?,
        "WORKDIR" => {
            let path = one()?;
            config.working_dir = match (path.starts_with('/'), config.working_dir.as_str()) {
                (true, _) => path,
                (false, below) => format!("{}/{path}", below.trim_end_matches('/')),
            };
        }
        "STOPSIGNAL" => config.stop_signal = one()?,
        "ONBUILD" => config.on_build.push(one()?),
        "MAINTAINER" => image.author = Some(one()?),
        "HEALTHCHECK" => {
            config.healthcheck = Some(healthcheck(arguments).ok_or_else(|| wrong("needs NONE or CMD"))?);
        }
        _ => return Err(ChangeError::Keyword { keyword }),
    }
    Ok(())
}

fn command(arguments: &str, mut shell: Vec<String>) -> Vec<String> {
    json_words(arguments).unwrap_or_else(|| {
        shell.push(arguments.to_owned());
        shell
    })
}

fn json_words(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn healthcheck(arguments: &str) -> Option<Healthcheck> {
    if arguments.eq_ignore_ascii_case("none") {
        return Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
    }
    let command =
        arguments.get(..3).filter(|word| word.eq_ignore_ascii_case("cmd")).and(arguments.get(3..))?.trim();
    let test = match json_words(command) {
        Some(words) => [vec!["CMD".to_owned()], words].concat(),
        None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
    };
    Some(Healthcheck { test, ..Healthcheck::default() })
}

/// `name=value ...`, or the old form `name value with blanks`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text);
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| {
            let (name, value) = word.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Words apart by blanks; quotes and backslashes as in a shell.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(q)) if c == q => quote = None,
            (c @ ('"' | '\''), None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &[&str], expect: &str) {
        let mut image = ImageConfig::default();
        for change in changes {
            apply_change(&mut image, change).unwrap_or_else(|error| panic!("{change}: {error}"));
        }
        assert_eq!(serde_json::to_string(&image.config).unwrap(), expect, "{changes:?}");
    }

    #[test]
    fn every_instruction() {
        check(&[r#"CMD ["a", "b"]"#], r#"{"Cmd":["a","b"]}"#);
        check(&["cmd echo hi"], r#"{"Cmd":["/bin/sh","-c","echo hi"]}"#);
        check(&[r#"SHELL ["/bin/bash"]"#, "CMD x"], r#"{"Cmd":["/bin/bash","x"],"Shell":["/bin/bash"]}"#);
        check(&[r#"ENTRYPOINT ["/x"]"#], r#"{"Entrypoint":["/x"]}"#);
        check(&["ENV a=b c=\"d e\"", "ENV a=2"], r#"{"Env":["a=2","c=d e"]}"#);
        check(&["ENV a b  c"], r#"{"Env":["a=b  c"]}"#);
        check(&["LABEL x=1 y=2"], r#"{"Labels":{"x":"1","y":"2"}}"#);
        check(&["EXPOSE 80 90-91/udp"], r#"{"ExposedPorts":{"80/tcp":{},"90/udp":{},"91/udp":{}}}"#);
        check(&["VOLUME /a /b", r#"VOLUME ["/c"]"#], r#"{"Volumes":{"/a":{},"/b":{},"/c":{}}}"#);
        check(&["WORKDIR /a", "WORKDIR b", "USER u:g"], r#"{"User":"u:g","WorkingDir":"/a/b"}"#);
        check(&["HEALTHCHECK NONE"], r#"{"Healthcheck":{"Test":["NONE"]}}"#);
        check(&["HEALTHCHECK CMD true"], r#"{"Healthcheck":{"Test":["CMD-SHELL","true"]}}"#);
        check(&["STOPSIGNAL 9", "ONBUILD RUN x"], r#"{"StopSignal":"9","OnBuild":["RUN x"]}"#);
    }

    #[test]
    fn wrong_ones() {
        for change in [
            "",
            "RUN x",
            "COPY a b",
            "ENV",
            "ENV a",
            "LABEL =x",
            "EXPOSE x",
            "EXPOSE",
            "USER",
            "HEALTHCHECK x",
        ] {
            assert!(apply_change(&mut ImageConfig::default(), change).is_err(), "{change}");
        }
    }
}
