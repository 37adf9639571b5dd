//! What one worker does for all: registers versions, fills join indexes, has new versions built, lets them serve, removes
//! old ones, and tells readers how far each source is projected.
//!
//! The leader is whoever is assigned the one partition of the leaders' topic. Everything it changes in the rows it changes
//! under the condition that its claim still stands, as with any other partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_broker::{AppendBatch, EventLog, FetchFrom, FetchLimits, Offset, Retention, TopicPartition, TopicSpec};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::{SourceProgress, progress_topic};
use headwater_store::{DocumentStore, Frontier, JoinIndex, RowArena, RowBatch, VersionId, VersionRecord, VersionState};
use tokio::runtime::Handle;

use super::agreement::{Place, Sharing, scan_note};
use super::applying::records;
use super::view::{Followed, SharedRows, View};
use crate::Error;
use crate::background::fill_index;
use crate::clock::now_ms;
use crate::keys::KeySet;
use crate::version::{definition_note, retired_note};

/// Roots that the scan of a building version may be ahead of stage two, per version.
const SCAN_AHEAD: u64 = 20_000;

/// Documents removed in one step.
const PURGE_CHUNK: usize = 2_048;

/// Progress of one source that may wait to be projected, before newer progress waits outside.
const WAITING_MAX: usize = 8;

/// What leading needs to know of the worker's surroundings.
pub(crate) struct Surroundings<'w> {
    pub(crate) log: &'w dyn EventLog,
    pub(crate) documents: &'w dyn DocumentStore,
    pub(crate) runtime: &'w Handle,
    pub(crate) prefix: &'w str,
    /// Name of the projector, the same in all workers.
    pub(crate) name: &'w str,
    /// Consumer group of stage two.
    pub(crate) group: &'w str,
    /// Partitions of topics of dirty roots that are made.
    pub(crate) dirty_partitions: u32,
    pub(crate) slice_rows: usize,
    pub(crate) retired_grace_ms: i64,
}

/// Next offsets of some partitions.
type Marks = BTreeMap<TopicPartition, u64>;

/// The leader's knowledge.
pub(crate) struct Leading {
    at: TopicPartition,
    fence: u64,
    /// Newest progress of each source, and where its topic goes on.
    progress: BTreeMap<String, SourceProgress>,
    read_on: BTreeMap<String, Offset>,
    /// Ends of the sources' partitions when they were first seen: building begins behind them.
    floors: Marks,
    /// Progress that is applied, with the dirty roots that must be built before it is projected; oldest first.
    waiting: BTreeMap<String, Vec<(SourceProgress, Marks)>>,
    published: BTreeMap<String, Frontier>,
    /// The registry.
    records: BTreeMap<VersionId, VersionRecord>,
    /// Building versions whose scan has ended: the dirty roots that must be built before they serve.
    gates: BTreeMap<VersionId, Marks>,
    /// Rows scanned for building versions, since this worker leads.
    pub(crate) scanned: BTreeMap<VersionId, u64>,
    /// Rows purging has nothing more to do until the registry changes.
    purged: bool,
}

impl Leading {
    /// Takes the lead over from whoever had it.
    pub(crate) fn claim(rows: &mut SharedRows, around: &Surroundings<'_>, at: TopicPartition) -> Result<Self, Error> {
        let fence = rows.write(|view, batch| {
            let mut place = match Place::read(batch, &at)? {
                Some(place) => place,
                None => {
                    view.agreement.places.push((at.topic.to_string(), at.partition));
                    view.agreement.write(batch)?;
                    Place::default()
                }
            };
            place.fence += 1;
            let fence = place.fence;
            place.write(batch, &at)?;
            Ok(fence)
        })?;
        let transaction = around.documents.begin()?;
        let records = transaction.versions()?.into_iter().map(|record| (record.id, record)).collect();
        let published = transaction.frontiers()?;
        Ok(Self {
            at,
            fence,
            progress: BTreeMap::new(),
            read_on: BTreeMap::new(),
            floors: Marks::new(),
            waiting: BTreeMap::new(),
            published,
            records,
            gates: BTreeMap::new(),
            scanned: BTreeMap::new(),
            purged: false,
        })
    }

    pub(crate) fn records(&self) -> &BTreeMap<VersionId, VersionRecord> {
        &self.records
    }

    /// Changes rows and notes as the leader; `None` when another one leads by now.
    fn write<T>(
        &self,
        rows: &mut SharedRows,
        step: impl FnOnce(&mut View, &mut dyn RowBatch) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        rows.write_if(|view, batch| {
            let Some(place) = Place::read(batch, &self.at)?.filter(|place| place.fence == self.fence) else {
                return Ok(None);
            };
            place.write(batch, &self.at)?;
            step(view, batch).map(Some)
        })
    }

    /// Whether this worker leads at this moment. Writes to the document store are not fenced: they come right after this.
    fn leads(&self, rows: &mut SharedRows) -> Result<bool, Error> {
        Ok(self.write(rows, |_, _| Ok(()))?.is_some())
    }

    /// Makes these the declared models. Answers `false` when another one leads by now.
    pub(crate) fn declare(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
        models: &[ReadModel],
    ) -> Result<bool, Error> {
        if !self.leads(rows)? {
            return Ok(false);
        }
        // What is registered, but was not agreed on, broke off in between; what was replaced is on its way out.
        let agreed: Vec<VersionId> = rows.read(|view, _| Ok(view.versions.iter().map(|it| it.sharing.id).collect()))?;
        let mut outdated: Vec<VersionId> = Vec::new();
        let mut kept: Vec<(String, String)> = Vec::new();
        outdated.extend(
            agreed.iter().filter(|id| self.records.get(id).is_none_or(|record| record.state == VersionState::Retired)),
        );
        for record in self.records.values().filter(|record| record.state != VersionState::Retired) {
            let declared = models.iter().find(|model| model.name == record.model);
            let same = declared.is_some_and(|model| model.hash() == record.definition_hash);
            let serves = record.state == VersionState::Active;
            if agreed.contains(&record.id) && (same || declared.is_some() && serves) {
                kept.push((record.model.clone(), record.definition_hash.clone()));
            } else if agreed.contains(&record.id) || !serves {
                outdated.push(record.id);
            }
        }
        for id in outdated {
            if !self.retire(rows, around, id)? {
                return Ok(false);
            }
        }
        for model in models {
            let is_kept = kept.iter().any(|(name, hash)| *name == model.name && *hash == model.hash());
            if !is_kept && self.add(rows, around, model)?.is_none() {
                return Ok(false);
            }
        }
        self.describe(rows, models)
    }

    /// Descriptions do not count as a change of a model, but readers are to see the newest ones.
    fn describe(&mut self, rows: &mut SharedRows, models: &[ReadModel]) -> Result<bool, Error> {
        let described = |view: &View| {
            let newer = |version: &Followed| {
                let same = |model: &&ReadModel| {
                    model.name == version.model.name
                        && model.hash() == version.model.hash()
                        && **model != *version.model
                };
                Some((version.sharing.id, models.iter().find(same)?.clone()))
            };
            view.versions.iter().filter_map(newer).collect::<Vec<_>>()
        };
        if described(rows.view()).is_empty() {
            return Ok(true);
        }
        let done = self.write(rows, |view, batch| {
            for (id, model) in described(view) {
                save_definition(batch, id, &model)?;
            }
            view.agreement.write(batch)
        })?;
        rows.outdate();
        Ok(done.is_some())
    }

    /// Begins a version beside the one that serves, if any; `None` when another one leads by now.
    pub(crate) fn add(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
        model: &ReadModel,
    ) -> Result<Option<VersionId>, Error> {
        if !self.leads(rows)? {
            return Ok(None);
        }
        let mut transaction = around.documents.begin()?;
        let record = VersionRecord {
            id: transaction.new_version_id()?,
            model: model.name.clone(),
            definition_hash: model.hash(),
            state: VersionState::Building,
            shape: None,
            created_at_ms: now_ms(),
        };
        transaction.put_version(&record)?;
        transaction.flush()?;
        let id = record.id;
        self.records.insert(id, record);
        let topic = dirty_topic(around.prefix, around.name, &model.name, id);
        // Of each root only the last record must stay: none may be lost before it is built, however long that takes.
        let retention = Retention { compact: true, ..Retention::default() };
        let spec = TopicSpec { name: topic.as_str().into(), partitions: around.dirty_partitions, retention };
        around.runtime.block_on(around.log.create_topics(&[spec]))?;
        let topics = around.runtime.block_on(around.log.topics())?;
        let found = topics.iter().find(|(name, _)| **name == *topic);
        let partitions = found.map_or(around.dirty_partitions, |(_, partitions)| *partitions);
        let sharing = Sharing { id, topic, partitions, epoch: epoch(), follow: false };
        let added = self.write(rows, |view, batch| {
            save_definition(batch, id, model)?;
            view.agreement.versions.push(sharing);
            view.agreement.write(batch)
        })?;
        rows.outdate();
        Ok(added.map(|()| id))
    }

    /// Takes a version out of the agreement, and out of service.
    fn retire(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>, id: VersionId) -> Result<bool, Error> {
        if let Some(record) = self.records.get_mut(&id) {
            record.state = VersionState::Retired;
            let mut transaction = around.documents.begin()?;
            transaction.put_version(record)?;
            transaction.flush()?;
        }
        let done = self.write(rows, |view, batch| forget_version(view, batch, id))?;
        rows.outdate();
        self.gates.remove(&id);
        self.purged = false;
        Ok(done.is_some())
    }

    /// Reads what the connectors say about their progress.
    pub(crate) fn read_progress(&mut self, rows: &SharedRows, around: &Surroundings<'_>) -> Result<(), Error> {
        let topics = around.runtime.block_on(around.log.topics())?;
        let mut from = Vec::new();
        let mut sources = BTreeMap::new();
        for source in rows.view().sources() {
            let topic: Arc<str> = progress_topic(around.prefix, &source).into();
            if !topics.iter().any(|(name, _)| *name == topic) {
                continue;
            }
            let partition = TopicPartition { topic: topic.clone(), partition: 0 };
            let marks = around.runtime.block_on(around.log.watermarks(&partition))?;
            // Only the newest counts; a few more, since not every offset is a record's.
            let newest = marks.low.max(Offset(marks.high.0.saturating_sub(4)));
            let offset = self.read_on.get(&source).copied().unwrap_or(newest).max(marks.low);
            if offset < marks.high {
                sources.insert(topic, source);
                from.push(FetchFrom { partition, offset });
            }
        }
        if from.is_empty() {
            return Ok(());
        }
        let limits = FetchLimits { bytes_max: 1 << 20, wait_max: std::time::Duration::ZERO };
        for batch in around.runtime.block_on(around.log.fetch(&from, limits))? {
            let Some(source) = sources.get(&batch.from.topic) else { continue };
            self.read_on.insert(source.clone(), batch.next());
            let progress = batch.records().filter_map(|record| serde_json::from_slice(record.value?).ok());
            if let Some(progress) = progress.last() {
                self.progress.insert(source.clone(), progress);
            }
        }
        Ok(())
    }

    /// Moves the frontiers of sources whose progress has come through both stages. Answers `false` when another one leads
    /// by now.
    pub(crate) fn publish(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<bool, Error> {
        let fresh: Vec<String> = self.progress.keys().filter(|source| self.is_news(source)).cloned().collect();
        if !fresh.is_empty() {
            let emitted = self.emitted(rows)?;
            let topics = rows.view().topics(around.prefix);
            // Later than what is emitted was looked at: the roots of all that is reached lie below.
            let marks = self.dirty_marks(rows.view(), around)?;
            for source in fresh {
                let progress = &self.progress[&source];
                if is_reached(progress, &topics, &emitted) {
                    self.waiting.entry(source).or_default().push((progress.clone(), marks.clone()));
                }
            }
        }
        if self.waiting.values().all(Vec::is_empty) {
            return Ok(true);
        }
        let built = built(around)?;
        let mut frontiers = Vec::new();
        let versions = &rows.view().versions;
        for (source, waiting) in &mut self.waiting {
            // Of a version that was replaced meanwhile nobody builds documents any more.
            let lives = |at: &TopicPartition| versions.iter().any(|version| *version.sharing.topic == *at.topic);
            waiting.iter_mut().for_each(|(_, marks)| marks.retain(|at, _| lives(at)));
            let through = waiting.iter().rposition(|(_, marks)| has_passed(&built, marks));
            if let Some(through) = through {
                let newest = waiting.drain(..=through).next_back();
                frontiers.extend(newest.map(|(progress, _)| (source.clone(), frontier(&progress))));
            }
        }
        if frontiers.is_empty() {
            return Ok(true);
        }
        if !self.leads(rows)? {
            return Ok(false);
        }
        let mut transaction = around.documents.begin()?;
        for (source, frontier) in &frontiers {
            transaction.set_frontier(source, *frontier)?;
        }
        transaction.flush()?;
        self.published.extend(frontiers);
        Ok(true)
    }

    /// Whether the newest progress of a source goes beyond what is projected or waits to be.
    fn is_news(&self, source: &str) -> bool {
        let progress = &self.progress[source];
        let waiting = self.waiting.get(source).map_or(&[][..], |waiting| &waiting[..]);
        let newest = waiting.last().map(|(progress, _)| frontier(progress));
        let newest = newest.or_else(|| self.published.get(source).copied());
        let newer = |newest: Frontier| newest != frontier(progress) && newest.position <= progress.position;
        waiting.len() < WAITING_MAX && newest.is_none_or(newer)
    }

    /// Up to where the sources' partitions are applied, and the roots that this made dirty in the log.
    fn emitted(&self, rows: &mut SharedRows) -> Result<Marks, Error> {
        rows.read(|view, batch| {
            let places = view.agreement.read_places(batch)?;
            Ok(places.into_iter().map(|(at, place)| (at, place.emitted)).collect())
        })
    }

    /// Ends of the dirty topics of versions that serve, or are about to.
    fn dirty_marks(&self, view: &View, around: &Surroundings<'_>) -> Result<Marks, Error> {
        let mut marks = Marks::new();
        for version in &view.versions {
            let id = version.sharing.id;
            let serves = self.records.get(&id).is_some_and(|record| record.state == VersionState::Active);
            if serves || self.gates.contains_key(&id) {
                marks.extend(ends(&version.sharing, around)?);
            }
        }
        Ok(marks)
    }

    /// Does one thing that is due: answers whether there may be more; `None` when another one leads by now.
    pub(crate) fn work(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<Option<bool>, Error> {
        if !self.publish_shapes(rows, around)? {
            return Ok(None);
        }
        if let Some(done) = self.fill_next_index(rows, around)? {
            return Ok(done.then_some(true));
        }
        let building = self.building(rows, around)?;
        for (id, follow) in building {
            let worked = match (follow, self.gates.contains_key(&id)) {
                (false, _) => self.follow(rows, id)?,
                (true, false) => self.scan(rows, around, id)?,
                (true, true) => self.activate_if_built(rows, around, id)?,
            };
            match worked {
                None => return Ok(None),
                Some(true) => return Ok(Some(true)),
                Some(false) => {}
            }
        }
        if !self.purged {
            return self.purge(rows, around);
        }
        self.drop_index(rows)
    }

    /// The versions being built, with whether changes of rows are followed: without those that have to wait.
    fn building(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<Vec<(VersionId, bool)>, Error> {
        let is_building = |records: &BTreeMap<VersionId, VersionRecord>, version: &Followed| {
            records.get(&version.sharing.id).is_some_and(|it| it.state == VersionState::Building)
        };
        if !rows.view().versions.iter().any(|version| is_building(&self.records, version)) {
            return Ok(Vec::new());
        }
        self.note_floors(rows.view(), around)?;
        let emitted = self.emitted(rows)?;
        let view = rows.view();
        let building = view.versions.iter().filter(|version| is_building(&self.records, version));
        let building =
            building.filter(|version| version.sharing.follow || self.is_ready(view, version, around, &emitted));
        Ok(building.map(|version| (version.sharing.id, version.sharing.follow)).collect())
    }

    /// Tells readers what the documents of a version look like, once its tables are known.
    fn publish_shapes(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<bool, Error> {
        let mut changed = Vec::new();
        for version in &rows.view().versions {
            let (Some(plan), None) = (&version.plan, &version.problem) else { continue };
            let Some(record) = self.records.get_mut(&version.sharing.id) else { continue };
            if record.shape.as_ref() != Some(&plan.shape) {
                record.shape = Some(plan.shape.clone());
                changed.push(record.clone());
            }
        }
        if changed.is_empty() {
            return Ok(true);
        }
        if !self.leads(rows)? {
            return Ok(false);
        }
        let mut transaction = around.documents.begin()?;
        changed.iter().try_for_each(|record| transaction.put_version(record))?;
        transaction.flush()?;
        Ok(true)
    }

    /// Writes some rows again, so that they get into a join index that is new. `None`: there is no such index.
    fn fill_next_index(&self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<Option<bool>, Error> {
        let view = rows.view();
        let mut wanted = view.versions.iter().flat_map(|version| &version.indexes);
        let Some(index) = wanted.find(|index| !view.complete.contains(index)).cloned() else { return Ok(None) };
        let done = self.write(rows, |view, batch| {
            let note = index_note(&index);
            if batch.note(&note)?.is_none() {
                // From here on every row is written with the index, so that none slips in behind the scan without it.
                batch.set_note(&note, Some(&[]))?;
                view.agreement.write(batch)?;
                return view.agreement.touch_all(batch);
            }
            let indexes = view.indexes_of(&index.table);
            if fill_index(batch, &indexes, &index, &note, around.slice_rows)? {
                view.complete.push(index.clone());
                view.agreement.write(batch)?;
            }
            Ok(())
        })?;
        Ok(Some(done.is_some()))
    }

    /// Notes where partitions end that are seen for the first time.
    fn note_floors(&mut self, view: &View, around: &Surroundings<'_>) -> Result<(), Error> {
        let wanted = view.topics(around.prefix);
        for (topic, partitions) in around.runtime.block_on(around.log.topics())? {
            if !wanted.iter().any(|name| **name == *topic) {
                continue;
            }
            for partition in 0..partitions {
                let at = TopicPartition { topic: topic.clone(), partition };
                if !self.floors.contains_key(&at) {
                    let high = around.runtime.block_on(around.log.watermarks(&at))?.high;
                    self.floors.insert(at, high.0);
                }
            }
        }
        Ok(())
    }

    /// Whether a version can be filled from the rows: its tables are known, its join indexes complete, its sources'
    /// snapshots done and applied.
    fn is_ready(&self, view: &View, version: &Followed, around: &Surroundings<'_>, emitted: &Marks) -> bool {
        let tables = version.model.tables();
        let topics: Vec<String> = tables.iter().map(|table| table.topic(around.prefix)).collect();
        let snapshot_done = |source: &str| {
            let published = self.published.get(source).is_some_and(|frontier| frontier.snapshot_done);
            let applied = |progress: &SourceProgress| progress.snapshot_done && is_reached(progress, &topics, emitted);
            published || self.progress.get(source).is_some_and(applied)
        };
        version.plan.is_some()
            && version.problem.is_none()
            && version.indexes.iter().all(|index| view.complete.contains(index))
            && tables.iter().all(|table| snapshot_done(&table.source))
            && self.floors.iter().all(|(at, floor)| {
                !topics.iter().any(|topic| **topic == *at.topic) || emitted.get(at).copied().unwrap_or(0) >= *floor
            })
    }

    /// From here on every change of rows is followed; what was changed before will be seen by the scan.
    fn follow(&self, rows: &mut SharedRows, id: VersionId) -> Result<Option<bool>, Error> {
        let done = self.write(rows, |view, batch| {
            if let Some(sharing) = view.agreement.versions.iter_mut().find(|sharing| sharing.id == id) {
                sharing.follow = true;
            }
            view.agreement.write(batch)?;
            view.agreement.touch_all(batch)
        })?;
        rows.outdate();
        Ok(done.map(|()| true))
    }

    /// Calls some more roots dirty. The changes that come meanwhile are followed; a root that is called dirty twice is
    /// built twice, with the same result.
    fn scan(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>, id: VersionId) -> Result<Option<bool>, Error> {
        let Some(version) = rows.view().version(id) else { return Ok(Some(false)) };
        let (sharing, table) = (version.sharing.clone(), version.model.root.table.clone());
        let end = ends(&sharing, around)?;
        let built = built(around)?;
        let behind = |(at, end): (&TopicPartition, &u64)| end.saturating_sub(built.get(at).copied().unwrap_or(0));
        if end.iter().map(behind).sum::<u64>() > SCAN_AHEAD {
            return Ok(Some(false));
        }
        let note = scan_note(id);
        let (last, scanned, batches) = rows.read(|_, batch| {
            let after = batch.note(&note)?;
            let mut arena = RowArena::default();
            batch.scan_rows(&table, after.as_deref(), around.slice_rows, &mut arena)?;
            let mut dirty = KeySet::default();
            let live = arena.slots().iter().filter(|slot| arena.row(slot).is_some());
            live.for_each(|slot| dirty.push(arena.key(slot)));
            let mut batches = Vec::new();
            records(&sharing, dirty, 0, &mut batches);
            let last = arena.slots().last().map(|last| arena.key(last).to_vec());
            Ok((last, arena.slots().len() as u64, batches))
        })?;
        let Some(last) = last else {
            self.gates.insert(id, end);
            return Ok(Some(true));
        };
        self.append(around, batches)?;
        *self.scanned.entry(id).or_default() += scanned;
        Ok(self.write(rows, |_, batch| Ok(batch.set_note(&note, Some(&last))?))?.map(|()| true))
    }

    fn append(&self, around: &Surroundings<'_>, batches: Vec<AppendBatch>) -> Result<(), Error> {
        if batches.is_empty() {
            return Ok(());
        }
        Ok(around.runtime.block_on(around.log.append(batches))?)
    }

    /// Lets a version serve whose roots have all been built.
    fn activate_if_built(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
        id: VersionId,
    ) -> Result<Option<bool>, Error> {
        let Some(gate) = self.gates.get(&id) else { return Ok(Some(false)) };
        if !has_passed(&built(around)?, gate) {
            return Ok(Some(false));
        }
        if !self.leads(rows)? {
            return Ok(None);
        }
        let Some(record) = self.records.get(&id) else { return Ok(Some(false)) };
        let model = record.model.clone();
        let mut before: Vec<VersionId> = Vec::new();
        let mut transaction = around.documents.begin()?;
        for record in self.records.values_mut().filter(|record| record.model == model) {
            if record.state == VersionState::Active {
                record.state = VersionState::Retired;
                before.push(record.id);
                transaction.put_version(record)?;
            }
        }
        let record = self.records.get_mut(&id).expect("found above");
        record.state = VersionState::Active;
        transaction.put_version(record)?;
        transaction.flush()?;
        tracing::info!(model, version = id.0, "version is active");
        let done = self.write(rows, |view, batch| {
            batch.set_note(&scan_note(id), None)?;
            before.iter().try_for_each(|id| forget_version(view, batch, *id))
        })?;
        rows.outdate();
        self.gates.remove(&id);
        self.purged = false;
        Ok(done.map(|()| true))
    }

    /// Removes some documents of a retired version whose grace is over.
    fn purge(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<Option<bool>, Error> {
        let retired = |record: &&VersionRecord| record.state == VersionState::Retired;
        let ids: Vec<VersionId> = self.records.values().filter(retired).map(|record| record.id).collect();
        self.purged = ids.is_empty();
        for id in ids {
            let since = rows.read(|_, batch| Ok(batch.note(&retired_note(id.0))?))?;
            let since = since.and_then(|note| note.as_slice().try_into().ok()).map_or(0, i64::from_be_bytes);
            if now_ms().saturating_sub(since) < around.retired_grace_ms {
                continue;
            }
            if !self.leads(rows)? {
                return Ok(None);
            }
            let mut transaction = around.documents.begin()?;
            let removed = transaction.purge_version(id, PURGE_CHUNK)?;
            transaction.flush()?;
            if removed < PURGE_CHUNK {
                self.records.remove(&id);
                let forgotten = self.write(rows, |_, batch| Ok(batch.set_note(&retired_note(id.0), None)?))?;
                return Ok(forgotten.map(|()| true));
            }
            return Ok(Some(true));
        }
        Ok(Some(false))
    }

    /// Removes a join index that no version walks any more.
    fn drop_index(&self, rows: &mut SharedRows) -> Result<Option<bool>, Error> {
        let view = rows.view();
        if view.versions.iter().any(|version| version.plan.is_none()) {
            return Ok(Some(false));
        }
        let unwanted = |view: &View| {
            let wanted = |index| view.versions.iter().any(|version| version.indexes.contains(index));
            view.complete.iter().find(|index| !wanted(index)).cloned()
        };
        if unwanted(view).is_none() {
            return Ok(Some(false));
        }
        let done = self.write(rows, |view, batch| {
            let Some(index) = unwanted(view) else { return Ok(()) };
            batch.drop_join_index(&index)?;
            view.agreement.write(batch)?;
            // Nobody writes its entries any more from here on.
            view.agreement.touch_all(batch)
        })?;
        rows.outdate();
        Ok(done.map(|()| true))
    }
}

/// Name of the topic of a version's dirty roots.
pub(crate) fn dirty_topic(prefix: &str, name: &str, model: &str, version: VersionId) -> String {
    format!("{prefix}.{name}.dirty.{model}.{}", version.0)
}

/// Upper part of the stamps of a version's documents: above all stamps that an engine gives by itself, and above those of
/// any topic made earlier under the same name. Counts hours, and has 23 bits.
fn epoch() -> u64 {
    u64::try_from(now_ms()).unwrap_or(0) / 3_600_000
}

fn save_definition(batch: &mut dyn RowBatch, id: VersionId, model: &ReadModel) -> Result<(), Error> {
    let json = serde_json::to_vec(model).expect("a model has only string keys");
    Ok(batch.set_note(&definition_note(id.0), Some(&json))?)
}

fn forget_version(view: &mut View, batch: &mut dyn RowBatch, id: VersionId) -> Result<(), Error> {
    view.agreement.versions.retain(|sharing| sharing.id != id);
    if let Some(gone) = view.version(id) {
        let others = || view.versions.iter().filter(|version| version.sharing.id != id);
        for index in &gone.indexes {
            // Nobody keeps an index that is filled halfway: whoever wants it later begins anew.
            if !view.complete.contains(index) && !others().any(|version| version.indexes.contains(index)) {
                batch.drop_join_index(index)?;
                batch.set_note(&index_note(index), None)?;
            }
        }
    }
    batch.set_note(&definition_note(id.0), None)?;
    batch.set_note(&scan_note(id), None)?;
    batch.set_note(&retired_note(id.0), Some(&now_ms().to_be_bytes()))?;
    view.agreement.write(batch)
}

/// Name of the note that holds how far a join index is filled.
fn index_note(index: &JoinIndex) -> String {
    format!("shared/index/{}/{}", index.table, index.columns.join(","))
}

fn frontier(progress: &SourceProgress) -> Frontier {
    Frontier { position: progress.position, at_micros: progress.at_micros, snapshot_done: progress.snapshot_done }
}

/// Whether everything below the progress that any of the topics brings is applied and emitted.
fn is_reached(progress: &SourceProgress, topics: &[String], emitted: &Marks) -> bool {
    progress.watermarks.iter().filter(|(topic, _)| topics.contains(topic)).all(|(topic, offsets)| {
        (0u32..).zip(offsets).all(|(partition, offset)| {
            let at = TopicPartition { topic: topic.as_str().into(), partition };
            *offset == 0 || emitted.get(&at).is_some_and(|emitted| emitted >= offset)
        })
    })
}

/// Where the topic of a version ends now.
fn ends(sharing: &Sharing, around: &Surroundings<'_>) -> Result<Marks, Error> {
    let mut ends = Marks::new();
    for partition in 0..sharing.partitions {
        let at = TopicPartition { topic: sharing.topic.as_str().into(), partition };
        let high = around.runtime.block_on(around.log.watermarks(&at))?.high;
        ends.insert(at, high.0);
    }
    Ok(ends)
}

/// Up to where dirty roots are built, as stage two said.
fn built(around: &Surroundings<'_>) -> Result<Marks, Error> {
    let committed = around.runtime.block_on(around.log.committed_offsets(around.group))?;
    Ok(committed.into_iter().map(|(at, offset)| (at, offset.0)).collect())
}

fn has_passed(built: &Marks, marks: &Marks) -> bool {
    marks.iter().all(|(at, mark)| *mark == 0 || built.get(at).is_some_and(|built| built >= mark))
}
