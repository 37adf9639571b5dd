//! What a worker knows of the shared rows, and the transactions through which it knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_schemas::TableId;
use headwater_schemas::model::definition::ReadModel;
use headwater_store::{JoinIndex, RowBatch, RowStore, VersionId};

use super::agreement::{Agreement, Sharing, index_note};
use crate::Error;
use crate::apply::TableIndexes;
use crate::catalog::Catalog;
use crate::frozen;
use crate::late::Late;
use crate::plan::Plan;
use crate::version::definition_note;

/// The shared rows, seen by one worker.
pub(crate) struct SharedRows {
    rows: Arc<dyn RowStore>,
    view: View,
}

/// Tables, versions and join indexes, as one generation of the agreement has them.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) agreement: Agreement,
    pub(crate) catalog: Catalog,
    pub(crate) versions: Vec<Followed>,
    pub(crate) indexes: BTreeMap<TableId, TableIndexes>,
    /// Join indexes that are complete.
    pub(crate) complete: Vec<JoinIndex>,
    /// Partitions begun behind records that nobody read.
    pub(crate) late: Late,
    planned: u64,
    /// Whether it is what the store has; not so between a failed transaction and the next one.
    settled: bool,
}

/// A version, with its plan.
pub(crate) struct Followed {
    pub(crate) sharing: Sharing,
    pub(crate) model: Arc<ReadModel>,
    /// `None` while a table it reads is unknown, the model does not fit the tables, or it is frozen.
    pub(crate) plan: Option<Plan>,
    pub(crate) problem: Option<String>,
    pub(crate) indexes: Vec<JoinIndex>,
}

impl Followed {
    /// By what changes of rows are followed up, where any are. A version that follows them has a plan until it is frozen.
    pub(crate) fn followed_plan(&self) -> Option<&Plan> {
        self.plan.as_ref().filter(|_| self.sharing.follow)
    }

    /// Makes the plan by the tables as they are now. A version that follows changes and does not fit them is frozen.
    fn replan(&mut self, catalog: &Catalog) {
        let planned = match catalog.current(&self.model.tables()) {
            Some(tables) => Plan::new(&self.model, &tables).map_err(Some),
            None => Err(None),
        };
        self.sharing.frozen |= self.sharing.follow && planned.is_err();
        (self.plan, self.problem) = match planned {
            Ok(_) if self.sharing.frozen => (None, Some(frozen::FITS_AGAIN.to_owned())),
            Ok(mut plan) => {
                catalog.schemas().for_each(|(id, schema)| plan.learn(id, schema));
                (Some(plan), None)
            }
            Err(Some(error)) if self.sharing.frozen => (None, Some(frozen::misfit(&error))),
            Err(Some(error)) => (None, Some(error.to_string())),
            Err(None) => (None, Some(catalog.awaits(&self.model))),
        };
        self.indexes = self.plan.as_ref().map(Plan::join_indexes).unwrap_or_default();
    }
}

impl SharedRows {
    pub(crate) fn new(rows: Arc<dyn RowStore>) -> Self {
        Self { rows, view: View::default() }
    }

    /// Has the next transaction read everything again.
    pub(crate) fn outdate(&mut self) {
        self.view.settled = false;
    }

    /// What was known at the end of the last transaction.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Reads one state of the rows. The transaction is committed although it wrote nothing: only then is it sure that it
    /// did not read from a server that has been replaced meanwhile.
    pub(crate) fn read<T>(
        &mut self,
        step: impl FnOnce(&mut View, &dyn RowBatch) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut transaction = self.rows.begin()?;
        let view = &mut self.view;
        view.refresh(&*transaction)?;
        view.settled = false;
        let done = step(view, &mut *transaction)?;
        transaction.commit()?;
        view.settled = true;
        Ok(done)
    }

    /// Changes rows and notes. What the view learned on the way is agreed on in the same commit.
    pub(crate) fn write<T>(
        &mut self,
        step: impl FnOnce(&mut View, &mut dyn RowBatch) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = self.write_if(|view, batch| step(view, batch).map(Some))?;
        Ok(done.expect("it is always wanted"))
    }

    /// As [`Self::write`], unless `step` answers `None`: then nothing is changed.
    pub(crate) fn write_if<T>(
        &mut self,
        step: impl FnOnce(&mut View, &mut dyn RowBatch) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let mut transaction = self.rows.begin()?;
        let view = &mut self.view;
        view.refresh(&*transaction)?;
        // Until the commit, what is known is ahead of the store.
        view.settled = false;
        let (generation, learned) = (view.agreement.generation, view.learned());
        let Some(done) = step(view, &mut *transaction)? else { return Ok(None) };
        if view.learned() != learned && view.agreement.generation == generation {
            view.agreement.write(&mut *transaction)?;
        }
        fail::fail_point!("projector::before_commit");
        transaction.commit()?;
        view.settled = true;
        Ok(Some(done))
    }
}

impl View {
    fn refresh(&mut self, batch: &dyn RowBatch) -> Result<(), Error> {
        let agreement = Agreement::read(batch)?;
        if self.settled && self.agreement.generation == agreement.generation {
            return Ok(());
        }
        self.settled = false;
        self.catalog = Catalog::load(batch)?;
        self.complete = batch.join_indexes()?;
        self.late = Late::load(batch)?;
        self.versions.clear();
        for sharing in &agreement.versions {
            let name = definition_note(sharing.id.0);
            let definition = batch.note(&name)?;
            let model: Option<ReadModel> = definition.and_then(|json| serde_json::from_slice(&json).ok());
            let model = Arc::new(model.ok_or(Error::Note { note: name })?);
            let sharing = sharing.clone();
            self.versions.push(Followed { sharing, model, plan: None, problem: None, indexes: Vec::new() });
        }
        self.agreement = agreement;
        self.replan();
        self.settled = true;
        Ok(())
    }

    /// Grows with everything that plans depend on.
    fn learned(&self) -> u64 {
        self.catalog.generation + self.catalog.schemas().count() as u64
    }

    /// Makes plans anew where something was learned since the last time. What was learned is agreed on in the same commit, and
    /// so is which versions that froze.
    pub(crate) fn replan_if_learned(&mut self, batch: &mut dyn RowBatch) -> Result<(), Error> {
        if self.planned != self.learned() {
            let walked: Vec<JoinIndex> = self.versions.iter().flat_map(|version| version.indexes.clone()).collect();
            self.replan();
            self.forget_unfilled(batch, None, &walked)?;
        }
        Ok(())
    }

    /// Removes those of these join indexes that are filled halfway and that no version but this one walks: whoever wants one
    /// later begins anew.
    pub(crate) fn forget_unfilled(
        &self,
        batch: &mut dyn RowBatch,
        but: Option<VersionId>,
        indexes: &[JoinIndex],
    ) -> Result<(), Error> {
        let others = || self.versions.iter().filter(|version| Some(version.sharing.id) != but);
        for index in indexes {
            if !self.complete.contains(index) && !others().any(|version| version.indexes.contains(index)) {
                batch.drop_join_index(index)?;
                batch.set_note(&index_note(index), None)?;
            }
        }
        Ok(())
    }

    fn replan(&mut self) {
        self.planned = self.learned();
        for version in &mut self.versions {
            version.replan(&self.catalog);
            let mut agreed = self.agreement.versions.iter_mut();
            if let Some(agreed) = agreed.find(|sharing| sharing.id == version.sharing.id) {
                agreed.frozen = version.sharing.frozen;
            }
        }
        let mut by_table: BTreeMap<TableId, Vec<JoinIndex>> = BTreeMap::new();
        for index in self.versions.iter().flat_map(|version| &version.indexes).chain(&self.complete) {
            by_table.entry(index.table.clone()).or_default().push(index.clone());
        }
        let with_indexes = |(table, mut indexes): (TableId, Vec<JoinIndex>)| {
            indexes.sort();
            indexes.dedup();
            (table.clone(), TableIndexes::new(table, indexes, &self.catalog))
        };
        self.indexes = by_table.into_iter().map(with_indexes).collect();
    }

    pub(crate) fn indexes_of(&self, table: &TableId) -> TableIndexes {
        let known = self.indexes.get(table).cloned();
        known.unwrap_or_else(|| TableIndexes::new(table.clone(), Vec::new(), &self.catalog))
    }

    pub(crate) fn version(&self, id: VersionId) -> Option<&Followed> {
        self.versions.iter().find(|version| version.sharing.id == id)
    }

    /// Topics of the tables that the versions read.
    pub(crate) fn topics(&self, prefix: &str) -> BTreeSet<String> {
        let tables = self.versions.iter().flat_map(|version| version.model.tables());
        tables.map(|table| table.topic(prefix)).collect()
    }

    /// Topics of which there are rows, whether a version reads them or not.
    pub(crate) fn kept_topics(&self, prefix: &str) -> BTreeSet<String> {
        let topics = self.catalog.schemas().map(|(_, schema)| schema.table.topic(prefix));
        topics.filter(|topic| self.agreement.places.iter().any(|(place, _)| place == topic)).collect()
    }

    /// Sources that the versions read.
    pub(crate) fn sources(&self) -> Vec<String> {
        let mut sources: Vec<String> = self.versions.iter().flat_map(|version| version.model.sources()).collect();
        sources.sort();
        sources.dedup();
        sources
    }
}
