use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use headwater_schemas::{ValueRef, key};

use super::Place;
use super::sample::{VERSION, at, commit, int, text};
use crate::{
    Counted, DocumentReader, DocumentWrite, Error, ErrorKind, Filter, Frontier, IndexQuery, KeyRange, Page, VersionId,
    VersionRecord, VersionState, Written,
};

fn everything(walk: Option<u16>) -> IndexQuery {
    let walk = walk.map(|index| Filter { index, ranges: vec![KeyRange::default()], negated: false });
    IndexQuery {
        walk,
        descending: false,
        filters: vec![],
        after: None,
        limit: 1000,
        entries_max: 100_000,
        bytes_max: usize::MAX,
    }
}

fn ids(page: &Page) -> Vec<Vec<u8>> {
    page.documents.iter().map(|(id, _)| id.clone()).collect()
}

fn record(id: VersionId, state: VersionState) -> VersionRecord {
    let (model, definition_hash) = ("customer".to_owned(), "h".to_owned());
    VersionRecord { id, model, definition_hash, state, sources: Vec::new(), shape: None, created_at_ms: 1 }
}

fn put<'a>(id: &'a [u8], entries: &'a [(u16, &'a [u8])]) -> DocumentWrite<'a> {
    DocumentWrite { id, body: Some(b"{}"), entries, stamp: None }
}

async fn stamp(reader: &dyn DocumentReader, id: &[u8]) -> Option<u64> {
    reader.get(VERSION, id).await.unwrap().map(|document| document.stamp)
}

pub async fn documents_are_invisible_before_commit(place: &impl Place) {
    let opened = place.open();
    let (id, other) = (int(1), int(2));
    let mut batch = opened.writer.begin().unwrap();
    let write = DocumentWrite { id: &id, body: Some(b"{\"a\":1}"), entries: &[], stamp: None };
    batch.put_documents(VERSION, 42, &[write]).unwrap();
    batch.put_version(&record(VERSION, VersionState::Building)).unwrap();
    assert_eq!(batch.document_count(VERSION).unwrap(), 1);
    assert_eq!(opened.reader.get(VERSION, &id).await.unwrap(), None);
    assert!(opened.reader.versions().borrow().is_empty());
    batch.commit().unwrap();
    let document = opened.reader.get(VERSION, &id).await.unwrap().unwrap();
    assert_eq!((&document.body[..], document.as_of_micros), (&b"{\"a\":1}"[..], 42));
    assert_eq!(opened.reader.get(VersionId(VERSION.0 + 1), &id).await.unwrap(), None);
    let many = opened.reader.get_many(VERSION, &[other, id.clone()], 0).await.unwrap();
    assert_eq!(many, Some(vec![None, Some(document)]), "one alone is read, whatever its size");
    assert_eq!(opened.reader.document_count(VERSION).await.unwrap(), 1);
    assert_eq!(opened.reader.versions().borrow().len(), 1);

    let mut batch = opened.writer.begin().unwrap();
    batch.put_documents(VERSION, 43, &[DocumentWrite { id: &id, body: None, entries: &[], stamp: None }]).unwrap();
    drop(batch);
    assert!(opened.reader.get(VERSION, &id).await.unwrap().is_some());
    assert_eq!(opened.reader.document_count(VERSION).await.unwrap(), 1);
}

pub async fn unchanged_documents_keep_their_stamp(place: &impl Place) {
    let opened = place.open();
    let (id, a, b) = (int(1), text("a"), text("b"));
    let written = |written, deleted, unchanged| Written { written, deleted, unchanged };
    let (with_a, with_b) = ([(0, &a[..])], [(0, &b[..])]);
    let write = |body, entries| DocumentWrite { id: &id, body: Some(body), entries, stamp: None };
    assert_eq!(commit(&opened, &[write(b"1", &with_a)]), written(1, 0, 0));
    let first = stamp(&*opened.reader, &id).await;
    assert_eq!(commit(&opened, &[write(b"1", &with_a)]), written(0, 0, 1));
    assert_eq!(stamp(&*opened.reader, &id).await, first);
    assert_eq!(commit(&opened, &[write(b"1", &with_b)]), written(1, 0, 0), "other entries");
    let second = stamp(&*opened.reader, &id).await;
    assert!(second > first);
    assert_eq!(commit(&opened, &[write(b"2", &with_b)]), written(1, 0, 0), "another body");
    assert!(stamp(&*opened.reader, &id).await > second);
    let gone = DocumentWrite { id: &id, body: None, entries: &[], stamp: None };
    assert_eq!(commit(&opened, &[gone]), written(0, 1, 0));
    assert_eq!(commit(&opened, &[gone]), written(0, 0, 1), "already gone");
}

pub async fn stamps_rise(place: &impl Place) {
    let mut last = None;
    for n in 0..10 {
        let opened = place.open();
        // One batch that is dropped must not lead to a stamp being given twice.
        let body = n.to_string();
        let mut batch = opened.writer.begin().unwrap();
        let write = DocumentWrite { id: &int(1), body: Some(b"dropped"), entries: &[], stamp: None };
        batch.put_documents(VERSION, 0, &[write]).unwrap();
        drop(batch);
        for id in [int(1), int(2)] {
            commit(&opened, &[DocumentWrite { id: &id, body: Some(body.as_bytes()), entries: &[], stamp: None }]);
            let now = stamp(&*opened.reader, &id).await;
            assert!(now > last, "{now:?} after {last:?}");
            last = now;
        }
    }
}

pub async fn deleted_documents_leave_no_entries(place: &impl Place) {
    let opened = place.open();
    let (a, b) = (text("a"), text(&"b".repeat(900)));
    let (short, long) = (int(1), text(&"i".repeat(900)));
    commit(&opened, &[put(&short, &[(0, &a), (0, &b), (1, &a)]), put(&long, &[(0, &b)])]);
    let page = opened.reader.query(VERSION, &everything(Some(0))).await.unwrap();
    assert_eq!(ids(&page), [short.clone(), long.clone()]);
    commit(&opened, &[put(&short, &[(1, &b)]), DocumentWrite { id: &long, body: None, entries: &[], stamp: None }]);
    assert!(opened.reader.query(VERSION, &everything(Some(0))).await.unwrap().documents.is_empty());
    let page = opened.reader.query(VERSION, &everything(Some(1))).await.unwrap();
    assert_eq!(ids(&page), std::slice::from_ref(&short));
    let counted = opened.reader.count(VERSION, &everything(Some(1)), 10).await.unwrap();
    assert_eq!(counted, Counted { seen: 1, is_all: true });
    commit(&opened, &[DocumentWrite { id: &short, body: None, entries: &[], stamp: None }]);
    assert!(opened.reader.query(VERSION, &everything(Some(1))).await.unwrap().documents.is_empty());
    assert_eq!(opened.reader.document_count(VERSION).await.unwrap(), 0);
}

pub async fn a_version_is_purged_in_slices(place: &impl Place) {
    let opened = place.open();
    let kept = VersionId(VERSION.0 + 1);
    let mut batch = opened.writer.begin().unwrap();
    for version in [VERSION, kept] {
        batch.put_version(&record(version, VersionState::Retired)).unwrap();
        for n in 0..25 {
            let (id, value) = (int(n), text("v"));
            let write = DocumentWrite { id: &id, body: Some(b"{}"), entries: &[(3, &value)], stamp: None };
            batch.put_documents(version, 0, &[write]).unwrap();
        }
    }
    batch.commit().unwrap();
    let mut removed = Vec::new();
    while opened.reader.versions().borrow().len() == 2 {
        let mut batch = opened.writer.begin().unwrap();
        removed.push(batch.purge_version(VERSION, 10).unwrap());
        batch.commit().unwrap();
        let left = 25 - removed.iter().sum::<usize>() as u64;
        assert_eq!(opened.reader.document_count(VERSION).await.unwrap(), left);
    }
    assert_eq!(removed, [10, 10, 5]);
    assert!(opened.reader.query(VERSION, &everything(Some(3))).await.unwrap().documents.is_empty());
    assert_eq!(opened.reader.query(kept, &everything(Some(3))).await.unwrap().documents.len(), 25);
    assert_eq!(opened.writer.begin().unwrap().versions().unwrap().len(), 1);
}

pub async fn listeners_hear_of_commits(place: &impl Place) {
    let opened = place.open();
    let (mut changes, mut frontiers) = (opened.reader.changes(), opened.reader.frontiers());
    let mut versions = opened.reader.versions();
    frontiers.mark_unchanged();
    versions.mark_unchanged();
    let (one, two) = (int(1), int(2));
    let body = DocumentWrite { id: &one, body: Some(b"1"), entries: &[], stamp: None };
    commit(&opened, &[body, DocumentWrite { id: &two, ..body }]);
    let heard = changes.try_recv().unwrap();
    assert_eq!(heard.iter().map(|c| c.id.clone()).collect::<Vec<_>>(), [Bytes::from(one.clone()), two.clone().into()]);
    assert_eq!(heard[0].stamp, stamp(&*opened.reader, &one).await);
    assert!(!frontiers.has_changed().unwrap() && !versions.has_changed().unwrap(), "nothing new about these");

    commit(&opened, &[body]);
    assert!(changes.try_recv().is_err(), "nothing changed");
    drop({
        let mut batch = opened.writer.begin().unwrap();
        batch.put_documents(VERSION, 0, &[DocumentWrite { id: &one, body: None, entries: &[], stamp: None }]).unwrap();
        batch.set_frontier("billing", Frontier::default()).unwrap();
        batch.put_version(&record(VERSION, VersionState::Active)).unwrap();
        batch
    });
    assert!(changes.try_recv().is_err() && !frontiers.has_changed().unwrap(), "the batch was dropped");

    let mut batch = opened.writer.begin().unwrap();
    batch.put_documents(VERSION, 0, &[DocumentWrite { id: &two, body: None, entries: &[], stamp: None }]).unwrap();
    batch.set_frontier("billing", Frontier { position: at(5), ..Frontier::default() }).unwrap();
    batch.put_version(&record(VERSION, VersionState::Active)).unwrap();
    batch.commit().unwrap();
    let heard = changes.try_recv().unwrap();
    assert_eq!((heard.len(), heard[0].stamp, &heard[0].id[..]), (1, None, &two[..]));
    assert!(versions.has_changed().unwrap());
    // Where several processes write, when what they wrote before has been told, too.
    let told = frontiers.wait_for(|all| all.get("billing").is_some_and(|frontier| frontier.position == at(5)));
    tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap();
    assert_eq!(versions.borrow()[0].state, VersionState::Active);
}

pub async fn too_large_documents_are_refused(place: &impl Place) {
    let opened = place.open();
    let body = vec![b'x'; 65 << 20];
    let mut batch = opened.writer.begin().unwrap();
    let (small, large) = (int(1), int(2));
    let writes = [(&small, &b"{}"[..]), (&large, &body)];
    let writes = writes.map(|(id, body)| DocumentWrite { id, body: Some(body), entries: &[], stamp: None });
    let refused = batch.put_documents(VERSION, 0, &writes).unwrap_err();
    assert!(matches!(refused, Error::DocumentTooLarge { bytes, .. } if bytes == body.len()));
    assert_eq!(refused.kind(), ErrorKind::Poison);
    assert_eq!(batch.document_count(VERSION).unwrap(), 0, "none of them was written");
    batch.put_documents(VERSION, 0, &writes[..1]).unwrap();
    batch.commit().unwrap();
    assert!(stamp(&*opened.reader, &small).await.is_some());
}

/// Two or more that have too many bytes together are not read; one is, whatever its size.
pub async fn documents_too_large_together_are_not_read(place: &impl Place) {
    let opened = place.open();
    let ids = [int(1), int(2), int(3)];
    let write = |id| DocumentWrite { id, body: Some(b"{\"a\":1}"), entries: &[], stamp: None };
    commit(&opened, &[write(&ids[0]), write(&ids[1]), write(&ids[2])]);
    let reader = &opened.reader;
    assert_eq!(reader.get_many(VERSION, &ids, 20).await.unwrap(), None, "they have 21 bytes");
    let all = reader.get_many(VERSION, &ids, 21).await.unwrap().unwrap();
    assert!(all.len() == 3 && all.iter().all(Option::is_some), "{all:?}");
    let one = reader.get_many(VERSION, &ids[..1], 1).await.unwrap().unwrap();
    assert!(one[0].is_some());
}

/// A writer replaces all documents with one number again and again; readers never see two numbers, nor an older one than
/// before.
pub async fn readers_see_whole_batches(place: &impl Place) {
    const DOCUMENTS: i64 = 40;
    let opened = place.open();
    let all: Vec<Vec<u8>> = (0..DOCUMENTS).map(int).collect();
    let write = |n: u64| {
        let (body, value) = (n.to_string(), key::of(ValueRef::UInt(n)));
        let entries: &[(u16, &[u8])] = &[(0, &value)];
        let writes: Vec<_> =
            all.iter().map(|id| DocumentWrite { id, body: Some(body.as_bytes()), entries, stamp: None }).collect();
        commit(&opened, &writes);
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..4 {
            let (all, done, opened) = (&all, &done, &opened);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let (mut last, mut reads) = (0, 0);
                while !done.load(Ordering::Relaxed) || reads < 50 {
                    let documents: Vec<_> = if reader % 2 == 0 {
                        let many = runtime.block_on(opened.reader.get_many(VERSION, all, usize::MAX)).unwrap();
                        many.into_iter().flatten().flatten().collect()
                    } else {
                        let page = runtime.block_on(opened.reader.query(VERSION, &everything(Some(0)))).unwrap();
                        page.documents.into_iter().map(|(_, document)| document).collect()
                    };
                    assert_eq!(documents.len(), all.len());
                    let number = |body: &[u8]| std::str::from_utf8(body).unwrap().parse::<u64>().unwrap();
                    let seen = number(&documents[0].body);
                    assert!(documents.iter().all(|document| number(&document.body) == seen), "half a batch");
                    assert!(seen >= last, "time went back");
                    last = seen;
                    reads += 1;
                }
            });
        }
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            // Readers end also when this thread panics.
            let _end = SetWhenDropped(&done);
            for n in 1..150 {
                write(n);
                let document = runtime.block_on(opened.reader.get(VERSION, &all[0])).unwrap().unwrap();
                assert_eq!(&document.body[..], n.to_string().as_bytes(), "committed and not to be seen");
            }
        });
    });
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
