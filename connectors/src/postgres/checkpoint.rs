//! What must be known to go on after a restart, stored with the events it belongs to.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_schemas::SourcePosition;
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::lsn::Lsn;
use crate::Error;

/// The checkpoint of a PostgreSQL source, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Rises when the slot had to be made anew, or a table was out of the publication for a while.
    pub(crate) epoch: u32,
    pub(crate) slot: String,
    /// The cluster's system identifier.
    pub(crate) system: String,
    /// The timeline on which its log was last found to have all that is captured; 0: it was not looked.
    #[serde(default, rename = "followed_timeline")]
    pub(crate) timeline: u32,
    /// Where the slot began: the state that its exported snapshot showed.
    pub(crate) consistent_point: Lsn,
    /// Commit position of the last captured transaction; see [`SourcePosition`].
    pub(crate) commit: Lsn,
    /// Ordinal within it.
    pub(crate) ordinal: u32,
    /// Where to stream on from: everything before is captured.
    pub(crate) resume: Lsn,
    /// Source time to which capture was complete.
    pub(crate) at_micros: i64,
    /// While rows are to be read again that were captured before: how far they are complete as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Held>,
    /// The transaction that wrote the publication's line of the catalog; 0: it was not looked. Another one later on means
    /// that the publication may have left changes out in between.
    #[serde(default)]
    pub(crate) publication_written: u32,
    /// Over how many partitions the keys of every table are spread; 0: it was not noted. With another number a key stands
    /// in another partition, and nothing says which of its changes is to be read first.
    #[serde(default)]
    pub(crate) partitions: u32,
    /// Snapshots of tables, by `schema.table`.
    pub(crate) tables: BTreeMap<String, TableSnapshot>,
}

/// Where the source was last complete, and the source's time there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    epoch: u32,
    commit: Lsn,
    ordinal: u32,
    at_micros: i64,
}

/// How far a table's snapshot is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableSnapshot {
    /// All rows are read.
    pub(crate) complete: bool,
    /// Blocks that are read while it is not complete: from, to (exclusive), ascending and apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocks: Vec<(u64, u64)>,
    /// The table's file when they were read: another file has its rows in other places.
    #[serde(default)]
    pub(crate) filenode: u32,
    /// Transactions from this one on may have changed rows after they were read.
    #[serde(default)]
    pub(crate) horizon: u64,
    /// Every transaction that committed before is in what was read, as far as the table goes.
    #[serde(default)]
    pub(crate) covers: Lsn,
    /// What publishes the table. Something else later on means that it was published by nothing in between.
    #[serde(default)]
    pub(crate) published_by: u32,
    /// How the table was laid out when it was read, or looked at since; `None`: it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layout: Option<Layout>,
    /// Changes passed by without being captured, or the key became another: it is to be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) left: bool,
}

impl Checkpoint {
    pub(crate) fn position(&self) -> SourcePosition {
        SourcePosition { epoch: self.epoch, commit: self.commit.0, ordinal: self.ordinal }
    }

    /// Up to where, and up to which source time, all that was captured is complete: not where capture stands, while rows
    /// are to be read again.
    pub(crate) fn complete(&self) -> (SourcePosition, i64) {
        let at = self.held.unwrap_or(self.now());
        (SourcePosition { epoch: at.epoch, commit: at.commit.0, ordinal: at.ordinal }, at.at_micros)
    }

    fn now(&self) -> Held {
        Held { epoch: self.epoch, commit: self.commit, ordinal: self.ordinal, at_micros: self.at_micros }
    }

    /// Rows are to be read again: until then nothing is complete beyond here. Answers with where that is.
    pub(crate) fn hold(&mut self) -> Held {
        *self.held.get_or_insert(self.now())
    }

    /// Everything before `lsn` is captured.
    pub(crate) fn advance_to(&mut self, lsn: Lsn) {
        if lsn > self.resume {
            (self.commit, self.ordinal, self.resume) = (lsn, 0, lsn);
        }
    }

    /// The transaction that committed at `commit`, whose commit record ends at `end`, is captured.
    pub(crate) fn advance_past_commit(&mut self, commit: Lsn, end: Lsn) {
        let position = SourcePosition::after_commit(self.epoch, commit.0);
        if position > self.position() {
            (self.commit, self.ordinal) = (commit, position.ordinal);
        }
        self.resume = self.resume.max(end);
    }

    /// The end of what of the log is captured: by streaming, or by what was read of a table.
    pub(crate) fn captured(&self) -> Lsn {
        self.tables.values().map(|state| state.covers).fold(self.resume, Lsn::max)
    }

    /// Compares what is known of tables with those that are captured now, by name, each with what publishes it and how
    /// it is laid out; answers with those of which changes may have passed by, or whose rows became other ones, and
    /// why. For them the log is no continuation of what was captured: they are to be read again in a new epoch, above
    /// all that is known of them. So are all when the publication was `written` since, see [`Self::publication_written`],
    /// or keys are spread over another number of partitions, see [`Self::partitions`].
    pub(crate) fn compare_tables(
        &mut self,
        captured: &BTreeMap<String, (u32, Layout)>,
        partitions: u32,
        written: u32,
    ) -> Vec<(String, &'static str)> {
        let mut again = Vec::new();
        let altered = self.is_publication_altered(written);
        let is_spread_anew = self.partitions != 0 && self.partitions != partitions;
        (self.publication_written, self.partitions) = (written, partitions);
        for (name, state) in &mut self.tables {
            let Some((by, layout)) = captured.get(name) else {
                state.left = true;
                continue;
            };
            let problem = if state.left || state.is_published_anew(*by) {
                Some("was not captured for a while")
            } else if altered {
                Some("may have been published in part for a while")
            } else if is_spread_anew {
                Some("was spread over another number of partitions")
            } else {
                state.compare_layout(layout)
            };
            if let Some(problem) = problem {
                again.push((name.clone(), problem));
                *state = TableSnapshot::default();
            }
            state.published_by = *by;
        }
        if !again.is_empty() {
            self.hold();
            self.epoch += 1;
            // What was read in the epoch before stands below the new one: whoever ends reading a table there clears it.
            for state in self.tables.values_mut().filter(|state| !state.complete && !state.left) {
                *state = TableSnapshot { published_by: state.published_by, ..TableSnapshot::default() };
            }
        }
        again
    }

    /// Notes that changes of a table pass by. One of which nothing is known is read in any case.
    pub(crate) fn leave(&mut self, table: &str) {
        if let Some(state) = self.tables.get_mut(table) {
            state.left = true;
        }
    }

    /// Every transaction that committed before is in what was read of a table.
    pub(crate) fn covers(&self, table: &str) -> Lsn {
        self.tables.get(table).map(|state| state.covers).unwrap_or_default()
    }

    /// Compares how a captured table is laid out now with what is noted; see [`TableSnapshot::compare_layout`].
    pub(crate) fn compare_layout(&mut self, table: &str, now: &Layout) -> Option<&'static str> {
        self.tables.get_mut(table)?.compare_layout(now)
    }

    /// Whether another entry publishes a table than the one that did.
    pub(crate) fn is_published_anew(&self, table: &str, by: u32) -> bool {
        self.tables.get(table).is_some_and(|state| state.is_published_anew(by))
    }

    /// Whether the publication was written since it was looked at.
    pub(crate) fn is_publication_altered(&self, written: u32) -> bool {
        self.publication_written != 0 && self.publication_written != written
    }

    /// The table that was captured as the relation of this number.
    pub(crate) fn table_of(&self, oid: u32) -> Option<&str> {
        let mut captured = self.tables.iter().filter(|(_, state)| !state.left);
        let found = captured.find(|(_, state)| state.layout.as_ref().is_some_and(|layout| layout.oid == oid));
        found.map(|(name, _)| name.as_str())
    }

    /// Whether a table was captured as a relation of another number.
    pub(crate) fn is_replaced(&self, table: &str, oid: u32) -> bool {
        let layout = self.tables.get(table).and_then(|state| state.layout.as_ref());
        layout.is_some_and(|layout| layout.oid != oid)
    }

    /// Whether changes of a table passed by.
    pub(crate) fn has_left(&self, table: &str) -> bool {
        self.tables.get(table).is_some_and(|state| state.left)
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("text keys and plain values always serialise").into()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::Unsafe {
            problem: format!("the checkpoint in the log cannot be read ({error})"),
            remedy: "it was written by another version or another kind of connector: use a source name of its own"
                .into(),
        })
    }
}

impl TableSnapshot {
    /// Whether another entry publishes the table than the one that did: in between none did.
    fn is_published_anew(&self, by: u32) -> bool {
        self.published_by != 0 && self.published_by != by
    }

    /// What in a table's layout makes rows that were captured other ones. If nothing does, the layout is noted.
    pub(crate) fn compare_layout(&mut self, now: &Layout) -> Option<&'static str> {
        let problem = self.layout.as_ref().and_then(|noted| noted.changed(now));
        if problem.is_none() {
            self.layout = Some(now.clone().after(self.layout.as_ref()));
        }
        problem
    }

    /// Takes note that blocks `from..to` are read.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        self.blocks.push((from, to));
        self.blocks.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.blocks.len());
        for (from, to) in self.blocks.drain(..) {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        self.blocks = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint<const N: usize>(tables: [(&str, TableSnapshot); N]) -> Checkpoint {
        Checkpoint {
            epoch: 1,
            slot: "s".into(),
            system: "1".into(),
            timeline: 1,
            consistent_point: Lsn(1),
            commit: Lsn(1),
            ordinal: 0,
            resume: Lsn(1),
            at_micros: 0,
            held: None,
            publication_written: 7,
            partitions: 4,
            tables: tables.map(|(name, state)| (name.to_owned(), state)).into(),
        }
    }

    #[test]
    fn a_new_epoch_keeps_nothing_that_is_half_read() {
        let table = |complete, published_by| TableSnapshot {
            complete,
            blocks: if complete { vec![] } else { vec![(0, 10)] },
            published_by,
            ..TableSnapshot::default()
        };
        let tables = [("read", table(true, 1)), ("half", table(false, 2)), ("gone", table(true, 3))];
        let mut checkpoint = checkpoint(tables);
        let captured = |published: &[(&str, u32)]| -> BTreeMap<String, (u32, Layout)> {
            published.iter().map(|(name, by)| ((*name).to_owned(), (*by, Layout::default()))).collect()
        };
        let again = "was not captured for a while";
        assert!(checkpoint.compare_tables(&captured(&[("read", 1), ("half", 2)]), 4, 7).is_empty());
        assert!(checkpoint.has_left("gone") && checkpoint.epoch == 1 && !checkpoint.tables["half"].blocks.is_empty());
        assert_eq!(
            checkpoint.compare_tables(&captured(&[("read", 1), ("half", 2), ("gone", 3)]), 4, 7),
            [("gone".to_owned(), again)]
        );
        assert!(checkpoint.epoch == 2 && checkpoint.tables["read"].complete && !checkpoint.tables["gone"].complete);
        assert_eq!(checkpoint.complete().0, SourcePosition { epoch: 1, commit: 1, ordinal: 0 });
        assert_eq!(checkpoint.tables["half"], TableSnapshot { published_by: 2, ..TableSnapshot::default() });
        assert_eq!(
            checkpoint.compare_tables(&captured(&[("read", 9), ("half", 2), ("gone", 3)]), 4, 7),
            [("read".to_owned(), again)]
        );
    }

    #[test]
    fn a_table_of_another_layout_is_to_be_read_again() {
        let table = || TableSnapshot { complete: true, published_by: 1, ..TableSnapshot::default() };
        let mut checkpoint = checkpoint([("changed", table()), ("same", table())]);
        let captured = |oid| -> BTreeMap<String, (u32, Layout)> {
            let layouts = [("changed", oid), ("same", 2)];
            layouts.map(|(name, oid)| (name.to_owned(), (1, Layout { oid, ..Layout::default() }))).into()
        };
        assert!(
            checkpoint.compare_tables(&captured(1), 4, 7).is_empty(),
            "a checkpoint of an older version has no layouts"
        );
        assert_eq!((checkpoint.table_of(1), checkpoint.table_of(2)), (Some("changed"), Some("same")));
        assert!(checkpoint.compare_tables(&captured(1), 4, 7).is_empty());
        let problem = "was replaced by another table";
        assert_eq!(checkpoint.compare_tables(&captured(3), 4, 7), [("changed".to_owned(), problem)]);
        assert!(checkpoint.epoch == 2 && checkpoint.tables["same"].complete && !checkpoint.tables["changed"].complete);
    }

    #[test]
    fn a_table_that_is_spread_over_another_number_of_partitions_is_to_be_read_again() {
        let table = |complete| TableSnapshot {
            complete,
            blocks: if complete { vec![] } else { vec![(0, 10)] },
            published_by: 1,
            ..TableSnapshot::default()
        };
        let mut checkpoint = checkpoint([("of before", table(true)), ("read", table(true))]);
        checkpoint.partitions = 0;
        let captured = ["of before", "read", "half"].map(|name| (name.to_owned(), (1, Layout::default()))).into();
        assert!(
            checkpoint.compare_tables(&captured, 4, 7).is_empty(),
            "a checkpoint of an older version does not know the number"
        );
        checkpoint.tables.insert("half".into(), table(false));
        assert!(checkpoint.compare_tables(&captured, 4, 7).is_empty());
        let problem = "was spread over another number of partitions";
        let again = ["half", "of before", "read"].map(|name| (name.to_owned(), problem));
        assert_eq!(checkpoint.compare_tables(&captured, 3, 7), again);
        assert!(checkpoint.epoch == 2 && checkpoint.tables.values().all(|state| !state.complete));
        assert!(checkpoint.tables["half"].blocks.is_empty(), "what was read of it stands in other partitions");
        assert!(checkpoint.compare_tables(&captured, 3, 7).is_empty(), "once");
    }

    #[test]
    fn all_tables_of_a_publication_that_was_altered_are_to_be_read_again() {
        let table = || TableSnapshot { complete: true, published_by: 1, ..TableSnapshot::default() };
        let mut checkpoint = checkpoint([("a", table()), ("b", table())]);
        let captured: BTreeMap<_, _> = ["a", "b"].map(|name| (name.to_owned(), (1, Layout::default()))).into();
        assert!(checkpoint.compare_tables(&captured, 4, 7).is_empty() && !checkpoint.is_publication_altered(7));
        assert_eq!(checkpoint.compare_tables(&captured, 4, 9).len(), 2);
        assert!(checkpoint.epoch == 2 && checkpoint.compare_tables(&captured, 4, 9).is_empty(), "once");
        checkpoint.publication_written = 0;
        assert!(
            checkpoint.compare_tables(&captured, 4, 9).is_empty(),
            "a checkpoint of an older version has not looked"
        );
        assert_eq!(checkpoint.publication_written, 9);
    }

    #[test]
    fn ranges_join() {
        let mut table = TableSnapshot::default();
        for (from, to) in [(10, 20), (0, 5), (5, 10), (30, 40)] {
            table.add(from, to);
        }
        assert_eq!(table.blocks, [(0, 20), (30, 40)]);
    }
}
