//! How far each source is projected: its progress is a frontier once it has come through both stages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headwater_broker::{Error as LogError, FetchFrom, FetchLimits, Offset, TopicPartition};
use headwater_schemas::{SourceProgress, progress_topic};
use headwater_store::{Frontier, VersionState};

use super::{Leading, Marks, Surroundings, built, ends, has_passed};
use crate::Error;
use crate::records::read_anew;
use crate::shared::view::{Followed, SharedRows, View};

/// Progress of one source that may wait to be projected, before newer progress waits outside.
const WAITING_MAX: usize = 8;

impl Leading {
    /// Reads what the connectors say about their progress.
    pub(crate) fn read_progress(&mut self, rows: &SharedRows, around: &Surroundings<'_>) -> Result<(), Error> {
        let wanted = rows.view().sources();
        self.find_progress(&wanted, around)?;
        let mut from = Vec::new();
        let mut sources = BTreeMap::new();
        for source in wanted {
            let Some(offset) = self.read_on.get(&source).copied() else { continue };
            let topic: Arc<str> = progress_topic(around.prefix, &source).into();
            from.push(FetchFrom { partition: TopicPartition { topic: topic.clone(), partition: 0 }, offset });
            sources.insert(topic, source);
        }
        if from.is_empty() {
            return Ok(());
        }
        let limits = FetchLimits { bytes_max: 1 << 20, wait_max: Duration::ZERO };
        let fetched = match around.runtime.block_on(around.log.fetch(&from, limits)) {
            // One of the topics is gone, or was made anew: they are looked for like new ones.
            Err(
                LogError::OffsetOutOfRange { .. } | LogError::UnknownTopic { .. } | LogError::UnknownPartition { .. },
            ) => {
                self.read_on.clear();
                return Ok(());
            }
            fetched => fetched?,
        };
        for batch in fetched {
            let Some(source) = sources.get(&batch.from.topic) else { continue };
            self.read_on.insert(source.clone(), batch.next());
            let progress = batch.records().filter_map(|record| serde_json::from_slice(record.value?).ok());
            if let Some(progress) = progress.last() {
                for (topic, partition, end) in read_anew(self.progress.get(source), &progress) {
                    let at = TopicPartition { topic: topic.into(), partition };
                    let floor = self.floors.entry(at).or_insert(end);
                    *floor = end.max(*floor);
                }
                self.progress.insert(source.clone(), progress);
            }
        }
        Ok(())
    }

    /// Finds the topics of sources that are not read yet. To ask for all topics of the cluster and for their ends at every look
    /// would take most of its time.
    fn find_progress(&mut self, wanted: &[String], around: &Surroundings<'_>) -> Result<(), Error> {
        let new: Vec<&String> = wanted.iter().filter(|source| !self.read_on.contains_key(*source)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let topics = around.runtime.block_on(around.log.topics())?;
        for source in new {
            let topic: Arc<str> = progress_topic(around.prefix, source).into();
            if !topics.iter().any(|(name, _)| *name == topic) {
                continue;
            }
            let marks = around.runtime.block_on(around.log.watermarks(&TopicPartition { topic, partition: 0 }))?;
            // Only the newest counts; a few more, since not every offset is a record's.
            let newest = marks.low.max(Offset(marks.high.0.saturating_sub(4)));
            self.read_on.insert(source.clone(), newest);
        }
        Ok(())
    }

    /// Moves the frontiers of sources whose progress has come through both stages, where no version holds them. Answers
    /// `false` when another one leads by now.
    pub(crate) fn publish(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<bool, Error> {
        if self.serves_unfollowed(rows.view()) {
            return Ok(true);
        }
        let held = self.held(rows.view());
        let fresh = self.progress.keys().filter(|source| !held.contains(*source) && self.is_news(source));
        let fresh: Vec<String> = fresh.cloned().collect();
        if !fresh.is_empty() {
            let emitted = self.emitted(rows)?;
            let topics = rows.view().topics(around.prefix);
            let reached = |source: &String| is_reached(&self.progress[source], &topics, &emitted);
            let reached: Vec<String> = fresh.into_iter().filter(reached).collect();
            if !reached.is_empty() {
                // Later than what is emitted was looked at: the roots of all that is reached lie below.
                let marks = self.dirty_marks(rows.view(), around)?;
                for source in reached {
                    let progress = self.progress[&source].clone();
                    self.waiting.entry(source).or_default().push((progress, marks.clone()));
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
                let before = self.published.get(source);
                frontiers.extend(newest.map(|(progress, _)| (source.clone(), frontier(&progress).after(before))));
            }
        }
        if frontiers.is_empty() {
            return Ok(true);
        }
        if !self.leads(rows)? {
            return Ok(false);
        }
        // What a frozen version does not follow is emitted and built as if it were nothing. Whether one is frozen is known here
        // as it was when what was emitted and built was asked for, or later.
        let held = self.held(rows.view());
        frontiers.retain(|(source, _)| !held.contains(source));
        let mut transaction = self.registry(around)?;
        for (source, frontier) in &frontiers {
            transaction.set_frontier(source, *frontier)?;
        }
        transaction.flush()?;
        self.published.extend(frontiers);
        Ok(true)
    }

    /// Whether a version serves that was not agreed on, because the rows it was built from are gone: it lacks every change
    /// since, and which tables it reads is not known any more.
    fn serves_unfollowed(&self, view: &View) -> bool {
        let mut serving = self.records.values().filter(|record| record.state == VersionState::Active);
        serving.any(|record| view.version(record.id).is_none())
    }

    /// Sources whose frontiers a [frozen](crate::frozen) version that serves holds.
    fn held(&self, view: &View) -> BTreeSet<String> {
        let serves = |version: &&Followed| {
            self.records.get(&version.sharing.id).is_some_and(|record| record.state == VersionState::Active)
        };
        let frozen = view.versions.iter().filter(|version| version.sharing.frozen).filter(serves);
        frozen.flat_map(|version| version.model.sources()).collect()
    }

    /// Whether the newest progress of a source goes beyond what is projected or waits to be.
    fn is_news(&self, source: &str) -> bool {
        let progress = &self.progress[source];
        let waiting = self.waiting.get(source).map_or(&[][..], |waiting| &waiting[..]);
        let newest = waiting.last().map(|(progress, _)| frontier(progress));
        let newest = newest.or_else(|| self.published.get(source).copied());
        let newer = |newest: Frontier| {
            newest != frontier(progress).after(Some(&newest)) && newest.position <= progress.position
        };
        waiting.len() < WAITING_MAX && newest.is_none_or(newer)
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
}

fn frontier(progress: &SourceProgress) -> Frontier {
    Frontier { position: progress.position, at_micros: progress.at_micros, snapshot_done: progress.snapshot_done }
}

/// Whether everything below the progress that any of the topics brings is applied and emitted.
pub(super) fn is_reached(progress: &SourceProgress, topics: &BTreeSet<String>, emitted: &Marks) -> bool {
    progress.watermarks.iter().filter(|(topic, _)| topics.contains(*topic)).all(|(topic, offsets)| {
        (0u32..).zip(offsets).all(|(partition, offset)| {
            let at = TopicPartition { topic: topic.as_str().into(), partition };
            *offset == 0 || emitted.get(&at).is_some_and(|emitted| emitted >= offset)
        })
    })
}
