//! Fields as a channel names them: `total`, `customer.name`, `*`, `lines[0:3].{description,amount}`.

use std::fmt;
use std::str::FromStr;

/// Paths that one pattern may stand for.
const PATHS_MAX: usize = 200;
/// Levels of braces.
const DEPTH_MAX: usize = 16;

/// A pattern of fields: one path or several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPattern {
    text: String,
    pub(super) paths: Vec<Vec<Step>>,
}

/// One name of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Step {
    /// The name, or `*` at the end of a path for every one.
    pub(super) name: String,
    /// Which elements of the array of this name.
    pub(super) slice: Option<Slice>,
}

/// Elements of an array: from this number on, and up to but without that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slice {
    /// Number of the first one, counted from 0.
    pub(crate) from: usize,
    /// Number behind the last one.
    pub(crate) to: usize,
}

impl FieldPattern {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for FieldPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for FieldPattern {
    type Err = String;

    /// # Errors
    ///
    /// What is wrong, with the remedy.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0, paths: Vec::new() };
        parser.path(&mut Vec::new(), 0)?;
        match parser.peek() {
            None => Ok(Self { text: text.to_string(), paths: parser.paths }),
            Some(other) => Err(format!("`{text}`: `{other}` cannot stand at letter {}", parser.place())),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    paths: Vec<Vec<Step>>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Number of the letter that comes next.
    fn place(&self) -> usize {
        self.text[..self.at].chars().count() + 1
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn word(&mut self, fits: impl Fn(char) -> bool) -> &str {
        let rest = &self.text[self.at..];
        let len = rest.find(|letter| !fits(letter)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn blanks(&mut self) {
        self.word(|letter| letter == ' ');
    }

    fn wrong<T>(&self, expected: &str) -> Result<T, String> {
        Err(format!("`{}`: expected {expected} at letter {}", self.text, self.place()))
    }

    /// A path that goes on behind `before`.
    fn path(&mut self, before: &mut Vec<Step>, depth: usize) -> Result<(), String> {
        let start = before.len();
        loop {
            if self.take('*') {
                before.push(Step { name: "*".into(), slice: None });
                break;
            }
            let name = self.word(|letter| letter.is_ascii_alphanumeric() || letter == '_').to_string();
            if name.is_empty() {
                return self.wrong("the name of a field, or `*`");
            }
            let slice = if self.take('[') { Some(self.slice()?) } else { None };
            before.push(Step { name, slice });
            if !self.take('.') {
                break;
            }
            if self.take('{') {
                self.braces(before, depth + 1)?;
                before.truncate(start);
                return Ok(());
            }
        }
        if self.paths.len() == PATHS_MAX {
            return Err(format!("`{}` stands for more than {PATHS_MAX} fields", self.text));
        }
        self.paths.push(before.clone());
        before.truncate(start);
        Ok(())
    }

    fn braces(&mut self, before: &mut Vec<Step>, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("`{}` has more than {DEPTH_MAX} levels of braces", self.text));
        }
        loop {
            self.blanks();
            self.path(before, depth)?;
            self.blanks();
            if self.take('}') {
                return Ok(());
            }
            if !self.take(',') {
                return self.wrong("`,` or `}`");
            }
        }
    }

    /// What stands behind `[`.
    fn slice(&mut self) -> Result<Slice, String> {
        let form = "a slice like [0:3], counted from 0 and without the last, or [:3] or [2:]";
        let mut number = |missing: usize| match self.word(|letter| letter.is_ascii_digit()) {
            "" => Some(missing),
            digits => digits.parse::<u32>().ok().map(|number| number as usize),
        };
        let from = number(0);
        let colon = self.take(':');
        let mut number = |missing: usize| match self.word(|letter| letter.is_ascii_digit()) {
            "" => Some(missing),
            digits => digits.parse::<u32>().ok().map(|number| number as usize),
        };
        let to = number(usize::MAX);
        match (from, to) {
            (Some(from), Some(to)) if colon && self.take(']') && from < to => Ok(Slice { from, to }),
            _ => self.wrong(form),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pattern: &FieldPattern) -> Vec<String> {
        let step = |step: &Step| match step.slice {
            None => step.name.clone(),
            Some(Slice { from, to: usize::MAX }) => format!("{}[{from}:]", step.name),
            Some(Slice { from, to }) => format!("{}[{from}:{to}]", step.name),
        };
        pattern.paths.iter().map(|path| path.iter().map(step).collect::<Vec<_>>().join(".")).collect()
    }

    #[test]
    fn patterns_stand_for_paths() {
        for (text, wanted) in [
            ("total", &["total"][..]),
            ("customer.name", &["customer.name"]),
            ("*", &["*"]),
            ("customer.*", &["customer.*"]),
            ("lines[0:3].{description,amount}", &["lines[0:3].description", "lines[0:3].amount"]),
            ("lines[:2]", &["lines[0:2]"]),
            ("a.{b, c[1:].{d,*} ,e}", &["a.b", "a.c[1:].d", "a.c[1:].*", "a.e"]),
        ] {
            assert_eq!(shown(&text.parse().expect(text)), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_place() {
        for (text, words) in [
            ("", "the name of a field"),
            ("a.", "the name of a field"),
            ("a..b", "letter 3"),
            ("*.a", "`.` cannot stand at letter 2"),
            ("a[3]", "a slice like"),
            ("a[3:1]", "a slice like"),
            ("a[2:2]", "a slice like"),
            ("a[-1:]", "a slice like"),
            ("a[99999999999:]", "a slice like"),
            ("a.{b", "`,` or `}`"),
            ("a.{b c}", "`,` or `}`"),
            ("a}", "`}` cannot stand"),
            ("a-b", "`-` cannot stand"),
            ("é", "the name of a field"),
        ] {
            let said = text.parse::<FieldPattern>().expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
        let many = format!("a.{{{}}}", vec!["b"; PATHS_MAX + 1].join(","));
        assert!(many.parse::<FieldPattern>().is_err());
        let deep = format!("{}a{}", "a.{".repeat(DEPTH_MAX + 1), "}".repeat(DEPTH_MAX + 1));
        assert!(deep.parse::<FieldPattern>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c*.,{}:0-9é\\[\\] ]{0,30}") {
            let _ = text.parse::<FieldPattern>();
        }
    }
}
