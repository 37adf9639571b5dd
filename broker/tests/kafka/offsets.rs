//! Offsets: where transactions end, where reading goes on, what retention removes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use headwater_broker::kafka::KafkaLog;
use headwater_broker::{
    AppendBatch, Error, EventLog, FetchFrom, FetchLimits, FetchedBatch, Offset, RecordBuffer, Retention,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::world::{at, create, fetch, log, options, read_all, texts, values};

/// What is kept of offsets elsewhere counts in one cluster alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_which_cluster_it_is_in() {
    let id = log("told").id().await.unwrap();
    assert!(id.as_ref().is_some_and(|id| !id.is_empty()), "{id:?}");
    assert_eq!(log("told_again").id().await.unwrap(), id);
}

/// No record stands behind where a session counts ahead, and partitions end where it does, with several appends in flight,
/// a changed schema in between (a second batch for one partition) and a failed producer before. A record can stand one
/// offset earlier: the end of a transaction that was answered is written by the cluster in its own time, and the next
/// one but one waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_can_be_counted_ahead() {
    let log = log("ahead");
    create(&*log, "ahead.t", 2, Retention::default()).await;
    // Leaves an aborted transaction behind, whose records and end have offsets, too.
    let failing = log.producer("ahead").await.unwrap();
    failing.append(vec![values("ahead.t", 0, &["first"])], None).await.unwrap();
    assert!(failing.append(vec![values("ahead.t", 0, &["lost"]), values("absent", 0, &["x"])], None).await.is_err());
    let producer = log.producer("ahead").await.unwrap();
    let mut ends = [
        log.watermarks(&at("ahead.t", 0)).await.unwrap().high.0,
        log.watermarks(&at("ahead.t", 1)).await.unwrap().high.0,
    ];
    let (mut appends, mut expected) = (Vec::new(), Vec::new());
    for turn in 0..30 {
        let mut batches = vec![values("ahead.t", 0, &["a"; 3]), values("ahead.t", 0, &["b"; 2])];
        if turn % 3 == 0 {
            batches.push(values("ahead.t", 1, &["c"]));
        }
        let mut starts = Vec::new();
        for batch in &batches {
            starts.push(Offset(ends[batch.to.partition as usize]));
            ends[batch.to.partition as usize] += producer.offsets_of(batch);
        }
        ends[0] += producer.offsets_behind();
        ends[1] += if turn % 3 == 0 { producer.offsets_behind() } else { 0 };
        expected.push(starts);
        appends.push(producer.append(batches, None));
    }
    let found = futures_util::future::try_join_all(appends).await.unwrap();
    for (turn, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (found, counted) in found.iter().zip(expected) {
            let late = counted.0.wrapping_sub(found.0);
            assert!(late <= 1, "turn {turn}: {found:?}, counted as {counted:?}; all: {expected:?}");
        }
    }
    for partition in 0..2 {
        let high = log.watermarks(&at("ahead.t", partition)).await.unwrap().high;
        assert_eq!(high.0, ends[partition as usize], "partition {partition} ends where it was counted to end");
    }
}

/// Reading may jump to any offset at any time, also while more was prefetched elsewhere and fetches are dropped half way:
/// the records that come are those from there on, every one.
#[tokio::test(flavor = "multi_thread")]
async fn reading_jumps_without_losing_its_way() {
    let log = log("jumps");
    create(&*log, "jumps.t", 1, Retention::default()).await;
    let producer = log.producer("jumps").await.unwrap();
    let mut all: Vec<(u64, String)> = Vec::new();
    for turn in 0..40 {
        let texts: Vec<String> = (0..200).map(|n| format!("{turn} {n} {}", "x".repeat(300))).collect();
        let batch = values("jumps.t", 0, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let start = producer.append(vec![batch], None).await.unwrap()[0].0;
        all.extend((start..).zip(texts));
    }
    let high = log.watermarks(&at("jumps.t", 0)).await.unwrap().high.0;
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut next = 0;
    for turn in 0..300 {
        if random.random_bool(0.3) || next >= high {
            next = random.random_range(0..high);
        }
        let from = [FetchFrom { partition: at("jumps.t", 0), offset: Offset(next) }];
        let limits = FetchLimits { bytes_max: random.random_range(0..200_000), wait_max: Duration::from_secs(10) };
        if random.random_bool(0.3) {
            let micros = random.random_range(0..3000);
            drop(tokio::time::timeout(Duration::from_micros(micros), log.fetch(&from, limits)).await);
            continue;
        }
        let fetched = log.fetch(&from, limits).await.unwrap();
        assert!(!fetched.is_empty(), "seed {seed}, turn {turn}: there is more at {next}");
        for batch in fetched {
            let wanted: Vec<&(u64, String)> =
                all.iter().filter(|(offset, _)| (next..batch.next().0).contains(offset)).collect();
            let found: Vec<_> = batch.records().collect();
            assert_eq!(found.len(), wanted.len(), "seed {seed}, turn {turn}, at {next}: nothing is passed over");
            for (found, (offset, text)) in found.iter().zip(wanted) {
                assert_eq!((found.offset.0, found.value), (*offset, Some(text.as_bytes())), "seed {seed}, turn {turn}");
            }
            next = batch.next().0;
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn timed(topic: &str, time: i64, keys: &[&str], len: usize) -> AppendBatch {
    let mut records = RecordBuffer::default();
    for key in keys {
        records.push(time, key.as_bytes(), Some(|out: &mut Vec<u8>| out.resize(out.len() + len, b'x')));
    }
    AppendBatch { to: at(topic, 0), prelude: Bytes::new(), records }
}

/// A reader that retention overtook is told so, and what is within its limits stays.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_overtaken_is_told() {
    let mut options = options("overtaken");
    options.topic_settings = [("segment.bytes".to_owned(), "1048576".to_owned())].into();
    let log = headwater_broker::kafka::KafkaLog::open(options).unwrap();
    let little = Retention { bytes_max: Some(200_000), ..Retention::default() };
    create(&*log, "overtaken.t", 1, Retention::default()).await;
    let producer = log.producer("overtaken").await.unwrap();
    for _ in 0..20 {
        // Random enough not to be compressed away.
        let noise: Vec<u8> = (0..100_000).map(|_| rand::random()).collect();
        let mut records = RecordBuffer::default();
        records.push(1000, b"old", Some(|out: &mut Vec<u8>| out.extend_from_slice(&noise)));
        let batch = AppendBatch { to: at("overtaken.t", 0), prelude: Bytes::new(), records };
        producer.append(vec![batch], None).await.unwrap();
    }
    let young = producer.append(vec![timed("overtaken.t", now_ms(), &["young"], 5)], None).await.unwrap()[0];
    let fetched = fetch(&*log, "overtaken.t", 0, Duration::from_secs(10)).await;
    let next = fetched[0].next().0;
    log.create_topics(&[headwater_broker::TopicSpec { name: "overtaken.t".into(), partitions: 1, retention: little }])
        .await
        .unwrap();
    let start = std::time::Instant::now();
    while log.watermarks(&at("overtaken.t", 0)).await.unwrap().low.0 <= next {
        assert!(start.elapsed() < Duration::from_secs(90), "old segments go");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let from = [FetchFrom { partition: at("overtaken.t", 0), offset: Offset(0) }];
    let limits = FetchLimits { bytes_max: 1, wait_max: Duration::from_secs(1) };
    let error = log.fetch(&from, limits).await.unwrap_err();
    assert!(matches!(&error, Error::OffsetOutOfRange { wanted: 0, low, .. } if *low > next), "{error}");
    assert!(error.to_string().contains("retention removed"), "{error}");
    let kept = read_all(&*log, "overtaken.t").await;
    let last = kept.last().unwrap().records().last().unwrap();
    assert_eq!((last.offset, last.key), (young, &b"young"[..]));
}

/// Partitions that retention overtakes while they are read are told of, each of them, although another has something at
/// every fetch, of which nothing is lost meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_overtaken_is_told_while_others_have_records() {
    const BUSY: usize = 2;
    const BATCHES: usize = 3000;
    let mut options = options("aside");
    // Of the large records one or two are prefetched, of the small ones all.
    let settings = [
        ("compression.type", "none"),
        ("queued.max.messages.kbytes", "100"),
        ("fetch.message.max.bytes", "150000"),
        ("fetch.queue.backoff.ms", "10"),
    ];
    options.settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let log = headwater_broker::kafka::KafkaLog::open(options.clone()).unwrap();
    create(&*log, "aside.t", 3, Retention::default()).await;
    let producer = log.producer("aside").await.unwrap();
    let large = "x".repeat(100_000);
    for _ in 0..30 {
        let both = vec![values("aside.t", 0, &[&large]), values("aside.t", 1, &[&large])];
        producer.append(both, None).await.unwrap();
    }
    let expected: Vec<String> = (0..BATCHES).map(|n| n.to_string()).collect();
    // Each in a batch of its own, as no two neighbours have the same prelude.
    let preludes = [Bytes::from_static(b"a"), Bytes::from_static(b"b")];
    let small = expected.iter().zip(preludes.iter().cycle());
    let small = small
        .map(|(text, prelude)| AppendBatch { prelude: prelude.clone(), ..values("aside.t", BUSY as u32, &[text]) });
    producer.append(small.collect(), None).await.unwrap();

    let mut from: Vec<FetchFrom> =
        (0..3).map(|number| FetchFrom { partition: at("aside.t", number), offset: Offset(0) }).collect();
    let limits = FetchLimits { bytes_max: 1, wait_max: Duration::from_secs(5) };
    let mut found = vec![Vec::new(); 3];
    while from.iter().any(|from| from.offset == Offset(0)) {
        let fetched = log.fetch(&from, limits).await.unwrap();
        go_on(&mut from, &fetched, &mut found);
    }
    remove_all(&*log, &options.bootstrap_servers, "aside.t", &[0, 1]).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let fetched = log.fetch(&from, limits).await;
        match fetched {
            Ok(fetched) => go_on(&mut from, &fetched, &mut found),
            Err(Error::OffsetOutOfRange { partition, low, .. }) => {
                from[partition.partition as usize].offset = Offset(low);
                told.push(partition.partition);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(found[BUSY].len() < BATCHES, "of {told:?} alone it was told while another partition had something");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    told.sort_unstable();
    assert_eq!(told, [0, 1], "each once");

    producer.append(vec![values("aside.t", 0, &["again"]), values("aside.t", 1, &["again"])], None).await.unwrap();
    let lows = [from[0].offset, from[1].offset];
    while found[BUSY].len() < BATCHES || (0..2).any(|number| from[number].offset <= lows[number]) {
        let fetched = log.fetch(&from, limits).await.unwrap();
        assert!(!fetched.is_empty(), "there is more behind {from:?}");
        go_on(&mut from, &fetched, &mut found);
    }
    assert_eq!(found[BUSY], expected, "of the partition that was not overtaken nothing is missing");
    assert_eq!((found[0].last(), found[1].last()), (Some(&"again".to_owned()), Some(&"again".to_owned())));
}

/// Takes in what was fetched of the partitions of one topic, each at its number.
fn go_on(from: &mut [FetchFrom], fetched: &[FetchedBatch], found: &mut [Vec<String>]) {
    for batch in fetched {
        let number = batch.from.partition as usize;
        from[number].offset = batch.next();
        found[number].extend(texts(std::slice::from_ref(batch)));
    }
}

/// Does to all records of these partitions what retention does to old ones.
async fn remove_all(log: &dyn EventLog, servers: &str, topic: &str, partitions: &[u32]) {
    let admin: AdminClient<_> = rdkafka::ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let mut ends = TopicPartitionList::new();
    for number in partitions {
        let end = log.watermarks(&at(topic, *number)).await.unwrap().high;
        ends.add_partition_offset(topic, *number as i32, rdkafka::Offset::Offset(end.0 as i64)).unwrap();
    }
    let removed = admin.delete_records(&ends, &AdminOptions::new()).await.unwrap();
    removed.elements().iter().for_each(|element| element.error().unwrap());
}

/// Compaction removes what was overwritten and leaves offsets as they are; reading passes over the gaps.
#[tokio::test(flavor = "multi_thread")]
async fn compaction_leaves_the_last_of_each_key() {
    let mut options = options("compaction");
    let settings = [("segment.ms", "500"), ("min.cleanable.dirty.ratio", "0.01"), ("max.compaction.lag.ms", "500")];
    options.topic_settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let log = headwater_broker::kafka::KafkaLog::open(options).unwrap();
    create(&*log, "compaction.t", 1, Retention { compact: true, ..Retention::default() }).await;
    let producer = log.producer("compaction").await.unwrap();
    let mut last = std::collections::BTreeMap::new();
    for turn in 0..10 {
        let keys = ["a", "b", if turn == 0 { "once" } else { "c" }];
        let start = producer.append(vec![timed("compaction.t", now_ms(), &keys, 10)], None).await.unwrap()[0].0;
        last.extend(keys.iter().zip(start..).map(|(key, offset)| (key.as_bytes().to_vec(), offset)));
    }
    let start = std::time::Instant::now();
    loop {
        // Kafka compacts what is behind the segment being written.
        tokio::time::sleep(Duration::from_millis(600)).await;
        producer.append(vec![timed("compaction.t", now_ms(), &["pad"], 1)], None).await.unwrap();
        let kept = read_all(&*log, "compaction.t").await;
        let mut found: Vec<_> = kept
            .iter()
            .flat_map(|batch| batch.records().map(|r| (r.key.to_vec(), r.offset.0)).collect::<Vec<_>>())
            .collect();
        found.retain(|(key, _)| key != b"pad");
        if found.len() == last.len() {
            assert_eq!(found.into_iter().collect::<std::collections::BTreeMap<_, _>>(), last);
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "{} of {} are left", found.len(), last.len());
    }
}

/// Lag can reach 0: whoever has read everything stands at the end, also behind a transaction that was aborted.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_can_be_reached() {
    let log = log("end");
    create(&*log, "end.t", 1, Retention::default()).await;
    let producer = log.producer("end").await.unwrap();
    producer.append(vec![values("end.t", 0, &["a"])], None).await.unwrap();
    let mut next = Offset(0);
    let stand_at_end = async |next: &mut Offset| {
        let start = std::time::Instant::now();
        while log.watermarks(&at("end.t", 0)).await.unwrap().high != *next {
            for batch in fetch(&*log, "end.t", next.0, Duration::from_millis(200)).await {
                *next = batch.next();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the end is not reached from {next:?}");
        }
    };
    stand_at_end(&mut next).await;
    assert_eq!(next, Offset(2));
    // Too large for the client, after its neighbour was sent.
    let large = "x".repeat(70 << 20);
    assert!(producer.append(vec![values("end.t", 0, &["b"]), values("end.t", 0, &[&large])], None).await.is_err());
    drop(producer);
    log.producer("end").await.unwrap();
    stand_at_end(&mut next).await;
    assert_eq!(texts(&read_all(&*log, "end.t").await), ["a"]);
}

/// Partitions that are many get little room each, and records that are larger than it come all the same.
#[tokio::test(flavor = "multi_thread")]
async fn records_larger_than_the_share_of_their_partition_are_read() {
    const PARTITIONS: u32 = 130;
    const EVERY: u32 = 10;
    let mut options = options("shares");
    options.settings = [("compression.type".to_owned(), "none".to_owned())].into();
    let log = headwater_broker::kafka::KafkaLog::open(options).unwrap();
    create(&*log, "shares.t", PARTITIONS, Retention::default()).await;
    let producer = log.producer("shares").await.unwrap();
    let large = "x".repeat(600 << 10);
    let expected = [large.as_str(), "small", &large, "last"];
    for text in expected {
        let batches = (0..PARTITIONS).step_by(EVERY as usize).map(|number| values("shares.t", number, &[text]));
        producer.append(batches.collect(), None).await.unwrap();
    }
    let mut from: Vec<FetchFrom> =
        (0..PARTITIONS).map(|number| FetchFrom { partition: at("shares.t", number), offset: Offset(0) }).collect();
    let limits = FetchLimits { bytes_max: 4 << 20, wait_max: Duration::from_secs(10) };
    let mut found = vec![Vec::new(); PARTITIONS as usize];
    while found.iter().step_by(EVERY as usize).any(|texts| texts.len() < expected.len()) {
        let fetched = log.fetch(&from, limits).await.unwrap();
        assert!(!fetched.is_empty(), "there is more");
        go_on(&mut from, &fetched, &mut found);
    }
    assert!(found.iter().step_by(EVERY as usize).all(|texts| *texts == expected), "each once, in order");
}

/// Whoever begins to read gets every record from the first on, however late the thread that asked goes on after that.
#[tokio::test(flavor = "multi_thread")]
async fn reading_anew_begins_with_the_first_record() {
    const PARTITIONS: u32 = 60;
    let log = log("anew");
    create(&*log, "anew.t", PARTITIONS, Retention::default()).await;
    let producer = log.producer("anew").await.unwrap();
    let wanted = ["a", "b", "c"];
    producer.append((0..PARTITIONS).map(|at| values("anew.t", at, &wanted)).collect(), None).await.unwrap();
    for turn in 0..8 {
        // Every second time by a consumer that is connected already.
        let log = if turn % 2 == 0 { self::log("anew") } else { log.clone() };
        let mut from: Vec<FetchFrom> =
            (0..PARTITIONS).map(|number| FetchFrom { partition: at("anew.t", number), offset: Offset(0) }).collect();
        let mut found = vec![Vec::new(); PARTITIONS as usize];
        while found.iter().any(|texts: &Vec<String>| texts.len() < wanted.len()) {
            let limits = FetchLimits { bytes_max: 4 << 20, wait_max: Duration::from_secs(5) };
            let fetched = log.fetch(&from, limits).await.unwrap();
            assert!(!fetched.is_empty(), "turn {turn}: nothing more comes behind {found:?}");
            for batch in fetched {
                let number = batch.from.partition as usize;
                from[number].offset = batch.next();
                found[number].extend(texts(std::slice::from_ref(&batch)));
                let (next, found) = (batch.next().0, &found[number]);
                let whole = next <= found.len() as u64 || *found == wanted;
                assert!(whole, "turn {turn}: partition {number} went on to {next} with {found:?}");
            }
        }
    }
}

/// A stretch in which nothing but transactions ended is read to its end, however long that takes: to get on is a sign of
/// life. Compaction leaves such stretches, and so do transactions that are aborted.
#[tokio::test(flavor = "multi_thread")]
async fn ends_of_transactions_are_passed_over_however_many() {
    let mut options = options("markers");
    options.request_timeout = Duration::from_secs(1);
    // One record at a time, so that it takes longer than that.
    options.settings = [("fetch.message.max.bytes".to_owned(), "1".to_owned())].into();
    let log = KafkaLog::open(options.clone()).unwrap();
    let producer = log.producer("markers").await.unwrap();
    producer.append(Vec::new(), Some(Bytes::from_static(b"first"))).await.unwrap();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let servers = &options.bootstrap_servers;
            scope.spawn(move || abort_transactions(servers, &format!("markers.{number}"), "markers.checkpoints", 150));
        }
    });
    assert_eq!(producer.checkpoint().await.unwrap().as_deref(), Some(&b"first"[..]));
}

fn abort_transactions(servers: &str, id: &str, topic: &str, number: u32) {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", servers).set("transactional.id", id).set("linger.ms", "0");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(Duration::from_secs(10)).unwrap();
    for _ in 0..number {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(topic).partition(0).key("other").payload("x")).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
        producer.abort_transaction(Duration::from_secs(10)).unwrap();
    }
}

/// What a group has committed of topics that are not of this log's prefix is nobody's business here.
#[tokio::test(flavor = "multi_thread")]
async fn only_topics_of_the_prefix_are_asked_for_what_a_group_committed() {
    let log = log("near");
    create(&*log, "near.t", 1, Retention::default()).await;
    create(&*log, "nearby.t", 1, Retention::default()).await;
    let offsets = ["near.t", "nearby.t"].map(|topic| (at(topic, 0), Offset(0)));
    log.commit_offsets("near.group", &offsets).await.unwrap();
    assert_eq!(log.committed_offsets("near.group").await.unwrap(), offsets[..1]);
}
