//! How a table is laid out, as far as its rows depend on it: what the log does not tell of a table's definition.
//!
//! PostgreSQL sends the definition of a table before the first change that has it, and nothing when it rewrites rows,
//! calls their cells otherwise, or puts another table under the name. So the checkpoint holds the layout that each
//! table was read with, and it is compared with the catalog's whenever a source is opened, and when a relation message
//! comes. It is never compared with a message, which may be older than what was read.
//!
//! A table is read again where its number or its key is another one, or where of its columns
//!
//! * one that was there has another name or another type, or holds values now that were generated before;
//! * one has the name that another column has, or had before it was dropped;
//! * one that was there was written to the catalog anew, and the table has another file too: `ALTER … TYPE … USING` does
//!   both. `VACUUM FULL`, `CLUSTER` and `TRUNCATE` do only the one, `SET NOT NULL` and `GRANT` only the other;
//! * one was not there before, and rows of before have a value in it: the catalog holds that value for them, or the table
//!   has another file, as it gets where the value is another one in each row. That `VACUUM FULL` is taken for the latter
//!   when a column was added between the same two looks costs a reading.
//!
//! Columns that are only dropped, and new ones that are null in all rows, under names that no other had, change no row that
//! was captured: the layout is noted anew, with the names of what was dropped. A column's type says nothing of the labels of
//! an enum: those that are renamed leave no trace in the table.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::catalog::{CatalogPlace, CatalogTable};
use super::types::BPCHAR;
use crate::route::fnv;

/// A table's layout. It travels with every checkpoint, so that columns are hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// `pg_class.oid`.
    pub(crate) oid: u32,
    /// The columns by `attnum`, from 1 on, as base64: see [`Column`].
    pub(crate) columns: String,
    /// `attnum`s of the key's columns, in key order.
    pub(crate) key: Vec<i16>,
    /// Hash of the table's file, or of those of its partitions.
    pub(crate) file: u32,
    /// Of each column, by `attnum` from 1 on, whether rows of before it was added have a value in it. It counts while the
    /// column is new.
    #[serde(skip)]
    pub(crate) fills_rows: Vec<bool>,
}

/// Three bytes of a hash.
type Mark = [u8; 3];
const NONE: Mark = [0; 3];

/// One column, in nine bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    /// Of its name; of a dropped one as it was known, or else `NONE`.
    name: Mark,
    /// Of its type and the type's modifier, the same for all texts without blanks at their ends; `NONE` when it is
    /// dropped or generated.
    kind: Mark,
    /// Of the transaction that wrote its line of the catalog.
    written: Mark,
}

impl Layout {
    /// The layout of a table that the catalog describes.
    pub(crate) fn of(table: &CatalogTable) -> Self {
        let number = |name: &String| {
            let at = table.places.iter().position(|place| place.alive && place.name == *name);
            at.and_then(|at| i16::try_from(at + 1).ok())
        };
        let columns: Vec<Column> = table.places.iter().map(Column::of).collect();
        Self {
            oid: table.oid,
            columns: written(&columns),
            key: table.key().unwrap_or_default().iter().filter_map(number).collect(),
            file: fnv(table.files.as_bytes()) as u32,
            fills_rows: table.places.iter().map(|place| place.fills_rows).collect(),
        }
    }

    /// What makes rows that were captured by this layout other ones under a later one, if anything does.
    pub(crate) fn changed(&self, now: &Self) -> Option<&'static str> {
        if self.oid != now.oid {
            return Some("was replaced by another table");
        }
        if self.key != now.key {
            return Some("has another key");
        }
        let (before, after) = (self.columns(), now.columns());
        let is_taken = |at: usize, column: &Column| {
            before.iter().enumerate().any(|(other, was)| other != at && was.name == column.name)
        };
        for (at, column) in after.iter().enumerate().filter(|(_, column)| column.is_alive()) {
            let was = before.get(at);
            // One that keeps its name took it from nobody: another with this mark has another name.
            let is_kept = was.is_some_and(|was| was.is_alive() && was.name == column.name);
            if !is_kept && (is_taken(at, column) || was.is_some_and(Column::is_alive)) {
                return Some("has a column under another name");
            }
            if was.is_some_and(|was| was.kind != column.kind) {
                return Some("has a column of another type");
            }
            if self.file != now.file && was.is_some_and(|was| was.written != column.written) {
                return Some("was rewritten");
            }
            if was.is_none() && (self.file != now.file || now.fills_rows.get(at) == Some(&true)) {
                return Some("has a new column that rows of before have values in");
            }
        }
        None
    }

    /// The same with the names that its dropped columns had.
    pub(crate) fn after(self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        let mut columns = self.columns();
        for (column, was) in columns.iter_mut().zip(before.columns()).filter(|(column, _)| !column.is_alive()) {
            column.name = was.name;
        }
        Self { columns: written(&columns), ..self }
    }

    fn columns(&self) -> Vec<Column> {
        let bytes = STANDARD.decode(&self.columns).unwrap_or_default();
        let column = |bytes: &[u8]| match *bytes {
            [a, b, c, d, e, f, g, h, i] => Some(Column { name: [a, b, c], kind: [d, e, f], written: [g, h, i] }),
            _ => None,
        };
        bytes.chunks(9).filter_map(column).collect()
    }
}

impl Column {
    fn of(place: &CatalogPlace) -> Self {
        let written = mark(&place.written);
        if !place.alive {
            return Self { name: NONE, kind: NONE, written };
        }
        let kind = match place.type_oid {
            // `text` and `varchar` of any length.
            25 | 1043 => mark("text"),
            // A domain over `char(n)`: earlier versions kept its blanks, so that what they captured is to be read again.
            domain if place.is_padded && domain != BPCHAR => mark(&format!("padded {domain}:{}", place.modifier)),
            other => mark(&format!("{other}:{}", place.modifier)),
        };
        Self { name: mark(&place.name), kind, written }
    }

    fn is_alive(&self) -> bool {
        self.kind != NONE
    }
}

fn written(columns: &[Column]) -> String {
    let bytes: Vec<u8> =
        columns.iter().flat_map(|column| [column.name, column.kind, column.written].concat()).collect();
    STANDARD.encode(bytes)
}

/// Never `NONE`.
fn mark(text: &str) -> Mark {
    let hash = fnv(text.as_bytes());
    let [a, b, c, ..] = (hash ^ (hash >> 32)).to_le_bytes();
    if [a, b, c] == NONE { [1, 0, 0] } else { [a, b, c] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT: u32 = 23;
    const BIGINT: u32 = 20;
    const TEXT: u32 = 25;
    const VARCHAR: u32 = 1043;
    /// What stands for a type where a column is dropped.
    const DROPPED: u32 = 0;

    /// A layout of columns by name, type and writing transaction, with the first as the key.
    fn layout(columns: &[(&str, u32, u32)], file: u32) -> Layout {
        let column = |&(name, type_oid, xmin): &(&str, u32, u32)| {
            Column::of(&CatalogPlace {
                name: name.into(),
                alive: type_oid != DROPPED,
                type_oid,
                is_padded: false,
                modifier: -1,
                fills_rows: false,
                written: xmin.to_string(),
            })
        };
        let columns: Vec<Column> = columns.iter().map(column).collect();
        Layout { oid: 1, columns: written(&columns), key: vec![1], file, fills_rows: Vec::new() }
    }

    fn before() -> Layout {
        layout(&[("id", INT, 7), ("amount", INT, 7), ("note", TEXT, 7)], 1)
    }

    #[test]
    fn what_changes_no_row_is_harmless() {
        let id = ("id", INT, 7);
        for (now, what) in [
            (before(), "nothing"),
            (layout(&[id, ("amount", INT, 7), ("note", TEXT, 7), ("new", INT, 9)], 1), "a new column"),
            (layout(&[id, ("", DROPPED, 9), ("note", TEXT, 7)], 2), "a dropped column, another file"),
            (layout(&[id, ("amount", INT, 9), ("note", TEXT, 7)], 1), "SET NOT NULL"),
            (layout(&[id, ("amount", INT, 7), ("note", VARCHAR, 9)], 1), "another text"),
        ] {
            assert_eq!(before().changed(&now), None, "{what}");
        }
    }

    #[test]
    fn names_with_one_mark_are_no_change() {
        let columns = [("id", INT, 7), ("item_data", INT, 7), ("division_usage", INT, 7)];
        assert_eq!(mark("item_data"), mark("division_usage"), "they are here for that");
        let both = layout(&columns, 1);
        assert_eq!(both.changed(&both), None);
        assert_eq!(both.changed(&layout(&[columns[0], columns[1]], 1)), None);
    }

    #[test]
    fn what_changes_rows_is_told() {
        let (id, note) = (("id", INT, 7), ("note", TEXT, 7));
        let (name, kind) = (Some("has a column under another name"), Some("has a column of another type"));
        for (now, problem, what) in [
            (Layout { oid: 2, ..before() }, Some("was replaced by another table"), "another table"),
            (Layout { key: vec![2, 1], ..before() }, Some("has another key"), "another key"),
            (layout(&[id, ("total", INT, 9), note], 1), name, "a new name"),
            (layout(&[id, ("note", INT, 9), ("amount", TEXT, 9)], 1), name, "names that were swapped"),
            (layout(&[id, ("", DROPPED, 9), note, ("amount", INT, 9)], 1), name, "dropped and added"),
            (layout(&[id, ("amount", BIGINT, 9), note], 2), kind, "another type"),
            (layout(&[id, ("amount", INT, 9), note], 2), Some("was rewritten"), "other values"),
        ] {
            assert_eq!(before().changed(&now), problem, "{what}");
        }
        let new = |file, fills_rows| {
            let columns = [id, ("amount", INT, 7), note, ("new", INT, 9)];
            before().changed(&Layout { fills_rows: vec![false, false, false, fills_rows], ..layout(&columns, file) })
        };
        let filled = Some("has a new column that rows of before have values in");
        assert_eq!((new(1, true), new(2, false)), (filled, filled), "a default, and one that rewrote the rows");
        let known = Layout { fills_rows: vec![false, true, false], ..before() };
        assert_eq!(before().changed(&known), None, "it was there when the rows were captured");
        let generated = layout(&[id, ("amount", DROPPED, 7), note], 1);
        assert_eq!(generated.changed(&before()), kind, "generated no longer");
    }

    #[test]
    fn a_domain_that_was_captured_with_blanks_is_told() {
        let kind = |type_oid, is_padded| {
            let (name, written) = ("code".into(), "7".into());
            let place =
                CatalogPlace { name, alive: true, type_oid, is_padded, modifier: -1, fills_rows: false, written };
            Column::of(&place).kind
        };
        assert_ne!(kind(16_400, false), kind(16_400, true));
        assert_eq!(kind(BPCHAR, false), kind(BPCHAR, true), "of `char(n)` itself they never were");
    }

    #[test]
    fn the_name_of_a_dropped_column_is_kept() {
        let id = ("id", INT, 7);
        let dropped = layout(&[id, ("", DROPPED, 9), ("note", TEXT, 7)], 1).after(Some(&before()));
        let again = layout(&[id, ("", DROPPED, 9), ("note", TEXT, 7), ("amount", INT, 11)], 1);
        assert_eq!(dropped.changed(&again), Some("has a column under another name"));
        assert_eq!(dropped.clone().after(Some(&dropped)), dropped);
        let text = serde_json::to_string(&dropped).expect("a layout");
        assert_eq!(serde_json::from_str::<Layout>(&text).expect("a layout"), dropped);
    }
}
