//! Where the workers of a case keep rows and documents.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use headwater_schemas::SourcePosition;
use headwater_schemas::model::definition::ReadModel;
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoRows};
use headwater_store::{
    DocumentReader, DocumentStore, Filter, IndexQuery, KeyRange, RowStore, VersionId, VersionRecord, VersionState,
};
use headwater_test_servers::Mongo;
use tokio::runtime::Runtime;

use crate::documents::{self, Contents, TestDocuments};
use crate::source::SOURCE;

/// Kinds of engines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Rows in one embedded store for all, documents in memory.
    Here,
    /// Both in MongoDB, which each worker reaches by connections of its own.
    Mongo,
}

pub(crate) enum Engine {
    Here { rows: Arc<EmbeddedStore>, documents: Arc<TestDocuments>, _folder: tempfile::TempDir },
    Mongo { options: MongoOptions, documents: Arc<MongoDocuments> },
}

/// The driver's runtime: not that of the test, which blocks its thread.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

impl Engine {
    pub(crate) fn open(kind: Kind) -> Self {
        match kind {
            Kind::Here => {
                let folder = match std::path::Path::new("/dev/shm").is_dir() {
                    true => tempfile::tempdir_in("/dev/shm").unwrap(),
                    false => tempfile::tempdir().unwrap(),
                };
                let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
                let rows = EmbeddedStore::open(options).unwrap();
                Self::Here { rows, documents: documents::new(), _folder: folder }
            }
            Kind::Mongo => {
                static NUMBER: AtomicU32 = AtomicU32::new(0);
                // Ends with this process, by its watchdog.
                static SERVER: LazyLock<Mongo> = LazyLock::new(Mongo::start);
                let database = format!("case{}", NUMBER.fetch_add(1, Ordering::Relaxed));
                let options = MongoOptions { shared: true, ..MongoOptions::new(SERVER.url(), database) };
                let documents = RUNTIME.block_on(MongoDocuments::open(options.clone())).unwrap();
                Self::Mongo { options, documents }
            }
        }
    }

    /// The stores as one more worker has them.
    pub(crate) fn join(&self) -> (Arc<dyn RowStore>, Arc<dyn DocumentStore>) {
        match self {
            Self::Here { rows, documents, .. } => (rows.clone(), documents.clone()),
            Self::Mongo { options, .. } => RUNTIME.block_on(async {
                let documents = MongoDocuments::open(options.clone()).await.unwrap();
                (
                    MongoRows::open(options.clone()).await.unwrap() as Arc<dyn RowStore>,
                    documents as Arc<dyn DocumentStore>,
                )
            }),
        }
    }

    pub(crate) fn frontier(&self) -> SourcePosition {
        let frontier = match self {
            Self::Here { documents, .. } => documents.state.lock().frontiers.get(SOURCE).copied(),
            Self::Mongo { documents, .. } => {
                let batch = documents.begin().unwrap();
                // Reads anew what others wrote.
                batch.versions().unwrap();
                batch.frontiers().unwrap().get(SOURCE).copied()
            }
        };
        frontier.map_or_else(SourcePosition::default, |it| it.position)
    }

    /// The version of a model that serves; several, if something is wrong.
    pub(crate) fn active(&self, model: &str) -> Vec<VersionRecord> {
        match self {
            Self::Here { documents, .. } => documents.state.lock().active(model),
            Self::Mongo { documents, .. } => {
                let mut versions = documents.begin().unwrap().versions().unwrap();
                versions.retain(|it| it.model == model && it.state == VersionState::Active);
                versions
            }
        }
    }

    /// Documents and index entries. `expected` says which entries are looked for, where they can only be found by value.
    pub(crate) fn contents(&self, version: VersionId, model: &ReadModel, expected: &Contents) -> Contents {
        match self {
            Self::Here { documents, .. } => documents.state.lock().contents(version),
            Self::Mongo { documents, .. } => {
                let reader = documents.reader();
                RUNTIME.block_on(async {
                    let mut bodies = BTreeMap::new();
                    let mut entries: BTreeMap<Vec<u8>, Vec<(u16, Vec<u8>)>> = BTreeMap::new();
                    for (id, document) in find(&*reader, version, None).await {
                        bodies.insert(id.clone(), document);
                        entries.insert(id, Vec::new());
                    }
                    let count = reader.document_count(version).await.unwrap();
                    assert_eq!(count, bodies.len() as u64, "they are counted");
                    for number in 0..model.indexes.len() as u16 {
                        let of_index = expected.1.values().flatten().filter(|(index, _)| *index == number);
                        let mut values: Vec<&Vec<u8>> = of_index.map(|(_, value)| value).collect();
                        values.sort();
                        values.dedup();
                        let (mut between, mut low) = (Vec::new(), Vec::new());
                        for value in values {
                            let exactly = KeyRange::exactly(value);
                            between.push(KeyRange { low: std::mem::take(&mut low), high: Some(exactly.low.clone()) });
                            low = exactly.high.clone().unwrap();
                            for (id, _) in find(&*reader, version, Some((number, vec![exactly]))).await {
                                entries.entry(id).or_default().push((number, value.clone()));
                            }
                        }
                        between.push(KeyRange { low, high: None });
                        let stale = find(&*reader, version, Some((number, between))).await;
                        assert!(
                            stale.is_empty(),
                            "entries of {:?} that nothing has",
                            model.indexes[usize::from(number)]
                        );
                    }
                    (bodies, entries)
                })
            }
        }
    }

    /// Writes that found something newer, where that is counted.
    pub(crate) fn late(&self) -> u64 {
        match self {
            Self::Here { documents, .. } => documents.state.lock().late,
            Self::Mongo { .. } => 0,
        }
    }
}

async fn find(
    reader: &dyn DocumentReader,
    version: VersionId,
    filter: Option<(u16, Vec<KeyRange>)>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let query = IndexQuery {
        walk: filter.map(|(index, ranges)| Filter { index, ranges, negated: false }),
        descending: false,
        filters: Vec::new(),
        after: None,
        limit: 10_000,
        entries_max: 1_000_000,
        bytes_max: usize::MAX,
    };
    let page = reader.query(version, &query).await.unwrap();
    assert!(page.next.is_none());
    page.documents.into_iter().map(|(id, document)| (id, document.body.to_vec())).collect()
}
