//! Things to write in tests.

use headwater_schemas::{RowBuilder, RowRef, SourcePosition, TableId, ValueRef, key};

use super::Opened;
use crate::{Batch, ByteList, DocumentWrite, JoinIndex, RowArena, RowWrite, SchemaId, VersionId, Written};

pub(super) const VERSION: VersionId = VersionId(7);

pub(super) fn table(name: &str) -> TableId {
    TableId::new("billing", "public", name)
}

pub(super) fn join(table: &TableId, column: &str) -> JoinIndex {
    JoinIndex { table: table.clone(), columns: vec![column.to_owned()] }
}

pub(super) fn int(n: i64) -> Vec<u8> {
    key::of(ValueRef::Int(n))
}

pub(super) fn text(text: &str) -> Vec<u8> {
    key::of(ValueRef::Text(text))
}

/// Cells of a row that says who it is.
pub(super) fn cells(n: i64) -> Vec<u8> {
    let mut out = Vec::new();
    RowBuilder::new(&mut out).push(ValueRef::Int(n));
    out
}

pub(super) fn at(commit: u64) -> SourcePosition {
    SourcePosition { epoch: 1, commit, ordinal: 1 }
}

pub(super) fn keys<'k>(keys: impl IntoIterator<Item = &'k [u8]>) -> ByteList {
    let mut list = ByteList::default();
    keys.into_iter().for_each(|key| list.push(key));
    list
}

/// Writes a row of one cell, `n`, found by one join key.
pub(super) fn put(batch: &mut dyn Batch, join: &JoinIndex, key: &[u8], n: i64, join_key: &[u8]) {
    let cells = cells(n);
    let added: &[(usize, &[u8])] = &[(0, join_key)];
    let write = RowWrite { key, row: Some(RowRef(&cells)), schema: SchemaId(0), position: at(1), removed: &[], added };
    batch.put_row(&join.table, &[join], write).unwrap();
}

/// Request, key and first cell of rows.
pub(super) fn listed(arena: &RowArena) -> Vec<(u32, Vec<u8>, i64)> {
    let cell = |slot| match arena.row(slot).unwrap().cell(0) {
        ValueRef::Int(n) => n,
        other => panic!("not a cell of these tests: {other:?}"),
    };
    arena.slots().iter().map(|slot| (slot.request, arena.key(slot).to_vec(), cell(slot))).collect()
}

pub(super) fn joined(batch: &dyn Batch, join: &JoinIndex, join_keys: &[&[u8]]) -> Vec<(u32, Vec<u8>, i64)> {
    let mut out = RowArena::default();
    batch.rows_by_join(join, &keys(join_keys.iter().copied()), 0, &mut out).unwrap();
    listed(&out)
}

/// The same rows visited, by key.
pub(super) fn visited(batch: &dyn Batch, join: &JoinIndex, join_keys: &[&[u8]]) -> Vec<(u32, Vec<u8>, i64)> {
    let mut rows = Vec::new();
    let visit = &mut |part: &RowArena| rows.extend(listed(part));
    batch.visit_by_join(join, &keys(join_keys.iter().copied()), visit).unwrap();
    rows.sort();
    rows
}

/// Writes and commits documents of [`VERSION`].
pub(super) fn commit(opened: &Opened, writes: &[DocumentWrite<'_>]) -> Written {
    let mut batch = opened.writer.begin().unwrap();
    let written = batch.put_documents(VERSION, 1_000, writes).unwrap();
    batch.commit().unwrap();
    written
}
