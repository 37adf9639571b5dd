//! Events on their way into the log.

use bytes::Bytes;
use headwater_broker::{AppendBatch, RecordBuffer};
use headwater_schemas::{DeadLetter, EventHeader};

use crate::route::Route;

/// Events gathered for one append, in one buffer per table partition.
///
/// The source fills it and says at which points it may be appended ([`Self::cut`]): after a commit, or in the middle of
/// a transaction once another event of it is known to follow, so that the last event of a transaction can still be
/// marked when the commit arrives.
#[derive(Debug, Default)]
pub struct Gathered {
    pub(crate) batches: Vec<AppendBatch>,
    /// Per topic and partition the batch being filled and the schema it is for.
    open: Vec<Option<OpenBatch>>,
    bytes: usize,
    events: u64,
    snapshot_rows: u64,
    pub(crate) dead_letters: Vec<DeadLetter>,
    last_event_at_micros: Option<i64>,
    /// The batch that got the last event, while that may yet turn out to be the last of its transaction.
    last: Option<usize>,
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct OpenBatch {
    batch: usize,
    schema_id: usize,
}

/// Where a batch closes: whichever comes first.
const BYTES_MAX: usize = 4 << 20;
const EVENTS_MAX: u64 = 50_000;

impl Gathered {
    /// Puts one event in: `write` writes its value, `key` is its record key. `committed_at_micros` is for the record's
    /// timestamp.
    pub fn push(
        &mut self,
        route: &Route,
        partition: u32,
        key: &[u8],
        committed_at_micros: i64,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let at = self.batch_for(route, partition);
        let records = &mut self.batches[at].records;
        let before = records.byte_len();
        records.push(committed_at_micros.div_euclid(1000), key, Some(write));
        self.bytes += records.byte_len() - before;
        self.events += 1;
        self.last = Some(at);
        self.last_event_at_micros = Some(committed_at_micros);
        self.cut = false;
    }

    /// Puts in a whole buffer of `rows` snapshot rows.
    pub fn push_rows(&mut self, route: &Route, partition: u32, records: RecordBuffer) {
        self.bytes += records.byte_len();
        self.events += u64::from(records.count());
        self.snapshot_rows += u64::from(records.count());
        self.open_slot(route, partition).take();
        self.batches.push(AppendBatch { to: route.partition(partition), prelude: route.prelude.clone(), records });
    }

    /// Puts in a dead letter.
    pub fn push_dead_letter(&mut self, letter: DeadLetter) {
        self.bytes += 512;
        self.dead_letters.push(letter);
    }

    /// Marks the event put in last as the last of its transaction, if it is still here.
    pub fn mark_last_in_transaction(&mut self) {
        if let Some(at) = self.last.take() {
            EventHeader::mark_last_in_transaction(self.batches[at].records.last_value_mut());
        }
    }

    /// Says that what is in may be appended as it is.
    pub fn cut(&mut self) {
        self.cut = true;
    }

    /// Whether it should be appended before more is put in.
    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX || self.events >= EVENTS_MAX
    }

    /// Whether it may be appended and there is something to append.
    pub(crate) fn is_ready(&self) -> bool {
        self.cut && !self.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.dead_letters.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn snapshot_rows(&self) -> u64 {
        self.snapshot_rows
    }

    pub(crate) fn last_event_at_micros(&self) -> Option<i64> {
        self.last_event_at_micros
    }

    /// Takes everything out and leaves an empty one.
    pub(crate) fn take(&mut self) -> Self {
        let mut open = std::mem::take(&mut self.open);
        open.fill(None);
        std::mem::replace(self, Self { open, ..Self::default() })
    }

    fn open_slot(&mut self, route: &Route, partition: u32) -> &mut Option<OpenBatch> {
        let slot = route.topic_id * route.partitions as usize + partition as usize;
        if slot >= self.open.len() {
            self.open.resize(slot + 1, None);
        }
        &mut self.open[slot]
    }

    fn batch_for(&mut self, route: &Route, partition: u32) -> usize {
        let next = self.batches.len();
        let slot = self.open_slot(route, partition);
        match *slot {
            // A changed schema opens a new batch behind the old one: records of a partition keep their order.
            Some(open) if open.schema_id == route.schema_id => open.batch,
            _ => {
                *slot = Some(OpenBatch { batch: next, schema_id: route.schema_id });
                self.batches.push(AppendBatch {
                    to: route.partition(partition),
                    prelude: Bytes::clone(&route.prelude),
                    records: RecordBuffer::default(),
                });
                next
            }
        }
    }
}
