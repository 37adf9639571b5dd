//! The Kafka engine keeps the contract of the seam.

use std::sync::Arc;

use headwater_broker::EventLog;

use crate::named::Named;
use crate::world;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kafka_log_keeps_the_contract() {
    headwater_broker::contract::run_without_removal(&async |name: &str| {
        let log = world::log("contract");
        Arc::new(Named { log, name: format!("contract.{name}") }) as Arc<dyn EventLog>
    })
    .await;
}
