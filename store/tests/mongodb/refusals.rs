//! What cannot work says why and what to do, and shows no secrets. What should work does: TLS and a login.

use std::time::{Duration, Instant};

use headwater_schemas::{RowBuilder, RowRef, SourcePosition, ValueRef};
use headwater_store::mongodb::MongoOptions;
use headwater_store::{
    ByteList, DocumentReader, DocumentStore, DocumentWrite, Error, ErrorKind, RowArena, RowStore, RowWrite, SchemaId,
    VersionState,
};
use headwater_test_servers::{Mongo, MongoOptions as ServerOptions, forward_to};
use mongodb::bson::{Document, doc};

use crate::common::{VERSION, documents, fresh, int, join, raw, reader, record, rows, wait};

/// The message with all its causes.
fn told(error: &Error) -> String {
    let (mut told, mut source) = (error.to_string(), std::error::Error::source(error));
    while let Some(cause) = source {
        told += &format!(": {cause}");
        source = cause.source();
    }
    told
}

#[tokio::test]
async fn tls_and_a_login_work_and_wrong_ones_are_explained() {
    let server = Mongo::start_with(&ServerOptions { tls: true, auth: true, ..ServerOptions::default() });
    let options = MongoOptions { selection_max: Duration::from_secs(2), ..MongoOptions::new(server.url(), "hw") };
    rows(&options).unwrap();
    let store = documents(&options).unwrap();
    let mut batch = store.begin().unwrap();
    let id = int(1);
    batch.put_documents(VERSION, 0, &[DocumentWrite { id: &id, body: Some(b"1"), entries: &[], stamp: None }]).unwrap();
    batch.flush().unwrap();
    assert_eq!(reader(&options).unwrap().get(VERSION, &id).await.unwrap().unwrap().body, "1");

    let wrong = MongoOptions { uri: server.url().replace(server.password(), "wr0ng"), ..options.clone() };
    let refused = documents(&wrong).err().unwrap();
    assert!(refused.is_refusal(), "where it never worked, nobody waits: {refused:?}");
    let message = told(&refused);
    assert!(
        message.contains("authSource") && message.contains(&format!("127.0.0.1:{}/hw", server.port())),
        "{message}"
    );
    assert!(!message.contains("wr0ng") && !format!("{wrong:?}{refused:?}").contains("wr0ng"));

    let anonymous = server.url().replace(&format!("headwater:{}@", server.password()), "");
    let refused = rows(&MongoOptions { uri: anonymous, ..options.clone() }).err().unwrap();
    assert!(refused.is_refusal(), "{refused:?}");

    let ca = server.certificates().unwrap();
    let foreign = server.url().replace(ca.ca.to_str().unwrap(), ca.other_ca.to_str().unwrap());
    let refused = rows(&MongoOptions { uri: foreign, ..options.clone() }).err().unwrap();
    assert!(!told(&refused).contains(server.password()), "{refused:?}");

    // A certificate for another name.
    let other = forward_to(server.port());
    let other = server.url().replace(&format!("127.0.0.1:{}", server.port()), &other.to_string());
    let refused = told(&rows(&MongoOptions { uri: other, ..options }).err().unwrap());
    assert!(refused.contains("not valid for name \"127.0.0.2\""), "{refused}");
}

/// What was taken away while we run is told as what may be given back, and once it is, the same store goes on.
#[tokio::test]
async fn privileges_may_go_and_come_back() {
    let server = Mongo::start_with(&ServerOptions { auth: true, ..ServerOptions::default() });
    let keeper = mongodb::Client::with_uri_str(server.url()).await.unwrap().database("admin");
    let roles = || vec![doc! { "role": "readWrite", "db": "hw" }];
    keeper.run_command(doc! { "createUser": "writer", "pwd": "pass", "roles": roles() }).await.unwrap();
    let login = format!("headwater:{}@", server.password());
    let options = MongoOptions::new(server.url().replace(&login, "writer:pass@"), "hw");
    let store = documents(&options).unwrap();
    let write = |body: &[u8]| {
        let mut batch = store.begin()?;
        let id = int(1);
        batch.put_documents(VERSION, 0, &[DocumentWrite { id: &id, body: Some(body), entries: &[], stamp: None }])?;
        batch.flush()
    };
    write(b"1").unwrap();
    keeper.run_command(doc! { "revokeRolesFromUser": "writer", "roles": roles() }).await.unwrap();
    let refused = write(b"2").unwrap_err();
    assert!(refused.is_refusal() && refused.kind() == ErrorKind::Retryable, "{refused:?}");
    assert!(told(&refused).contains("`readWrite`") && told(&refused).contains("not authorized"), "{}", told(&refused));
    keeper.run_command(doc! { "grantRolesToUser": "writer", "roles": roles() }).await.unwrap();
    write(b"3").unwrap();
    assert_eq!(reader(&options).unwrap().get(VERSION, &int(1)).await.unwrap().unwrap().body, "3");
}

#[test]
fn a_server_that_is_no_replica_set_is_refused() {
    let server = Mongo::start_with(&ServerOptions { replica_set: false, ..ServerOptions::default() });
    let refused = documents(&MongoOptions::new(server.url(), "hw")).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Fatal);
    assert!(told(&refused).contains("--replSet"), "{refused:?}");
}

#[test]
fn a_server_that_is_not_there_is_waited_for_a_bounded_time() {
    let began = Instant::now();
    let options = MongoOptions::new("mongodb://user:s3cret@127.0.0.1:1/", "hw");
    let missing = rows(&MongoOptions { selection_max: Duration::from_secs(1), ..options }).err().unwrap();
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(missing.kind(), ErrorKind::Retryable);
    assert!(!told(&missing).contains("s3cret") && told(&missing).contains("127.0.0.1:1"), "{}", told(&missing));
}

#[test]
fn names_and_connection_strings_are_checked() {
    for options in [
        MongoOptions { projector: "a.b".into(), ..fresh() },
        MongoOptions { projector: String::new(), ..fresh() },
        MongoOptions { database: "a/b".into(), ..fresh() },
        MongoOptions { uri: "postgres://localhost".into(), ..fresh() },
    ] {
        let refused = rows(&options).err().unwrap();
        assert!(matches!(refused, Error::Unusable { .. }), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Fatal);
    }
}

/// A server that takes connections and never answers, as one that hangs does.
#[test]
fn a_server_that_hangs_is_given_up() {
    let mut server = Mongo::start();
    let options = MongoOptions {
        operation_max: Duration::from_secs(1),
        selection_max: Duration::from_secs(1),
        ..MongoOptions::new(server.url(), "hw")
    };
    let store = documents(&options).unwrap();
    let pid = server.pid().unwrap().to_string();
    let signal = |name| std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
    signal("STOP");
    let began = Instant::now();
    let mut batch = store.begin().unwrap();
    let id = int(1);
    let writes = [DocumentWrite { id: &id, body: Some(b"1"), entries: &[], stamp: None }];
    let failed = match batch.put_documents(VERSION, 0, &writes) {
        Ok(_) => batch.flush().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(failed.kind(), ErrorKind::Retryable, "{failed:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    signal("CONT");
    server.kill();
}

#[test]
fn a_transaction_that_is_too_large_says_so_and_smaller_ones_go_well() {
    const ROW: usize = 8 << 20;
    let options = fresh();
    let store = rows(&options).unwrap();
    let mut cells = Vec::new();
    RowBuilder::new(&mut cells).push(ValueRef::Text(&"x".repeat(ROW)));
    let write = |count: i64| {
        let mut batch = store.begin()?;
        for n in 0..count {
            let key = int(n);
            let position = SourcePosition { epoch: 1, commit: 1, ordinal: 1 };
            let row = Some(RowRef(&cells));
            let write = RowWrite { key: &key, row, schema: SchemaId(0), position, removed: &[], added: &[] };
            batch.put_row(&join().table, &[], write)?;
        }
        batch.commit()
    };
    // The server of these tests has a cache of half a gigabyte.
    let refused = write(40).unwrap_err();
    assert!(matches!(refused, Error::BatchTooLarge { .. }), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Retryable);
    write(2).unwrap();
}

/// How much the server takes depends on its cache: what it takes from one projector is not what it takes from many.
#[test]
fn documents_that_are_too_many_for_a_transaction_go_in_smaller_ones() {
    let arguments = vec!["--setParameter".into(), "enableTestCommands=1".into()];
    let server = Mongo::start_with(&ServerOptions { arguments, ..ServerOptions::default() });
    let admin = MongoOptions::new(server.url(), "admin");
    for shared in [false, true] {
        let options = MongoOptions { shared, ..MongoOptions::new(server.url(), format!("hw_{shared}")) };
        let store = documents(&options).unwrap();
        let mut batch = store.begin().unwrap();
        batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
        batch.flush().unwrap();

        // Each is a command of its own.
        let bodies = [1, 2, 3].map(|n| format!("\"{}\"", n.to_string().repeat(3 << 20)));
        let ids = [1, 2, 3].map(int);
        let mut batch = store.begin().unwrap();
        let stamp = shared.then_some(1);
        for (id, body) in ids.iter().zip(&bodies) {
            let write = DocumentWrite { id, body: Some(body.as_bytes()), entries: &[], stamp };
            batch.put_documents(VERSION, 0, &[write]).unwrap();
        }
        let too_large = doc! {
            "configureFailPoint": "failCommand", "mode": { "times": 1 },
            "data": { "failCommands": ["insert"], "errorCode": 388 },
        };
        let database = raw(&admin);
        wait(async move { database.run_command(too_large).await.unwrap() });
        batch.flush().unwrap();

        let reader = store.reader();
        let (stored, count) = wait(async move {
            let mut stored = Vec::new();
            for id in ids {
                stored.push(reader.get(VERSION, &id).await.unwrap().unwrap().body);
            }
            (stored, reader.document_count(VERSION).await.unwrap())
        });
        assert!(stored.iter().zip(&bodies).all(|(stored, body)| stored == body), "shared: {shared}");
        assert_eq!(count, 3, "shared: {shared}");
    }
}

#[test]
fn the_largest_rows_that_are_not_refused_can_be_written() {
    let options = fresh();
    let store = rows(&options).unwrap();
    // Each byte of the second key takes two.
    for key in [int(1), vec![0xff; 64 << 10]] {
        let (join, join_key, keys) = (join(), int(7), key.len() + int(7).len());
        let mut batch = store.begin().unwrap();
        let refused = batch.check_row_size(16 << 20, keys).unwrap_err();
        assert!(matches!(refused, Error::RowTooLarge { bytes, .. } if bytes >= 16 << 20), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Poison);
        let largest = (0..16 << 20).rev().find(|cells| batch.check_row_size(*cells, keys).is_ok()).unwrap();
        assert!(largest > 15 << 20, "{largest}");
        // Inserted, then replaced.
        for byte in [1_u8, 2] {
            let cells = vec![byte; largest];
            let write = RowWrite {
                key: &key,
                row: Some(RowRef(&cells)),
                schema: SchemaId(0),
                position: SourcePosition::after_commit(1, u64::from(byte)),
                removed: &[],
                added: &[(0, &join_key)],
            };
            batch.put_row(&join.table, &[&join], write).unwrap();
            batch.commit().unwrap();
            batch = store.begin().unwrap();
            let (mut asked, mut read) = (ByteList::default(), RowArena::default());
            asked.push(&key);
            batch.rows_by_key(&join.table, &asked, 0, &mut read).unwrap();
            assert!(read.slots().iter().map(|slot| read.row(slot).unwrap().0).eq([&cells[..]]));
        }
    }
}

#[test]
fn rows_of_another_format_are_refused_and_those_of_before_are_of_the_first() {
    for options in [fresh(), MongoOptions { shared: true, ..fresh() }] {
        rows(&options).unwrap();
        let names = raw(&options).collection::<Document>(&format!("headwater.rows.{}", options.projector));
        let format = |n: Option<i64>| {
            let names = names.clone();
            wait(async move {
                let found = names.find_one_and_delete(doc! { "_id": "format:" }).await.unwrap();
                if let Some(n) = n {
                    names.insert_one(doc! { "_id": "format:", "n": n }).await.unwrap();
                }
                found.map(|found| found.get_i64("n").unwrap())
            })
        };
        assert_eq!(format(None), Some(1));
        rows(&options).unwrap();
        assert_eq!(format(Some(2)), Some(1));

        let refused = rows(&options).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Fatal);
        let message = told(&refused);
        assert!(
            message.contains("their format is 2, this version reads 1") && message.contains("store.mongodb.database"),
            "{message}"
        );
        assert_eq!(format(None), Some(2), "it is left as it is");
    }
}

/// Who reads another format shuts nobody out.
#[test]
fn a_refused_format_takes_nothing_over() {
    let options = fresh();
    let writer = rows(&options).unwrap();
    let names = raw(&options).collection::<Document>(&format!("headwater.rows.{}", options.projector));
    wait(async move { names.update_one(doc! { "_id": "format:" }, doc! { "$set": { "n": 2_i64 } }).await.unwrap() });
    rows(&options).err().unwrap();
    let mut batch = writer.begin().unwrap();
    batch.set_offset("events", 0, 1).unwrap();
    batch.commit().unwrap();
}
