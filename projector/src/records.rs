//! Records of the log into events by table. What cannot be read becomes a dead letter and holds nothing up.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_broker::{FetchedBatch, Offset, RecordRef};
use headwater_schemas::{
    DeadLetter, EventHeader, EventRef, Op, Payload, RowRef, SourcePosition, SourceProgress, Stage, TableId, TableSchema,
};
use headwater_store::{RowBatch, SchemaId};

use crate::Error;
use crate::apply::RowEvent;
use crate::catalog::Catalog;
use crate::clock::now_ms;
use crate::truncations::Truncation;

/// Some consecutive records of a fetched batch.
#[derive(Clone, Copy, Debug)]
pub struct Input<'b> {
    /// The batch.
    pub batch: &'b FetchedBatch,
    /// Records passed over at its start.
    pub skip: usize,
    /// Records taken after those, at most.
    pub take: usize,
}

impl<'b> Input<'b> {
    /// All records of a batch.
    pub fn whole(batch: &'b FetchedBatch) -> Self {
        Self { batch, skip: 0, take: batch.count() as usize }
    }

    /// The records.
    pub(crate) fn records(&self) -> impl Iterator<Item = RecordRef<'b>> + use<'b> {
        self.batch.records().skip(self.skip).take(self.take)
    }

    /// Those that are events.
    fn events(&self) -> impl Iterator<Item = EventRef<'b>> + use<'b> {
        self.records().filter_map(|record| event(&record))
    }

    /// The headers of those that are events.
    pub(crate) fn headers(&self) -> impl Iterator<Item = EventHeader> + use<'b> {
        self.events().map(|event| event.header)
    }

    /// Where reading goes on behind these records: behind what follows the last of a batch, such as marks of transactions.
    pub(crate) fn next(&self) -> Offset {
        match self.skip.saturating_add(self.take) >= self.batch.count() as usize {
            true => self.batch.next(),
            false => Offset(self.batch.base.0 + (self.skip + self.take) as u64),
        }
    }

    /// When the last of these records was written, milliseconds since 1970.
    pub(crate) fn written_at(&self) -> Option<i64> {
        self.records().last().map(|record| record.timestamp_ms)
    }
}

/// Gives the records of these batches to `each`, in micro-batches of at most so many events.
pub(crate) fn micro_batches<'b>(
    batches: &'b [FetchedBatch],
    events_max: usize,
    mut each: impl FnMut(&[Input<'b>]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut inputs: Vec<Input<'b>> = Vec::new();
    let mut room = events_max.max(1);
    for batch in batches {
        let mut skip = 0;
        let count = batch.count() as usize;
        if count == 0 {
            // Nothing but a place behind records that are not for us, such as the marks of transactions.
            inputs.push(Input::whole(batch));
        }
        while skip < count {
            let take = (count - skip).min(room);
            inputs.push(Input { batch, skip, take });
            (skip, room) = (skip + take, room - take);
            if room == 0 {
                each(&inputs)?;
                inputs.clear();
                room = events_max.max(1);
            }
        }
    }
    if inputs.is_empty() { Ok(()) } else { each(&inputs) }
}

/// Two smaller batches of one that has several records. The first goes first: no record of a partition overtakes another.
pub(crate) fn divided<'b>(inputs: &[Input<'b>]) -> (Vec<Input<'b>>, Vec<Input<'b>>) {
    // Of a partition with several runs of records only the first is taken.
    let mut seen = BTreeSet::new();
    let (first, later): (Vec<Input<'b>>, Vec<Input<'b>>) =
        inputs.iter().copied().partition(|input| seen.insert(input.batch.from.clone()));
    if !later.is_empty() {
        return (first, later);
    }
    if first.iter().all(|input| input.take <= 1) {
        let (one, others) = first.split_at(first.len() / 2);
        return (one.to_vec(), others.to_vec());
    }
    let half = |input: &Input<'b>| input.take.div_ceil(2);
    let front = first.iter().map(|input| Input { take: half(input), ..*input }).collect();
    let back =
        first.iter().map(|input| Input { skip: input.skip + half(input), take: input.take - half(input), ..*input });
    (front, back.filter(|input| input.take > 0).collect())
}

/// How many records these are.
pub(crate) fn record_count(inputs: &[Input<'_>]) -> usize {
    inputs.iter().map(|input| input.take).sum()
}

/// Events of a micro-batch.
#[derive(Debug, Default)]
pub(crate) struct Decoded<'b> {
    pub(crate) rows: BTreeMap<TableId, Vec<RowEvent<'b>>>,
    pub(crate) truncates: BTreeMap<TableId, Vec<Truncation>>,
    /// Newest progress of each source.
    pub(crate) progress: BTreeMap<String, SourceProgress>,
    pub(crate) letters: Vec<DeadLetter>,
    /// Next offset by topic and partition.
    pub(crate) offsets: BTreeMap<(String, u32), u64>,
    pub(crate) events: u64,
    /// Commit times of the source transactions, microseconds since 1970; snapshot reads have none.
    pub(crate) committed_at: Vec<i64>,
    /// Greatest of all commit times.
    pub(crate) latest_at: i64,
}

/// Source whose progress a topic holds: `prefix.source.__progress`.
pub(crate) fn progress_source<'t>(prefix: &str, topic: &'t str) -> Option<&'t str> {
    topic.strip_prefix(prefix)?.strip_prefix('.')?.strip_suffix(".__progress")
}

/// The ends of partitions up to which a snapshot was read that is told of now, in progress that follows other progress: of
/// all tables where one was still being read before, or else of those that are new.
pub(crate) fn read_anew(before: Option<&SourceProgress>, now: &SourceProgress) -> Vec<(String, u32, u64)> {
    let before = before.filter(|before| before.snapshot_done);
    let is_new = |topic: &String| before.is_none_or(|before| !before.watermarks.contains_key(topic));
    let topics = now.watermarks.iter().filter(|(topic, _)| now.snapshot_done && is_new(topic));
    topics
        .flat_map(|(topic, ends)| (0u32..).zip(ends).map(|(partition, end)| (topic.clone(), partition, *end)))
        .collect()
}

fn event<'b>(record: &RecordRef<'b>) -> Option<EventRef<'b>> {
    EventRef::decode(record.value?).ok()
}

/// The truncations of tables among these records.
pub(crate) fn truncates(inputs: &[Input<'_>]) -> BTreeMap<TableId, Vec<Truncation>> {
    let mut found: BTreeMap<TableId, Vec<Truncation>> = BTreeMap::new();
    for input in inputs {
        let partition = input.batch.from.partition;
        let mut truncations = input.events().filter_map(|event| Truncation::of(&event, partition)).peekable();
        if truncations.peek().is_some()
            && let Some(schema) = TableSchema::from_bytes(&input.batch.prelude)
        {
            found.entry(schema.table).or_default().extend(truncations);
        }
    }
    found
}

/// The records before the first truncation of each partition, and the others.
pub(crate) fn before_truncations<'b>(inputs: &[Input<'b>]) -> (Vec<Input<'b>>, Vec<Input<'b>>) {
    let (mut before, mut rest) = (Vec::new(), Vec::new());
    let mut met = BTreeSet::new();
    for input in inputs {
        let is_truncate = |record: RecordRef<'_>| event(&record).is_some_and(|event| event.header.op == Op::Truncate);
        let front = match met.contains(&input.batch.from) {
            true => Some(0),
            false => input.records().position(is_truncate),
        };
        let Some(front) = front else {
            before.push(*input);
            continue;
        };
        met.insert(input.batch.from.clone());
        if front > 0 {
            before.push(Input { take: front, ..*input });
        }
        rest.push(Input { skip: input.skip + front, take: input.take - front, ..*input });
    }
    (before, rest)
}

/// Decodes all inputs; schemas that are new are stored.
pub(crate) fn decode<'b>(
    batch: &mut dyn RowBatch,
    catalog: &mut Catalog,
    prefix: &str,
    inputs: &[Input<'b>],
) -> Result<Decoded<'b>, Error> {
    let mut out = Decoded::default();
    for input in inputs {
        let from = &input.batch.from;
        out.offsets.insert((from.topic.to_string(), from.partition), input.next().0);
        let mut seen = 0;
        let records = input.batch.records().inspect(|_| seen += 1).skip(input.skip).take(input.take);
        if let Some(source) = progress_source(prefix, &from.topic) {
            for record in records {
                match record.value.map(serde_json::from_slice::<SourceProgress>) {
                    Some(Ok(progress)) => {
                        out.progress.insert(source.to_string(), progress);
                    }
                    _ => out.letters.push(letter(input.batch, &record, None, "this is no progress record")),
                }
            }
            continue;
        }
        match catalog.schema_of(batch, &input.batch.prelude)? {
            Some(schema) => events(batch, catalog, input, schema, records, &mut out)?,
            None => {
                let cause = input.batch.why_unreadable().unwrap_or(
                    "the batch of this record does not say which table it is of; was it written by Headwater?",
                );
                out.letters.extend(records.map(|record| letter(input.batch, &record, None, cause)));
            }
        }
        if seen < input.batch.count() as usize && seen < input.skip + input.take {
            return Err(Error::Log(headwater_broker::Error::Damaged {
                place: from.to_string(),
                what: format!("a batch at offset {} ends after {seen} of its records", input.batch.base.0),
            }));
        }
    }
    Ok(out)
}

fn events<'b>(
    batch: &mut dyn RowBatch,
    catalog: &mut Catalog,
    input: &Input<'b>,
    schema: SchemaId,
    records: impl Iterator<Item = RecordRef<'b>>,
    out: &mut Decoded<'b>,
) -> Result<(), Error> {
    let described = catalog.schema(schema).clone();
    let columns = described.columns.len();
    let rows = out.rows.entry(described.table.clone()).or_default();
    let mut newest: Option<SourcePosition> = None;
    let mut transaction = None;
    for record in records {
        // A record without value only says that earlier records of its key may go.
        let Some(value) = record.value else { continue };
        out.events += 1;
        let event = match EventRef::decode(value) {
            Ok(event) => event,
            Err(error) => {
                out.letters.push(letter(input.batch, &record, Some((&described.table, None)), &error.to_string()));
                continue;
            }
        };
        let header = event.header;
        let sound = |row: Option<RowRef<'_>>| row.is_none_or(|row| row.is_well_formed(columns));
        let fault = if !sound(event.before) || !sound(event.after) {
            Some("its row does not have the cells of its table's schema")
        } else if record.key.is_empty() && !matches!(header.op, Op::Truncate | Op::Schema) {
            Some("it has no key: give the table a primary key")
        } else if event.after.is_none() && matches!(header.op, Op::Create | Op::Update | Op::Read) {
            Some("it is not a delete and has no row")
        } else {
            None
        };
        if let Some(fault) = fault {
            let place = (&described.table, Some(header.position));
            out.letters.push(letter(input.batch, &record, Some(place), &format!("malformed change event: {fault}")));
            continue;
        }
        newest = newest.max(Some(header.position));
        out.latest_at = out.latest_at.max(header.committed_at_micros);
        if header.op != Op::Read && header.op != Op::Schema && transaction != Some(header.transaction) {
            transaction = Some(header.transaction);
            out.committed_at.push(header.committed_at_micros);
        }
        match header.op {
            Op::Schema => {}
            Op::Truncate => {
                let truncation = Truncation::of(&event, input.batch.from.partition);
                out.truncates.entry(described.table.clone()).or_default().extend(truncation);
            }
            Op::Create | Op::Update | Op::Read | Op::Delete => rows.push(RowEvent {
                key: record.key,
                position: header.position,
                schema,
                row: event.after.filter(|_| header.op != Op::Delete),
                before: event.before,
                batch: input.batch,
                offset: record.offset,
            }),
        }
    }
    if let Some(newest) = newest {
        catalog.seen(batch, schema, newest)?;
    }
    Ok(())
}

/// The letter about a record.
pub(crate) fn letter(
    batch: &FetchedBatch,
    record: &RecordRef<'_>,
    place: Option<(&TableId, Option<SourcePosition>)>,
    cause: &str,
) -> DeadLetter {
    let from = &batch.from;
    let is_large = |value: &[u8]| value.len() > DeadLetter::PAYLOAD_MAX;
    DeadLetter {
        stage: Stage::Decode,
        cause: cause.to_string(),
        at_millis: now_ms(),
        table: place.map(|(table, _)| table.to_string()),
        position: place.and_then(|(_, position)| position).map(|position| position.to_string()),
        model: None,
        root: None,
        payload: Payload::Record {
            topic: from.topic.to_string(),
            partition: from.partition,
            offset: record.offset.0,
            prelude: STANDARD.encode(&batch.prelude),
            key: STANDARD.encode(record.key),
            value: record.value.filter(|value| !is_large(value)).map(|value| STANDARD.encode(value)),
            value_bytes: record.value.filter(|value| is_large(value)).map(|value| value.len() as u64),
        },
    }
}
