//! Whether the log is the one that the offsets in the store count in.
//!
//! A log that was removed, or restored from another time than the store, may end before what the store has applied. Once
//! as much was appended again as was lost, offsets alone do not show it, and the changes in between would be skipped
//! silently. So the store notes which log its offsets count in, and both are compared before anything is appended.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_broker::{EventLog, TopicPartition};
use headwater_store::{ProjectionStore, RowBatch, RowStore};

use crate::Error;
use crate::shared::Agreement;

/// Name of the note of the log's id.
const NOTE: &str = "log";

/// Refuses another log than the one in which the offsets in `store` count. A store that names none, as those of earlier
/// versions, or that has applied nothing, takes this one. To be called before [`crate::start`].
pub async fn check_log(log: &dyn EventLog, store: &dyn ProjectionStore) -> Result<(), Error> {
    let id = log.id().await?;
    let mut batch = store.begin()?;
    if note(&mut *batch, id.as_deref())? {
        batch.commit()?;
    }
    Ok(())
}

/// [`check_log`] of rows that several projectors share, before [`crate::start_shared`].
pub async fn check_shared_log(log: &dyn EventLog, rows: &dyn RowStore) -> Result<(), Error> {
    let id = log.id().await?;
    let mut batch = rows.begin()?;
    if note(&mut *batch, id.as_deref())? {
        batch.commit()?;
    }
    Ok(())
}

/// Has the store name this log. Answers whether that changed something.
fn note<B: RowBatch + ?Sized>(batch: &mut B, id: Option<&str>) -> Result<bool, Error> {
    let Some(id) = id else { return Ok(false) };
    match batch.note(NOTE)? {
        Some(known) if known == id.as_bytes() => return Ok(false),
        Some(known) if !batch.offsets()?.is_empty() || Agreement::exists(batch)? => {
            return Err(Error::OtherLog { known: String::from_utf8_lossy(&known).into_owned(), found: id.to_owned() });
        }
        _ => batch.set_note(NOTE, Some(id.as_bytes()))?,
    }
    Ok(true)
}

/// Refuses a log that ends before what `store` has applied. To be called before anything is captured into it; so for a log
/// inside this process, which nobody else appends to. Elsewhere reading tells, as far as it can.
pub async fn check_ends(log: &dyn EventLog, store: &dyn ProjectionStore) -> Result<(), Error> {
    let applied = store.begin()?.offsets()?;
    let topics: BTreeMap<Arc<str>, u32> = log.topics().await?.into_iter().collect();
    for (topic, partition, next) in applied {
        let place = TopicPartition { topic: topic.as_str().into(), partition };
        let end = match topics.get(topic.as_str()) {
            Some(partitions) if partition < *partitions => log.watermarks(&place).await?.high.0,
            // Here nobody can remove a topic.
            _ => 0,
        };
        if next > end {
            return Err(Error::LogBehind { partition: place, next, end });
        }
    }
    Ok(())
}
