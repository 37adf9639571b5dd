//! Work that is done in slices between micro-batches: finishing documents that a break left behind their rows, filling
//! join indexes, building versions, removing retired ones.
//!
//! Each slice is one commit, and says in the same commit how far it came.

use std::time::{Duration, Instant};

use headwater_schemas::{SourceProgress, TableId};
use headwater_store::{Batch, JoinIndex, RowArena, RowBatch, RowWrite, VersionId, VersionState, Written};

use crate::Error;
use crate::apply::TableIndexes;
use crate::build::sum;
use crate::catalog::Catalog;
use crate::clock::now_ms;
use crate::fold::{Fold, FoldOptions, Folded, Letters, State};
use crate::found::FoundLetters;
use crate::keys::KeySet;
use crate::version::{Replay, Scan, Version, note_retired, retired_since};

/// Documents removed between two looks at the clock.
const PURGE_CHUNK: usize = 2_048;

/// What a slice found to do.
pub(crate) enum Slice {
    Nothing,
    Work,
    /// A version serves now, and the one before it no longer.
    Activated,
}

impl Fold {
    /// Whether a slice would find something to do.
    pub fn has_background_work(&self) -> bool {
        let state = &self.state;
        state.has_unfinished()
            || state.next_index().is_some()
            || state.versions.iter().any(|it| it.is_building() && state.is_ready(it, &self.options.prefix))
    }

    /// Whether any version serves.
    pub(crate) fn is_serving(&self) -> bool {
        self.state.versions.iter().any(Version::is_active)
    }

    /// Works in the background for about `budget`, in one commit; `None` when there is nothing to do.
    pub fn background(&mut self, budget: Duration, letters: &mut Letters<'_>) -> Result<Option<Folded>, Error> {
        let until = Instant::now() + budget;
        self.step(|state, batch, options| {
            let mut folded = Folded::default();
            let mut found = FoundLetters::new(letters);
            let mut worked = false;
            loop {
                let slice = state.slice(batch, options, &mut folded.documents, &mut found)?;
                worked |= !matches!(slice, Slice::Nothing);
                // What the version before walked goes in a later commit. Where rows and documents are two engines, this one
                // may break off between them: the rows would be without it, and that version would still serve.
                if !matches!(slice, Slice::Work) || Instant::now() >= until {
                    break;
                }
            }
            folded.dead_letters = found.finish()?;
            Ok(worked.then_some(folded))
        })
    }
}

impl State {
    fn slice(
        &mut self,
        batch: &mut dyn Batch,
        options: &FoldOptions,
        documents: &mut Written,
        found: &mut FoundLetters<'_>,
    ) -> Result<Slice, Error> {
        if self.has_unfinished() {
            let dirty = self.take_unfinished();
            *documents = sum(*documents, self.build_all(batch, dirty, 0, found)?);
            return Ok(Slice::Work);
        }
        if let Some(index) = self.next_index() {
            let indexes = self.indexes_of(&index.table);
            if fill_index(batch, &indexes, &index, &index_note(&index), options.slice_rows)? {
                self.complete.push(index);
            }
            return Ok(Slice::Work);
        }
        let building = self.versions.iter().position(|it| it.is_building() && self.is_ready(it, &options.prefix));
        if let Some(at) = building {
            return match self.versions[at].scan {
                Scan::Counting(_) => self.weigh(batch, options, at),
                _ => self.scan(batch, options, at, documents, found),
            };
        }
        let removed = self.purge(batch, options)? || self.drop_index(batch)?;
        Ok(if removed { Slice::Work } else { Slice::Nothing })
    }

    /// Whether documents were left behind their rows and can be rebuilt now.
    fn has_unfinished(&self) -> bool {
        let planned = |id: VersionId| self.versions.iter().any(|it| it.record.id == id && it.plan.is_some());
        self.unfinished.iter().any(|(id, _)| planned(*id))
    }

    /// A join index that is needed and not complete.
    fn next_index(&self) -> Option<JoinIndex> {
        let mut wanted = self.versions.iter().flat_map(|version| &version.indexes);
        wanted.find(|index| !self.complete.contains(index)).cloned()
    }

    /// Whether a building version can be filled from the rows, and is not [held](crate::held): its tables are known, its join
    /// indexes complete, its sources' snapshots done and read, and its topics read again where it is a replay.
    pub(crate) fn is_ready(&self, version: &Version, prefix: &str) -> bool {
        let snapshot_done = |table: &TableId| {
            let source = &*table.source;
            let told = self.frontiers.get(source).is_some_and(|frontier| frontier.snapshot_done);
            match self.progress.get(source) {
                // What is newest counts: a table that was configured later is read in a snapshot of its own, and until that
                // is folded the frontier stays where it was. Where frontiers are held back, they do not tell it at all.
                Some(progress) => {
                    progress.snapshot_done
                        && covers(progress, table, &self.catalog, prefix)
                        && (told || self.is_reached(progress, prefix))
                }
                None => told && !self.awaited.contains(source),
            }
        };
        version.plan.is_some()
            && version.problem.is_none()
            && !matches!(version.scan, Scan::Held(_))
            && self.late.lacks(&version.model, prefix).is_none()
            && version.replay.as_ref().is_none_or(Replay::is_done)
            && version.indexes.iter().all(|index| self.complete.contains(index))
            && version.model.tables().iter().all(|table| {
                snapshot_done(table)
                    && self.floors.iter().all(|((topic, partition), floor)| {
                        let own = topic.strip_suffix(&table.to_string()).is_some_and(|prefix| prefix.ends_with('.'));
                        let read = self.offsets.get(&(topic.clone(), *partition)).copied().unwrap_or(0);
                        !own || read >= *floor
                    })
            })
    }

    /// Builds the documents of some more roots; the version is filled when there are none left.
    fn scan(
        &mut self,
        batch: &mut dyn Batch,
        options: &FoldOptions,
        at: usize,
        documents: &mut Written,
        found: &mut FoundLetters<'_>,
    ) -> Result<Slice, Error> {
        let version = &mut self.versions[at];
        if version.scan == Scan::Waiting {
            let total = batch.row_count(&version.model.root.table)?;
            version.scan = Scan::Running { after: None, done: 0, total, started: (Instant::now(), 0) };
        }
        let Scan::Running { after, .. } = &version.scan else { return Ok(Slice::Work) };
        let after = after.clone();
        let table = version.model.root.table.clone();
        let mut rows = RowArena::default();
        // Where documents are large, fewer of them: they go in one commit.
        let slice_rows = options.slice_rows.min(self.roots_chunk);
        batch.scan_rows(&table, after.as_deref(), slice_rows, &mut rows)?;
        let Some(last) = rows.slots().last() else {
            return self.filled(batch, options, at);
        };
        let last = rows.key(last).to_vec();
        let mut roots = KeySet::default();
        let live = rows.slots().iter().filter(|slot| rows.row(slot).is_some());
        live.for_each(|slot| roots.push(rows.key(slot)));
        let as_of = self.as_of(at, 0);
        let written = self.build(batch, at, roots, as_of, found)?;
        let version = &mut self.versions[at];
        version.note_example(batch, found)?;
        if let Scan::Running { after, done, .. } = &mut version.scan {
            *after = Some(last);
            *done += rows.slots().len() as u64;
        }
        version.save_scan(batch)?;
        *documents = sum(*documents, written);
        Ok(Slice::Work)
    }

    /// Removes some documents of a retired version whose grace is over.
    fn purge(&mut self, batch: &mut dyn Batch, options: &FoldOptions) -> Result<bool, Error> {
        let grace = i64::try_from(options.retired_grace.as_millis()).unwrap_or(i64::MAX);
        for record in batch.versions()? {
            if record.state != VersionState::Retired {
                continue;
            }
            let VersionId(id) = record.id;
            let is_followed = self.versions.iter().any(|version| version.record.id == record.id);
            let since = match retired_since(&*batch, id)? {
                Some(since) if !is_followed => since,
                // Another projector retired it: its grace begins where that is found out.
                _ => {
                    let (model, version) = (&record.model, id);
                    tracing::warn!(model, version, "version was retired by another, and is followed no longer");
                    if is_followed {
                        self.retire(batch, record.id)?;
                        self.replan(batch)?;
                    } else {
                        note_retired(batch, id)?;
                    }
                    now_ms()
                }
            };
            if now_ms().saturating_sub(since) < grace {
                continue;
            }
            batch.purge_version(record.id, PURGE_CHUNK)?;
            // Its last documents may have filled the chunk.
            if !batch.versions()?.iter().any(|left| left.id == record.id) {
                Version::forget(batch, id)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Removes a join index that no version walks any more.
    fn drop_index(&mut self, batch: &mut dyn Batch) -> Result<bool, Error> {
        if self.versions.iter().any(|version| version.plan.is_none()) {
            return Ok(false);
        }
        let wanted = |index: &JoinIndex| self.versions.iter().any(|version| version.indexes.contains(index));
        let Some(at) = self.complete.iter().position(|index| !wanted(index)) else { return Ok(false) };
        let index = self.complete.swap_remove(at);
        batch.drop_join_index(&index)?;
        self.replan(batch)?;
        Ok(true)
    }
}

/// Whether progress of a source is about a table as it is now. What was told before its topic was there, or before it had
/// the schema that it has, says nothing of the reading that this began.
pub(crate) fn covers(progress: &SourceProgress, table: &TableId, catalog: &Catalog, prefix: &str) -> bool {
    progress.watermarks.contains_key(&table.topic(prefix)) && catalog.current_at(table) <= progress.position
}

/// Name of the note that holds how far a join index is filled.
pub(crate) fn index_note(index: &JoinIndex) -> String {
    format!("index/{}/{}", index.table, index.columns.join(","))
}

/// Writes some rows of a table again, so that they get into a new join index; answers whether it is complete. `note` is
/// the name of the note that keeps how far this is.
pub(crate) fn fill_index(
    batch: &mut dyn RowBatch,
    indexes: &TableIndexes,
    index: &JoinIndex,
    note: &str,
    slice_rows: usize,
) -> Result<bool, Error> {
    let after = batch.note(note)?.filter(|after| !after.is_empty());
    let mut rows = RowArena::default();
    batch.scan_rows(&index.table, after.as_deref(), slice_rows, &mut rows)?;
    let Some(last) = rows.slots().last() else {
        batch.add_join_index(index)?;
        batch.set_note(note, None)?;
        return Ok(true);
    };
    let last = rows.key(last).to_vec();
    let all: Vec<&JoinIndex> = indexes.indexes.iter().collect();
    let (mut bytes, mut spans) = (Vec::new(), Vec::new());
    for slot in rows.slots() {
        let Some(row) = rows.row(slot) else { continue };
        bytes.clear();
        spans.clear();
        indexes.keys(slot.schema, row, &mut bytes, &mut spans);
        let added: Vec<(usize, &[u8])> =
            spans.iter().map(|(number, start, end)| (*number, &bytes[*start..*end])).collect();
        let write = RowWrite {
            key: rows.key(slot),
            row: Some(row),
            schema: slot.schema,
            position: slot.position,
            removed: &[],
            added: &added,
        };
        batch.put_row(&index.table, &all, write)?;
    }
    batch.set_note(note, Some(&last))?;
    Ok(false)
}
