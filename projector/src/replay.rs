//! Reading topics again, to mend rows and to build a new version of a model from what the log says.
//!
//! Phase one folds the model's records from the wanted place up to where the log ended when the replay began: an event
//! that is as new as the stored row replaces it if the two differ. Phase two builds the new version from the rows, as any
//! new version is built. Both leave notes in the store, so that a restart goes on where the last commit was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_broker::{EventLog, FetchFrom, FetchLimits, Offset, TopicPartition, Watermarks};
use headwater_schemas::{ValueRef, temporal};

use crate::Error;
use crate::apply::Mode;
use crate::fold::{Fold, Folded, Letters, State};
use crate::records::{Input, decode};
use crate::status::{ModelState, ModelStatus, Phase, Progress};
use crate::version::{ReplayPart, Scan, Version};

/// How long the oldest record of a partition is waited for, milliseconds of a log that answers from afar.
const OLDEST_WITHIN: Duration = Duration::from_secs(2);

/// Where a replay begins. A place that the log does not have, or not any more, is refused: who names one to mend rows from
/// must know when it is not the one that is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// With the oldest record that the log still has.
    Earliest,
    /// At these offsets, by topic, in every partition of it; the model's other topics from the earliest.
    Offsets(BTreeMap<String, u64>),
    /// With the first record at or after this time, milliseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
}

/// Which records a replay of these topics reads.
pub(crate) async fn plan(log: &dyn EventLog, topics: &[String], from: &ReplayFrom) -> Result<Vec<ReplayPart>, Error> {
    if let ReplayFrom::Offsets(offsets) = from
        && let Some(unknown) = offsets.keys().find(|topic| !topics.contains(topic))
    {
        let why = format!("the model does not read topic `{unknown}`; it reads {}", topics.join(", "));
        return Err(Error::ReplayFrom { why });
    }
    let (mut parts, mut held) = (Vec::new(), Vec::new());
    for (topic, partitions) in log.topics().await? {
        if !topics.iter().any(|wanted| **wanted == *topic) {
            continue;
        }
        for partition in 0..partitions {
            let place = TopicPartition { topic: topic.clone(), partition };
            let marks = log.watermarks(&place).await?;
            let next = match from {
                ReplayFrom::Earliest => marks.low,
                ReplayFrom::Offsets(offsets) => match offsets.get(&*topic) {
                    Some(offset) => within(&place, Offset(*offset), marks)?,
                    None => marks.low,
                },
                ReplayFrom::Timestamp(at) => {
                    not_removed(log, &place, *at, marks).await?;
                    // Asked later than the watermarks, it may lie behind them.
                    log.offset_at(&place, *at).await?.min(marks.high)
                }
            };
            held.push(format!("{place} holds offsets {} to {}", marks.low.0, marks.high.0));
            parts.push(ReplayPart { topic: topic.to_string(), partition, next: next.0, end: marks.high.0 });
        }
    }
    if let ReplayFrom::Timestamp(at) = from
        && !parts.is_empty()
        && parts.iter().all(|part| part.next == part.end)
    {
        let why = format!(
            "nothing was written at {} or later: {}; name an earlier time, or say `earliest`",
            as_text(*at),
            held.join(", ")
        );
        return Err(Error::ReplayFrom { why });
    }
    Ok(parts)
}

/// The offset, if the partition has it or ends there.
fn within(at: &TopicPartition, offset: Offset, marks: Watermarks) -> Result<Offset, Error> {
    let (wanted, low, high) = (offset.0, marks.low.0, marks.high.0);
    let problem = match () {
        () if wanted > high => "is behind the end of the log",
        () if wanted < low => "was removed by retention",
        () => return Ok(offset),
    };
    let (topic, partition) = (&at.topic, at.partition);
    let why = format!(
        "offset {wanted} {problem}: partition {partition} of `{topic}` holds offsets {low} to {high}; name one of those for \
         it, as `{topic}={low}`, or say `earliest`"
    );
    Err(Error::ReplayFrom { why })
}

/// Refuses a time from before the oldest record of a partition that lost others: some of those may be as new.
async fn not_removed(log: &dyn EventLog, at: &TopicPartition, time: i64, marks: Watermarks) -> Result<(), Error> {
    if marks.low.0 == 0 || marks.low == marks.high {
        return Ok(());
    }
    let from = FetchFrom { partition: at.clone(), offset: marks.low };
    let limits = FetchLimits { bytes_max: 1, wait_max: OLDEST_WITHIN };
    let batches = match log.fetch(&[from], limits).await {
        // Retention goes on while we look; whatever the oldest one is by now, it is newer.
        Err(headwater_broker::Error::OffsetOutOfRange { .. }) => Vec::new(),
        batches => batches?,
    };
    let oldest = batches.iter().flat_map(|batch| batch.records()).next();
    let (topic, partition, low, high) = (&at.topic, at.partition, marks.low.0, marks.high.0);
    let Some(oldest) = oldest.map(|record| record.timestamp_ms).filter(|oldest| time < *oldest) else { return Ok(()) };
    let oldest = as_text(oldest);
    let why = format!(
        "what was written at {} may have been removed by retention: partition {partition} of `{topic}` holds offsets {low} \
         to {high}, the oldest of {oldest}; name a time from then on, or say `earliest`",
        as_text(time)
    );
    Err(Error::ReplayFrom { why })
}

/// A time, milliseconds since 1970, as people write it.
fn as_text(ms: i64) -> String {
    let mut text = String::new();
    temporal::format_into(&mut text, ValueRef::TimestampTz(ms.saturating_mul(1000)));
    text
}

impl State {
    /// The version whose replay is under way.
    fn replaying(&mut self) -> Option<&mut Version> {
        let is_it = |it: &&mut Version| it.is_building() && it.replay.as_ref().is_some_and(|replay| !replay.is_done());
        self.versions.iter_mut().find(is_it)
    }
}

impl Fold {
    /// Where the replays that are under way go on.
    pub(crate) fn replay_places(&self) -> Vec<FetchFrom> {
        let versions = self.state.versions.iter().filter(|version| version.is_building() && version.plan.is_some());
        let Some(replay) = versions.filter_map(|version| version.replay.as_ref()).find(|it| !it.is_done()) else {
            return Vec::new();
        };
        let parts = replay.parts.iter().filter(|part| part.next < part.end);
        parts
            .map(|part| FetchFrom {
                partition: TopicPartition { topic: part.topic.as_str().into(), partition: part.partition },
                offset: Offset(part.next),
            })
            .collect()
    }

    /// Folds records that are read again for the replay that is under way. An event that is as new as the stored row
    /// replaces it where the two differ; an older one does nothing.
    pub fn replay_batch(&mut self, inputs: &[Input<'_>], letters: &mut Letters<'_>) -> Result<Folded, Error> {
        self.in_order(inputs, letters, Self::replayed)
    }

    fn replayed(&mut self, inputs: &[Input<'_>], letters: &mut Letters<'_>) -> Result<Folded, Error> {
        let began = Instant::now();
        self.step(|state, batch, options| {
            let mut decoded = decode(batch, &mut state.catalog, &options.prefix, inputs)?;
            let offsets = std::mem::take(&mut decoded.offsets);
            let folded = state.fold(batch, options, decoded, Mode::Repair, letters)?;
            fail::fail_point!("projector::replay");
            if let Some(version) = state.replaying() {
                if let Some(replay) = &mut version.replay {
                    for part in &mut replay.parts {
                        if let Some(next) = offsets.get(&(part.topic.clone(), part.partition)) {
                            replay.done += next.min(&part.end).saturating_sub(part.next);
                            part.next = part.next.max(*next);
                        }
                    }
                    replay.spent_ms += u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                }
                version.save_replay(batch)?;
            }
            Ok(folded)
        })
    }

    /// Has the replay that is under way go on at these offsets, or behind them, and keeps in mind what it did not read.
    pub(crate) fn replay_behind(&mut self, lows: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.step(|state, batch, _| {
            let Some(version) = state.replaying() else { return Ok(()) };
            let Some(replay) = &mut version.replay else { return Ok(()) };
            for part in &mut replay.parts {
                let is_it =
                    |(at, _): &&(TopicPartition, Offset)| *at.topic == *part.topic && at.partition == part.partition;
                if let Some((_, low)) = lows.iter().find(is_it) {
                    let missed = low.0.min(part.end).saturating_sub(part.next);
                    replay.done += missed;
                    replay.missed += missed;
                    part.next = part.next.max(low.0);
                }
            }
            version.save_replay(batch)
        })
    }

    /// What the projector tells about its versions.
    pub(crate) fn model_status(&self) -> Result<Vec<ModelStatus>, Error> {
        let batch = self.store.begin()?;
        let lacks = |version: &Version| self.state.late.lacks(&version.model, &self.options.prefix);
        let mut models = Vec::with_capacity(self.state.versions.len());
        for version in &self.state.versions {
            let progress = match (&version.replay, &version.scan) {
                _ if version.is_active() => None,
                (Some(replay), _) if !replay.is_done() => {
                    let seconds = replay.spent_ms as f64 / 1000.0;
                    Some(Progress::new(Phase::Reading, replay.done, replay.total, replay.done, seconds))
                }
                (_, Scan::Waiting) => Some(Progress::new(Phase::Waiting, 0, 0, 0, 0.0)),
                (_, Scan::Running { done, total, started: (since, before), .. }) => {
                    let seconds = since.elapsed().as_secs_f64();
                    Some(Progress::new(Phase::Building, *done, *total, done.saturating_sub(*before), seconds))
                }
                (_, Scan::Counting(_) | Scan::Held(_)) => {
                    let total = batch.row_count(&version.model.root.table)?;
                    Some(Progress::new(Phase::Building, total, total, 0, 0.0))
                }
            };
            let held = match &version.scan {
                Scan::Held(held) => Some(held.problem(&version.model)),
                _ => None,
            };
            models.push(ModelStatus {
                model: version.record.model.clone(),
                version_id: version.record.id.0,
                definition_hash: version.record.definition_hash.clone(),
                state: if version.is_active() { ModelState::Active } else { ModelState::Building },
                documents: batch.document_count(version.record.id)?,
                progress,
                problem: lacks(version).or_else(|| version.problem.clone()).or(held),
                replay_missed: version.replay.as_ref().map_or(0, |replay| replay.missed),
                freshness: None,
            });
        }
        models.sort_by(|a, b| (&a.model, a.version_id).cmp(&(&b.model, b.version_id)));
        Ok(models)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
    use headwater_broker::{AppendBatch, RecordBuffer, Retention, TopicSpec};

    use super::*;

    const TOPIC: &str = "t.shop.public.items";
    const OTHER: &str = "t.shop.public.notes";

    fn at(topic: &str) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition: 0 }
    }

    async fn create(log: &EmbeddedLog, name: &str, age_max: Option<Duration>) {
        let retention = Retention { age_max, ..Retention::default() };
        log.create_topics(&[TopicSpec { name: name.into(), partitions: 1, retention }]).await.unwrap();
    }

    /// Two topics, of batches of two records each that are dated 10, 20 and 30 s after the beginning of 1970.
    async fn dated(folder: &std::path::Path) -> Arc<EmbeddedLog> {
        let maintenance_interval = Duration::from_millis(10);
        let log = EmbeddedLog::open(EmbeddedOptions { maintenance_interval, ..EmbeddedOptions::new(folder) }).unwrap();
        for name in [TOPIC, OTHER] {
            create(&log, name, None).await;
            for seconds in [10, 20, 30] {
                let mut records = RecordBuffer::default();
                for _ in 0..2 {
                    records.push(seconds * 1000, b"key", Some(|out: &mut Vec<u8>| out.push(b'x')));
                }
                log.append(vec![AppendBatch { to: at(name), prelude: Bytes::new(), records }]).await.unwrap();
            }
        }
        log
    }

    async fn planned(log: &EmbeddedLog, from: ReplayFrom) -> Result<Vec<(String, u64, u64)>, Error> {
        let parts = plan(log, &[TOPIC.into(), OTHER.into()], &from).await?;
        let mut parts: Vec<_> = parts.into_iter().map(|part| (part.topic, part.next, part.end)).collect();
        parts.sort();
        Ok(parts)
    }

    fn offset(offset: u64) -> ReplayFrom {
        ReplayFrom::Offsets([(TOPIC.into(), offset)].into())
    }

    fn seconds(seconds: i64) -> ReplayFrom {
        ReplayFrom::Timestamp(seconds * 1000)
    }

    #[track_caller]
    fn refused(planned: Result<Vec<(String, u64, u64)>, Error>, words: &[&str]) {
        let error = planned.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Poison);
        let text = error.to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "`{word}` in: {text}"));
    }

    #[tokio::test]
    async fn what_is_read_begins_where_it_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let log = dated(folder.path()).await;
        for (from, next) in [
            (ReplayFrom::Earliest, (0, 0)),
            // Of the other topic nothing was said.
            (offset(0), (0, 0)),
            (offset(3), (3, 0)),
            (offset(6), (6, 0)),
            (seconds(0), (0, 0)),
            (seconds(11), (2, 2)),
            (seconds(30), (4, 4)),
        ] {
            let wanted = [(TOPIC.to_owned(), next.0, 6), (OTHER.to_owned(), next.1, 6)];
            assert_eq!(planned(&log, from.clone()).await.unwrap(), wanted, "{from:?}");
        }
    }

    #[tokio::test]
    async fn a_place_behind_the_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let log = dated(folder.path()).await;
        let said = ["offset 7 is behind", "partition 0 of `t.shop.public.items`", "0 to 6", "`earliest`"];
        refused(planned(&log, offset(7)).await, &said);
        let said = ["1970-01-01T00:00:31", "t.shop.public.items-0 holds offsets 0 to 6", "`earliest`"];
        refused(planned(&log, seconds(31)).await, &said);
    }

    #[tokio::test]
    async fn a_place_that_retention_removed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let log = dated(folder.path()).await;
        log.commit_offsets("group", &[(at(TOPIC), Offset(4))]).await.unwrap();
        create(&log, TOPIC, Some(Duration::ZERO)).await;
        while log.watermarks(&at(TOPIC)).await.unwrap().low < Offset(4) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let said = ["offset 3 was removed", "partition 0 of `t.shop.public.items`", "4 to 6", "`earliest`"];
        refused(planned(&log, offset(3)).await, &said);
        let said =
            ["1970-01-01T00:00:20", "`t.shop.public.items` holds offsets 4 to 6", "1970-01-01T00:00:30", "`earliest`"];
        refused(planned(&log, seconds(20)).await, &said);
        for (from, next) in [(ReplayFrom::Earliest, (4, 0)), (offset(4), (4, 0)), (seconds(30), (4, 4))] {
            let wanted = [(TOPIC.to_owned(), next.0, 6), (OTHER.to_owned(), next.1, 6)];
            assert_eq!(planned(&log, from.clone()).await.unwrap(), wanted, "{from:?}");
        }
    }
}
