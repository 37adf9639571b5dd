//! Reads the small things all parts of a model consist of, and collects what is wrong.

use super::ParseContext;
use crate::Diagnostic;
use crate::yaml::{self, Content, Place, Yaml};

pub(super) struct Reader<'a> {
    pub(super) context: &'a ParseContext,
    file: &'a str,
    lines: Vec<&'a str>,
    diagnostics: Vec<Diagnostic>,
}

/// The members of a mapping whose keys are known words.
pub(super) struct Members<'y> {
    what: &'static str,
    place: Place,
    members: &'y [yaml::Member],
    /// Known words that unknown keys were probably meant to be.
    meant: Vec<&'static str>,
}

impl<'y> Members<'y> {
    pub(super) fn get(&self, key: &str) -> Option<&'y Yaml> {
        self.member(key).map(|member| &member.value)
    }

    pub(super) fn member(&self, key: &str) -> Option<&'y yaml::Member> {
        self.members.iter().find(|member| member.key == key)
    }

    pub(super) fn required(&self, reader: &mut Reader<'_>, key: &str) -> Option<&'y Yaml> {
        let found = self.get(key);
        if found.is_none() && !self.is_meant(&[key]) {
            reader.error(self.place, format!("{} needs `{key}`", self.what));
        }
        found
    }

    /// Whether one of `keys` stands here mistyped: that it is missing need not be said as well.
    pub(super) fn is_meant(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.meant.contains(key))
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, text: &'a str, context: &'a ParseContext) -> Self {
        Self { context, file, lines: text.lines().collect(), diagnostics: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let mut diagnostics = self.diagnostics;
        diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        diagnostics
    }

    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) {
        self.push(place, message.into(), None);
    }

    pub(super) fn error_help(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(place, message.into(), Some(help.into()));
    }

    /// Reports an unknown `given`, with the nearest of `known` or all of them.
    pub(super) fn unknown<'k>(
        &mut self,
        place: Place,
        message: impl Into<String>,
        given: &str,
        known: impl IntoIterator<Item = &'k str> + Clone,
    ) {
        let help = match crate::nearest(given, known.clone()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => {
                let known: Vec<&str> = known.into_iter().collect();
                (!known.is_empty()).then(|| format!("known here: {}", known.join(", ")))
            }
        };
        self.push(place, message.into(), help);
    }

    fn push(&mut self, place: Place, message: String, help: Option<String>) {
        let excerpt = self.lines.get(place.line - 1).copied().unwrap_or_default().trim_end().to_string();
        let Place { line, column } = place;
        self.diagnostics.push(Diagnostic { file: self.file.into(), line, column, message, help, excerpt });
    }

    /// A mapping with only `known` keys.
    pub(super) fn mapping<'y>(&mut self, yaml: &'y Yaml, what: &'static str, known: &[&'static str]) -> Members<'y> {
        let members = self.entries(yaml, what);
        let mut meant = Vec::new();
        for member in members {
            if !known.contains(&member.key.as_str()) {
                let message = format!("unknown key `{}` in {what}", member.key);
                self.unknown(member.key_place, message, &member.key, known.iter().copied());
                let near = crate::nearest(&member.key, known.iter().copied());
                meant.extend(known.iter().find(|word| Some(**word) == near));
            }
        }
        Members { what, place: yaml.place, members, meant }
    }

    /// A mapping with any keys.
    pub(super) fn entries<'y>(&mut self, yaml: &'y Yaml, what: &str) -> &'y [yaml::Member] {
        match &yaml.content {
            Content::Mapping(members) => members,
            other => {
                self.error(yaml.place, format!("{what} is a mapping (`key: value`), not {}", kind_of(other)));
                &[]
            }
        }
    }

    /// The items of a list.
    pub(super) fn items<'y>(&mut self, yaml: &'y Yaml, of_what: &str) -> Vec<&'y Yaml> {
        match &yaml.content {
            Content::Sequence(items) => items.iter().collect(),
            other => {
                self.error(yaml.place, format!("expected a list of {of_what}, not {}", kind_of(other)));
                Vec::new()
            }
        }
    }

    /// The items of a list, or one thing alone.
    pub(super) fn one_or_more<'y>(&mut self, yaml: &'y Yaml) -> Vec<&'y Yaml> {
        match &yaml.content {
            Content::Sequence(items) => items.iter().collect(),
            _ => vec![yaml],
        }
    }

    /// A scalar's text, which must not be empty or null.
    pub(super) fn text(&mut self, yaml: &Yaml) -> String {
        match &yaml.content {
            Content::Scalar { text, plain } if text.is_empty() || (*plain && is_null(text)) => {
                self.error(yaml.place, "expected a text, but there is none");
                String::new()
            }
            Content::Scalar { text, .. } => text.clone(),
            other => {
                self.error(yaml.place, format!("expected a text, not {}", kind_of(other)));
                String::new()
            }
        }
    }

    /// A whole number from 1 to 2^32 - 1.
    pub(super) fn positive(&mut self, yaml: &Yaml, what: &str) -> u32 {
        if let Content::Scalar { text, plain: true } = &yaml.content
            && let Ok(n @ 1..) = text.parse()
        {
            return n;
        }
        self.error(yaml.place, format!("{what} is a whole number above zero"));
        1
    }

    /// A share in hundredths.
    pub(super) fn percent(&mut self, yaml: &Yaml) -> u32 {
        if let Content::Scalar { text, plain: true } = &yaml.content
            && let Ok(n @ ..=100) = text.parse()
        {
            return n;
        }
        self.error(yaml.place, "a share is a whole number of hundredths, from 0 to 100".to_string());
        0
    }

    /// Checks the name of a document's member.
    pub(super) fn member_name(&mut self, name: &str, place: Place) {
        let mut letters = name.bytes();
        let valid = letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            let message = format!("`{name}` cannot name a member of a document");
            self.error_help(place, message, "use a letter or `_`, then letters, digits and `_`");
        } else if name.starts_with("__") {
            self.error(place, format!("`{name}` cannot name a member: GraphQL keeps names that start with `__`"));
        }
    }
}

/// How YAML writes null.
pub(super) fn is_null(plain: &str) -> bool {
    matches!(plain, "" | "~" | "null" | "Null" | "NULL")
}

pub(super) fn kind_of(content: &Content) -> &'static str {
    match content {
        Content::Scalar { .. } => "a single value",
        Content::Sequence(_) => "a list",
        Content::Mapping(_) => "a mapping",
    }
}
