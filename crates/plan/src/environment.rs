//! Variables of a stage in order, and words expanded with them.

use crate::inspection::UNDEFINED_MAX;
use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::expand::{expand_for_display, expand_heredoc, expand_word, expand_words};
use mica_dockerfile::instruction::{RunMount, Word};
use mica_dockerfile::parse_run_mount;
use std::cell::{Cell, RefCell};

/// Most bytes that variables may add to one word. A line of `ENV b=$a$a` doubles a value, so forty lines would fill any
/// memory; the kernel refuses environment strings over 128 KiB anyway.
const EXPANSION_BYTES_MAX: usize = 1 << 20;

/// Most bytes that one plan may copy from variables, shells and inherited stages into its steps. Each line of a file may
/// repeat all that came before it, so a small file could ask for any amount.
const PLAN_BYTES_MAX: usize = 256 << 20;

/// Most variables of a stage. Looking one up goes through all of them.
const VARIABLES_MAX: usize = 10_000;

/// What a plan may still copy.
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    /// A whole one.
    pub fn new() -> Self {
        Self(Cell::new(PLAN_BYTES_MAX))
    }

    /// Takes some of it, or the rest.
    pub fn spend(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_sub(bytes));
    }

    /// Fails when nothing is left.
    pub fn check(&self, span: Span) -> Result<(), Diagnostic> {
        if self.0.get() > 0 {
            return Ok(());
        }
        Err(Diagnostic::error(
            span,
            format!("the steps up to here repeat more than {PLAN_BYTES_MAX} bytes of variables and stages"),
        ))
    }
}

/// Variables with their values, in the order they were first set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    entries: Vec<(String, String)>,
}

impl Environment {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets `name`, in its old place if it had one.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.entries.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value.to_string(),
            None => self.entries.push((name.to_string(), value.to_string())),
        }
    }

    /// Fails when there are more than a stage may have.
    pub fn check(&self, span: Span) -> Result<(), Diagnostic> {
        if self.entries.len() <= VARIABLES_MAX {
            return Ok(());
        }
        Err(Diagnostic::error(span, format!("the stage has more than {VARIABLES_MAX} variables")))
    }

    /// Bytes of all names and values.
    pub fn size_bytes(&self) -> usize {
        self.entries.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// All of them.
    pub fn entries(&self) -> &[(String, String)] {
        &self.entries
    }
}

/// Expands words of one instruction: all of them see the variables as they were before it.
pub(crate) struct Expander<'a> {
    /// The escape character of the file.
    pub escape: char,
    /// What variables stand for.
    pub environment: &'a Environment,
    /// What may still be copied from them.
    pub budget: &'a Budget,
    /// Takes down names that stand for nothing, with the place of the word that uses them.
    pub undefined: Option<&'a RefCell<Vec<(String, Span)>>>,
}

impl Expander<'_> {
    /// The word with quotes, escapes and variables resolved.
    pub fn word(&self, word: &Word) -> Result<String, Diagnostic> {
        self.text(&word.value, word.span)
    }

    /// The same for a text that is not a word of its own.
    pub fn text(&self, text: &str, span: Span) -> Result<String, Diagnostic> {
        self.limited(span, |lookup| expand_word(text, self.escape, lookup)).map(|expanded| expanded.text)
    }

    /// Names in the word that stand for nothing.
    pub fn undefined(&self, word: &Word) -> Vec<String> {
        let expanded = self.limited(word.span, |lookup| expand_word(&word.value, self.escape, lookup));
        expanded.map(|expanded| expanded.undefined).unwrap_or_default()
    }

    /// The words that the word becomes: an unquoted variable may hold several.
    pub fn words(&self, word: &Word) -> Result<Vec<String>, Diagnostic> {
        self.limited(word.span, |lookup| expand_words(&word.value, self.escape, lookup))
    }

    /// The body of a heredoc of COPY or ADD.
    pub fn heredoc(&self, content: &str, span: Span) -> Result<String, Diagnostic> {
        self.limited(span, |lookup| expand_heredoc(content, lookup)).map(|expanded| expanded.text)
    }

    /// The value of a `--mount`.
    pub fn mount(&self, text: &str, span: Span) -> Result<RunMount, Diagnostic> {
        self.limited(span, |lookup| {
            parse_run_mount(text, &|value| {
                expand_word(value, self.escape, lookup).map(|expanded| expanded.text)
            })
        })
    }

    /// A text for people, as written where it cannot be expanded.
    pub fn display(&self, text: &str) -> String {
        Expander { undefined: None, ..*self }
            .limited(Span::default(), |lookup| expand_for_display(text, self.escape, lookup))
            .map_or_else(|_| text.to_string(), |expanded| expanded.text)
    }

    /// Runs an expansion whose variables together give no more than [`EXPANSION_BYTES_MAX`].
    fn limited<T, E: std::fmt::Display>(
        &self,
        span: Span,
        expand: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Result<T, E>,
    ) -> Result<T, Diagnostic> {
        let given = Cell::new(0usize);
        let expanded = expand(&|name| {
            let Some(value) = self.environment.get(name) else {
                let undefined = self.undefined.map(RefCell::borrow_mut);
                if let Some(mut undefined) = undefined.filter(|names| names.len() < UNDEFINED_MAX) {
                    undefined.push((name.to_owned(), span));
                }
                return None;
            };
            given.set(given.get().saturating_add(value.len()));
            Some(if given.get() > EXPANSION_BYTES_MAX { String::new() } else { value.to_string() })
        });
        self.budget.spend(given.get());
        self.budget.check(span)?;
        if given.get() > EXPANSION_BYTES_MAX {
            return Err(Diagnostic::error(
                span,
                format!("variables add more than {EXPANSION_BYTES_MAX} bytes to this word"),
            ));
        }
        expanded.map_err(|error| Diagnostic::error(span, error.to_string()))
    }
}
