//! Promises of reading.

use super::*;

pub(super) async fn begins_at_the_wanted_offset(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    append(&producer, values("t", 0, &["0", "1", "2"])).await;
    let second = append(&producer, values("t", 0, &["3", "4"])).await.0;
    let offsets = [0, 1, 2, second, second + 1];
    for wanted in 0..offsets[4] + 1 {
        let mut fetched = fetch_one(&*log, "t", 0, wanted, 10_000).await;
        // Behind an append there may be offsets without a record: reading goes on behind them.
        let first = offsets.iter().position(|offset| *offset >= wanted).unwrap();
        assert_eq!(fetched[0].base, Offset(offsets[first]));
        // An engine that is asked over a network may bring less than there is.
        while producer.offsets_behind() > 0 && fetched.last().unwrap().next().0 <= offsets[4] {
            fetched.extend(fetch_one(&*log, "t", 0, fetched.last().unwrap().next().0, 10_000).await);
        }
        let records: Vec<_> = fetched.iter().flat_map(records_of).collect();
        assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), offsets[first..]);
        assert_eq!(texts(&records), (first..5).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    // Whoever has read everything stands at the end.
    let high = log.watermarks(&at("t", 0)).await.unwrap().high;
    assert_eq!(high.0, offsets[4] + 1 + producer.offsets_behind());
    let mut next = Offset(0);
    while next < high {
        for batch in fetch_one(&*log, "t", 0, next.0, 10_000).await {
            next = batch.next();
        }
    }
    assert_eq!(next, high);
}

pub(super) async fn stops_at_its_limit(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    for _ in 0..10 {
        append(&producer, values("t", 0, &["0123456789"])).await;
    }
    let one = fetch_one(&*log, "t", 0, 0, 0).await;
    assert_eq!(one.len(), 1, "at least one batch, and no second when the first reaches the limit");
    let size = one[0].byte_len();
    let some = fetch_one(&*log, "t", 0, 0, 3 * size).await;
    let bytes: usize = some.iter().map(FetchedBatch::byte_len).sum();
    assert!(bytes <= 4 * size, "stops once the limit is reached: {bytes} of {size} each");
}

pub(super) async fn is_fair_among_partitions(log: Arc<dyn EventLog>) {
    create_plain(&*log, "large", 1).await;
    create_plain(&*log, "small", 2).await;
    let producer = log.producer("p").await.unwrap();
    for _ in 0..200 {
        append(&producer, values("large", 0, &["a rather long value, of which there are many"; 10])).await;
    }
    append(&producer, values("small", 1, &["x"])).await;
    let from = |large: u64| {
        let from = |partition, offset| FetchFrom { partition, offset: Offset(offset) };
        [from(at("large", 0), large), from(at("small", 0), 0), from(at("small", 1), 0)]
    };
    let limits = |bytes_max| FetchLimits { bytes_max, wait_max: Duration::from_secs(5) };
    let brings_small = |fetched: &[FetchedBatch]| fetched.iter().any(|batch| batch.from == at("small", 1));
    assert!(brings_small(&log.fetch(&from(0), limits(2000)).await.unwrap()), "both in one fetch that has room");
    // Without room for both, each has its turn.
    let mut next = 0;
    for _ in 0..100 {
        let fetched = log.fetch(&from(next), limits(1)).await.unwrap();
        if brings_small(&fetched) {
            return;
        }
        next = fetched[0].next().0;
    }
    panic!("a partition that always has records kept another from being read");
}

pub(super) async fn waits_for_a_record(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let start = std::time::Instant::now();
    let wait_max = Duration::from_millis(200);
    assert!(fetch_within(&*log, "t", 0, 0, 1000, wait_max).await.unwrap().is_empty());
    assert!(start.elapsed() >= wait_max, "not before the time is over");
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { fetch_within(&*log, "t", 0, 0, 1000, PATIENCE).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let producer = log.producer("p").await.unwrap();
    let start = std::time::Instant::now();
    append(&producer, values("t", 0, &["a"])).await;
    assert_eq!(with_records(&waiting.await.unwrap()), 1);
    assert!(start.elapsed() < PATIENCE / 4, "the append wakes it");
}

pub(super) async fn misses_no_append_while_it_waits(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    for turn in 0..300 {
        let wanted = turn * (1 + producer.offsets_behind());
        let reader = tokio::spawn({
            let log = log.clone();
            async move { fetch_within(&*log, "t", 0, wanted, 1000, PATIENCE).await.unwrap() }
        });
        append(&producer, values("t", 0, &["a"])).await;
        let start = std::time::Instant::now();
        assert_eq!(with_records(&reader.await.unwrap()), 1);
        assert!(start.elapsed() < PATIENCE / 4, "an append beside the start of the wait was missed");
    }
}

pub(super) async fn refuses_what_is_not_there(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    let producer = log.producer("p").await.unwrap();
    append(&producer, values("t", 0, &["a", "b"])).await;
    let end = 2 + producer.offsets_behind();
    let above = fetch_within(&*log, "t", 0, end + 1, 1000, Duration::ZERO).await;
    let refused = |wanted, high| wanted == end + 1 && high == end;
    assert!(
        matches!(above, Err(Error::OffsetOutOfRange { wanted, low: 0, high, .. }) if refused(wanted, high)),
        "{above:?}"
    );
    assert!(fetch_within(&*log, "t", 0, end, 1000, Duration::ZERO).await.unwrap().is_empty());
    let unknown = fetch_within(&*log, "absent", 0, 0, 1000, Duration::ZERO).await;
    assert!(matches!(unknown, Err(Error::UnknownTopic { .. })), "{unknown:?}");
    let unknown = fetch_within(&*log, "t", 1, 0, 1000, Duration::ZERO).await;
    assert!(matches!(unknown, Err(Error::UnknownPartition { .. })), "{unknown:?}");
    assert!(log.watermarks(&at("absent", 0)).await.is_err());
    assert!(log.offset_at(&at("absent", 0), 0).await.is_err());
}

pub(super) async fn finds_offsets_by_time(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    assert_eq!(log.offset_at(&at("t", 0), 0).await.unwrap(), Offset(0), "an empty partition");
    let producer = log.producer("p").await.unwrap();
    let times: [&[i64]; 6] = [&[10, 20], &[15], &[40, 30, 50], &[5, 5], &[50, 60], &[55]];
    let (mut starts, mut offsets) = (Vec::new(), Vec::new());
    for times in times {
        let records: Vec<_> = times.iter().map(|time| (*time, "k", Some("v"))).collect();
        let start = append(&producer, batch("t", 0, &records)).await.0;
        starts.push(start);
        offsets.extend(start..start + records.len() as u64);
    }
    let high = log.watermarks(&at("t", 0)).await.unwrap().high.0;
    let all = times.concat();
    for wanted in 0..70 {
        let exact = all.iter().position(|time| *time >= wanted).map_or(high, |at| offsets[at]);
        let earliest = match exact == high {
            // What stands behind an append has the time at which it was written.
            _ if producer.offsets_behind() > 0 => 0,
            true => exact,
            false => starts.iter().copied().take_while(|start| *start <= exact).last().unwrap(),
        };
        let found = log.offset_at(&at("t", 0), wanted).await.unwrap().0;
        assert!((earliest..=exact).contains(&found), "time {wanted}: found {found}, not in {earliest}..={exact}");
    }
}
