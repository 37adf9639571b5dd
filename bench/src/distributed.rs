//! `distributed_projection` and `distributed_freshness`: the same way of the data over a real Kafka and a real MongoDB, all
//! on this machine, with rows beside the projector and with rows in MongoDB.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use headwater_broker::EventLog;
use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoReader, MongoRows};
use headwater_store::{DocumentStore, Paired};
use headwater_test_servers::{Kafka, Mongo};

use crate::freshness;
use crate::load::{self, Scale};
use crate::pipeline::{Capture, PREFIX, Projection};
use crate::report::{Demand, Figure};

const CHANGES_PER_SECOND: u32 = 500;

/// Where rows are. In MongoDB they are for several projectors, of which one is running here.
#[derive(Clone, Copy)]
enum Rows {
    Embedded,
    Mongodb,
}

/// Kafka and MongoDB.
struct Engines {
    kafka: Kafka,
    mongodb: Mongo,
}

impl Engines {
    fn start() -> Self {
        Self { kafka: Kafka::start(), mongodb: Mongo::start() }
    }

    fn log(&self) -> Arc<dyn EventLog> {
        let options = KafkaOptions { prefix: PREFIX.into(), ..KafkaOptions::new(self.kafka.bootstrap()) };
        KafkaLog::open(options).expect("the options are sound")
    }

    /// A projector over a database of its own; its documents are read by a reader that hears of them from the server, as
    /// one in another process does.
    async fn projection(
        &self,
        log: &Arc<dyn EventLog>,
        rows: Rows,
        model: &str,
        database: &str,
        folder: &Path,
    ) -> Projection {
        let shared = matches!(rows, Rows::Mongodb);
        let options = MongoOptions { shared, ..MongoOptions::new(self.mongodb.url(), database) };
        let documents = MongoDocuments::open(options.clone()).await.expect("the server is up");
        let reader = MongoReader::open(options.clone()).await.expect("the server is up");
        match rows {
            Rows::Embedded => {
                let rows =
                    EmbeddedStore::open(EmbeddedOptions::new(folder.join(database))).expect("a fresh folder opens");
                let store = Paired::new(rows, documents as Arc<dyn DocumentStore>);
                Projection::start_over(log, store, reader, model)
            }
            Rows::Mongodb => {
                let rows = MongoRows::open(options).await.expect("the server is up");
                Projection::start_shared_over(log, (rows, documents), reader, model)
            }
        }
    }
}

/// From the server's log to readable documents in MongoDB, rows per second.
pub(crate) async fn measure_projection(scale: f64) -> Vec<Figure> {
    let scale = Scale(0.2 * scale);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut figures = Vec::new();
    for (name, rows, demand) in [
        ("distributed_projection", Rows::Embedded, Demand::RatioAtLeast(1.0, "≥ 5,000 rows/s")),
        ("distributed_projection_rows_in_mongodb", Rows::Mongodb, Demand::Report),
    ] {
        let engines = Engines::start();
        let postgres = load::server();
        let log = engines.log();
        let capture = Capture::start_into(&postgres, &load::TABLES, log.clone());
        capture.reached(&load::wal_end(&postgres)).await;
        let projection = engines.projection(&log, rows, load::MODEL, name, folder.path()).await;
        projection.reached(&load::wal_end(&postgres)).await;
        let begin = Instant::now();
        load::write(&postgres, scale.rows());
        projection.reached(&load::wal_end(&postgres)).await;
        let rate = scale.rows().in_all() as f64 / begin.elapsed().as_secs_f64();
        println!("  {name}: {rate:.0} rows/s");
        assert_eq!(projection.documents().await, scale.rows().customers, "every customer has a document");
        projection.stop().await;
        capture.stop().await;
        figures.push(Figure::new(name, rate, "rows/s", Some(5_000.0), demand));
    }
    figures
}

/// From a commit's return to the moment its change is read from MongoDB by another reader.
pub(crate) async fn measure_freshness() -> Vec<Figure> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut figures = Vec::new();
    for (name, rows) in
        [("distributed_freshness", Rows::Embedded), ("distributed_freshness_rows_in_mongodb", Rows::Mongodb)]
    {
        let engines = Engines::start();
        let postgres = freshness::server();
        let log = engines.log();
        let capture = Capture::start_into(&postgres, &load::TABLES, log.clone());
        let projection = engines.projection(&log, rows, &freshness::model(), name, folder.path()).await;
        let seen = freshness::watch_changes(&postgres, &projection, CHANGES_PER_SECOND).await;
        projection.stop().await;
        capture.stop().await;
        figures.extend(seen.figures(name, (50.0, "p50 ≤ 50 ms"), (250.0, "p99 ≤ 250 ms"), CHANGES_PER_SECOND));
    }
    figures
}
