//! The events of one source transaction.

use headwater_schemas::{EventHeader, EventRef, Op, SourcePosition};

use super::catalog::{literal, quote};
use super::fetch::Fetched;
use super::lsn::Lsn;
use super::pgoutput::{Cell, Message, Old, Tuples};
use super::plan::{BadCell, TablePlan, Tuple};
use super::snapshot::dead_letter;
use crate::Gathered;

/// The transaction being gathered, and room to build its rows in.
#[derive(Debug)]
pub(crate) struct Transaction {
    epoch: u32,
    commit: u64,
    xid: u32,
    committed_at_micros: i64,
    /// The last ordinal of the row message at hand. Each has two, whatever becomes of it, so that the same transaction sent
    /// again gets the same numbers, also where other tables are captured by then.
    ordinal: u32,
    key: Vec<u8>,
    old_key: Vec<u8>,
    row: Vec<u8>,
    old_row: Vec<u8>,
    /// A value that the new row is without, because it cannot be represented.
    lost: Option<BadCell>,
    scratch: Vec<u8>,
}

/// What a row message led to.
pub(crate) enum Step {
    /// It is gathered, or a dead letter, or both: gathered without a value that cannot be represented.
    Done,
    /// The key of a row changed, or it began to match the publication's row filter, and the message does not hold all
    /// columns. A consumer completes missing columns from the row's earlier image, but that stands under the old key, or
    /// there is none; so they are fetched. The row may already be newer than the message: then the change that made it so
    /// follows, and sends what it changed.
    Lacks {
        /// Gives the columns that were not sent as they are now, in order. No others: those may be gone by now.
        query: String,
    },
}

impl Transaction {
    pub(crate) fn new(epoch: u32) -> Self {
        Self {
            epoch,
            commit: 0,
            xid: 0,
            committed_at_micros: 0,
            ordinal: 0,
            key: Vec::new(),
            old_key: Vec::new(),
            row: Vec::new(),
            old_row: Vec::new(),
            lost: None,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn begin(&mut self, commit: u64, xid: u32, committed_at_micros: i64) {
        (self.commit, self.xid, self.committed_at_micros) = (commit, xid, committed_at_micros);
        self.ordinal = 0;
    }

    /// Where the transaction was committed.
    pub(crate) fn commit(&self) -> Lsn {
        Lsn(self.commit)
    }

    /// The transaction's number, as the stream names it.
    pub(crate) fn xid(&self) -> u32 {
        self.xid
    }

    /// Takes the next row message up; to be called for every one that the server sends.
    pub(crate) fn count(&mut self) {
        self.ordinal = self.ordinal.saturating_add(2);
    }

    /// Of the only event of a row message, or the first.
    fn first(&self, op: Op) -> EventHeader {
        self.header(op, self.ordinal.saturating_sub(1))
    }

    /// Of the create that follows a delete, where a row's key changed.
    fn second(&self, op: Op) -> EventHeader {
        self.header(op, self.ordinal)
    }

    fn header(&self, op: Op, ordinal: u32) -> EventHeader {
        EventHeader {
            op,
            position: SourcePosition { epoch: self.epoch, commit: self.commit, ordinal },
            transaction: u64::from(self.xid),
            committed_at_micros: self.committed_at_micros,
            last_in_transaction: false,
            before_is_key_only: false,
        }
    }

    /// Says that the table has this schema from here on.
    pub(crate) fn schema(&mut self, plan: &TablePlan, into: &mut Gathered) {
        to_every_partition(plan, self.header(Op::Schema, self.ordinal), into);
    }

    /// All rows of the table are gone.
    pub(crate) fn truncate(&self, plan: &TablePlan, into: &mut Gathered) {
        to_every_partition(plan, self.first(Op::Truncate), into);
    }

    /// Gathers the events of a row message. `fetched` is the answer to [`Step::Lacks`].
    pub(crate) fn row(
        &mut self,
        plan: &TablePlan,
        message: &Message<'_>,
        data: &[u8],
        tuples: &Tuples,
        fetched: Option<Fetched>,
        into: &mut Gathered,
    ) -> Step {
        self.lost = None;
        let done = match message {
            Message::Insert { .. } => {
                let completed = fetched.iter().flatten().next().map(|row| with_fetched(data, &tuples.new, row));
                let (bytes, cells) = completed.as_ref().map_or((data, &tuples.new), |(bytes, cells)| (bytes, cells));
                let new = Tuple { bytes, cells, fallback: None };
                match self.insert(plan, new, fetched.is_none(), into) {
                    Ok(Step::Done) => Ok(()),
                    Ok(lacks) => return lacks,
                    Err(bad) => Err(bad),
                }
            }
            Message::Update { old, .. } => {
                let mut changed = None;
                if *old == Some(Old::Key) && plan.key.iter().any(|&at| tuples.new.get(at) == Some(&Cell::Unchanged)) {
                    changed = Some((data.to_vec(), with_old_key(plan, tuples)));
                }
                if let Some(Some(row)) = &fetched {
                    let cells = changed.as_ref().map_or(&tuples.new, |(_, cells)| cells);
                    changed = Some(with_fetched(data, cells, row));
                }
                let (bytes, cells) = changed.as_ref().map_or((data, &tuples.new), |(bytes, cells)| (bytes, cells));
                let new = Tuple { bytes, cells, fallback: None };
                let old = old.map(|kind| (kind, tuples.old.as_slice()));
                match self.update(plan, data, new, old, fetched.is_none(), into) {
                    Ok(Step::Done) => Ok(()),
                    Ok(lacks) => return lacks,
                    Err(bad) => Err(bad),
                }
            }
            Message::Delete { old, .. } => self.delete(plan, data, tuples, *old, into),
            _ => Ok(()),
        };
        if let Some(bad) = done.err().or(self.lost) {
            let position = self.first(Op::Update).position;
            into.push_dead_letter(dead_letter(plan, position, plan.complaint(bad), data));
        }
        Step::Done
    }

    /// A new row. One that was there and begins to match the publication's row filter comes as new, too, without what is
    /// stored out of line and did not change.
    fn insert(
        &mut self,
        plan: &TablePlan,
        new: Tuple<'_>,
        may_ask: bool,
        into: &mut Gathered,
    ) -> Result<Step, BadCell> {
        self.build_new(plan, new)?;
        if may_ask && lacks_any(plan, new) {
            return Ok(Step::Lacks { query: row_query(plan, new) });
        }
        self.push_after(plan, self.first(Op::Create), into);
        Ok(Step::Done)
    }

    fn update(
        &mut self,
        plan: &TablePlan,
        data: &[u8],
        new: Tuple<'_>,
        old: Option<(Old, &[Cell])>,
        may_ask: bool,
        into: &mut Gathered,
    ) -> Result<Step, BadCell> {
        let full_old = old.filter(|(kind, _)| *kind == Old::Full).map(|(_, cells)| cells);
        // An unchanged value that was not sent stands in the old row, if that was sent.
        let new = Tuple { fallback: full_old, ..new };
        let built = self.build_new(plan, new);
        let Some((kind, old_cells)) = old else {
            built?;
            self.push_after(plan, self.first(Op::Update), into);
            return Ok(Step::Done);
        };
        let old = Tuple { bytes: data, cells: old_cells, fallback: None };
        self.old_key.clear();
        let was_there = match plan.write_key(&mut self.old_key, old, &mut self.scratch) {
            Ok(()) => true,
            // Under a key that cannot be represented there was no row.
            Err(bad) if plan.key.contains(&bad.column) && built.is_ok() => false,
            Err(bad) => return built.and(Err(bad)),
        };
        if let Err(bad) = built {
            // Whatever its key is now, under the old one the row is gone.
            if plan.key.contains(&bad.column) {
                self.push_delete(plan, old, kind, into)?;
            }
            return Err(bad);
        }
        if was_there && self.old_key == self.key {
            let mut header = self.first(Op::Update);
            let kind = self.build_old(plan, old, kind)?;
            header.before_is_key_only = kind == Old::Key;
            self.push_both(plan, header, into);
            return Ok(Step::Done);
        }
        if may_ask && lacks_any(plan, new) {
            return Ok(Step::Lacks { query: row_query(plan, new) });
        }
        if was_there {
            self.push_delete(plan, old, kind, into)?;
            self.push_after(plan, self.second(Op::Create), into);
        } else {
            self.push_after(plan, self.first(Op::Create), into);
        }
        Ok(Step::Done)
    }

    fn delete(
        &mut self,
        plan: &TablePlan,
        data: &[u8],
        tuples: &Tuples,
        kind: Old,
        into: &mut Gathered,
    ) -> Result<(), BadCell> {
        let old = Tuple { bytes: data, cells: &tuples.old, fallback: None };
        self.old_key.clear();
        plan.write_key(&mut self.old_key, old, &mut self.scratch)?;
        self.push_delete(plan, old, kind, into)
    }

    /// Says that the row under the old key is gone.
    fn push_delete(&mut self, plan: &TablePlan, old: Tuple<'_>, kind: Old, into: &mut Gathered) -> Result<(), BadCell> {
        let kind = self.build_old(plan, old, kind)?;
        let header = EventHeader { before_is_key_only: kind == Old::Key, ..self.first(Op::Delete) };
        self.push_before(plan, header, into);
        Ok(())
    }

    fn build_new(&mut self, plan: &TablePlan, new: Tuple<'_>) -> Result<(), BadCell> {
        self.key.clear();
        self.row.clear();
        plan.write_key(&mut self.key, new, &mut self.scratch)?;
        self.lost = plan.write_row(&mut self.row, new, &mut self.scratch)?;
        Ok(())
    }

    /// The row before; of one with a value that cannot be represented, which is mended or gone now, its key alone.
    fn build_old(&mut self, plan: &TablePlan, old: Tuple<'_>, kind: Old) -> Result<Old, BadCell> {
        self.old_row.clear();
        if kind == Old::Full && plan.write_row(&mut self.old_row, old, &mut self.scratch)?.is_none() {
            return Ok(Old::Full);
        }
        self.old_row.clear();
        plan.write_key_row(&mut self.old_row, old, &mut self.scratch)?;
        Ok(Old::Key)
    }

    fn push_after(&self, plan: &TablePlan, header: EventHeader, into: &mut Gathered) {
        let row = &self.row;
        into.push(&plan.route, plan.route.partition_of(&self.key), &self.key, header.committed_at_micros, |out| {
            header.encode(out, None, Some(&mut |out: &mut Vec<u8>| out.extend_from_slice(row)));
        });
    }

    fn push_before(&self, plan: &TablePlan, header: EventHeader, into: &mut Gathered) {
        let (key, row) = (&self.old_key, &self.old_row);
        into.push(&plan.route, plan.route.partition_of(key), key, header.committed_at_micros, |out| {
            header.encode(out, Some(&mut |out: &mut Vec<u8>| out.extend_from_slice(row)), None);
        });
    }

    fn push_both(&self, plan: &TablePlan, header: EventHeader, into: &mut Gathered) {
        let (old, new) = (&self.old_row, &self.row);
        into.push(&plan.route, plan.route.partition_of(&self.key), &self.key, header.committed_at_micros, |out| {
            header.encode(
                out,
                Some(&mut |out: &mut Vec<u8>| out.extend_from_slice(old)),
                Some(&mut |out: &mut Vec<u8>| out.extend_from_slice(new)),
            );
        });
    }
}

/// Puts a record without key and rows into every partition of the table. A truncation says how many these are, so that
/// whoever reads one of them knows which others to wait for.
pub(super) fn to_every_partition(plan: &TablePlan, header: EventHeader, into: &mut Gathered) {
    let all = plan.route.partitions();
    let partitions = (header.op == Op::Truncate).then_some(all);
    let event = EventRef { header, before: None, after: None, partitions };
    for partition in 0..all {
        into.push(&plan.route, partition, &[], header.committed_at_micros, |out| event.encode(out));
    }
}

/// The new row's cells, where key columns that are stored out of line and did not change are those of the old key: that
/// is why the server sent it.
fn with_old_key(plan: &TablePlan, tuples: &Tuples) -> Vec<Cell> {
    let mut cells = tuples.new.clone();
    for &at in &plan.key {
        if let (Some(cell @ Cell::Unchanged), Some(old)) = (cells.get_mut(at), tuples.old.get(at)) {
            *cell = *old;
        }
    }
    cells
}

/// The message with the fetched texts behind it, and the cells that were not sent pointing there.
fn with_fetched(data: &[u8], cells: &[Cell], row: &[Option<Vec<u8>>]) -> (Vec<u8>, Vec<Cell>) {
    let mut bytes = data.to_vec();
    let mut texts = row.iter();
    let complete = |cell: &Cell| match cell {
        Cell::Unchanged => match texts.next() {
            Some(Some(text)) => {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(text);
                Cell::Text { start, len: text.len() as u32 }
            }
            Some(None) => Cell::Null,
            None => Cell::Unchanged,
        },
        sent => *sent,
    };
    let cells = cells.iter().map(complete).collect();
    (bytes, cells)
}

fn lacks_any(plan: &TablePlan, new: Tuple<'_>) -> bool {
    (0..plan.width()).any(|at| new.lacks(at))
}

fn row_query(plan: &TablePlan, new: Tuple<'_>) -> String {
    let not_sent = plan.schema.columns.iter().zip(new.cells).filter(|(_, cell)| **cell == Cell::Unchanged);
    let columns: Vec<String> = not_sent.map(|(column, _)| quote(&column.name)).collect();
    let conditions: Vec<String> = plan
        .key
        .iter()
        .map(|&at| {
            let text = new.cells[at].text(new.bytes).unwrap_or_default();
            format!("{} = {}", quote(&plan.schema.columns[at].name), literal(&String::from_utf8_lossy(text)))
        })
        .collect();
    let table = format!("{}.{}", quote(&plan.schema.table.schema), quote(&plan.schema.table.table));
    format!("SELECT {} FROM {table} WHERE {}", columns.join(", "), conditions.join(" AND "))
}
