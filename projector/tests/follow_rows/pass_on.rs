//! The calls of a store's batch, for wrappers that do something of their own with each: they say what by a macro
//! `pass_on`, which gets `read`, `write` or (of a row) `put` and the call, or `few` and the name of a call that reads rows by keys and may
//! end early.

use headwater_store::ByteList;

/// The keys up to where a read that begins at number `from` is to end: often before their end, as if their rows were
/// large. Of the same keys always the same.
pub(super) fn few(keys: &ByteList, from: usize) -> ByteList {
    let mut few = keys.clone();
    if from < keys.len() {
        let chance =
            keys.get(from).iter().fold(from, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        few.truncate(if chance.is_multiple_of(3) { keys.len() } else { from + 1 + chance % 5 });
    }
    few
}

macro_rules! pass_on_rows {
    ($wrapper:ty) => {
        impl RowBatch for $wrapper {
            pass_on!(write schema_id(schema: &TableSchema) -> SchemaId);
            pass_on!(read schemas() -> Vec<(SchemaId, TableSchema)>);
            pass_on!(few rows_by_key(TableId));
            pass_on!(few rows_by_join(JoinIndex));
            pass_on!(
                read visit_by_join(index: &JoinIndex, keys: &ByteList, visit: &mut dyn FnMut(&RowArena)) -> ()
            );
            pass_on!(read check_row_size(cells: usize, keys: usize) -> ());
            pass_on!(put put_row(table: &TableId, indexes: &[&JoinIndex], write: RowWrite<'_>) -> ());
            pass_on!(
                put remove_row(table: &TableId, indexes: &[&JoinIndex], key: &[u8], removed: &[(usize, &[u8])]) -> ()
            );
            pass_on!(read scan_rows(table: &TableId, after: Option<&[u8]>, limit: usize, out: &mut RowArena) -> ());
            pass_on!(read row_count(table: &TableId) -> u64);
            pass_on!(read join_indexes() -> Vec<JoinIndex>);
            pass_on!(write add_join_index(index: &JoinIndex) -> ());
            pass_on!(write drop_join_index(index: &JoinIndex) -> ());
            pass_on!(read offsets() -> Vec<(String, u32, u64)>);
            pass_on!(write set_offset(topic: &str, partition: u32, offset: u64) -> ());
            pass_on!(read note(name: &str) -> Option<Vec<u8>>);
            pass_on!(write set_note(name: &str, value: Option<&[u8]>) -> ());
        }
    };
}

#[allow(unused_macros, reason = "not every test that passes on rows passes on documents")]
macro_rules! pass_on_documents {
    ($wrapper:ty) => {
        impl DocumentBatch for $wrapper {
            pass_on!(read versions() -> Vec<VersionRecord>);
            pass_on!(write new_version_id() -> VersionId);
            pass_on!(write put_version(version: &VersionRecord) -> ());
            pass_on!(write purge_version(version: VersionId, limit: usize) -> usize);
            pass_on!(
                write put_documents(version: VersionId, as_of_micros: i64, writes: &[DocumentWrite<'_>]) -> Written
            );
            pass_on!(read document_count(version: VersionId) -> u64);
            pass_on!(read frontiers() -> BTreeMap<String, Frontier>);
            pass_on!(write set_frontier(source: &str, frontier: Frontier) -> ());
        }
    };
}
