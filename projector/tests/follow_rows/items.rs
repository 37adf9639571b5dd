//! A table of items, and its records in the log.

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_schemas::{
    Column, ColumnType, EventHeader, EventRef, Op, RowBuilder, RowRef, SourcePosition, TableId, TableSchema, ValueRef,
    key,
};

pub(crate) const PREFIX: &str = "t";

/// Key and value.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

pub(crate) fn schema() -> TableSchema {
    let column =
        |name: &str, kind, key_ordinal| Column { name: name.into(), kind, source_type: String::new(), key_ordinal };
    let columns = vec![column("id", ColumnType::Int64, Some(0)), column("note", ColumnType::Text, None)];
    TableSchema { table: TableId::new("shop", "public", "items"), columns }
}

pub(crate) fn at(epoch: u32, commit: u64) -> SourcePosition {
    SourcePosition { epoch, commit, ordinal: 1 }
}

/// An item as it is from here on.
pub(crate) fn item(position: SourcePosition, id: i64) -> Record {
    item_with(position, id, ValueRef::Text("new"))
}

pub(crate) fn item_with(position: SourcePosition, id: i64, note: ValueRef<'_>) -> Record {
    let mut row = Vec::new();
    let mut cells = RowBuilder::new(&mut row);
    cells.push(ValueRef::Int(id));
    cells.push(note);
    created(position, id, &row)
}

/// An item whose row is this one from here on.
pub(crate) fn created(position: SourcePosition, id: i64, row: &[u8]) -> Record {
    (key::of(ValueRef::Int(id)), event(Op::Create, position, Some(RowRef(row)), None))
}

/// An item is not there from here on.
pub(crate) fn deleted(position: SourcePosition, id: i64) -> Record {
    (key::of(ValueRef::Int(id)), event(Op::Delete, position, None, None))
}

/// A truncation that stands in so many partitions.
pub(crate) fn truncation(position: SourcePosition, partitions: u32) -> Record {
    (Vec::new(), event(Op::Truncate, position, None, Some(partitions)))
}

fn event(op: Op, position: SourcePosition, after: Option<RowRef<'_>>, partitions: Option<u32>) -> Vec<u8> {
    let header = EventHeader {
        op,
        position,
        transaction: position.commit,
        committed_at_micros: 1_000_000,
        last_in_transaction: true,
        before_is_key_only: false,
    };
    let mut value = Vec::new();
    EventRef { header, before: None, after, partitions }.encode(&mut value);
    value
}

/// Records of a partition, from an offset on.
pub(crate) fn batch(partition: u32, first: u64, records: &[Record]) -> FetchedBatch {
    batch_as(&schema(), partition, first, records)
}

/// Records that were written with this schema.
pub(crate) fn batch_as(schema: &TableSchema, partition: u32, first: u64, records: &[Record]) -> FetchedBatch {
    let mut buffer = RecordBuffer::default();
    for (key, value) in records {
        buffer.push(1, key, Some(|out: &mut Vec<u8>| out.extend_from_slice(value)));
    }
    let place = TopicPartition { topic: schema.table.topic(PREFIX).into(), partition };
    let bytes = Bytes::copy_from_slice(buffer.as_bytes());
    FetchedBatch::new(place, Offset(first), schema.to_bytes().into(), bytes, buffer.count())
}
