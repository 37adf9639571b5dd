//! The rows of one node, for many documents at once: fetched with one call, decoded once, grouped under their parents.

use std::cell::Cell;
use std::ops::Range;

use headwater_schemas::ValueRef;
use headwater_schemas::model::Predicate;
use headwater_store::{ByteList, RowArena, RowBatch};

use crate::Error;
use crate::columns::{Columns, write_join_key};
use crate::plan::{Access, Hop, PlanNode};

/// Stands for "no group" and "no row".
pub(crate) const NONE: u32 = u32::MAX;

/// How rows are read for some roots.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'r> {
    pub(crate) batch: &'r dyn RowBatch,
    /// Nothing is read beyond what an arena takes at a time: where that is too little, fewer roots are to be read for.
    pub(crate) bounded: bool,
    /// Bytes that may still be read, over all nodes.
    pub(crate) left: &'r Cell<usize>,
}

/// Why rows were not read.
pub(crate) enum Unread {
    /// For so many roots.
    TooMuch,
    /// For a single root.
    TooManyRows,
    Failed(Error),
}

impl Reader<'_> {
    fn read(&self, access: &Access, keys: &ByteList, arena: &mut RowArena) -> Result<(), Unread> {
        let mut from = 0;
        while from < keys.len() {
            from = match lookup(self.batch, access, keys, from, arena) {
                Err(Error::Store(headwater_store::Error::TooManyRows { .. })) => {
                    return Err(if self.bounded { Unread::TooMuch } else { Unread::TooManyRows });
                }
                read => read.map_err(Unread::Failed)?,
            };
            if self.bounded && from < keys.len() {
                return Err(Unread::TooMuch);
            }
        }
        Ok(())
    }
}

/// Rows as fetched, by request.
pub(crate) struct Rows<'a> {
    pub(crate) arena: &'a RowArena,
    width: usize,
    cells: Vec<ValueRef<'a>>,
    /// Per row: it is there, and passes the filter.
    passes: Vec<bool>,
    /// Per row: it [cannot be told](Columns::is_torn); empty when no row is so.
    torn: Vec<bool>,
    by_request: Vec<Range<u32>>,
}

impl<'a> Rows<'a> {
    /// Fetches and decodes; `arena` is emptied first.
    pub(crate) fn fetch(
        reader: Reader<'_>,
        access: &Access,
        keys: &ByteList,
        columns: &Columns,
        filter: Option<&Predicate<usize>>,
        arena: &'a mut RowArena,
    ) -> Result<Self, Unread> {
        arena.clear();
        arena.set_bytes_max(reader.left.get());
        reader.read(access, keys, arena)?;
        reader.left.set(reader.left.get().saturating_sub(arena.byte_len()));
        let arena: &'a RowArena = arena;
        let width = columns.width();
        let count = arena.slots().len();
        let mut rows = Self {
            arena,
            width,
            cells: Vec::with_capacity(count * width),
            passes: Vec::with_capacity(count),
            torn: Vec::new(),
            by_request: vec![0..0; keys.len()],
        };
        for (at, slot) in arena.slots().iter().enumerate() {
            let start = rows.cells.len();
            match arena.row(slot) {
                Some(row) => {
                    columns.read(slot.schema, row, &mut rows.cells);
                    let cells = &rows.cells[start..];
                    if columns.is_torn(slot.schema, cells) {
                        rows.torn.resize(count, false);
                        rows.torn[at] = true;
                    }
                    rows.passes.push(filter.is_none_or(|filter| filter.matches(&mut |slot: &usize| cells[*slot])));
                }
                None => {
                    rows.cells.resize(start + width, ValueRef::Null);
                    rows.passes.push(false);
                }
            }
            let range = &mut rows.by_request[slot.request as usize];
            let at = number(at);
            *range = if range.start == range.end { at..at + 1 } else { range.start..at + 1 };
        }
        Ok(rows)
    }

    pub(crate) fn cells(&self, row: u32) -> &[ValueRef<'a>] {
        &self.cells[row as usize * self.width..][..self.width]
    }

    pub(crate) fn passes(&self, row: u32) -> bool {
        self.passes[row as usize]
    }

    pub(crate) fn is_torn(&self, row: u32) -> bool {
        self.torn.get(row as usize).copied().unwrap_or(false)
    }

    pub(crate) fn request(&self, request: u32) -> Range<u32> {
        self.by_request[request as usize].clone()
    }

    pub(crate) fn key(&self, row: u32) -> &[u8] {
        self.arena.key(&self.arena.slots()[row as usize])
    }

    fn count(&self) -> usize {
        self.passes.len()
    }
}

/// One node's rows under their parents.
pub(crate) struct Level<'a> {
    pub(crate) rows: Rows<'a>,
    items: Vec<u32>,
    groups: Vec<Range<u32>>,
    torn_groups: Vec<u32>,
    /// Per row of the parent.
    group_of: Vec<u32>,
}

impl<'a> Level<'a> {
    /// The roots: a group per requested key, of one row or none.
    pub(crate) fn roots(rows: Rows<'a>, count: usize) -> Self {
        let mut level =
            Self { rows, items: Vec::new(), groups: Vec::new(), torn_groups: Vec::new(), group_of: Vec::new() };
        for request in 0..number(count) {
            level.group(level.rows.request(request).collect(), &[], 1, true);
        }
        level
    }

    /// The rows of a node below `near`.
    pub(crate) fn below(
        reader: Reader<'_>,
        node: &PlanNode,
        near: &Level<'a>,
        arenas: &mut &'a mut [RowArena],
    ) -> Result<Self, Unread> {
        let edge = node.edge.as_ref().expect("only the root has no edge");
        let keep = if node.one {
            1
        } else if node.counted {
            usize::MAX
        } else {
            node.limit.unwrap_or(usize::MAX)
        };
        let first = edge.through.as_ref().map_or(&edge.hop, |bridge| &bridge.hop);
        let (keys, group_of) = Keys::of(&near.rows, near.items.iter().copied(), first);
        let Some(bridge) = &edge.through else {
            let arena = take_arena(arenas);
            let rows = Rows::fetch(reader, &first.down, &keys, &node.columns, node.filter.as_ref(), arena)?;
            let mut level = Self {
                rows,
                items: Vec::new(),
                groups: Vec::with_capacity(keys.len()),
                torn_groups: Vec::new(),
                group_of,
            };
            for request in 0..number(keys.len()) {
                level.group(level.rows.request(request).collect(), &node.order, keep, true);
            }
            return Ok(level);
        };
        let links =
            Rows::fetch(reader, &first.down, &keys, &bridge.columns, bridge.filter.as_ref(), take_arena(arenas))?;
        let live = (0..number(links.count())).filter(|link| links.passes(*link));
        let (far_keys, request_of) = Keys::of(&links, live, &edge.hop);
        let rows =
            Rows::fetch(reader, &edge.hop.down, &far_keys, &node.columns, node.filter.as_ref(), take_arena(arenas))?;
        let mut level = Self { rows, items: Vec::new(), groups: Vec::new(), torn_groups: Vec::new(), group_of };
        for request in 0..number(keys.len()) {
            let mut members = Vec::new();
            let mut torn = false;
            for link in links.request(request) {
                torn |= links.is_torn(link);
                if links.passes(link) && request_of[link as usize] != NONE {
                    members.extend(level.rows.request(request_of[link as usize]));
                }
            }
            // Several links may lead to one row; it appears once. A row has one place in the arena, so places tell.
            members.sort_unstable();
            members.dedup();
            level.group(members, &node.order, keep, false);
            if torn {
                level.torn_groups.push(number(level.groups.len() - 1));
            }
        }
        Ok(level)
    }

    fn group(&mut self, mut members: Vec<u32>, order: &[(usize, bool)], keep: usize, by_key: bool) {
        if members.iter().any(|row| self.rows.is_torn(*row)) {
            self.torn_groups.push(number(self.groups.len()));
        }
        members.retain(|row| self.rows.passes(*row));
        // Rows of one request come in the order of their keys.
        if members.len() > 1 && !(by_key && order.is_empty()) {
            let rows = &self.rows;
            members.sort_unstable_by(|a, b| {
                for (slot, descending) in order {
                    let order = rows.cells(*a)[*slot].compare(&rows.cells(*b)[*slot]);
                    if order.is_ne() {
                        return if *descending { order.reverse() } else { order };
                    }
                }
                rows.key(*a).cmp(rows.key(*b))
            });
        }
        members.truncate(keep);
        let start = number(self.items.len());
        self.items.extend_from_slice(&members);
        self.groups.push(start..number(self.items.len()));
    }

    /// The rows under a parent's row, in order; `Err` when one of them cannot be told.
    pub(crate) fn under(&self, parent: u32) -> Result<&[u32], Torn> {
        match self.group_of[parent as usize] {
            NONE => Ok(&[]),
            group => self.group_items(group),
        }
    }

    /// The rows of a group, in order.
    pub(crate) fn group_items(&self, group: u32) -> Result<&[u32], Torn> {
        if !self.torn_groups.is_empty() && self.torn_groups.contains(&group) {
            return Err(Torn);
        }
        let range = &self.groups[group as usize];
        Ok(&self.items[range.start as usize..range.end as usize])
    }
}

/// A row [cannot be told](Columns::is_torn).
pub(crate) struct Torn;

/// Reads rows by an access path into `arena`, for the keys from number `from` on until it is full; answers up to which.
fn lookup(
    batch: &dyn RowBatch,
    access: &Access,
    keys: &ByteList,
    from: usize,
    arena: &mut RowArena,
) -> Result<usize, Error> {
    Ok(match access {
        Access::Key(table) => batch.rows_by_key(table, keys, from, arena)?,
        Access::Index(index) => batch.rows_by_join(index, keys, from, arena)?,
    })
}

/// Join keys of rows: sorted, each once.
struct Keys;

impl Keys {
    /// The keys, and per row the number of its key.
    fn of(near: &Rows<'_>, live: impl Iterator<Item = u32>, hop: &Hop) -> (ByteList, Vec<u32>) {
        let mut bytes = Vec::new();
        let mut spans: Vec<(Range<usize>, u32)> = Vec::new();
        for row in live {
            let start = bytes.len();
            if write_join_key(&mut bytes, near.cells(row), &hop.down_slots) {
                spans.push((start..bytes.len(), row));
            }
        }
        spans.sort_by(|a, b| bytes[a.0.clone()].cmp(&bytes[b.0.clone()]));
        let mut keys = ByteList::default();
        let mut request_of = vec![NONE; near.count()];
        let mut last: Option<Range<usize>> = None;
        for (span, row) in spans {
            if last.as_ref().is_none_or(|last| bytes[last.clone()] != bytes[span.clone()]) {
                keys.push(&bytes[span.clone()]);
                last = Some(span);
            }
            request_of[row as usize] = number(keys.len() - 1);
        }
        (keys, request_of)
    }
}

fn take_arena<'a>(arenas: &mut &'a mut [RowArena]) -> &'a mut RowArena {
    let (first, rest) = std::mem::take(arenas).split_first_mut().expect("an arena per node and join table");
    *arenas = rest;
    first
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("a chunk holds far fewer rows than 2^32")
}
