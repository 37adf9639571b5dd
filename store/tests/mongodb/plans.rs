//! Nothing the engine asks scans a collection of rows or documents: the server's own profile says so.

use headwater_schemas::{ValueRef, key};
use headwater_store::{
    ByteList, Cursor, DocumentReader, DocumentStore, DocumentWrite, Filter, IndexQuery, KeyRange, Paired,
    ProjectionStore, RowArena, VersionState,
};
use mongodb::bson::{Document, doc};

use crate::common::{VERSION, documents, fresh, int, join, joined, put_row, raw, record, rows, wait};

#[tokio::test]
async fn nothing_scans_a_collection() {
    let options = fresh();
    let database = raw(&options);
    wait({
        let database = database.clone();
        async move {
            // As much as all of this test says.
            database.run_command(doc! { "create": "system.profile", "capped": true, "size": 64 << 20 }).await.unwrap();
            database.run_command(doc! { "profile": 2 }).await.unwrap();
        }
    });
    let keeper = documents(&options).unwrap();
    let reader = keeper.reader();
    let store = Paired::new(rows(&options).unwrap(), keeper.clone());
    for round in 0..3 {
        let mut batch = store.begin().unwrap();
        batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
        for n in 0..300 {
            put_row(&mut *batch, n, n + round);
        }
        joined(&*batch).unwrap();
        let (mut keys, mut out) = (ByteList::default(), RowArena::default());
        (0..500).for_each(|n| keys.push(&int(n)));
        batch.rows_by_key(&join().table, &keys, 0, &mut out).unwrap();
        batch.scan_rows(&join().table, Some(&int(7)), 20, &mut out).unwrap();
        batch.row_count(&join().table).unwrap();
        let ids: Vec<_> = (0..300).map(int).collect();
        for (n, id) in ids.iter().enumerate() {
            let (a, b) = (int(n as i64 % 10), key::of(ValueRef::Text(&format!("x{}", n as i64 + round))));
            let entries: &[(u16, &[u8])] = &[(0, &a), (1, &b)];
            let body = (n % 7 != round as usize).then_some(&b"{}"[..]);
            let entries = if body.is_some() { entries } else { &[] };
            batch.put_documents(VERSION, 0, &[DocumentWrite { id, body, entries, stamp: None }]).unwrap();
        }
        batch.document_count(VERSION).unwrap();
        batch.commit().unwrap();
    }
    let filter = |index, ranges, negated| Filter { index, ranges, negated };
    let all = || vec![KeyRange::default()];
    let some = || vec![KeyRange::exactly(&int(2)), KeyRange::exactly(&int(4)), KeyRange { low: int(7), high: None }];
    for descending in [false, true] {
        for walk in [None, Some(filter(0, all(), false)), Some(filter(0, some(), false)), Some(filter(1, all(), false))]
        {
            for filters in [vec![], vec![filter(0, some(), false), filter(1, vec![], true)]] {
                let value = if walk.is_some() { int(4) } else { vec![] };
                for after in [None, Some(Cursor { value, id: int(34) })] {
                    let query = IndexQuery {
                        walk: walk.clone(),
                        descending,
                        filters: filters.clone(),
                        after,
                        limit: 20,
                        entries_max: 500,
                        bytes_max: usize::MAX,
                    };
                    reader.query(VERSION, &query).await.unwrap();
                    reader.count(VERSION, &query, 1000).await.unwrap();
                }
            }
        }
    }
    reader.get(VERSION, &int(1)).await.unwrap();
    reader.get_many(VERSION, &[int(1), int(2)], usize::MAX).await.unwrap();
    let mut batch = keeper.begin().unwrap();
    batch.purge_version(VERSION, 10).unwrap();
    batch.flush().unwrap();

    let profile: Vec<Document> = wait(async move {
        let profile = database.collection::<Document>("system.profile");
        let mut cursor = profile.find(doc! { "planSummary": { "$exists": true } }).await.unwrap();
        let mut found = Vec::new();
        while cursor.advance().await.unwrap() {
            found.push(cursor.deserialize_current().unwrap());
        }
        found
    });
    // The registry, and a projector's notes, are read as a whole.
    let whole = ["headwater.versions", "headwater.frontiers", "headwater.rows.default", "system.profile"];
    let own = |document: &&Document| {
        let namespace = document.get_str("ns").unwrap();
        !whole.iter().any(|name| namespace == format!("{}.{name}", options.database))
            && !namespace.ends_with("$cmd.aggregate")
    };
    let looked: Vec<_> = profile.iter().filter(own).collect();
    assert!(looked.len() > 100, "only {} plans were seen", looked.len());
    for operation in looked {
        let plan = operation.get_str("planSummary").unwrap();
        assert!(!plan.contains("COLLSCAN"), "{operation}");
    }
}
