//! A query of several steps sees one moment.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use headwater_store::{DocumentReader, DocumentStore, DocumentWrite, Filter, IndexQuery, KeyRange, VersionState};

use crate::common::{VERSION, documents, fresh, int, record};

const DOCUMENTS: i64 = 400;

/// Conditions make the server be asked for entries first, some at a time, and for bodies after.
#[tokio::test]
async fn all_steps_of_a_query_see_one_moment() {
    let store = documents(&fresh()).unwrap();
    let reader = store.reader();
    let ids: Vec<Vec<u8>> = (0..DOCUMENTS).map(int).collect();
    let write = |n: i64| {
        let (body, value) = (n.to_string(), int(n));
        let entries: &[(u16, &[u8])] = &[(0, &value)];
        let writes: Vec<_> =
            ids.iter().map(|id| DocumentWrite { id, body: Some(body.as_bytes()), entries, stamp: None }).collect();
        let mut batch = store.begin().unwrap();
        batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
        batch.put_documents(VERSION, 0, &writes).unwrap();
        batch.flush().unwrap();
    };
    write(0);
    let (done, written) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                write(written.fetch_add(1, Ordering::Relaxed) + 1);
            }
        });
        let reads = scope.spawn(|| {
            let everything = || Filter { index: 0, ranges: vec![KeyRange::default()], negated: false };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut reads = 0;
            while written.load(Ordering::Relaxed) < 25 || reads < 40 {
                reads += 1;
                let walk = (reads % 2 == 0).then(everything);
                let query = IndexQuery {
                    walk,
                    descending: false,
                    filters: vec![everything()],
                    after: None,
                    limit: 1_000,
                    entries_max: 10_000,
                    bytes_max: usize::MAX,
                };
                let page = runtime.block_on(reader.query(VERSION, &query)).unwrap();
                assert_eq!(page.documents.len() as i64, DOCUMENTS);
                let first = &page.documents[0].1.body;
                assert!(page.documents.iter().all(|(_, document)| document.body == first), "half a batch");
                assert_eq!(runtime.block_on(reader.count(VERSION, &query, 1_000)).unwrap().seen as i64, DOCUMENTS);
            }
        });
        let read = reads.join();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        read.unwrap();
    });
}
