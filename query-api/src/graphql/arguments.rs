//! Arguments as the reader gave them, with variables put in.

use std::collections::HashMap;

use apollo_compiler::Node;
use apollo_compiler::ast::Value;
use apollo_compiler::executable::Argument;
use apollo_compiler::response::{JsonMap, JsonValue};

use super::error::Problem;

/// Bytes an item of a variable takes beside its text, about.
const ITEM_BYTES: usize = 16;

/// A value of an argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Input {
    Null,
    Bool(bool),
    /// A number in the digits it was written in.
    Number(String),
    /// A text, or an item of an enum.
    Text(String),
    List(Vec<Input>),
    Object(Vec<(String, Input)>),
}

/// The argument named `name`; `None` when it was not given, or is a variable that was not given.
pub(super) fn argument(arguments: &[Node<Argument>], name: &str, variables: &JsonMap) -> Option<Input> {
    input(&arguments.iter().find(|argument| argument.name == name)?.value, variables)
}

/// The argument named `name` as a count; `None` when it was not given, or null.
pub(super) fn count(arguments: &[Node<Argument>], name: &str, variables: &JsonMap) -> Result<Option<usize>, Problem> {
    match argument(arguments, name, variables) {
        None | Some(Input::Null) => Ok(None),
        Some(input) => {
            let wrong = || Problem::new(Problem::ARGUMENT, format!("`{name}` must be a whole number from 0 up"));
            input.count().map(Some).ok_or_else(wrong)
        }
    }
}

/// Items of the argument named `name`, when it is a list; a single value stands for a list of it. Nothing is copied.
pub(super) fn length(arguments: &[Node<Argument>], name: &str, variables: &JsonMap) -> usize {
    let given = arguments.iter().find(|argument| argument.name == name).map(|argument| &*argument.value);
    match given {
        Some(Value::List(items)) => items.len(),
        Some(Value::Variable(name)) => {
            variables.get(name.as_str()).and_then(JsonValue::as_array).map_or(1, |items| items.len())
        }
        _ => 1,
    }
}

/// Bytes that each variable takes where it is put in, about.
pub(super) fn sizes(variables: &JsonMap) -> HashMap<&str, usize> {
    variables.iter().map(|(name, value)| (name.as_str(), size_of_json(value))).collect()
}

/// Bytes of all variables in these arguments, each as often as it is named: so often it is copied.
pub(super) fn size(arguments: &[Node<Argument>], sizes: &HashMap<&str, usize>) -> usize {
    arguments.iter().fold(0, |sum: usize, argument| sum.saturating_add(size_of(&argument.value, sizes)))
}

fn size_of(value: &Value, sizes: &HashMap<&str, usize>) -> usize {
    match value {
        Value::Variable(name) => sizes.get(name.as_str()).copied().unwrap_or_default(),
        Value::List(items) => items.iter().fold(0, |sum: usize, item| sum.saturating_add(size_of(item, sizes))),
        Value::Object(members) => {
            members.iter().fold(0, |sum: usize, (_, member)| sum.saturating_add(size_of(member, sizes)))
        }
        // What is written in the query's text is there once.
        _ => 0,
    }
}

fn size_of_json(value: &JsonValue) -> usize {
    let within = match value {
        JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) => 0,
        JsonValue::String(text) => text.as_str().len(),
        JsonValue::Array(items) => items.iter().map(size_of_json).sum(),
        JsonValue::Object(members) => {
            members.iter().map(|(name, member)| name.as_str().len() + size_of_json(member)).sum()
        }
    };
    within + ITEM_BYTES
}

/// A value with variables put in; `None` for a variable that was not given.
pub(super) fn input(value: &Value, variables: &JsonMap) -> Option<Input> {
    Some(match value {
        Value::Null => Input::Null,
        Value::Boolean(value) => Input::Bool(*value),
        Value::Int(number) => Input::Number(number.as_str().into()),
        Value::Float(number) => Input::Number(number.as_str().into()),
        Value::String(text) => Input::Text(text.clone()),
        Value::Enum(name) => Input::Text(name.as_str().into()),
        Value::Variable(name) => from_json(variables.get(name.as_str())?),
        // As the specification has it: an item that was not given is null in a list, and absent in an object.
        Value::List(items) => {
            Input::List(items.iter().map(|item| input(item, variables).unwrap_or(Input::Null)).collect())
        }
        Value::Object(members) => Input::Object(
            members
                .iter()
                .filter_map(|(name, value)| Some((name.as_str().to_owned(), input(value, variables)?)))
                .collect(),
        ),
    })
}

fn from_json(value: &JsonValue) -> Input {
    match value {
        JsonValue::Null => Input::Null,
        JsonValue::Bool(value) => Input::Bool(*value),
        JsonValue::Number(number) => Input::Number(number.to_string()),
        JsonValue::String(text) => Input::Text(text.as_str().into()),
        JsonValue::Array(items) => Input::List(items.iter().map(from_json).collect()),
        JsonValue::Object(members) => {
            Input::Object(members.iter().map(|(name, value)| (name.as_str().into(), from_json(value))).collect())
        }
    }
}

impl Input {
    /// A list; a single value stands for a list of it.
    pub(super) fn into_list(self) -> Vec<Input> {
        match self {
            Self::List(items) => items,
            one => vec![one],
        }
    }

    /// The text of a value that is no list, object or null.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Number(text) | Self::Text(text) => Some(text),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// A count, from 0 up.
    pub(super) fn count(&self) -> Option<usize> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}
