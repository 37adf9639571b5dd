//! What `contains` asks: a look into the texts of documents, for no index tells of it.

use headwater_schemas::{ValueRef, key};
use headwater_store::Filter;

use super::condition::{Condition, Wanted};
use crate::access::Visibility;
use crate::projection::{Torn, any_text};

/// Every `contains` on one index: one text has all of these parts.
#[derive(Debug)]
pub(super) struct Containing {
    index: u16,
    path: Vec<Vec<u8>>,
    parts: Vec<String>,
    /// What else is asked of that text. On a path through an array the index says only that some element meets it.
    within: Option<Filter>,
}

impl Containing {
    /// What these conditions ask; `filters`: what the store checks of them.
    pub(super) fn of(visibility: &Visibility, conditions: &[Condition], filters: &[Filter]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for condition in conditions {
            let Wanted::Containing(part) = &condition.wanted else { continue };
            if let Some(known) = all.iter_mut().find(|known| known.index == condition.index) {
                known.parts.push(part.clone());
                continue;
            }
            let Some(declared) = visibility.numbered(condition.index) else { continue };
            let is_of_same = |filter: &&Filter| filter.index == condition.index && !filter.negated;
            all.push(Self {
                index: condition.index,
                path: declared.name.split('.').map(|name| name.as_bytes().to_vec()).collect(),
                parts: vec![part.clone()],
                within: filters.iter().find(is_of_same).filter(|_| declared.many).cloned(),
            });
        }
        all
    }

    /// Whether a stored document has such a text.
    pub(super) fn is_met(&self, document: &[u8]) -> Result<bool, Torn> {
        any_text(document, &self.path, &|text: &str| {
            self.parts.iter().all(|part| text.contains(part.as_str()))
                && self.within.as_ref().is_none_or(|filter| filter.within(&key::of(ValueRef::Text(text))))
        })
    }
}

#[cfg(test)]
mod tests {
    use headwater_schemas::ColumnType;
    use headwater_schemas::model::{IndexShape, ModelShape, Operator};
    use headwater_store::VersionId;

    use super::super::list::filters;
    use super::*;

    #[test]
    fn one_text_meets_everything_that_is_asked_of_its_path() {
        let shape = ModelShape {
            model: "invoice".into(),
            version: 1,
            doc: None,
            key: vec![ColumnType::Int64],
            fields: Vec::new(),
            indexes: vec![IndexShape { name: "lines.code".into(), kind: ColumnType::Text, many: true }],
        };
        let visibility = Visibility::everything(VersionId(1), shape);
        let is_met = |asked: &[(Operator, &str)], document: &str| {
            let condition = |(operator, value): &(Operator, &str)| {
                Condition::new(&visibility, "lines.code", *operator, vec![value.to_string()], "filter").expect("valid")
            };
            let conditions: Vec<Condition> = asked.iter().map(condition).collect();
            let all = Containing::of(&visibility, &conditions, &filters(&conditions));
            assert_eq!(all.len(), 1, "{asked:?}");
            all[0].is_met(document.as_bytes()).expect("whole")
        };
        use Operator::{Contains, Exists, Gte, Ne, StartsWith};
        let apart = r#"{"lines":[{"code":"TALK-MIN"},{"code":null},{"code":"DATA-FLAT"}]}"#;
        let together = r#"{"lines":[{"code":"DATA-MIN"},{"code":"TALK-FLAT"}]}"#;
        for asked in [
            &[(StartsWith, "TALK"), (Contains, "FLAT")][..],
            &[(Contains, "FLAT"), (Contains, "TALK")],
            &[(Contains, "FLAT"), (Gte, "E"), (Gte, "F")],
        ] {
            assert!(!is_met(asked, apart) && is_met(asked, together), "{asked:?}");
        }
        assert!(!is_met(&[(Exists, "false"), (Contains, "FLAT")], apart), "null has no text");
        // That no element is so is asked of all of them together, which the store does.
        assert!(is_met(&[(Ne, "DATA-FLAT"), (Contains, "FLAT")], apart));
    }
}
