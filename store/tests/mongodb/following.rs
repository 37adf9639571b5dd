//! A process that only reads hears of everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_schemas::SourcePosition;
use headwater_store::mongodb::{MongoDocuments, MongoOptions, RetiredVersion, retire_model};
use headwater_store::{
    DocumentChange, DocumentReader, DocumentStore, DocumentWrite, Error, Frontier, VersionId, VersionRecord,
    VersionState,
};
use headwater_test_servers::{Mongo, MongoOptions as ServerOptions};
use mongodb::bson::doc;
use tokio::sync::broadcast::Receiver;

use crate::common::{VERSION, documents, fresh, int, raw, reader, record, wait};

const PATIENCE: Duration = Duration::from_secs(20);

async fn hear(changes: &mut Receiver<Arc<Vec<DocumentChange>>>) -> Arc<Vec<DocumentChange>> {
    tokio::time::timeout(PATIENCE, changes.recv()).await.expect("nothing was heard").unwrap()
}

fn put(store: &MongoDocuments, ids: &[i64], body: Option<&str>) {
    let ids: Vec<Vec<u8>> = ids.iter().map(|n| int(*n)).collect();
    let mut batch = store.begin().unwrap();
    let writes = ids.iter().map(|id| DocumentWrite { id, body: body.map(str::as_bytes), entries: &[], stamp: None });
    batch.put_documents(VERSION, 0, &writes.collect::<Vec<_>>()).unwrap();
    batch.flush().unwrap();
}

fn frontier(commit: u64) -> Frontier {
    Frontier { position: SourcePosition::after_commit(1, commit), at_micros: 3, snapshot_done: true }
}

#[tokio::test]
async fn a_reader_elsewhere_hears_of_documents_versions_and_frontiers() {
    let options = fresh();
    let elsewhere = reader(&options).unwrap();
    let (mut versions, mut frontiers, mut changes) = (elsewhere.versions(), elsewhere.frontiers(), elsewhere.changes());
    let store = documents(&options).unwrap();
    let mut batch = store.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Active, None)).unwrap();
    batch.flush().unwrap();
    let known = tokio::time::timeout(PATIENCE, versions.wait_for(|versions| !versions.is_empty()));
    assert_eq!(**known.await.unwrap().unwrap(), [record(VERSION, VersionState::Active, None)]);

    put(&store, &[1, 2, 3], Some("1"));
    let heard = hear(&mut changes).await;
    assert_eq!(heard.iter().map(|it| it.id.to_vec()).collect::<Vec<_>>(), [int(1), int(2), int(3)], "one micro-batch");
    let document = elsewhere.get(VERSION, &int(1)).await.unwrap().unwrap();
    assert_eq!((&document.body[..], Some(document.stamp)), (&b"1"[..], heard[0].stamp));
    put(&store, &[2], None);
    let heard = hear(&mut changes).await;
    assert_eq!((heard.len(), heard[0].stamp, heard[0].id.to_vec()), (1, None, int(2)));
    assert_eq!(elsewhere.document_count(VERSION).await.unwrap(), 2);

    let mut batch = store.begin().unwrap();
    batch.set_frontier("billing", frontier(5)).unwrap();
    batch.flush().unwrap();
    let known = tokio::time::timeout(PATIENCE, frontiers.wait_for(|frontiers| !frontiers.is_empty()));
    assert_eq!(known.await.unwrap().unwrap()["billing"], frontier(5));

    // A version on its way out is not told of.
    let mut batch = store.begin().unwrap();
    batch.put_version(&record(VERSION, VersionState::Retired, None)).unwrap();
    batch.flush().unwrap();
    tokio::time::timeout(PATIENCE, versions.wait_for(|it| it[0].state == VersionState::Retired))
        .await
        .unwrap()
        .unwrap();
    let mut batch = store.begin().unwrap();
    assert_eq!(batch.purge_version(VERSION, 10).unwrap(), 2);
    batch.flush().unwrap();
    tokio::time::timeout(PATIENCE, versions.wait_for(|versions| versions.is_empty())).await.unwrap().unwrap();
    assert!(changes.try_recv().is_err());
    let left = wait({
        let database = raw(&options);
        async move { database.list_collection_names().await.unwrap() }
    });
    assert!(!left.iter().any(|name| name == "customer_v7"), "{left:?}");
}

#[tokio::test]
async fn changes_are_heard_at_once() {
    let options = fresh();
    let elsewhere = reader(&options).unwrap();
    let mut changes = elsewhere.changes();
    let store = documents(&options).unwrap();
    put(&store, &[0], Some("0"));
    hear(&mut changes).await;
    let mut waited = Vec::new();
    for n in 1..60 {
        put(&store, &[n % 3], Some(&n.to_string()));
        let began = Instant::now();
        hear(&mut changes).await;
        waited.push(began.elapsed());
    }
    waited.sort();
    println!("heard after the commit, elsewhere: median {:?}, worst {:?}", waited[30], waited[58]);
    assert!(waited[30] < Duration::from_millis(200), "{waited:?}");
}

#[tokio::test]
async fn projectors_do_not_see_each_others_versions_and_readers_see_all() {
    let first = fresh();
    let second = MongoOptions { projector: "second".into(), ..first.clone() };
    let (first, second) = (documents(&first).unwrap(), documents(&second).unwrap());
    let mut batch = first.begin().unwrap();
    let one = batch.new_version_id().unwrap();
    batch.put_version(&record(one, VersionState::Active, None)).unwrap();
    batch.set_frontier("billing", frontier(9)).unwrap();
    batch.flush().unwrap();
    let mut batch = second.begin().unwrap();
    let two = batch.new_version_id().unwrap();
    assert!(two > one);
    assert!(batch.versions().unwrap().is_empty() && batch.frontiers().unwrap().is_empty());
    batch.set_frontier("billing", frontier(4)).unwrap();
    batch.put_version(&record(two, VersionState::Building, None)).unwrap();
    batch.flush().unwrap();

    let known = second.reader();
    let states = || known.versions().borrow().iter().map(|it| (it.id, it.state)).collect::<Vec<(VersionId, _)>>();
    known.versions().wait_for(|it| it.len() == 2).await.unwrap();
    assert_eq!(states(), [(one, VersionState::Active), (two, VersionState::Building)]);
    let least = |it: &Arc<std::collections::BTreeMap<String, Frontier>>| it["billing"] == frontier(4);
    for reader in [first.reader(), second.reader()] {
        tokio::time::timeout(PATIENCE, reader.frontiers().wait_for(least)).await.unwrap().unwrap();
    }
    assert_eq!(first.begin().unwrap().frontiers().unwrap()["billing"], frontier(9));

    // What becomes active retires what was, whoever keeps it.
    let mut batch = second.begin().unwrap();
    batch.put_version(&record(two, VersionState::Active, None)).unwrap();
    batch.flush().unwrap();
    assert_eq!(states(), [(one, VersionState::Retired), (two, VersionState::Active)]);
    let retired = |it: &Arc<Vec<headwater_store::VersionRecord>>| it[0].state == VersionState::Retired;
    tokio::time::timeout(PATIENCE, first.reader().versions().wait_for(retired)).await.unwrap().unwrap();
    assert_eq!(first.begin().unwrap().versions().unwrap()[0].state, VersionState::Retired);
}

/// Readers elsewhere see such a model no longer, and what it was behind with holds back nobody any more.
#[tokio::test]
async fn a_model_whose_projector_has_gone_is_retired() {
    let here = fresh();
    let gone = MongoOptions { projector: "gone".into(), ..here.clone() };
    let elsewhere = reader(&here).unwrap();
    let mut ids = Vec::new();
    for (options, model, commit) in [(&here, "invoice", 9), (&gone, "customer", 4)] {
        let store = documents(options).unwrap();
        let mut batch = store.begin().unwrap();
        let id = batch.new_version_id().unwrap();
        batch.put_version(&VersionRecord { model: model.into(), ..record(id, VersionState::Active, None) }).unwrap();
        batch.set_frontier("billing", frontier(commit)).unwrap();
        batch.flush().unwrap();
        ids.push(id);
    }
    let (versions, mut frontiers) = (elsewhere.versions(), elsewhere.frontiers());
    tokio::time::timeout(PATIENCE, frontiers.wait_for(|it| is_billing_at(it, 4))).await.unwrap().unwrap();

    let retire = |model: &'static str| {
        let options = here.clone();
        wait(async move { retire_model(&options, model).await }).unwrap()
    };
    let customer = RetiredVersion { projector: "gone".into(), collection: format!("customer_v{}", ids[1].0) };
    assert_eq!(retire("customer"), [customer]);
    tokio::time::timeout(PATIENCE, frontiers.wait_for(|it| is_billing_at(it, 9))).await.unwrap().unwrap();
    let states: Vec<_> = versions.borrow().iter().map(|it| (it.id, it.state)).collect();
    assert_eq!(states, [(ids[0], VersionState::Active), (ids[1], VersionState::Retired)]);
    assert!(retire("customer").is_empty(), "there is no other");
    // Should its projector come back, it finds that out.
    let back = documents(&gone).unwrap();
    assert_eq!(back.begin().unwrap().versions().unwrap()[0].state, VersionState::Retired);
}

/// What it was behind with when its last model of that source was removed holds back nobody.
#[tokio::test]
async fn only_who_reads_a_source_holds_its_frontier() {
    let here = fresh();
    let other = MongoOptions { projector: "other".into(), ..here.clone() };
    for (options, model, source, commit) in [(&here, "invoice", "billing", 9), (&other, "customer", "crm", 4)] {
        let store = documents(options).unwrap();
        let mut batch = store.begin().unwrap();
        let record = record(batch.new_version_id().unwrap(), VersionState::Active, None);
        batch.put_version(&VersionRecord { model: model.into(), sources: vec![source.into()], ..record }).unwrap();
        batch.set_frontier("billing", frontier(commit)).unwrap();
        batch.flush().unwrap();
    }
    let elsewhere = reader(&here).unwrap();
    assert!(is_billing_at(&elsewhere.frontiers().borrow(), 9));
}

fn is_billing_at(frontiers: &BTreeMap<String, Frontier>, commit: u64) -> bool {
    frontiers.get("billing") == Some(&frontier(commit))
}

#[tokio::test]
async fn following_goes_on_after_a_kill_and_says_when_it_missed_some() {
    let mut server = Mongo::start();
    let options = MongoOptions::new(server.url(), "hw");
    let elsewhere = reader(&options).unwrap();
    let mut changes = elsewhere.changes();
    let store = documents(&options).unwrap();
    put(&store, &[1], Some("1"));
    assert_eq!(hear(&mut changes).await.len(), 1);
    server.kill();
    server.resume();
    put(&store, &[1], Some("2"));
    let heard = hear(&mut changes).await;
    assert_eq!(heard.len(), 1, "nothing was missed");
    assert_eq!(elsewhere.get(VERSION, &int(1)).await.unwrap().unwrap().body, "2");

    // The stream of a database that is dropped ends, and cannot be gone on with.
    drop(store);
    wait({
        let database = raw(&options);
        async move { database.drop().await.unwrap() }
    });
    while !hear(&mut changes).await.is_empty() {}
    let store = documents(&options).unwrap();
    put(&store, &[5], Some("5"));
    loop {
        let heard = hear(&mut changes).await;
        if heard.iter().any(|change| change.id == int(5)) {
            break;
        }
    }
    assert_eq!(elsewhere.get(VERSION, &int(5)).await.unwrap().unwrap().body, "5");
}

/// Whoever has kept a document knows by its stamp whether it is still that one.
#[tokio::test]
async fn stamps_rise_also_where_the_database_is_made_anew() {
    let options = fresh();
    let stamp = async || {
        let store = documents(&options).unwrap();
        put(&store, &[0], Some("0"));
        store.reader().get(VERSION, &int(0)).await.unwrap().unwrap().stamp
    };
    let before = stamp().await;
    let database = raw(&options);
    wait(async move { database.drop().await.unwrap() });
    // Owners are told apart by the second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(stamp().await > before);
}

/// The server has done what it was asked to, and the answer is an error: what is there must not stay hidden from readers
/// of this process, who hear nothing from the server of what it writes itself.
#[tokio::test]
async fn readers_are_told_of_a_commit_whose_answer_was_lost() {
    let arguments = vec!["--setParameter".into(), "enableTestCommands=1".into()];
    let server = Mongo::start_with(&ServerOptions { arguments, ..ServerOptions::default() });
    let options = MongoOptions::new(server.url(), "hw");
    let store = documents(&options).unwrap();
    let cached = store.reader();
    let mut changes = cached.changes();
    put(&store, &[0], Some("old"));
    hear(&mut changes).await;
    let admin = MongoOptions::new(server.url(), "admin");
    let lost = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 2 },
        "data": { "failCommands": ["commitTransaction"], "writeConcernError": { "code": 64, "errmsg": "lost" } },
    };
    let fail = |how| {
        let database = raw(&admin);
        wait(async move {
            database.run_command(how).await.unwrap();
        });
    };
    fail(lost);
    let id = int(0);
    let write = || -> Result<(), Error> {
        let mut batch = store.begin()?;
        batch.put_documents(VERSION, 0, &[DocumentWrite { id: &id, body: Some(b"new"), entries: &[], stamp: None }])?;
        batch.flush()
    };
    write().unwrap_err();
    fail(doc! { "configureFailPoint": "failCommand", "mode": "off" });
    let began = Instant::now();
    while cached.get(VERSION, &id).await.unwrap().unwrap().body != "new" {
        assert!(began.elapsed() < PATIENCE, "it was not committed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while changes.try_recv().is_ok() {}
    write().unwrap();
    let mut told = Vec::new();
    while let Ok(change) = changes.try_recv() {
        told.push(change);
    }
    assert!(told.last().is_some_and(|last| last.is_empty()), "that something was missed, not {told:?}");
}

#[tokio::test]
async fn readers_elsewhere_share_one_secret() {
    for _ in 0..5 {
        let options = fresh();
        let (one, two) = (reader(&options).unwrap(), reader(&options).unwrap());
        // Both ask while there is none.
        let (first, second) = tokio::join!(one.shared_secret(&[1; 32]), two.shared_secret(&[2; 32]));
        let secret = first.unwrap().expect("MongoDB keeps one");
        assert!(secret == [1; 32] || secret == [2; 32], "{secret:?}");
        assert_eq!(second.unwrap().as_ref(), Some(&secret));
        // It outlives who made it, and others come.
        drop((one, two));
        let late = reader(&options).unwrap();
        assert_eq!(late.shared_secret(&[3; 32]).await.unwrap(), Some(secret));
    }
}
