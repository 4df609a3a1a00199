//! Lists as docker has them: the usual table, `--format table ...`, `--format json`, or a template for each row.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::CliError;
use crate::format::table::Table;
use crate::format::template::{Labels, Template};

/// A field of a row and what stands above its column.
pub(crate) type Column = (&'static str, &'static str);

/// Writes `rows`, objects with the fields of `columns`; without a format, a table of the columns in `shown`.
pub(crate) fn render(
    rows: &[Value],
    columns: &[Column],
    shown: &[&str],
    format: Option<&str>,
) -> Result<String, CliError> {
    render_with_labels(rows, &[], columns, shown, format)
}

/// The same; `labels` has for each row what `{{.Label "name"}}` answers from.
pub(crate) fn render_with_labels(
    rows: &[Value],
    labels: &[BTreeMap<String, String>],
    columns: &[Column],
    shown: &[&str],
    format: Option<&str>,
) -> Result<String, CliError> {
    let apply = |template: &Template, position: usize, row: &Value| match labels.get(position) {
        Some(labels) => template.apply_with_labels(row, Labels::Of(labels)),
        None => template.apply(row),
    };
    let usual = || {
        let header =
            |field: &&str| columns.iter().find(|(own, _)| own == field).map_or("", |(_, header)| *header);
        let mut table = Table::new(&shown.iter().map(header).collect::<Vec<_>>());
        for row in rows {
            table.push(shown.iter().map(|field| cell(row, field)).collect());
        }
        table.render()
    };
    match format.map(str::trim_end) {
        None | Some("" | "table") => Ok(usual()),
        Some("json") => Ok(rows.iter().map(|row| format!("{row}\n")).collect()),
        Some(format) => {
            let Some(template) = format.strip_prefix("table ") else {
                let template = Template::parse(format)?;
                let lines = rows
                    .iter()
                    .enumerate()
                    .map(|(position, row)| Ok(apply(&template, position, row)? + "\n"));
                return lines.collect::<Result<String, CliError>>();
            };
            let template = Template::parse(template.trim_start())?;
            let header =
                columns.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header))).collect();
            let header = template.apply_with_labels(&Value::Object(header), Labels::Header)?;
            let mut table = Table::new(&header.split('\t').collect::<Vec<_>>());
            for (position, row) in rows.iter().enumerate() {
                table.push(apply(&template, position, row)?.split('\t').map(str::to_owned).collect());
            }
            Ok(table.render())
        }
    }
}

fn cell(row: &Value, field: &str) -> String {
    match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Objects as a list of JSON, four blanks an indent, as docker's `inspect` has it.
pub(crate) fn pretty_json(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_in_every_form() {
        let rows = [json!({"ID": "abc", "Names": "n"})];
        let labels = [BTreeMap::from([("a.b".to_owned(), "x,y".to_owned())])];
        let columns = [("ID", "CONTAINER ID"), ("Names", "NAMES")];
        let check = |format: Option<&str>, expect: &str| {
            let found = render_with_labels(&rows, &labels, &columns, &["ID", "Names"], format);
            assert_eq!(found.unwrap_or_else(|error| error.message), expect, "{format:?}");
        };
        check(None, "CONTAINER ID   NAMES\nabc            n\n");
        check(Some("table"), "CONTAINER ID   NAMES\nabc            n\n");
        check(Some("table {{.ID}}\\t{{.Names}}"), "CONTAINER ID   NAMES\nabc            n\n");
        check(Some("table {{.Label \"a.b\"}}"), "a.b\nx,y\n");
        check(Some("{{ .ID }}\\t{{.Names}}"), "abc\tn\n");
        check(Some("{{json .}}"), "{\"ID\":\"abc\",\"Names\":\"n\"}\n");
        check(Some("json"), "{\"ID\":\"abc\",\"Names\":\"n\"}\n");
        check(Some("{{.Label \"a.b\"}}|{{.Label \"none\"}}|{{upper (.Label \"a.b\")}}"), "x,y||X,Y\n");
        check(Some("{{.Nope}}"), "template: can't evaluate field `Nope`");
        let without = render(&rows, &columns, &["ID"], Some("{{.Label \"a\"}}"));
        assert_eq!(without.unwrap_err().message, "template: can't evaluate field `Label`");
    }
}
