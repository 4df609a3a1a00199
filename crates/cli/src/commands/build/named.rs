//! `--build-context NAME=VALUE`: files or an image under a name that FROM and --from may use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mica_build::{FetchedContext, NamedDirectory, NamedImage, SecretSource};
use mica_image::LayoutChoice;
use mica_oci::{Digest, Platform, Reference};
use mica_plan::{NamedContext, without_login};

use crate::commands::remote;
use crate::error::CliError;
use crate::session::Session;

use super::args::Args;
use super::context::{self, Fetch, Place};

/// The named contexts of a build.
#[derive(Default)]
pub(super) struct Named {
    /// As the plan knows them.
    pub contexts: Vec<NamedContext>,
    /// Those that are files.
    pub directories: Vec<NamedDirectory>,
    /// Those that are images of a layout.
    pub images: Vec<NamedImage>,
    /// What holds the directories that are there for this build only.
    pub fetched: Vec<Arc<FetchedContext>>,
}

/// What the values are read with.
struct Given<'a> {
    args: &'a Args,
    session: &'a Session,
    secrets: &'a [SecretSource],
    platforms: &'a [Platform],
}

/// Finds, fetches and loads what the flags name.
pub(super) fn named(
    args: &Args,
    session: &Session,
    secrets: &[SecretSource],
    platforms: &[Platform],
) -> Result<Named, CliError> {
    let mut named = Named::default();
    for text in &args.build_context {
        let (name, value) = parse(text)?;
        let add = |error: CliError| CliError {
            message: format!("build context `{name}`: {}", error.message),
            ..error
        };
        named.add(name, value, &Given { args, session, secrets, platforms }).map_err(add)?;
    }
    Ok(named)
}

fn parse(text: &str) -> Result<(&str, &str), CliError> {
    let invalid = |why: &str| {
        CliError::new(format!("invalid value `{text}` for `--build-context`: {why}"))
            .hint("say `--build-context NAME=PATH`, or an address in place of the path")
    };
    match text.split_once('=') {
        None => Err(invalid("it is not `NAME=VALUE`")),
        Some(("", _)) => Err(invalid("it has no name")),
        Some((_, "")) => Err(invalid("it has no value")),
        Some(("scratch" | "context", _)) => Err(invalid("that name means something else already")),
        Some(pair) => Ok(pair),
    }
}

impl Named {
    fn add(&mut self, name: &str, value: &str, given: &Given<'_>) -> Result<(), CliError> {
        let Given { args, session, secrets, .. } = *given;
        let name = name.to_owned();
        if let Some(image) = value.strip_prefix("docker-image://") {
            let image = Some(remote::parse_reference(image)?.with_default_tag());
            self.contexts.push(NamedContext { name, image });
            return Ok(());
        }
        if let Some(layout) = value.strip_prefix("oci-layout://") {
            return self.add_layout(name, layout, given);
        }
        let (path, ignore) = match context::place(Path::new(value))? {
            Place::Stdin => return Err(CliError::new("only the build context itself can be standard input")),
            Place::Git(address) => self.hold(Fetch::open(args, session, secrets)?.git(&address)?),
            Place::Web(url) => {
                let fetch = Fetch::open(args, session, secrets)?;
                fetch.tell(&format!("load remote build context {}", without_login(&url)));
                self.hold(fetch.fetcher().web_files(&url)?)
            }
            Place::Directory(path) => {
                context::check_directory(&path, "the directory")?;
                let ignore = context::read_ignore(None, &path)?;
                (path, ignore)
            }
        };
        self.contexts.push(NamedContext { name: name.clone(), image: None });
        self.directories.push(NamedDirectory { name, path, ignore });
        Ok(())
    }

    /// What is fetched has no ignore file: that is for what lies about on this machine.
    fn hold(&mut self, fetched: FetchedContext) -> (PathBuf, Option<mica_build::IgnoreFile>) {
        let path = fetched.path.clone();
        self.fetched.push(Arc::new(fetched));
        (path, None)
    }

    fn add_layout(&mut self, name: String, layout: &str, given: &Given<'_>) -> Result<(), CliError> {
        let Given { args, session, secrets, .. } = *given;
        let (path, choice) = split_layout(layout)?;
        context::check_directory(path, "the layout")?;
        let fetch = Fetch::open(args, session, secrets)?;
        let mut reference = None;
        for platform in given.platforms {
            let directory = std::fs::File::open(path)
                .map_err(|error| CliError::new(format!("cannot read `{}`: {error}", path.display())))?;
            let image = mica_image::load_nameless(
                fetch.store(),
                directory.into(),
                &choice,
                platform,
                session.rootless,
            )?;
            // A name that no registry has: it is only looked up in this build.
            let of_first = format!("oci-layout.invalid/context@{image}");
            let reference = match &reference {
                Some(reference) => Reference::clone(reference),
                None => reference.insert(Reference::parse(&of_first)?).clone(),
            };
            self.images.push(NamedImage { reference, platform: platform.clone(), image });
        }
        self.contexts.push(NamedContext { name, image: reference });
        Ok(())
    }
}

/// `PATH[:tag|@digest]`
fn split_layout(text: &str) -> Result<(&Path, LayoutChoice), CliError> {
    if let Some((path, digest)) = text.rsplit_once('@') {
        let digest = Digest::parse(digest).map_err(|error| CliError::new(error.to_string()))?;
        return Ok((Path::new(path), LayoutChoice::Digest(digest)));
    }
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[last..].rfind(':') {
        Some(colon) => {
            let (path, tag) = text.split_at(last + colon);
            Ok((Path::new(path), LayoutChoice::Name(tag[1..].to_owned())))
        }
        None => Ok((Path::new(text), LayoutChoice::Any)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, path, choice) in [
            ("/a/b", "/a/b", LayoutChoice::Any),
            ("/a:1/b", "/a:1/b", LayoutChoice::Any),
            ("b:v1", "b", LayoutChoice::Name("v1".into())),
            (&format!("/b@{digest}"), "/b", LayoutChoice::Digest(Digest::parse(digest).unwrap())),
        ] {
            assert_eq!(split_layout(text).unwrap(), (Path::new(path), choice), "{text}");
        }
        assert!(split_layout("/b@sha256:1").is_err());
    }

    #[test]
    fn names_and_values() {
        for (text, expect) in [
            ("a=b=c", Ok(("a", "b=c"))),
            ("a", Err("it is not `NAME=VALUE`")),
            ("=b", Err("it has no name")),
            ("a=", Err("it has no value")),
            ("scratch=b", Err("means something else")),
        ] {
            match (parse(text), expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect),
                (Err(found), Err(expect)) => assert!(found.message.contains(expect), "{}", found.message),
                (found, _) => panic!("{text}: {:?}", found.is_ok()),
            }
        }
    }
}
