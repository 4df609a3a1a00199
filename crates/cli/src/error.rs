//! Errors as people see them: what happened, what to do, and the exit code. Advice on errors of the rooms
//! below is in `advice`.

use std::process::ExitCode;

/// An error for people.
#[derive(Debug)]
pub(crate) struct CliError {
    /// What happened: one line, lowercase, no full stop; or a whole rendered diagnostic.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Exit code of the process: 1, or 125 to 127 for `run` as docker has them.
    pub code: u8,
    /// `message` is complete as it is, without `error: ` in front.
    pub rendered: bool,
}

impl CliError {
    /// An error with exit code 1.
    pub fn new(message: impl ToString) -> Self {
        Self { message: message.to_string(), hint: None, code: 1, rendered: false }
    }

    /// The same with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Writes the error to stderr.
    pub fn report(&self) -> ExitCode {
        match self.rendered {
            true => eprintln!("{}", self.message),
            false => eprintln!("error: {}", self.message),
        }
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}
