//! Capture into a real Kafka whose topic of checkpoints is lost.

use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_connectors::ErrorKind;
use headwater_test_servers::{Kafka, Postgres};

use crate::harness::{Harness, PREFIX};

const SLOT: &str = "SELECT slot_name, restart_lsn, confirmed_flush_lsn FROM pg_replication_slots";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_checkpoint_is_no_first_start() {
    let kafka = Kafka::start();
    let log = || {
        let mut options = KafkaOptions::new(kafka.bootstrap());
        options.prefix = PREFIX.into();
        KafkaLog::open(options).unwrap()
    };
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut harness = Harness::new(server, &["t"]);
    // The second time with a checkpoint that is there.
    for _ in 0..2 {
        harness.start_into(log());
        harness.until_streaming().await;
        harness.caught_up().await;
        harness.stop().await;
    }
    let lost = format!("{PREFIX}.checkpoints");
    let deleted = Kafka::program("org.apache.kafka.tools.TopicCommand")
        .args(["--bootstrap-server", &kafka.bootstrap(), "--delete", "--topic", &lost])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    let before = harness.server.psql(SLOT);
    assert!(before.starts_with("headwater_shop|"), "{before}");
    harness.server.psql("INSERT INTO t VALUES (2)");
    harness.start_into(log());
    let error = harness.ended().await;
    assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
    let said = error.to_string();
    assert!(said.contains("`hw.checkpoints` was lost") && said.contains("`hw.shop.__progress`"), "{said}");
    assert_eq!(harness.server.psql(SLOT), before, "the slot still holds what was not captured");
}
