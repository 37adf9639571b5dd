//! What was read of a server that has been replaced is not gone on with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use headwater_broker::EventLog;
use headwater_projector::Share;
use headwater_schemas::TableId;
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_store::{DocumentStore, Error, RowStore, RowTransaction};

use crate::engine::{Engine, Kind};
use crate::flaky::FlakyRows;
use crate::log::MemoryLog;
use crate::source::{PREFIX, SOURCE};
use crate::worker::options;

/// Rows whose first transaction goes to a server that is replaced before it is committed.
struct Replaced {
    before: FlakyRows,
    now: Arc<dyn RowStore>,
    is_replaced: AtomicBool,
}

impl RowStore for Replaced {
    fn begin(&self) -> Result<Box<dyn RowTransaction + '_>, Error> {
        if self.is_replaced.swap(true, Ordering::Relaxed) { self.now.begin() } else { self.before.begin() }
    }
}

fn model(table: &str) -> ReadModel {
    let yaml = format!("model: m\nroot: {{ table: {SOURCE}.{table}, key: id }}\nfields: {{ id: id }}\n");
    parse("m.yaml", &yaml, &ParseContext::default()).unwrap()
}

#[test]
fn what_a_transaction_showed_that_failed_is_read_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let log: Arc<dyn EventLog> = Arc::new(MemoryLog::default());
    let share = |rows: Arc<dyn RowStore>, documents: Arc<dyn DocumentStore>, models: Vec<ReadModel>| {
        Share::new(options(PREFIX, models), log.clone(), rows, documents, runtime.handle().clone())
    };
    // The same number of changes led to both: by that alone they cannot be told apart.
    let [before, now] = ["before", "now"].map(|table| {
        let engine = Engine::open(Kind::Here);
        let (rows, documents) = engine.join();
        share(rows, documents, vec![model(table)]).lead(true).unwrap();
        engine
    });
    let before = FlakyRows { inner: before.join().0, commits_left: Arc::new(AtomicI64::new(0)) };
    let (rows, documents) = now.join();
    let rows = Replaced { before, now: rows, is_replaced: AtomicBool::new(false) };
    let mut worker = share(Arc::new(rows), documents, Vec::new());
    worker.refresh().unwrap_err();
    worker.refresh().unwrap();
    assert_eq!(worker.source_topics(), [TableId::new(SOURCE, "public", "now").topic(PREFIX)]);
}
