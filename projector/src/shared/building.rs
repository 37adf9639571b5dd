//! Stage two: dirty roots into documents.
//!
//! Rows are read after the record that calls a root dirty was read, hence after the change behind it was committed. So a
//! document written for the record at some offset holds all changes up to there, and that offset is its stamp: the store
//! keeps the document with the greatest. A late writer, whatever it read and whenever, changes nothing that is newer.
//!
//! Also a document that turns out to be the same takes the new stamp. Else one that was rebuilt as it was (A, B, then A
//! again) would keep the stamp of the first A, and give way to a late writer of B.
//!
//! Topics take turns, a chunk each: the roots of a version that is being filled may be a million, and the few of another
//! do not wait for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use headwater_broker::{FetchedBatch, Offset, TopicPartition};
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

/// How long a chunk may take, about.
const CHUNK_TIME: Duration = Duration::from_millis(100);

/// Roots of one topic that may wait before no more should be taken.
const WAITING_MAX: usize = 20_000;

/// A dirty topic and what was taken of it. One that has nothing is kept for its size of a chunk.
struct Topic {
    name: String,
    /// What was taken at once, oldest first.
    works: VecDeque<Work>,
    roots_chunk: usize,
}

/// Dirty roots that were taken at once.
#[derive(Default)]
struct Work {
    /// Offset of the last record of each root.
    roots: BTreeMap<Vec<u8>, u64>,
    /// Newest commit time at a source, microseconds since 1970.
    latest_at: i64,
    /// Commit times, one a change that was carried here.
    committed_at: Vec<i64>,
    behind: Vec<Passed>,
}

/// Everything of a partition up to here is in documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The partition.
    pub partition: TopicPartition,
    /// What comes next there.
    pub next: Offset,
    /// When the last record before it was written, milliseconds since 1970; unknown where there is none.
    pub written_at: Option<i64>,
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
    /// What is passed with them.
    behind: Vec<Passed>,
}

/// Rebuilds documents, a chunk at a time.
#[derive(Default)]
pub(crate) struct Building {
    documents: Documents,
    /// Whoever had a turn stands behind the others.
    topics: VecDeque<Topic>,
    ready: Option<Ready>,
    passed: Vec<Passed>,
}

impl Building {
    /// Takes records of dirty topics; of several records of one root the last counts.
    pub(crate) fn take(&mut self, batches: &[FetchedBatch]) {
        let mut begun: BTreeSet<&str> = BTreeSet::new();
        for batch in batches {
            let name = &*batch.from.topic;
            let at = self.topics.iter().position(|topic| topic.name == *name).unwrap_or_else(|| {
                self.topics.push_back(Topic { name: name.into(), works: VecDeque::new(), roots_chunk: 1 });
                self.topics.len() - 1
            });
            let works = &mut self.topics[at].works;
            let written_at = batch.records().last().map(|last| last.timestamp_ms);
            if written_at.is_some() && begun.insert(name) {
                works.push_back(Work::default());
            }
            let passed = Passed { partition: batch.from.clone(), next: batch.next(), written_at };
            let Some(work) = works.back_mut() else {
                self.passed.push(passed);
                continue;
            };
            work.behind.push(passed);
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
        self.topics.iter_mut().for_each(|topic| topic.works.clear());
        self.passed.clear();
        self.ready = None;
    }

    /// Whether everything taken is in documents.
    pub(crate) fn is_done(&self) -> bool {
        self.topics.iter().all(|topic| topic.works.is_empty()) && self.ready.is_none()
    }

    /// Whether so much of a topic waits that no more should be taken.
    pub(crate) fn is_full(&self, topic: &str) -> bool {
        let works = self.topics.iter().filter(|it| it.name == *topic).flat_map(|it| &it.works);
        works.map(|work| work.roots.len()).sum::<usize>() > WAITING_MAX
    }

    /// What of the partitions was passed since this was asked last.
    pub(crate) fn passed(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.passed)
    }

    /// Whether there are documents to write.
    pub(crate) fn is_evaluated(&self) -> bool {
        self.ready.is_some()
    }

    /// Evaluates the documents of the next roots of the topic whose turn it is.
    pub(crate) fn read(&mut self, rows: &mut SharedRows) -> Result<(), Error> {
        let Some(at) = self.topics.iter().position(|topic| !topic.works.is_empty()) else { return Ok(()) };
        self.topics.rotate_left(at + 1);
        let topic = self.topics.back_mut().expect("it was found above");
        let work = topic.works.front_mut().expect("it has one");
        let (name, chunk) = (&topic.name, topic.roots_chunk.clamp(1, CHUNK_ROOTS));
        let documents = &mut self.documents;
        let ready = rows.read(|view, batch| {
            // Of a version that is gone or frozen, nobody wants documents; before the changes of one are followed, what its
            // topic has is of another store, and the scan that comes names every root.
            let version = view.versions.iter().find(|version| version.sharing.topic == *name);
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
            let (version, sources, latest_at) = (version.sharing.id, version.model.sources(), work.latest_at);
            let (committed_at, behind) = (Vec::new(), Vec::new());
            Ok(Some(Ready { version, sources, roots, stamps, letters, latest_at, committed_at, behind }))
        })?;
        let Some(mut ready) = ready else {
            self.passed.append(&mut work.behind);
            topic.works.pop_front();
            if topic.works.is_empty() {
                self.topics.pop_back();
            }
            return Ok(());
        };
        topic.roots_chunk = match documents.chunk_bytes {
            many if many > CHUNK_BYTES => ready.roots.len() * CHUNK_BYTES / many,
            few if few < CHUNK_BYTES / 8 => chunk * 2,
            _ => chunk,
        };
        for root in ready.roots.iter() {
            work.roots.remove(root);
        }
        if work.roots.is_empty() {
            ready.committed_at = std::mem::take(&mut work.committed_at);
            ready.behind = std::mem::take(&mut work.behind);
            topic.works.pop_front();
        }
        self.ready = Some(ready);
        Ok(())
    }

    /// Takes note how long the last chunk took to read and write: where that was long, the next one of its topic is smaller.
    pub(crate) fn took(&mut self, time: Duration) {
        if let Some(topic) = self.topics.back_mut().filter(|_| time > CHUNK_TIME) {
            // Half of what it was: its few bytes have doubled it.
            topic.roots_chunk /= 4;
        }
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
        self.passed.append(&mut ready.behind);
        self.ready = None;
        let dead_letters = found.len() as u64;
        Ok(Folded { documents: written, dead_letters, committed_at, rebuilt, ..Folded::default() })
    }
}
