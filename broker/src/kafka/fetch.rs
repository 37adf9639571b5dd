//! Reading records.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headwater_schemas::SchemaFingerprint;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Inner;
use super::lane::Stop;
use super::readers::Reader;
use super::topics::blocking;
use crate::{Error, FetchFrom, FetchLimits, FetchedBatch, TopicPartition};

/// How long a fetch that begins anew in some partition waits for the cluster's first answer about it, even if the caller
/// would not wait: before that answer it is not known whether there is anything.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(1);

/// Looks again at least this often, whatever wakes it.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

const ACTION: &str = "read records";

/// A reader in use, given back when dropped.
struct Borrowed<'a> {
    inner: &'a Inner,
    reader: Option<Reader>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.inner.readers.put(reader);
        }
    }
}

/// What stands in the way of some partitions. Of several of a kind one is told; the others stay with their lanes.
#[derive(Default)]
struct Obstacles {
    /// The one that has waited longest.
    wants: Option<(TopicPartition, SchemaFingerprint, u64, Instant)>,
    out_of_range: Option<TopicPartition>,
    failed: Option<(TopicPartition, KafkaError)>,
}

/// Reads what there is, or waits for it. What was read and not handed out stays with its reader, so that a dropped fetch
/// loses nothing.
pub(super) async fn fetch(
    inner: &Arc<Inner>,
    from: &[FetchFrom],
    limits: FetchLimits,
) -> Result<Vec<FetchedBatch>, Error> {
    let begun = Instant::now();
    let deadline = begun.checked_add(limits.wait_max).unwrap_or(begun + Duration::from_secs(86_400));
    let reader = match inner.readers.take(from) {
        Some(reader) => reader,
        None => Reader::new(&inner.options, &inner.cluster, from.len())?,
    };
    let mut borrowed = Borrowed { inner, reader: Some(reader) };
    let reader = borrowed.reader.as_mut().expect("it was just put there");
    let anew: Vec<FetchFrom> = from.iter().filter(|from| !reader.stands_at(from)).cloned().collect();
    if !anew.is_empty() {
        check_range(inner, anew).await?;
    }
    if let Err(error) = reader.arrange(from) {
        // Nobody knows what it reads now.
        borrowed.reader = None;
        return Err(inner.cluster.error(ACTION, error));
    }
    let mut looked_for_schema = false;
    loop {
        let mut obstacles = Obstacles::default();
        let ready = prepare(inner, reader, from, &mut obstacles);
        // After that: what is ready is whole up to where nothing strayed.
        let complaint = match reader.complaint() {
            Ok(complaint) => complaint,
            Err(stray) => {
                borrowed.reader = None;
                return Err(inner.engine(ACTION, stray));
            }
        };
        let answered = from.iter().all(|from| reader.lane(&from.partition).is_none_or(|lane| lane.has_answered()));
        let waited_enough = answered || begun.elapsed() >= FIRST_ANSWER_MAX;
        if let Some((partition, schema, offset, since)) = obstacles.wants.clone()
            && !looked_for_schema
        {
            looked_for_schema = true;
            // Before it is looked for: what comes meanwhile is found.
            let waited = since.elapsed() > inner.options.schema_wait;
            let schemas = Arc::clone(&inner.schemas);
            let is_there = blocking(move || schemas.read_on()).await?;
            if waited && inner.schemas.known(schema).is_none() {
                if !is_there {
                    return Err(inner.schemas.unknown(&partition, offset, schema));
                }
                if let Some(lane) = reader.lane(&partition) {
                    lane.give_up(&inner.schemas.why_unreadable(schema));
                }
            }
            continue;
        }
        // Before what is ready, which stays with the reader: a partition that always has something would else hide that
        // another is not read any more.
        if let Some(partition) = obstacles.out_of_range {
            return out_of_range(inner, reader, from, &partition, limits.bytes_max).await;
        }
        if let Some((partition, error)) = obstacles.failed {
            reader.forget(&partition);
            let inner = Arc::clone(inner);
            return blocking(move || Err(inner.topics.explain(&partition, ACTION, error))).await;
        }
        if ready && waited_enough {
            return Ok(take(inner, reader, from, limits.bytes_max));
        }
        if !ready {
            if let Some(error) = complaint {
                // A connection that breaks is made again; only that there is none left is told.
                let none_left = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
                let error = inner.cluster.error(ACTION, error);
                let refused = matches!(error, Error::Credentials { .. } | Error::Forbidden { .. });
                if refused || (none_left && Instant::now() >= deadline) {
                    return Err(error);
                }
            }
            if waited_enough && Instant::now() >= deadline {
                from.iter().for_each(|from| {
                    if let Some(lane) = reader.lane(&from.partition) {
                        lane.wait_no_longer();
                    }
                });
                return Ok(Vec::new());
            }
        }
        let until = if waited_enough { deadline } else { begun + FIRST_ANSWER_MAX };
        let wait = until.saturating_duration_since(Instant::now()).min(LOOK_INTERVAL);
        let wait = if obstacles.wants.is_some() { wait.min(Duration::from_millis(50)) } else { wait };
        looked_for_schema = false;
        // A dropped wait loses at most a wake-up that nobody waits for.
        drop(tokio::time::timeout(wait.max(Duration::from_millis(1)), reader.wake.notified()).await);
    }
}

/// Lets every partition get a batch ready; whether any has.
fn prepare(inner: &Inner, reader: &mut Reader, from: &[FetchFrom], obstacles: &mut Obstacles) -> bool {
    let mut ready = false;
    for from in from {
        let Some(lane) = reader.lane(&from.partition) else { continue };
        let partition = || from.partition.clone();
        match lane.prepare(&inner.schemas) {
            Ok(()) => ready = true,
            Err(Stop::Nothing) => {}
            Err(Stop::Wants { schema, offset, since }) => {
                if obstacles.wants.as_ref().is_none_or(|(_, _, _, longest)| since < *longest) {
                    obstacles.wants = Some((partition(), schema, offset, since));
                }
            }
            Err(Stop::OutOfRange) => obstacles.out_of_range = Some(partition()),
            Err(Stop::Failed(error)) => obstacles.failed = Some((partition(), error)),
        }
    }
    ready
}

/// Hands out what is ready, and what can be made so without waiting, fairly among partitions.
fn take(inner: &Inner, reader: &mut Reader, from: &[FetchFrom], bytes_max: usize) -> Vec<FetchedBatch> {
    let turn = turn(inner, from.len());
    let mut lanes: Vec<(&TopicPartition, usize)> =
        from[turn..].iter().chain(&from[..turn]).map(|from| (&from.partition, 0)).collect();
    let (mut gathered, mut fetched) = (0, Vec::new());
    // The partition that has had least is next: fair in bytes, whatever the sizes of the batches.
    while gathered < bytes_max || fetched.is_empty() {
        let Some(at) = (0..lanes.len()).min_by_key(|at| lanes[*at].1) else { break };
        let lane = reader.lane(lanes[at].0);
        match lane.and_then(|lane| lane.prepare(&inner.schemas).ok().and_then(|()| lane.take())) {
            Some(batch) => {
                lanes[at].1 += batch.byte_len();
                gathered += batch.byte_len();
                fetched.push(batch);
            }
            None => {
                lanes.remove(at);
            }
        }
    }
    inner.metrics.fetched_bytes.inc_by(gathered as u64);
    fetched
}

/// Where a fetch starts, so that what does not fit is not always of the same partition; scattered, as several consumers
/// that fetch in turns would else meet the same partition each time.
fn turn(inner: &Inner, partitions: usize) -> usize {
    let fetches = inner.fetches.fetch_add(1, Ordering::Relaxed);
    let scattered = fetches.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    scattered as usize % partitions.max(1)
}

async fn check_range(inner: &Arc<Inner>, from: Vec<FetchFrom>) -> Result<(), Error> {
    let inner = Arc::clone(inner);
    blocking(move || {
        for FetchFrom { partition, offset } in from {
            inner.topics.require(&partition)?;
            let marks = inner.watermarks(&partition)?;
            if offset < marks.low || offset > marks.high {
                let (wanted, low, high) = (offset.0, marks.low.0, marks.high.0);
                return Err(Error::OffsetOutOfRange { partition, wanted, low, high });
            }
        }
        Ok(())
    })
    .await
}

/// Says what is there instead of what a reader wanted.
async fn out_of_range(
    inner: &Arc<Inner>,
    reader: &mut Reader,
    from: &[FetchFrom],
    partition: &TopicPartition,
    bytes_max: usize,
) -> Result<Vec<FetchedBatch>, Error> {
    let wanted: Vec<FetchFrom> = from.iter().filter(|from| from.partition == *partition).cloned().collect();
    reader.forget(partition);
    check_range(inner, wanted).await?;
    // By now it is there again: an election moved the end of the log for a moment. The next fetch begins anew there.
    Ok(take(inner, reader, from, bytes_max))
}
