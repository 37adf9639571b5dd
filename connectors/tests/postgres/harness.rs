//! A server, a log, a connector between them, and eyes on what arrives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};
use headwater_broker::{EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, Retention, TopicPartition};
use headwater_connectors::{
    CaptureHandle, CaptureMetrics, CaptureOptions, ConnectorConfig, Error, Phase, SourceStatus, start,
};
use headwater_schemas::{
    DeadLetter, EventRef, Op, RowRef, SourcePosition, SourceProgress, TableSchema, Value, ValueRef, dead_letter_topic,
    key, progress_topic,
};
use headwater_test_servers::Postgres;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const PREFIX: &str = "hw";
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A row by the names of its columns.
pub(crate) type Row = BTreeMap<String, Value>;

/// One event with everything owned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) op: Op,
    pub(crate) position: SourcePosition,
    pub(crate) committed_at_micros: i64,
    pub(crate) last: bool,
    pub(crate) key: Vec<u8>,
    pub(crate) before_is_key_only: bool,
    pub(crate) before: Option<Vec<Value>>,
    pub(crate) after: Option<Vec<Value>>,
    /// Columns that are missing from the row after because their value cannot be represented.
    pub(crate) lost: Vec<usize>,
    pub(crate) partitions: Option<u32>,
    pub(crate) schema: TableSchema,
}

impl Event {
    /// The value of a column after the change.
    pub(crate) fn after(&self, column: &str) -> Value {
        let at = self.schema.column_index(column).unwrap();
        self.after.as_ref().unwrap()[at].clone()
    }

    /// The value of a column before the change.
    pub(crate) fn before(&self, column: &str) -> Value {
        let at = self.schema.column_index(column).unwrap();
        self.before.as_ref().unwrap()[at].clone()
    }
}

pub(crate) struct Harness {
    pub(crate) server: Postgres,
    pub(crate) log: Arc<EmbeddedLog>,
    /// Where what arrives is looked for.
    pub(crate) read: Arc<dyn EventLog>,
    _folder: TempDir,
    pub(crate) config: ConnectorConfig,
    pub(crate) partitions: u32,
    running: Option<(CaptureHandle, CancellationToken)>,
}

/// A configuration for a server, as YAML would say it.
pub(crate) fn config(server: &Postgres, tables: &[&str]) -> ConnectorConfig {
    serde_json::from_value(serde_json::json!({
        "source": "shop",
        "postgres": {
            "host": "127.0.0.1",
            "port": server.port(),
            "database": server.database(),
            "user": server.user(),
            "password": server.password(),
            "tables": tables,
        },
    }))
    .unwrap()
}

impl Harness {
    pub(crate) fn new(server: Postgres, tables: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(folder.path())).unwrap();
        let config = config(&server, tables);
        Self { server, read: log.clone(), log, _folder: folder, config, partitions: 1, running: None }
    }

    /// A fresh server prepared by `sql`, and a running connector that is streaming.
    pub(crate) async fn streaming(sql: &str, tables: &[&str]) -> Self {
        let server = Postgres::start();
        server.psql(sql);
        let mut harness = Self::new(server, tables);
        harness.start();
        harness.until_streaming().await;
        harness
    }

    pub(crate) fn start(&mut self) {
        self.start_into(self.log.clone());
    }

    /// [`Self::start`] with another view of the same log.
    pub(crate) fn start_into(&mut self, log: Arc<dyn EventLog>) {
        let cancel = CancellationToken::new();
        let options =
            CaptureOptions { prefix: PREFIX.into(), partitions: self.partitions, retention: Retention::default() };
        let handle = start(self.config.clone(), options, log, CaptureMetrics::default(), cancel.clone());
        self.running = Some((handle, cancel));
    }

    pub(crate) async fn stop(&mut self) {
        let (handle, cancel) = self.running.take().unwrap();
        cancel.cancel();
        handle.join().await.unwrap();
    }

    /// Waits for the connector to end by itself.
    pub(crate) async fn ended(&mut self) -> Error {
        let (handle, _cancel) = self.running.take().unwrap();
        tokio::time::timeout(WAIT_MAX, handle.join()).await.unwrap().unwrap_err()
    }

    pub(crate) fn status(&self) -> SourceStatus {
        self.running.as_ref().unwrap().0.status()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until_status(&self, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "never came: {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_streaming(&self) -> SourceStatus {
        self.until_status(|status| status.phase == Phase::Streaming).await
    }

    /// Waits until everything that is committed now is in the log.
    pub(crate) async fn caught_up(&self) {
        // A message of ours moves the log's end past every commit before it.
        let end = self.server.psql("SELECT pg_logical_emit_message(false, 'test', '')");
        let end = parse_lsn(&end);
        self.until_status(|status| status.source_position.as_deref().is_some_and(|at| parse_lsn(at) >= end)).await;
    }

    async fn batches(&self, topic: &str) -> Vec<FetchedBatch> {
        let topics = self.read.topics().await.unwrap();
        let partitions = topics.iter().find(|(name, _)| &**name == topic).map_or(0, |found| found.1);
        let mut all = Vec::new();
        for partition in 0..partitions {
            let partition = TopicPartition { topic: topic.into(), partition };
            let high = self.read.watermarks(&partition).await.unwrap().high;
            let mut offset = Offset(0);
            while offset < high {
                let limits = FetchLimits { bytes_max: 1 << 24, wait_max: Duration::from_millis(100) };
                let from = FetchFrom { partition: partition.clone(), offset };
                for batch in self.read.fetch(&[from], limits).await.unwrap() {
                    offset = batch.next();
                    // One without records only says where reading goes on.
                    all.extend((batch.count() > 0).then_some(batch));
                }
            }
        }
        all
    }

    /// Everything in a table's topic, in the order of the log.
    pub(crate) async fn all_events(&self, table: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for batch in self.batches(&format!("{PREFIX}.shop.public.{table}")).await {
            let schema = TableSchema::from_bytes(&batch.prelude).unwrap();
            for record in batch.records() {
                let event = EventRef::decode(record.value.unwrap()).unwrap();
                let row = |row: RowRef<'_>| {
                    assert!(row.is_well_formed(schema.columns.len()));
                    row.cells().map(ValueRef::to_value).collect::<Vec<_>>()
                };
                let read = Event {
                    op: event.header.op,
                    position: event.header.position,
                    committed_at_micros: event.header.committed_at_micros,
                    last: event.header.last_in_transaction,
                    key: record.key.to_vec(),
                    before_is_key_only: event.header.before_is_key_only,
                    before: event.before.map(row),
                    after: event.after.map(row),
                    lost: event.after.map(|row| row.lost().collect()).unwrap_or_default(),
                    partitions: event.partitions,
                    schema: schema.clone(),
                };
                assert_eq!(event.header.op == Op::Schema || event.header.op == Op::Truncate, record.key.is_empty());
                if let (Some(after), false) = (&read.after, read.key.is_empty()) {
                    assert_eq!(read.key, key_of(&schema, after));
                }
                events.push(read);
            }
        }
        events
    }

    /// Everything in a table's topic but the announcements of its schema.
    pub(crate) async fn events(&self, table: &str) -> Vec<Event> {
        let mut events = self.all_events(table).await;
        events.retain(|event| event.op != Op::Schema);
        events
    }

    /// The rows of a table as whoever applies the events by position has them, by key. A column is missing only if
    /// nobody ever sent it, or it is lost.
    pub(crate) async fn folded(&self, table: &str) -> BTreeMap<Vec<u8>, Row> {
        let mut rows: BTreeMap<Vec<u8>, (SourcePosition, Option<Row>)> = BTreeMap::new();
        let mut truncated = SourcePosition::default();
        for event in self.events(table).await {
            if event.op == Op::Truncate {
                truncated = truncated.max(event.position);
                for (at, row) in rows.values_mut() {
                    if *at < event.position {
                        *row = None;
                    }
                }
                continue;
            }
            let known = rows.entry(event.key.clone()).or_default();
            if event.position < known.0 || event.position < truncated {
                continue;
            }
            let old = known.1.take().unwrap_or_default();
            let named = event.after.as_ref().map(|after| {
                let complete = |(at, (column, value)): (usize, (&headwater_schemas::Column, &Value))| {
                    let name = column.name.to_string();
                    let value = match value {
                        Value::Missing if !event.lost.contains(&at) => {
                            old.get(&name).cloned().unwrap_or(Value::Missing)
                        }
                        value => value.clone(),
                    };
                    (name, value)
                };
                event.schema.columns.iter().zip(after).enumerate().map(complete).collect()
            });
            *known = (event.position, named);
        }
        rows.into_iter().filter_map(|(key, (_, row))| Some((key, row?))).collect()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        for batch in self.batches(&dead_letter_topic(PREFIX)).await {
            letters.extend(batch.records().map(|record| serde_json::from_slice(record.value.unwrap()).unwrap()));
        }
        letters
    }

    pub(crate) async fn progress(&self) -> Vec<SourceProgress> {
        let mut all = Vec::new();
        for batch in self.batches(&progress_topic(PREFIX, "shop")).await {
            all.extend(batch.records().map(|record| serde_json::from_slice(record.value.unwrap()).unwrap()));
        }
        all
    }
}

/// Waits until a table's rows have these values of `id`, in the order of their keys.
pub(crate) async fn until_ids(harness: &Harness, table: &str, wanted: &[i64]) {
    let begin = Instant::now();
    loop {
        harness.caught_up().await;
        let rows = harness.folded(table).await;
        if rows.values().map(|row| &row["id"]).eq(&wanted.iter().map(|id| Value::Int(*id)).collect::<Vec<_>>()) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{wanted:?}, and captured {rows:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn key_of(schema: &TableSchema, row: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for at in schema.key_columns() {
        key::write(&mut out, row[at].as_ref(&mut Vec::new()));
    }
    out
}

pub(crate) fn parse_lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}
