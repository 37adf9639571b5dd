//! Documents of a chunk of roots: one read per relation for all of them, then each written as final bytes.

use std::cell::Cell;
use std::ops::Range;

use headwater_schemas::model::definition::Aggregate;
use headwater_schemas::{DecimalSum, ValueRef, key, write_json_value};
use headwater_store::{ByteList, DocumentWrite, READ_BYTES, READ_BYTES_MAX, RowArena, RowBatch};

use crate::Error;
use crate::expression::{CastError, Evaluated, Formula, decimal_text};
use crate::level::{Level, Reader, Rows, Torn, Unread};
use crate::plan::{Access, Plan, PlanCompute, PlanField, PlanNode};

/// Bytes of a chunk, about: of the rows that are read for it, and of the documents they make. The document
/// that exceeds them is the last of its chunk: a large row that many documents share would be held once for each of them.
pub(crate) const CHUNK_BYTES: usize = 16 << 20;

/// Memory that one document has grown to more than this is given back.
const KEPT_BYTES: usize = 4 * CHUNK_BYTES;

/// Evaluated documents, in the order of the roots. Reused from chunk to chunk, with its memory.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    bytes: Vec<u8>,
    documents: Vec<Built>,
    entries: Vec<(u16, Range<usize>)>,
    arenas: Vec<RowArena>,
    /// Bytes of the last chunk: rows that were read, and documents.
    pub(crate) chunk_bytes: usize,
}

#[derive(Debug)]
struct Built {
    body: Option<Range<usize>>,
    entries: Range<usize>,
    poison: Option<String>,
}

impl Documents {
    /// Evaluates the documents of `roots`, which are sorted and unique, and leaves of these the first whose rows and
    /// documents can be held at once; what was evaluated before is forgotten.
    pub(crate) fn evaluate(&mut self, plan: &Plan, batch: &dyn RowBatch, roots: &mut ByteList) -> Result<(), Error> {
        let mut arenas = std::mem::take(&mut self.arenas);
        arenas.resize_with(plan.nodes.len() * 2, RowArena::default);
        let done = loop {
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            }
            self.bytes.clear();
            self.documents.clear();
            self.entries.clear();
            let bounded = roots.len() > 1;
            let left = Cell::new(if bounded { READ_BYTES } else { READ_BYTES_MAX });
            match self.evaluate_in(plan, Reader { batch, bounded, left: &left }, roots, &mut arenas) {
                Err((_, Unread::TooMuch)) => roots.truncate(roots.len() / 2),
                Err((node, Unread::TooManyRows)) => {
                    let poison = Poison::TooManyRows(plan.nodes[node].path.clone());
                    self.documents.push(Built { body: None, entries: 0..0, poison: Some(poison.to_string()) });
                    break Ok(());
                }
                Err((_, Unread::Failed(error))) => break Err(error),
                Ok(()) => {
                    roots.truncate(self.documents.len());
                    break Ok(());
                }
            }
        };
        self.chunk_bytes = arenas.iter().map(RowArena::byte_len).sum::<usize>() + self.bytes.len();
        for arena in &mut arenas {
            match arena.byte_len() > KEPT_BYTES {
                true => *arena = RowArena::default(),
                false => arena.clear(),
            }
        }
        self.arenas = arenas;
        done
    }

    /// What could not be read, with the number of its node.
    fn evaluate_in(
        &mut self,
        plan: &Plan,
        reader: Reader<'_>,
        roots: &ByteList,
        mut arenas: &mut [RowArena],
    ) -> Result<(), (usize, Unread)> {
        let root = &plan.nodes[0];
        let (first, rest) = arenas.split_first_mut().expect("an arena per node");
        arenas = rest;
        let access = Access::Key(root.columns.table.clone());
        let rows = Rows::fetch(reader, &access, roots, &root.columns, root.filter.as_ref(), first);
        let mut levels = vec![Level::roots(rows.map_err(|unread| (0, unread))?, roots.len())];
        for (number, node) in plan.nodes.iter().enumerate().skip(1) {
            let parent = node.edge.as_ref().expect("only the root has no edge").parent;
            let level = Level::below(reader, node, &levels[parent], &mut arenas);
            let level = level.map_err(|unread| (number, unread))?;
            levels.push(level);
        }
        let mut writer = Writer { plan, levels: &levels, out: self };
        for number in 0..u32::try_from(roots.len()).expect("a chunk holds far fewer roots than 2^32") {
            writer.document(number);
            if writer.out.bytes.len() > CHUNK_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Calls `put` with the writes of all documents. Poisoned documents are deletes: a stale document would be wrong,
    /// and would depend on what the rows were before. `stamps` are one for each root, where they are the caller's.
    pub(crate) fn writes<T>(
        &self,
        roots: &ByteList,
        stamps: Option<&[u64]>,
        put: impl FnOnce(&[DocumentWrite<'_>]) -> T,
    ) -> T {
        let entries: Vec<(u16, &[u8])> =
            self.entries.iter().map(|(index, range)| (*index, &self.bytes[range.clone()])).collect();
        let writes: Vec<DocumentWrite<'_>> = self
            .documents
            .iter()
            .enumerate()
            .map(|(at, built)| DocumentWrite {
                id: roots.get(at),
                body: built.body.clone().map(|range| &self.bytes[range]),
                entries: &entries[built.entries.clone()],
                stamp: stamps.map(|stamps| stamps[at]),
            })
            .collect();
        put(&writes)
    }

    /// Numbers of the roots whose document cannot be built, and why.
    pub(crate) fn poisoned(&self) -> impl Iterator<Item = (usize, &str)> {
        self.documents.iter().enumerate().filter_map(|(at, built)| Some((at, built.poison.as_deref()?)))
    }
}

/// Why a document cannot be built.
enum Poison {
    Cast(CastError),
    NotANumber(String),
    Torn(String),
    /// Path of the relation.
    TooManyRows(String),
}

impl Poison {
    fn torn(node: &PlanNode) -> Self {
        Self::Torn(node.columns.table.to_string())
    }
}

impl std::fmt::Display for Poison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cast(error) => error.fmt(f),
            Self::NotANumber(compute) => write!(f, "`{compute}` meets a value that is no number; mend the row"),
            Self::TooManyRows(relation) => write!(
                f,
                "with relation `{relation}` the document leads to more than {} MiB of rows, which are not read for one; a \
                 column with so few different values cannot carry a relation: change the relation's `on`",
                READ_BYTES_MAX >> 20
            ),
            Self::Torn(table) => write!(
                f,
                "a row of {table} is without a column that the model needs: its value cannot be represented or is too large \
                 for the store, and another letter says so, or the source did not send it (unchanged) and its earlier image \
                 is not known; update the column to what fits, or have the table read again, by taking it out of its \
                 connector's `tables` for one start. Or the column has another type than the model's condition on it, as \
                 `headwater status` says: mend the condition"
            ),
        }
    }
}

struct Writer<'w, 'a> {
    plan: &'a Plan,
    levels: &'w [Level<'a>],
    out: &'w mut Documents,
}

impl<'a> Writer<'_, 'a> {
    fn document(&mut self, root: u32) {
        let (body_start, entries_start) = (self.out.bytes.len(), self.out.entries.len());
        let mut built = Built { body: None, entries: entries_start..entries_start, poison: None };
        let written = match self.levels[0].group_items(root) {
            Ok([]) => Ok(false),
            Ok([row, ..]) => {
                // Entries are written behind the body: while the body grows they stand in a buffer of their own.
                let mut entry_bytes = Vec::new();
                let row = *row;
                self.object(0, row, &mut entry_bytes).map(|()| {
                    let body_end = self.out.bytes.len();
                    self.out.bytes.extend_from_slice(&entry_bytes);
                    for (_, range) in &mut self.out.entries[entries_start..] {
                        *range = range.start + body_end..range.end + body_end;
                    }
                    built.body = Some(body_start..body_end);
                    true
                })
            }
            Err(Torn) => Err(Poison::torn(&self.plan.nodes[0])),
        };
        match written {
            Ok(_) => {
                let Documents { bytes, entries, .. } = &mut *self.out;
                let value = |range: &Range<usize>| &bytes[range.clone()];
                entries[entries_start..].sort_unstable_by(|a, b| (a.0, value(&a.1)).cmp(&(b.0, value(&b.1))));
                let mut kept = entries_start;
                for at in entries_start..entries.len() {
                    let same = kept > entries_start
                        && entries[kept - 1].0 == entries[at].0
                        && value(&entries[kept - 1].1) == value(&entries[at].1);
                    if !same {
                        entries.swap(kept, at);
                        kept += 1;
                    }
                }
                entries.truncate(kept);
                built.entries = entries_start..kept;
            }
            Err(poison) => {
                self.out.bytes.truncate(body_start);
                self.out.entries.truncate(entries_start);
                built.poison = Some(poison.to_string());
            }
        }
        self.out.documents.push(built);
    }

    fn object(&mut self, number: usize, row: u32, entry_bytes: &mut Vec<u8>) -> Result<(), Poison> {
        let plan = self.plan;
        let node = &plan.nodes[number];
        let mut open = b'{';
        for field in &node.fields {
            self.out.bytes.push(std::mem::replace(&mut open, b','));
            self.out.bytes.extend_from_slice(&field.member);
            let value = evaluate(&field.formula, self.levels[number].rows.cells(row)).map_err(|to| cast(field, to))?;
            write_json_value(&mut self.out.bytes, value.get());
            self.entries(&field.indexes, value.get(), entry_bytes);
        }
        for child in &node.children {
            let nested = &plan.nodes[*child];
            let edge = nested.edge.as_ref().expect("only the root has no edge");
            self.out.bytes.push(std::mem::replace(&mut open, b','));
            self.out.bytes.extend_from_slice(&edge.member);
            let rows = self.levels[*child].under(row).map_err(|Torn| Poison::torn(nested))?;
            if nested.one {
                match rows {
                    [nested_row, ..] => self.object(*child, *nested_row, entry_bytes)?,
                    [] => {
                        self.out.bytes.extend_from_slice(b"null");
                        self.null_entries(*child, entry_bytes);
                    }
                }
                continue;
            }
            let rows = &rows[..rows.len().min(nested.limit.unwrap_or(usize::MAX))];
            let mut bracket = b'[';
            for nested_row in rows {
                self.out.bytes.push(std::mem::replace(&mut bracket, b','));
                self.object(*child, *nested_row, entry_bytes)?;
            }
            if rows.is_empty() {
                self.out.bytes.push(b'[');
            }
            self.out.bytes.push(b']');
        }
        for compute in &node.computes {
            self.out.bytes.push(std::mem::replace(&mut open, b','));
            self.out.bytes.extend_from_slice(&compute.member);
            let mut sum = Accumulator::new(compute.function);
            self.walk(compute, 0, row, &mut Vec::with_capacity(compute.path.len()), &mut sum)?;
            let value = sum.finish();
            write_json_value(&mut self.out.bytes, value.get());
            self.entries(&compute.indexes, value.get(), entry_bytes);
        }
        if open == b'{' {
            self.out.bytes.push(b'{');
        }
        self.out.bytes.push(b'}');
        Ok(())
    }

    fn entries(&mut self, indexes: &[u16], value: ValueRef<'_>, entry_bytes: &mut Vec<u8>) {
        for index in indexes {
            let start = entry_bytes.len();
            key::write(entry_bytes, value);
            self.out.entries.push((*index, start..entry_bytes.len()));
        }
    }

    /// Where an object is null, so is every indexed value inside it.
    fn null_entries(&mut self, number: usize, entry_bytes: &mut Vec<u8>) {
        let plan = self.plan;
        let node = &plan.nodes[number];
        let indexes = node.fields.iter().map(|field| &field.indexes);
        for indexes in indexes.chain(node.computes.iter().map(|compute| &compute.indexes)) {
            self.entries(indexes, ValueRef::Null, entry_bytes);
        }
        for child in &node.children {
            self.null_entries(*child, entry_bytes);
        }
    }

    /// Adds up every way down the path of a computed field, in the order of the document.
    fn walk(
        &self,
        compute: &'a PlanCompute,
        depth: usize,
        parent: u32,
        way: &mut Vec<u32>,
        sum: &mut Accumulator<'a>,
    ) -> Result<(), Poison> {
        let number = compute.path[depth];
        let level = &self.levels[number];
        for row in level.under(parent).map_err(|Torn| Poison::torn(&self.plan.nodes[number]))? {
            way.push(*row);
            if depth + 1 < compute.path.len() {
                self.walk(compute, depth + 1, *row, way, sum)?;
            } else if self.counts(compute, way)? {
                match &compute.field {
                    None => sum.add(Evaluated::Borrowed(ValueRef::Bool(true)), compute)?,
                    Some(formula) => {
                        let value = evaluate(formula, level.rows.cells(*row));
                        sum.add(value.map_err(|to| cast_in(compute, to))?, compute)?;
                    }
                }
            }
            way.pop();
        }
        Ok(())
    }

    fn counts(&self, compute: &'a PlanCompute, way: &[u32]) -> Result<bool, Poison> {
        let Some(filter) = &compute.filter else { return Ok(true) };
        let cells = |level: usize| self.levels[compute.path[level]].rows.cells(way[level]);
        if compute.filter_fields.iter().all(|formula| matches!(formula, Formula::Column(_))) {
            return Ok(filter.matches(&mut |(level, number): &(usize, usize)| match &compute.filter_fields[*number] {
                Formula::Column(slot) => cells(*level)[*slot],
                _ => ValueRef::Null,
            }));
        }
        let mut levels = vec![0; compute.filter_fields.len()];
        filter.names().into_iter().for_each(|(level, number)| levels[*number] = *level);
        let values = compute.filter_fields.iter().zip(levels);
        let values: Vec<Evaluated<'a>> = values
            .map(|(formula, level)| evaluate(formula, cells(level)).map_err(|to| cast_in(compute, to)))
            .collect::<Result<_, _>>()?;
        Ok(filter.matches(&mut |(_, number): &(usize, usize)| values[*number].get()))
    }
}

fn evaluate<'a>(formula: &'a Formula<usize>, cells: &[ValueRef<'a>]) -> Result<Evaluated<'a>, &'static str> {
    match formula {
        Formula::Column(slot) => Ok(Evaluated::Borrowed(cells[*slot])),
        formula => formula.evaluate(&|slot: &usize| cells[*slot]),
    }
}

fn cast(field: &PlanField, to: &'static str) -> Poison {
    Poison::Cast(CastError { field: field.name.clone(), to })
}

fn cast_in(compute: &PlanCompute, to: &'static str) -> Poison {
    Poison::Cast(CastError { field: compute.name.clone(), to })
}

/// A computed value on its way.
enum Accumulator<'a> {
    Count(i64),
    Exists(bool),
    Best { wanted: std::cmp::Ordering, best: Option<Evaluated<'a>> },
    Sum { sum: DecimalSum, mean: bool },
}

impl<'a> Accumulator<'a> {
    fn new(function: Aggregate) -> Self {
        match function {
            Aggregate::Count => Self::Count(0),
            Aggregate::Exists => Self::Exists(false),
            Aggregate::Min => Self::Best { wanted: std::cmp::Ordering::Less, best: None },
            Aggregate::Max => Self::Best { wanted: std::cmp::Ordering::Greater, best: None },
            Aggregate::Sum => Self::Sum { sum: DecimalSum::default(), mean: false },
            Aggregate::Avg => Self::Sum { sum: DecimalSum::default(), mean: true },
        }
    }

    fn add(&mut self, value: Evaluated<'a>, compute: &PlanCompute) -> Result<(), Poison> {
        if value.get().is_null() {
            return Ok(());
        }
        match self {
            Self::Count(n) => *n += 1,
            Self::Exists(exists) => *exists = true,
            Self::Best { wanted, best } => {
                if best.as_ref().is_none_or(|best| value.get().compare(&best.get()) == *wanted) {
                    *best = Some(value);
                }
            }
            Self::Sum { sum, .. } => {
                let added = match value.get() {
                    ValueRef::Int(n) => {
                        sum.add_int(n);
                        Some(())
                    }
                    ValueRef::Decimal(text) => sum.add_decimal(text).ok(),
                    other => decimal_text(other).and_then(|text| sum.add_decimal(&text).ok()),
                };
                added.ok_or_else(|| Poison::NotANumber(compute.name.clone()))?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Evaluated<'a> {
        use headwater_schemas::Value;
        match self {
            Self::Count(n) => Evaluated::Borrowed(ValueRef::Int(n)),
            Self::Exists(exists) => Evaluated::Borrowed(ValueRef::Bool(exists)),
            Self::Best { best, .. } => best.unwrap_or(Evaluated::Borrowed(ValueRef::Null)),
            Self::Sum { sum, mean: false } => Evaluated::Owned(Value::Decimal(sum.to_text())),
            Self::Sum { sum, mean: true } => match sum.average() {
                Some(text) => Evaluated::Owned(Value::Decimal(text)),
                None => Evaluated::Borrowed(ValueRef::Null),
            },
        }
    }
}
