//! `kafka_append`: change events per second into Kafka by our producer, the work of turning them into Debezium's JSON
//! included, beside Kafka's own producer performance tool sending the same bytes with the same acknowledgements,
//! compression and batches to the same broker. In turns. The tool sends neither keys nor headers: the bytes of ours stand
//! behind its values.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_broker::{AppendBatch, EventLog, Producer, RecordBuffer, Retention, TopicPartition, TopicSpec};
use headwater_schemas::codec::debezium::{EventWriter, SourceInfo};
use headwater_schemas::{
    Column, ColumnType, EventHeader, EventRef, Op, RowBuilder, SourcePosition, TableId, TableSchema, ValueRef, key,
};
use headwater_test_servers::Kafka;

use crate::report::{Demand, Figure, median};

/// Events of each run for 1.0 of scale.
const EVENTS: f64 = 1_000_000.0;
/// Events of one append: what a connector gathers while it is busy, by bytes.
const APPEND: u64 = 20_000;
const ROUNDS: usize = 3;
const TOPIC: &str = "bench.billing.public.invoice_lines";

pub(crate) async fn measure(scale: f64) -> Vec<Figure> {
    let events = ((EVENTS * scale) as u64 / APPEND).max(1) * APPEND;
    let kafka = Kafka::start();
    let log = KafkaLog::open(KafkaOptions::new(kafka.bootstrap())).expect("the options are sound");
    let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1, retention: Retention::default() };
    log.create_topics(&[spec(TOPIC), spec("bench.tool")]).await.expect("the broker is up");
    let producer = log.producer("bench").await.expect("the broker is up");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let payload = folder.path().join("values");
    write_values(&payload);
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    // The first round warms up both sides.
    for round in 0..=ROUNDS {
        let tool = tool(&kafka.bootstrap(), &payload, events);
        let own = append(&producer, events).await;
        println!("  {own:.0} events/s, Kafka's tool {tool:.0}");
        if round > 0 {
            ours.push(own);
            limits.push(tool);
        }
    }
    vec![Figure::new(
        "kafka_append",
        median(&mut ours),
        "events/s",
        Some(median(&mut limits)),
        Demand::RatioAtLeast(0.8, "ratio ≥ 0.8"),
    )]
}

fn schema() -> TableSchema {
    let columns = [
        ("id", ColumnType::Int64, Some(0)),
        ("invoice_id", ColumnType::Int64, None),
        ("position", ColumnType::Int32, None),
        ("description", ColumnType::Text, None),
        ("quantity", ColumnType::Decimal, None),
        ("amount", ColumnType::Decimal, None),
    ];
    let column = |(name, kind, key_ordinal): (&str, ColumnType, Option<u16>)| Column {
        name: name.into(),
        kind,
        source_type: String::new(),
        key_ordinal,
    };
    TableSchema { table: TableId::new("billing", "public", "invoice_lines"), columns: columns.map(column).into() }
}

/// Puts in the event of one line, an insert.
fn push(records: &mut RecordBuffer, n: u64) {
    let header = EventHeader {
        op: Op::Create,
        position: SourcePosition { epoch: 1, commit: 50_000_000 + n / 1000, ordinal: (n % 1000) as u32 },
        transaction: 700 + n / 1000,
        committed_at_micros: 1_767_225_600_000_000 + n as i64,
        last_in_transaction: n % 1000 == 999,
        before_is_key_only: false,
    };
    let id = n as i64;
    let (quantity, amount) = (format!("{}.00", n % 9 + 1), format!("{}.{:02}", n * 7 % 1000, n % 100));
    let description = format!("Line {} of service {}", n % 7, n * 31 % 1009);
    let mut row = |out: &mut Vec<u8>| {
        let mut row = RowBuilder::new(out);
        row.push(ValueRef::Int(id));
        row.push(ValueRef::Int(id / 4));
        row.push(ValueRef::Int(id % 4));
        row.push(ValueRef::Text(&description));
        row.push(ValueRef::Decimal(&quantity));
        row.push(ValueRef::Decimal(&amount));
    };
    let key = key::of(ValueRef::Int(id));
    let at = header.committed_at_micros / 1000;
    records.push(at, &key, Some(|out: &mut Vec<u8>| header.encode(out, None, Some(&mut row))));
}

/// Events per second, from the first append to the last answer, two appends in flight as a connector has them.
async fn append(producer: &Arc<dyn Producer>, events: u64) -> f64 {
    let prelude = Bytes::from(schema().to_bytes());
    let batches: Vec<AppendBatch> = (0..events / APPEND)
        .map(|append| {
            let mut records = RecordBuffer::default();
            (append * APPEND..(append + 1) * APPEND).for_each(|n| push(&mut records, n));
            AppendBatch { to: TopicPartition { topic: TOPIC.into(), partition: 0 }, prelude: prelude.clone(), records }
        })
        .collect();
    let begun = Instant::now();
    let mut in_flight = std::collections::VecDeque::new();
    for batch in batches {
        if in_flight.len() == 2 {
            finish(in_flight.pop_front().expect("there are two")).await;
        }
        let producer = Arc::clone(producer);
        let checkpoint = Some(Bytes::from_static(b"bench"));
        in_flight.push_back(tokio::spawn(async move { producer.append(vec![batch], checkpoint).await }));
    }
    for append in in_flight {
        finish(append).await;
    }
    events as f64 / begun.elapsed().as_secs_f64()
}

async fn finish(append: tokio::task::JoinHandle<Result<Vec<headwater_broker::Offset>, headwater_broker::Error>>) {
    append.await.expect("no panic").expect("the broker is up");
}

/// The bytes as they go over the wire, for the tool to choose from.
fn write_values(path: &Path) {
    let (schema, mut records) = (schema(), RecordBuffer::default());
    (0..APPEND).for_each(|n| push(&mut records, n * 50));
    let source = SourceInfo { version: "1".into(), connector: "headwater".into(), database: String::new() };
    let headers = format!("headwater.schema{:016x}headwater.opc", schema.fingerprint().0).into_bytes();
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("the folder is writable"));
    let (mut writer, mut json) = (EventWriter::new(schema, &source), Vec::new());
    let bytes = Bytes::copy_from_slice(records.as_bytes());
    let from = TopicPartition { topic: TOPIC.into(), partition: 0 };
    let batch =
        headwater_broker::FetchedBatch::new(from, headwater_broker::Offset(0), Bytes::new(), bytes, records.count());
    for record in batch.records() {
        let event = EventRef::decode(record.value.expect("it is an event")).expect("it was just encoded");
        json.clear();
        let key = writer.write(&event, record.key, &mut json).expect("it fits its schema").expect("it has a key");
        json.extend_from_within(key);
        json.extend_from_slice(&headers);
        json.push(b'\n');
        file.write_all(&json).expect("the folder is writable");
    }
}

/// Records per second by Kafka's own tool.
fn tool(bootstrap: &str, payload: &Path, records: u64) -> f64 {
    let mut tool = Kafka::program("org.apache.kafka.tools.ProducerPerformance");
    tool.args(["--topic", "bench.tool", "--throughput", "-1", "--num-records", &records.to_string()]);
    tool.arg("--payload-file").arg(payload).args(["--bootstrap-server", bootstrap, "--command-property"]);
    tool.args(["acks=all", "compression.type=lz4", "batch.size=1000000", "linger.ms=5", "buffer.memory=67108864"]);
    let output = tool.output().expect("there is java");
    let text = String::from_utf8_lossy(&output.stdout);
    // 1000000 records sent, 123456.7 records/sec (49.5 MB/sec), …
    let rate = text.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once(" records sent, ")?;
        rest.split_once(" records/sec")?.0.replace(',', ".").parse().ok()
    });
    rate.unwrap_or_else(|| panic!("the tool said: {text}{}", String::from_utf8_lossy(&output.stderr)))
}
