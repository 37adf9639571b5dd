//! A process that was taken over, and does not know it, can write nothing any more.

use headwater_store::{
    DocumentReader, DocumentStore, DocumentWrite, Error, ErrorKind, Frontier, RowStore, VersionState,
};

use mongodb::bson::{Document, doc};

use crate::common::{VERSION, documents, fresh, int, joined, put_row, raw, reader, record, rows, wait};

fn is_taken_over(error: &Error) -> bool {
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("took over"), "{error}");
    matches!(error, Error::TakenOver { .. })
}

#[test]
fn a_zombie_writes_no_rows() {
    let options = fresh();
    // Of three who take over from one another, each will have a row or an offset to write.
    let [other, another, zombie] = [0, 1, 2].map(|_| rows(&options).unwrap());
    let mut batch = zombie.begin().unwrap();
    put_row(&mut *batch, 1, 10);
    batch.set_offset("events", 0, 1).unwrap();
    batch.commit().unwrap();

    // In the middle of a batch, part of which has reached the server.
    let mut batch = zombie.begin().unwrap();
    put_row(&mut *batch, 1, 11);
    assert_eq!(joined(&*batch).unwrap(), [11]);
    batch.set_offset("events", 0, 2).unwrap();
    let owner = rows(&options).unwrap();
    let mut own = owner.begin().unwrap();
    assert_eq!(joined(&*own).unwrap(), [10], "what was not committed is not there");
    put_row(&mut *own, 2, 20);
    own.commit().unwrap();
    assert!(is_taken_over(&batch.commit().unwrap_err()));

    // Then it cannot begin any more. And in a batch that is begun afterwards.
    assert!(is_taken_over(&zombie.begin().err().unwrap()));
    let mut batch = other.begin().unwrap();
    put_row(&mut *batch, 1, 12);
    assert!(is_taken_over(&batch.commit().unwrap_err()));
    let mut batch = another.begin().unwrap();
    batch.set_offset("events", 0, 9).unwrap();
    assert!(is_taken_over(&batch.commit().unwrap_err()));

    let own = owner.begin().unwrap();
    assert_eq!(joined(&*own).unwrap(), [10, 20]);
    assert_eq!(own.offsets().unwrap(), [("events".to_owned(), 0, 1)]);
}

#[tokio::test]
async fn a_zombie_writes_no_documents() {
    let options = fresh();
    let zombie = documents(&options).unwrap();
    let (one, two, three, four) = (int(1), int(2), int(3), int(4));
    let write = |id, body| DocumentWrite { id, body, entries: &[], stamp: None };
    let mut batch = zombie.begin().unwrap();
    batch.put_documents(VERSION, 0, &[write(&one, Some(b"old")), write(&two, Some(b"old"))]).unwrap();
    batch.flush().unwrap();
    let before = zombie.reader().get(VERSION, &one).await.unwrap().unwrap().stamp;

    // Gathered before it was taken over, flushed after: a write, a delete, a document that is new, a version.
    let mut late = zombie.begin().unwrap();
    let writes = [write(&one, Some(b"late")), write(&two, None)];
    late.put_documents(VERSION, 0, &writes).unwrap();
    late.put_documents(VERSION, 0, &[write(&three, Some(b"late"))]).unwrap();
    late.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
    late.set_frontier("billing", Frontier::default()).unwrap();
    let others = [0, 1, 2].map(|_| documents(&options).unwrap());
    let owner = documents(&options).unwrap();
    let mut batch = owner.begin().unwrap();
    batch.put_documents(VERSION, 0, &[write(&one, Some(b"new")), write(&four, Some(b"new"))]).unwrap();
    batch.flush().unwrap();
    assert!(is_taken_over(&late.flush().unwrap_err()));
    assert!(is_taken_over(&zombie.begin().err().unwrap()));

    // Also with fresh eyes, and when all it wants is to put back what the new owner removed.
    let mut batch = owner.begin().unwrap();
    batch.put_documents(VERSION, 0, &[write(&two, None)]).unwrap();
    batch.flush().unwrap();
    for (other, (id, body)) in others.iter().zip([(&one, Some(&b"late"[..])), (&two, Some(b"late")), (&one, None)]) {
        let mut late = other.begin().unwrap();
        late.put_documents(VERSION, 0, &[write(id, body)]).unwrap();
        assert!(is_taken_over(&late.flush().unwrap_err()));
    }

    let reader = owner.reader();
    let many = reader.get_many(VERSION, &[one, two, three, four], usize::MAX).await.unwrap().unwrap();
    let bodies: Vec<_> = many.iter().map(|it| it.as_ref().map(|it| it.body.to_vec())).collect();
    assert_eq!(bodies, [Some(b"new".to_vec()), None, None, Some(b"new".to_vec())]);
    assert!(many[0].as_ref().unwrap().stamp > before);
    assert_eq!(reader.document_count(VERSION).await.unwrap(), 2);
    assert!(reader.versions().borrow().is_empty());
    assert!(reader.frontiers().borrow().is_empty());
}

/// The writer remembers what it wrote. Where that turns out wrong, the flush fails, and nothing is remembered any more.
#[tokio::test]
async fn a_writer_who_is_wrong_about_a_document_asks_again() {
    let options = fresh();
    let store = documents(&options).unwrap();
    let (one, two) = (int(1), int(2));
    let write = |id, body| DocumentWrite { id, body, entries: &[], stamp: None };
    let put = |writes: &[DocumentWrite<'_>]| {
        let mut batch = store.begin().unwrap();
        let written = batch.put_documents(VERSION, 0, writes).unwrap();
        batch.flush().map(|()| written)
    };
    put(&[write(&one, Some(b"a")), write(&two, Some(b"a"))]).unwrap();
    let again = put(&[write(&one, Some(b"a")), write(&two, Some(b"b"))]).unwrap();
    assert_eq!((again.written, again.unchanged), (1, 1));
    assert_eq!(store.begin().unwrap().document_count(VERSION).unwrap(), 2);

    // Somebody removes a document behind our back.
    let collection = raw(&options).collection::<mongodb::bson::Document>(&format!("_v{}", VERSION.0));
    assert_eq!(collection.delete_one(mongodb::bson::doc! { "_id": { "$gt": "" } }).await.unwrap().deleted_count, 1);
    put(&[write(&one, Some(b"c")), write(&two, Some(b"c"))]).unwrap_err();
    put(&[write(&one, Some(b"c")), write(&two, Some(b"c"))]).unwrap();
    for id in [&one, &two] {
        assert_eq!(store.reader().get(VERSION, id).await.unwrap().unwrap().body, "c");
    }
}

/// As after a restore, which takes back the registry and the counters and leaves the collections made since.
#[tokio::test]
async fn a_new_version_has_no_documents_of_one_that_a_restore_forgot() {
    let options = fresh();
    let written = |ids: &[i64]| {
        let store = documents(&options).unwrap();
        let mut batch = store.begin().unwrap();
        let version = batch.new_version_id().unwrap();
        batch.put_version(&record(version, VersionState::Active, None)).unwrap();
        for id in ids {
            let write = DocumentWrite { id: &int(*id), body: Some(b"1"), entries: &[], stamp: None };
            batch.put_documents(version, 0, &[write]).unwrap();
        }
        batch.flush().unwrap();
        (store, version)
    };
    drop(written(&[1, 2]));
    let database = raw(&options);
    wait(async move {
        for taken_back in ["headwater.versions", "headwater.counts", "headwater.counters"] {
            database.collection::<Document>(taken_back).delete_many(doc! {}).await.unwrap();
        }
    });
    let (store, version) = written(&[1]);
    for reader in [store.reader(), reader(&options).unwrap()] {
        assert!(reader.get(version, &int(1)).await.unwrap().is_some());
        assert!(reader.get(version, &int(2)).await.unwrap().is_none(), "it is of the version before");
    }
}
