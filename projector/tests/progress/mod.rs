//! The record that says how far a source is captured.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_broker::{FetchedBatch, Offset, RecordBuffer, TopicPartition};
use headwater_schemas::{SourcePosition, SourceProgress, progress_topic};

/// Says that all that source `shop` has up to a position is in the log, which ends there, by topic.
pub(crate) fn progress(prefix: &str, position: SourcePosition, watermarks: BTreeMap<String, Vec<u64>>) -> FetchedBatch {
    of(prefix, SourceProgress { position, at_micros: 1_000_000, snapshot_done: true, watermarks })
}

/// Says this of source `shop`.
pub(crate) fn of(prefix: &str, progress: SourceProgress) -> FetchedBatch {
    let json = serde_json::to_vec(&progress).expect("it is plain values");
    let mut records = RecordBuffer::default();
    records.push(1, &[], Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
    let place = TopicPartition { topic: progress_topic(prefix, "shop").into(), partition: 0 };
    FetchedBatch::new(place, Offset(0), Bytes::new(), Bytes::copy_from_slice(records.as_bytes()), 1)
}
