//! Reading topics again, to mend rows and to build a new version of a model from what the log says.
//!
//! Phase one folds the model's records from the wanted place up to where the log ended when the replay began: an event
//! that is as new as the stored row replaces it if the two differ. Phase two builds the new version from the rows, as any
//! new version is built. Both leave notes in the store, so that a restart goes on where the last commit was.

use std::collections::BTreeMap;
use std::time::Instant;

use headwater_broker::{EventLog, FetchFrom, Offset, TopicPartition};

use crate::Error;
use crate::apply::Mode;
use crate::fold::{Fold, Folded, Letters, State};
use crate::records::{Input, decode};
use crate::status::{ModelState, ModelStatus, Phase, Progress};
use crate::version::{ReplayPart, Scan, Version};

/// Where a replay begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// With the oldest record that the log still has.
    Earliest,
    /// At these offsets, by topic, in every partition of it; the model's other topics from the earliest. An offset that
    /// retention has removed is the earliest.
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
    let mut parts = Vec::new();
    for (topic, partitions) in log.topics().await? {
        if !topics.iter().any(|wanted| **wanted == *topic) {
            continue;
        }
        for partition in 0..partitions {
            let place = TopicPartition { topic: topic.clone(), partition };
            let marks = log.watermarks(&place).await?;
            let next = match from {
                ReplayFrom::Earliest => marks.low,
                ReplayFrom::Offsets(offsets) => offsets.get(&*topic).map_or(marks.low, |offset| Offset(*offset)),
                ReplayFrom::Timestamp(at) => log.offset_at(&place, *at).await?,
            };
            let next = next.clamp(marks.low, marks.high);
            parts.push(ReplayPart { topic: topic.to_string(), partition, next: next.0, end: marks.high.0 });
        }
    }
    Ok(parts)
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

    /// Has the replay that is under way go on at these offsets, or behind them.
    pub(crate) fn replay_behind(&mut self, lows: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.step(|state, batch, _| {
            let Some(version) = state.replaying() else { return Ok(()) };
            let Some(replay) = &mut version.replay else { return Ok(()) };
            for part in &mut replay.parts {
                let is_it =
                    |(at, _): &&(TopicPartition, Offset)| *at.topic == *part.topic && at.partition == part.partition;
                if let Some((_, low)) = lows.iter().find(is_it) {
                    replay.done += low.0.min(part.end).saturating_sub(part.next);
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
            };
            models.push(ModelStatus {
                model: version.record.model.clone(),
                version_id: version.record.id.0,
                definition_hash: version.record.definition_hash.clone(),
                state: if version.is_active() { ModelState::Active } else { ModelState::Building },
                documents: batch.document_count(version.record.id)?,
                progress,
                problem: lacks(version).or_else(|| version.problem.clone()),
            });
        }
        models.sort_by(|a, b| (&a.model, a.version_id).cmp(&(&b.model, b.version_id)));
        Ok(models)
    }
}
