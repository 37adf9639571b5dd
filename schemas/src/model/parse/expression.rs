//! Where a field's value comes from.

use super::reader::Reader;
use crate::model::definition::{CastType, Expression};
use crate::yaml::{Content, Yaml};

const FORMS: [&str; 4] = ["column", "constant", "concat", "coalesce"];

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
        let members =
            self.mapping(yaml, "a field", &["column", "constant", "concat", "coalesce", "separator", "cast", "doc"]);
        let doc = members.get("doc").map(|yaml| self.text(yaml));
        (self.form(yaml), doc)
    }

    /// A column's name, or a mapping with one of [`FORMS`].
    fn part(&mut self, yaml: &Yaml) -> Expression {
        match yaml.content {
            Content::Scalar { .. } => Expression::Column(self.text(yaml)),
            _ => {
                self.mapping(yaml, "an expression", &["column", "constant", "concat", "coalesce", "separator", "cast"]);
                self.form(yaml)
            }
        }
    }

    fn form(&mut self, yaml: &Yaml) -> Expression {
        let Content::Mapping(members) = &yaml.content else { return Expression::Column(String::new()) };
        let member = |key: &str| members.iter().find(|member| member.key == key);
        let mut forms = members.iter().filter(|member| FORMS.contains(&member.key.as_str()));
        let expression = match forms.next() {
            None => {
                let help = format!("write one of {}", FORMS.join(", "));
                self.error_help(yaml.place, "nothing says where the value comes from", help);
                Expression::Column(String::new())
            }
            Some(form) => {
                let value = &form.value;
                match form.key.as_str() {
                    "column" => Expression::Column(self.text(value)),
                    "constant" => Expression::Constant(self.literal(value)),
                    "concat" => Expression::Concat {
                        parts: self.parts(value),
                        separator: member("separator").map(|member| self.separator(&member.value)).unwrap_or_default(),
                    },
                    _ => Expression::Coalesce(self.parts(value)),
                }
            }
        };
        for other in forms {
            self.error(other.key_place, format!("a value comes from one place: `{}` is one too many", other.key));
        }
        if let (Some(separator), None) = (member("separator"), member("concat")) {
            self.error(separator.key_place, "`separator` belongs to `concat`");
        }
        match member("cast").and_then(|member| self.cast(&member.value)) {
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
