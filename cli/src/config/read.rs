//! From the text of a YAML file to typed settings, or to diagnostics that show the line.

use std::collections::HashMap;

use headwater_schemas::{Diagnostic, nearest};
use serde::Deserialize;
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

/// What a reading gave.
pub(super) enum Reading<T> {
    /// All of it.
    Done(T),
    /// The value of this variable is missing; `told` says so, with the place.
    Unset { name: String, told: Diagnostic },
}

/// Reads `source` as `T`. `${NAME}` and `${NAME:-default}` in unquoted values are replaced from `environment` on the way;
/// replaced values never show up in messages.
pub(crate) fn read<T: DeserializeOwned>(source: Source<'_>, environment: &Environment) -> Result<T, Diagnostic> {
    match try_read(source, environment)? {
        Reading::Done(done) => Ok(done),
        Reading::Unset { told, .. } => Err(told),
    }
}

/// [`read`], where it matters whether nothing but a variable is missing.
pub(super) fn try_read<T: DeserializeOwned>(
    source: Source<'_>,
    environment: &Environment,
) -> Result<Reading<T>, Diagnostic> {
    refuse_quoted_variables(source)?;
    let options = serde_saphyr::options! { with_snippet: false }.with_properties(environment.clone());
    // An empty file is an empty mapping: everything has a default.
    let text = if source.text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#')) {
        "{}"
    } else {
        source.text
    };
    serde_saphyr::from_str_with_options(text, options).map(Reading::Done).or_else(|error| {
        let error = error.without_snippet();
        let told = explain(source, error);
        match error {
            Error::UnresolvedProperty { name, .. }
            | Error::PropertyRequiredButUnset { name, .. }
            | Error::PropertyRequiredButEmpty { name, .. } => Ok(Reading::Unset { name: name.clone(), told }),
            _ => Err(told),
        }
    })
}

/// The value of the key `source` of a connector's file, whatever other values lack; `None` where it cannot be had.
pub(super) fn source_name(source: Source<'_>, environment: &Environment) -> Option<String> {
    /// Stands for what is not set. No name of a source holds it.
    const UNSET: &str = "?";
    #[derive(Deserialize)]
    struct Named {
        source: String,
    }
    let mut environment = environment.clone();
    loop {
        match try_read::<Named>(source, &environment).ok()? {
            Reading::Done(named) => return Some(named.source).filter(|name| !name.contains(UNSET)),
            // Each time another one: what stays unset although it is set will not be had.
            Reading::Unset { name, .. } => match environment.insert(name, UNSET.into()) {
                Some(value) if value == UNSET => return None,
                _ => {}
            },
        }
    }
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

    /// Line and column of the key of a dotted path, as `postgres.tls.ca`, or of the nearest one above it that is there; the
    /// beginning of the file where none is.
    pub(super) fn place_of(self, path: &str) -> (usize, usize) {
        let wanted: Vec<&str> = path.split('.').collect();
        let (mut keys, mut found, mut depth_found) = (Keys::default(), (1, 1), 0);
        for event in Parser::new_from_str(self.text) {
            let Ok((event, span)) = event else { break };
            let depth = match keys.pass(&event) {
                true => keys.open.len(),
                false => continue,
            };
            let is_on_the_way = keys.open.iter().map(|open| open.key.as_str()).eq(wanted.iter().take(depth).copied());
            if is_on_the_way && depth > depth_found {
                (found, depth_found) = ((span.start.line(), span.start.col() + 1), depth);
            }
        }
        found
    }

    /// What is wrong at a place that the parser remembers.
    pub(crate) fn at(self, location: Location, message: impl Into<String>, help: Option<String>) -> Diagnostic {
        let number = |n: u64| usize::try_from(n).unwrap_or(1);
        self.diagnostic(number(location.line()), number(location.column()), message, help)
    }
}

/// Where a parser's events stand, as far as keys of mappings say it.
#[derive(Default)]
struct Keys {
    /// The mappings and lists that are open, from the outermost.
    open: Vec<Open>,
}

#[derive(Default)]
struct Open {
    is_mapping: bool,
    /// Whether what comes next is a value.
    value_is_next: bool,
    /// Of a mapping, the key that was last seen; of a list nothing.
    key: String,
}

impl Keys {
    /// Goes on by an event; says whether it is a key.
    fn pass(&mut self, event: &Event<'_>) -> bool {
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                self.open.push(Open { is_mapping: matches!(event, Event::MappingStart(..)), ..Open::default() });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.open.pop();
                self.passed_value();
            }
            Event::Scalar(text, ..) => match self.open.last_mut() {
                Some(open) if open.is_mapping && !open.value_is_next => {
                    (open.key, open.value_is_next) = (text.to_string(), true);
                    return true;
                }
                _ => self.passed_value(),
            },
            Event::Alias(..) => self.passed_value(),
            _ => {}
        }
        false
    }

    fn passed_value(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.value_is_next = false;
        }
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
