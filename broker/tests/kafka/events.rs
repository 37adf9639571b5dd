//! Change events on the wire: exact on both sides of the seam, Debezium's JSON in between.

use std::ffi::CStr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, RecordBuffer, Retention,
};
use headwater_schemas::codec::debezium::SourceInfo;
use headwater_schemas::{
    Column, ColumnType, EventHeader, EventRef, Op, RowBuilder, RowRef, SourcePosition, TableId, TableSchema, ValueRef,
    key,
};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, FutureProducer, FutureRecord, Producer as _};

use crate::world::{at, create, log, options, read_all, texts};

fn schema(columns: &[(&str, ColumnType, Option<u16>)]) -> TableSchema {
    let column = |(name, kind, key_ordinal): &(&str, ColumnType, Option<u16>)| Column {
        name: (*name).into(),
        kind: kind.clone(),
        source_type: "t".into(),
        key_ordinal: *key_ordinal,
    };
    TableSchema { table: TableId::new("billing", "public", "invoices"), columns: columns.iter().map(column).collect() }
}

fn invoices() -> TableSchema {
    schema(&[
        ("id", ColumnType::Int64, Some(0)),
        ("amount", ColumnType::Decimal, None),
        ("note", ColumnType::Text, None),
    ])
}

fn row(cells: &[ValueRef<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut row = RowBuilder::new(&mut bytes);
    cells.iter().for_each(|cell| row.push(*cell));
    bytes
}

fn push(records: &mut RecordBuffer, op: Op, ordinal: u32, key: &[u8], before: Option<&[u8]>, after: Option<&[u8]>) {
    let header = EventHeader {
        op,
        position: SourcePosition { epoch: 4, commit: 53_195_832, ordinal },
        transaction: if op == Op::Read { 0 } else { 571 },
        committed_at_micros: 1_767_225_600_000_123,
        last_in_transaction: ordinal == 5,
        before_is_key_only: false,
    };
    let (before, after) = (before.map(RowRef), after.map(RowRef));
    let event = EventRef { header, before, after, partitions: (op == Op::Truncate).then_some(3) };
    records.push(1_767_225_600_000, key, Some(|out: &mut Vec<u8>| event.encode(out)));
}

fn id(id: i64) -> Vec<u8> {
    key::of(ValueRef::Int(id))
}

/// Every operation, and a row that is not of its schema.
fn all_kinds(topic: &str) -> AppendBatch {
    let old = row(&[ValueRef::Int(7), ValueRef::Decimal("19.90"), ValueRef::Text("old")]);
    let new = row(&[ValueRef::Int(7), ValueRef::Decimal("-0.00"), ValueRef::Missing]);
    let mut records = RecordBuffer::default();
    push(&mut records, Op::Schema, 0, &[], None, None);
    push(&mut records, Op::Create, 1, &id(7), None, Some(&old));
    push(&mut records, Op::Update, 2, &id(7), Some(&old), Some(&new));
    push(
        &mut records,
        Op::Read,
        0,
        &id(8),
        None,
        Some(&row(&[ValueRef::Int(8), ValueRef::Null, ValueRef::Text("ü\n\"")])),
    );
    push(&mut records, Op::Delete, 3, &id(7), Some(&old), None);
    push(&mut records, Op::Truncate, 4, &[], None, None);
    push(&mut records, Op::Create, 5, &id(9), None, Some(&row(&[ValueRef::Int(9)])));
    push(&mut records, Op::Delete, 6, &id(10), None, None);
    AppendBatch { to: at(topic, 0), prelude: invoices().to_bytes().into(), records }
}

type Found = (u64, Bytes, Vec<u8>, Option<Vec<u8>>);

async fn found(log: &KafkaLog, topic: &str) -> Vec<Found> {
    let batches = read_all(log, topic).await;
    let of = |batch: &headwater_broker::FetchedBatch| -> Vec<Found> {
        let owned = |r: headwater_broker::RecordRef<'_>| {
            (r.offset.0, batch.prelude.clone(), r.key.to_vec(), r.value.map(<[u8]>::to_vec))
        };
        batch.records().map(owned).collect()
    };
    batches.iter().flat_map(of).collect()
}

fn expected(batches: &[AppendBatch]) -> Vec<(Bytes, Vec<u8>, Option<Vec<u8>>)> {
    let of = |batch: &AppendBatch| -> Vec<(Bytes, Vec<u8>, Option<Vec<u8>>)> {
        let bytes = Bytes::copy_from_slice(batch.records.as_bytes());
        let count = batch.records.count();
        let records = headwater_broker::FetchedBatch::new(at("t", 0), Offset(0), batch.prelude.clone(), bytes, count);
        let owned =
            |r: headwater_broker::RecordRef<'_>| (batch.prelude.clone(), r.key.to_vec(), r.value.map(<[u8]>::to_vec));
        records.records().map(owned).collect()
    };
    batches.iter().flat_map(of).collect()
}

/// What another process reads is byte for byte what was appended, before and after the table changed.
#[tokio::test(flavor = "multi_thread")]
async fn events_come_back_as_they_were() {
    let writing = log("events");
    create(&*writing, "events.t", 1, Retention::default()).await;
    let reading = log("events");
    let producer = writing.producer("events").await.unwrap();
    let wider = schema(&[("id", ColumnType::Int64, Some(0)), ("paid", ColumnType::Bool, None)]);
    let mut records = RecordBuffer::default();
    push(&mut records, Op::Create, 9, &id(1), None, Some(&row(&[ValueRef::Int(1), ValueRef::Bool(true)])));
    let changed = AppendBatch { to: at("events.t", 0), prelude: wider.to_bytes().into(), records };
    let batches = vec![all_kinds("events.t"), changed, all_kinds("events.t")];
    producer.append(batches.clone(), None).await.unwrap();
    // A process sees its own appends at once, others a moment later.
    writing.watermarks(&at("events.t", 0)).await.unwrap();
    for log in [&reading, &writing] {
        let found = found(log, "events.t").await;
        assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), (0..17).collect::<Vec<_>>());
        let found: Vec<_> = found.into_iter().map(|(_, prelude, key, value)| (prelude, key, value)).collect();
        assert!(found == expected(&batches), "found {found:?}\nexpected {:?}", expected(&batches));
    }
    // A producer opened later knows that the schemas are there.
    let later = log("events").producer("later").await.unwrap();
    later.append(vec![all_kinds("events.t")], None).await.unwrap();
    let start = std::time::Instant::now();
    while found(&reading, "events.t").await.len() < 17 + 8 {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

/// What Debezium's readers know as a value that was not sent.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Some of Debezium's readers stop at an operation that they do not know. There is none in any value, and the events are
/// there for us all the same; so are those of earlier versions, where there was.
#[tokio::test(flavor = "multi_thread")]
async fn others_find_no_operation_that_debezium_does_not_have() {
    let log = log("foreigners");
    create(&*log, "foreigners.t", 1, Retention::default()).await;
    let producer = log.producer("foreigners").await.unwrap();
    producer.append(vec![all_kinds("foreigners.t")], None).await.unwrap();
    log.watermarks(&at("foreigners.t", 0)).await.unwrap();
    let bootstrap = options("foreigners").bootstrap_servers;
    let lines = other_client(&bootstrap, "foreigners.t");
    assert!(lines[0]["key"].is_null() && lines[0]["value"].is_null(), "{}", lines[0]);
    let is_ours = |line: &&serde_json::Value| line["headers"]["headwater.encoding"].is_null();
    for line in lines[1..].iter().filter(is_ours) {
        let event: serde_json::Value = serde_json::from_str(line["value"].as_str().unwrap()).unwrap();
        assert!("crudt".contains(event["op"].as_str().unwrap()), "{event}");
    }
    // As it was written before.
    let announcement = lines[0]["headers"]["headwater.event"].as_str().unwrap();
    let fingerprint = format!("{:016x}", invoices().fingerprint().0);
    let headers = [("headwater.schema", &*fingerprint), ("headwater.op", "s")];
    send(&bootstrap, "foreigners.t", &headers, "", announcement).await;
    let found = found(&log, "foreigners.t").await;
    let found: Vec<_> = found.into_iter().map(|(_, prelude, key, value)| (prelude, key, value)).collect();
    let mut wanted = expected(&[all_kinds("foreigners.t")]);
    wanted.push(wanted[0].clone());
    assert!(found == wanted, "found {found:?}");
}

/// What an independent client sees: keys, envelopes, headers, tombstones.
#[tokio::test(flavor = "multi_thread")]
async fn others_read_debeziums_envelope() {
    let mut options = options("others");
    options.tombstones = true;
    let info = SourceInfo { version: "1.2".into(), connector: "postgresql".into(), database: "erp".into() };
    options.sources = [("billing".to_owned(), info)].into();
    // What this test looks at stays in the segment being written, which is not compacted.
    options.topic_settings = [("segment.ms".to_owned(), i64::MAX.to_string())].into();
    let bootstrap = options.bootstrap_servers.clone();
    let log = KafkaLog::open(options).unwrap();
    create(&*log, "others.t", 1, Retention { compact: true, ..Retention::default() }).await;
    let producer = log.producer("others").await.unwrap();
    let batch = all_kinds("others.t");
    assert_eq!(producer.offsets_of(&batch), 10, "two deletes have a tombstone each");
    producer.append(vec![batch.clone()], None).await.unwrap();
    assert_eq!(log.watermarks(&at("others.t", 0)).await.unwrap().high, Offset(11));
    // Back on our side the tombstones are there, too, and harmless.
    let found = found(&log, "others.t").await;
    let values = found.iter().filter(|found| found.3.is_some()).map(|(_, p, k, v)| (p.clone(), k.clone(), v.clone()));
    assert!(values.collect::<Vec<_>>() == expected(&[batch]));
    assert_eq!(found.iter().filter(|found| found.3.is_none()).map(|found| &found.2).collect::<Vec<_>>()[0], &id(7));

    let lines = other_client(&bootstrap, "others.t");
    let json = |line: &serde_json::Value, member: &str| -> serde_json::Value {
        line[member].as_str().map_or(serde_json::Value::Null, |text| serde_json::from_str(text).unwrap())
    };
    assert_eq!(lines.len(), 10);
    let keys = lines.iter().filter(|line| line["headers"]["headwater.encoding"].is_null()).map(|l| json(l, "key"));
    let seven = serde_json::json!({"id": 7});
    assert_eq!(
        keys.take(6).collect::<Vec<_>>(),
        [
            serde_json::json!({"op": "s"}),
            seven.clone(),
            seven.clone(),
            serde_json::json!({"id": 8}),
            seven.clone(),
            seven,
        ]
    );
    let update = json(&lines[2], "value");
    assert_eq!(update["op"], "u");
    assert_eq!(update["before"], serde_json::json!({"id": 7, "amount": "19.90", "note": "old"}));
    assert_eq!(update["after"], serde_json::json!({"id": 7, "amount": "-0.00", "note": UNAVAILABLE}));
    assert_eq!(update["x"]["missing"], serde_json::json!(["note"]));
    assert_eq!(update["source"]["connector"], "postgresql");
    assert_eq!(update["source"]["db"], "erp");
    assert_eq!(update["source"]["table"], "invoices");
    assert_eq!(lines[2]["headers"]["headwater.op"], "u");
    let fingerprint = format!("{:016x}", invoices().fingerprint().0);
    assert_eq!(lines[2]["headers"]["headwater.schema"], fingerprint);
    assert_eq!(lines[2]["timestamp"], 1_767_225_600_000_i64);
    assert_eq!(json(&lines[4], "value")["op"], "d");
    assert!(lines[5]["value"].is_null(), "the tombstone behind the delete");
    assert_eq!(lines[5]["key"], lines[4]["key"]);
    assert_eq!(json(&lines[6], "value")["op"], "t");
    let schemas = other_client(&bootstrap, "others.schemas");
    assert_eq!(schemas[0]["key"], fingerprint);
    assert_eq!(json(&schemas[0], "value")["columns"][1]["name"], "amount");
}

/// Every record of partition 0, as an independent client in another language reads it.
fn other_client(bootstrap: &str, topic: &str) -> Vec<serde_json::Value> {
    const SCRIPT: &str = r#"
import json, sys
from confluent_kafka import Consumer, TopicPartition, KafkaError
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "other-eyes", "enable.auto.commit": False,
                     "enable.partition.eof": True})
consumer.assign([TopicPartition(sys.argv[2], 0, 0)])
text = lambda data: None if data is None else data.decode("utf-8", "replace")
while True:
    message = consumer.poll(20)
    if message is None: sys.exit("no answer")
    if message.error():
        if message.error().code() == KafkaError._PARTITION_EOF: break
        sys.exit(str(message.error()))
    headers = {name: text(value) for name, value in message.headers() or []}
    print(json.dumps({"key": text(message.key()), "value": text(message.value()), "headers": headers,
                      "timestamp": message.timestamp()[1]}))
consumer.close()
"#;
    let cache =
        std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").unwrap()));
    let python = format!("{cache}/headwater/python/bin/python");
    let output = Command::new(&python).args(["-c", SCRIPT, bootstrap, topic]).output();
    let output = output.unwrap_or_else(|error| panic!("{python}: {error}; run scripts/need.sh tests"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn send(bootstrap: &str, topic: &str, headers: &[(&str, &str)], key: &str, value: &str) {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
    let record = FutureRecord::to(topic).partition(0).key(key).payload(value).headers(headers);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

/// Messages of others stand among ours: each comes as it is, with a reason where it pretends to be ours, and disturbs
/// nobody.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_messages_disturb_nobody() {
    let log = log("foreign");
    let bootstrap = options("foreign").bootstrap_servers;
    create(&*log, "foreign.t", 1, Retention::default()).await;
    let producer = log.producer("foreign").await.unwrap();
    producer.append(vec![all_kinds("foreign.t")], None).await.unwrap();
    let name = format!("{:016x}", invoices().fingerprint().0);
    let foreign = r#"{"op":"c","before":null,"after":{"id":1},"source":{"name":"x","schema":"y","table":"z"}}"#;
    send(&bootstrap, "foreign.t", &[], "k", foreign).await;
    send(&bootstrap, "foreign.t", &[("headwater.schema", &name)], "k", foreign).await;
    send(&bootstrap, "foreign.t", &[("headwater.schema", &name)], "k", "no JSON \u{0}").await;
    send(&bootstrap, "foreign.t", &[("headwater.schema", "what?")], "k", "v").await;
    send(&bootstrap, "foreign.t", &[("headwater.schema", &name), ("headwater.encoding", "avro")], "k", "v").await;
    producer.append(vec![all_kinds("foreign.t")], None).await.unwrap();
    let batches = read_all(&*log, "foreign.t").await;
    let records: usize = batches.iter().map(|batch| batch.count() as usize).sum();
    assert_eq!(records, 8 + 5 + 8);
    let mut reasons = Vec::new();
    for batch in &batches {
        for record in batch.records() {
            if let Some(why) = batch.why_unreadable() {
                assert_eq!(record.key, b"k");
                reasons.push((why.to_owned(), String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
            }
            assert!(record.value.is_some());
        }
    }
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert!(reasons[0].0.contains("block `x` is missing") && reasons[0].1 == foreign, "{reasons:?}");
    assert!(reasons[1].0.contains("not a change event in JSON") && reasons[1].1 == "no JSON \u{0}", "{reasons:?}");
    assert!(reasons[2].0.contains("no fingerprint") && reasons[3].0.contains("encoding"), "{reasons:?}");
    let plain: Vec<_> = batches.iter().filter(|batch| batch.prelude.is_empty()).collect();
    assert_eq!(plain.len(), 1);
    assert_eq!(plain[0].records().next().unwrap().value, Some(foreign.as_bytes()));
}

/// Sends a record with these headers, whose names need not be texts: the safe way takes no others.
fn send_with_odd_header(bootstrap: &str, topic: &CStr, headers: &[(&CStr, &CStr)]) {
    use rdkafka::bindings::{
        rd_kafka_produceva, rd_kafka_vtype_t as Kind, rd_kafka_vu_s as Part, rd_kafka_vu_s__bindgen_ty_1 as Value,
        rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 as Memory, rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 as Named,
    };
    /// The client copies the value.
    const COPY: i32 = 2;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let value = Memory { ptr: c"v".as_ptr().cast_mut().cast(), size: 1 };
    let mut parts = vec![
        Part { vtype: Kind::RD_KAFKA_VTYPE_TOPIC, u: Value { cstr: topic.as_ptr() } },
        Part { vtype: Kind::RD_KAFKA_VTYPE_PARTITION, u: Value { i32_: 0 } },
        Part { vtype: Kind::RD_KAFKA_VTYPE_MSGFLAGS, u: Value { i: COPY } },
        Part { vtype: Kind::RD_KAFKA_VTYPE_VALUE, u: Value { mem: value } },
    ];
    parts.extend(headers.iter().map(|(name, value)| {
        let size = value.count_bytes() as isize;
        let header = Named { name: name.as_ptr(), val: value.as_ptr().cast(), size };
        Part { vtype: Kind::RD_KAFKA_VTYPE_HEADER, u: Value { header } }
    }));
    // SAFETY: all that is pointed at outlives the call, which copies it.
    #[allow(unsafe_code, reason = "the safe way takes texts only")]
    let error = unsafe { rd_kafka_produceva(producer.client().native_ptr(), parts.as_ptr(), parts.len()) };
    assert!(error.is_null(), "it was not taken");
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// Names of headers are bytes to Kafka, and anybody may send some that are no text: they are other people's, and what we
/// know of the record is read.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_headers_need_not_be_texts() {
    let log = log("names");
    create(&*log, "names.t", 1, Retention::default()).await;
    let bootstrap = options("names").bootstrap_servers;
    send_with_odd_header(&bootstrap, c"names.t", &[(c"gr\xf6\xdfe", c"1")]);
    send_with_odd_header(&bootstrap, c"names.t", &[(c"gr\xf6\xdfe", c"1"), (c"headwater.schema", c"what?")]);
    let batches = read_all(&*log, "names.t").await;
    assert_eq!(texts(&batches), ["v", "v"]);
    assert!(batches[0].prelude.is_empty(), "it is no event, as it was sent");
    assert!(batches[1].why_unreadable().unwrap().contains("no fingerprint"), "what is ours is seen behind it");
}

const SCHEMA_WAIT: Duration = Duration::from_secs(3);

fn log_that_waits_little(prefix: &str) -> Arc<KafkaLog> {
    KafkaLog::open(KafkaOptions { schema_wait: SCHEMA_WAIT, ..options(prefix) }).unwrap()
}

/// An event whose schema is nowhere cannot be told from one whose schema is on its way. After a while it is: it is handed
/// out with the reason, as are its like behind it, and what stands behind them is read.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_schema_does_not_hold_up_what_is_behind() {
    let log = log_that_waits_little("unknown");
    create(&*log, "unknown.t", 1, Retention::default()).await;
    log.check().await.unwrap();
    let bootstrap = options("unknown").bootstrap_servers;
    for value in ["{}", "{\"a\":1}"] {
        send(&bootstrap, "unknown.t", &[("headwater.schema", "00000000000000ff")], "k", value).await;
    }
    let producer = log.producer("unknown").await.unwrap();
    producer.append(vec![all_kinds("unknown.t")], None).await.unwrap();
    let (begun, mut found, mut next) = (Instant::now(), Vec::new(), Offset(0));
    while found.iter().map(FetchedBatch::count).sum::<u32>() < 10 {
        let from = [FetchFrom { partition: at("unknown.t", 0), offset: next }];
        let limits = FetchLimits { bytes_max: 1 << 20, wait_max: Duration::from_secs(5) };
        found.extend(log.fetch(&from, limits).await.unwrap());
        next = found.last().map_or(Offset(0), FetchedBatch::next);
        assert!(begun.elapsed() < Duration::from_secs(30), "it is waited for too long: {next:?}");
    }
    assert!(begun.elapsed() >= SCHEMA_WAIT, "it may have been on its way");
    let (unreadable, read): (Vec<_>, Vec<_>) = found.into_iter().partition(|batch| batch.why_unreadable().is_some());
    assert_eq!(texts(&unreadable), ["{}", "{\"a\":1}"], "as they were sent");
    let why = unreadable[0].why_unreadable().unwrap();
    assert!(why.contains("schema 00000000000000ff") && why.contains("`unknown.schemas`"), "{why}");
    assert!(read.iter().filter(|batch| batch.count() > 0).all(|batch| batch.prelude == invoices().to_bytes()));
}

/// Where there is no topic of schemas no event can be read: it is an error, which says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_schema_is_told() {
    let log = log_that_waits_little("lost");
    create(&*log, "lost.t", 1, Retention::default()).await;
    let bootstrap = options("lost").bootstrap_servers;
    send(&bootstrap, "lost.t", &[("headwater.schema", "00000000000000ff")], "k", "{}").await;
    let from = [FetchFrom { partition: at("lost.t", 0), offset: Offset(0) }];
    let limits = FetchLimits { bytes_max: 1000, wait_max: Duration::from_secs(30) };
    let error = log.fetch(&from, limits).await.unwrap_err();
    assert!(matches!(error, Error::UnknownSchema { offset: 0, .. }), "{error}");
    assert!(error.to_string().contains("`lost.schemas`"), "{error}");
}
