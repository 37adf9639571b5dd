//! Documents of dirty roots into the store, a bounded chunk at a time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schemas::model::ModelShape;
use headwater_schemas::{DeadLetter, Payload, Stage, TableId};
use headwater_store::{Batch, ByteList, DocumentBatch, DocumentWrite, RowArena, RowBatch, VersionId, Written};

use crate::Error;
use crate::catalog::Catalog;
use crate::clock::now_ms;
use crate::evaluate::CHUNK_BYTES;
use crate::fold::State;
use crate::found::FoundLetters;
use crate::keys::KeySet;

impl State {
    /// Source time that documents of a version reflect: of its sources the one that is furthest behind.
    pub(crate) fn as_of(&self, version: usize, latest: i64) -> i64 {
        let tables = self.versions[version].model.tables();
        let at = tables.iter().filter_map(|table| self.frontiers.get(&*table.source)).map(|it| it.at_micros).min();
        at.unwrap_or(latest)
    }

    /// Rebuilds the documents of the dirty roots of each version; `latest` is the newest source time that is known.
    pub(crate) fn build_all(
        &mut self,
        batch: &mut dyn Batch,
        dirty: Vec<KeySet>,
        latest: i64,
        found: &mut FoundLetters<'_>,
    ) -> Result<Written, Error> {
        let mut written = Written::default();
        for (number, dirty) in dirty.into_iter().enumerate() {
            let as_of = self.as_of(number, latest);
            written = sum(written, self.build(batch, number, dirty, as_of, found)?);
        }
        Ok(written)
    }

    /// Rebuilds the documents of dirty roots, in key order, a chunk at a time.
    pub(crate) fn build(
        &mut self,
        batch: &mut dyn Batch,
        version: usize,
        mut dirty: KeySet,
        as_of: i64,
        found: &mut FoundLetters<'_>,
    ) -> Result<Written, Error> {
        let mut written = Written::default();
        if dirty.is_empty() {
            return Ok(written);
        }
        let count = dirty.settle();
        let mut start = 0;
        while start < count {
            let end = count.min(start + self.roots_chunk);
            let mut roots = dirty.list(start..end);
            written = sum(written, self.build_chunk(batch, version, &mut roots, as_of, found)?);
            start += roots.len();
        }
        Ok(written)
    }

    /// Rebuilds the documents of as many of these roots as can be held at once, and leaves those of the list.
    fn build_chunk(
        &mut self,
        batch: &mut dyn Batch,
        version: usize,
        roots: &mut ByteList,
        as_of: i64,
        found: &mut FoundLetters<'_>,
    ) -> Result<Written, Error> {
        let version = &self.versions[version];
        let Some(plan) = &version.plan else { return Ok(Written::default()) };
        let id = version.record.id;
        self.documents.evaluate(plan, &*batch, roots)?;
        if self.documents.chunk_bytes > CHUNK_BYTES {
            self.roots_chunk = (roots.len() * CHUNK_BYTES / self.documents.chunk_bytes).max(1);
        } else if self.documents.chunk_bytes < CHUNK_BYTES / 8 {
            self.roots_chunk = (self.roots_chunk * 2).min(4_096);
        }
        let mut faults: Vec<(usize, String)> =
            self.documents.poisoned().map(|(at, cause)| (at, cause.to_string())).collect();
        let written =
            self.documents.writes(roots, None, |writes| put_documents(batch, id, as_of, writes, &mut faults))?;
        let (model, table) = (plan.model.clone(), plan.root_table().clone());
        for (at, cause) in faults {
            found.add(project_letter(&*batch, &self.catalog, &model, &table, roots.get(at), cause)?)?;
        }
        Ok(written)
    }
}

/// Writes documents; one that the store refuses is a fault, and is gone.
pub(crate) fn put_documents(
    batch: &mut dyn DocumentBatch,
    version: VersionId,
    as_of: i64,
    writes: &[DocumentWrite<'_>],
    faults: &mut Vec<(usize, String)>,
) -> Result<Written, Error> {
    let refused = |error: &headwater_store::Error| error.kind() == headwater_store::ErrorKind::Poison;
    match batch.put_documents(version, as_of, writes) {
        Ok(written) => return Ok(written),
        Err(error) if refused(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let mut written = Written::default();
    for (at, write) in writes.iter().enumerate() {
        let one = match batch.put_documents(version, as_of, std::slice::from_ref(write)) {
            Err(error) if refused(&error) => {
                faults.push((at, error.to_string()));
                let gone = DocumentWrite { body: None, entries: &[], ..*write };
                batch.put_documents(version, as_of, &[gone])?
            }
            other => other?,
        };
        written = sum(written, one);
    }
    Ok(written)
}

/// The letter about a document that cannot be built or stored.
pub(crate) fn project_letter(
    batch: &dyn RowBatch,
    catalog: &Catalog,
    model: &str,
    table: &TableId,
    root: &[u8],
    cause: String,
) -> Result<DeadLetter, Error> {
    let mut keys = ByteList::default();
    keys.push(root);
    let mut arena = RowArena::default();
    batch.rows_by_key(table, &keys, 0, &mut arena)?;
    let id = arena.slots().first().and_then(|slot| {
        let (schema, row) = (catalog.schema(slot.schema), arena.row(slot)?);
        Some(ModelShape::format_id(schema.key_columns().into_iter().map(|at| row.cell(at))))
    });
    Ok(DeadLetter {
        stage: Stage::Project,
        cause,
        at_millis: now_ms(),
        table: Some(table.to_string()),
        position: None,
        model: Some(model.to_string()),
        root: id,
        payload: Payload::Root(STANDARD.encode(root)),
    })
}

pub(crate) fn sum(a: Written, b: Written) -> Written {
    Written { written: a.written + b.written, deleted: a.deleted + b.deleted, unchanged: a.unchanged + b.unchanged }
}
