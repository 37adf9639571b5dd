//! Rows that are larger than the log takes.

use headwater_broker::kafka::{KafkaLog, KafkaOptions};
use headwater_schemas::Value;
use headwater_test_servers::{Kafka, Postgres};

use crate::harness::{Harness, PREFIX};

/// Neither in the snapshot nor in the stream does such a row stop what comes behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_does_not_take_is_carried_on_without_its_largest_value() {
    let kafka = Kafka::start();
    let mut options = KafkaOptions::new(kafka.bootstrap());
    options.prefix = PREFIX.into();
    options.topic_settings = [("max.message.bytes".to_owned(), "100000".to_owned())].into();
    let log = KafkaLog::open(options).unwrap();
    let server = Postgres::start();
    // Digits that no compression makes small enough.
    let large = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 9000))";
    server.psql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, little text, large text); ALTER TABLE t REPLICA IDENTITY FULL;
         INSERT INTO t VALUES (1, 'one', {large}), (2, 'two', 'short')"
    ));
    let mut harness = Harness::new(server, &["t"]);
    harness.read = log.clone();
    harness.start_into(log);
    harness.until_streaming().await;
    harness.caught_up().await;
    let is_cut = |row: &crate::harness::Row, little: &str| {
        (&row["little"], &row["large"]) == (&Value::Text(little.into()), &Value::Missing)
    };
    let rows: Vec<_> = harness.folded("t").await.into_values().collect();
    assert_eq!(rows.len(), 2);
    assert!(is_cut(&rows[0], "one") && rows[1]["large"] == Value::Text("short".into()), "of the snapshot");

    harness.server.psql(&format!("INSERT INTO t VALUES (3, 'three', {large})"));
    harness.server.psql("UPDATE t SET little = 'more' WHERE id = 1; INSERT INTO t VALUES (4, 'four', 'short')");
    harness.caught_up().await;
    let rows: Vec<_> = harness.folded("t").await.into_values().collect();
    assert_eq!(rows.len(), 4);
    assert!(is_cut(&rows[0], "more") && is_cut(&rows[2], "three"), "of the stream");
    assert_eq!(rows[3]["large"], Value::Text("short".into()));
    let letters = harness.dead_letters().await;
    assert_eq!(letters.len(), 3, "{letters:?}");
    for letter in letters {
        let told = ["carried on without large", "`hw.shop.public.t`", "`max.message.bytes`"];
        assert!(told.iter().all(|told| letter.cause.contains(told)), "{}", letter.cause);
    }

    // Once it is not so large, it is whole again.
    harness.server.psql("UPDATE t SET large = 'short' WHERE id = 1");
    harness.caught_up().await;
    let rows: Vec<_> = harness.folded("t").await.into_values().collect();
    assert_eq!(rows[0]["large"], Value::Text("short".into()));
}
