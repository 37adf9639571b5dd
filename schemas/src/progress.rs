//! How far a source has been captured: the heartbeat that tells "idle" from "stale".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::SourcePosition;

/// Written by the connector to [`progress_topic`] after its events, also when there are none. Everything the source
/// committed up to `position` stands in the log below `watermarks`: whoever has read every listed partition up to there
/// has seen it all. (Events of one source are spread over many topics, so no single offset could say this.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProgress {
    /// Everything up to here is in the log.
    #[serde(with = "position_text")]
    pub position: SourcePosition,
    /// Source time to which the log is complete, microseconds since 1970-01-01T00:00:00Z.
    pub at_micros: i64,
    /// Whether the initial snapshot is complete.
    pub snapshot_done: bool,
    /// Per topic the next offset of each partition, for the topics that got events since the connector started.
    pub watermarks: BTreeMap<String, Vec<u64>>,
}

/// The topic of a source's progress: `prefix.source.__progress`, one partition, of which only the newest record matters.
pub fn progress_topic(prefix: &str, source: &str) -> String {
    format!("{prefix}.{source}.__progress")
}

mod position_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::SourcePosition;

    pub(super) fn serialize<S: Serializer>(position: &SourcePosition, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(position)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SourcePosition, D::Error> {
        let text = String::deserialize(from)?;
        SourcePosition::parse(&text).ok_or_else(|| D::Error::custom("expected epoch/commit/ordinal"))
    }
}
