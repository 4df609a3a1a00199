//! Path patterns: Go's `filepath.Match`, and the automaton that it shares with `.dockerignore`.

/// Longest pattern, in characters. Longer than any path that Linux knows, and it bounds the automaton.
const PATTERN_LENGTH_MAX: usize = 8192;

/// A pattern that Go's `filepath.Match` refuses: an open `[`, an empty class, a backslash at the end; or one that is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern `{pattern}`")]
pub struct BadPattern {
    /// As written.
    pub pattern: String,
}

/// Whether `name` matches `pattern` as a whole: `*` and `?` do not match `/`, `[a-z]` and `[^a-z]` do (as in Go), `\`
/// takes the meaning from the next character.
pub fn glob_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(Automaton::parse_glob(pattern)?.matches(name))
}

/// Whether the text holds a character that means something to [`glob_match`].
pub fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`: any character but `/`.
    One,
    /// `*`: characters but `/`.
    Star,
    /// `**` at an end: characters.
    All,
    /// Begins `**/`: nothing, or what the token behind it reads.
    MaybeDirectories,
    /// Characters up to and with a `/`.
    Directories,
    /// `[a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `^` in the middle of a `.dockerignore` pattern that is not literal. Upstream makes a regular expression of the
    /// pattern and forgets to escape it.
    Start,
}

/// A compiled pattern; matching takes time in proportion to pattern and path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Automaton {
    tokens: Vec<Token>,
}

impl Automaton {
    /// Reads a pattern as `filepath.Match` does.
    pub fn parse_glob(pattern: &str) -> Result<Self, BadPattern> {
        Self::parse(pattern, false)
    }

    /// Reads a cleaned `.dockerignore` pattern without its `!`.
    pub fn parse_ignore(pattern: &str) -> Result<Self, BadPattern> {
        Self::parse(pattern, true)
    }

    fn parse(pattern: &str, ignore: bool) -> Result<Self, BadPattern> {
        let bad = || BadPattern { pattern: pattern.chars().take(200).collect() };
        if pattern.chars().count() > PATTERN_LENGTH_MAX {
            return Err(bad());
        }
        // Only patterns with a wildcard become regular expressions upstream.
        let is_literal = !is_glob(pattern) && !pattern.contains(']');
        let mut tokens = Vec::new();
        let mut characters = pattern.chars().peekable();
        let mut at_start = true;
        while let Some(character) = characters.next() {
            match character {
                '*' if ignore && characters.peek() == Some(&'*') => {
                    characters.next();
                    let slash = characters.next_if_eq(&'/').is_some();
                    let mut rest = characters.clone();
                    let rest_is_wild = rest.any(|c| matches!(c, '*' | '?' | '[' | ']' | '\\'));
                    if characters.peek().is_none() || (at_start && !slash && !rest_is_wild) {
                        // `a/**`, and `**a`, which upstream compares as a suffix.
                        tokens.push(Token::All);
                    } else {
                        tokens.push(Token::MaybeDirectories);
                        tokens.push(Token::Directories);
                    }
                }
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::One),
                '[' => tokens.push(parse_class(&mut characters).ok_or_else(bad)?),
                '\\' => tokens.push(Token::Literal(characters.next().ok_or_else(bad)?)),
                '^' if ignore && !is_literal => tokens.push(Token::Start),
                other => tokens.push(Token::Literal(other)),
            }
            at_start = false;
        }
        Ok(Self { tokens })
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &str) -> bool {
        self.run(path.chars()).is_some_and(|states| states.last().copied().unwrap_or(false))
    }

    /// Whether something below the directory could match.
    pub fn may_match_below(&self, directory: &str) -> bool {
        let Some(states) = self.run(directory.chars().chain(['/'])) else { return false };
        states.iter().take(self.tokens.len()).any(|state| *state)
    }

    /// The states that are reached after the text; the last one means a match. `None` if there is none.
    fn run(&self, text: impl Iterator<Item = char>) -> Option<Vec<bool>> {
        let mut states = vec![false; self.tokens.len() + 1];
        let mut next = states.clone();
        *states.first_mut()? = true;
        self.follow(&mut states, true);
        for character in text {
            next.fill(false);
            let mut alive = false;
            for (at, token) in self.tokens.iter().enumerate() {
                if !states.get(at).copied().unwrap_or(false) {
                    continue;
                }
                let (stays, goes) = token.read(character);
                alive |= stays || goes;
                if stays && let Some(state) = next.get_mut(at) {
                    *state = true;
                }
                if goes && let Some(state) = next.get_mut(at + 1) {
                    *state = true;
                }
            }
            if !alive {
                return None;
            }
            std::mem::swap(&mut states, &mut next);
            self.follow(&mut states, false);
        }
        Some(states)
    }

    /// Adds the states that are reached without reading.
    fn follow(&self, states: &mut [bool], at_start: bool) {
        for (at, token) in self.tokens.iter().enumerate() {
            if !states.get(at).copied().unwrap_or(false) {
                continue;
            }
            let reached: &[usize] = match token {
                Token::Star | Token::All => &[1],
                Token::MaybeDirectories => &[1, 2],
                Token::Start if at_start => &[1],
                _ => &[],
            };
            for step in reached {
                if let Some(state) = states.get_mut(at + step) {
                    *state = true;
                }
            }
        }
    }
}

impl Token {
    /// Whether the character keeps this token, and whether it leads to the next.
    fn read(&self, character: char) -> (bool, bool) {
        match self {
            Self::Literal(literal) => (false, character == *literal),
            Self::One => (false, character != '/'),
            Self::Star => (character != '/', false),
            Self::All => (true, false),
            Self::Directories => (true, character == '/'),
            Self::MaybeDirectories | Self::Start => (false, false),
            Self::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                (false, inside != *negated)
            }
        }
    }
}

/// A class from behind its `[`, as Go reads it.
fn parse_class(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || characters.next_if_eq(&']').is_none() {
        let low = parse_class_character(characters)?;
        let high = match characters.next_if_eq(&'-') {
            Some(_) => parse_class_character(characters)?,
            None => low,
        };
        ranges.push((low, high));
        // A class must be closed, so something must follow.
        characters.peek()?;
    }
    Some(Token::Class { negated, ranges })
}

fn parse_class_character(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match characters.next()? {
        '-' | ']' => None,
        '\\' => characters.next(),
        other => Some(other),
    }
}
