//! Variables, quotes and escapes in words, as BuildKit's `shell.Lex` reads them.
//!
//! It resembles a shell but is none: no commands, no arithmetic, no globbing. `${v#p}`, `${v%p}` and `${v/p/r}` know
//! the wildcards `*`, `?` and the escape `\`, not bracket expressions.

mod pattern;

use std::collections::HashSet;

/// Longest result of one expansion. `ENV a=$a$a` doubles with every line, so something must stop it.
const RESULT_BYTES_MAX: usize = 16 << 20;

/// Deepest nesting of `${a:-${b:-...}}`; each level is a level of the call stack.
const DEPTH_MAX: usize = 64;

/// A word after expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The result.
    pub text: String,
    /// Names that were looked up and absent, in order of appearance, each once.
    pub undefined: Vec<String>,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote without its partner.
    #[error("no closing `{quote}`")]
    UnclosedQuote {
        /// The quote.
        quote: char,
    },
    /// `${a`
    #[error("missing `}}` of a substitution")]
    MissingBrace,
    /// `${a/b`
    #[error("missing `/` of a substitution")]
    MissingSlash,
    /// `${}`, `${:`, `${{`
    #[error("bad substitution: `${{` needs a variable name")]
    BadSubstitution,
    /// `${a,}`
    #[error("unsupported modifier `{modifier}` in a substitution")]
    UnsupportedModifier {
        /// As written.
        modifier: String,
    },
    /// `${a:?message}` of an absent or empty variable.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The text after `?`, or a standard one.
        message: String,
    },
    /// A pattern with an escape that means nothing.
    #[error("invalid pattern `{pattern}` in a substitution: only `\\*`, `\\?` and `\\\\` are escapes")]
    BadPattern {
        /// As written.
        pattern: String,
    },
    /// A pattern and a value so long that matching would take too much memory.
    #[error("pattern and value too long to match: {pattern_length} and {value_length} characters")]
    PatternTooLong {
        /// Characters of the pattern.
        pattern_length: usize,
        /// Characters of the value.
        value_length: usize,
    },
    /// Substitutions within substitutions.
    #[error("substitutions nested deeper than {max}")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// A result of unreasonable size.
    #[error("expanded text longer than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
}

/// What an expansion leaves alone. The default removes quotes and escapes and replaces all variables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Quotes are understood but stay in the result.
    pub keep_quotes: bool,
    /// Escape characters stay in the result.
    pub keep_escapes: bool,
    /// Quotes are ordinary characters.
    pub ignore_quotes: bool,
    /// An absent variable stays as written instead of vanishing.
    pub keep_undefined: bool,
}

/// Expands one word: quotes and escapes removed, variables replaced, blanks kept.
pub fn expand_word(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, ExpandError> {
    expand_with(word, escape, Options::default(), lookup)
}

/// Expands a text and splits it at blanks that are not quoted. Blanks that come out of a variable split too.
pub fn expand_words(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpandError> {
    expand_words_with(word, escape, Options::default(), lookup)
}

/// Expands the body of a heredoc of COPY or ADD. Quotes mean nothing there, and the escape character is always the
/// backslash, whatever the directive says.
pub fn expand_heredoc(
    content: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, ExpandError> {
    expand_with(content, '\\', Options { ignore_quotes: true, ..Options::default() }, lookup)
}

/// Expands an instruction's text for people: quotes, escapes and absent variables stay as written.
pub fn expand_for_display(
    text: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, ExpandError> {
    let options =
        Options { keep_quotes: true, keep_escapes: true, keep_undefined: true, ignore_quotes: false };
    expand_with(text, escape, options, lookup)
}

/// [`expand_word`] with choices.
pub fn expand_with(
    word: &str,
    escape: char,
    options: Options,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Expanded, ExpandError> {
    let mut lexer = Lexer::new(word, escape, options, lookup);
    let text = lexer.read_until(None, options.keep_escapes)?;
    Ok(Expanded { text, undefined: lexer.undefined })
}

/// [`expand_words`] with choices.
pub fn expand_words_with(
    word: &str,
    escape: char,
    options: Options,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpandError> {
    let mut lexer = Lexer::new(word, escape, options, lookup);
    lexer.read_until(None, options.keep_escapes)?;
    Ok(lexer.words.finish())
}

/// Collects words. A quoted empty string alone makes no word, as upstream.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push(&mut self, character: char) {
        if character.is_whitespace() {
            if !self.current.is_empty() {
                self.done.push(std::mem::take(&mut self.current));
            }
        } else {
            self.current.push(character);
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Lexer<'a> {
    rest: &'a str,
    escape: char,
    options: Options,
    keep_escapes: bool,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    undefined: Vec<String>,
    undefined_seen: HashSet<String>,
    depth: usize,
    /// Bytes made so far at all levels together; bounds work as well as memory.
    made_bytes: usize,
    /// Words of the outermost level.
    words: Words,
}

impl<'a> Lexer<'a> {
    fn new(
        word: &'a str,
        escape: char,
        options: Options,
        lookup: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            rest: word,
            escape,
            options,
            keep_escapes: options.keep_escapes,
            lookup,
            undefined: Vec::new(),
            undefined_seen: HashSet::new(),
            depth: 0,
            made_bytes: 0,
            words: Words::default(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let character = characters.next();
        self.rest = characters.as_str();
        character
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        if value.is_none() && self.undefined_seen.insert(name.to_owned()) {
            self.undefined.push(name.to_owned());
        }
        value
    }

    fn made(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.made_bytes = self.made_bytes.saturating_add(bytes);
        if self.made_bytes > RESULT_BYTES_MAX {
            return Err(ExpandError::TooLong { max: RESULT_BYTES_MAX });
        }
        Ok(())
    }

    /// Reads to the end, or past `stop`, with that treatment of escapes.
    fn read_until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<String, ExpandError> {
        let before = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        self.depth += 1;
        if self.depth > 1 {
            // BuildKit forgets the word that a substitution with an operator stands in: splitting `a${X:-b}c` gives
            // `bc`. That shows in images (EXPOSE), so it is kept; single words are not affected.
            self.words.current.clear();
        }
        let result = if self.depth > DEPTH_MAX {
            Err(ExpandError::TooDeep { max: DEPTH_MAX })
        } else {
            self.read_until_inner(stop)
        };
        self.depth -= 1;
        self.keep_escapes = before;
        result
    }

    fn read_until_inner(&mut self, stop: Option<char>) -> Result<String, ExpandError> {
        let outermost = self.depth == 1;
        let mut result = String::new();
        while let Some(character) = self.peek() {
            if stop == Some(character) {
                self.next();
                return Ok(result);
            }
            match character {
                '$' => {
                    let text = self.read_dollar()?;
                    self.made(text.len())?;
                    if outermost {
                        text.chars().for_each(|character| self.words.push(character));
                    }
                    result.push_str(&text);
                }
                '\'' | '"' if !self.options.ignore_quotes => {
                    let text =
                        if character == '"' { self.read_double_quote()? } else { self.read_single_quote()? };
                    self.made(text.len())?;
                    if outermost {
                        self.words.current.push_str(&text);
                    }
                    result.push_str(&text);
                }
                '<' if self.rest.starts_with("<<") => {
                    // Blanks between `<<` and the delimiter of a heredoc do not split.
                    let after = self.rest.get(2..).unwrap_or_default();
                    let (mark, rest) = self.rest.split_at(self.rest.len() - after.trim_start().len());
                    self.rest = rest;
                    if outermost {
                        self.words.current.push_str(mark);
                    }
                    result.push_str(mark);
                }
                _ if character == self.escape => {
                    self.next();
                    if self.keep_escapes {
                        if outermost {
                            self.words.current.push(character);
                        }
                        result.push(character);
                    }
                    // An escape at the very end is dropped.
                    let Some(escaped) = self.next() else { break };
                    if outermost {
                        self.words.current.push(escaped);
                    }
                    result.push(escaped);
                }
                _ => {
                    self.next();
                    if outermost {
                        self.words.push(character);
                    }
                    result.push(character);
                }
            }
        }
        match stop {
            None => Ok(result),
            Some('/') => Err(ExpandError::MissingSlash),
            Some(_) => Err(ExpandError::MissingBrace),
        }
    }

    fn read_single_quote(&mut self) -> Result<String, ExpandError> {
        self.next();
        let Some(length) = self.rest.find('\'') else {
            self.rest = "";
            return Err(ExpandError::UnclosedQuote { quote: '\'' });
        };
        let (inside, after) = self.rest.split_at(length);
        self.rest = after;
        self.next();
        Ok(if self.options.keep_quotes { format!("'{inside}'") } else { inside.to_owned() })
    }

    fn read_double_quote(&mut self) -> Result<String, ExpandError> {
        self.next();
        let mut result = String::new();
        if self.options.keep_quotes {
            result.push('"');
        }
        loop {
            match self.peek() {
                None => return Err(ExpandError::UnclosedQuote { quote: '"' }),
                Some('"') => {
                    self.next();
                    if self.options.keep_quotes {
                        result.push('"');
                    }
                    return Ok(result);
                }
                Some('$') => {
                    let text = self.read_dollar()?;
                    self.made(text.len())?;
                    result.push_str(&text);
                }
                Some(character) => {
                    self.next();
                    let mut character = character;
                    if character == self.escape {
                        if self.keep_escapes {
                            result.push(character);
                        }
                        match self.peek() {
                            None => continue,
                            // Only these can be escaped; before all else the escape stands for itself.
                            Some(next) if next == '"' || next == '$' || next == self.escape => {
                                self.next();
                                character = next;
                            }
                            Some(_) => {}
                        }
                    }
                    result.push(character);
                }
            }
        }
    }

    /// Letters, digits and `_`; or digits alone; or one special parameter.
    fn read_name(&mut self) -> String {
        let length = match self.peek() {
            Some(first) if first.is_ascii_digit() => {
                self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len())
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len()),
        };
        let (name, after) = self.rest.split_at(length);
        self.rest = after;
        name.to_owned()
    }

    fn read_dollar(&mut self) -> Result<String, ExpandError> {
        self.next();
        let keep_undefined = self.options.keep_undefined;
        if self.peek() != Some('{') {
            let name = self.read_name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.get(&name) {
                Some(value) => value,
                None if keep_undefined => format!("${name}"),
                None => String::new(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.read_name();
        match self.next() {
            None => Err(ExpandError::MissingBrace),
            Some('}') => Ok(match self.get(&name) {
                Some(value) => value,
                None if keep_undefined => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let operator = self.next();
                self.read_operator(&name, operator, true)
            }
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => {
                self.read_operator(&name, Some(operator), false)
            }
            Some('/') => self.read_replacement(&name),
            Some(other) => Err(ExpandError::UnsupportedModifier { modifier: other.to_string() }),
        }
    }

    /// `${name-word}` and its kin, from behind the operator. With `empty_is_unset` a colon stood before it.
    fn read_operator(
        &mut self,
        name: &str,
        operator: Option<char>,
        empty_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let keep_escapes = matches!(operator, Some('#' | '%'));
        let word = self.read_until(Some('}'), keep_escapes)?;
        let operator = operator.ok_or(ExpandError::MissingBrace)?;
        let colon = if empty_is_unset { ":" } else { "" };
        let value = self.get(name);
        if value.is_none() && self.options.keep_undefined {
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let usable = value.as_ref().is_some_and(|value| !(empty_is_unset && value.is_empty()));
        let is_set = value.is_some();
        let value = value.unwrap_or_default();
        match operator {
            '-' => Ok(if usable { value } else { word }),
            '+' => Ok(if usable { word } else { String::new() }),
            '?' if usable => Ok(value),
            '?' => {
                let standard =
                    if is_set { "is not allowed to be empty" } else { "is not allowed to be unset" };
                let message = if word.is_empty() { standard.to_owned() } else { word };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
            '#' | '%' if !empty_is_unset => {
                let (pattern, greedy) = match word.strip_prefix(operator) {
                    Some(rest) => (rest, true),
                    None => (word.as_str(), false),
                };
                if operator == '#' {
                    pattern::trim_prefix(pattern, &value, greedy)
                } else {
                    pattern::trim_suffix(pattern, &value, greedy)
                }
            }
            other => Err(ExpandError::UnsupportedModifier { modifier: format!("{colon}{other}") }),
        }
    }

    /// `${name/pattern/replacement}` from behind the first slash.
    fn read_replacement(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.read_until(Some('/'), true)?;
        let replacement = self.read_until(Some('}'), true)?;
        let value = self.get(name);
        if value.is_none() && self.options.keep_undefined {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        pattern::replace(&pattern, &value, &replacement, all, RESULT_BYTES_MAX)
    }
}
