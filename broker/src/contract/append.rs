//! Promises of appending.

use super::*;

pub(super) async fn records_come_back_as_appended(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 2).await;
    let producer = log.producer("p").await.unwrap();
    let records =
        [(5, "key", Some("value")), (-3, "", Some("")), (i64::MAX, "gone", None), (4, "\0\u{ff}", Some("other"))];
    let offsets = producer
        .append(vec![batch("t", 1, &records), values("t", 0, &["a"]), batch("t", 1, &records[..1])], None)
        .await
        .unwrap();
    assert_eq!(offsets, [Offset(0), Offset(0), Offset(4)], "the first offset of each batch");
    let expected = records.iter().chain(&records[..1]).enumerate().map(|(offset, (timestamp_ms, key, value))| Record {
        offset: offset as u64,
        timestamp_ms: *timestamp_ms,
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    });
    assert_eq!(read_all(&*log, "t", 1).await, expected.collect::<Vec<_>>());
    let fetched = fetch_one(&*log, "t", 0, 0, 1000).await;
    assert_eq!(&fetched[0].prelude[..], b"prelude");
    assert_eq!(fetched[0].from, at("t", 0));
    let mut other = values("t", 0, &["b"]);
    other.prelude = Bytes::new();
    let behind = producer.offsets_behind();
    assert_eq!(append(&producer, other).await, Offset(1 + behind));
    assert!(fetch_one(&*log, "t", 0, 1 + behind, 1000).await[0].prelude.is_empty(), "each batch has its own prelude");
    let next = Offset(2 + 2 * behind);
    assert_eq!(append(&producer, values("t", 0, &[])).await, next, "a batch without records takes no offset");
    assert_eq!(append(&producer, values("t", 0, &["c"])).await, next);
}

pub(super) async fn appends_in_flight_keep_their_order(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    // More than any queue holds.
    let texts_in: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let appends =
        texts_in.iter().map(|text| Box::pin(append(&producer, values("t", 0, &[text]))) as Waiting<'_, Offset>);
    let offsets = in_order(appends.collect()).await;
    assert!(offsets.is_sorted(), "in the order of their first polls");
    assert_eq!(offsets.last(), Some(&Offset(499 * (1 + producer.offsets_behind()))));
    assert!(texts(&read_all(&*log, "t", 0).await) == texts_in, "each at its offset");
}

pub(super) async fn an_append_is_all_or_none(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    producer.append(vec![values("t", 0, &["a"])], Some(Bytes::from_static(b"1"))).await.unwrap();
    let half = vec![values("t", 0, &["b"]), values("absent", 0, &["b"])];
    let refused = producer.append(half, Some(Bytes::from_static(b"2"))).await;
    assert!(matches!(refused, Err(Error::UnknownTopic { .. })), "{refused:?}");
    let producer = log.producer("p").await.unwrap();
    let beyond = producer.append(vec![values("t", 0, &["b"]), values("t", 1, &["b"])], None).await;
    assert!(matches!(beyond, Err(Error::UnknownPartition { .. })), "{beyond:?}");
    assert_eq!(texts(&read_all(&*log, "t", 0).await), ["a"]);
    assert_eq!(producer.checkpoint().await.unwrap().as_deref(), Some(&b"1"[..]));
}

pub(super) async fn a_failed_append_leaves_no_gap(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    let other = log.producer("other").await.unwrap();
    let appends: Vec<Waiting<'_, Result<Vec<Offset>, Error>>> = vec![
        Box::pin(producer.append(vec![values("t", 0, &["1"])], None)),
        Box::pin(producer.append(vec![values("absent", 0, &["2"])], None)),
        Box::pin(producer.append(vec![values("t", 0, &["3"])], Some(Bytes::from_static(b"3")))),
        Box::pin(other.append(vec![values("t", 0, &["other"])], None)),
    ];
    let answers = in_order(appends).await;
    assert!(answers[0].is_ok() && answers[1].is_err(), "{answers:?}");
    assert!(matches!(answers[2], Err(Error::Broken { .. })), "{answers:?}");
    assert!(answers[3].is_ok(), "another producer goes on: {answers:?}");
    assert!(producer.append(vec![values("t", 0, &["4"])], None).await.is_err());
    let mut kept = texts(&read_all(&*log, "t", 0).await);
    if producer.offsets_behind() > 0 {
        // Appends of different producers have an order where one writer takes them all, as in the embedded engine.
        kept.sort();
    }
    assert_eq!(kept, ["1", "other"]);
    let again = log.producer("p").await.unwrap();
    assert_eq!(again.checkpoint().await.unwrap(), None);
    append(&again, values("t", 0, &["2"])).await;
}

pub(super) async fn a_later_producer_shuts_out_the_earlier(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let first = log.producer("p").await.unwrap();
    let other = log.producer("q").await.unwrap();
    first.append(vec![values("t", 0, &["a"])], Some(Bytes::from_static(b"of the first"))).await.unwrap();
    let second = log.producer("p").await.unwrap();
    assert_eq!(second.checkpoint().await.unwrap().as_deref(), Some(&b"of the first"[..]));
    for _ in 0..2 {
        let late = first.append(vec![values("t", 0, &["late"])], Some(Bytes::from_static(b"late"))).await;
        assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    }
    assert!(matches!(first.checkpoint().await, Err(Error::Fenced { .. })));
    append(&second, values("t", 0, &["b"])).await;
    append(&other, values("t", 0, &["c"])).await;
    assert_eq!(texts(&read_all(&*log, "t", 0).await), ["a", "b", "c"]);
    assert_eq!(second.checkpoint().await.unwrap().as_deref(), Some(&b"of the first"[..]));
}

pub(super) async fn nameless_appends_shut_nobody_out(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 2).await;
    let named = log.producer("p").await.unwrap();
    append(&named, values("t", 0, &["a"])).await;
    let several = |n: &str| vec![values("t", 0, &[n]), values("t", 1, &[n, n])];
    let (one, other) = tokio::join!(log.append(several("b")), log.append(several("b")));
    one.unwrap();
    other.unwrap();
    append(&named, values("t", 0, &["c"])).await;
    // What was answered is seen, also in what is told of the end.
    assert_eq!(texts(&read_all(&*log, "t", 0).await), ["a", "b", "b", "c"]);
    assert_eq!(texts(&read_all(&*log, "t", 1).await), ["b"; 4]);
    let unknown = log.append(vec![values("nowhere", 0, &["x"])]).await;
    assert!(matches!(unknown, Err(Error::UnknownTopic { .. })), "{unknown:?}");
    log.append(several("d")).await.unwrap();
    assert_eq!(read_all(&*log, "t", 1).await.len(), 6);
}

pub(super) async fn a_checkpoint_stays_until_replaced(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    assert_eq!(producer.checkpoint().await.unwrap(), None);
    producer.append(Vec::new(), Some(Bytes::from_static(b"1"))).await.unwrap();
    append(&producer, values("t", 0, &["a"])).await;
    assert_eq!(producer.checkpoint().await.unwrap().as_deref(), Some(&b"1"[..]));
    producer.append(vec![values("t", 0, &["b"])], Some(Bytes::new())).await.unwrap();
    assert_eq!(producer.checkpoint().await.unwrap().as_deref(), Some(&b""[..]), "empty is not absent");
    assert_eq!(log.producer("q").await.unwrap().checkpoint().await.unwrap(), None);
}

pub(super) async fn what_is_answered_is_durable<F: AsyncFn(&str) -> Arc<dyn EventLog>>(open: &F) {
    let log = open("durable").await;
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    producer.append(vec![values("t", 0, &["a", "b"])], Some(Bytes::from_static(b"2"))).await.unwrap();
    log.commit_offsets("g", &[(at("t", 0), Offset(1))]).await.unwrap();
    drop((log, producer));
    let log = open("durable").await;
    assert_eq!(log.topics().await.unwrap(), [("t".into(), 1)]);
    assert_eq!(texts(&read_all(&*log, "t", 0).await), ["a", "b"]);
    assert_eq!(log.committed_offsets("g").await.unwrap(), [(at("t", 0), Offset(1))]);
    let producer = log.producer("p").await.unwrap();
    assert_eq!(producer.checkpoint().await.unwrap().as_deref(), Some(&b"2"[..]));
    let next = 2 + producer.offsets_behind();
    assert_eq!(append(&producer, values("t", 0, &["c"])).await, Offset(next));
    assert_eq!(&fetch_one(&*log, "t", 0, next, 1000).await[0].prelude[..], b"prelude");
}

pub(super) async fn producers_at_once_each_keep_their_order(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 2).await;
    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let log = log.clone();
            tokio::spawn(async move {
                let producer = log.producer(&format!("p{number}")).await.unwrap();
                let mut placed = Vec::new();
                for turn in 0..50 {
                    let text = format!("{number} {turn:02}");
                    let batches = vec![values("t", 0, &[&text, &text]), values("t", 1, &[&text])];
                    let offsets = producer.append(batches, None).await.unwrap();
                    placed.push((offsets[0].0, text));
                }
                placed
            })
        })
        .collect();
    let mut placed = Vec::new();
    for task in tasks {
        placed.extend(task.await.unwrap());
    }
    let first = read_all(&*log, "t", 0).await;
    let offsets: Vec<u64> = first.iter().map(|record| record.offset).collect();
    let behind = log.producer("p").await.unwrap().offsets_behind();
    assert_eq!(offsets.len(), 400);
    assert!(offsets.is_sorted_by(|a, b| a < b));
    assert!(behind > 0 || offsets.last() == Some(&399), "no gaps but behind appends");
    let first = texts(&first);
    for (offset, text) in placed {
        let at = offsets.binary_search(&offset).expect("there is a record at the offset that was answered");
        assert_eq!(first[at..at + 2], [text.as_str(), text.as_str()], "at its offset");
    }
    for texts in [first, texts(&read_all(&*log, "t", 1).await)] {
        for number in 0..4 {
            let own: Vec<_> = texts.iter().filter(|text| text.starts_with(&number.to_string())).collect();
            assert!(own.is_sorted(), "each producer's records are in its order");
        }
    }
}

pub(super) async fn a_dropped_append_disturbs_nobody(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    for turn in 0..100 {
        let mut dropped = Box::pin(append(&producer, values("t", 0, &["dropped"])));
        std::future::poll_fn(|context| {
            // Whether it happened is nobody's promise.
            let _ = dropped.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        drop(dropped);
        append(&producer, values("t", 0, &[&turn.to_string()])).await;
    }
    let mut kept = texts(&read_all(&*log, "t", 0).await);
    kept.retain(|text| text != "dropped");
    assert_eq!(kept, (0..100).map(|turn| turn.to_string()).collect::<Vec<_>>());
}
