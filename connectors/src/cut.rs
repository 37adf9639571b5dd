//! Events that are too large for the log.
//!
//! The log refuses such an event together with all that is appended with it, and goes on refusing it. So it is carried on
//! without its largest values, as few as it takes: those of the row before are not said, and those of the row after are *lost*,
//! as values are that cannot be represented. A letter tells so. Only what was refused is cut, and only what is larger than what
//! is surely taken: a row is never poorer than it has to be.

use std::cmp::Reverse;
use std::collections::HashSet;

use bytes::Bytes;
use headwater_broker::{AppendBatch, FetchedBatch, Offset, Producer, RecordBuffer};
use headwater_schemas::model::ModelShape;
use headwater_schemas::{DeadLetter, EventRef, Payload, RowBuilder, RowRef, Stage, TableSchema, ValueRef};

use crate::Error;
use crate::session::now_millis;

/// Refused records that are remembered; with one more all are forgotten, and refused again.
const REFUSED_MAX: usize = 1_000;

/// Sizes of the records that the log refused, by topic.
#[derive(Debug, Default)]
pub(crate) struct Refused(HashSet<(String, usize)>);

impl Refused {
    /// Whether an error tells of one that was not refused before, which is noted.
    pub(crate) fn note(&mut self, error: &Error) -> bool {
        let Error::Log(headwater_broker::Error::TooLarge { topic, bytes }) = error else { return false };
        if self.0.len() >= REFUSED_MAX {
            self.0.clear();
        }
        self.0.insert((topic.clone(), *bytes))
    }

    /// Cuts those records of a batch that were refused; answers with letters about what is lost.
    pub(crate) async fn cut(&self, producer: &dyn Producer, batch: &mut AppendBatch) -> Result<Vec<DeadLetter>, Error> {
        let topic = &batch.to.topic;
        let refused: HashSet<usize> =
            self.0.iter().filter(|(of, _)| **of == **topic).map(|(_, bytes)| *bytes).collect();
        if refused.is_empty() {
            return Ok(Vec::new());
        }
        let Some(schema) = TableSchema::from_bytes(&batch.prelude) else { return Ok(Vec::new()) };
        let Some(sizes) = producer.record_sizes(batch).await? else { return Ok(Vec::new()) };
        let is_refused = |bytes: usize| bytes > sizes.max && refused.contains(&bytes);
        if !sizes.bytes.iter().any(|bytes| is_refused(*bytes)) {
            return Ok(Vec::new());
        }
        let records = Bytes::copy_from_slice(batch.records.as_bytes());
        let whole = FetchedBatch::new(batch.to.clone(), Offset(0), Bytes::new(), records, batch.records.count());
        let (mut records, mut letters) = (RecordBuffer::default(), Vec::new());
        for (record, bytes) in whole.records().zip(sizes.bytes) {
            let event = record.value.filter(|_| is_refused(bytes)).and_then(|value| EventRef::decode(value).ok());
            let rest = event.and_then(|event| without_largest(&schema, &event, bytes - sizes.max));
            let Some((rest, lost)) = &rest else {
                let value = record.value.map(|value| move |out: &mut Vec<u8>| out.extend_from_slice(value));
                records.push(record.timestamp_ms, record.key, value);
                continue;
            };
            records.push(record.timestamp_ms, record.key, Some(|out: &mut Vec<u8>| out.extend_from_slice(rest)));
            if let (Some(event), false) = (event, lost.is_empty()) {
                letters.push(letter(&schema, &event, topic, bytes, sizes.max, lost));
            }
        }
        batch.records = records;
        Ok(letters)
    }
}

/// The event without so many bytes, and the columns that are lost; `None` where its keys alone are too large.
fn without_largest(schema: &TableSchema, event: &EventRef<'_>, mut bytes: usize) -> Option<(Vec<u8>, Vec<String>)> {
    let (mut missing, mut lost) = (Vec::new(), Vec::new());
    RowBuilder::new(&mut missing).push(ValueRef::Missing);
    RowBuilder::new(&mut lost).push_lost();
    let key = schema.key_columns();
    let raw = |row: Option<RowRef<'_>>| row.map(|row| row.raw_cells().map(<[u8]>::to_vec).collect::<Vec<_>>());
    let mut images = [raw(event.before), raw(event.after)];
    let mut largest: Vec<(usize, usize, usize)> = Vec::new();
    for (image, cells) in images.iter().enumerate() {
        let cells = cells.iter().flatten().enumerate().filter(|(at, _)| !key.contains(at));
        largest.extend(cells.map(|(at, cell)| (image, at, cell.len())));
    }
    // First what is only said of the row before.
    largest.sort_by_key(|(image, _, len)| (*image, Reverse(*len)));
    let mut columns = Vec::new();
    for (image, at, len) in largest {
        // In its place stands that it is not there, and the column's name.
        let (gone, name) = (len.saturating_sub(64), schema.columns.get(at).map(|column| column.name.to_string())?);
        if bytes == 0 || gone == 0 {
            continue;
        }
        bytes = bytes.saturating_sub(gone.saturating_sub(name.len()));
        if let Some(cells) = &mut images[image] {
            cells[at] = if image == 0 { missing.clone() } else { lost.clone() };
        }
        if image == 1 {
            columns.push(name);
        }
    }
    let [before, after] = images.map(|cells| cells.map(|cells| cells.concat()));
    let (before, after) = (before.as_deref().map(RowRef), after.as_deref().map(RowRef));
    let mut out = Vec::new();
    EventRef { before, after, ..*event }.encode(&mut out);
    (bytes == 0).then_some((out, columns))
}

fn letter(
    schema: &TableSchema,
    event: &EventRef<'_>,
    topic: &str,
    bytes: usize,
    max: usize,
    lost: &[String],
) -> DeadLetter {
    let row = event.after.or(event.before).unwrap_or(RowRef(&[]));
    let key = ModelShape::format_id(schema.key_columns().into_iter().map(|at| row.cell(at)));
    let columns = lost.join(", ");
    DeadLetter {
        stage: Stage::Capture,
        cause: format!(
            "the event of the row of {} with key {key} has {bytes} bytes, and topic `{topic}` takes some {max} of one: it is \
             carried on without {columns}. Raise the topic's `max.message.bytes` and, under `broker.kafka.settings`, \
             `message.max.bytes` and `queue.buffering.max.kbytes` where they are smaller; then update the row",
            schema.table
        ),
        at_millis: now_millis(),
        table: Some(schema.table.to_string()),
        position: Some(event.header.position.to_string()),
        model: None,
        root: None,
        payload: Payload::SourceMessage(String::new()),
    }
}
