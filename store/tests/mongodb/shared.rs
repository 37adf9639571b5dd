//! What several processes that share rows and documents rely on.

use headwater_schemas::{SourcePosition, TableId};
use headwater_store::mongodb::MongoOptions;
use headwater_store::{
    DocumentReader, DocumentStore, DocumentWrite, Error, ErrorKind, Frontier, JoinIndex, RowStore, RowWrite, SchemaId,
    VersionState, Written,
};
use mongodb::bson::{Document, doc};

use crate::common::{VERSION, documents, fresh, int, join, joined, put_row, raw, record, rows, wait};

/// Options for an empty database, in which the tables of these tests are known: a transaction cannot write to a table that
/// nobody has written to before, and is to be made again.
fn shared() -> MongoOptions {
    let options = MongoOptions { shared: true, ..fresh() };
    let rows = rows(&options).unwrap();
    for table in ["lines", "other", "aa", "zz"] {
        let table = TableId::new("billing", "public", table);
        let key = int(1);
        let (schema, position) = (SchemaId(0), SourcePosition::after_commit(1, 1));
        let write = RowWrite { key: &key, row: None, schema, position, removed: &[], added: &[] };
        let refused = rows.begin().unwrap().put_row(&table, &[], write).unwrap_err();
        assert!(is_retryable(&refused) && refused.to_string().contains("write rows"), "{refused}");
        rows.begin().unwrap().put_row(&table, &[], write).unwrap();
    }
    options
}

mod contract {
    use super::shared;
    use crate::contract::Database;

    headwater_store::contract_tests!(Database { options: shared(), random_cases: 5 });
}

fn is_retryable(error: &Error) -> bool {
    error.kind() == ErrorKind::Retryable
}

#[test]
fn what_one_process_writes_the_other_sees() {
    let options = shared();
    let (one, two) = (rows(&options).unwrap(), rows(&options).unwrap());
    let mut batch = one.begin().unwrap();
    put_row(&mut *batch, 1, 10);
    batch.set_note("n", Some(b"1")).unwrap();
    batch.set_offset("events", 0, 5).unwrap();
    batch.add_join_index(&join()).unwrap();
    batch.commit().unwrap();

    let mut batch = two.begin().unwrap();
    assert_eq!(joined(&*batch).unwrap(), [10]);
    assert_eq!(batch.note("n").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(batch.offsets().unwrap(), [("events".to_owned(), 0, 5)]);
    assert_eq!(batch.join_indexes().unwrap(), [join()]);
    assert_eq!(batch.row_count(&join().table).unwrap(), 1);
    let other = JoinIndex { columns: vec!["other".into()], ..join() };
    batch.add_join_index(&other).unwrap();
    batch.drop_join_index(&join()).unwrap();
    batch.set_note("n", None).unwrap();
    assert_eq!(batch.note("n").unwrap(), None, "it sees its own");
    batch.commit().unwrap();

    let batch = one.begin().unwrap();
    assert_eq!(batch.join_indexes().unwrap(), [other]);
    assert_eq!(batch.note("n").unwrap(), None);
    assert!(joined(&*batch).unwrap().is_empty(), "the index is gone");
}

/// Until a transaction is committed, what it saw may be of a server that had been replaced.
#[test]
fn what_was_seen_without_a_commit_is_read_again() {
    let options = shared();
    let store = rows(&options).unwrap();
    let mut batch = store.begin().unwrap();
    batch.add_join_index(&join()).unwrap();
    batch.commit().unwrap();
    assert_eq!(store.begin().unwrap().join_indexes().unwrap(), [join()]);

    // As many changes, and another outcome.
    let catalog = raw(&options).collection::<Document>("headwater.rows.default");
    let incomplete = doc! { "$set": { "complete": false } };
    wait(async move { catalog.update_one(doc! { "_id": "join:0" }, incomplete).await }).unwrap();
    assert!(store.begin().unwrap().join_indexes().unwrap().is_empty());
}

#[test]
fn of_two_transactions_that_write_the_same_one_fails() {
    let options = shared();
    let (one, two) = (rows(&options).unwrap(), rows(&options).unwrap());
    let mut batch = one.begin().unwrap();
    put_row(&mut *batch, 1, 10);
    put_row(&mut *batch, 2, 20);
    batch.commit().unwrap();
    for note in [true, false] {
        let change = |batch: &mut dyn headwater_store::RowTransaction, n| match note {
            true => batch.set_note("place", Some(&[n as u8])).unwrap(),
            false => put_row(batch, 1, n),
        };
        let (mut first, mut second) = (one.begin().unwrap(), two.begin().unwrap());
        // Both have begun, and seen the same.
        assert_eq!((first.note("place").unwrap(), joined(&*first).unwrap()), {
            (second.note("place").unwrap(), joined(&*second).unwrap())
        });
        change(&mut *first, 30);
        change(&mut *second, 40);
        first.commit().unwrap();
        assert!(is_retryable(&second.commit().unwrap_err()));
        // Those who write different rows are in nobody's way.
        let (mut first, mut second) = (one.begin().unwrap(), two.begin().unwrap());
        put_row(&mut *first, 1, 50);
        put_row(&mut *second, 2, 60);
        first.commit().unwrap();
        second.commit().unwrap();
    }
    let batch = one.begin().unwrap();
    assert_eq!(joined(&*batch).unwrap(), [50, 60]);
    assert_eq!(batch.note("place").unwrap(), Some(vec![30]));
}

#[test]
fn of_two_transactions_that_write_and_remove_the_same_row_one_fails() {
    let options = shared();
    let (one, two) = (rows(&options).unwrap(), rows(&options).unwrap());
    let remove = |batch: &mut dyn headwater_store::RowTransaction| {
        batch.remove_row(&join().table, &[&join()], &int(1), &[(0, &int(1))]).unwrap();
    };
    for (is_removed, left) in [(true, vec![]), (false, vec![20])] {
        let mut batch = one.begin().unwrap();
        put_row(&mut *batch, 1, 10);
        batch.commit().unwrap();
        let (mut first, mut second) = (one.begin().unwrap(), two.begin().unwrap());
        // Both have begun, and seen the same.
        assert_eq!((joined(&*first).unwrap(), joined(&*second).unwrap()), (vec![10], vec![10]));
        match is_removed {
            true => {
                remove(&mut *first);
                put_row(&mut *second, 1, 20);
            }
            false => {
                put_row(&mut *first, 1, 20);
                remove(&mut *second);
            }
        }
        first.commit().unwrap();
        assert!(is_retryable(&second.commit().unwrap_err()));
        assert_eq!(joined(&*one.begin().unwrap()).unwrap(), left);
    }
}

#[test]
fn processes_that_open_at_once_all_share() {
    let options = shared();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (rows(&options).unwrap(), documents(&options).unwrap()));
        }
    });
}

#[test]
fn who_writes_alone_is_shut_out_by_who_shares() {
    let options = shared();
    let alone = rows(&MongoOptions { shared: false, ..options.clone() }).unwrap();
    let mut batch = alone.begin().unwrap();
    put_row(&mut *batch, 1, 10);
    let sharing = rows(&options).unwrap();
    assert!(matches!(batch.commit().unwrap_err(), Error::TakenOver { .. }));
    assert!(joined(&*sharing.begin().unwrap()).unwrap().is_empty());
}

fn put(store: &dyn DocumentStore, id: &[u8], stamp: u64, body: Option<&[u8]>) -> Result<(), Error> {
    let mut batch = store.begin()?;
    batch.put_documents(VERSION, 0, &[DocumentWrite { id, body, entries: &[(0, id)], stamp: Some(stamp) }])?;
    batch.flush()
}

#[tokio::test]
async fn the_greatest_stamp_stays() {
    let options = shared();
    let (one, two) = (documents(&options).unwrap(), documents(&options).unwrap());
    let mut batch = one.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
    batch.flush().unwrap();
    let (reader, id) = (two.reader(), int(1));
    let found = async || reader.get(VERSION, &id).await.unwrap().map(|it| (it.stamp, it.body.to_vec()));
    let some = |stamp, body: &[u8]| Some((stamp, body.to_vec()));
    put(&*one, &id, 10, Some(b"a")).unwrap();
    put(&*two, &id, 9, Some(b"late")).unwrap();
    assert_eq!(found().await, some(10, b"a"));
    put(&*two, &id, 10, None).unwrap();
    assert_eq!(found().await, some(10, b"a"), "an equal stamp is no greater one");
    put(&*two, &id, 12, Some(b"a")).unwrap();
    assert_eq!(found().await, some(12, b"a"), "the same bytes take the new stamp");
    put(&*one, &id, 11, Some(b"late")).unwrap();
    assert_eq!(found().await, some(12, b"a"));
    put(&*one, &id, 13, None).unwrap();
    put(&*two, &id, 12, Some(b"late")).unwrap();
    assert_eq!(found().await, None, "a deleted document leaves a trace");
    put(&*one, &id, 15, None).unwrap();
    put(&*two, &id, 14, Some(b"late")).unwrap();
    assert_eq!(found().await, None, "the trace has the greatest stamp");
    put(&*two, &id, 16, Some(b"b")).unwrap();
    assert_eq!(found().await, some(16, b"b"));
    // Also of a document that was never there.
    let id = int(2);
    put(&*one, &id, 20, None).unwrap();
    put(&*two, &id, 19, Some(b"late")).unwrap();
    assert_eq!(reader.get(VERSION, &id).await.unwrap(), None);
    assert_eq!(reader.document_count(VERSION).await.unwrap(), 1);
    let many: Vec<Vec<u8>> = (0..50).map(int).collect();
    let mut batch = two.begin().unwrap();
    let writes: Vec<DocumentWrite<'_>> =
        many.iter().map(|id| DocumentWrite { id, body: Some(b"c"), entries: &[], stamp: Some(30) }).collect();
    batch.put_documents(VERSION, 0, &writes).unwrap();
    batch.flush().unwrap();
    assert_eq!(reader.document_count(VERSION).await.unwrap(), 50);
    let alone = documents(&MongoOptions { shared: false, ..options }).unwrap();
    assert!(matches!(put(&*alone, &int(1), 40, None), Err(Error::OneWriter { .. })));
}

/// Two processes write and delete the same few documents at once, each with stamps of its own: in the end the greatest
/// stamp of each document stands, whether it wrote or deleted.
#[tokio::test]
async fn writers_at_once_leave_the_greatest_stamp() {
    let options = shared();
    let writers = [documents(&options).unwrap(), documents(&options).unwrap(), documents(&options).unwrap()];
    let mut batch = writers[0].begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
    batch.flush().unwrap();
    const IDS: i64 = 6;
    const ROUNDS: u64 = 40;
    // What a stamp does to a document depends on both alone, so that everybody knows what is to stand.
    let puts = |id: i64, stamp: u64| !(stamp * 31 + id as u64 * 17).is_multiple_of(3);
    std::thread::scope(|scope| {
        for (number, writer) in writers.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // The writers' stamps are not in step: some are late, some ahead.
                    let stamp = 1 + (round * 7 % ROUNDS) * 3 + number as u64;
                    let ids: Vec<(Vec<u8>, Vec<u8>, bool)> = (0..IDS)
                        .filter(|id| (round + *id as u64).is_multiple_of(2))
                        .map(|id| (int(id), stamp.to_string().into_bytes(), puts(id, stamp)))
                        .collect();
                    let write = |(id, body, put): &'_ (Vec<u8>, Vec<u8>, bool)| (id.clone(), put.then(|| body.clone()));
                    let owned: Vec<(Vec<u8>, Option<Vec<u8>>)> = ids.iter().map(write).collect();
                    let writes: Vec<DocumentWrite<'_>> = owned
                        .iter()
                        .map(|(id, body)| DocumentWrite { id, body: body.as_deref(), entries: &[], stamp: Some(stamp) })
                        .collect();
                    let mut batch = writer.begin().unwrap();
                    batch.put_documents(VERSION, 0, &writes).unwrap();
                    batch.flush().unwrap();
                }
            });
        }
    });
    let reader = writers[0].reader();
    let mut count = 0;
    for id in 0..IDS {
        let stamps = (0..ROUNDS).filter(|round| (round + id as u64).is_multiple_of(2));
        let stamps = stamps.flat_map(|round| (0..3).map(move |number| 1 + (round * 7 % ROUNDS) * 3 + number));
        let greatest = stamps.max().unwrap();
        let found = reader.get(VERSION, &int(id)).await.unwrap().map(|it| (it.stamp, it.body.to_vec()));
        let expected = puts(id, greatest).then(|| (greatest, greatest.to_string().into_bytes()));
        assert_eq!(found, expected, "document {id}");
        count += u64::from(expected.is_some());
    }
    assert_eq!(reader.document_count(VERSION).await.unwrap(), count);
}

#[test]
fn a_leader_that_is_late_moves_no_frontier_back() {
    let options = shared();
    let (late, leader) = (documents(&options).unwrap(), documents(&options).unwrap());
    let at = |n| Frontier { position: SourcePosition::after_commit(1, n), ..Frontier::default() };
    let set = |store: &dyn DocumentStore, n| {
        let mut batch = store.begin().unwrap();
        batch.set_frontier("billing", at(n)).unwrap();
        batch.flush()
    };
    set(&*leader, 5).unwrap();
    assert!(is_retryable(&set(&*late, 4).unwrap_err()));
    set(&*late, 6).unwrap();
    let batch = leader.begin().unwrap();
    batch.versions().unwrap();
    assert_eq!(batch.frontiers().unwrap()["billing"], at(6));
}

/// A frontier promises what all processes wrote: who hears of it has heard of every document below, also in the process that
/// sets it.
#[test]
fn a_frontier_is_heard_of_behind_the_documents_of_others() {
    let options = shared();
    let (leader, other) = (documents(&options).unwrap(), documents(&options).unwrap());
    let mut batch = leader.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
    batch.flush().unwrap();
    let reader = leader.reader();
    let mut changes = reader.changes();
    // So many that the stream has not told all of them when the frontier is set.
    let ids: Vec<Vec<u8>> = (0..3000).map(int).collect();
    for n in 1..=5 {
        let body = n.to_string();
        let write = |id| DocumentWrite { id, body: Some(body.as_bytes()), entries: &[], stamp: Some(n) };
        let writes: Vec<DocumentWrite<'_>> = ids.iter().map(|id| write(id)).collect();
        let mut batch = other.begin().unwrap();
        batch.put_documents(VERSION, 0, &writes).unwrap();
        batch.flush().unwrap();
        let frontier = Frontier { position: SourcePosition::after_commit(1, n), ..Frontier::default() };
        let mut batch = leader.begin().unwrap();
        batch.set_frontier("billing", frontier).unwrap();
        batch.flush().unwrap();
        let mut frontiers = reader.frontiers();
        wait(async move { frontiers.wait_for(|all| all.get("billing") == Some(&frontier)).await.map(drop) }).unwrap();
        let told: usize = std::iter::from_fn(|| changes.try_recv().ok()).map(|changes| changes.len()).sum();
        assert_eq!(told, ids.len(), "of the documents below the frontier");
    }
}

#[test]
fn who_claimed_the_registry_last_writes_it() {
    let options = shared();
    let (late, leader) = (documents(&options).unwrap(), documents(&options).unwrap());
    let claim = |store: &dyn DocumentStore| store.begin().unwrap().claim_registry().unwrap();
    let put = |store: &dyn DocumentStore, claim, state| {
        let mut batch = store.begin().unwrap();
        batch.under_claim(claim);
        batch.put_version(&record(VERSION, state, None)).unwrap();
        batch.flush()
    };
    let first = claim(&*late);
    put(&*late, first, VersionState::Building).unwrap();
    // It looks whether it leads, and falls asleep before it writes.
    let mut asleep = late.begin().unwrap();
    asleep.under_claim(first);
    asleep.put_version(&record(VERSION, VersionState::Retired, None)).unwrap();
    let second = claim(&*leader);
    put(&*leader, second, VersionState::Active).unwrap();
    let refused = asleep.flush().unwrap_err();
    assert!(matches!(refused, Error::Superseded { .. }) && is_retryable(&refused), "{refused}");
    let stored = |store: &dyn DocumentStore| store.begin().unwrap().versions().unwrap()[0].state;
    assert_eq!((stored(&*leader), stored(&*late)), (VersionState::Active, VersionState::Active));
    let third = claim(&*late);
    put(&*late, third, VersionState::Building).unwrap();
    assert!(put(&*leader, second, VersionState::Retired).is_err());
}

/// Who has not heard of it yet does not bring it back.
#[test]
fn what_was_retired_stays_so() {
    let options = shared();
    let (one, two) = (documents(&options).unwrap(), documents(&options).unwrap());
    let put = |store: &dyn DocumentStore, state| {
        let mut batch = store.begin().unwrap();
        batch.put_version(&record(VERSION, state, None)).unwrap();
        batch.flush()
    };
    put(&*one, VersionState::Building).unwrap();
    put(&*two, VersionState::Retired).unwrap();
    for state in [VersionState::Active, VersionState::Building] {
        let refused = put(&*one, state).unwrap_err();
        assert!(is_retryable(&refused), "{refused}");
        assert_eq!(two.begin().unwrap().versions().unwrap()[0].state, VersionState::Retired);
    }
    put(&*one, VersionState::Retired).unwrap();
}

#[test]
fn of_a_version_that_is_gone_nothing_is_written() {
    let options = shared();
    let (late, leader) = (documents(&options).unwrap(), documents(&options).unwrap());
    let mut batch = leader.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Retired, None)).unwrap();
    batch.flush().unwrap();
    put(&*leader, &int(1), 1, Some(b"a")).unwrap();
    let mut batch = leader.begin().unwrap();
    assert_eq!(batch.purge_version(VERSION, 10).unwrap(), 1);
    batch.flush().unwrap();
    let database = raw(&options);
    let names = move || {
        wait({
            let database = database.clone();
            async move { database.list_collection_names().await.unwrap() }
        })
    };
    for _ in 0..100 {
        // The other process learns of it a moment later.
        let batch = late.begin().unwrap();
        if batch.versions().unwrap().is_empty() {
            break;
        }
    }
    put(&*late, &int(2), 2, Some(b"late")).unwrap();
    assert!(!names().iter().any(|name| name.ends_with("_v7")), "{:?}", names());
    let mut batch = leader.begin().unwrap();
    let writes = [DocumentWrite { id: &int(3), body: None, entries: &[], stamp: Some(3) }];
    assert_eq!(batch.put_documents(VERSION, 0, &writes).unwrap(), Written { deleted: 1, ..Written::default() });
    batch.flush().unwrap();
}
