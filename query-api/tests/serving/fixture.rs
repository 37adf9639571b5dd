//! A store with documents, an API over it, and a client. Which engine the store has is for `engine` to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use headwater_query_api::{
    AccessOptions, Admin, AdminError, AdminServer, ApiHandle, ApiOptions, BoundPort, ChannelOptions, ChannelsOptions,
    ModelChannel, SelectRule, start,
};
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, SourcePosition, ValueRef, key};
use headwater_store::{
    Batch, DocumentReader, DocumentWrite, Frontier, ProjectionStore, VersionId, VersionRecord, VersionState,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[path = "engine.rs"]
pub(crate) mod engine;

/// 2026-01-31T12:00:00Z.
pub(crate) const AS_OF_MICROS: i64 = 1_769_860_800_000_000;

pub(crate) struct World {
    pub(crate) store: Arc<dyn ProjectionStore>,
    pub(crate) api: ApiHandle,
    pub(crate) admin: AdminServer,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

fn field(name: &str, required: bool, kind: FieldType) -> ShapeField {
    ShapeField { name: name.into(), doc: None, required, kind }
}

fn value(name: &str, kind: ColumnType) -> ShapeField {
    field(name, false, FieldType::Scalar(kind))
}

/// Customers with invoices and a tariff: `n` is null for every seventh.
pub(crate) fn customers() -> ModelShape {
    let index = |name: &str, kind, many| IndexShape { name: name.into(), kind, many };
    let invoices = vec![
        value("number", ColumnType::Int32),
        value("status", ColumnType::Text),
        value("total", ColumnType::Decimal),
    ];
    let tariff = vec![value("code", ColumnType::Text)];
    ModelShape {
        model: "customer".into(),
        version: 3,
        doc: Some("A customer.".into()),
        key: vec![ColumnType::Int64],
        fields: vec![
            field("id", true, FieldType::Scalar(ColumnType::Int64)),
            value("name", ColumnType::Text),
            value("n", ColumnType::Int32),
            field("tariff", false, FieldType::Nested { cardinality: Cardinality::One, fields: tariff }),
            field("invoices", true, FieldType::Nested { cardinality: Cardinality::Many, fields: invoices }),
        ],
        indexes: vec![
            index("name", ColumnType::Text, false),
            index("n", ColumnType::Int32, false),
            index("invoices.status", ColumnType::Text, true),
            index("invoices.total", ColumnType::Decimal, true),
        ],
    }
}

/// Rates, by text and date.
pub(crate) fn rates() -> ModelShape {
    ModelShape {
        model: "rate".into(),
        version: 1,
        doc: None,
        key: vec![ColumnType::Text, ColumnType::Date],
        fields: vec![value("rate", ColumnType::Decimal)],
        indexes: vec![],
    }
}

pub(crate) fn record(id: u32, shape: ModelShape, state: VersionState) -> VersionRecord {
    VersionRecord {
        id: VersionId(id),
        model: shape.model.clone(),
        definition_hash: format!("{id:016x}"),
        state,
        sources: Vec::new(),
        shape: Some(shape),
        created_at_ms: 0,
    }
}

pub(crate) fn customer(id: i64) -> Value {
    let statuses = ["open", "paid", "overdue"];
    let invoices: Vec<Value> = (0..id % 4)
        .map(|at| json!({"number": at, "status": statuses[((id + at) % 3) as usize], "total": format!("{id}.{at}0")}))
        .collect();
    json!({
        "id": id,
        "name": format!("name {id}, \"the {}\"", if id % 2 == 0 { "even" } else { "odd" }),
        "n": if id % 7 == 0 { Value::Null } else { json!(id % 10) },
        "tariff": if id % 5 == 0 { Value::Null } else { json!({"code": format!("T{id}")}) },
        "invoices": invoices,
    })
}

/// Index entries of a customer.
fn entries(document: &Value) -> Vec<(u16, Vec<u8>)> {
    let mut entries = vec![(0, key::of(ValueRef::Text(document["name"].as_str().unwrap())))];
    entries.push((1, key::of(document["n"].as_i64().map_or(ValueRef::Null, ValueRef::Int))));
    for invoice in document["invoices"].as_array().unwrap() {
        entries.push((2, key::of(ValueRef::Text(invoice["status"].as_str().unwrap()))));
        entries.push((3, key::of(ValueRef::Decimal(invoice["total"].as_str().unwrap()))));
    }
    entries.sort();
    entries.dedup();
    entries
}

pub(crate) fn put<S: ProjectionStore + ?Sized>(store: &Arc<S>, version: u32, id: &[u8], document: Option<&Value>) {
    let mut batch = store.begin().unwrap();
    put_in(&mut *batch, version, id, document);
    batch.commit().unwrap();
}

/// A customer with an invoice of each of these statuses.
pub(crate) fn put_with_statuses(world: &World, id: i64, statuses: [&str; 2]) {
    let mut document = customer(id);
    document["invoices"] =
        statuses.iter().map(|status| json!({"number": 0, "status": status, "total": "1.00"})).collect();
    put(&world.store, 1, &int_key(id), Some(&document));
}

fn put_in(batch: &mut dyn Batch, version: u32, id: &[u8], document: Option<&Value>) {
    let entries = document.filter(|document| document.get("invoices").is_some()).map(entries).unwrap_or_default();
    let entries: Vec<(u16, &[u8])> = entries.iter().map(|(index, value)| (*index, value.as_slice())).collect();
    let body = document.map(Value::to_string);
    let write = DocumentWrite { id, body: body.as_deref().map(str::as_bytes), entries: &entries, stamp: None };
    batch.put_documents(VersionId(version), AS_OF_MICROS, &[write]).unwrap();
}

/// A document and how far a source is, in one batch.
pub(crate) fn put_at(store: &Arc<dyn ProjectionStore>, commit: u64, id: &[u8], document: &Value) {
    let (entries, body) = (entries(document), document.to_string());
    let entries: Vec<(u16, &[u8])> = entries.iter().map(|(index, value)| (*index, value.as_slice())).collect();
    let mut batch = store.begin().unwrap();
    let write = DocumentWrite { id, body: Some(body.as_bytes()), entries: &entries, stamp: None };
    batch.put_documents(VersionId(1), AS_OF_MICROS, &[write]).unwrap();
    batch.set_frontier("billing", frontier_at(commit)).unwrap();
    batch.commit().unwrap();
}

/// A source is so far.
pub(crate) fn set_frontier(store: &Arc<dyn ProjectionStore>, source: &str, commit: u64) {
    let mut batch = store.begin().unwrap();
    batch.set_frontier(source, frontier_at(commit)).unwrap();
    batch.commit().unwrap();
}

fn frontier_at(commit: u64) -> Frontier {
    let position = SourcePosition { epoch: 1, commit, ordinal: 1 };
    Frontier { position, at_micros: AS_OF_MICROS, snapshot_done: true }
}

pub(crate) fn int_key(id: i64) -> Vec<u8> {
    key::of(ValueRef::Int(id))
}

pub(crate) fn set_versions<S: ProjectionStore + ?Sized>(store: &Arc<S>, records: &[VersionRecord]) {
    let mut batch = store.begin().unwrap();
    records.iter().for_each(|record| batch.put_version(record).unwrap());
    batch.commit().unwrap();
}

pub(crate) fn set_version<S: ProjectionStore + ?Sized>(store: &Arc<S>, record: &VersionRecord) {
    set_versions(store, std::slice::from_ref(record));
}

pub(crate) struct TestAdmin;

#[async_trait]
impl Admin for TestAdmin {
    fn ready(&self) -> Result<(), String> {
        Err("the snapshot of billing is being read".into())
    }

    async fn status(&self) -> Value {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
        let position = "(1,24AF30,0)";
        json!({
            "at_micros": now,
            "ready": false,
            "sources": [
                {
                    "source": "billing",
                    "phase": {"name": "streaming"},
                    "source_position": "0/24AF30",
                    "lag_bytes": 1200,
                    "retained_wal_bytes": 3_200_000,
                    "events_total": now / 1000 % 1_000_000,
                    "refused_tables": {"public.notes": {"problem": "it has no primary key", "remedy": "add one"}},
                    "frontier": {"position": position, "at_micros": now - 8_000, "snapshot_done": true},
                },
                {
                    "source": "crm",
                    "phase": {"name": "snapshotting", "tables": [{"rows_done": 4000, "rows_estimate": 9000}]},
                    "source_position": null,
                    "lag_bytes": null,
                    "events_total": 4000,
                    "frontier": {"position": position, "at_micros": now - 7_300_000, "snapshot_done": false},
                },
            ],
            "models": [
                {"model": "customer", "version": 3, "state": "active", "documents": 50, "definition_hash": "00ff"},
                {"model": "customer", "version": 4, "state": "building", "documents": 20, "definition_hash": "01ff",
                 "progress": {"phase": "scan", "done": 20, "total": 50}},
            ],
            "projector": {"lag_events": 17, "events_total": now / 2000 % 1_000_000, "documents_written_total": now / 9000 % 100_000,
                "last_error": null},
            "consumers": [{"topic": "headwater.billing.public.cust", "partition": 0, "lag": 17}],
            "dead_letters": 1,
        })
    }

    async fn replay(&self, request: Value) -> Result<Value, AdminError> {
        Ok(json!({"replaying": request["model"]}))
    }

    async fn dead_letters(&self, limit: usize) -> Result<Value, AdminError> {
        let letter =
            json!({"stage": "decode", "table": "billing.public.cust", "cause": "the value of `due` is no date"});
        Ok(json!({"dead_letters": [{"offset": 3, "letter": letter}], "limit": limit}))
    }

    async fn retry_dead_letters(&self, _: Value) -> Result<Value, AdminError> {
        Err(AdminError::conflict("retry_running", "a retry is running; wait for it"))
    }

    async fn reload(&self) -> Result<Value, AdminError> {
        Ok(json!({"reloaded": true}))
    }
}

impl World {
    /// 50 customers and a rate.
    pub(crate) fn new() -> Self {
        Self::with(AccessOptions::default())
    }

    /// The same, of which callers see what these rules allow.
    pub(crate) fn with(access: AccessOptions) -> Self {
        Self::with_options(|options| options.access = access)
    }

    /// The same, with other options.
    pub(crate) fn with_options(change: impl FnOnce(&mut ApiOptions)) -> Self {
        Self::over(AccessOptions::default(), |store| store, change)
    }

    /// The same over a reader made of the store's, with other options.
    pub(crate) fn over(
        access: AccessOptions,
        change_reader: impl FnOnce(Arc<dyn DocumentReader>) -> Arc<dyn DocumentReader>,
        change: impl FnOnce(&mut ApiOptions),
    ) -> Self {
        Self::try_over(access, change_reader, change).unwrap()
    }

    /// The same, which may not start.
    pub(crate) fn try_over(
        access: AccessOptions,
        change_reader: impl FnOnce(Arc<dyn DocumentReader>) -> Arc<dyn DocumentReader>,
        change: impl FnOnce(&mut ApiOptions),
    ) -> Result<Self, headwater_query_api::Error> {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let opened = engine::open(engine::OF_THIS_PROGRAM, folder.path(), &runtime);
        let store = opened.store.clone();
        set_version(&store, &record(1, customers(), VersionState::Active));
        set_version(&store, &record(2, rates(), VersionState::Active));
        let mut batch = store.begin().unwrap();
        let frontier = |at_micros| Frontier { position: SourcePosition::default(), at_micros, snapshot_done: true };
        batch.set_frontier("billing", frontier(AS_OF_MICROS)).unwrap();
        batch.set_frontier("crm", frontier(AS_OF_MICROS + 5_000_000)).unwrap();
        for id in 1..=50 {
            put_in(&mut *batch, 1, &int_key(id), Some(&customer(id)));
        }
        let mut rate = key::of(ValueRef::Text("a/b~%"));
        key::write(&mut rate, ValueRef::Date(0));
        put_in(&mut *batch, 2, &rate, Some(&json!({"rate": "1.5"})));
        batch.commit().unwrap();

        let reader = opened.reader(&runtime);
        let stop = CancellationToken::new();
        let mut options = ApiOptions { bench_route: true, access, ..ApiOptions::new(b"secret".to_vec()) };
        change(&mut options);
        let registry = Arc::new(Mutex::new(Registry::default()));
        let start = start(options, any_port(), change_reader(reader), registry.clone(), stop.clone());
        let api = runtime.block_on(start)?;
        let admin = admin_server(&runtime);
        admin.open(Arc::new(TestAdmin), registry, Some(&api));
        Ok(Self { store, api, admin, stop, runtime, _folder: folder })
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    /// Asks by a channel.
    pub(crate) fn get_by(&self, channel: &str, path: &str) -> Answer {
        self.ask("GET", path, &[("x-channel", channel)], None)
    }

    /// Asks GraphQL by a channel.
    pub(crate) fn graphql_by(&self, channel: &str, query: &str) -> Answer {
        let headers = [("content-type", "application/json"), ("x-channel", channel)];
        self.ask("POST", "/graphql", &headers, Some(&json!({"query": query}).to_string()))
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, None)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        request(&format!("http://{}{path}", self.api.address), method, headers, body)
    }

    pub(crate) fn admin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        request(&format!("http://{}{path}", self.admin.address()), method, headers, body)
    }
}

/// A port for readers.
pub(crate) fn any_port() -> BoundPort {
    BoundPort::bind("api.listen", "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// An admin port that may be asked by the name `ops.example.com`, too.
pub(crate) fn admin_server(runtime: &tokio::runtime::Runtime) -> AdminServer {
    let listen = AdminServer::listen("127.0.0.1:0".parse().unwrap(), vec!["ops.example.com".into()]);
    runtime.block_on(listen).unwrap()
}

pub(crate) fn request(url: &str, method: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body.unwrap_or_default().to_string()).unwrap()).unwrap();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_string(), value.to_str().unwrap().to_string()))
        .collect();
    let status = response.status().as_u16();
    let bytes = response.body_mut().read_to_vec().unwrap();
    Answer { status, headers, body: String::from_utf8_lossy(&bytes).into_owned(), bytes }
}

/// A channel of the header `x-channel` that shows these fields of customers under these names.
pub(crate) fn channel(fields: &[&str], rename: &[(&str, &str)]) -> ChannelOptions {
    let shape = ModelChannel {
        fields: fields.iter().map(|text| text.parse().unwrap()).collect(),
        rename: rename.iter().map(|(path, name)| (path.to_string(), name.to_string())).collect(),
    };
    let models = BTreeMap::from([("customer".to_string(), Some(shape))]);
    ChannelOptions { models: Some(models), ..ChannelOptions::default() }
}

/// Channels that are chosen by the header `x-channel`.
pub(crate) fn channels(all: impl IntoIterator<Item = (&'static str, ChannelOptions)>) -> ChannelsOptions {
    let channels = all.into_iter().map(|(name, of)| (name.to_string(), of)).collect();
    ChannelsOptions { channels, select: vec![SelectRule::header("X-Channel").unwrap()], required: false }
}

/// Asks until it is so.
pub(crate) fn wait_until(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !check() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
