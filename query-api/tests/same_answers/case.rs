//! One random case from its seed: models over tables, their documents in a store, and an API that serves them.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_projector::{model_shape, naive};
use headwater_query_api::{ApiHandle, ApiOptions, json_schema, start};
use headwater_schemas::ColumnType;
use headwater_schemas::model::definition::Cardinality;
use headwater_schemas::model::{FieldType, IndexShape, ModelShape, ShapeField};
use headwater_store::{DocumentWrite, VersionId, VersionState};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::Value as Json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::fixture::engine::{self, Engine};
use crate::fixture::{AS_OF_MICROS, any_port, record};
use crate::models::random_model;
use crate::plain::{elements, matching, projected, values};
use crate::query::{Condition, Paths, Query, is_plain};
use crate::random::Random;
use crate::tables::{self, Table};

/// Rows of a table.
const ROWS_MAX: usize = 14;
/// Queries of each model.
const QUERIES: usize = 4;

/// What the cases did, to see that they do enough.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) documents: u64,
    pub(crate) indexes: u64,
    pub(crate) passed_over: u64,
    pub(crate) lists: u64,
    pub(crate) conditions: u64,
    pub(crate) found: u64,
    pub(crate) pages: u64,
    /// Conditions on dates, moments and UUIDs.
    pub(crate) of_written_types: u64,
    pub(crate) looked_into: u64,
    pub(crate) refused: u64,
    pub(crate) elements: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.documents += other.documents;
        self.indexes += other.indexes;
        self.passed_over += other.passed_over;
        self.lists += other.lists;
        self.conditions += other.conditions;
        self.found += other.found;
        self.pages += other.pages;
        self.of_written_types += other.of_written_types;
        self.looked_into += other.looked_into;
        self.refused += other.refused;
        self.elements += other.elements;
    }
}

/// A document, as the naive evaluator made it.
pub(crate) struct Known {
    /// As readers name it.
    pub(crate) id: String,
    pub(crate) document: Json,
}

/// A model and its documents in the order of their keys.
pub(crate) struct Served {
    pub(crate) shape: ModelShape,
    /// Indexes that are asked for: those whose values can be written into a query here.
    pub(crate) indexes: Vec<IndexShape>,
    pub(crate) documents: Vec<Known>,
}

pub(crate) struct Case<'r> {
    random: Random,
    models: Vec<Served>,
    client: Client,
    api: Option<ApiHandle>,
    stop: CancellationToken,
    runtime: &'r Runtime,
    _folder: tempfile::TempDir,
}

impl<'r> Case<'r> {
    pub(crate) fn new(engine: Engine, seed: u64, runtime: &'r Runtime) -> Self {
        let mut random = Random::new(seed);
        let mut tables: Vec<Table> =
            (0..random.between(2, 4)).map(|number| Table::random(&mut random, "s", number)).collect();
        for table in &mut tables {
            for _ in 0..random.between(2, ROWS_MAX) {
                let row = table.random_row(&mut random);
                let key = table.key_of(&row);
                table.rows.insert(key, row);
            }
        }
        let folder = match std::path::Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm").unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let opened = engine::open(engine, folder.path(), runtime);
        let mut batch = opened.store.begin().unwrap();
        let schemas = tables.iter().map(|table| (table.id().clone(), table.schema.clone())).collect();
        let mut models = Vec::new();
        for number in 1..=random.between(1, 2) as u32 {
            let model = random_model(&mut random, &tables, &format!("m{number}"));
            // Some are refused: columns that cannot be joined, for example.
            let Ok(shape) = model_shape(&model, &schemas) else { continue };
            let made = naive::evaluate(&model, &tables::naive(&tables));
            batch.put_version(&record(number, shape.clone(), VersionState::Active)).unwrap();
            let table = tables.iter().find(|table| *table.id() == model.root.table).unwrap();
            let mut documents = Vec::new();
            for (key, body) in &made.bodies {
                let entries: Vec<(u16, &[u8])> =
                    made.entries[key].iter().map(|(index, value)| (*index, value.as_slice())).collect();
                let write = DocumentWrite { id: key, body: Some(body), entries: &entries, stamp: None };
                batch.put_documents(VersionId(number), AS_OF_MICROS, &[write]).unwrap();
                let row = &table.rows[key];
                let parts = table.schema.key_columns().into_iter().map(|at| row[at].scalar().unwrap());
                documents
                    .push(Known { id: ModelShape::format_id(parts), document: serde_json::from_slice(body).unwrap() });
            }
            assert_valid(&shape, &documents);
            let indexes: Vec<IndexShape> =
                shape.indexes.iter().filter(|index| is_plain(&index.kind)).cloned().collect();
            for (number, index) in (0u16..).zip(&shape.indexes).filter(|(_, index)| is_plain(&index.kind)) {
                for (known, entries) in documents.iter().zip(made.entries.values()) {
                    assert_indexed(known, index, entries.iter().filter(|(of, _)| *of == number).map(|(_, key)| key));
                }
            }
            models.push(Served { shape, indexes, documents });
        }
        batch.commit().unwrap();

        let stop = CancellationToken::new();
        let registry = Arc::new(Mutex::new(Registry::default()));
        let options = ApiOptions::new(b"secret".to_vec());
        let reader = opened.reader(runtime);
        let api = runtime.block_on(start(options, any_port(), reader, registry, stop.clone())).unwrap();
        Self { random, models, client: Client::new(api.address), api: Some(api), stop, runtime, _folder: folder }
    }

    pub(crate) fn run(mut self) -> Tally {
        let mut tally = Tally::default();
        for served in std::mem::take(&mut self.models) {
            tally.documents += served.documents.len() as u64;
            tally.indexes += served.indexes.len() as u64;
            tally.passed_over += (served.shape.indexes.len() - served.indexes.len()) as u64;
            for _ in 0..QUERIES {
                self.list(&served, &mut tally);
                self.elements(&served, &mut tally);
            }
            self.by_id(&served);
        }
        tally
    }

    /// A list, all its pages.
    fn list(&mut self, served: &Served, tally: &mut Tally) {
        let query = Query::random(&mut self.random, served);
        if query.leaves_too_many() {
            tally.refused += 1;
            let [rest, graphql] = self.client.refusals(&served.shape, &query);
            assert_eq!((&rest, &rest.0), (&graphql, &"invalid_parameter".into()), "{query:?}");
            return;
        }
        let wanted = matching(served, &query);
        tally.lists += 1;
        tally.conditions += query.conditions.len() as u64;
        let is_written = |condition: &&Condition| {
            matches!(
                condition.index.kind,
                ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz | ColumnType::Uuid
            )
        };
        tally.of_written_types += query.conditions.iter().filter(is_written).count() as u64;
        tally.found += wanted.len() as u64;
        tally.looked_into += u64::from(query.looks_into_texts());
        let expected: Vec<Json> =
            wanted.iter().map(|known| projected(&known.document, &served.shape.fields, &query.paths)).collect();
        let name = &served.shape.model;
        let (rest, pages) = self.client.rest_list(name, &query);
        tally.pages += pages;
        assert_same("REST", &query, &ordered(&query, rest), &ordered(&query, expected.clone()));
        let (graphql, count) = self.client.graphql_list(&served.shape, &query);
        assert_same("GraphQL", &query, &ordered(&query, graphql), &ordered(&query, expected));
        let counted = (!query.looks_into_texts()).then_some(wanted.len() as u64);
        assert_eq!(count, counted, "totalCount of {query:?}");
        assert_eq!(self.client.rest_count(name, &query), counted, "count of {query:?}");
    }

    /// A nested array of one document, all its pages.
    fn elements(&mut self, served: &Served, tally: &mut Tally) {
        let mut all = Vec::new();
        arrays(&served.shape.fields, "", &mut all);
        if all.is_empty() || served.documents.is_empty() {
            return;
        }
        let (path, fields) = self.random.pick(&all);
        let Known { id, document } = self.random.pick(&served.documents);
        let (limit, paths) = (self.random.between(1, 3), Paths::random(&mut self.random, fields));
        let expected: Vec<Json> =
            elements(document, path).iter().map(|element| projected(element, fields, &paths)).collect();
        tally.elements += expected.len() as u64;
        let asked = (id, path, limit, &paths);
        let rest = self.client.rest_elements(&served.shape.model, id, path, limit, &paths);
        assert_same("REST", &asked, &rest, &expected);
        let graphql = self.client.graphql_elements(&served.shape, id, (path, fields), limit, &paths);
        assert_same("GraphQL", &asked, &graphql, &expected[..limit.min(expected.len())]);
    }

    /// One document, several, and one that is not there.
    fn by_id(&mut self, served: &Served) {
        let paths = Paths::random(&mut self.random, &served.shape.fields);
        let mut ids: Vec<&str> = served.documents.iter().map(|known| known.id.as_str()).collect();
        let absent = vec!["99"; served.shape.key.len()].join("~");
        ids.push(&absent);
        let again = ids[self.random.below(ids.len())];
        ids.push(again);
        let of = |id: &str| {
            let known = served.documents.iter().find(|known| known.id == id);
            known.map_or(Json::Null, |known| projected(&known.document, &served.shape.fields, &paths))
        };
        let expected: Vec<Json> = ids.iter().map(|id| of(id)).collect();
        let shape = &served.shape;
        assert_same("REST by ids", &ids, &self.client.rest_batch(&shape.model, &ids, &paths), &expected);
        assert_same("GraphQL by ids", &ids, &self.client.graphql_batch(shape, &ids, &paths), &expected);
        for _ in 0..3 {
            let id = *self.random.pick(&ids);
            let rest = self.client.rest_one(&shape.model, id, &paths);
            assert_eq!(rest.to_string(), of(id).to_string(), "REST, {id:?}");
            assert_eq!(self.client.graphql_one(shape, id, &paths).to_string(), of(id).to_string(), "GraphQL, {id:?}");
        }
    }
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        self.stop.cancel();
        self.client.close();
        if let Some(api) = self.api.take() {
            let _ = self.runtime.block_on(api.join);
        }
    }
}

/// Documents are valid by the schema that readers are given.
fn assert_valid(shape: &ModelShape, documents: &[Known]) {
    let validator = jsonschema::draft202012::new(&json_schema(shape)).unwrap();
    for known in documents {
        let errors: Vec<_> = validator.iter_errors(&known.document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?} in {} of {shape:?}", known.document);
    }
}

/// The arrays of a document that have pages: those in no other one.
fn arrays<'s>(fields: &'s [ShapeField], above: &str, out: &mut Vec<(String, &'s [ShapeField])>) {
    for field in fields {
        let path = format!("{above}{}", field.name);
        match &field.kind {
            FieldType::Scalar(_) => {}
            FieldType::Nested { cardinality: Cardinality::One, fields } => arrays(fields, &(path + "."), out),
            FieldType::Nested { fields, .. } => out.push((path, fields)),
        }
    }
}

/// What an index holds of a document is what the document shows.
fn assert_indexed<'k>(known: &Known, index: &IndexShape, stored: impl Iterator<Item = &'k Vec<u8>>) {
    let shown = values(&known.document, &index.name, &index.kind);
    let shown: BTreeSet<Vec<u8>> = shown.iter().map(|value| value.key(&index.kind)).collect();
    assert_eq!(stored.cloned().collect::<BTreeSet<_>>(), shown, "{index:?} of {}", known.document);
}

/// What has no order asked for comes in that of the index that was looked in: here in that of its text.
fn ordered(query: &Query, mut documents: Vec<Json>) -> Vec<Json> {
    if query.sort.is_none() && !query.conditions.is_empty() {
        documents.sort_by_cached_key(Json::to_string);
    }
    documents
}

/// The same documents in the same order, with the same members in the same order.
fn assert_same(who: &str, asked: &dyn std::fmt::Debug, given: &[Json], expected: &[Json]) {
    let text = |all: &[Json]| all.iter().map(Json::to_string).collect::<Vec<_>>();
    assert_eq!(text(given), text(expected), "{who}: {asked:?}");
}
