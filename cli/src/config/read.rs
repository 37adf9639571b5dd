//! From the text of a YAML file to typed settings, or to diagnostics that show the line.

use std::collections::HashMap;

use headwater_schemas::{Diagnostic, nearest};
use serde::de::DeserializeOwned;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};
use serde_saphyr::{Error, Location};

/// A configuration file as text, with the name to show in messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// How messages name the file.
    pub(crate) name: &'a str,
    /// What it holds.
    pub(crate) text: &'a str,
}

/// Where `${NAME}` is looked up.
pub(crate) type Environment = HashMap<String, String>;

/// Reads `source` as `T`. `${NAME}` and `${NAME:-default}` in unquoted values are replaced from `environment` on the way;
/// replaced values never show up in messages.
pub(crate) fn read<T: DeserializeOwned>(source: Source<'_>, environment: &Environment) -> Result<T, Diagnostic> {
    refuse_quoted_variables(source)?;
    let options = serde_saphyr::options! { with_snippet: false }.with_properties(environment.clone());
    // An empty file is an empty mapping: everything has a default.
    let text = if source.text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
        "{}"
    } else {
        source.text
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(source, error.without_snippet()))
}

impl Source<'_> {
    /// What is wrong at `line` and `column`, both counted from 1.
    pub(crate) fn diagnostic(
        self,
        line: usize,
        column: usize,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Diagnostic {
        let excerpt = line.checked_sub(1).and_then(|at| self.text.lines().nth(at)).unwrap_or_default();
        Diagnostic {
            file: self.name.to_string(),
            line: line.max(1),
            column: column.max(1),
            message: message.into(),
            help,
            excerpt: excerpt.trim_end().to_string(),
        }
    }

    /// What is wrong at a place that the parser remembers.
    pub(crate) fn at(self, location: Location, message: impl Into<String>, help: Option<String>) -> Diagnostic {
        let number = |n: u64| usize::try_from(n).unwrap_or(1);
        self.diagnostic(number(location.line()), number(location.column()), message, help)
    }
}

fn explain(source: Source<'_>, error: &Error) -> Diagnostic {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let (message, help) = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`"), Some(choices(field, expected, "the keys here are")))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("`{variant}` is not possible here"), Some(choices(variant, expected, "possible are")))
        }
        Error::SerdeMissingField { field, .. } => (format!("the key `{field}` is missing"), None),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("this key");
            (format!("`{key}` stands here a second time"), Some("keep one of the two".to_string()))
        }
        Error::UnresolvedProperty { name, .. }
        | Error::PropertyRequiredButUnset { name, .. }
        | Error::PropertyRequiredButEmpty { name, .. } => (
            format!("the environment variable `{name}` is not set"),
            Some(format!("set it, or give a default: ${{{name}:-default}}")),
        ),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            (format!("expected {expected}, found {unexpected}"), None)
        }
        other => (other.render_with_formatter(&serde_saphyr::UserMessageFormatter), None),
    };
    // The parser ends some messages with the place; the diagnostic says it already.
    let message = message.split(" at line ").next().unwrap_or(&message).to_string();
    source.at(location, message, help)
}

fn choices(given: &str, expected: &[&'static str], words: &str) -> String {
    match nearest(given, expected.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{words} {}", expected.join(", ")),
    }
}

/// Variables in quotes are not replaced; taken literally they would make a wrong password at best.
fn refuse_quoted_variables(source: Source<'_>) -> Result<(), Diagnostic> {
    for event in Parser::new_from_str(source.text) {
        // What is not YAML is reported with its place by the reading itself.
        let Ok((event, span)) = event else { return Ok(()) };
        let Event::Scalar(text, style, ..) = event else { continue };
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        if quoted && text.contains("${") && !text.contains("$${") {
            return Err(source.diagnostic(
                span.start.line(),
                span.start.col() + 1,
                "a variable in quotes is not replaced",
                Some("remove the quotes; for a literal `${` write `$${`".to_string()),
            ));
        }
    }
    Ok(())
}
