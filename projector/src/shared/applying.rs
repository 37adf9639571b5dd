//! Stage one: change events of the partitions a worker owns into rows, and into dirty roots in the log.
//!
//! A batch takes these steps, each of which may be the worker's last:
//!
//! 1. [`Applying::apply`]: rows, places and the *seeds* of the ascent are committed in one transaction, under the condition
//!    that every place is still ours.
//! 2. [`Applying::ascend`]: in a transaction that begins after that commit, the roots above the seeds are looked up.
//! 3. The roots are appended to the log ([`Applying::emitted`] is told when they are durable).
//! 4. [`Applying::settle`], or the next batch's first step, says so in the places.
//!
//! Whoever claims a partition between 1 and 4 finds the seeds, and goes on with 2 before anything else.
//!
//! Step 2 must not be part of step 1. Of a child and its parent, written by two workers at the same time, neither
//! transaction sees the other's row, and the root would be missed by both. Read after the commit, the later of the two
//! sees both rows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use headwater_broker::{AppendBatch, RecordBuffer, TopicPartition, Watermarks};
use headwater_schemas::{DeadLetter, SourcePosition, TableId};
use headwater_store::{RowArena, RowBatch, VersionId};

use super::agreement::{Place, Sharing, pending_note};
use super::pending;
use super::view::{SharedRows, View};
use crate::Error;
use crate::apply::{Mode, RowEvent, apply, erase};
use crate::ascend::{Ascents, climb};
use crate::catalog::Catalog;
use crate::changes::TableChanges;
use crate::clock::now_ms;
use crate::fold::{Folded, Letters};
use crate::keys::KeySet;
use crate::records::{Decoded, Input, before_truncations, decode, record_count};

/// Seeds of one batch, in bytes; MongoDB keeps up to 16 MiB in a document.
const SEEDS_MAX: usize = 8 << 20;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is in the rows. Partitions that others have claimed were left out, and are no longer ours.
    Whole {
        /// What changed.
        folded: Folded,
        /// What others have claimed.
        lost: Vec<TopicPartition>,
    },
    /// A part of a large change is in the rows: emit its roots, and apply the same batch again.
    Part,
    /// It changes too much for one transaction, and changed nothing: apply fewer of its records at a time.
    TooMuch,
}

/// Seeds whose roots may not be in the log.
struct Unemitted {
    places: Vec<TopicPartition>,
    seeds: Vec<u8>,
    /// Newest commit time at a source, microseconds since 1970; travels with the roots.
    latest_at: i64,
}

/// The partitions that a worker reads, and how far it is with them.
#[derive(Default)]
pub(crate) struct Applying {
    owned: BTreeMap<TopicPartition, Owned>,
    unemitted: Vec<Unemitted>,
    /// How many of these were looked up by the last [`Self::ascend`]; a claim may have added others since.
    ascended: usize,
    /// Places whose roots are in the log, which the store does not know yet.
    unsettled: BTreeSet<TopicPartition>,
    /// How far truncated tables have been gone through, and whether to the end.
    sweeps: BTreeMap<TableId, Sweep>,
}

/// What a place must be like to be ours.
#[derive(Clone, Copy)]
struct Owned {
    fence: u64,
    next: u64,
}

/// The removal of the rows below a truncation.
struct Sweep {
    below: SourcePosition,
    after: Option<Vec<u8>>,
    done: bool,
}

impl Applying {
    /// Takes a partition over from whoever had it; answers with the next offset to be applied. One that nobody has read yet
    /// begins at the low one of its watermarks, and if records were removed below, its table is noted to lack rows.
    pub(crate) fn claim(
        &mut self,
        rows: &mut SharedRows,
        at: &TopicPartition,
        marks: Watermarks,
    ) -> Result<u64, Error> {
        let (fence, next, found) = rows.write(|view, batch| {
            let mut place = match Place::read(batch, at)? {
                Some(place) => place,
                None => {
                    // A projector that worked alone before left its offsets.
                    let offsets = batch.offsets()?;
                    let alone =
                        offsets.iter().find(|(topic, partition, _)| **topic == *at.topic && *partition == at.partition);
                    let next = alone.map_or(marks.low.0, |(_, _, next)| *next);
                    if alone.is_none() && marks.low.0 > 0 {
                        // Whoever finds the place finds this, too.
                        view.late.begin(batch, at, marks)?;
                    }
                    view.agreement.places.push((at.topic.to_string(), at.partition));
                    view.agreement.write(batch)?;
                    Place { next, emitted: next, ..Place::default() }
                }
            };
            place.fence += 1;
            // Seeds that are gone, or replaced by others, are in the log: whoever did that had emitted them.
            let found = match &place.home {
                Some((topic, partition)) => batch.note(&pending_note(topic, *partition))?,
                None => None,
            };
            place.clone().write(batch, at)?;
            Ok((place.fence, place.next, found))
        })?;
        self.owned.insert(at.clone(), Owned { fence, next });
        self.unsettled.remove(at);
        if let Some(seeds) = found {
            let (latest_at, seeds) = split_time(at, seeds)?;
            self.unemitted.push(Unemitted { places: vec![at.clone()], seeds, latest_at });
        } else {
            self.unsettled.insert(at.clone());
        }
        Ok(next)
    }

    /// Goes on at the low watermark with a partition that was just claimed, of which retention removed what was next: its
    /// table is noted to lack rows. Answers with the next offset to be applied.
    pub(crate) fn begin_late(
        &mut self,
        rows: &mut SharedRows,
        at: &TopicPartition,
        marks: Watermarks,
    ) -> Result<u64, Error> {
        let (fence, next) = (self.owned.get(at).map(|owned| owned.fence), marks.low.0);
        let fence = rows.write(|view, batch| {
            let place = Place::read(batch, at)?.filter(|place| Some(place.fence) == fence);
            let Some(mut place) = place else { return Ok(None) };
            view.late.begin(batch, at, marks)?;
            view.agreement.write(batch)?;
            place.next = next;
            place.write(batch, at)?;
            Ok(fence)
        })?;
        match fence {
            Some(fence) => drop(self.owned.insert(at.clone(), Owned { fence, next })),
            // Somebody else has claimed it by now, and does the same.
            None => self.release(at),
        }
        Ok(next)
    }

    /// Forgets what waits to be emitted. The store has it until it is known to be in the log: whoever claims the partitions
    /// next finds it there. None may be owned any more.
    pub(crate) fn forget_unemitted(&mut self) {
        self.unemitted.clear();
        self.ascended = 0;
    }

    /// Gives a partition up. What it was found with is still emitted: that is harmless.
    pub(crate) fn release(&mut self, at: &TopicPartition) {
        self.owned.remove(at);
        self.unsettled.remove(at);
    }

    pub(crate) fn owns(&self, at: &TopicPartition) -> bool {
        self.owned.contains_key(at)
    }

    /// Gives up what others have claimed without our knowing.
    pub(crate) fn verify(&mut self, rows: &mut SharedRows) -> Result<(), Error> {
        let owned = &self.owned;
        let lost = rows.read(|_, batch| {
            let all: Vec<TopicPartition> = owned.keys().cloned().collect();
            let places = Place::read_all(batch, &all)?;
            let is_lost = |at: &TopicPartition, place: Option<Place>| {
                place.is_none_or(|place| owned.get(at).is_none_or(|owned| place.fence != owned.fence))
            };
            Ok(all
                .into_iter()
                .zip(places)
                .filter_map(|(at, place)| is_lost(&at, place).then_some(at))
                .collect::<Vec<_>>())
        })?;
        lost.iter().for_each(|at| self.release(at));
        Ok(())
    }

    /// Whether there are roots to be emitted before anything else.
    pub(crate) fn has_unemitted(&self) -> bool {
        !self.unemitted.is_empty()
    }

    /// Whether the store is to be told what was emitted.
    pub(crate) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Applies records to the rows, in one transaction. Every partition's records must begin where the last ones ended,
    /// and nothing may wait to be emitted.
    pub(crate) fn apply(
        &mut self,
        rows: &mut SharedRows,
        prefix: &str,
        slice_rows: usize,
        inputs: &[Input<'_>],
        letters: &mut Letters<'_>,
    ) -> Result<Applied, Error> {
        debug_assert!(self.unemitted.is_empty(), "their seeds would be overwritten");
        // After an error it is unknown whether other seeds lie there by now: the places must be claimed anew.
        let mut emitted = BTreeSet::new();
        for input in inputs {
            emitted.extend(self.unsettled.take(&input.batch.from));
        }
        let Self { owned, sweeps, .. } = self;
        let mut lost: BTreeSet<TopicPartition> = BTreeSet::new();
        let mut after_sweep = None;
        let done = rows.write_if(|view, batch| {
            let mut places: BTreeMap<TopicPartition, Place> = BTreeMap::new();
            let all: BTreeSet<&TopicPartition> = inputs.iter().map(|input| &input.batch.from).collect();
            let all: Vec<TopicPartition> = all.into_iter().cloned().collect();
            for (at, place) in all.iter().zip(Place::read_all(batch, &all)?) {
                // Read within the transaction that writes it: a worker that slept through its replacement commits nothing.
                let ours = |place: &Place| {
                    owned.get(at).is_some_and(|owned| (owned.fence, owned.next) == (place.fence, place.next))
                        // A commit of ours whose answer was lost left seeds that we do not know.
                        && (place.home.is_none() || emitted.contains(at))
                };
                match place.filter(ours) {
                    Some(place) => drop(places.insert(at.clone(), place)),
                    None => drop(lost.insert(at.clone())),
                }
            }
            let kept: Vec<Input<'_>> =
                inputs.iter().filter(|input| places.contains_key(&input.batch.from)).copied().collect();
            let Some(home) = places.keys().next().cloned() else {
                return Ok(Some((Folded::default(), None)));
            };
            let mut decoded = decode(batch, &mut view.catalog, prefix, &kept)?;
            view.replan_if_learned(batch)?;
            let has_several = decoded.events > 1;
            let is_too_much = |seeds: &[u8]| seeds.len() > SEEDS_MAX && has_several;
            if let Some((table, sweep)) = next_sweep(&view.catalog, sweeps, &decoded) {
                // What was read again stands before the truncation: nobody must see it go.
                let first = match sweep.after {
                    None => decode(batch, &mut view.catalog, prefix, &before_truncations(&kept).0)?.rows,
                    Some(_) => BTreeMap::new(),
                };
                let (seeds, found, sweep) = sweep_slice(view, batch, slice_rows, &table, sweep, first)?;
                if is_too_much(&seeds) {
                    return Ok(None);
                }
                if !found.is_empty() {
                    letters(&found)?;
                }
                after_sweep = Some((table, sweep));
                // Whoever claims the partition with the truncation is to find these seeds before it gets past it.
                let mut swept = Vec::new();
                for (at, mut place) in places {
                    place.home = Some((home.topic.to_string(), home.partition));
                    swept.push((at.clone(), place.next));
                    place.write(batch, &at)?;
                }
                put_seeds(batch, &home, decoded.latest_at, &seeds)?;
                return Ok(Some((Folded::default(), Some((swept, seeds, decoded.latest_at)))));
            }
            take_note(view, batch, &decoded)?;
            let mut ascents = ascents(view);
            for (table, events) in std::mem::take(&mut decoded.rows) {
                let indexes = view.indexes_of(&table);
                let each = |changes: &TableChanges<'_>| ascents.begin(changes);
                decoded.letters.extend(apply(batch, &view.catalog, &table, &indexes, events, Mode::Follow, each)?);
            }
            fail::fail_point!("projector::mid_batch");
            let (changed_rows, seeds) = (ascents.changed, encoded(ascents));
            if is_too_much(&seeds) {
                return Ok(None);
            }
            if view.late.read_again(batch, &kept)? {
                view.agreement.write(batch)?;
            }
            let mut applied = Vec::new();
            for (at, mut place) in places {
                place.emitted = place.next;
                let next = decoded.offsets.get(&(at.topic.to_string(), at.partition)).copied();
                place.next = place.next.max(next.unwrap_or(0));
                applied.push((at.clone(), place.next));
                place.home = (!seeds.is_empty()).then(|| (home.topic.to_string(), home.partition));
                if seeds.is_empty() {
                    place.emitted = place.next;
                }
                place.write(batch, &at)?;
            }
            if !seeds.is_empty() {
                put_seeds(batch, &home, decoded.latest_at, &seeds)?;
            }
            if !decoded.letters.is_empty() {
                letters(&decoded.letters)?;
            }
            let folded = Folded {
                events: decoded.events,
                rows: changed_rows,
                dead_letters: decoded.letters.len() as u64,
                ..Folded::default()
            };
            Ok(Some((folded, Some((applied, seeds, decoded.latest_at)))))
        });
        let done = match done {
            // Nothing of it is there.
            Err(error) if error.is_too_large() && record_count(inputs) > 1 => None,
            done => done?,
        };
        self.unsettled.append(&mut emitted);
        let Some((folded, committed)) = done else { return Ok(Applied::TooMuch) };
        for at in &lost {
            self.release(at);
        }
        if let Some((places, seeds, latest_at)) = committed {
            for (at, next) in &places {
                self.unsettled.remove(at);
                self.owned.entry(at.clone()).and_modify(|owned| owned.next = *next);
            }
            let places: Vec<TopicPartition> = places.into_iter().map(|(at, _)| at).collect();
            if !seeds.is_empty() {
                self.unemitted.push(Unemitted { places, seeds, latest_at });
            } else if after_sweep.is_some() {
                self.unsettled.extend(places);
            }
        }
        match after_sweep {
            Some((table, sweep)) => {
                self.sweeps.insert(table, sweep);
                Ok(Applied::Part)
            }
            None => Ok(Applied::Whole { folded, lost: lost.into_iter().collect() }),
        }
    }

    /// Looks up the roots above everything that waits to be emitted, as records to append. Reads the rows as they are
    /// after the commit that made them wait.
    pub(crate) fn ascend(&mut self, rows: &mut SharedRows) -> Result<Vec<AppendBatch>, Error> {
        let mut merged = BTreeMap::new();
        for one in &self.unemitted {
            let damaged = || Error::Note { note: pending_note(&one.places[0].topic, one.places[0].partition) };
            pending::decode(&one.seeds, &mut merged).ok_or_else(damaged)?;
        }
        self.ascended = self.unemitted.len();
        let latest_at = self.unemitted.iter().map(|one| one.latest_at).max().unwrap_or_default();
        rows.read(|view, batch| {
            let mut out = Vec::new();
            for version in &view.versions {
                let Some(plan) = version.followed_plan() else { continue };
                let Some(seeds) = merged.remove(&version.sharing.id) else { continue };
                // The same definition has the same nodes.
                if seeds.ups.len() != plan.nodes.len() {
                    return Err(Error::Note { note: format!("seeds of version {}", version.sharing.id.0) });
                }
                let mut dirty = KeySet::default();
                climb(plan, batch, seeds, &mut dirty)?;
                records(&version.sharing, dirty, latest_at, &mut out);
            }
            Ok(out)
        })
    }

    /// The roots that were looked up last are durable in the log.
    pub(crate) fn emitted(&mut self) {
        for one in self.unemitted.drain(..std::mem::take(&mut self.ascended)) {
            self.unsettled.extend(one.places.into_iter().filter(|at| self.owned.contains_key(at)));
        }
    }

    /// Tells the store what was emitted. Nothing may wait to be emitted. Partitions that others have claimed are no longer
    /// ours.
    pub(crate) fn settle(&mut self, rows: &mut SharedRows) -> Result<(), Error> {
        if !self.unemitted.is_empty() || self.unsettled.is_empty() {
            return Ok(());
        }
        let Self { owned, unsettled, .. } = self;
        let lost = rows.write(|_, batch| {
            let mut lost = Vec::new();
            let all: Vec<TopicPartition> = unsettled.iter().cloned().collect();
            for (at, place) in all.iter().zip(Place::read_all(batch, &all)?) {
                let ours = |place: &Place| owned.get(at).is_some_and(|owned| owned.fence == place.fence);
                let Some(mut place) = place.filter(ours) else {
                    lost.push(at.clone());
                    continue;
                };
                if place.home.is_some() || place.emitted != place.next {
                    if place.home == Some((at.topic.to_string(), at.partition)) {
                        batch.set_note(&pending_note(&at.topic, at.partition), None)?;
                    }
                    place.home = None;
                    place.emitted = place.next;
                    place.write(batch, at)?;
                }
            }
            Ok(lost)
        })?;
        self.unsettled.clear();
        lost.iter().for_each(|at| self.release(at));
        Ok(())
    }
}

/// The next truncated table that has not been gone through, by truncations that take effect: its place so far.
fn next_sweep(catalog: &Catalog, sweeps: &BTreeMap<TableId, Sweep>, decoded: &Decoded<'_>) -> Option<(TableId, Sweep)> {
    for (table, brought) in &decoded.truncates {
        let Some(at) = catalog.truncations(table).bring(brought) else { continue };
        match sweeps.get(table) {
            Some(sweep) if sweep.below >= at && sweep.done => {}
            Some(sweep) if sweep.below >= at => {
                return Some((table.clone(), Sweep { after: sweep.after.clone(), ..*sweep }));
            }
            _ => return Some((table.clone(), Sweep { below: at, after: None, done: false })),
        }
    }
    None
}

/// Takes note of truncations that other partitions have yet to bring. Of workers that bring the last ones at once only one
/// can commit, since both write the note.
fn take_note(view: &mut View, batch: &mut dyn RowBatch, decoded: &Decoded<'_>) -> Result<(), Error> {
    let mut is_new = false;
    for (table, brought) in &decoded.truncates {
        let before = view.catalog.truncations(table);
        view.catalog.bring(batch, table, brought)?;
        is_new |= view.catalog.truncations(table) != before;
    }
    if is_new { view.agreement.write(batch) } else { Ok(()) }
}

/// Rows below a truncation are removed, a bounded number at a time, after `first` was applied: seeds, letters about what the
/// store cannot keep whole, and how far the table has been gone through.
fn sweep_slice(
    view: &mut View,
    batch: &mut dyn RowBatch,
    slice_rows: usize,
    table: &TableId,
    mut sweep: Sweep,
    first: BTreeMap<TableId, Vec<RowEvent<'_>>>,
) -> Result<(Vec<u8>, Vec<DeadLetter>, Sweep), Error> {
    let before = view.catalog.truncated_at(table);
    view.catalog.truncated(batch, table, sweep.below)?;
    if view.catalog.truncated_at(table) != before {
        // An older row that is just being written by somebody who does not know this would stay for ever.
        view.agreement.write(batch)?;
        view.agreement.touch_all(batch)?;
    }
    let (mut ascents, mut letters) = (ascents(view), Vec::new());
    for (table, events) in first {
        let each = |changes: &TableChanges<'_>| ascents.begin(changes);
        // What is kept in part is told of now: when the whole batch is applied, it is there already.
        let found = apply(batch, &view.catalog, &table, &view.indexes_of(&table), events, Mode::Follow, each)?;
        letters.extend(found);
    }
    let mut arena = RowArena::default();
    batch.scan_rows(table, sweep.after.as_deref(), slice_rows, &mut arena)?;
    sweep.after = arena.slots().last().map(|last| arena.key(last).to_vec());
    sweep.done = sweep.after.is_none();
    ascents.begin(&erase(batch, table, &view.indexes_of(table), &arena, sweep.below)?);
    Ok((encoded(ascents), letters, sweep))
}

/// Ascents of all versions that follow changes, none begun.
fn ascents(view: &View) -> Ascents<'_, VersionId> {
    let plans = view.versions.iter().map(|version| Some((version.sharing.id, version.followed_plan()?)));
    Ascents::new(plans.flatten())
}

/// Where they begin, as it is kept until the roots are in the log.
fn encoded(ascents: Ascents<'_, VersionId>) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, _, seeds) in ascents.seeds {
        if !seeds.is_empty() {
            pending::encode(id, seeds, &mut out);
        }
    }
    out
}

fn put_seeds(batch: &mut dyn RowBatch, home: &TopicPartition, latest_at: i64, seeds: &[u8]) -> Result<(), Error> {
    let note = [&latest_at.to_le_bytes(), seeds].concat();
    Ok(batch.set_note(&pending_note(&home.topic, home.partition), Some(&note))?)
}

fn split_time(at: &TopicPartition, note: Vec<u8>) -> Result<(i64, Vec<u8>), Error> {
    let damaged = || Error::Note { note: pending_note(&at.topic, at.partition) };
    let (time, seeds) = note.split_first_chunk::<8>().ok_or_else(damaged)?;
    Ok((i64::from_le_bytes(*time), seeds.to_vec()))
}

/// Dirty roots as records: the root is the key, the newest commit time at a source the value.
pub(crate) fn records(sharing: &Sharing, mut dirty: KeySet, latest_at: i64, out: &mut Vec<AppendBatch>) {
    let count = dirty.settle();
    let mut buffers: Vec<RecordBuffer> = Vec::new();
    buffers.resize_with(sharing.partitions.max(1) as usize, RecordBuffer::default);
    let now = now_ms();
    for root in dirty.list(0..count).iter() {
        let at = (hash(root) % u64::from(sharing.partitions.max(1))) as usize;
        buffers[at].push(now, root, Some(|value: &mut Vec<u8>| value.extend_from_slice(&latest_at.to_le_bytes())));
    }
    for (partition, records) in (0..).zip(buffers) {
        if !records.is_empty() {
            let to = TopicPartition { topic: sharing.topic.as_str().into(), partition };
            out.push(AppendBatch { to, prelude: Bytes::new(), records });
        }
    }
}

/// FNV-1a. All records of a root must come to one partition for as long as the topic lives: this never changes.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
