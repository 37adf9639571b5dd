//! The state of a projection and its step, the micro-batch: events in, rows and documents out, in one commit.
//!
//! Nothing here knows of threads, time-outs or the log, so that property tests drive it directly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::{DeadLetter, SourcePosition, SourceProgress, TableId};
use headwater_store::{
    Batch, ByteList, Frontier, JoinIndex, ProjectionStore, RowArena, VersionId, VersionRecord, VersionState, Written,
};

use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::apply::{Mode, TableIndexes, apply, erase};
use crate::ascend::{Ascents, climb};
use crate::background::index_note;
use crate::build::sum;
use crate::catalog::Catalog;
use crate::changes::TableChanges;
use crate::evaluate::Documents;
use crate::found::FoundLetters;
use crate::keys::KeySet;
use crate::late::Late;
use crate::records::{Decoded, Input, decode, read_anew};
use crate::sweep::Sweeping;
use crate::version::Version;

/// Takes dead letters, and answers when they are durable. Called before the commit that they belong to, a bounded number
/// at a time: a letter may come twice, but is never lost.
pub type Letters<'l> = dyn FnMut(&[DeadLetter]) -> Result<(), Error> + 'l;

/// Settings of the fold.
#[derive(Clone, Debug)]
pub struct FoldOptions {
    /// Prefix of all topics.
    pub prefix: String,
    /// How long a retired version's documents are kept, so that readers who began on it can end.
    pub retired_grace: Duration,
    /// Rows worked through at a time when a whole table is: truncated, scanned, or written into a new join index.
    pub slice_rows: usize,
}

impl Default for FoldOptions {
    /// Prefix `headwater`, ten seconds of grace, 2,048 rows.
    fn default() -> Self {
        Self { prefix: "headwater".into(), retired_grace: Duration::from_secs(10), slice_rows: 2_048 }
    }
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Events read, duplicates included.
    pub events: u64,
    /// Rows that changed.
    pub rows: u64,
    /// Documents written, deleted, and found unchanged.
    pub documents: Written,
    /// Dead letters found.
    pub dead_letters: u64,
    /// Commit times of the source transactions that were folded, microseconds since 1970.
    pub committed_at: Vec<i64>,
    /// Versions of which documents were rebuilt for those.
    pub rebuilt: Vec<VersionId>,
}

impl Folded {
    /// What this step and another one did.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.events += other.events;
        self.rows += other.rows;
        self.documents = sum(self.documents, other.documents);
        self.dead_letters += other.dead_letters;
        self.committed_at.extend(other.committed_at);
        self.rebuilt.extend(other.rebuilt);
        self.rebuilt.sort();
        self.rebuilt.dedup();
        self
    }
}

/// Rows, documents and offsets in a store, and what is needed to take them further.
///
/// After an error nothing of the failed step is in the store, and the fold reads its state again at the next step.
pub struct Fold {
    pub(crate) store: Arc<dyn ProjectionStore>,
    pub(crate) options: FoldOptions,
    pub(crate) state: State,
    stale: bool,
    pub(crate) sweeping: Sweeping,
    /// Ends what would take long.
    pub(crate) stop: CancellationToken,
}

/// What the fold knows of the store.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) versions: Vec<Version>,
    /// Versions that the registry has, and whose definitions the rows do not have: the rows they were built from are gone.
    pub(crate) lost: Vec<VersionRecord>,
    pub(crate) indexes: BTreeMap<TableId, TableIndexes>,
    /// Join indexes that are complete.
    pub(crate) complete: Vec<JoinIndex>,
    /// Next offset by topic and partition.
    pub(crate) offsets: BTreeMap<(String, u32), u64>,
    pub(crate) frontiers: BTreeMap<String, Frontier>,
    /// Newest progress of each source; not of the store, and kept when the rest is read again.
    pub(crate) progress: BTreeMap<String, SourceProgress>,
    /// Sources that have progress in the log: until it is read, their frontiers say nothing of snapshots; as `progress`.
    pub(crate) awaited: BTreeSet<String>,
    /// Truncations below which tables have been swept by this process. Nothing comes back there, since rows are compared
    /// with where their table was truncated. As `progress`.
    pub(crate) swept: BTreeMap<TableId, SourcePosition>,
    /// Partitions begun behind records that nobody read.
    pub(crate) late: Late,
    /// Up to where partitions must be read before a version that needs them is built; as `progress`.
    pub(crate) floors: BTreeMap<(String, u32), u64>,
    /// Roots that are rebuilt with one read per relation.
    pub(crate) roots_chunk: usize,
    pub(crate) documents: Documents,
    /// Roots whose documents an earlier commit may have left behind their rows, by version.
    pub(crate) unfinished: Vec<(VersionId, ByteList)>,
    planned: u64,
}

impl Fold {
    /// Opens the projection in `store` and registers the versions that `models` need.
    pub fn open(store: Arc<dyn ProjectionStore>, models: &[ReadModel], options: FoldOptions) -> Result<Self, Error> {
        let (state, sweeping, stop) = (State::default(), Sweeping::default(), CancellationToken::new());
        let mut fold = Self { store, options, state, stale: true, sweeping, stop };
        fold.declare(models)?;
        Ok(fold)
    }

    /// Runs a step in a batch of the store, and commits it.
    pub(crate) fn step<T>(
        &mut self,
        step: impl FnOnce(&mut State, &mut dyn Batch, &FoldOptions) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self { store, options, state, stale, .. } = self;
        let mut batch = store.begin()?;
        if *stale {
            state.load(&mut *batch)?;
        }
        // Until the commit, what is known is ahead of the store.
        *stale = true;
        let done = step(state, &mut *batch, options)?;
        fail::fail_point!("projector::before_commit");
        batch.commit()?;
        *stale = false;
        Ok(done)
    }

    /// Folds some records: one micro-batch, one commit. Before it, in commits of their own, go the rows of large tables that
    /// the records truncate, where the engine asks for that.
    pub fn micro_batch(&mut self, inputs: &[Input<'_>], letters: &mut Letters<'_>) -> Result<Folded, Error> {
        self.in_order(inputs, letters, Self::batch)
    }

    fn batch(&mut self, inputs: &[Input<'_>], letters: &mut Letters<'_>) -> Result<Folded, Error> {
        self.step(|state, batch, options| {
            let decoded = decode(batch, &mut state.catalog, &options.prefix, inputs)?;
            for ((topic, partition), offset) in &decoded.offsets {
                if crate::records::progress_source(&options.prefix, topic).is_none() {
                    batch.set_offset(topic, *partition, *offset)?;
                    state.offsets.insert((topic.clone(), *partition), *offset);
                }
            }
            for (source, progress) in &decoded.progress {
                for (topic, partition, end) in read_anew(state.progress.get(source), progress) {
                    state.raise_floor(&topic, partition, end);
                }
                state.progress.insert(source.clone(), progress.clone());
            }
            state.late.read_again(batch, inputs)?;
            state.fold(batch, options, decoded, Mode::Follow, letters)
        })
    }

    /// Reads the state again after a failed step; before that, [`Self::offsets`] may be ahead of the store.
    pub fn refresh(&mut self) -> Result<(), Error> {
        if self.stale { self.step(|_, _, _| Ok(())) } else { Ok(()) }
    }

    /// Waits until nothing that was folded more than `age` ago can be lost any more; see [`ProjectionStore::settle`].
    pub fn settle(&self, age: Duration) -> Result<(), Error> {
        Ok(self.store.settle(age)?)
    }

    /// Partitions and the next offset of each, as stored.
    pub fn offsets(&self) -> &BTreeMap<(String, u32), u64> {
        &self.state.offsets
    }

    /// Topics of the tables that the models read.
    pub fn topics(&self) -> Vec<String> {
        let mut topics: Vec<String> = Vec::new();
        for version in &self.state.versions {
            topics.extend(version.model.tables().iter().map(|table| table.topic(&self.options.prefix)));
        }
        topics.sort();
        topics.dedup();
        topics
    }

    /// Whether a version that serves reads this topic.
    pub(crate) fn serves(&self, topic: &str) -> bool {
        let mut active = self.state.versions.iter().filter(|version| version.is_active());
        active.any(|version| version.model.tables().iter().any(|table| table.topic(&self.options.prefix) == topic))
    }

    /// Sources that the models read.
    pub fn sources(&self) -> Vec<String> {
        let mut sources: Vec<String> = self.state.versions.iter().flat_map(|version| version.model.sources()).collect();
        sources.sort();
        sources.dedup();
        sources
    }

    /// Says that there is progress of a source in the log, without which no version is built.
    pub fn await_progress(&mut self, source: &str) {
        self.state.awaited.insert(source.to_owned());
    }

    /// Says that a partition must have been read up to `offset` before versions that need it are built. Said again of one
    /// that was not read for a while.
    pub fn set_floor(&mut self, topic: &str, partition: u32, offset: u64) {
        self.state.raise_floor(topic, partition, offset);
    }
}

impl State {
    fn raise_floor(&mut self, topic: &str, partition: u32, offset: u64) {
        let floor = self.floors.entry((topic.to_string(), partition)).or_insert(offset);
        *floor = offset.max(*floor);
    }

    fn load(&mut self, batch: &mut dyn Batch) -> Result<(), Error> {
        let offsets = batch.offsets()?.into_iter().map(|(topic, partition, offset)| ((topic, partition), offset));
        let mut state = State {
            catalog: Catalog::load(&*batch)?,
            complete: batch.join_indexes()?,
            offsets: offsets.collect(),
            frontiers: batch.frontiers()?,
            late: Late::load(&*batch)?,
            progress: std::mem::take(&mut self.progress),
            floors: std::mem::take(&mut self.floors),
            awaited: std::mem::take(&mut self.awaited),
            swept: std::mem::take(&mut self.swept),
            // What was learned of the size of documents counts also where their commit failed.
            roots_chunk: if self.roots_chunk == 0 { 512 } else { self.roots_chunk },
            unfinished: batch.unfinished()?,
            ..State::default()
        };
        state.load_versions(batch)?;
        *self = state;
        self.replan(batch)
    }

    /// Makes plans of models whose tables are known by now, and learns new schemas. Versions may be added and retired.
    pub(crate) fn replan(&mut self, batch: &mut dyn Batch) -> Result<(), Error> {
        self.planned = self.learned();
        let walked: Vec<JoinIndex> = self.versions.iter().flat_map(|version| version.indexes.clone()).collect();
        for version in &mut self.versions {
            version.replan(batch, &self.catalog)?;
        }
        self.replace_frozen(batch)?;
        self.forget_unfilled(batch, &walked)?;
        let mut by_table: BTreeMap<TableId, Vec<JoinIndex>> = BTreeMap::new();
        let wanted = self.versions.iter().flat_map(|version| version.indexes.clone());
        for index in wanted.chain(self.complete.clone()) {
            let indexes = by_table.entry(index.table.clone()).or_default();
            if !indexes.contains(&index) {
                indexes.push(index);
            }
        }
        self.indexes.clear();
        for (table, mut indexes) in by_table {
            indexes.sort();
            for index in &indexes {
                // A table without rows has nothing to be gone through again.
                if !self.complete.contains(index) && batch.row_count(&table)? == 0 {
                    batch.add_join_index(index)?;
                    // It may have been filled halfway when the table was truncated.
                    batch.set_note(&index_note(index), None)?;
                    self.complete.push(index.clone());
                }
            }
            self.indexes.insert(table.clone(), TableIndexes::new(table, indexes, &self.catalog));
        }
        Ok(())
    }

    /// Grows with everything that plans depend on.
    fn learned(&self) -> u64 {
        self.catalog.generation + self.catalog.schemas().count() as u64
    }

    /// Folds decoded events; shared by following and replaying.
    pub(crate) fn fold(
        &mut self,
        batch: &mut dyn Batch,
        options: &FoldOptions,
        decoded: Decoded<'_>,
        mode: Mode,
        letters: &mut Letters<'_>,
    ) -> Result<Folded, Error> {
        if self.planned != self.learned() {
            self.replan(batch)?;
        }
        let mut dirty = self.take_unfinished();
        let mut truncated = Vec::new();
        for (table, brought) in &decoded.truncates {
            truncated.extend(self.catalog.bring(batch, table, brought)?.map(|at| (table, at)));
        }
        let mut ascents = self.ascents();
        for (table, at) in truncated {
            self.truncate(batch, options, table, at, &mut ascents)?;
        }
        let mut found = FoundLetters::new(letters);
        found.add_all(decoded.letters)?;
        for (table, events) in decoded.rows {
            let indexes = self.indexes_of(&table);
            let each = |changes: &TableChanges<'_>| ascents.begin(changes);
            found.add_all(apply(batch, &self.catalog, &table, &indexes, events, mode, each)?)?;
        }
        fail::fail_point!("projector::mid_batch");
        let rows = ascents.changed;
        self.climb_all(batch, ascents, &mut dirty)?;
        self.advance(batch, options)?;
        let is_dirty = |(version, dirty): (&Version, &KeySet)| (!dirty.is_empty()).then_some(version.record.id);
        let rebuilt = self.versions.iter().zip(&dirty).filter_map(is_dirty).collect();
        let documents = self.build_all(batch, dirty, decoded.latest_at, &mut found)?;
        Ok(Folded {
            events: decoded.events,
            rows,
            documents,
            dead_letters: found.finish()?,
            committed_at: decoded.committed_at,
            rebuilt,
        })
    }

    /// Ascents of all versions that follow changes, none begun.
    pub(crate) fn ascents(&self) -> Ascents<'_, usize> {
        let followed = self.versions.iter().enumerate();
        Ascents::new(followed.filter_map(|(number, version)| Some((number, version.followed_plan()?))))
    }

    /// A set of dirty roots for each version: those that were left unfinished.
    pub(crate) fn take_unfinished(&mut self) -> Vec<KeySet> {
        let mut dirty: Vec<KeySet> = vec![KeySet::default(); self.versions.len()];
        self.unfinished.retain(|(id, roots)| {
            let Some(at) = self.versions.iter().position(|version| version.record.id == *id) else { return false };
            // Without a plan there is nothing to build them by yet.
            let planned = self.versions[at].plan.is_some();
            if planned {
                roots.iter().for_each(|root| dirty[at].push(root));
            }
            !planned
        });
        dirty
    }

    pub(crate) fn indexes_of(&self, table: &TableId) -> TableIndexes {
        let known = self.indexes.get(table).cloned();
        known.unwrap_or_else(|| TableIndexes::new(table.clone(), Vec::new(), &self.catalog))
    }

    /// Adds the roots above everything that changed to the dirty ones of their versions.
    pub(crate) fn climb_all(
        &self,
        batch: &dyn Batch,
        ascents: Ascents<'_, usize>,
        dirty: &mut [KeySet],
    ) -> Result<(), Error> {
        for (number, plan, seeds) in ascents.seeds {
            if !seeds.is_empty() {
                climb(plan, batch, seeds, &mut dirty[number])?;
                dirty[number].retain(|root| self.versions[number].follows(root));
            }
        }
        Ok(())
    }

    /// Rows of the table below `at` are removed, a bounded number at a time, unless they have been swept before.
    fn truncate(
        &self,
        batch: &mut dyn Batch,
        options: &FoldOptions,
        table: &TableId,
        at: SourcePosition,
        ascents: &mut Ascents<'_, usize>,
    ) -> Result<(), Error> {
        if self.is_swept(table, at) {
            return Ok(());
        }
        let indexes = self.indexes_of(table);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let mut arena = RowArena::default();
            batch.scan_rows(table, after.as_deref(), options.slice_rows, &mut arena)?;
            let Some(last) = arena.slots().last() else { return Ok(()) };
            after = Some(arena.key(last).to_vec());
            ascents.begin(&erase(batch, table, &indexes, &arena, at)?);
        }
    }

    /// Moves the frontiers of sources whose progress is reached, and none back; not of those that a [frozen](crate::frozen)
    /// version holds. None moves while a version serves that nobody follows, because its rows are gone: it lacks every change
    /// since, and which tables it reads is not known any more.
    pub(crate) fn advance(&mut self, batch: &mut dyn Batch, options: &FoldOptions) -> Result<(), Error> {
        if self.lost.iter().any(|record| record.state == VersionState::Active) {
            return Ok(());
        }
        let mut reached = Vec::new();
        for (source, progress) in self.progress.iter().filter(|(source, _)| !self.is_held(source)) {
            let frontier = Frontier {
                position: progress.position,
                at_micros: progress.at_micros,
                snapshot_done: progress.snapshot_done,
            }
            .after(self.frontiers.get(source));
            let newer = |known: &Frontier| *known != frontier && known.position <= frontier.position;
            if self.frontiers.get(source).is_none_or(newer) && self.is_reached(progress, &options.prefix) {
                reached.push((source.clone(), frontier));
            }
        }
        for (source, frontier) in reached {
            batch.set_frontier(&source, frontier)?;
            self.frontiers.insert(source, frontier);
        }
        Ok(())
    }

    /// Whether everything below the progress that a version reads is folded.
    pub(crate) fn is_reached(&self, progress: &SourceProgress, prefix: &str) -> bool {
        let tables = self.versions.iter().flat_map(|version| version.model.tables());
        let read: Vec<String> = tables.map(|table| table.topic(prefix)).collect();
        progress.watermarks.iter().filter(|(topic, _)| read.contains(topic)).all(|(topic, offsets)| {
            (0u32..).zip(offsets).all(|(partition, offset)| {
                *offset == 0 || self.offsets.get(&(topic.clone(), partition)).is_some_and(|at| at >= offset)
            })
        })
    }
}
