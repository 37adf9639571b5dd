//! What is wrong with a file a person wrote, said so that they can mend it: where, what, and the remedy.

use std::fmt;

/// One thing that is wrong in one place of one file.
///
/// Displayed as
///
/// ```text
/// models/customer.yaml:7:5: unknown key `manny`
///     7 |     manny: billing.invoices
///       |     ^
///   help: did you mean `many`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named to the parser.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
    /// The line itself; empty where there is none.
    pub excerpt: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, help, excerpt } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if !excerpt.is_empty() {
            // Tabs before the column are kept, so that the caret stands under its character however wide they are.
            let indent: String = excerpt.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n{line:>5} | {excerpt}\n      | {indent}^")?;
        }
        if let Some(help) = help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
