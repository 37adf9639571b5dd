//! What a record looks like on the wire.
//!
//! * A change event is Debezium's JSON (`headwater_schemas::codec::debezium`), its key the primary key as JSON:
//!   `{"id":7}`. Header `headwater.schema` is the fingerprint of its schema, `headwater.op` the letter of its operation.
//!   An event without a row of its own (truncate, schema) has no key, or its operation as one where the topic is to be
//!   compacted, since Kafka demands a key there.
//! * What says that a table has a schema (operation `s`) is none of Debezium's operations, and some of its readers stop at
//!   one that they do not know. So it has no value, and header `headwater.event` is its JSON. Where the topic is to be
//!   compacted it is a value all the same, as it was everywhere in earlier versions: without one it would be removed.
//! * An event that JSON cannot hold exactly travels in its binary form, `headwater.encoding` says `binary`, and its key is
//!   the binary key. It is rare (a row whose bytes are not the cells of its schema), and it must neither be lost nor hold
//!   up what is behind it: the projector makes it a dead letter.
//! * A tombstone has key and `headwater.schema`, and no value.
//! * Every other record (progress, dead letters) travels as it is. What all records of its batch share is in header
//!   `headwater.prelude`, if there is anything.
//! * `headwater.timestamp` has a time that Kafka's own cannot say, one before 1970.

use std::sync::Arc;

use headwater_schemas::codec::debezium::{self, EventReader, SourceInfo, key_from_json};
use headwater_schemas::{EventRef, Op, SchemaFingerprint};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};

use super::headers;
use super::schemas::Described;
use crate::batch::Records;
use crate::{Offset, RecordBuffer, RecordRef};

const SCHEMA: &str = "headwater.schema";
const OP: &str = "headwater.op";
const ENCODING: &str = "headwater.encoding";
const EVENT: &str = "headwater.event";
const PRELUDE: &str = "headwater.prelude";
const TIMESTAMP: &str = "headwater.timestamp";
const BINARY: &[u8] = b"binary";

const OPS: [Op; 6] = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Schema];

/// A record ready to be sent.
pub(super) struct Outgoing<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) timestamp_ms: i64,
    pub(super) headers: Option<OwnedHeaders>,
}

/// Writes the events of one schema.
pub(super) struct EventWriter {
    described: Arc<Described>,
    json: debezium::EventWriter,
    tombstones: bool,
    /// By operation.
    headers: [OwnedHeaders; OPS.len()],
    key: Vec<u8>,
    value: Vec<u8>,
}

impl EventWriter {
    pub(super) fn new(described: Arc<Described>, source: &SourceInfo, tombstones: bool) -> Self {
        let headers = OPS.map(|op| {
            let mut letter = [0; 4];
            OwnedHeaders::new_with_capacity(2)
                .insert(Header { key: SCHEMA, value: Some(described.name.as_bytes()) })
                .insert(Header { key: OP, value: Some(op.letter().encode_utf8(&mut letter).as_bytes()) })
        });
        let json = debezium::EventWriter::new(described.schema.clone(), source);
        Self { described, json, tombstones, headers, key: Vec::new(), value: Vec::new() }
    }

    pub(super) fn described(&self) -> &Arc<Described> {
        &self.described
    }

    /// Gives `send` the record of an event, and then its tombstone if it has one.
    pub(super) fn write<E>(
        &mut self,
        record: RecordRef<'_>,
        mut send: impl FnMut(Outgoing<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some((op, keyed)) = self.transcode(record) else {
            let headers = OwnedHeaders::new_with_capacity(2)
                .insert(Header { key: SCHEMA, value: Some(self.described.name.as_bytes()) })
                .insert(Header { key: ENCODING, value: Some(BINARY) });
            let (timestamp_ms, headers) = timestamp(record.timestamp_ms, Some(headers));
            send(Outgoing { key: Some(record.key), value: record.value, timestamp_ms, headers })?;
            return if self.tombstones && is_delete(record.value) {
                self.bury(record, record.key, send)
            } else {
                Ok(())
            };
        };
        let of_op = OPS.iter().position(|known| *known == op).expect("all operations are listed");
        let (timestamp_ms, headers) = timestamp(record.timestamp_ms, Some(self.headers[of_op].clone()));
        if op == Op::Schema && !self.tombstones {
            let event = Header { key: EVENT, value: Some(&*self.value) };
            let headers = headers.map(|headers| headers.insert(event));
            return send(Outgoing { key: None, value: None, timestamp_ms, headers });
        }
        let key = keyed.then_some(&*self.key);
        send(Outgoing { key, value: Some(&self.value), timestamp_ms, headers })?;
        if self.tombstones && is_delete(record.value) { self.bury(record, &self.key, send) } else { Ok(()) }
    }

    fn bury<E>(
        &self,
        record: RecordRef<'_>,
        key: &[u8],
        mut send: impl FnMut(Outgoing<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let schema = Header { key: SCHEMA, value: Some(self.described.name.as_bytes()) };
        let headers = OwnedHeaders::new_with_capacity(1).insert(schema);
        let (timestamp_ms, headers) = timestamp(record.timestamp_ms, Some(headers));
        send(Outgoing { key: Some(key), value: None, timestamp_ms, headers })
    }

    /// Key and value as JSON, in the buffers; `None` when they cannot be. Tells the operation, and whether there is a key.
    fn transcode(&mut self, record: RecordRef<'_>) -> Option<(Op, bool)> {
        let event = EventRef::decode(record.value?).ok()?;
        self.value.clear();
        let key = self.json.write(&event, record.key, &mut self.value).ok()?;
        self.key.clear();
        let op = event.header.op;
        if let Some(key) = key {
            self.key.extend_from_slice(&self.value[key]);
            return Some((op, true));
        }
        if self.tombstones {
            // Kafka takes no record without key where it compacts, and of one key it keeps the last.
            self.key.extend_from_slice(b"{\"op\":\"");
            self.key.push(op.letter() as u8);
            if !record.key.is_empty() {
                self.key.extend_from_slice(b"\",\"key\":\"");
                record.key.iter().for_each(|byte| {
                    self.key.extend_from_slice(format!("{byte:02x}").as_bytes());
                });
            }
            self.key.extend_from_slice(b"\"}");
        }
        Some((op, self.tombstones))
    }
}

/// Whether the binary event is a delete.
fn is_delete(value: Option<&[u8]>) -> bool {
    value.and_then(|value| value.get(1)).is_some_and(|op| *op == Op::Delete.letter() as u8)
}

/// Number of records on the wire for the events of a batch, tombstones included.
pub(super) fn count_with_tombstones(records: &RecordBuffer) -> u64 {
    let records_of = Records::new(Offset(0), records.as_bytes());
    u64::from(records.count()) + records_of.filter(|record| is_delete(record.value)).count() as u64
}

/// Headers of records that travel as they are.
pub(super) fn plain_headers(prelude: &[u8]) -> Option<OwnedHeaders> {
    (!prelude.is_empty())
        .then(|| OwnedHeaders::new_with_capacity(1).insert(Header { key: PRELUDE, value: Some(prelude) }))
}

/// A record that travels as it is.
pub(super) fn plain<'a>(record: RecordRef<'a>, headers: Option<&OwnedHeaders>) -> Outgoing<'a> {
    let (timestamp_ms, headers) = timestamp(record.timestamp_ms, headers.cloned());
    Outgoing { key: Some(record.key), value: record.value, timestamp_ms, headers }
}

/// The time as Kafka can say it, in a header otherwise. Zero would mean "now" to the client.
fn timestamp(timestamp_ms: i64, headers: Option<OwnedHeaders>) -> (i64, Option<OwnedHeaders>) {
    if timestamp_ms > 0 {
        return (timestamp_ms, headers);
    }
    let text = timestamp_ms.to_string();
    let headers = headers.unwrap_or_default().insert(Header { key: TIMESTAMP, value: Some(text.as_bytes()) });
    (1, Some(headers))
}

/// What the headers of a record say of it.
pub(super) enum Form<'m> {
    /// An event, of this schema. `binary` when its value is not JSON.
    Event { schema: SchemaFingerprint, binary: bool },
    /// Anything else, with what its batch shares.
    Plain { prelude: &'m [u8] },
    /// Headers of ours that we do not understand.
    Unreadable(&'static str),
}

/// A record's headers, read.
pub(super) struct Incoming<'m> {
    pub(super) form: Form<'m>,
    /// An event that is not the value.
    pub(super) event: Option<&'m [u8]>,
    pub(super) timestamp_ms: i64,
}

impl<'m> Incoming<'m> {
    pub(super) fn read(message: &'m BorrowedMessage<'_>) -> Self {
        let mut timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
        let (mut schema, mut encoding, mut event, mut prelude) = (None, None, None, &[][..]);
        for (name, value) in headers::all(message) {
            // Other people's names need not be texts.
            match std::str::from_utf8(name).unwrap_or_default() {
                SCHEMA => schema = Some(value),
                ENCODING => encoding = Some(value),
                EVENT => event = Some(value),
                PRELUDE => prelude = value,
                TIMESTAMP => {
                    let exact = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    timestamp_ms = exact.unwrap_or(timestamp_ms);
                }
                _ => {}
            }
        }
        let form = match (schema, encoding) {
            (None, _) => Form::Plain { prelude },
            (Some(_), Some(encoding)) if encoding != BINARY => {
                Form::Unreadable("its header `headwater.encoding` names an encoding that this version does not know")
            }
            (Some(name), encoding) => match fingerprint(name) {
                Some(schema) => Form::Event { schema, binary: encoding.is_some() },
                None => Form::Unreadable("its header `headwater.schema` is no fingerprint of a schema"),
            },
        };
        Self { form, event, timestamp_ms }
    }
}

fn fingerprint(name: &[u8]) -> Option<SchemaFingerprint> {
    let text = std::str::from_utf8(name).ok().filter(|text| text.len() == 16)?;
    u64::from_str_radix(text, 16).ok().map(SchemaFingerprint)
}

/// Turns events of one schema back into their binary form.
pub(super) struct EventTranslator {
    pub(super) described: Arc<Described>,
    reader: EventReader,
    key: Vec<u8>,
    event: Vec<u8>,
}

impl EventTranslator {
    pub(super) fn new(described: Arc<Described>) -> Self {
        let reader = EventReader::new(described.schema.clone());
        Self { described, reader, key: Vec::new(), event: Vec::new() }
    }

    /// Appends the event in this record. What is wrong with it otherwise.
    pub(super) fn read(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
        into: &mut RecordBuffer,
    ) -> Result<(), String> {
        let Some(json) = value else {
            let raw = key.unwrap_or_default();
            // Nothing hangs on the key of a record that only says that earlier ones may go.
            let key = key_from_json(raw, &self.described.schema);
            into.push(timestamp_ms, key.as_deref().unwrap_or(raw), None::<fn(&mut Vec<u8>)>);
            return Ok(());
        };
        self.event.clear();
        self.reader.read(json, &mut self.key, &mut self.event).map_err(|error| explain(&error))?;
        into.push(timestamp_ms, &self.key, Some(|out: &mut Vec<u8>| out.extend_from_slice(&self.event)));
        Ok(())
    }
}

/// An error with its causes.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
