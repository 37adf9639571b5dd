//! Join indexes and new versions are filled from the rows, a slice at a time, while changes go on; then a version serves.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use headwater_broker::{AppendBatch, TopicPartition};
use headwater_schemas::{SourceProgress, TableId};
use headwater_store::{RowArena, VersionId, VersionRecord, VersionState};

use super::declaring::forget_version;
use super::publishing::is_reached;
use super::{Leading, Marks, Surroundings, built, ends, has_passed};
use crate::Error;
use crate::background::{covers, fill_index};
use crate::dead_letters;
use crate::found::example;
use crate::held::Held;
use crate::keys::KeySet;
use crate::resolved::Resolved;
use crate::shared::agreement::{index_note, scan_note};
use crate::shared::applying::records;
use crate::shared::view::{Followed, SharedRows, View};

/// Roots that the scan of a building version may be ahead of stage two, per version.
const SCAN_AHEAD: u64 = 20_000;

/// Letters among which an example is looked for of what cannot be built.
const LETTERS: usize = 1_000;

/// Whether a version may take over.
enum Weighed {
    /// What it lacks is still being counted.
    More,
    /// It lacks too much.
    Held,
    /// It lacks nothing, or little.
    Light,
}

impl Leading {
    /// The versions being built, with whether changes of rows are followed: without those that have to wait, or are
    /// [held](crate::held).
    pub(super) fn building(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
    ) -> Result<Vec<(VersionId, bool)>, Error> {
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
        let is_due = |version: &&Followed| {
            let lacks = view.late.lacks(&version.model, around.prefix).is_some();
            !lacks
                && version.sharing.is_made()
                && version.sharing.held.is_none()
                && (version.sharing.follow || self.is_ready(view, version, around, &emitted))
        };
        let building = building.filter(is_due);
        Ok(building.map(|version| (version.sharing.id, version.sharing.follow)).collect())
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
                if let Entry::Vacant(floor) = self.floors.entry(at) {
                    let high = around.runtime.block_on(around.log.watermarks(floor.key()))?.high;
                    floor.insert(high.0);
                }
            }
        }
        Ok(())
    }

    /// Whether a version can be filled from the rows: its tables are known, its join indexes complete, its sources'
    /// snapshots done and applied.
    fn is_ready(&self, view: &View, version: &Followed, around: &Surroundings<'_>, emitted: &Marks) -> bool {
        let tables = version.model.tables();
        let topics: BTreeSet<String> = tables.iter().map(|table| table.topic(around.prefix)).collect();
        let snapshot_done = |table: &TableId| {
            let source = &*table.source;
            let published = self.published.get(source).is_some_and(|frontier| frontier.snapshot_done);
            // What is newest counts: a table that was configured later is read in a snapshot of its own.
            let done = |progress: &SourceProgress| {
                progress.snapshot_done
                    && covers(progress, table, &view.catalog, around.prefix)
                    && (published || is_reached(progress, &topics, emitted))
            };
            self.progress.get(source).is_some_and(done)
        };
        version.plan.is_some()
            && version.problem.is_none()
            && version.indexes.iter().all(|index| view.complete.contains(index))
            && tables.iter().all(|table| snapshot_done(table))
            && self.floors.iter().all(|(at, floor)| {
                !topics.iter().any(|topic| **topic == *at.topic) || emitted.get(at).copied().unwrap_or(0) >= *floor
            })
    }

    /// Writes some rows again, so that they get into a join index that is new. `None`: there is no such index.
    pub(super) fn fill_next_index(
        &self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
    ) -> Result<Option<bool>, Error> {
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

    /// From here on every change of rows is followed; what was changed before will be seen by the scan.
    pub(super) fn follow(&self, rows: &mut SharedRows, id: VersionId) -> Result<Option<bool>, Error> {
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
    pub(super) fn scan(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
        id: VersionId,
    ) -> Result<Option<bool>, Error> {
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
    pub(super) fn activate_if_built(
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
        // What is frozen by now was passed without being built.
        if rows.view().version(id).is_none_or(|version| version.plan.is_none()) {
            return Ok(Some(false));
        }
        let Some(record) = self.records.get(&id) else { return Ok(Some(false)) };
        let model = record.model.clone();
        let is_before = |it: &VersionRecord| it.model == model && it.state == VersionState::Active;
        if self.records.values().any(is_before) {
            match self.weigh(rows, around, id)? {
                None => return Ok(None),
                Some(Weighed::More) => return Ok(Some(true)),
                Some(Weighed::Held) => return Ok(Some(false)),
                Some(Weighed::Light) => {}
            }
        }
        let mut before: Vec<VersionId> = Vec::new();
        let mut transaction = self.registry(around)?;
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
        self.purge_at = Some(Instant::now());
        Ok(done.map(|()| true))
    }

    /// Counts on what a version lacks that is to take over, and holds it where that is too much; `None` when another one leads
    /// by now.
    fn weigh(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
        id: VersionId,
    ) -> Result<Option<Weighed>, Error> {
        let count = self.counts.entry(id).or_default();
        let counted = rows.read(|view, batch| {
            let Some(version) = view.version(id) else { return Ok(None) };
            let Some(plan) = &version.plan else { return Ok(None) };
            let wanted = count.some_more(batch, plan, around.slice_rows)?;
            Ok(Some((version.model.clone(), wanted)))
        })?;
        // Frozen by now: what it has is not what the rows are.
        let Some((model, wanted)) = counted else { return Ok(Some(Weighed::Held)) };
        let Some(wanted) = wanted else { return Ok(Some(Weighed::More)) };
        self.counts.remove(&id);
        let documents = around.documents.begin()?.document_count(id)?;
        let Some(held) = Held::new(&model, wanted, documents) else { return Ok(Some(Weighed::Light)) };
        let resolved = Resolved::default();
        let letters = dead_letters::list(&**around.log, around.prefix, &resolved, LETTERS);
        let letters = around.runtime.block_on(letters)?;
        let of_it = letters.iter().rev().filter(|listed| listed.letter.model.as_ref() == Some(&model.name));
        let held = held.such_as(of_it.filter_map(|listed| example(&listed.letter)).next());
        tracing::warn!(model = model.name, problem = held.problem(&model), "a version is held");
        let done = self.write(rows, |view, batch| {
            if let Some(sharing) = view.agreement.versions.iter_mut().find(|sharing| sharing.id == id) {
                sharing.held = Some(held);
            }
            view.agreement.write(batch)
        })?;
        rows.outdate();
        // Once it is weighed again, what was called dirty until then must be built.
        self.gates.remove(&id);
        Ok(done.map(|()| Weighed::Held))
    }
}
