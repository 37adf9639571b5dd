//! Why a command ends without success.

use std::fmt::{self, Display};
use std::process::ExitCode;

use headwater_schemas::Diagnostic;

/// What is said on the way out, and the exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    status: u8,
    code: Option<String>,
}

/// The answer of a command.
pub(crate) type Outcome = Result<ExitCode, Failure>;

impl Failure {
    /// Something is wrong: status 1.
    pub(crate) fn new(message: impl Display) -> Self {
        Self { message: message.to_string(), status: 1, code: None }
    }

    /// It was told to stop by a signal before it was done: status 130.
    pub(crate) fn interrupted() -> Self {
        Self::new("interrupted").with_status(130)
    }

    /// A failure from an error with all its causes, behind `what` was being done.
    pub(crate) fn caused(what: impl Display, error: &dyn std::error::Error) -> Self {
        Self::new(format_args!("{what}: {}", chain(error)))
    }

    /// The same with another exit status.
    #[must_use]
    pub(crate) fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// The same, refused by a running Headwater with this `code` of its problem document.
    #[must_use]
    pub(crate) fn with_code(mut self, code: &str) -> Self {
        self.code = Some(code.to_string());
        self
    }

    /// Whether a running Headwater refused with this code.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    /// The exit status, as a number.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// The exit status.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

/// An error with its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        let texts: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        Self::new(texts.join("\n\n"))
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        vec![diagnostic].into()
    }
}
