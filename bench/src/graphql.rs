//! `graphql_vs_dynamic`: a whole document by GraphQL, from the bytes of a request to the bytes of its answer, beside the
//! same query through async-graphql's dynamic executor over the same store. Both on one thread, without HTTP, and each
//! with a text it has seen before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_graphql::dynamic::{Field, FieldFuture, FieldValue, InputValue, Object, Schema, TypeRef};
use bytes::Bytes;
use headwater_query_api::Executor;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, ValueRef, key};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{DocumentReader, DocumentWrite, ProjectionStore, VersionId, VersionRecord, VersionState};
use serde_json::{Value, json};

use crate::report::{Demand, Figure, median};

const VERSION: VersionId = VersionId(1);
const DOCUMENTS: i64 = 1000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

const QUERY: &str = "query($id: ID!) { customerAccount(id: $id) { id name email city invoices { id number issued_on \
                     status total lines { position description quantity amount } } unpaid_total invoice_count } }";

fn value(name: &str, kind: ColumnType) -> ShapeField {
    ShapeField { name: name.into(), doc: None, required: false, kind: FieldType::Scalar(kind) }
}

fn array(name: &str, fields: Vec<ShapeField>) -> ShapeField {
    let kind = FieldType::Nested { cardinality: Cardinality::Many, fields };
    ShapeField { name: name.into(), doc: None, required: true, kind }
}

fn shape() -> ModelShape {
    use ColumnType::{Date, Decimal, Int32, Text};
    let lines = vec![
        value("position", Int32),
        value("description", Text),
        value("quantity", Decimal),
        value("amount", Decimal),
    ];
    let invoices = vec![
        value("id", Int32),
        value("number", Text),
        value("issued_on", Date),
        value("status", Text),
        value("total", Decimal),
        array("lines", lines),
    ];
    ModelShape {
        model: "customer_account".into(),
        version: 1,
        doc: None,
        key: vec![Int32],
        fields: vec![
            value("id", Int32),
            value("name", Text),
            value("email", Text),
            value("city", Text),
            array("invoices", invoices),
            value("unpaid_total", Decimal),
            value("invoice_count", Int32),
        ],
        indexes: Vec::new(),
    }
}

/// As many invoices and lines as in the load of the other figures: five of four lines each.
fn document(id: i64) -> Value {
    let line = |n: i64| {
        json!({
            "position": n, "description": format!("Line item number {n} of the invoice"), "quantity": "3.00",
            "amount": "42.10",
        })
    };
    let invoice = |n: i64| {
        json!({
            "id": id * 5 + n, "number": format!("INV-{:09}", id * 5 + n), "issued_on": "2024-03-01", "status": "open",
            "total": "421.00", "lines": (0..4).map(line).collect::<Vec<_>>(),
        })
    };
    json!({
        "id": id, "name": format!("Customer number {id}"), "email": format!("c{id}@example.com"), "city": "City 7",
        "invoices": (0..5).map(invoice).collect::<Vec<_>>(), "unpaid_total": "2105.00", "invoice_count": 5,
    })
}

fn filled(folder: &std::path::Path) -> Arc<EmbeddedStore> {
    let store = EmbeddedStore::open(EmbeddedOptions::new(folder)).expect("a store");
    let mut batch = store.begin().expect("a batch");
    let record = VersionRecord {
        id: VERSION,
        model: "customer_account".into(),
        definition_hash: "0".into(),
        state: VersionState::Active,
        sources: Vec::new(),
        shape: Some(shape()),
        created_at_ms: 0,
    };
    batch.put_version(&record).expect("a version");
    for id in 1..=DOCUMENTS {
        let (key, body) = (key::of(ValueRef::Int(id)), document(id).to_string());
        let write = DocumentWrite { id: &key, body: Some(body.as_bytes()), entries: &[], stamp: None };
        batch.put_documents(VERSION, 0, &[write]).expect("a document");
    }
    batch.commit().expect("committed");
    store
}

/// A field that resolves to a member of its parent, as the usual code over JSON does.
fn member(name: &str, of: TypeRef) -> Field {
    let wanted: Arc<str> = name.into();
    Field::new(name, of, move |context| {
        let wanted = wanted.clone();
        FieldFuture::new(async move {
            let parent = context.parent_value.try_downcast_ref::<Value>()?;
            Ok(match &parent[&*wanted] {
                Value::Null => None,
                Value::Array(items) => Some(FieldValue::list(items.iter().map(|item| FieldValue::borrowed_any(item)))),
                Value::Number(number) => Some(FieldValue::value(number.as_i64().unwrap_or_default())),
                Value::String(text) => Some(FieldValue::value(text.clone())),
                _ => None,
            })
        })
    })
}

fn object(name: &str, fields: &[ShapeField], out: &mut Vec<Object>) -> Object {
    let mut object = Object::new(name);
    for field in fields {
        let of = match &field.kind {
            FieldType::Scalar(ColumnType::Int32) => TypeRef::named(TypeRef::INT),
            FieldType::Scalar(_) => TypeRef::named(TypeRef::STRING),
            FieldType::Nested { fields, .. } => {
                let nested = format!("{name}_{}", field.name);
                let made = self::object(&nested, fields, out);
                out.push(made);
                TypeRef::named_nn_list(nested)
            }
        };
        object = object.field(member(&field.name, of));
    }
    object
}

/// The same schema by async-graphql, over the same store.
fn dynamic(store: Arc<EmbeddedStore>) -> Schema {
    let mut objects = Vec::new();
    let root = object("CustomerAccount", &shape().fields, &mut objects);
    let point = Field::new("customerAccount", TypeRef::named("CustomerAccount"), move |context| {
        let store = store.clone();
        FieldFuture::new(async move {
            let id: i64 = context.args.try_get("id")?.string()?.parse()?;
            let found = store.get(VERSION, &key::of(ValueRef::Int(id))).await?;
            let parsed = found.map(|found| serde_json::from_slice::<Value>(&found.body)).transpose()?;
            Ok(parsed.map(FieldValue::owned_any))
        })
    });
    let query = Object::new("Query").field(point.argument(InputValue::new("id", TypeRef::named_nn(TypeRef::ID))));
    let schema = Schema::build("Query", None, None).register(query).register(root);
    objects.into_iter().fold(schema, |schema, object| schema.register(object)).finish().expect("a schema")
}

fn request(id: i64) -> Bytes {
    json!({"query": QUERY, "variables": {"id": id.to_string()}}).to_string().into()
}

async fn per_second<F: Future<Output = usize>>(mut once: impl FnMut(i64) -> F) -> f64 {
    let (start, mut count) = (Instant::now(), 0i64);
    while start.elapsed() < ROUND {
        for _ in 0..10 {
            count += 1;
            assert!(once(1 + count * 7919 % DOCUMENTS).await > 500, "a whole document");
        }
    }
    count as f64 / start.elapsed().as_secs_f64()
}

pub(crate) async fn measure() -> Vec<Figure> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = filled(folder.path());
    let ours = Executor::new(VERSION, shape(), store.clone()).expect("a schema");
    let theirs = dynamic(store);
    let by_them = async |body: Bytes| {
        let request: async_graphql::Request = serde_json::from_slice(&body).expect("a request");
        serde_json::to_vec(&theirs.execute(request).await).expect("JSON")
    };
    let parsed = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON");
    let (one, other) = (ours.execute(request(7)).await, by_them(request(7)).await);
    assert_eq!(parsed(&one)["data"], parsed(&other)["data"], "both answer the same");
    let (mut us, mut them) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        them.push(per_second(async |id| by_them(request(id)).await.len()).await);
        us.push(per_second(async |id| ours.execute(request(id)).await.len()).await);
    }
    vec![Figure::new(
        "graphql_vs_dynamic",
        median(&mut us),
        "requests/s",
        Some(median(&mut them)),
        Demand::RatioAtLeast(4.0, "ratio ≥ 4"),
    )]
}
