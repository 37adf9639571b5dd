//! Removing what may go, in slices between the writes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::compaction::Compaction;
use super::core::Core;
use super::tables::{PartitionId, group_partition};
use super::transaction::{Failure, Transaction};
use super::writer::PreludeNumbers;
use crate::{Error, Retention};

/// A slice ends when it has looked at this many batches, or at this many bytes of records: writes wait for one slice.
pub(super) const SLICE_BATCHES: usize = 256;
pub(super) const SLICE_BYTES: u64 = 16 << 20;

/// When to look for work, and the work of the pass under way.
pub(super) struct Maintenance {
    interval: Duration,
    due: Instant,
    partitions: VecDeque<(PartitionId, Retention)>,
    /// Of the partition in front.
    compaction: Option<Compaction>,
}

/// Whether a partition needs another slice.
#[derive(PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

impl Maintenance {
    pub(super) fn new(interval: Duration) -> Self {
        // Without a pause there would be nothing but maintenance.
        let interval = interval.max(Duration::from_millis(1));
        Self { interval, due: after(interval), partitions: VecDeque::new(), compaction: None }
    }

    /// When the next pass begins.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Begins a pass over all partitions if it is time. Answers whether a pass is under way.
    pub(super) fn pending(&mut self, core: &Core) -> bool {
        if self.partitions.is_empty() && Instant::now() >= self.due {
            self.due = after(self.interval);
            for topic in core.topics.read().by_name.values() {
                if topic.retention != Retention::default() {
                    let ids = (0..topic.partitions).map(|partition| PartitionId::new(topic.number, partition));
                    self.partitions.extend(ids.map(|id| (id, topic.retention.clone())));
                }
            }
        }
        !self.partitions.is_empty()
    }

    /// Does one slice in its own transaction. A failure ends the pass; the next one tries again.
    pub(super) fn slice(&mut self, core: &Core, numbers: &mut PreludeNumbers) {
        match self.try_slice(core, numbers) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => {
                self.partitions.pop_front();
                self.compaction = None;
            }
            Err(error) => {
                tracing::warn!(log = %core.place, %error, "retention stopped until its next pass");
                self.partitions.clear();
                self.compaction = None;
            }
        }
    }

    fn try_slice(&mut self, core: &Core, numbers: &mut PreludeNumbers) -> Result<Progress, Error> {
        let Some((id, retention)) = self.partitions.front() else { return Ok(Progress::Done) };
        let failed = |failure| match failure {
            Failure::Refused(error) => error,
            Failure::Aborted(cause) => core.engine("remove old records", cause),
        };
        let mut transaction = Transaction::begin(core, numbers).map_err(|e| failed(e.into()))?;
        let now_ms = now_ms();
        let progress = match retention.compact {
            true => Compaction::slice(&mut self.compaction, &mut transaction, *id, retention, now_ms),
            false => transaction.remove_old(*id, retention, now_ms),
        };
        let progress = progress.map_err(failed)?;
        transaction.commit().map_err(|e| failed(e.into()))?;
        Ok(progress)
    }
}

/// The time this long from now, or in years if that is beyond what the clock can say.
pub(super) fn after(duration: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + YEARS)
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    // A clock before 1970 makes everything young, so nothing is removed.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Records with a timestamp below this are older than the age.
pub(super) fn oldest_ms(age_max: Option<Duration>, now_ms: i64) -> i64 {
    let age_ms = age_max.and_then(|age| i64::try_from(age.as_millis()).ok());
    age_ms.map_or(i64::MIN, |age_ms| now_ms.saturating_sub(age_ms))
}

impl Transaction<'_> {
    /// Removes whole batches from the low end of a partition.
    fn remove_old(&mut self, id: PartitionId, retention: &Retention, now_ms: i64) -> Result<Progress, Failure> {
        let oldest_ms = oldest_ms(retention.age_max, now_ms);
        let bytes_max = retention.bytes_max.unwrap_or(u64::MAX);
        let unread = self.committed_by_all(id)?;
        let row = *self.load(id)?;
        let (mut bytes, mut old) = (row.bytes, Vec::new());
        let mut progress = Progress::Done;
        for entry in self.batches(id, row.low)? {
            let (base, batch) = entry?;
            let aged = batch.timestamp_max < oldest_ms;
            let crowded = bytes - batch.bytes.min(bytes) >= bytes_max;
            if base + u64::from(batch.count) > unread || !(aged || crowded) {
                break;
            }
            if old.len() == SLICE_BATCHES || row.bytes - bytes >= SLICE_BYTES {
                progress = Progress::More;
                break;
            }
            bytes -= batch.bytes.min(bytes);
            old.push((base, batch));
        }
        for (base, batch) in old {
            self.remove(id, base, batch)?;
            self.load(id)?.low = base + u64::from(batch.count);
        }
        Ok(progress)
    }

    /// The offset below which every consumer group that commits on this partition has read; the greatest if there is
    /// none.
    pub(super) fn committed_by_all(&self, id: PartitionId) -> heed::Result<u64> {
        let mut lowest: HashMap<PartitionId, u64> = HashMap::new();
        for entry in self.core.tables.groups.iter(&self.txn)? {
            let (key, offset) = entry?;
            if let Some(partition) = group_partition(key) {
                let known = lowest.entry(partition).or_insert(offset);
                *known = offset.min(*known);
            }
        }
        Ok(lowest.get(&id).copied().unwrap_or(u64::MAX))
    }
}
