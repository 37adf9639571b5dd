//! Every kind of change becomes the right events.

use headwater_schemas::{Op, Value};

use crate::harness::{Event, Harness};

fn ops(events: &[Event]) -> Vec<Op> {
    events.iter().map(|event| event.op).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_then_stream() {
    let harness = Harness::streaming(
        "CREATE TABLE bills (id int PRIMARY KEY, amount numeric(12,2), note text);
         INSERT INTO bills SELECT n, n * 1.10, 'note ' || n FROM generate_series(1, 1000) n",
        &["bills"],
    )
    .await;
    harness.server.psql("INSERT INTO bills VALUES (2000, 5.00, NULL)");
    harness.server.psql("BEGIN; UPDATE bills SET amount = 6 WHERE id = 2000; DELETE FROM bills WHERE id = 1; COMMIT");
    harness.caught_up().await;
    let events = harness.events("bills").await;
    assert_eq!(events.len(), 1003);
    assert!(events[..1000].iter().all(|event| event.op == Op::Read && event.position.ordinal == 0));
    let changes = &events[1000..];
    assert_eq!(ops(changes), [Op::Create, Op::Update, Op::Delete]);
    assert_eq!(changes.iter().map(|event| event.last).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(changes.iter().map(|event| event.position.ordinal).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(changes[1].after("amount"), Value::Decimal("6.00".into()));
    assert_eq!(changes[2].before("id"), Value::Int(1));
    assert!(changes[2].before_is_key_only);
    assert_eq!(harness.folded("bills").await.len(), 1000);
    let progress = harness.progress().await;
    let last = progress.last().unwrap();
    assert!(last.snapshot_done && last.position > changes[2].position);
    assert_eq!(last.watermarks["hw.shop.public.bills"], [1004]);
}
