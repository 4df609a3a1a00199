//! `mica tags`: what tags a repository has in its registry, and taking them away there.

use mica_oci::Reference;
use serde_json::{Value, json};

use crate::commands::remote::{client, parse_reference, tell_warnings};
use crate::error::CliError;
use crate::format::listing::{Column, render};
use crate::format::output::print;

/// Flags of `mica tags`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `table`, `table TEMPLATE`, `json` or a template, instead of one tag a line
    #[arg(long)]
    format: Option<String>,
    /// Delete an image from the registry by its tag or digest; many registries delete all tags that lead to the same
    #[arg(long, value_name = "NAME:TAG|NAME@DIGEST", num_args = 1.., conflicts_with_all = ["format", "repository"])]
    delete: Vec<String>,
    /// The repository, such as `alpine` or `example.com/team/app`
    #[arg(value_name = "REPOSITORY", required_unless_present = "delete")]
    repository: Option<String>,
}

const COLUMNS: [Column; 2] = [("Repository", "REPOSITORY"), ("Tag", "TAG")];

/// Lists tags, in the registry's order.
pub(crate) fn run(args: Args) -> Result<u8, CliError> {
    let Some(repository) = &args.repository else { return delete(&args.delete) };
    let repository = parse_reference(repository)?;
    if !repository.is_name_only() {
        let hint = format!("`mica tags {}` lists all its tags", repository.familiar_name());
        return Err(CliError::new(format!("`{}` is not a repository", repository.familiar())).hint(hint));
    }
    let client = client()?;
    let tags = client.tags(&repository);
    tell_warnings(&client, tags.is_err());
    let tags = tags?;
    let Some(format) = args.format.as_deref() else {
        return print_lines(&tags);
    };
    print(&render(&rows(&repository, &tags), &COLUMNS, &["Repository", "Tag"], Some(format))?)?;
    Ok(0)
}

/// Takes images out of their registry. A name without a tag is no image: nobody means `latest` by it here.
fn delete(names: &[String]) -> Result<u8, CliError> {
    let mut references = Vec::new();
    for name in names {
        let reference = parse_reference(name)?;
        if reference.is_name_only() {
            let hint = format!("`mica tags {}` lists its tags", reference.familiar_name());
            return Err(CliError::new(format!("`{name}` has neither tag nor digest")).hint(hint));
        }
        references.push(reference);
    }
    let client = client()?;
    for reference in &references {
        client.delete_manifest(reference)?;
        print(&format!("Deleted: {}\n", reference.resolvable().familiar()))?;
    }
    Ok(0)
}

fn print_lines(tags: &[String]) -> Result<u8, CliError> {
    print(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())?;
    Ok(0)
}

fn rows(repository: &Reference, tags: &[String]) -> Vec<Value> {
    let name = repository.familiar_name();
    tags.iter().map(|tag| json!({ "Repository": name, "Tag": tag })).collect()
}
