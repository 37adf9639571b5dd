//! Several processes share the partitions of a topic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater_broker::{EventLog, GroupLabels, Membership, Retention, TopicPartition};

use crate::world::{create, log};

type Assigned = tokio::sync::watch::Receiver<Arc<BTreeSet<TopicPartition>>>;

/// Waits until every partition is with exactly one member and none has more than `most`.
async fn shared(members: &[Assigned], partitions: usize, most: usize) {
    let start = Instant::now();
    loop {
        let parts: Vec<Arc<BTreeSet<TopicPartition>>> = members.iter().map(|member| member.borrow().clone()).collect();
        let all: BTreeSet<&TopicPartition> = parts.iter().flat_map(|part| part.iter()).collect();
        let sum: usize = parts.iter().map(|part| part.len()).sum();
        if all.len() == partitions && sum == partitions && parts.iter().all(|part| part.len() <= most) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(90), "{parts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Members that come and go share what there is; what stays with a member is never taken from it in between.
#[tokio::test(flavor = "multi_thread")]
async fn members_share_and_keep_what_stays() {
    let logs = [log("members"), log("members"), log("members")];
    create(&*logs[0], "members.t", 6, Retention::default()).await;
    let join =
        async |at: usize| -> Box<dyn Membership> { logs[at].join("members", &["members.t".into()]).await.unwrap() };
    let first = join(0).await;
    shared(&[first.assigned()], 6, 6).await;
    let mut watching = first.assigned();
    watching.mark_unchanged();
    // How few the first ever has while the others come and go.
    let least = Arc::new(AtomicUsize::new(6));
    let noting = Arc::clone(&least);
    let watcher = tokio::spawn(async move {
        while watching.changed().await.is_ok() {
            noting.fetch_min(watching.borrow_and_update().len(), Ordering::Relaxed);
        }
    });
    let second = join(1).await;
    shared(&[first.assigned(), second.assigned()], 6, 3).await;
    let third = join(2).await;
    shared(&[first.assigned(), second.assigned(), third.assigned()], 6, 2).await;
    drop(second);
    shared(&[first.assigned(), third.assigned()], 6, 3).await;
    drop(third);
    shared(&[first.assigned()], 6, 6).await;
    assert_eq!(least.load(Ordering::Relaxed), 2, "cooperative: never less than what it keeps");
    watcher.abort();
    let moved = |at: usize| {
        let group = GroupLabels { group: "members".into() };
        logs[at].metrics().rebalances.get_or_create(&group).get()
    };
    // Six came, three and one went, and each came back.
    assert!(moved(0) >= 5 && moved(1) >= 2 && moved(2) >= 2, "{:?}", [moved(0), moved(1), moved(2)]);
}
