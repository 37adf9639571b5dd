//! A worker's part in a shared projection.

use std::sync::Arc;
use std::time::Duration;

use headwater_broker::{AppendBatch, EventLog, FetchedBatch, TopicPartition, Watermarks};
use headwater_schemas::TableId;
use headwater_schemas::model::definition::ReadModel;
use headwater_store::{DocumentStore, RowBatch, RowStore, VersionId, VersionState};
use tokio::runtime::Handle;

use super::agreement::Sharing;
use super::applying::{Applied, Applying};
use super::building::{Building, Passed};
use super::leading::{Leading, Surroundings};
use super::view::SharedRows;
use crate::Error;
use crate::fold::{Folded, Letters};
use crate::records::Input;
use crate::resolved::Resolved;
use crate::versions::unknown_model;

/// Settings of a worker. All but the models must be the same in all workers.
#[derive(Clone, Debug)]
pub struct ShareOptions {
    /// Name of the projector, the same in all workers.
    pub name: String,
    /// Prefix of all topics.
    pub prefix: String,
    /// The declared models. Those of the leader count.
    pub models: Vec<ReadModel>,
    /// Partitions of the topics of dirty roots that are made: so many workers can share the building of one model.
    pub dirty_partitions: u32,
    /// Rows worked through in one transaction when a whole table is.
    pub slice_rows: usize,
    /// How long a retired version's documents are kept.
    pub retired_grace: Duration,
}

/// A worker's part in a shared projection: which partitions it has, and how far it is with them. No step waits for another
/// worker. A step that fails changed nothing, or something that the next claim finds and finishes.
pub struct Share {
    options: ShareOptions,
    log: Arc<dyn EventLog>,
    documents: Arc<dyn DocumentStore>,
    runtime: Handle,
    pub(crate) rows: SharedRows,
    applying: Applying,
    building: Building,
    pub(crate) leading: Option<Leading>,
    group: String,
}

impl Share {
    /// Begins without any partition. `runtime` is used to wait for the log, and must not be the one that calls the steps.
    pub fn new(
        options: ShareOptions,
        log: Arc<dyn EventLog>,
        rows: Arc<dyn RowStore>,
        documents: Arc<dyn DocumentStore>,
        runtime: Handle,
    ) -> Self {
        let group = build_group(&options.prefix, &options.name);
        Self {
            options,
            log,
            documents,
            runtime,
            rows: SharedRows::new(rows),
            applying: Applying::default(),
            building: Building::default(),
            leading: None,
            group,
        }
    }

    /// Reads what the workers agree on by now, and gives up partitions that others have claimed. The lead, too. Must be called
    /// now and then: an assignment that went away and came back may never be seen to have changed, while seeds that somebody else
    /// left in between wait for the next claim.
    pub fn refresh(&mut self) -> Result<(), Error> {
        self.applying.verify(&mut self.rows)?;
        if let Some(leading) = &self.leading
            && !leading.stands(&mut self.rows)?
        {
            self.leading = None;
        }
        Ok(())
    }

    /// Fails where the documents cannot be reached.
    pub(crate) fn reach_documents(&self) -> Result<(), Error> {
        self.documents.begin()?.versions()?;
        Ok(())
    }

    /// Topics to read: of the tables of the models, and of those of which there are rows. A table whose last model is gone is
    /// followed on, so that a model that comes back, or another one, finds its rows as they are now.
    pub fn source_topics(&self) -> Vec<String> {
        let view = self.rows.view();
        view.topics(&self.options.prefix).union(&view.kept_topics(&self.options.prefix)).cloned().collect()
    }

    /// Whether a model reads this topic.
    pub(crate) fn is_wanted(&self, topic: &str) -> bool {
        self.rows.view().topics(&self.options.prefix).contains(topic)
    }

    /// Whether a version that serves reads this topic.
    fn serves(&self, topic: &str) -> Result<bool, Error> {
        let records = self.documents.begin()?.versions()?;
        let is_active = |id| records.iter().any(|it| it.id == id && it.state == VersionState::Active);
        let mut active = self.rows.view().versions.iter().filter(|version| is_active(version.sharing.id));
        Ok(active.any(|version| version.model.tables().iter().any(|table| table.topic(&self.options.prefix) == topic)))
    }

    /// Topics of dirty roots, with their partitions.
    pub fn dirty_topics(&self) -> Vec<(String, u32)> {
        let versions = self.rows.view().versions.iter().filter(|version| version.sharing.is_made());
        versions.map(|version| (version.sharing.topic.clone(), version.sharing.partitions)).collect()
    }

    /// Takes a source partition over; answers with the next offset to be applied. `marks` are the partition's watermarks: one
    /// that nobody has read yet begins at the low one, and versions that need what was removed below it are not served. So
    /// does one that was not read for a while, if a version wants it that does not serve yet.
    pub fn claim(&mut self, at: &TopicPartition, marks: Watermarks) -> Result<u64, Error> {
        let next = self.applying.claim(&mut self.rows, at, marks)?;
        // What a version that serves lacks cannot be made good: reading it tells.
        if next >= marks.low.0 || !self.is_wanted(&at.topic) || self.serves(&at.topic)? {
            return Ok(next);
        }
        self.applying.begin_late(&mut self.rows, at, marks)
    }

    /// Gives a source partition up.
    pub fn release(&mut self, at: &TopicPartition) {
        self.applying.release(at);
    }

    /// Whether a source partition was claimed, and nobody else was seen to have claimed it since.
    pub fn owns(&self, at: &TopicPartition) -> bool {
        self.applying.owns(at)
    }

    /// Stage one, first step: applies records to the rows. Nothing may wait to be emitted.
    pub fn apply(&mut self, inputs: &[Input<'_>], letters: &mut Letters<'_>) -> Result<Applied, Error> {
        let Self { options, rows, applying, .. } = self;
        applying.apply(rows, &options.prefix, options.slice_rows, inputs, letters)
    }

    /// Whether roots wait to be looked up and appended.
    pub fn has_unemitted(&self) -> bool {
        self.applying.has_unemitted()
    }

    /// Stage one, second step: looks up the roots that wait, as records to append.
    pub fn ascend(&mut self) -> Result<Vec<AppendBatch>, Error> {
        self.applying.ascend(&mut self.rows)
    }

    /// Stage one, third step: what [`Self::ascend`] answered is durable in the log.
    pub fn emitted(&mut self) {
        self.applying.emitted();
    }

    /// Whether [`Self::settle`] has something to say.
    pub fn has_unsettled(&self) -> bool {
        self.applying.has_unsettled()
    }

    /// Stage one, last step, where no further batch says it: the store learns what was emitted.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.applying.settle(&mut self.rows)
    }

    /// Stage two, first step: takes dirty roots.
    pub fn take(&mut self, batches: &[FetchedBatch]) {
        self.building.take(batches);
    }

    /// Stage two, second step: evaluates the documents of some of them.
    pub fn read(&mut self) -> Result<(), Error> {
        self.building.read(&mut self.rows)
    }

    /// Stage two, third step: writes these documents.
    pub fn write(&mut self, letters: &mut Letters<'_>) -> Result<Folded, Error> {
        let Self { rows, building, documents, .. } = self;
        building.write(rows, &**documents, letters)
    }

    /// Whether [`Self::write`] has something to write.
    pub fn is_evaluated(&self) -> bool {
        self.building.is_evaluated()
    }

    /// Whether all roots that were taken are in documents; if not, [`Self::read`] and [`Self::write`] go on. They go through
    /// the topics in turns, a chunk each.
    pub fn is_built(&self) -> bool {
        self.building.is_done()
    }

    /// Whether so many roots of a dirty topic wait that no more of it should be taken.
    pub fn is_full(&self, topic: &str) -> bool {
        self.building.is_full(topic)
    }

    /// What of the dirty topics has come into documents since this was asked last. Only these offsets may be committed for
    /// [`Self::build_group`].
    pub fn passed(&mut self) -> Vec<Passed> {
        self.building.passed()
    }

    /// Tells how long the last [`Self::read`] and [`Self::write`] took.
    pub(crate) fn took(&mut self, time: Duration) {
        self.building.took(time);
    }

    /// Forgets the roots that were taken and not built, which must be fetched again, and what waits to be emitted, which
    /// the next claim of its partitions finds.
    pub fn forget_taken(&mut self) {
        self.building.forget();
        self.applying.forget_unemitted();
    }

    /// The consumer group of stage two.
    pub fn build_group(&self) -> &str {
        &self.group
    }

    /// Whether this worker leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.leading.is_some()
    }

    /// Takes the lead, or gives it up.
    pub fn lead(&mut self, lead: bool) -> Result<(), Error> {
        // Also where taking it fails: what a leader knew before, declared models among it, does not count any more.
        self.leading = None;
        if !lead {
            return Ok(());
        }
        let at = TopicPartition { topic: leader_topic(&self.options.prefix, &self.options.name).into(), partition: 0 };
        let (rows, around) = self.parts();
        let mut leading = Leading::claim(rows, &around, at)?;
        let models = self.options.models.clone();
        let (rows, around) = self.parts();
        let declared = leading.declare(rows, &around, &models)?;
        self.leading = declared.then_some(leading);
        Ok(())
    }

    /// Makes these the declared models, at once where this worker leads, else when it comes to lead.
    pub fn declare(&mut self, models: Vec<ReadModel>) -> Result<(), Error> {
        self.options.models = models;
        if self.leading.is_some() { self.lead(true) } else { Ok(()) }
    }

    /// As the leader: moves the frontiers of sources whose changes are in the documents.
    pub fn publish(&mut self) -> Result<(), Error> {
        self.as_leader(|leading, rows, around| {
            leading.read_progress(rows, around)?;
            Ok(leading.publish(rows, around)?.then_some(()))
        })?;
        Ok(())
    }

    /// As the leader: does one thing that is due for versions and join indexes. Answers whether there may be more to do
    /// at once.
    pub fn work(&mut self) -> Result<bool, Error> {
        Ok(self.as_leader(Leading::work)?.unwrap_or(false))
    }

    /// Asks for a new version of a model, built from the rows beside the one that serves. Whoever leads, now or later, begins
    /// it: answers with the newest version that is not it.
    pub(crate) fn ask_rebuild(&mut self, model: &str) -> Result<VersionId, Error> {
        let records = self.documents.begin()?.versions()?;
        let is_building = |id| records.iter().any(|it| it.id == id && it.state == VersionState::Building);
        self.rows.write(|view, batch| {
            let of_it = view.versions.iter().filter(|version| version.model.name == model);
            let ids: Vec<VersionId> = of_it.map(|version| version.sharing.id).collect();
            let Some(newest) = ids.iter().max() else {
                return Err(unknown_model(model, view.versions.iter().map(|version| version.model.name.as_str())));
            };
            if ids.iter().any(|id| is_building(*id)) || view.agreement.asked.iter().any(|asked| asked == model) {
                return Err(Error::RebuildRunning { model: model.to_string() });
            }
            view.agreement.asked.push(model.to_string());
            view.agreement.write(batch)?;
            Ok(*newest)
        })
    }

    /// The versions that serve or are being built, as the registry has them.
    pub(crate) fn versions(&mut self) -> Result<Vec<SharedVersion>, Error> {
        let transaction = self.documents.begin()?;
        let records = transaction.versions()?;
        let scanned = self.leading.as_ref().map(|leading| &leading.scanned);
        let mut versions = Vec::new();
        let view = self.rows.view();
        for followed in &view.versions {
            let id = followed.sharing.id;
            let Some(record) = records.iter().find(|record| record.id == id) else { continue };
            versions.push(SharedVersion {
                id,
                model: record.model.clone(),
                definition_hash: record.definition_hash.clone(),
                state: record.state,
                documents: transaction.document_count(id)?,
                follow: followed.sharing.follow,
                scanned: scanned.and_then(|scanned| scanned.get(&id).copied()).unwrap_or(0),
                rows: 0,
                root: followed.model.root.table.clone(),
                problem: view
                    .late
                    .lacks(&followed.model, &self.options.prefix)
                    .or_else(|| followed.problem.clone())
                    .or_else(|| Some(followed.sharing.held.as_ref()?.problem(&followed.model)))
                    .or_else(|| {
                        followed.sharing.refused.as_ref().map(|why| format!("its topic cannot be made: {why}"))
                    }),
            });
        }
        drop(transaction);
        self.rows.read(|_, batch| {
            for version in versions.iter_mut().filter(|version| version.state == VersionState::Building) {
                version.rows = batch.row_count(&version.root)?;
            }
            Ok(())
        })?;
        Ok(versions)
    }

    /// How the versions of a model are shared that follow changes; a scan sees to the others.
    pub(crate) fn sharings(&self, model: &str) -> Vec<Sharing> {
        let versions = self.rows.view().versions.iter().filter(|version| version.model.name == model);
        versions.filter(|version| version.followed_plan().is_some()).map(|version| version.sharing.clone()).collect()
    }

    /// Has it counted again what versions lack that are held back because too many of their documents could not be built:
    /// letters were tried again, say.
    pub fn weigh_again(&mut self) -> Result<(), Error> {
        if !self.rows.view().versions.iter().any(|version| version.sharing.held.is_some()) {
            return Ok(());
        }
        self.rows.write(|view, batch| {
            view.agreement.weigh_again(|_| true);
            view.agreement.write(batch)
        })?;
        self.rows.outdate();
        Ok(())
    }

    /// Whether there is a version of a model.
    pub(crate) fn has(&self, model: &str) -> bool {
        self.rows.view().versions.iter().any(|version| version.model.name == model)
    }

    /// The dead letters that some worker has resolved.
    pub(crate) fn resolved(&mut self) -> Result<Resolved, Error> {
        self.rows.read(|_, batch| Resolved::load(batch))
    }

    /// Changes notes that are about no partition.
    pub(crate) fn note<T>(&mut self, step: impl FnOnce(&mut dyn RowBatch) -> Result<T, Error>) -> Result<T, Error> {
        self.rows.write(|_, batch| step(batch))
    }

    /// Does something as the leader; an answer of `None` says that another one leads by now.
    fn as_leader<T>(
        &mut self,
        work: impl FnOnce(&mut Leading, &mut SharedRows, &Surroundings<'_>) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        // Put back only after success: after an error what the leader knows may be ahead of what is so.
        let Some(mut leading) = self.leading.take() else { return Ok(None) };
        let (rows, around) = self.parts();
        let done = work(&mut leading, rows, &around)?;
        self.leading = done.is_some().then_some(leading);
        Ok(done)
    }

    fn parts(&mut self) -> (&mut SharedRows, Surroundings<'_>) {
        let Self { options, log, documents, runtime, rows, group, .. } = self;
        let around = Surroundings {
            log,
            documents: &**documents,
            runtime,
            prefix: &options.prefix,
            name: &options.name,
            group,
            dirty_partitions: options.dirty_partitions,
            slice_rows: options.slice_rows,
            retired_grace_ms: i64::try_from(options.retired_grace.as_millis()).unwrap_or(i64::MAX),
        };
        (rows, around)
    }
}

/// One version, as a worker sees it.
pub(crate) struct SharedVersion {
    pub(crate) id: VersionId,
    pub(crate) model: String,
    pub(crate) definition_hash: String,
    pub(crate) state: VersionState,
    pub(crate) documents: u64,
    /// Whether its tables and join indexes are there, so that it is being built.
    pub(crate) follow: bool,
    /// Rows of the root's table scanned, as far as this worker did it, and how many there are.
    pub(crate) scanned: u64,
    pub(crate) rows: u64,
    pub(crate) root: TableId,
    pub(crate) problem: Option<String>,
}

/// The consumer group of stage one.
pub(super) fn apply_group(prefix: &str, name: &str) -> String {
    format!("{prefix}.{name}.apply")
}

/// The consumer group of stage two.
fn build_group(prefix: &str, name: &str) -> String {
    format!("{prefix}.{name}.build")
}

/// The topic whose only partition is the leader's. Nothing is ever written to it.
pub(crate) fn leader_topic(prefix: &str, name: &str) -> String {
    format!("{prefix}.{name}.leader")
}
