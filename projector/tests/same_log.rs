//! Offsets count in one log alone: another one, or one that ends before them, is refused.
#![allow(clippy::unwrap_used)]

#[path = "runs/source.rs"]
#[allow(dead_code, reason = "it is shared with tests that do more with it")]
mod source;

use std::path::Path;
use std::time::{Duration, Instant};

use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions as LogOptions};
use headwater_broker::{EventLog, TopicPartition};
use headwater_projector::{
    Error, ErrorKind, ProjectorMetrics, ProjectorOptions, check_ends, check_log, check_shared_log, start,
};
use headwater_store::ProjectionStore;
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use source::{MODEL, PREFIX, Source, fill, model};
use tokio_util::sync::CancellationToken;

fn options() -> ProjectorOptions {
    ProjectorOptions::new(PREFIX, vec![model(MODEL)])
}

/// What a start makes of the log in a folder and the store in another one.
async fn checked(source: &Source, store: &Path) -> Result<(), Error> {
    let store = EmbeddedStore::open(EmbeddedOptions::new(store)).unwrap();
    check_log(&*source.log, &*store).await
}

/// Applies all that is in the log.
async fn apply(source: &Source, store: &Path) {
    let store = EmbeddedStore::open(EmbeddedOptions::new(store)).unwrap();
    check_log(&*source.log, &*store).await.unwrap();
    let cancel = CancellationToken::new();
    let (metrics, log) = (ProjectorMetrics::default(), source.log.clone());
    let handle = start(options(), log, store.clone(), metrics, cancel.clone()).unwrap();
    let began = Instant::now();
    loop {
        let offsets = ProjectionStore::begin(&*store).unwrap().offsets().unwrap();
        let mut left = 0;
        for (topic, _) in source.log.topics().await.unwrap().into_iter().filter(|(topic, _)| !topic.contains("__")) {
            let place = TopicPartition { topic, partition: 0 };
            let end = source.log.watermarks(&place).await.unwrap().high.0;
            left += u32::from(!offsets.contains(&(place.topic.to_string(), 0, end)));
        }
        if left == 0 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "waited for {left} topics: {offsets:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cancel.cancel();
    handle.join().await.unwrap();
}

/// Closes a log, so that its folder can be copied.
async fn close(source: Source) {
    source.log.close().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::copy(from.join("data.mdb"), to.join("data.mdb")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_made_anew_is_refused_however_far_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, store) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("store"));
    let mut source = Source::new(&first).await;
    fill(&mut source).await;
    apply(&source, &store).await;
    checked(&source, &store).await.unwrap();
    check_ends(&*source.log, &*EmbeddedStore::open(EmbeddedOptions::new(&store)).unwrap()).await.unwrap();

    let mut anew = Source::new(&second).await;
    fill(&mut anew).await;
    fill(&mut anew).await;
    let refused = checked(&anew, &store).await.unwrap_err();
    assert!(matches!(refused, Error::OtherLog { .. }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Fatal);
    // The same once more: nothing was noted.
    assert!(checked(&anew, &store).await.is_err());
    checked(&source, &store).await.unwrap();
    // A store that holds nothing yet takes any.
    let empty = folder.path().join("empty");
    checked(&source, &empty).await.unwrap();
    checked(&anew, &empty).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_before_takes_the_log_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let mut source = Source::new(&folder.path().join("1")).await;
    fill(&mut source).await;
    apply(&source, &store).await;
    {
        let store = EmbeddedStore::open(EmbeddedOptions::new(&store)).unwrap();
        let mut batch = ProjectionStore::begin(&*store).unwrap();
        batch.set_note("log", None).unwrap();
        batch.commit().unwrap();
    }
    checked(&source, &store).await.unwrap();
    let mut anew = Source::new(&folder.path().join("2")).await;
    fill(&mut anew).await;
    assert!(matches!(checked(&anew, &store).await, Err(Error::OtherLog { .. })), "it took the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_restored_from_before_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (first, copied, store) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("store"));
    let mut source = Source::new(&first).await;
    fill(&mut source).await;
    apply(&source, &store).await;
    close(source).await;
    copy(&first.join("log"), &copied.join("log"));

    let mut source = Source::new(&first).await;
    fill(&mut source).await;
    apply(&source, &store).await;
    let log = EmbeddedLog::open(LogOptions::new(copied.join("log")));
    let log = log.unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(&store)).unwrap();
    let refused = check_ends(&*log, &*store).await.unwrap_err();
    assert!(matches!(refused, Error::LogBehind { next, end, .. } if end < next), "{refused}");
    let empty = EmbeddedLog::open(LogOptions::new(folder.path().join("3")));
    assert!(check_ends(&*empty.unwrap(), &*store).await.is_err(), "its topics are missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_several_share_belong_to_one_log_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = Source::new(&folder.path().join("1")).await;
    fill(&mut source).await;
    let rows = folder.path().join("store");
    apply(&source, &rows).await;
    let anew = Source::new(&folder.path().join("2")).await;
    let rows = EmbeddedStore::open(EmbeddedOptions::new(&rows)).unwrap();
    check_shared_log(&*source.log, &*rows).await.unwrap();
    assert!(matches!(check_shared_log(&*anew.log, &*rows).await, Err(Error::OtherLog { .. })));
}
