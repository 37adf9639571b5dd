//! A commit that got no answer, because the majority was not there, is part of what comes next.

use std::time::Duration;

use headwater_store::mongodb::MongoOptions;
use headwater_store::{
    Batch, DocumentBatch, DocumentReader, DocumentStore, DocumentWrite, Error, ErrorKind, Paired, ProjectionStore,
    VersionState,
};
use headwater_test_servers::Mongo;
use mongodb::bson::doc;

use crate::common::{VERSION, documents, int, joined, put_row, raw, record, rows, wait};

/// A server whose majority can be held back, and options for one that waits for it only briefly.
fn server() -> (Mongo, MongoOptions) {
    let arguments = vec!["--setParameter".to_owned(), "enableTestCommands=1".to_owned()];
    let server = Mongo::start_with(&headwater_test_servers::MongoOptions { arguments, ..Default::default() });
    let options = MongoOptions { operation_max: Duration::from_secs(2), ..MongoOptions::new(server.url(), "hw") };
    (server, options)
}

/// From here on majority reads see nothing new, and nobody is told that the majority has what was committed. Let go, they
/// see it from the next write on.
fn hold_back(options: &MongoOptions, hold: bool) {
    let database = raw(options);
    let mode = if hold { "alwaysOn" } else { "off" };
    wait(async move {
        let command = doc! { "configureFailPoint": "disableSnapshotting", "mode": mode };
        database.client().database("admin").run_command(command).await.unwrap();
    });
}

fn put_document<B: DocumentBatch + ?Sized>(batch: &mut B, id: i64, body: &str) -> Result<(), Error> {
    let id = int(id);
    let write = DocumentWrite { id: &id, body: Some(body.as_bytes()), entries: &[], stamp: None };
    batch.put_documents(VERSION, 0, &[write]).map(|_| ())
}

/// Brings a row, its document and the offset to `n`.
fn write(store: &dyn ProjectionStore, n: u64) -> Result<(), Error> {
    let mut batch = store.begin()?;
    put_row(&mut *batch, 1, n as i64);
    put_document(&mut *batch, 1, &n.to_string())?;
    batch.set_offset("events", 0, n)?;
    batch.commit()
}

/// The row of the second write is there, and so is all that was committed with it.
fn check(batch: &dyn Batch) {
    assert_eq!(joined(batch).unwrap(), [2]);
    assert_eq!(batch.offsets().unwrap(), [("events".to_owned(), 0, 2)]);
    let unfinished = batch.unfinished().unwrap();
    let [(VERSION, roots)] = &unfinished[..] else { panic!("{unfinished:?}") };
    assert_eq!(roots.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), [int(1)]);
}

#[test]
fn notes_and_offsets_are_as_new_as_the_rows() {
    let (_server, options) = server();
    for takes_over in [false, true] {
        let options = MongoOptions { database: format!("hw_{takes_over}"), ..options.clone() };
        let documents = documents(&options).unwrap();
        let open = || Ok::<_, Error>(Paired::new(rows(&options)?, documents.clone()));
        let store = open().unwrap();
        let mut batch = store.begin().unwrap();
        batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
        batch.commit().unwrap();
        write(&*store, 1).unwrap();

        hold_back(&options, true);
        assert_eq!(write(&*store, 2).unwrap_err().kind(), ErrorKind::Retryable);
        let again = || if takes_over { open() } else { Ok(store.clone()) };
        // Whoever begins before it is confirmed, if anybody may, sees all of it.
        if let Ok(store) = again()
            && let Ok(batch) = store.begin()
        {
            check(&*batch);
        }
        hold_back(&options, false);
        let store = again().unwrap();
        let batch = store.begin().unwrap();
        check(&*batch);
    }
}

#[test]
fn documents_are_compared_with_what_was_written_last() {
    let (_server, options) = server();
    let store = documents(&options).unwrap();
    let put = |id: i64, body: &str| {
        let mut batch = store.begin()?;
        put_document(&mut *batch, id, body)?;
        batch.flush()
    };
    put(1, "before").unwrap();
    hold_back(&options, true);
    assert_eq!(put(1, "lost").unwrap_err().kind(), ErrorKind::Retryable);
    // The rows are as before by now.
    let back = put(1, "before");
    hold_back(&options, false);
    if back.is_err() {
        put(1, "before").unwrap();
    }
    // With this one the majority has all that came before it.
    put(2, "other").unwrap();
    let reader = store.reader();
    let document = wait(async move { reader.get(VERSION, &int(1)).await.unwrap().unwrap() });
    assert_eq!(document.body, "before");
}
