//! Stage two: dirty roots into documents.
//!
//! Rows are read after the record that calls a root dirty was read, hence after the change behind it was committed. So a
//! document written for the record at some offset holds all changes up to there, and that offset is its stamp: the store
//! keeps the document with the greatest. A late writer, whatever it read and whenever, changes nothing that is newer.
//!
//! Also a document that turns out to be the same takes the new stamp. Else one that was rebuilt as it was (A, B, then A
//! again) would keep the stamp of the first A, and give way to a late writer of B.

use std::collections::{BTreeMap, VecDeque};

use headwater_broker::FetchedBatch;
use headwater_schemas::DeadLetter;
use headwater_store::{ByteList, DocumentStore, VersionId};

use super::view::SharedRows;
use crate::Error;
use crate::build::{project_letter, put_documents};
use crate::evaluate::{CHUNK_BYTES, Documents};
use crate::fold::{Folded, Letters};

/// Bits of a stamp that are the offset; the epoch stands above.
const OFFSET_BITS: u32 = 40;

/// Greatest number of roots rebuilt with one read per relation.
const CHUNK_ROOTS: usize = 4_096;

/// Dirty roots of one topic.
struct Work {
    topic: String,
    /// Offset of the last record of each root.
    roots: BTreeMap<Vec<u8>, u64>,
    /// Newest commit time at a source, microseconds since 1970.
    latest_at: i64,
    /// Commit times, one a change that was carried here.
    committed_at: Vec<i64>,
}

/// Documents that are evaluated, and not yet written.
struct Ready {
    version: VersionId,
    sources: Vec<String>,
    roots: ByteList,
    stamps: Vec<u64>,
    /// About documents that cannot be built.
    letters: Vec<DeadLetter>,
    latest_at: i64,
    committed_at: Vec<i64>,
}

/// Rebuilds documents, a chunk at a time.
#[derive(Default)]
pub(crate) struct Building {
    documents: Documents,
    queue: VecDeque<Work>,
    ready: Option<Ready>,
    roots_chunk: usize,
}

impl Building {
    /// Takes records of dirty topics; of several records of one root the last counts.
    pub(crate) fn take(&mut self, batches: &[FetchedBatch]) {
        for batch in batches {
            let topic = &*batch.from.topic;
            let at = match self.queue.iter().position(|work| work.topic == *topic) {
                Some(at) => at,
                None => {
                    let (topic, roots) = (topic.to_string(), BTreeMap::new());
                    self.queue.push_back(Work { topic, roots, latest_at: 0, committed_at: Vec::new() });
                    self.queue.len() - 1
                }
            };
            let work = &mut self.queue[at];
            for record in batch.records() {
                work.roots.insert(record.key.to_vec(), record.offset.0);
                let at =
                    record.value.and_then(|value| value.first_chunk::<8>()).map_or(0, |at| i64::from_le_bytes(*at));
                work.latest_at = work.latest_at.max(at);
                if at > 0 && work.committed_at.last() != Some(&at) {
                    work.committed_at.push(at);
                }
            }
        }
    }

    /// Forgets what was taken and not written.
    pub(crate) fn forget(&mut self) {
        self.queue.clear();
        self.ready = None;
    }

    /// Whether everything taken is in documents.
    pub(crate) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.ready.is_none()
    }

    /// Whether there are documents to write.
    pub(crate) fn is_evaluated(&self) -> bool {
        self.ready.is_some()
    }

    /// Evaluates the documents of the next roots.
    pub(crate) fn read(&mut self, rows: &mut SharedRows) -> Result<(), Error> {
        let Some(work) = self.queue.front_mut() else { return Ok(()) };
        self.roots_chunk = self.roots_chunk.clamp(1, CHUNK_ROOTS);
        let chunk = self.roots_chunk;
        let documents = &mut self.documents;
        let ready = rows.read(|view, batch| {
            // Of a version that is gone or frozen, nobody wants documents; before the changes of one are followed, what its
            // topic has is of another store, and the scan that comes names every root.
            let version = view.versions.iter().find(|version| version.sharing.topic == work.topic);
            let Some((version, plan)) = version.and_then(|version| Some((version, version.followed_plan()?))) else {
                return Ok(None);
            };
            let (mut roots, mut stamps) = (ByteList::default(), Vec::new());
            for (root, offset) in work.roots.iter().take(chunk) {
                roots.push(root);
                stamps.push(version.sharing.epoch << OFFSET_BITS | (offset + 1));
            }
            documents.evaluate(plan, batch, &mut roots)?;
            stamps.truncate(roots.len());
            let mut letters = Vec::new();
            for (at, cause) in documents.poisoned() {
                let (model, table) = (&plan.model, plan.root_table());
                letters.push(project_letter(batch, &view.catalog, model, table, roots.get(at), cause.to_string())?);
            }
            let sources = version.model.sources();
            let (latest_at, committed_at) = (work.latest_at, Vec::new());
            Ok(Some(Ready { version: version.sharing.id, sources, roots, stamps, letters, latest_at, committed_at }))
        })?;
        let Some(mut ready) = ready else {
            self.queue.pop_front();
            return Ok(());
        };
        if self.documents.chunk_bytes > CHUNK_BYTES {
            self.roots_chunk = (ready.roots.len() * CHUNK_BYTES / self.documents.chunk_bytes).max(1);
        } else if self.documents.chunk_bytes < CHUNK_BYTES / 8 {
            self.roots_chunk = self.roots_chunk.saturating_mul(2);
        }
        for root in ready.roots.iter() {
            work.roots.remove(root);
        }
        if work.roots.is_empty() {
            ready.committed_at = std::mem::take(&mut work.committed_at);
            self.queue.pop_front();
        }
        self.ready = Some(ready);
        Ok(())
    }

    /// Writes what was evaluated, under the condition that nothing newer is there.
    pub(crate) fn write(
        &mut self,
        rows: &mut SharedRows,
        store: &dyn DocumentStore,
        letters: &mut Letters<'_>,
    ) -> Result<Folded, Error> {
        let Some(ready) = &mut self.ready else { return Ok(Folded::default()) };
        let mut transaction = store.begin()?;
        let frontiers = transaction.frontiers()?;
        let at = |source: &String| frontiers.get(source).map(|frontier| frontier.at_micros);
        let as_of = ready.sources.iter().filter_map(at).min().unwrap_or(ready.latest_at);
        let mut faults = Vec::new();
        let (roots, stamps) = (&ready.roots, Some(&*ready.stamps));
        let written = self.documents.writes(roots, stamps, |writes| {
            put_documents(&mut *transaction, ready.version, as_of, writes, &mut faults)
        })?;
        let mut found = ready.letters.clone();
        if !faults.is_empty() {
            let refused = rows.read(|view, batch| {
                let plan = view.version(ready.version).and_then(|version| version.plan.as_ref());
                let Some(plan) = plan else { return Ok(Vec::new()) };
                let letter = |(at, cause): (usize, String)| {
                    project_letter(batch, &view.catalog, &plan.model, plan.root_table(), ready.roots.get(at), cause)
                };
                faults.into_iter().map(letter).collect()
            });
            found.append(&mut refused?);
        }
        if !found.is_empty() {
            letters(&found)?;
        }
        transaction.flush()?;
        let (committed_at, rebuilt) = (std::mem::take(&mut ready.committed_at), vec![ready.version]);
        self.ready = None;
        let dead_letters = found.len() as u64;
        Ok(Folded { documents: written, dead_letters, committed_at, rebuilt, ..Folded::default() })
    }
}
