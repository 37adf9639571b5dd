//! `mongodb_documents`: documents per second that the store writes to MongoDB, beside a plain loop of the driver that
//! replaces the same stored documents in unordered bulks with the same write concern, into a collection with the same
//! indexes. `mongodb_documents_bare` leaves the loop's indexes away, which no collection that is queried can do.

use std::time::{Duration, Instant};

use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, ModelShape, ShapeField};
use headwater_schemas::{ColumnType, ValueRef, key};
use headwater_store::mongodb::{MongoDocuments, MongoOptions};
use headwater_store::{DocumentStore, DocumentWrite, VersionId, VersionRecord, VersionState};
use headwater_test_servers::Mongo;
use mongodb::bson::{RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::{Client, Database};

use crate::report::{Demand, Figure, median};

const VERSION: VersionId = VersionId(1);

/// Documents of one micro-batch, which the store flushes at once, and the loop sends at once.
const BATCH: usize = 1_000;

/// Rounds in which both write all documents; the first, in which they are new, is measured too.
const ROUNDS: usize = 7;

/// Writes all documents three times in turn: by the store, and by the loop with and without indexes.
pub(crate) async fn measure(scale: f64) -> Vec<Figure> {
    let documents = ((20_000.0 * scale) as usize).div_ceil(BATCH) * BATCH;
    let server = Mongo::start();
    let store = MongoDocuments::open(MongoOptions::new(server.url(), "bench")).await.expect("the server is up");
    let client = Client::with_uri_str(server.url()).await.expect("the server is up");
    let database = client.database("bench");
    let indexes = doc! { "createIndexes": "plain_indexed", "indexes": [
        { "key": { "_hw.e": 1, "_id": 1 }, "name": "up" },
        { "key": { "_hw.e": -1, "_id": -1 }, "name": "down" },
    ] };
    database.run_command(indexes).await.expect("an empty collection");
    register(&store);
    let (mut ours, mut indexed, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let contents: Vec<Content> = (0..documents).map(|n| Content::new(n, round)).collect();
        let began = Instant::now();
        tokio::task::block_in_place(|| contents.chunks(BATCH).for_each(|batch| write(&store, batch)));
        ours.push(rate(documents, began.elapsed()));
        let stored = read_back(&database).await;
        assert_eq!(stored.len(), documents, "every document is stored");
        for (collection, rates) in [("plain_indexed", &mut indexed), ("plain_bare", &mut bare)] {
            let began = Instant::now();
            for batch in stored.chunks(BATCH) {
                replace(&database, collection, batch).await;
            }
            rates.push(rate(documents, began.elapsed()));
        }
        println!(
            "  round {round}: {:.0} documents/s, plain {:.0}, without indexes {:.0}",
            ours[round], indexed[round], bare[round]
        );
    }
    let ours = median(&mut ours);
    vec![
        Figure::new(
            "mongodb_documents",
            ours,
            "documents/s",
            Some(median(&mut indexed)),
            Demand::RatioAtLeast(0.8, "ratio ≥ 0.8"),
        ),
        Figure::new("mongodb_documents_bare", ours, "documents/s", Some(median(&mut bare)), Demand::Report),
    ]
}

fn rate(documents: usize, took: Duration) -> f64 {
    documents as f64 / took.as_secs_f64()
}

/// About 2 KB: an account with some invoices, as the example's models make them.
struct Content {
    id: Vec<u8>,
    body: Vec<u8>,
    entries: Vec<(u16, Vec<u8>)>,
}

impl Content {
    fn new(n: usize, round: usize) -> Self {
        let mut body = format!(
            "{{\"id\":{n},\"name\":\"Customer number {n}\",\"email\":\"customer{n}@example.com\",\"invoices\":["
        );
        for invoice in 0..14 {
            let comma = if invoice > 0 { "," } else { "" };
            let (day, total) = (1 + invoice * 2, (n * 31 + invoice * 7 + round) % 100_000);
            body += &format!(
                "{comma}{{\"id\":{},\"number\":\"INV-{n:08}-{invoice}\",\"issued_on\":\"2026-03-{day:02}\",\
                 \"status\":\"open\",\"paid\":false,\"total\":\"{}.{:02}\"}}",
                n * 100 + invoice,
                total / 100,
                total % 100
            );
        }
        body += &format!("],\"unpaid_total\":\"{}.50\",\"invoice_count\":14}}", (n + round) % 9_999);
        let unpaid = format!("{}.50", (n + round) % 9_999);
        let entries = vec![
            (0, key::of(ValueRef::Text(&format!("customer{n}@example.com")))),
            (1, key::of(ValueRef::Text(["open", "overdue", "paid"][(n + round) % 3]))),
            (2, key::of(ValueRef::Decimal(&unpaid))),
        ];
        Self { id: key::of(ValueRef::Int(n as i64)), body: body.into_bytes(), entries }
    }
}

fn register(store: &MongoDocuments) {
    let scalar =
        |name: &str, kind| ShapeField { name: name.into(), doc: None, required: true, kind: FieldType::Scalar(kind) };
    let invoices = vec![
        scalar("id", ColumnType::Int64),
        scalar("number", ColumnType::Text),
        scalar("issued_on", ColumnType::Date),
        scalar("status", ColumnType::Enum),
        scalar("paid", ColumnType::Bool),
        scalar("total", ColumnType::Decimal),
    ];
    let nested = FieldType::Nested { cardinality: Cardinality::Many, fields: invoices };
    let fields = vec![
        scalar("id", ColumnType::Int64),
        scalar("name", ColumnType::Text),
        scalar("email", ColumnType::Text),
        ShapeField { name: "invoices".into(), doc: None, required: true, kind: nested },
        scalar("unpaid_total", ColumnType::Decimal),
        scalar("invoice_count", ColumnType::Int64),
    ];
    let shape = ModelShape {
        model: "account".into(),
        version: 1,
        doc: None,
        key: vec![ColumnType::Int64],
        fields,
        indexes: vec![],
    };
    let record = VersionRecord {
        id: VERSION,
        model: "account".into(),
        definition_hash: "bench".into(),
        state: VersionState::Active,
        sources: Vec::new(),
        shape: Some(shape),
        created_at_ms: 0,
    };
    tokio::task::block_in_place(|| {
        let mut batch = store.begin().expect("nobody else writes");
        batch.put_version(&record).expect("a version");
        batch.flush().expect("the server is up");
    });
}

/// One micro-batch by the store, as the projector makes it.
fn write(store: &MongoDocuments, contents: &[Content]) {
    let entries: Vec<Vec<(u16, &[u8])>> = contents
        .iter()
        .map(|content| content.entries.iter().map(|(index, value)| (*index, value.as_slice())).collect())
        .collect();
    let writes: Vec<DocumentWrite<'_>> = contents
        .iter()
        .zip(&entries)
        .map(|(content, entries)| DocumentWrite { id: &content.id, body: Some(&content.body), entries, stamp: None })
        .collect();
    let mut batch = store.begin().expect("nobody else writes");
    let written = batch.put_documents(VERSION, 0, &writes).expect("small documents");
    assert_eq!(written.written as usize, contents.len(), "all of them are new");
    batch.flush().expect("the server is up");
}

/// The documents as they are stored, as the loop is to write them.
async fn read_back(database: &Database) -> Vec<RawDocumentBuf> {
    let collection = database.collection::<RawDocumentBuf>("account_v1");
    let mut cursor = collection.find(doc! {}).await.expect("the server is up");
    let mut documents = Vec::new();
    while cursor.advance().await.expect("the server is up") {
        documents.push(cursor.current().to_owned());
    }
    documents
}

/// One unordered bulk of replacements by the driver. Its own bulk call needs a newer server; this is what it sends.
async fn replace(database: &Database, collection: &str, documents: &[RawDocumentBuf]) {
    let mut updates = RawArrayBuf::new();
    for document in documents {
        let id = document.get_str("_id").expect("every document has an id");
        updates.push(rawdoc! { "q": { "_id": id }, "u": document.clone(), "upsert": true });
    }
    let command = rawdoc! {
        "update": collection,
        "updates": updates,
        "ordered": false,
        "writeConcern": { "w": "majority", "j": true },
    };
    let answer = database.run_raw_command(command).await.expect("the server is up");
    assert_eq!(answer.get_i32("n").ok(), i32::try_from(documents.len()).ok());
}
