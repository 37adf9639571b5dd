//! What is known of the tables: every schema their rows were ever written with, which of them is current, and where a
//! table was truncated.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::{SourcePosition, TableId, TableSchema};
use headwater_store::{RowBatch, SchemaId};

use crate::Error;
use crate::plan::{Plan, Tables};
use crate::truncations::{Truncation, Truncations};

/// Tables and schemas, as the store has them.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    schemas: BTreeMap<SchemaId, Arc<TableSchema>>,
    preludes: HashMap<Bytes, SchemaId>,
    tables: BTreeMap<TableId, Table>,
    /// Rises when a table becomes known or its current schema changes: plans are made anew.
    pub(crate) generation: u64,
}

#[derive(Clone, Debug)]
struct Table {
    current: SchemaId,
    current_at: SourcePosition,
    truncations: Truncations,
}

impl Catalog {
    /// Reads what the store has.
    pub(crate) fn load(batch: &dyn RowBatch) -> Result<Self, Error> {
        let mut catalog = Self::default();
        for (id, schema) in batch.schemas()? {
            catalog.preludes.insert(schema.to_bytes().into(), id);
            let known = catalog.tables.get(&schema.table).cloned();
            let table = match known {
                Some(known) => known,
                None => read_table(batch, &schema.table)?.unwrap_or(Table {
                    current: id,
                    current_at: SourcePosition::default(),
                    truncations: Truncations::default(),
                }),
            };
            catalog.tables.insert(schema.table.clone(), table);
            catalog.schemas.insert(id, Arc::new(schema));
        }
        Ok(catalog)
    }

    /// The schema of a batch's prelude, stored when it is new; `None` when the bytes are no schema.
    pub(crate) fn schema_of(&mut self, batch: &mut dyn RowBatch, prelude: &Bytes) -> Result<Option<SchemaId>, Error> {
        if let Some(id) = self.preludes.get(prelude) {
            return Ok(Some(*id));
        }
        let Some(schema) = TableSchema::from_bytes(prelude) else { return Ok(None) };
        let id = batch.schema_id(&schema)?;
        self.preludes.insert(prelude.clone(), id);
        self.schemas.insert(id, Arc::new(schema));
        Ok(Some(id))
    }

    /// Rows of a schema were seen at a position: the schema of the greatest position is the current one.
    pub(crate) fn seen(&mut self, batch: &mut dyn RowBatch, id: SchemaId, at: SourcePosition) -> Result<(), Error> {
        let table = self.schemas[&id].table.clone();
        let newer = self.tables.get(&table).is_none_or(|known| at > known.current_at && known.current != id);
        if newer {
            let state = Table { current: id, current_at: at, truncations: self.truncations(&table) };
            self.write(batch, table, state)?;
            self.generation += 1;
        }
        Ok(())
    }

    /// A table was truncated at a position: rows below it are gone, whenever they arrive.
    pub(crate) fn truncated(
        &mut self,
        batch: &mut dyn RowBatch,
        table: &TableId,
        at: SourcePosition,
    ) -> Result<(), Error> {
        let mut truncations = self.truncations(table);
        truncations.take_effect(at);
        self.set_truncations(batch, table, truncations)
    }

    /// Partitions of a table's topic brought truncations: answers as [`Truncations::bring`] does.
    pub(crate) fn bring(
        &mut self,
        batch: &mut dyn RowBatch,
        table: &TableId,
        brought: &[Truncation],
    ) -> Result<Option<SourcePosition>, Error> {
        let mut truncations = self.truncations(table);
        let due = truncations.bring(brought);
        self.set_truncations(batch, table, truncations)?;
        Ok(due)
    }

    /// The truncations of a table.
    pub(crate) fn truncations(&self, table: &TableId) -> Truncations {
        self.tables.get(table).map(|known| known.truncations.clone()).unwrap_or_default()
    }

    fn set_truncations(
        &mut self,
        batch: &mut dyn RowBatch,
        table: &TableId,
        truncations: Truncations,
    ) -> Result<(), Error> {
        match self.tables.get(table) {
            Some(known) if known.truncations != truncations => {
                let state = Table { truncations, ..known.clone() };
                self.write(batch, table.clone(), state)
            }
            _ => Ok(()),
        }
    }

    /// Where a table was truncated last.
    pub(crate) fn truncated_at(&self, table: &TableId) -> Option<SourcePosition> {
        self.tables.get(table).and_then(|table| table.truncations.effective())
    }

    pub(crate) fn schema(&self, id: SchemaId) -> &Arc<TableSchema> {
        &self.schemas[&id]
    }

    pub(crate) fn schemas(&self) -> impl Iterator<Item = (SchemaId, &TableSchema)> {
        self.schemas.iter().map(|(id, schema)| (*id, &**schema))
    }

    /// The current schema of each of these tables; `None` while one is unknown.
    pub(crate) fn current(&self, tables: &[&TableId]) -> Option<Tables> {
        let current = |table: &TableId| {
            let known = self.tables.get(table)?;
            Some((table.clone(), self.schemas[&known.current].clone()))
        };
        tables.iter().map(|table| current(table)).collect()
    }

    /// Whether a model fits the tables as they are now.
    pub(crate) fn fits(&self, model: &ReadModel) -> bool {
        self.current(&model.tables()).is_some_and(|tables| Plan::new(model, &tables).is_ok())
    }

    /// Where rows of a table's current schema were first seen.
    pub(crate) fn current_at(&self, table: &TableId) -> SourcePosition {
        self.tables.get(table).map(|known| known.current_at).unwrap_or_default()
    }

    /// What is told of a model of whose tables some are unknown.
    pub(crate) fn awaits(&self, model: &ReadModel) -> String {
        let tables = model.tables().into_iter().filter(|table| !self.tables.contains_key(table));
        let unknown: Vec<String> = tables.map(ToString::to_string).collect();
        format!(
            "waits for {}: nothing has come of it yet; is it among the tables of its connector?",
            unknown.join(", ")
        )
    }

    fn write(&mut self, batch: &mut dyn RowBatch, id: TableId, table: Table) -> Result<(), Error> {
        let mut note = table.current.0.to_be_bytes().to_vec();
        note.extend_from_slice(&table.current_at.to_bytes());
        table.truncations.write(&mut note);
        batch.set_note(&note_name(&id), Some(&note))?;
        self.tables.insert(id, table);
        Ok(())
    }
}

fn note_name(table: &TableId) -> String {
    format!("table/{table}")
}

fn read_table(batch: &dyn RowBatch, id: &TableId) -> Result<Option<Table>, Error> {
    let name = note_name(id);
    let Some(note) = batch.note(&name)? else { return Ok(None) };
    let damaged = || Error::Note { note: name.clone() };
    let (current, rest) = note.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (at, rest) = rest.split_at_checked(SourcePosition::LEN).ok_or_else(damaged)?;
    let current_at = SourcePosition::from_bytes(at).ok_or_else(damaged)?;
    let truncations = Truncations::read(rest).ok_or_else(damaged)?;
    Ok(Some(Table { current: SchemaId(u32::from_be_bytes(*current)), current_at, truncations }))
}
