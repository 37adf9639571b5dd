//! The checkpoints of producers, and who opened each name last: a compacted topic, keyed by what and whose.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};

use super::Inner;
use super::client::Context;
use crate::{Error, Offset, TopicPartition, Watermarks};

/// By when a successor that has shut us out has claimed the name, too.
const SUCCESSOR_MAX: Duration = Duration::from_secs(3);

/// Says who opened a name.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    id: Arc<[u8]>,
    /// What lies before is of earlier sessions; what lies from here on and is not ours is of a successor.
    since: u64,
}

impl Claim {
    /// A new one, to be written from here on. Blocks.
    pub(super) fn new(inner: &Inner) -> Result<Self, Error> {
        let since = written(inner, &sees_all(inner)?)?.high.0;
        let id = format!("{}/{}", inner.opened.holder, uuid::Uuid::now_v7());
        Ok(Self { id: id.into_bytes().into(), since })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.id
    }
}

pub(super) fn claim_key(producer: &str) -> Vec<u8> {
    format!("claim/{producer}").into_bytes()
}

pub(super) fn checkpoint_key(producer: &str) -> Vec<u8> {
    format!("checkpoint/{producer}").into_bytes()
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Last {
    /// With its offset.
    claim: Option<(u64, Bytes)>,
    checkpoint: Option<Bytes>,
}

/// Our own claim is not where it was written.
#[derive(Debug, thiserror::Error)]
#[error("{0} does not hold what this producer wrote when it was opened: was that topic made anew?")]
struct ClaimGone(TopicPartition);

/// The checkpoint of a name that is ours. Blocks.
pub(super) fn checkpoint(inner: &Inner, producer: &str, ours: &Claim) -> Result<Option<Bytes>, Error> {
    let last = last(inner, producer, inner.watermarks(&inner.checkpoints)?)?;
    match last.claim {
        Some((_, claim)) if *claim == *ours.id => Ok(last.checkpoint),
        Some((at, _)) if at >= ours.since => Err(Error::Fenced { producer: producer.into() }),
        // A checkpoint that is read without it may be an old one, or none although there is one.
        _ => Err(inner.engine("read a checkpoint", ClaimGone(inner.checkpoints.clone()))),
    }
}

/// Searches back from the end in growing steps: what is wanted was written lately, as a rule. Blocks.
fn last(inner: &Inner, producer: &str, marks: Watermarks) -> Result<Last, Error> {
    let (claim, checkpoint) = (claim_key(producer), checkpoint_key(producer));
    let mut back = 2000;
    loop {
        let from = marks.low.0.max(marks.high.0.saturating_sub(back));
        let mut last = Last::default();
        if from < marks.high.0 {
            inner.scanner.scan(&inner.checkpoints, from, marks.high.0, |message| {
                let value = message.payload().unwrap_or_default();
                if message.key() == Some(&*claim) {
                    last.claim = Some((message.offset() as u64, Bytes::copy_from_slice(value)));
                } else if message.key() == Some(&*checkpoint) {
                    last.checkpoint = message.payload().map(Bytes::copy_from_slice);
                }
            })?;
        }
        if from == marks.low.0 || (last.claim.is_some() && last.checkpoint.is_some()) {
            return Ok(last);
        }
        back *= 8;
    }
}

/// Whether another has a name that was ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    No,
    /// There is a claim of which nobody can say yet whether it holds, or nothing can be read.
    Unknown,
}

/// Whether another has opened the name since `ours`. The cluster shuts out whoever is stopped for longer than a
/// transaction may take, too: then there is no other claim, and the name can be opened again. Blocks, and waits for a
/// moment, since a successor shuts out first and claims then.
pub(super) fn is_taken(inner: &Inner, producer: &str, ours: &Claim) -> Taken {
    look_for_others(inner, producer, ours).unwrap_or_else(|error| {
        tracing::debug!(producer, %error, "it cannot be read who opened a producer last");
        Taken::Unknown
    })
}

fn look_for_others(inner: &Inner, producer: &str, ours: &Claim) -> Result<Taken, Error> {
    let (key, place, sees_all) = (claim_key(producer), &inner.checkpoints, sees_all(inner)?);
    let is_other = |message: &BorrowedMessage<'_>| {
        message.key() == Some(&*key) && message.payload().is_some_and(|claim| *claim != *ours.id)
    };
    let deadline = Instant::now() + SUCCESSOR_MAX;
    let mut from = ours.since;
    // Where others claim the name in transactions that may be open.
    let mut claims: Vec<u64> = Vec::new();
    loop {
        let marks = written(inner, &sees_all)?;
        from = from.max(marks.low.0);
        if from < marks.high.0 {
            let note = |message: &BorrowedMessage<'_>| {
                if is_other(message) {
                    claims.push(message.offset() as u64);
                }
            };
            inner.scanner.scan_by(&sees_all, place, from, marks.high.0, note)?;
            from = marks.high.0;
        }
        if let Some(first) = claims.first() {
            // The transaction of any producer hides from readers what is committed behind its first record.
            let visible = inner.scanner.watermarks(place)?.map_or(0, |marks| marks.high.0);
            let mut holds = false;
            if visible > *first {
                inner.scanner.scan(place, *first, visible, |message| holds |= is_other(message))?;
            }
            if holds {
                return Ok(Taken::Yes);
            }
            claims.retain(|at| *at >= visible);
        }
        if Instant::now() > deadline {
            return Ok(if claims.is_empty() { Taken::No } else { Taken::Unknown });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A consumer of what is written, committed or not.
fn sees_all(inner: &Inner) -> Result<BaseConsumer<Context>, Error> {
    let mut config = inner.options.reader(&inner.options.reader_group());
    config.set("isolation.level", "read_uncommitted");
    let consumer = config.create_with_context(Context(Arc::clone(&inner.cluster)));
    consumer.map_err(|error| inner.cluster.error("open a client", error))
}

/// Where the checkpoints begin and end for who sees all.
fn written(inner: &Inner, sees_all: &BaseConsumer<Context>) -> Result<Watermarks, Error> {
    let marks = sees_all.fetch_watermarks(&inner.checkpoints.topic, 0, inner.options.request_timeout);
    let (low, high) = marks.map_err(|error| inner.cluster.error("read where a partition ends", error))?;
    Ok(Watermarks { low: Offset(low.max(0) as u64), high: Offset(high.max(0) as u64) })
}

/// Whoever was shut out, and could not tell by whom, must not open the name again before that is known: it would shut out
/// its successor.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<Arc<str>, Claim>>);

/// It is not known whether a name is taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "producer `{0}` was shut out, and whether another process has taken it over cannot be seen yet: a transaction is open \
     in {1}, or it cannot be read; it is asked again"
)]
pub(super) struct Doubtful(Arc<str>, TopicPartition);

impl Doubts {
    /// Notes that it is not known whether another has the name.
    pub(super) fn note(&self, inner: &Inner, producer: &Arc<str>, ours: &Claim) -> Doubtful {
        self.0.lock().insert(Arc::clone(producer), ours.clone());
        Doubtful(Arc::clone(producer), inner.checkpoints.clone())
    }

    /// Fails unless the name may be opened. Blocks.
    pub(super) fn settle(&self, inner: &Inner, producer: &Arc<str>) -> Result<(), Error> {
        let Some(ours) = self.0.lock().get(producer).cloned() else { return Ok(()) };
        let taken = is_taken(inner, producer, &ours);
        if taken == Taken::Unknown {
            let doubtful = Doubtful(Arc::clone(producer), inner.checkpoints.clone());
            return Err(inner.engine("open a producer", doubtful));
        }
        self.0.lock().remove(producer);
        match taken {
            Taken::Yes => Err(inner.opened.lost(producer)),
            _ => Ok(()),
        }
    }
}

/// The names that this process has opened. Whoever was stopped, or asleep, while another took a name over must not take it
/// back, whatever it finds broken first, its source or its producer: the two would shut each other out in turns.
pub(super) struct Opened {
    /// Begins the claims of this process.
    holder: uuid::Uuid,
    /// Where the last claim of each was about to be written.
    since: Mutex<HashMap<Arc<str>, u64>>,
}

impl Opened {
    pub(super) fn new() -> Self {
        Self { holder: uuid::Uuid::now_v7(), since: Mutex::default() }
    }

    pub(super) fn note(&self, producer: &Arc<str>, ours: &Claim) {
        self.since.lock().insert(Arc::clone(producer), ours.since);
    }

    /// Fails, once, when another process has opened the name since this one did. Blocks.
    pub(super) fn settle(&self, inner: &Inner, producer: &Arc<str>) -> Result<(), Error> {
        let Some(since) = self.since.lock().get(producer).copied() else { return Ok(()) };
        // What readers do not see yet keeps nobody from opening the name: that may be what ends an open transaction.
        let Some(marks) = inner.scanner.watermarks(&inner.checkpoints)? else { return Ok(()) };
        let own = self.holder.to_string();
        match last(inner, producer, marks)?.claim {
            Some((at, claim)) if at >= since && !claim.starts_with(own.as_bytes()) => Err(self.lost(producer)),
            _ => Ok(()),
        }
    }

    /// Who asks again after this wants the name back.
    fn lost(&self, producer: &str) -> Error {
        self.since.lock().remove(producer);
        Error::Fenced { producer: producer.into() }
    }
}
