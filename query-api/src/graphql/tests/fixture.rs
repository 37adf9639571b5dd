//! Two models, some documents, and a store that holds them.

use std::sync::Arc;

use apollo_compiler::response::{JsonMap, JsonValue};
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, Value, key};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{DocumentWrite, ProjectionStore, VersionId, VersionRecord, VersionState};
use hyper::header::HeaderMap;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::access::{Principal, Visibility};
use crate::context::{ReadContext, RequestId};
use crate::graphql::{GraphQl, GraphQlLimits, GraphQlRequest};
use crate::query::CursorKey;

pub(super) const CUSTOMERS: VersionId = VersionId(1);
pub(super) const TARIFFS: VersionId = VersionId(2);

pub(super) fn scalar(name: &str, kind: ColumnType) -> ShapeField {
    ShapeField { name: name.into(), doc: None, required: false, kind: FieldType::Scalar(kind) }
}

pub(super) fn nested(name: &str, cardinality: Cardinality, fields: Vec<ShapeField>) -> ShapeField {
    ShapeField { name: name.into(), doc: None, required: false, kind: FieldType::Nested { cardinality, fields } }
}

fn index(name: &str, kind: ColumnType, many: bool) -> IndexShape {
    IndexShape { name: name.into(), kind, many }
}

pub(super) fn customers() -> ModelShape {
    use ColumnType::{Bool, Date, Decimal, Float64, Int32, Int64, Json, Text, TimestampTz};
    let mut id = scalar("id", Int64);
    id.required = true;
    let mut name = scalar("name", Text);
    name.doc = Some("How the customer is addressed.\nNot \"legal\" \"\"\"names\"\"\".".into());
    ModelShape {
        model: "customer_account".into(),
        version: 3,
        doc: Some("A customer with everything owed.".into()),
        key: vec![Int64],
        fields: vec![
            id,
            name,
            scalar("email", Text),
            scalar("active", Bool),
            scalar("rating", Float64),
            scalar("joined_at", TimestampTz),
            scalar("meta", Json),
            nested("address", Cardinality::One, vec![scalar("city", Text), scalar("zip", Text)]),
            nested(
                "invoices",
                Cardinality::Many,
                vec![
                    scalar("id", Int64),
                    scalar("issued_on", Date),
                    scalar("status", Text),
                    scalar("total", Decimal),
                    nested("lines", Cardinality::Many, vec![scalar("text", Text), scalar("quantity", Int32)]),
                ],
            ),
            scalar("unpaid_total", Decimal),
            scalar("invoice_count", Int64),
        ],
        indexes: vec![
            index("email", Text, false),
            index("invoices.status", Text, true),
            index("unpaid_total", Decimal, false),
            index("active", Bool, false),
            index("invoices.id", Int64, true),
        ],
    }
}

pub(super) fn tariffs() -> ModelShape {
    ModelShape {
        model: "tariff".into(),
        version: 1,
        doc: None,
        key: vec![ColumnType::Text, ColumnType::Int32],
        fields: vec![scalar("code", ColumnType::Text), scalar("year", ColumnType::Int32)],
        indexes: Vec::new(),
    }
}

/// Ten customers; the numbers and nulls are chosen so that every filter splits them.
pub(super) fn customer(n: i64) -> Json {
    let status = ["open", "overdue", "paid"];
    let invoices: Vec<Json> = (0..n % 4)
        .map(|i| {
            let lines: Vec<Json> =
                (0..i + 1).map(|l| json!({"text": format!("line \"{l}\" {{}}[]"), "quantity": l})).collect();
            json!({
                "id": n * 100 + i, "issued_on": format!("2026-0{}-01", i + 1), "status": status[((n + i) % 3) as usize],
                "total": format!("{}.50", n * 10 + i), "lines": lines,
            })
        })
        .collect();
    json!({
        "id": n,
        "name": format!("Customer {n} \u{e9}\\"),
        "email": if n == 7 { Json::Null } else { json!(format!("c{n}@example.com")) },
        "active": n % 2 == 0,
        "rating": if n == 3 { json!("NaN") } else { json!(n as f64 / 2.0) },
        "joined_at": "2026-01-31T23:59:59Z",
        "meta": {"tags": ["a", "}"], "n": [1, {"x": null}]},
        "address": if n % 3 == 0 { Json::Null } else { json!({"city": "Bern", "zip": "3000"}) },
        "invoices": invoices,
        "unpaid_total": format!("{}.25", n * 7 % 10),
        "invoice_count": n % 4,
    })
}

/// Index entries of a document, found in its values.
fn entries(shape: &ModelShape, document: &Json) -> Vec<(u16, Vec<u8>)> {
    fn collect<'j>(value: &'j Json, path: &[&str], out: &mut Vec<&'j Json>) {
        match (value, path) {
            (Json::Array(items), _) => items.iter().for_each(|item| collect(item, path, out)),
            (value, []) => out.push(value),
            (Json::Object(members), [name, rest @ ..]) => collect(&members[*name], rest, out),
            _ => {}
        }
    }
    let mut out = Vec::new();
    for (number, index) in shape.indexes.iter().enumerate() {
        let mut values = Vec::new();
        collect(document, &index.name.split('.').collect::<Vec<_>>(), &mut values);
        for value in values {
            let value = match value {
                Json::Null => Value::Null,
                Json::String(text) => Value::parse(text, &index.kind).expect("a value"),
                other => Value::parse(&other.to_string(), &index.kind).expect("a value"),
            };
            out.push((number as u16, key::of(value.scalar().expect("a scalar"))));
        }
    }
    out.sort();
    out.dedup();
    out
}

/// Variables as a request has them.
pub(super) fn given(variables: &Json) -> JsonMap {
    let text = bytes::Bytes::from(variables.to_string());
    match JsonValue::from_bytes(text).expect("JSON") {
        JsonValue::Object(members) => members,
        _ => JsonMap::new(),
    }
}

pub(super) struct Fixture {
    pub(super) store: Arc<EmbeddedStore>,
    pub(super) graphql: GraphQl,
    pub(super) context: ReadContext,
    _folder: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(GraphQlLimits::default())
    }

    pub(super) fn with(limits: GraphQlLimits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedStore::open(EmbeddedOptions::new(folder.path())).expect("a store");
        let graphql = GraphQl::new(
            &[Visibility::everything(TARIFFS, tariffs()), Visibility::everything(CUSTOMERS, customers())],
            limits,
        )
        .expect("a schema");
        let context = ReadContext {
            request_id: RequestId::of(&HeaderMap::from_iter([(
                crate::http::X_REQUEST_ID,
                hyper::header::HeaderValue::from_static("req-1"),
            )])),
            cursors: Arc::new(CursorKey::new(b"secret")),
            entries_max: 10_000,
            documents_bytes_max: crate::api::DOCUMENTS_BYTES_MAX,
            principal: Principal::everything(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            is_private: false,
            channel: crate::channel::ChannelId::DEFAULT,
            vary: hyper::header::HeaderValue::from_static("accept"),
            reads: crate::observe::Reads::new(std::time::Instant::now(), false),
            is_followed: false,
        };
        let fixture = Self { store, graphql, context, _folder: folder };
        let customers_written = (1..=10).map(|n| (Value::Int(n), customer(n)));
        fixture.fill(CUSTOMERS, &customers(), customers_written.map(|(id, doc)| (vec![id], doc)).collect());
        let code = "a~b%";
        let tariff = (vec![Value::Text(code.into()), Value::Int(2026)], json!({"code": code, "year": 2026}));
        fixture.fill(TARIFFS, &tariffs(), vec![tariff]);
        fixture
    }

    fn fill(&self, version: VersionId, shape: &ModelShape, documents: Vec<(Vec<Value>, Json)>) {
        let mut batch = self.store.begin().expect("a batch");
        let record = VersionRecord {
            id: version,
            model: shape.model.clone(),
            definition_hash: "0".into(),
            state: VersionState::Active,
            sources: Vec::new(),
            shape: Some(shape.clone()),
            created_at_ms: 0,
        };
        batch.put_version(&record).expect("a version");
        for (id, document) in documents {
            let mut key = Vec::new();
            id.iter().for_each(|part| key::write(&mut key, part.scalar().expect("a scalar")));
            let body = serde_json::to_vec(&document).expect("JSON");
            let entries = entries(shape, &document);
            let entries: Vec<(u16, &[u8])> = entries.iter().map(|(n, key)| (*n, key.as_slice())).collect();
            let write = DocumentWrite { id: &key, body: Some(&body), entries: &entries, stamp: None };
            batch.put_documents(version, 1_000, &[write]).expect("documents");
        }
        batch.commit().expect("committed");
    }

    /// Status and body of a request.
    pub(super) async fn send(&self, query: &str, variables: Json) -> (u16, Json) {
        self.send_named(query, None, variables).await
    }

    pub(super) async fn send_named(&self, query: &str, operation: Option<&str>, variables: Json) -> (u16, Json) {
        let request = GraphQlRequest {
            query: query.to_owned().into(),
            operation_name: operation.map(|name| name.to_owned().into()),
            variables: given(&variables),
        };
        let response = self.graphql.execute(request, &*self.store, &self.context).await;
        let body = serde_json::from_slice(&response.body).unwrap_or_else(|error| {
            panic!("not JSON: {error}: {}", String::from_utf8_lossy(&response.body));
        });
        (response.status, body)
    }

    /// The data of a request that succeeds.
    pub(super) async fn data(&self, query: &str, variables: Json) -> Json {
        let (status, body) = self.send(query, variables).await;
        assert!(status == 200 && body.get("errors").is_none(), "{status} {body}");
        body["data"].clone()
    }

    /// The first error of a request that is refused.
    pub(super) async fn refused(&self, query: &str, variables: Json) -> Json {
        let (status, body) = self.send(query, variables).await;
        assert!(status == 400 && body.get("data").is_none(), "{status} {body}");
        assert_eq!(body["errors"][0]["extensions"]["requestId"], "req-1", "{body}");
        body["errors"][0].clone()
    }
}
