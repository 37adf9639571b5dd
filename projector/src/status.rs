//! What the projector tells about itself.

use std::collections::BTreeMap;

use headwater_broker::{Offset, TopicPartition};
use serde::Serialize;

use crate::clock::now_ms;
use crate::fresh::Freshness;
use crate::times::Times;

/// The projector at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProjectorStatus {
    /// Versions that serve or are being built, by model.
    pub models: Vec<ModelStatus>,
    /// Partitions that are read.
    pub consumers: Vec<ConsumerStatus>,
    /// Dead letters that were not resolved by a retry.
    pub dead_letters: u64,
    /// Events read since the start.
    pub events_total: u64,
    /// Micro-batches committed since the start.
    pub batches_total: u64,
    /// Documents created, changed and deleted since the start.
    pub documents_written_total: u64,
    /// The last error that is being retried, or that ended the projector; `None` once a batch went well again.
    pub last_error: Option<String>,
}

/// One version of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelStatus {
    /// Name of the model.
    pub model: String,
    /// Id of the version.
    pub version_id: u32,
    /// Hash of its definition.
    pub definition_hash: String,
    /// Whether it serves.
    pub state: ModelState,
    /// Its documents.
    pub documents: u64,
    /// How far it is built; `None` once it serves.
    pub progress: Option<Progress>,
    /// Why it cannot be built, or stays as it is (the model does not fit its tables), or does not take over (too many of its
    /// documents cannot be built).
    pub problem: Option<String>,
    /// Records of the replay that made it which retention removed before they were read: it is as the rows are, and what
    /// those records would have mended in them is not mended.
    pub replay_missed: u64,
    /// How soon changes were readable in it of late; `None` where there were none since the start.
    pub freshness: Option<Freshness>,
}

/// What a version does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// Being filled beside the one that serves, if any.
    Building,
    /// Served.
    Active,
}

/// How far a version is built.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Records read, or rows scanned.
    pub done: u64,
    /// Of how many, about.
    pub total: u64,
    /// How many a second, on average since the phase began or the process started.
    pub per_second: f64,
    /// How long the phase takes from now, if it goes on like that; `None` while that cannot be said.
    pub remaining_seconds: Option<f64>,
}

/// What is done to build a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Tables are not known yet, the sources' snapshots are not complete, or join indexes are being filled.
    Waiting,
    /// A replay reads topics again.
    Reading,
    /// Documents are built from the rows.
    Building,
}

/// One partition that is read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsumerStatus {
    /// The consumer group that reads it.
    pub group: String,
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: u32,
    /// Next offset to be folded.
    pub offset: u64,
    /// Next offset to be written to the log.
    pub high: u64,
    /// Records between the two.
    pub lag: u64,
    /// The same in time: seconds between the record that was folded last, or the first to be folded, and the newest one; 0
    /// without lag, `None` before a record was met.
    pub lag_seconds: Option<f64>,
}

impl ConsumerStatus {
    /// Of the places that a group reads, from where reading goes on, and where they ended a moment ago.
    pub(crate) fn all<'p>(
        group: &str,
        places: impl Iterator<Item = (&'p TopicPartition, &'p Offset)>,
        ends: &BTreeMap<TopicPartition, Offset>,
        times: &mut Times,
    ) -> Vec<Self> {
        let now = now_ms();
        let one = |(place, offset): (&TopicPartition, &Offset)| {
            // More was read since.
            let high = ends.get(place).copied().unwrap_or_default().max(*offset);
            let lag = high.0.saturating_sub(offset.0);
            Self {
                group: group.to_owned(),
                topic: place.topic.to_string(),
                partition: place.partition,
                offset: offset.0,
                high: high.0,
                lag,
                lag_seconds: times.lag_seconds(place, *offset, high, now),
            }
        };
        places.map(one).collect()
    }
}

impl Progress {
    /// From how much was done of how much, and how much of that in how many seconds.
    pub(crate) fn new(phase: Phase, done: u64, total: u64, done_in: u64, seconds: f64) -> Self {
        let per_second = if seconds > 0.0 { done_in as f64 / seconds } else { 0.0 };
        let left = total.saturating_sub(done) as f64;
        let remaining_seconds = (per_second > 0.0).then_some(left / per_second);
        Self { phase, done, total: total.max(done), per_second, remaining_seconds }
    }
}
