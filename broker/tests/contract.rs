//! The embedded engine keeps the contract of the seam.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use headwater_broker::EventLog;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    headwater_broker::contract::run(async |name: &str| {
        let mut options = EmbeddedOptions::new(folder.path().join(name));
        options.maintenance_interval = Duration::from_millis(20);
        EmbeddedLog::open(options).unwrap() as Arc<dyn EventLog>
    })
    .await;
}
