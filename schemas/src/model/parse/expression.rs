//! Where a field's value comes from.

use super::reader::{Members, Reader};
use crate::model::definition::{CastType, Expression};
use crate::yaml::{Content, Member, Yaml};

const FORMS: [&str; 4] = ["column", "constant", "concat", "coalesce"];

const KEYS: [&str; 7] = ["column", "constant", "concat", "coalesce", "separator", "cast", "doc"];

const CASTS: [(&str, CastType); 8] = [
    ("text", CastType::Text),
    ("integer", CastType::Integer),
    ("decimal", CastType::Decimal),
    ("float", CastType::Float),
    ("boolean", CastType::Boolean),
    ("date", CastType::Date),
    ("timestamp", CastType::Timestamp),
    ("json", CastType::Json),
];

/// Every cast as it is written.
pub(in crate::model) fn cast_words() -> impl Iterator<Item = &'static str> + Clone {
    CASTS.iter().map(|(word, _)| *word)
}

impl Reader<'_> {
    /// What stands behind a field's name: a column, or an expression with an optional `doc`.
    pub(super) fn field(&mut self, yaml: &Yaml) -> (Expression, Option<String>) {
        if let Content::Scalar { .. } = yaml.content {
            return (Expression::Column(self.text(yaml)), None);
        }
        let members = self.mapping(yaml, "a field", &KEYS);
        let doc = members.get("doc").map(|yaml| self.text(yaml));
        (self.form(yaml, &members), doc)
    }

    /// A column's name, or a mapping with one of [`FORMS`].
    fn part(&mut self, yaml: &Yaml) -> Expression {
        if let Content::Scalar { .. } = yaml.content {
            return Expression::Column(self.text(yaml));
        }
        let members = self.mapping(yaml, "an expression", &KEYS[..6]);
        self.form(yaml, &members)
    }

    fn form(&mut self, yaml: &Yaml, members: &Members<'_>) -> Expression {
        let mut forms: Vec<&Member> = FORMS.iter().filter_map(|form| members.member(form)).collect();
        forms.sort_by_key(|form| form.key_place);
        let expression = match forms.first() {
            None => {
                if matches!(yaml.content, Content::Mapping(_)) && !members.is_meant(&FORMS) {
                    let help = format!("write one of {}", FORMS.join(", "));
                    self.error_help(yaml.place, "nothing says where the value comes from", help);
                }
                Expression::Column(String::new())
            }
            Some(form) => {
                let value = &form.value;
                match form.key.as_str() {
                    "column" => Expression::Column(self.text(value)),
                    "constant" => Expression::Constant(self.literal(value)),
                    "concat" => Expression::Concat {
                        parts: self.parts(value),
                        separator: members.get("separator").map(|yaml| self.separator(yaml)).unwrap_or_default(),
                    },
                    _ => Expression::Coalesce(self.parts(value)),
                }
            }
        };
        for other in forms.iter().skip(1) {
            self.error(other.key_place, format!("a value comes from one place: `{}` is one too many", other.key));
        }
        if let (Some(separator), None) = (members.member("separator"), members.member("concat")) {
            self.error(separator.key_place, "`separator` belongs to `concat`");
        }
        match members.get("cast").and_then(|yaml| self.cast(yaml)) {
            Some(to) => Expression::Cast { of: Box::new(expression), to },
            None => expression,
        }
    }

    fn parts(&mut self, yaml: &Yaml) -> Vec<Expression> {
        let items = self.items(yaml, "columns and expressions");
        if items.is_empty() && matches!(yaml.content, Content::Sequence(_)) {
            self.error(yaml.place, "needs at least one part");
        }
        items.into_iter().map(|item| self.part(item)).collect()
    }

    fn separator(&mut self, yaml: &Yaml) -> String {
        match &yaml.content {
            Content::Scalar { text, .. } => text.clone(),
            _ => self.text(yaml),
        }
    }

    fn cast(&mut self, yaml: &Yaml) -> Option<CastType> {
        let word = self.text(yaml);
        let found = CASTS.iter().find(|(name, _)| *name == word).map(|(_, cast)| *cast);
        if found.is_none() {
            self.unknown(yaml.place, format!("there is no cast to `{word}`"), &word, cast_words());
        }
        found
    }
}
