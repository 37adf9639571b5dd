//! The checkpoints of producers, and who opened each name last: a compacted topic, keyed by what and whose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::message::Message;

use super::Inner;
use crate::Error;

/// Says who opened a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim(Arc<[u8]>);

impl Claim {
    pub(super) fn new() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into_bytes().into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
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
pub(super) struct Last {
    pub(super) claim: Option<Claim>,
    pub(super) checkpoint: Option<Bytes>,
}

/// Searches back from the end in growing steps: what is wanted was written lately, as a rule. Blocks.
pub(super) fn last(inner: &Inner, producer: &str) -> Result<Last, Error> {
    let (claim, checkpoint) = (claim_key(producer), checkpoint_key(producer));
    let marks = inner.watermarks(&inner.checkpoints)?;
    let mut back = 2000;
    loop {
        let from = marks.low.0.max(marks.high.0.saturating_sub(back));
        let mut last = Last::default();
        if from < marks.high.0 {
            inner.scanner.scan(&inner.checkpoints, from, marks.high.0, |message| {
                let value = message.payload().unwrap_or_default();
                if message.key() == Some(&*claim) {
                    last.claim = Some(Claim(value.into()));
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

/// Whether another has opened the name since `ours` was written. The cluster shuts out whoever is stopped for longer than
/// a transaction may take, too: then there is no other claim, and the name can be opened again. Blocks, and waits for a
/// moment, since a successor shuts out first and claims then.
pub(super) fn is_taken(inner: &Inner, producer: &str, ours: &Claim) -> bool {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let claim = last(inner, producer).ok().and_then(|last| last.claim);
        if claim.is_some_and(|claim| claim != *ours) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
