//! The wildcard patterns of `${v#p}`, `${v%p}` and `${v/p/r}`.
//!
//! They mean what the regular expression means that BuildKit makes of them: `*` is `.*` or `.*?`, `?` is `.`, neither
//! matches a newline, and the leftmost match that a backtracking matcher would find first wins.

use super::ExpandError;

/// Most states (pattern by value positions) that one match may have; four bytes each.
const STATES_MAX: usize = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Literal(char),
}

/// Reads a pattern. The escape is a backslash whatever the Dockerfile's escape character is.
fn parse_pattern(pattern: &str) -> Result<Vec<Token>, ExpandError> {
    let mut tokens = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => match characters.peek() {
                // `\}` and `\/` were escaped for the sake of the substitution around the pattern.
                Some('}' | '/') => continue,
                Some(&escaped @ ('*' | '?' | '\\')) => {
                    characters.next();
                    Token::Literal(escaped)
                }
                _ => return Err(ExpandError::BadPattern { pattern: pattern.to_owned() }),
            },
            other => Token::Literal(other),
        });
    }
    Ok(tokens)
}

/// Finds matches by depth-first search that never visits a state twice, so it is linear in the number of states.
struct Matcher<'a> {
    tokens: &'a [Token],
    value: &'a [char],
    greedy: bool,
    visited: Vec<u32>,
    generation: u32,
}

impl<'a> Matcher<'a> {
    fn new(tokens: &'a [Token], value: &'a [char], greedy: bool) -> Result<Self, ExpandError> {
        let states = (tokens.len() + 1).saturating_mul(value.len() + 1);
        if states > STATES_MAX {
            return Err(ExpandError::PatternTooLong {
                pattern_length: tokens.len(),
                value_length: value.len(),
            });
        }
        Ok(Self { tokens, value, greedy, visited: vec![0; states], generation: 0 })
    }

    /// End of the match that begins at `start`.
    fn match_at(&mut self, start: usize) -> Option<usize> {
        let mut open = vec![(0, start)];
        while let Some((token_at, value_at)) = open.pop() {
            let state = token_at * (self.value.len() + 1) + value_at;
            if std::mem::replace(&mut self.visited[state], self.generation) == self.generation {
                continue;
            }
            let Some(token) = self.tokens.get(token_at) else { return Some(value_at) };
            let character = self.value.get(value_at).copied();
            match token {
                Token::Literal(literal) if character == Some(*literal) => {
                    open.push((token_at + 1, value_at + 1))
                }
                Token::Literal(_) => {}
                Token::One if character.is_some_and(|c| c != '\n') => open.push((token_at + 1, value_at + 1)),
                Token::One => {}
                Token::Any => {
                    let more = character.is_some_and(|c| c != '\n').then_some((token_at, value_at + 1));
                    let enough = Some((token_at + 1, value_at));
                    // Pushed last is tried first.
                    let order = if self.greedy { [enough, more] } else { [more, enough] };
                    open.extend(order.into_iter().flatten());
                }
            }
        }
        None
    }

    /// The leftmost match at or after `from`.
    fn find(&mut self, from: usize) -> Option<(usize, usize)> {
        self.generation += 1;
        (from..=self.value.len()).find_map(|start| self.match_at(start).map(|end| (start, end)))
    }
}

pub(super) fn trim_prefix(pattern: &str, value: &str, greedy: bool) -> Result<String, ExpandError> {
    let tokens = parse_pattern(pattern)?;
    trim(&tokens, &value.chars().collect::<Vec<_>>(), greedy).map(|rest| rest.iter().collect())
}

/// The shortest or longest suffix is the shortest or longest prefix of the reversed text.
pub(super) fn trim_suffix(pattern: &str, value: &str, greedy: bool) -> Result<String, ExpandError> {
    let mut tokens = parse_pattern(pattern)?;
    tokens.reverse();
    let value = value.chars().rev().collect::<Vec<_>>();
    trim(&tokens, &value, greedy).map(|rest| rest.iter().rev().collect())
}

fn trim<'a>(tokens: &[Token], value: &'a [char], greedy: bool) -> Result<&'a [char], ExpandError> {
    let mut matcher = Matcher::new(tokens, value, greedy)?;
    matcher.generation = 1;
    let end = matcher.match_at(0).unwrap_or(0);
    Ok(value.get(end..).unwrap_or_default())
}

pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
    bytes_max: usize,
) -> Result<String, ExpandError> {
    let tokens = parse_pattern(pattern)?;
    let value = value.chars().collect::<Vec<_>>();
    let mut matcher = Matcher::new(&tokens, &value, true)?;
    let mut result = String::new();
    let mut done = 0;
    let mut from = 0;
    while from <= value.len() {
        let Some((start, end)) = matcher.find(from) else { break };
        result.extend(value.get(done..start).unwrap_or_default());
        // No second replacement for the empty match right behind a match.
        if end > done || start == 0 {
            if all {
                let matched = value.get(start..end).unwrap_or_default().iter().collect::<String>();
                push_template(&mut result, replacement, &matched);
            } else {
                result.push_str(replacement);
            }
        }
        if result.len() > bytes_max {
            return Err(ExpandError::TooLong { max: bytes_max });
        }
        done = end;
        from = end.max(from + 1);
        if !all {
            break;
        }
    }
    result.extend(value.get(done..).unwrap_or_default());
    Ok(result)
}

/// BuildKit replaces all by a function that knows `$0`, `$name` and `$$` in the replacement; a `$` gets that far when
/// it was escaped or came out of a variable.
fn push_template(result: &mut String, template: &str, matched: &str) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let (braced, inside) = match after.strip_prefix('{') {
            Some(inside) => (true, inside),
            None => (false, after),
        };
        let length = inside.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inside.len());
        let (name, behind) = inside.split_at(length);
        let behind = if braced { behind.strip_prefix('}') } else { Some(behind) };
        match behind {
            Some(behind) if !name.is_empty() => {
                if name.bytes().all(|byte| byte == b'0') {
                    result.push_str(matched);
                }
                rest = behind;
            }
            _ => {
                result.push('$');
                rest = after;
            }
        }
    }
    result.push_str(rest);
}
