//! `mica search`: what a registry has.

use mica_oci::reference::DEFAULT_REGISTRY;
use mica_registry_client::{SearchQuery, SearchResult};
use serde_json::{Value, json};

use crate::advice::registry::search_failed;
use crate::commands::filter;
use crate::commands::remote::client;
use crate::error::CliError;
use crate::format::listing::{Column, render};
use crate::format::output::print;

/// Flags of `mica search`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Filter output: is-official=, stars=
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long)]
    format: Option<String>,
    /// Results at most, 1 to 100 [default: 25]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u32>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// What to look for; `HOST/TERM` asks that registry
    #[arg(value_name = "TERM")]
    term: String,
}

const COLUMNS: [Column; 5] = [
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

/// Results where nobody says how many.
const LIMIT: u32 = 25;
/// Results that registries give at most.
const LIMIT_MAX: u32 = 100;
/// Characters of a description in the table.
const DESCRIPTION_LENGTH_MAX: usize = 45;

/// Searches.
pub(crate) fn run(args: Args) -> Result<u8, CliError> {
    let (query, is_automated) = query(&args)?;
    let mut found = client()?.search(&query).map_err(search_failed)?;
    if let Some(wanted) = is_automated {
        found.retain(|result| result.is_automated == wanted);
    }
    // docker writes truth as `[OK]`, but in JSON.
    let is_json = args.format.as_deref().is_some_and(|format| {
        format == "json" || format.split_whitespace().collect::<String>().contains("{{json.}}")
    });
    let rows: Vec<Value> = found.iter().map(|result| row(result, args.no_trunc, is_json)).collect();
    let shown = ["Name", "Description", "StarCount", "IsOfficial"];
    print(&render(&rows, &COLUMNS, &shown, args.format.as_deref())?)?;
    Ok(0)
}

/// What is asked for, and what is asked about automation: registries are not asked that any more.
fn query(args: &Args) -> Result<(SearchQuery, Option<bool>), CliError> {
    let limit = match args.limit {
        None | Some(0) => LIMIT,
        Some(limit) if limit <= LIMIT_MAX => limit,
        Some(limit) => {
            return Err(CliError::new(format!("limit {limit} is outside the range of [1, {LIMIT_MAX}]")));
        }
    };
    let (registry, term) = match args.term.split_once('/') {
        Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => (host, term),
        _ => (DEFAULT_REGISTRY, args.term.as_str()),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let (registry, term) = (registry.to_owned(), term.to_owned());
    let mut query = SearchQuery { registry, term, limit, ..SearchQuery::default() };
    let mut is_automated = None;
    for text in &args.filter {
        let (key, value) = filter::split(text)?;
        match key {
            "is-official" => query.is_official = Some(filter::boolean(text, value)?),
            "is-automated" => is_automated = Some(filter::boolean(text, value)?),
            "stars" => {
                let stars = value.parse().map_err(|_| {
                    CliError::new(format!("invalid filter `{text}`")).hint("a number is meant: `stars=10`")
                })?;
                query.stars_min = query.stars_min.max(stars);
            }
            _ => return Err(filter::unknown(text, "is-official, stars")),
        }
    }
    Ok((query, is_automated))
}

fn row(result: &SearchResult, whole: bool, is_json: bool) -> Value {
    let truth = |value: bool| match (value, is_json) {
        (value, true) => value.to_string(),
        (true, false) => "[OK]".to_owned(),
        (false, false) => String::new(),
    };
    // What others wrote: no line of it may break the table, nor change the terminal.
    let line = |text: &str| {
        let blank = |letter: char| if letter.is_control() { ' ' } else { letter };
        text.chars().map(blank).collect::<String>()
    };
    let mut description = line(&result.description);
    if !whole && description.chars().count() > DESCRIPTION_LENGTH_MAX {
        description = description.chars().take(DESCRIPTION_LENGTH_MAX - 1).chain(['…']).collect();
    }
    json!({
        "Description": description,
        "IsAutomated": truth(result.is_automated),
        "IsOfficial": truth(result.is_official),
        "Name": line(&result.name),
        "StarCount": result.star_count.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    #[track_caller]
    fn check(words: &[&str], expect: &str) {
        let parsed = Flags::try_parse_from([&["search"], words].concat());
        let args = parsed.unwrap_or_else(|error| panic!("{words:?}: {error}")).args;
        let found = match query(&args) {
            Ok((query, automated)) => format!(
                "{} {} {} {:?} {} {automated:?}",
                query.registry, query.term, query.limit, query.is_official, query.stars_min
            ),
            Err(error) => error.message,
        };
        assert_eq!(found, expect, "{words:?}");
    }

    #[test]
    fn what_is_asked_for() {
        check(&["ubuntu"], "docker.io ubuntu 25 None 0 None");
        check(&["--filter", "is-official=true", "node"], "docker.io node 25 Some(true) 0 None");
        check(&["-f", "stars=3", "-f", "is-official=0", "a"], "docker.io a 25 Some(false) 3 None");
        check(&["-f", "is-automated=true", "a"], "docker.io a 25 None 0 Some(true)");
        check(&["-f", "stars=3", "-f", "stars=2", "a"], "docker.io a 25 None 3 None");
        check(&["--limit", "100", "user/name"], "docker.io user/name 100 None 0 None");
        check(&["--limit=0", "a"], "docker.io a 25 None 0 None");
        check(&["localhost:5000/a/b"], "localhost:5000 a/b 25 None 0 None");
        check(&["quay.io/"], "quay.io  25 None 0 None");
        check(&["index.docker.io/a"], "docker.io a 25 None 0 None");
        check(&["--limit=101", "a"], "limit 101 is outside the range of [1, 100]");
        check(&["-f", "stars=many", "a"], "invalid filter `stars=many`");
        check(&["-f", "stars=-1", "a"], "invalid filter `stars=-1`");
        check(&["-f", "stars>=3", "a"], "invalid filter `stars>=3`");
        check(&["-f", "is-official=maybe", "a"], "invalid filter `is-official=maybe`");
        check(&["-f", "name=x", "a"], "invalid filter `name=x`");
        check(&["-f", "official", "a"], "invalid filter `official`");
    }

    #[test]
    fn rows() {
        let description = format!("é\n\x1b[31m{}", "x".repeat(60));
        let found = SearchResult {
            name: "node".to_owned(),
            description,
            star_count: 7,
            is_official: true,
            is_automated: false,
        };
        let cut = format!("é  [31m{}…", "x".repeat(37));
        let check = |whole: bool, is_json: bool, expect: Value| {
            assert_eq!(row(&found, whole, is_json), expect);
        };
        let (official, automated, name, stars) = ("[OK]", "", "node", "7");
        check(
            false,
            false,
            json!({"Description": cut, "IsAutomated": automated, "IsOfficial": official, "Name": name, "StarCount": stars}),
        );
        let whole = format!("é  [31m{}", "x".repeat(60));
        check(
            true,
            true,
            json!({"Description": whole, "IsAutomated": "false", "IsOfficial": "true", "Name": name, "StarCount": stars}),
        );
    }
}
