//! Templates of the user: the part of Go's `text/template` that people write after `--format`.
//!
//! Fields, variables of `range`, pipes, `if`, `with`, `range`, comparisons, and docker's functions (`json`, `join`, `split`,
//! `upper`, `lower`, `title`, `println`, `printf`, `len`, `index`, `truncate`). Values are those of JSON.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::format::template_value::{call, print_value, truth};

/// A template that cannot be read or applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("template parsing error: {reason} at byte {offset}")]
    Syntax { reason: &'static str, offset: usize },
    #[error("template: can't evaluate field `{field}`")]
    Field { field: String },
    #[error("template: function `{name}` {reason}")]
    Function { name: String, reason: &'static str },
    #[error("template: undefined variable `${name}`")]
    Variable { name: String },
}

/// Blocks in blocks, and parentheses in parentheses.
const DEPTH_MAX: usize = 64;

/// A template that was read.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Vec<String>, Pipeline, Vec<Node>, Vec<Node>),
}

type Pipeline = Vec<Vec<Operand>>;

#[derive(Debug, Clone)]
enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    Parens(Pipeline, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Symbol(char),
}

impl Template {
    /// Reads a template; `\t` and `\n` outside of actions mean what they say.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let pieces = split(text)?;
        let mut parser = Parser { pieces: &pieces, at: 0 };
        let nodes = parser.block(0)?;
        match parser.pieces.get(parser.at) {
            None => Ok(Self { nodes }),
            Some(piece) => {
                Err(TemplateError::Syntax { reason: "unexpected `end` or `else`", offset: piece.offset })
            }
        }
    }

    /// The text that the template makes of a value.
    pub fn apply(&self, value: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        run(&self.nodes, value, &mut vec![(String::new(), value.clone())], &mut out)?;
        Ok(out)
    }

    /// The same for a row that has labels: `{{.Label "name"}}`.
    pub fn apply_with_labels(&self, value: &Value, labels: Labels<'_>) -> Result<String, TemplateError> {
        let labels = match labels {
            Labels::Of(labels) => labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect(),
            Labels::Header => Value::Null,
        };
        let mut variables = vec![(String::new(), value.clone()), (LABELS.to_owned(), labels)];
        let mut out = String::new();
        run(&self.nodes, value, &mut variables, &mut out)?;
        Ok(out)
    }
}

/// What `{{.Label "name"}}` answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Labels<'a> {
    /// The row's label of that name, or nothing.
    Of(&'a BTreeMap<String, String>),
    /// The name itself: it is what stands above the column.
    Header,
}

/// Where the labels are among the variables; no template can write this name.
const LABELS: &str = ".Label";

struct Piece {
    offset: usize,
    /// Text, or the tokens of an action.
    content: Result<String, Vec<Token>>,
}

fn split(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let offset = text.len() - rest.len();
        let (plain, action) = match rest.split_once("{{") {
            Some((plain, action)) => (plain, Some(action)),
            None => (rest, None),
        };
        let mut plain = if trim { plain.trim_start() } else { plain };
        let trims_before = action.is_some_and(|action| action.starts_with("- "));
        if trims_before {
            plain = plain.trim_end();
        }
        if !plain.is_empty() {
            pieces.push(Piece { offset, content: Ok(plain.replace("\\t", "\t").replace("\\n", "\n")) });
        }
        let Some(action) = action else { return Ok(pieces) };
        let action_offset = text.len() - action.len();
        let unclosed = || TemplateError::Syntax { reason: "unclosed action", offset: action_offset };
        let end = end_of_action(action).ok_or_else(unclosed)?;
        let (inner, tail) = action.split_at(end);
        rest = tail.strip_prefix("}}").unwrap_or(tail);
        trim = inner.ends_with(" -");
        let inner = inner.strip_suffix(" -").unwrap_or(inner);
        let inner = inner.strip_prefix("- ").unwrap_or(inner);
        if inner.trim_start().starts_with("/*") {
            continue;
        }
        pieces.push(Piece { offset: action_offset, content: Err(tokens(inner, action_offset)?) });
    }
}

/// Where `}}` stands that is not inside of a quoted text.
fn end_of_action(action: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in action.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => quote = Some(c),
            None if action.get(at..).is_some_and(|rest| rest.starts_with("}}")) => return Some(at),
            None => {}
        }
    }
    None
}

fn tokens(text: &str, offset: usize) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            c if c.is_whitespace() => {}
            '"' => {
                let mut word = String::new();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some('n') => word.push('\n'),
                            Some('t') => word.push('\t'),
                            Some(c) => word.push(c),
                            None => {}
                        },
                        Some(c) => word.push(c),
                        None => return Err(TemplateError::Syntax { reason: "unclosed quote", offset }),
                    }
                }
                tokens.push(Token::Text(word));
            }
            '`' => tokens.push(Token::Text(characters.by_ref().take_while(|c| *c != '`').collect())),
            '(' | ')' | '|' | ',' => tokens.push(Token::Symbol(c)),
            ':' if characters.next_if_eq(&'=').is_some() => tokens.push(Token::Symbol('=')),
            c => {
                let mut word = String::from(c);
                while let Some(c) = characters
                    .next_if(|c| !c.is_whitespace() && !matches!(c, '"' | '`' | '(' | ')' | '|' | ',' | ':'))
                {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

struct Parser<'a> {
    pieces: &'a [Piece],
    at: usize,
}

impl Parser<'_> {
    /// Nodes until `end` or `else`, which are left.
    fn block(&mut self, depth: usize) -> Result<Vec<Node>, TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            let error = |reason| TemplateError::Syntax { reason, offset: piece.offset };
            if depth > DEPTH_MAX {
                return Err(error("blocks are nested too deep"));
            }
            let tokens = match &piece.content {
                Ok(text) => {
                    nodes.push(Node::Text(text.clone()));
                    self.at += 1;
                    continue;
                }
                Err(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                Some(_) => "",
                None => return Err(error("missing value for command")),
            };
            let arguments = tokens.get(1..).unwrap_or_default();
            match keyword {
                "end" | "else" => return Ok(nodes),
                "if" | "with" | "range" => {
                    self.at += 1;
                    let (variables, arguments) = match keyword {
                        "range" => range_variables(arguments),
                        _ => (Vec::new(), arguments),
                    };
                    let condition = pipeline(arguments, 0).ok_or_else(|| error("malformed pipeline"))?;
                    let (then, otherwise) = self.branches(depth)?;
                    nodes.push(match keyword {
                        "if" => Node::If(condition, then, otherwise),
                        "with" => Node::With(condition, then, otherwise),
                        _ => Node::Range(variables, condition, then, otherwise),
                    });
                }
                _ => {
                    nodes.push(Node::Action(pipeline(tokens, 0).ok_or_else(|| error("malformed pipeline"))?));
                    self.at += 1;
                }
            }
        }
        Ok(nodes)
    }

    fn branches(&mut self, depth: usize) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let then = self.block(depth + 1)?;
        let unclosed = || TemplateError::Syntax { reason: "a block without `end`", offset: 0 };
        let piece = self.pieces.get(self.at).ok_or_else(unclosed)?;
        let Err(tokens) = &piece.content else { return Err(unclosed()) };
        self.at += 1;
        if tokens.first() == Some(&Token::Word("end".to_owned())) {
            return Ok((then, Vec::new()));
        }
        if let Some(Token::Word(word)) = tokens.get(1)
            && word == "if"
        {
            let malformed = || TemplateError::Syntax { reason: "malformed pipeline", offset: piece.offset };
            let condition = pipeline(tokens.get(2..).unwrap_or_default(), 0).ok_or_else(malformed)?;
            if depth > DEPTH_MAX {
                return Err(malformed());
            }
            let (inner, otherwise) = self.branches(depth + 1)?;
            return Ok((then, vec![Node::If(condition, inner, otherwise)]));
        }
        let otherwise = self.block(depth + 1)?;
        self.pieces.get(self.at).ok_or_else(unclosed)?;
        self.at += 1;
        Ok((then, otherwise))
    }
}

/// `$i, $v := ` before a pipeline.
fn range_variables(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let Some(at) = tokens.iter().position(|token| *token == Token::Symbol('=')) else {
        return (Vec::new(), tokens);
    };
    let name = |token: &Token| match token {
        Token::Word(word) => word.strip_prefix('$').map(str::to_owned),
        _ => None,
    };
    let names = tokens.get(..at).unwrap_or_default().iter().filter_map(name).collect();
    (names, tokens.get(at + 1..).unwrap_or_default())
}

fn pipeline(tokens: &[Token], depth: usize) -> Option<Pipeline> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut commands: Pipeline = vec![Vec::new()];
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let operand = match token {
            Token::Symbol('|') => {
                commands.push(Vec::new());
                continue;
            }
            Token::Symbol('(') => {
                let mut open = 1;
                let length = tokens.get(at..)?.iter().position(|token| {
                    open += match token {
                        Token::Symbol('(') => 1,
                        Token::Symbol(')') => -1,
                        _ => 0,
                    };
                    open == 0
                })?;
                let inner = pipeline(tokens.get(at..at + length)?, depth + 1)?;
                at += length + 1;
                let path = match tokens.get(at) {
                    Some(Token::Word(word)) if word.starts_with('.') => {
                        at += 1;
                        fields(word)
                    }
                    _ => Vec::new(),
                };
                Operand::Parens(inner, path)
            }
            Token::Symbol(_) => return None,
            Token::Text(text) => Operand::Literal(Value::String(text.clone())),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Literal(Value::Null),
                word if word.starts_with('.') => Operand::Field(fields(word)),
                word if word.starts_with('$') => {
                    let (name, path) = word.split_once('.').unwrap_or((word, ""));
                    Operand::Variable(name.trim_start_matches('$').to_owned(), fields(path))
                }
                word => match word.parse::<i64>() {
                    Ok(number) => Operand::Literal(Value::from(number)),
                    Err(_) => Operand::Function(word.to_owned()),
                },
            },
        };
        commands.last_mut()?.push(operand);
    }
    commands.iter().all(|command| !command.is_empty()).then_some(commands)
}

fn fields(path: &str) -> Vec<String> {
    path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

type Variables = Vec<(String, Value)>;

fn run(
    nodes: &[Node],
    dot: &Value,
    variables: &mut Variables,
    out: &mut String,
) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Action(pipeline) => {
                let value = evaluate(pipeline, dot, variables)?;
                out.push_str(&print_value(&value, last_field(pipeline)));
            }
            Node::If(condition, then, otherwise) => {
                let is_true = truth(&evaluate(condition, dot, variables)?);
                run(if is_true { then } else { otherwise }, dot, variables, out)?;
            }
            Node::With(condition, then, otherwise) => {
                let value = evaluate(condition, dot, variables)?;
                match truth(&value) {
                    true => run(then, &value, variables, out)?,
                    false => run(otherwise, dot, variables, out)?,
                }
            }
            Node::Range(names, over, body, otherwise) => {
                let items: Vec<(Value, Value)> = match evaluate(over, dot, variables)? {
                    Value::Array(items) => {
                        items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect()
                    }
                    Value::Object(object) => {
                        let mut items: Vec<_> = object.into_iter().collect();
                        items.sort_by(|a, b| a.0.cmp(&b.0));
                        items.into_iter().map(|(key, item)| (Value::String(key), item)).collect()
                    }
                    _ => Vec::new(),
                };
                if items.is_empty() {
                    run(otherwise, dot, variables, out)?;
                }
                for (key, item) in items {
                    let known = variables.len();
                    match names.as_slice() {
                        [] => {}
                        [value] => variables.push((value.clone(), item.clone())),
                        [position, value, ..] => {
                            variables.push((position.clone(), key));
                            variables.push((value.clone(), item.clone()));
                        }
                    }
                    run(body, &item, variables, out)?;
                    variables.truncate(known);
                }
            }
        }
    }
    Ok(())
}

fn last_field(pipeline: &Pipeline) -> Option<&str> {
    match pipeline.as_slice() {
        [command] => match command.as_slice() {
            [Operand::Field(path)] => path.last().map(String::as_str),
            _ => None,
        },
        _ => None,
    }
}

fn evaluate(pipeline: &Pipeline, dot: &Value, variables: &Variables) -> Result<Value, TemplateError> {
    let mut piped: Option<Value> = None;
    for command in pipeline {
        let Some((first, rest)) = command.split_first() else { continue };
        let mut arguments = Vec::new();
        for operand in rest {
            arguments.push(operand_value(operand, dot, variables)?);
        }
        arguments.extend(piped.take());
        piped = Some(match first {
            Operand::Function(name) => call(name, &arguments)?,
            Operand::Field(path) if matches!(path.as_slice(), [name] if name == "Label") => {
                label(&arguments, dot, variables)?
            }
            operand => operand_value(operand, dot, variables)?,
        });
    }
    Ok(piped.unwrap_or(Value::Null))
}

fn label(arguments: &[Value], dot: &Value, variables: &Variables) -> Result<Value, TemplateError> {
    let labels = variables.iter().find(|(own, _)| own == LABELS).map(|(_, labels)| labels);
    match (labels, arguments) {
        (Some(Value::Null), [Value::String(name)]) => Ok(Value::from(name.as_str())),
        (Some(labels), [Value::String(name)]) => Ok(labels.get(name).cloned().unwrap_or_else(|| "".into())),
        _ => follow(dot, &["Label".to_owned()]),
    }
}

fn operand_value(operand: &Operand, dot: &Value, variables: &Variables) -> Result<Value, TemplateError> {
    match operand {
        Operand::Field(path) => follow(dot, path),
        Operand::Variable(name, path) => match variables.iter().rev().find(|(own, _)| own == name) {
            Some((_, value)) => follow(value, path),
            None => Err(TemplateError::Variable { name: name.clone() }),
        },
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Function(name) => call(name, &[]),
        Operand::Parens(pipeline, path) => follow(&evaluate(pipeline, dot, variables)?, path),
    }
}

/// What a field of OCI's structures is called in their JSON: people write `.MediaType`, and `json` shows `mediaType`.
fn json_name(field: &str) -> String {
    let mut characters = field.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

fn follow(value: &Value, path: &[String]) -> Result<Value, TemplateError> {
    let mut value = value;
    for field in path {
        value = match value {
            Value::Object(object) => {
                let found = object.get(field).or_else(|| object.get(&json_name(field)));
                found.ok_or_else(|| TemplateError::Field { field: field.clone() })?
            }
            // A field of nothing is nothing, as with Go's maps.
            Value::Null => return Ok(Value::Null),
            _ => return Err(TemplateError::Field { field: field.clone() }),
        };
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: &str, expect: Result<&str, &str>) {
        let value = json!({
            "Id": "sha256:ab", "Size": 5, "Tags": ["a:1", "b:2"], "None": null,
            "Config": { "Cmd": ["sh", "-c"], "Labels": { "x.y": "v", "b": "w" }, "Env": [], "Entrypoint": null },
        });
        let found = Template::parse(template).and_then(|template| template.apply(&value));
        match (&found, expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{template}"),
            (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{template}: {error}"),
            _ => panic!("{template}: {found:?}"),
        }
    }

    #[test]
    fn what_people_write() {
        check("{{.Id}}", Ok("sha256:ab"));
        check("{{ .Size }}\\t{{.Config.Cmd}}\\n", Ok("5\t[sh -c]\n"));
        check("{{json .Config.Cmd}}", Ok(r#"["sh","-c"]"#));
        check("{{.Config.Cmd | json}}", Ok(r#"["sh","-c"]"#));
        check("{{.Config.Labels}}", Ok("map[b:w x.y:v]"));
        check("{{index .Config.Labels \"x.y\"}}", Ok("v"));
        check("{{index .Tags 1}} {{len .Tags}}", Ok("b:2 2"));
        check("{{range .Tags}}<{{.}}>{{end}}", Ok("<a:1><b:2>"));
        check("{{range $i, $t := .Tags}}{{$i}}={{$t}} {{end}}", Ok("0=a:1 1=b:2 "));
        check("{{range $k, $v := .Config.Labels}}{{$k}}={{println $v}}{{end}}", Ok("b=w\nx.y=v\n"));
        check("{{range .Config.Env}}x{{else}}empty{{end}}", Ok("empty"));
        check("{{if .Config.Env}}a{{else if eq .Size 5}}b{{else}}c{{end}}", Ok("b"));
        check("{{join .Tags \", \"}} {{upper .Id}}", Ok("a:1, b:2 SHA256:AB"));
        check("{{with .Config}}{{index .Cmd 0}} {{$.Size}}{{end}}", Ok("sh 5"));
        check("a {{- .Size -}} b", Ok("a5b"));
        check("{{.Config.Entrypoint}} {{json .None}} {{.None}}", Ok("[] null <no value>"));
        check("{{printf \"%s/%d %v %q\" .Id .Size .Tags \"q\"}}", Ok("sha256:ab/5 [a:1 b:2] \"q\""));
        check("{{(index .Tags 0)}} {{split .Id \":\"}}", Ok("a:1 [sha256 ab]"));
        check("{{if and .Size (not .None)}}y{{end}}{{/* note */}}", Ok("y"));
        check("{{\"}}\"}}", Ok("}}"));
        check("", Ok(""));
    }

    #[test]
    fn what_is_wrong() {
        check("{{.Nope}}", Err("can't evaluate field `Nope`"));
        check("{{.Id.X}}", Err("can't evaluate field `X`"));
        check("{{", Err("unclosed action"));
        check("{{}}", Err("missing value"));
        check("{{if .Id}}", Err("without `end`"));
        check("{{end}}", Err("unexpected"));
        check("{{nope 1}}", Err("`nope` is not defined"));
        check("{{index .Tags 9}}", Err("out of range"));
        check("{{$x}}", Err("undefined variable `$x`"));
        check("{{json .Id |}}", Err("malformed"));
        check(&"{{(".repeat(500), Err("unclosed"));
        check(&"{{if .Id}}".repeat(500), Err("too deep"));
        check(&format!("{{{{{}}}}}", "(".repeat(500)), Err("malformed"));
    }
}
