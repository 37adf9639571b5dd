//! What is known of the tables: every schema their rows were ever written with, which of them is current, and up to
//! where a table was truncated.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use headwater_schemas::{SourcePosition, TableId, TableSchema};
use headwater_store::{RowBatch, SchemaId};

use crate::Error;
use crate::plan::Tables;

/// Tables and schemas, as the store has them.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    schemas: BTreeMap<SchemaId, Arc<TableSchema>>,
    preludes: HashMap<Bytes, SchemaId>,
    tables: BTreeMap<TableId, Table>,
    /// Rises when a table becomes known or its current schema changes: plans are made anew.
    pub(crate) generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct Table {
    current: SchemaId,
    current_at: SourcePosition,
    truncated: Option<SourcePosition>,
}

impl Catalog {
    /// Reads what the store has.
    pub(crate) fn load(batch: &dyn RowBatch) -> Result<Self, Error> {
        let mut catalog = Self::default();
        for (id, schema) in batch.schemas()? {
            catalog.preludes.insert(schema.to_bytes().into(), id);
            let known = catalog.tables.get(&schema.table).copied();
            let table = match known {
                Some(known) => known,
                None => read_table(batch, &schema.table)?.unwrap_or(Table {
                    current: id,
                    current_at: SourcePosition::default(),
                    truncated: None,
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
        let known = self.tables.get(&table).copied();
        let newer = known.is_none_or(|known| at > known.current_at && known.current != id);
        if newer {
            let state = Table { current: id, current_at: at, truncated: known.and_then(|known| known.truncated) };
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
        match self.tables.get(table).copied() {
            Some(known) if known.truncated.is_none_or(|before| at > before) => {
                self.write(batch, table.clone(), Table { truncated: Some(at), ..known })
            }
            _ => Ok(()),
        }
    }

    /// Where a table was truncated last.
    pub(crate) fn truncated_at(&self, table: &TableId) -> Option<SourcePosition> {
        self.tables.get(table).and_then(|table| table.truncated)
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

    /// The schemas that these tables had before, the newest first: per step back one schema less of those ever seen.
    pub(crate) fn earlier(&self, tables: &[&TableId]) -> impl Iterator<Item = Tables> {
        let of_them = |schema: &TableSchema| tables.contains(&&schema.table);
        let seen: Vec<&Arc<TableSchema>> = self.schemas.values().filter(|schema| of_them(schema)).collect();
        (1..=seen.len()).rev().map_while(move |count| {
            let known: Tables = seen[..count].iter().map(|schema| (schema.table.clone(), (*schema).clone())).collect();
            tables.iter().all(|table| known.contains_key(*table)).then_some(known)
        })
    }

    /// Those of these tables that nothing is known of.
    pub(crate) fn unknown(&self, tables: &[&TableId]) -> Vec<String> {
        tables.iter().filter(|table| !self.tables.contains_key(table)).map(ToString::to_string).collect()
    }

    fn write(&mut self, batch: &mut dyn RowBatch, id: TableId, table: Table) -> Result<(), Error> {
        let mut note = table.current.0.to_be_bytes().to_vec();
        note.extend_from_slice(&table.current_at.to_bytes());
        if let Some(truncated) = table.truncated {
            note.extend_from_slice(&truncated.to_bytes());
        }
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
    let truncated = match rest {
        [] => None,
        rest => Some(SourcePosition::from_bytes(rest).ok_or_else(damaged)?),
    };
    let current_at = SourcePosition::from_bytes(at).ok_or_else(damaged)?;
    Ok(Some(Table { current: SchemaId(u32::from_be_bytes(*current)), current_at, truncated }))
}
