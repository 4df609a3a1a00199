//! Values in templates: how they print, what is true, and what functions make of them.

use serde_json::Value;

use crate::format::template::TemplateError;

/// As Go prints it. Of JSON's `null` only the name of the field tells what Go has there.
pub(crate) fn print_value(value: &Value, field: Option<&str>) -> String {
    match (value, field) {
        (
            Value::Null,
            Some(
                "Cmd" | "Entrypoint" | "Env" | "OnBuild" | "Shell" | "RepoTags" | "RepoDigests" | "Mounts"
                | "Args",
            ),
        ) => "[]".to_owned(),
        (Value::Null, Some("Labels" | "Volumes" | "ExposedPorts" | "Ports" | "Networks")) => {
            "map[]".to_owned()
        }
        (Value::Null, _) => "<no value>".to_owned(),
        (value, _) => print_inner(value),
    }
}

fn print_inner(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print_inner).collect::<Vec<_>>().join(" ")),
        Value::Object(object) => {
            let mut items: Vec<String> =
                object.iter().map(|(key, value)| format!("{key}:{}", print_inner(value))).collect();
            items.sort();
            format!("map[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

/// Whether `if` takes it for true: not empty, not zero.
pub(crate) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64().is_none_or(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

/// Calls a function.
pub(crate) fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let wrong = |reason| TemplateError::Function { name: name.to_owned(), reason };
    let text = |position: usize| match arguments.get(position) {
        Some(Value::String(text)) => Ok(text.as_str()),
        _ => Err(wrong("needs a text")),
    };
    let one = || arguments.first().ok_or_else(|| wrong("needs an argument"));
    let two = || match arguments {
        [a, b] => Ok((a, b)),
        _ => Err(wrong("needs two arguments")),
    };
    let made = match name {
        "json" => one()?.to_string(),
        "upper" => text(0)?.to_uppercase(),
        "lower" => text(0)?.to_lowercase(),
        "title" => {
            let mut characters = text(0)?.chars();
            characters
                .next()
                .map(|first| first.to_uppercase().chain(characters).collect())
                .unwrap_or_default()
        }
        "join" => {
            let Value::Array(items) = one()? else { return Err(wrong("needs a list")) };
            items.iter().map(print_inner).collect::<Vec<_>>().join(text(1)?)
        }
        "split" => return Ok(text(0)?.split(text(1)?).map(Value::from).collect()),
        "truncate" => {
            let length = arguments.get(1).and_then(Value::as_u64).ok_or_else(|| wrong("needs a number"))?;
            text(0)?.chars().take(usize::try_from(length).unwrap_or(usize::MAX)).collect()
        }
        "print" => arguments.iter().map(print_inner).collect::<Vec<_>>().join(""),
        "println" => format!("{}\n", arguments.iter().map(print_inner).collect::<Vec<_>>().join(" ")),
        "printf" => printf(text(0)?, arguments.get(1..).unwrap_or_default()),
        "len" => {
            return Ok(Value::from(match one()? {
                Value::String(text) => text.len(),
                Value::Array(items) => items.len(),
                Value::Object(object) => object.len(),
                Value::Null => 0,
                _ => return Err(wrong("needs a list, a map or a text")),
            }));
        }
        "index" => {
            let mut value = one()?;
            for key in arguments.get(1..).unwrap_or_default() {
                value = match (value, key) {
                    (Value::Array(items), Value::Number(number)) => number
                        .as_u64()
                        .and_then(|position| items.get(usize::try_from(position).ok()?))
                        .ok_or_else(|| wrong("has an index out of range"))?,
                    (Value::Object(object), Value::String(key)) => match object.get(key) {
                        Some(value) => value,
                        None => return Ok(Value::String(String::new())),
                    },
                    (Value::Null, _) => return Ok(Value::String(String::new())),
                    _ => return Err(wrong("needs a list and a number, or a map and a text")),
                };
            }
            return Ok(value.clone());
        }
        "not" => return Ok(Value::Bool(!truth(one()?))),
        "and" => {
            return Ok(arguments
                .iter()
                .find(|value| !truth(value))
                .or(arguments.last())
                .cloned()
                .unwrap_or_default());
        }
        "or" => {
            return Ok(arguments
                .iter()
                .find(|value| truth(value))
                .or(arguments.last())
                .cloned()
                .unwrap_or_default());
        }
        "eq" => {
            let first = one()?;
            return Ok(Value::Bool(arguments.iter().skip(1).any(|other| other == first)));
        }
        "ne" => return two().map(|(a, b)| Value::Bool(a != b)),
        "lt" | "le" | "gt" | "ge" => {
            let (a, b) = two()?;
            let order = match (a, b) {
                (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
                (a, b) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
            };
            let order = order.ok_or_else(|| wrong("needs two numbers or two texts"))?;
            return Ok(Value::Bool(match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }));
        }
        _ => return Err(wrong("is not defined")),
    };
    Ok(Value::String(made))
}

fn printf(format: &str, arguments: &[Value]) -> String {
    let mut arguments = arguments.iter();
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // Width and sign, which only `-` and digits are understood of.
        let mut flags = String::new();
        let verb = loop {
            match characters.next() {
                Some(c) if c == '-' || c == '.' || c.is_ascii_digit() => flags.push(c),
                other => break other,
            }
        };
        let cell = match verb {
            Some('%') => "%".to_owned(),
            Some('q') => arguments
                .next()
                .map(|value| Value::String(print_inner(value)).to_string())
                .unwrap_or_default(),
            Some(_) => arguments.next().map(print_inner).unwrap_or_default(),
            None => "%!(NOVERB)".to_owned(),
        };
        let width: usize = flags.trim_start_matches('-').parse().unwrap_or(0).min(1000);
        match flags.starts_with('-') {
            true => out.push_str(&format!("{cell:<width$}")),
            false => out.push_str(&format!("{cell:>width$}")),
        }
    }
    out
}
