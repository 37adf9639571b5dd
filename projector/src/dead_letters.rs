//! Dead letters: written beside the log, read again, and retried.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headwater_broker::{
    AppendBatch, EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, RecordBuffer, TopicPartition, TopicSpec,
};
use headwater_schemas::{DeadLetter, Payload, Stage, dead_letter_topic};
use serde::Serialize;

use crate::Error;
use crate::apply::Mode;
use crate::clock::now_ms;
use crate::fold::{Fold, Letters};
use crate::found::FoundLetters;
use crate::keys::KeySet;
use crate::records::{Input, decode, progress_source};
use crate::resolved::Resolved;
use crate::told::Told;

/// Characters of a payload that are listed.
const LISTED_MAX: usize = 8 << 10;

/// A dead letter and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedLetter {
    /// Its offset in the topic of dead letters.
    pub offset: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// What a retry did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetryOutcome {
    /// Letters tried again.
    pub retried: u64,
    /// Of those, processed now, or named although no model here wants them any more; they are no longer listed.
    pub resolved: u64,
    /// Of those, failed as before; they stay listed.
    pub failed: u64,
    /// Of those, put in line in the log for the workers that share a projection; they are no longer listed. A document
    /// that fails again is a letter of its own then.
    pub queued: u64,
    /// Letters that the projector cannot try again; they stay listed. What they are about, the source must send anew.
    pub skipped: u64,
    /// Of those, records of the log. The others are values that the connector could not represent.
    pub skipped_records: u64,
    /// Letters about models and tables that this projector does not have; they stay listed, for the projector that has.
    #[serde(skip_serializing_if = "is_zero")]
    pub elsewhere: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RetryOutcome {
    /// One about what this projector does not have: it is left to the projector that has, unless it was `named`. Then nobody
    /// may want it any more, and it is done with.
    pub(crate) fn leave(&mut self, named: bool, offset: u64, resolved: &mut Vec<u64>) {
        if named {
            (self.retried, self.resolved) = (self.retried + 1, self.resolved + 1);
            resolved.push(offset);
        } else {
            self.elsewhere += 1;
        }
    }

    /// Counts a letter that cannot be tried again.
    pub(crate) fn skip(&mut self, letter: &DeadLetter) {
        self.skipped += 1;
        self.skipped_records += u64::from(matches!(letter.payload, Payload::Record { .. }));
    }
}

/// Writes dead letters; makes their topic with the first one.
pub(crate) struct LetterBox {
    log: Arc<dyn EventLog>,
    place: TopicPartition,
    /// Whether the topic is known to be there.
    made: bool,
    /// What need not be written again; `None`: everything is.
    told: Option<Told>,
}

impl LetterBox {
    /// One that writes each letter it is given.
    pub(crate) fn new(log: Arc<dyn EventLog>, prefix: &str) -> Self {
        Self { log, place: place(prefix), made: false, told: None }
    }

    /// One of a projector that nobody else retries letters for: a document that fails again and again, with each change of
    /// its rows, has one letter for a while.
    pub(crate) fn of_one(log: Arc<dyn EventLog>, prefix: &str) -> Self {
        Self { told: Some(Told::default()), ..Self::new(log, prefix) }
    }

    /// From here on each letter is written once more: those that are there may be resolved.
    pub(crate) fn forget_told(&mut self) {
        self.told = self.told.take().map(|_| Told::default());
    }

    /// Appends what has not been told lately; durable when answered.
    pub(crate) async fn append(&mut self, letters: &[DeadLetter]) -> Result<(), Error> {
        let is_new = |letter: &&DeadLetter| self.told.as_ref().is_none_or(|told| !told.has(letter));
        let letters: Vec<&DeadLetter> = letters.iter().filter(is_new).collect();
        if letters.is_empty() {
            return Ok(());
        }
        if !self.made {
            let topic = self.place.topic.clone();
            if !self.log.topics().await?.iter().any(|(name, _)| *name == topic) {
                self.log.create_topics(&[TopicSpec::dead_letters(topic)]).await?;
            }
            self.made = true;
        }
        let mut records = RecordBuffer::default();
        for letter in &letters {
            let json = serde_json::to_vec(letter).expect("a letter has only string keys");
            records.push(now_ms(), &[], Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
        }
        let batch = AppendBatch { to: self.place.clone(), prelude: Bytes::new(), records };
        // A letter may be there twice; that a projector writes it which was taken over meanwhile does no harm either.
        self.log.append(vec![batch]).await?;
        if let Some(told) = &mut self.told {
            letters.into_iter().for_each(|letter| told.add(letter));
        }
        Ok(())
    }
}

/// Letters that were counted, resolved ones and those of others included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    letters: u64,
    /// Where counting began: what was before had been removed.
    first: Offset,
    /// Behind the last one.
    next: Offset,
}

impl Counted {
    /// How many are not among those that were resolved, of which some may have been removed before they were counted.
    pub(crate) fn unresolved(&self, resolved: &Resolved) -> u64 {
        self.letters.saturating_sub(resolved.count_from(self.first.0))
    }
}

/// Counts dead letters.
#[derive(Debug)]
pub(crate) struct LetterCount {
    place: TopicPartition,
    counted: Option<Counted>,
}

impl LetterCount {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { place: place(prefix), counted: None }
    }

    /// All letters; none when there is no topic yet. Letters that retention removes are counted until the next start.
    /// `topics` are those of the log. A dropped call has counted nothing.
    pub(crate) async fn bring_up_to_date(
        &mut self,
        log: &dyn EventLog,
        topics: &[(Arc<str>, u32)],
    ) -> Result<Counted, Error> {
        if !topics.iter().any(|(name, _)| *name == self.place.topic) {
            return Ok(Counted::default());
        }
        let marks = match (log.watermarks(&self.place).await, self.counted) {
            (Ok(marks), _) => marks,
            // The end of a topic with a transaction under way may not be known: it was counted lately.
            (Err(error), Some(counted)) if error.kind() == headwater_broker::ErrorKind::Retryable => {
                return Ok(counted);
            }
            (Err(error), _) => return Err(error.into()),
        };
        let mut counted = self.counted.unwrap_or(Counted { letters: 0, first: marks.low, next: marks.low });
        counted.next = counted.next.max(marks.low);
        // Offsets alone do not tell: some are taken by marks of transactions.
        while counted.next < marks.high {
            let batches = fetch(log, &self.place, counted.next).await?;
            let Some(last) = batches.last() else { break };
            counted.next = last.next();
            counted.letters += batches.iter().map(|batch| u64::from(batch.count())).sum::<u64>();
        }
        self.counted = Some(counted);
        Ok(counted)
    }
}

fn place(prefix: &str) -> TopicPartition {
    TopicPartition { topic: dead_letter_topic(prefix).into(), partition: 0 }
}

/// Offset of the first letter that retention has left; 0 where the log cannot tell now.
pub(crate) async fn first_left(log: &dyn EventLog, prefix: &str) -> u64 {
    log.watermarks(&place(prefix)).await.map_or(0, |marks| marks.low.0)
}

/// Letters from an offset on; where retention has removed that meanwhile, from the first that is left.
async fn fetch(log: &dyn EventLog, place: &TopicPartition, from: Offset) -> Result<Vec<FetchedBatch>, Error> {
    let limits = FetchLimits { bytes_max: 4 << 20, wait_max: Duration::from_millis(100) };
    let mut offset = from;
    loop {
        match log.fetch(&[FetchFrom { partition: place.clone(), offset }], limits).await {
            Err(headwater_broker::Error::OffsetOutOfRange { low, .. }) if low > offset.0 => offset = Offset(low),
            fetched => return Ok(fetched?),
        }
    }
}

/// Letters, a fetch at a time and oldest first, up to where they ended when it began. Their payloads are
/// [shortened](DeadLetter::shorten): there may be very many.
pub(crate) struct Pages {
    place: TopicPartition,
    next: Offset,
    end: Offset,
}

impl Pages {
    /// All that are there.
    pub(crate) async fn of_all(log: &dyn EventLog, prefix: &str) -> Result<Self, Error> {
        let place = place(prefix);
        let is_there = log.topics().await?.iter().any(|(name, _)| *name == place.topic);
        let (next, end) = match is_there {
            true => log.watermarks(&place).await.map(|marks| (marks.low, marks.high))?,
            false => (Offset(0), Offset(0)),
        };
        Ok(Self { place, next, end })
    }

    /// Some more, without those that were resolved, of which there may be none; `None`: that was all.
    pub(crate) async fn next(
        &mut self,
        log: &dyn EventLog,
        resolved: &Resolved,
    ) -> Result<Option<Vec<ListedLetter>>, Error> {
        if self.next >= self.end {
            return Ok(None);
        }
        let batches = fetch(log, &self.place, self.next).await?;
        let Some(last) = batches.last() else { return Ok(None) };
        self.next = last.next();
        let mut letters = Vec::new();
        for record in batches.iter().flat_map(FetchedBatch::records) {
            if record.offset >= self.end || resolved.contains(record.offset.0) {
                continue;
            }
            let letter: Option<DeadLetter> = record.value.and_then(|value| serde_json::from_slice(value).ok());
            if let Some(mut letter) = letter {
                letter.shorten(LISTED_MAX);
                letters.push(ListedLetter { offset: record.offset.0, letter });
            }
        }
        Ok(Some(letters))
    }
}

/// The newest letters, at most `limit`, without those that were resolved; oldest first.
pub(crate) async fn list(
    log: &dyn EventLog,
    prefix: &str,
    resolved: &Resolved,
    limit: usize,
) -> Result<Vec<ListedLetter>, Error> {
    let mut pages = Pages::of_all(log, prefix).await?;
    // Twice as far: every letter may be followed by the mark of its transaction.
    let back = (limit as u64).saturating_add(resolved.count_from(pages.next.0)).saturating_mul(2);
    pages.next = pages.next.max(Offset(pages.end.0.saturating_sub(back)));
    let mut newest = Vec::new();
    while let Some(letters) = pages.next(log, resolved).await? {
        newest.extend(letters);
        let surplus = newest.len().saturating_sub(limit);
        newest.drain(..surplus);
    }
    Ok(newest)
}

/// A listed letter with all of its record, which is read from the letter itself or, where it is too large for one, from
/// where it stood. `None`: it is not there any more.
pub(crate) async fn whole(
    log: &dyn EventLog,
    prefix: &str,
    listed: &ListedLetter,
) -> Result<Option<ListedLetter>, Error> {
    let mut whole = listed.clone();
    let Payload::Record { value: value @ None, value_bytes: Some(_), topic, partition, offset, prelude, key } =
        &mut whole.letter.payload
    else {
        return Ok(Some(whole));
    };
    let letter = value_at(log, place(prefix), listed.offset, None).await?;
    let letter: Option<DeadLetter> = letter.and_then(|json| serde_json::from_slice(&json).ok());
    if let Some(DeadLetter { payload: Payload::Record { value: Some(_), .. }, .. }) = &letter {
        return Ok(letter.map(|letter| ListedLetter { letter, ..*listed }));
    }
    let at = TopicPartition { topic: topic.as_str().into(), partition: *partition };
    let Some(found) = value_at(log, at, *offset, Some((prelude, key))).await? else { return Ok(None) };
    *value = Some(STANDARD.encode(found));
    Ok(Some(whole))
}

/// The value of one record, if it is there and has this prelude and key: a topic may have been made anew since.
async fn value_at(
    log: &dyn EventLog,
    partition: TopicPartition,
    offset: u64,
    wanted: Option<(&String, &String)>,
) -> Result<Option<Vec<u8>>, Error> {
    let from = [FetchFrom { partition, offset: Offset(offset) }];
    let limits = FetchLimits { bytes_max: 1, wait_max: Duration::from_millis(100) };
    let batches = match log.fetch(&from, limits).await {
        Err(
            headwater_broker::Error::OffsetOutOfRange { .. }
            | headwater_broker::Error::UnknownTopic { .. }
            | headwater_broker::Error::UnknownPartition { .. },
        ) => return Ok(None),
        fetched => fetched?,
    };
    let records = batches.iter().flat_map(|batch| batch.records().map(move |record| (batch, record)));
    let found = { records }.find(|(_, record)| record.offset.0 == offset).filter(|(batch, record)| {
        wanted.is_none_or(|(prelude, key)| {
            STANDARD.encode(&batch.prelude) == *prelude && STANDARD.encode(record.key) == *key
        })
    });
    Ok(found.and_then(|(_, record)| record.value.map(<[u8]>::to_vec)))
}

impl Fold {
    /// The letters that were resolved.
    pub(crate) fn resolved_letters(&self) -> Result<Resolved, Error> {
        Resolved::load(&*self.store.begin()?)
    }

    /// Notes that these letters were resolved, and answers with all that were, from the first that is left in the log on.
    pub(crate) fn mark_resolved(&mut self, offsets: &[u64], first_left: u64) -> Result<Resolved, Error> {
        self.step(|_, batch, _| Resolved::mark(batch, offsets, first_left))
    }

    /// Whether a letter is about a model or a table that is projected here: those of all projectors of a prefix lie in one
    /// topic.
    pub(crate) fn has(&self, letter: &DeadLetter) -> bool {
        match (&letter.payload, &letter.model) {
            (Payload::Record { topic, .. }, _) => match progress_source(&self.options.prefix, topic) {
                Some(source) => self.sources().iter().any(|known| known == source),
                None => self.topics().contains(topic) || self.offsets().keys().any(|(read, _)| read == topic),
            },
            (Payload::Root(_), Some(model)) => self.state.versions.iter().any(|it| it.record.model == *model),
            (Payload::Root(_), None) | (Payload::SourceMessage(_), _) => true,
        }
    }

    /// Tries a letter again, in a commit of its own, and tells whether it went well, which is not noted; `None` when the
    /// projector has no way to. Documents that its record makes impossible are `append`ed as letters of their own.
    pub(crate) fn retry(&mut self, listed: &ListedLetter, append: &mut Letters<'_>) -> Result<Option<bool>, Error> {
        let mut failed = 0_u64;
        let bytes = |text: &String| STANDARD.decode(text).ok();
        match &listed.letter.payload {
            Payload::SourceMessage(_) => return Ok(None),
            Payload::Record { topic, partition, offset, prelude, key, value, .. } => {
                let (Some(prelude), Some(key)) = (bytes(prelude), bytes(key)) else { return Ok(None) };
                let Some(value) = value.as_ref().and_then(bytes) else { return Ok(None) };
                let mut records = RecordBuffer::default();
                records.push(listed.letter.at_millis, &key, Some(|out: &mut Vec<u8>| out.extend_from_slice(&value)));
                let from = TopicPartition { topic: topic.as_str().into(), partition: *partition };
                let records = Bytes::copy_from_slice(records.as_bytes());
                let batch = FetchedBatch::new(from, Offset(*offset), prelude.into(), records, 1);
                let mut letters = |found: &[DeadLetter]| {
                    let (of_documents, others): (Vec<DeadLetter>, Vec<DeadLetter>) =
                        found.iter().cloned().partition(|letter| letter.stage == Stage::Project);
                    failed += others.len() as u64;
                    if of_documents.is_empty() { Ok(()) } else { append(&of_documents) }
                };
                // Its offset has been passed. A row that was too large is there, as old as the event: it counts again.
                self.in_order(&[Input::whole(&batch)], &mut letters, |fold, inputs, letters| {
                    fold.step(|state, batch, options| {
                        let decoded = decode(batch, &mut state.catalog, &options.prefix, inputs)?;
                        state.fold(batch, options, decoded, Mode::Repair, letters)
                    })
                })?;
            }
            Payload::Root(root) => {
                let (Some(root), Some(model)) = (bytes(root), &listed.letter.model) else { return Ok(None) };
                self.step(|state, batch, _| {
                    // The letter that is tried again says it already.
                    let mut known = |_: &[DeadLetter]| Ok(());
                    let mut again = FoundLetters::new(&mut known);
                    for at in 0..state.versions.len() {
                        let version = &state.versions[at];
                        if version.record.model == *model && version.follows(&root) {
                            let mut dirty = KeySet::default();
                            dirty.push(&root);
                            let as_of = state.as_of(at, 0);
                            state.build(batch, at, dirty, as_of, &mut again)?;
                        }
                    }
                    failed += again.finish()?;
                    Ok(())
                })?;
            }
        }
        Ok(Some(failed == 0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use async_trait::async_trait;
    use headwater_broker::{Membership, Producer, Watermarks};
    use parking_lot::Mutex;

    use super::*;

    const LOW: u64 = 6;
    const HIGH: u64 = 10;

    fn letter() -> DeadLetter {
        let payload = Payload::Root(String::new());
        let cause = "a fault".to_owned();
        let (table, position, model, root) = (None, None, None, None);
        DeadLetter { stage: Stage::Project, cause, at_millis: 0, table, position, model, root, payload }
    }

    /// A log whose letters were all there when it was asked for its ends, and of which the first were removed when they
    /// are read.
    #[derive(Default)]
    struct Overtaken {
        made: Mutex<Vec<TopicSpec>>,
    }

    type Answer<T> = Result<T, headwater_broker::Error>;

    #[async_trait]
    impl EventLog for Overtaken {
        async fn create_topics(&self, specs: &[TopicSpec]) -> Answer<()> {
            self.made.lock().extend_from_slice(specs);
            Ok(())
        }

        async fn topics(&self) -> Answer<Vec<(Arc<str>, u32)>> {
            Ok(self.made.lock().iter().map(|spec| (spec.name.clone(), spec.partitions)).collect())
        }

        async fn producer(&self, _name: &str) -> Answer<Arc<dyn Producer>> {
            unreachable!("letters are appended under no name")
        }

        async fn append(&self, _batches: Vec<AppendBatch>) -> Answer<()> {
            Ok(())
        }

        async fn fetch(&self, from: &[FetchFrom], _limits: FetchLimits) -> Answer<Vec<FetchedBatch>> {
            let FetchFrom { partition, offset } = from[0].clone();
            if offset.0 < LOW {
                let (wanted, low, high) = (offset.0, LOW, HIGH);
                return Err(headwater_broker::Error::OffsetOutOfRange { partition, wanted, low, high });
            }
            let json = serde_json::to_vec(&letter()).unwrap();
            let mut records = RecordBuffer::default();
            for _ in offset.0..HIGH {
                records.push(0, &[], Some(|out: &mut Vec<u8>| out.extend_from_slice(&json)));
            }
            let bytes = Bytes::copy_from_slice(records.as_bytes());
            Ok(vec![FetchedBatch::new(partition, offset, Bytes::new(), bytes, records.count())])
        }

        async fn watermarks(&self, _partition: &TopicPartition) -> Answer<Watermarks> {
            Ok(Watermarks { low: Offset(0), high: Offset(HIGH) })
        }

        async fn offset_at(&self, _partition: &TopicPartition, _timestamp_ms: i64) -> Answer<Offset> {
            unreachable!("letters are found by their offsets")
        }

        async fn commit_offsets(&self, _group: &str, _offsets: &[(TopicPartition, Offset)]) -> Answer<()> {
            unreachable!("letters are read by no group")
        }

        async fn committed_offsets(&self, _group: &str) -> Answer<Vec<(TopicPartition, Offset)>> {
            unreachable!("letters are read by no group")
        }

        async fn join(&self, _group: &str, _topics: &[Arc<str>]) -> Answer<Box<dyn Membership>> {
            unreachable!("letters are read by no group")
        }
    }

    #[tokio::test]
    async fn letters_do_not_fill_the_log_and_those_that_are_left_are_told() {
        let log = Arc::new(Overtaken::default());
        LetterBox::new(log.clone(), "t").append(&[letter()]).await.unwrap();
        let made = log.made.lock().clone();
        let bounds: Vec<_> = made.iter().map(|spec| (&*spec.name, spec.retention.bytes_max)).collect();
        assert_eq!(bounds, [("t.__dead_letters", Some(1 << 30))]);

        let topics = log.topics().await.unwrap();
        let mut count = LetterCount::new("t");
        assert_eq!(count.bring_up_to_date(&*log, &topics).await.unwrap().letters, HIGH - LOW);
        let listed = list(&*log, "t", &Resolved::default(), 100).await.unwrap();
        let offsets = |letters: &[ListedLetter]| letters.iter().map(|letter| letter.offset).collect::<Vec<u64>>();
        assert_eq!(offsets(&listed), [6, 7, 8, 9]);
        let newest = list(&*log, "t", &Resolved::from_iter([8]), 2).await.unwrap();
        assert_eq!(offsets(&newest), [7, 9]);

        // What comes while they are gone through is not of them.
        let (mut pages, resolved) = (Pages::of_all(&*log, "t").await.unwrap(), Resolved::from_iter([7]));
        pages.end = Offset(9);
        assert_eq!(offsets(&pages.next(&*log, &resolved).await.unwrap().unwrap()), [6, 8]);
        assert_eq!(pages.next(&*log, &resolved).await.unwrap(), None);
    }

    #[test]
    fn what_was_resolved_and_removed_since_does_not_count() {
        let counted = Counted { letters: 3, first: Offset(10), next: Offset(13) };
        assert_eq!(counted.unresolved(&Resolved::default()), 3);
        assert_eq!(counted.unresolved(&Resolved::from_iter([2, 3, 9])), 3);
        assert_eq!(counted.unresolved(&Resolved::from_iter([9, 10, 12])), 1);
    }
}
