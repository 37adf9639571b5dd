//! Promises about topics and consumer groups.

use super::*;

pub(super) async fn topics_keep_their_partitions(log: Arc<dyn EventLog>) {
    assert_eq!(log.topics().await.unwrap(), []);
    create_plain(&*log, "b", 3).await;
    let spec = |name: &str, partitions| TopicSpec { name: name.into(), partitions, retention: Retention::default() };
    log.create_topics(&[spec("c", 2), spec("a", 1), spec("b", 7)]).await.unwrap();
    assert_eq!(log.topics().await.unwrap(), [("a".into(), 1), ("b".into(), 3), ("c".into(), 2)]);
    let producer = log.producer("p").await.unwrap();
    for (topic, partitions) in log.topics().await.unwrap() {
        for partition in 0..partitions {
            append(&producer, values(&topic, partition, &[&format!("{topic} {partition}")])).await;
        }
    }
    for (topic, partitions) in log.topics().await.unwrap() {
        for partition in 0..partitions {
            assert_eq!(texts(&read_all(&*log, &topic, partition).await), [format!("{topic} {partition}")]);
        }
    }
}

pub(super) async fn offsets_are_kept_by_group(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 2).await;
    create_plain(&*log, "u", 1).await;
    let producer = log.producer("p").await.unwrap();
    producer.append(vec![values("t", 0, &["a", "b"]), values("t", 1, &["a"])], None).await.unwrap();
    assert_eq!(log.committed_offsets("g").await.unwrap(), []);
    log.commit_offsets("g", &[(at("t", 0), Offset(1)), (at("t", 1), Offset(0))]).await.unwrap();
    log.commit_offsets("gg", &[(at("u", 0), Offset(0))]).await.unwrap();
    log.commit_offsets("g", &[(at("t", 0), Offset(2))]).await.unwrap();
    let mut committed = log.committed_offsets("g").await.unwrap();
    committed.sort();
    assert_eq!(committed, [(at("t", 0), Offset(2)), (at("t", 1), Offset(0))]);
    assert_eq!(log.committed_offsets("gg").await.unwrap(), [(at("u", 0), Offset(0))]);
    log.commit_offsets("g", &[(at("t", 0), Offset(0))]).await.unwrap();
    assert!(log.committed_offsets("g").await.unwrap().contains(&(at("t", 0), Offset(0))), "a group may go back");
}

pub(super) async fn offsets_are_committed_all_or_none(log: Arc<dyn EventLog>) {
    create_plain(&*log, "t", 1).await;
    log.commit_offsets("g", &[(at("t", 0), Offset(0))]).await.unwrap();
    assert!(log.commit_offsets("g", &[(at("t", 0), Offset(1)), (at("absent", 0), Offset(1))]).await.is_err());
    assert_eq!(log.committed_offsets("g").await.unwrap(), [(at("t", 0), Offset(0))]);
}

pub(super) async fn the_only_member_has_everything(log: Arc<dyn EventLog>) {
    create_plain(&*log, "a", 2).await;
    create_plain(&*log, "other", 1).await;
    let membership = log.join("g", &["a".into(), "later".into()]).await.unwrap();
    let assigned = membership.assigned();
    let has = |wanted: &[TopicPartition]| assigned.borrow().iter().eq(wanted);
    eventually("all partitions are assigned", async || has(&[at("a", 0), at("a", 1)])).await;
    create_plain(&*log, "later", 1).await;
    eventually("so are those of a new topic", async || has(&[at("a", 0), at("a", 1), at("later", 0)])).await;
    // Offsets are committed all the same, by whoever reads.
    log.commit_offsets("g", &[(at("a", 0), Offset(0))]).await.unwrap();
    drop(membership);
    let again = log.join("g", &["a".into()]).await.unwrap();
    let assigned = again.assigned();
    eventually("who comes after has them", async || assigned.borrow().iter().eq(&[at("a", 0), at("a", 1)])).await;
}
