//! COPY and ADD as a step.

use crate::git_address::redacted;
use crate::git_address::{GitAddress, GitAddressError, without_login};
use crate::path;
use crate::stage_planner::StagePlanner;
use crate::step::{Chmod, CopySourceSpec, CopyStep, FileSource, Operation, PlannedSource};
use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::instruction::{Copy, CopySource, Instruction, Word};
use mica_oci::Digest;

impl StagePlanner<'_> {
    /// Adds the step of a COPY or ADD.
    pub(crate) fn copy(
        &mut self,
        copy: &Copy,
        instruction: &Instruction,
        sources: &[Option<FileSource>],
    ) -> Result<(), Diagnostic> {
        let optional = |word: &Option<Word>| -> Result<Option<String>, Diagnostic> {
            let text = word.as_ref().map(|word| self.expander().word(word)).transpose()?;
            Ok(text.filter(|text| !text.is_empty()))
        };
        let chown = optional(&copy.chown)?;
        let chmod_text = optional(&copy.chmod)?;
        let checksum = optional(&copy.checksum)?;
        let chmod = match (&chmod_text, &copy.chmod) {
            (Some(text), Some(word)) => Some(parse_chmod(text, word.span)?),
            _ => None,
        };
        let excludes =
            copy.excludes.iter().map(|word| self.expander().word(word)).collect::<Result<Vec<_>, _>>()?;

        let mut created_by = String::from(if copy.add { "ADD" } else { "COPY" });
        if copy.parents {
            created_by.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod_text)] {
            if let Some(value) = value {
                created_by.push_str(&format!(" --{flag}={value}"));
            }
        }
        let mut planned = Vec::with_capacity(copy.sources.len());
        let mut heredoc_names = Vec::new();
        let mut redactions = Vec::new();
        for source in &copy.sources {
            let (spec, span) = self.source(copy, source, instruction)?;
            match &spec {
                CopySourceSpec::Path(text) => created_by.push_str(&format!(" {text}")),
                CopySourceSpec::Url(text) | CopySourceSpec::Git(text) => {
                    let shown = redacted(text);
                    created_by.push_str(&format!(" {shown}"));
                    redactions.push((text.clone(), shown));
                }
                CopySourceSpec::Heredoc { name, .. } => heredoc_names.push(name.clone()),
            }
            planned.push(PlannedSource { spec, span: self.place(span) });
        }
        // BuildKit copies inline files after all others, and writes them so.
        planned.sort_by_key(|source| matches!(source.spec, CopySourceSpec::Heredoc { .. }));
        for name in heredoc_names {
            created_by.push_str(&format!(" <<{name}"));
        }
        if let (Some(checksum), Some(word)) = (&checksum, &copy.checksum) {
            check_checksum(checksum, &planned, word.span)?;
        }
        let written_destination = self.expander().word(&copy.destination)?;
        created_by.push_str(&format!(" {written_destination} # buildkit"));
        let mut text = self.expander().display(&instruction.text);
        for (address, shown) in redactions {
            text = text.replace(&address, &shown);
        }
        let step = CopyStep {
            add: copy.add,
            from: sources.first().cloned().flatten().unwrap_or(FileSource::Context),
            sources: planned,
            destination: path::join_destination(&self.directory(), &written_destination),
            chown,
            chmod,
            link: copy.link,
            parents: copy.parents,
            excludes,
            checksum,
            keep_git_dir: copy.keep_git_dir.unwrap_or_default(),
            unpack: copy.unpack,
        };
        self.add_step(Operation::Copy(step), &text, instruction, created_by);
        Ok(())
    }

    fn source(
        &self,
        copy: &Copy,
        source: &CopySource,
        instruction: &Instruction,
    ) -> Result<(CopySourceSpec, Span), Diagnostic> {
        let word = match source {
            CopySource::Path(word) => word,
            CopySource::Heredoc(heredoc) => {
                let content = if heredoc.expand {
                    self.expander().heredoc(&heredoc.content, heredoc.span)?
                } else {
                    heredoc.content.clone()
                };
                return Ok((CopySourceSpec::Heredoc { name: heredoc.name.clone(), content }, heredoc.span));
            }
        };
        let text = self.expander().word(word)?;
        let remote = remote_source(&text, copy.keep_git_dir.is_some())
            .map_err(|error| Diagnostic::error(word.span, wrong_address(&text, &error)))?;
        let Some(spec) = remote else {
            if copy.from.is_none() {
                let (place, told_at) = match self.is_trigger {
                    true => (self.from_span, self.from_span.start),
                    false => (word.span, instruction.span.start),
                };
                self.shared.inspection.ignored_source(copy.add, &text, place, told_at);
            }
            return Ok((CopySourceSpec::Path(text), word.span));
        };
        if !copy.add {
            let kind = if matches!(spec, CopySourceSpec::Git(_)) { "a git address" } else { "a URL" };
            return Err(Diagnostic::error(word.span, format!("COPY takes files, not {kind}"))
                .hint("use ADD to fetch it"));
        }
        Ok((spec, word.span))
    }
}

/// What has to be fetched; `None` for a path. `is_known_git`: a flag said that it is git.
pub(crate) fn remote_source(
    text: &str,
    is_known_git: bool,
) -> Result<Option<CopySourceSpec>, GitAddressError> {
    match GitAddress::parse(text) {
        // As files of the context it is older.
        Ok(address) if !address.could_be_path => return Ok(Some(CopySourceSpec::Git(text.to_string()))),
        Err(error) if error.is_git() => return Err(error),
        _ => {}
    }
    Ok(is_http(text).then(|| match is_known_git {
        true => CopySourceSpec::Git(text.to_string()),
        false => CopySourceSpec::Url(text.to_string()),
    }))
}

/// What is said of an address that is meant for git and wrong.
pub(crate) fn wrong_address(text: &str, error: &GitAddressError) -> String {
    format!("`{}` is not a git address: {error}", without_login(text))
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn check_checksum(checksum: &str, sources: &[PlannedSource], span: Span) -> Result<(), Diagnostic> {
    match sources {
        [PlannedSource { spec: CopySourceSpec::Git(_), .. }] => Ok(()),
        [PlannedSource { spec: CopySourceSpec::Url(_), .. }] => {
            Digest::parse(checksum).map(|_| ()).map_err(|error| Diagnostic::error(span, error.to_string()))
        }
        [_] => Err(Diagnostic::error(span, "a checksum can only be given for a URL or a git address")),
        _ => Err(Diagnostic::error(span, "a checksum can only be given for a single source")),
    }
}

fn parse_chmod(text: &str, span: Span) -> Result<Chmod, Diagnostic> {
    let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if let Some(mode) = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o7777) {
        return Ok(Chmod::Octal(mode));
    }
    if is_symbolic(text) {
        return Ok(Chmod::Symbolic(text.to_string()));
    }
    Err(Diagnostic::error(span, format!("`{text}` is not a mode"))
        .hint("write octal digits up to 07777, or changes such as `u=rwX,go-w`"))
}

/// `[ugoa]*([-+=][rwxXstugo]*)+`, several separated by commas.
fn is_symbolic(text: &str) -> bool {
    text.split(',').all(|change| {
        let changes = change.trim_start_matches(['u', 'g', 'o', 'a']);
        changes.starts_with(['-', '+', '=']) && changes.chars().all(|c| "-+=rwxXstugo".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_git() {
        for git in [
            "git://host/repo",
            "git@github.com:moby/buildkit.git#v0.1:sub",
            "https://host/repo.git",
            "https://host/repo.git#branch:dir",
            "https://host/repo.git?ref=v1",
            "ssh://git@host:22/repo",
        ] {
            assert!(matches!(remote_source(git, false), Ok(Some(CopySourceSpec::Git(_)))), "{git}");
        }
        for other in
            ["https://host/repo", "http://host/x.git.tar", "dir/repo.git", "a@b", "@host:path", "a/b@c:d", ""]
        {
            assert!(!matches!(remote_source(other, false), Ok(Some(CopySourceSpec::Git(_)))), "{other}");
        }
    }

    #[test]
    fn modes() {
        for (text, expect) in [
            ("755", Some(Chmod::Octal(0o755))),
            ("07777", Some(Chmod::Octal(0o7777))),
            ("u=rwX,go-w", Some(Chmod::Symbolic("u=rwX,go-w".into()))),
            ("+x", Some(Chmod::Symbolic("+x".into()))),
            ("u+r-w=", Some(Chmod::Symbolic("u+r-w=".into()))),
            ("10000", None),
            ("64a", None),
            ("+7", None),
            ("u=q", None),
            ("u", None),
            ("a+x,", None),
        ] {
            assert_eq!(parse_chmod(text, Span::default()).ok(), expect, "{text}");
        }
    }
}
