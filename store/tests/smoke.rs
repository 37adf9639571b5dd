//! The way of one micro-batch through the embedded store.
#![allow(clippy::unwrap_used)]

use headwater_schemas::{RowBuilder, RowRef, SourcePosition, TableId, ValueRef, key};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{
    ByteList, DocumentReader, DocumentWrite, Filter, IndexQuery, JoinIndex, KeyRange, ProjectionStore, RowArena,
    RowWrite, SchemaId, VersionId,
};

#[tokio::test]
async fn a_batch_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(folder.path())).unwrap();
    let table = TableId::new("s", "public", "lines");
    let join = JoinIndex { table: table.clone(), columns: vec!["invoice".into()] };
    let mut cells = Vec::new();
    RowBuilder::new(&mut cells).push(ValueRef::Int(7));
    let (row_key, join_key) = (key::of(ValueRef::Int(1)), key::of(ValueRef::Int(2)));
    let mut batch = store.begin().unwrap();
    let write = RowWrite {
        key: &row_key,
        row: Some(RowRef(&cells)),
        schema: SchemaId(0),
        position: SourcePosition { epoch: 1, commit: 2, ordinal: 3 },
        removed: &[],
        added: &[(0, &join_key)],
    };
    batch.put_row(&table, &[&join], write).unwrap();
    let mut keys = ByteList::default();
    keys.push(&join_key);
    let mut out = RowArena::default();
    batch.rows_by_join(&join, &keys, &mut out).unwrap();
    assert_eq!(out.slots().len(), 1);
    assert_eq!(out.row(&out.slots()[0]), Some(RowRef(&cells)));
    let version = VersionId(1);
    let entry = key::of(ValueRef::Text("x"));
    let document = DocumentWrite { id: &row_key, body: Some(b"{}"), entries: &[(0, &entry)] };
    batch.put_documents(version, 5, &[document]).unwrap();
    assert_eq!(store.get(version, &row_key).await.unwrap(), None);
    batch.commit().unwrap();
    assert_eq!(&store.get(version, &row_key).await.unwrap().unwrap().body[..], b"{}");
    let query = IndexQuery {
        walk: Some(Filter { index: 0, ranges: vec![KeyRange::exactly(&entry)], negated: false }),
        descending: false,
        filters: vec![],
        after: None,
        limit: 5,
        entries_max: 10,
    };
    let page = store.query(version, &query).await.unwrap();
    assert_eq!((page.documents.len(), page.next), (1, None));
}
