//! Versions of a model where rows and documents are two engines: one may be ahead of the other, or without it.
#![allow(clippy::unwrap_used)]

#[path = "follow_rows/flaky.rs"]
#[allow(dead_code, reason = "some of it is for the tests of one engine")]
mod flaky;
#[path = "follow_rows/items.rs"]
#[allow(dead_code, reason = "some of it is for the tests of truncations")]
mod items;
mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use headwater_projector::{Fold, FoldOptions, Input};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::model::{ParseContext, parse};
use headwater_schemas::{SourceProgress, TableSchema, ValueRef, key};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{
    DocumentReader, Frontier, Paired, ProjectionStore, RowStore, VersionId, VersionRecord, VersionState,
};

use flaky::EmbeddedDocuments;
use items::{PREFIX, Record, at, batch, batch_as, deleted, item, item_with, schema, truncation};
use progress::progress;

fn parsed(yaml: &str) -> ReadModel {
    parse("model.yaml", yaml, &ParseContext::default()).expect("a sound model")
}

/// Items with those that have the same note.
fn with_same() -> ReadModel {
    parsed(
        "model: item\nroot: { table: shop.items, key: id }\nfields: { id: id }\n\
         nest: { same: { many: shop.items, on: { note: note }, fields: [id] } }\n",
    )
}

/// Items alone, under the same name.
fn alone() -> ReadModel {
    parsed("model: item\nroot: { table: shop.items, key: id }\nfields: { id: id }\n")
}

/// Items with a column, under another name than [`alone`]'s.
fn noted(column: &str) -> ReadModel {
    parsed(&format!("model: noted\nroot: {{ table: shop.items, key: id }}\nfields: {{ id: id, note: {column} }}\n"))
}

/// The items' table after its column `note` was renamed.
fn renamed() -> TableSchema {
    let mut renamed = schema();
    renamed.columns[1].name = "words".into();
    renamed
}

/// Rows in one engine, documents in another.
struct Place {
    rows: Arc<EmbeddedStore>,
    documents: Arc<EmbeddedStore>,
    /// Calls to the documents until one fails; negative: none fails.
    calls_left: Arc<AtomicI64>,
    folders: Vec<tempfile::TempDir>,
}

impl Place {
    fn open() -> Self {
        let ((rows, of_rows), (documents, of_documents)) = (store(), store());
        let calls_left = Arc::new(AtomicI64::new(-1));
        Self { rows, documents, calls_left, folders: vec![of_rows, of_documents] }
    }

    fn lose_rows(&mut self) {
        let (rows, folder) = store();
        self.rows = rows;
        self.folders.push(folder);
    }

    fn lose_documents(&mut self) {
        let (documents, folder) = store();
        self.documents = documents;
        self.folders.push(folder);
    }

    fn fold(&self, models: &[ReadModel]) -> Fold {
        self.fold_with(models, FoldOptions { slice_rows: 3, ..FoldOptions::default() })
    }

    fn fold_with(&self, models: &[ReadModel], options: FoldOptions) -> Fold {
        let documents = EmbeddedDocuments { inner: self.documents.clone(), calls_left: self.calls_left.clone() };
        let options = FoldOptions { prefix: PREFIX.into(), ..options };
        Fold::open(Paired::new(self.rows.clone(), Arc::new(documents)), models, options).unwrap()
    }

    /// How far the source is projected, as readers are told.
    fn frontier(&self) -> Frontier {
        self.documents.frontiers().borrow()["shop"]
    }

    fn states(&self) -> Vec<(u32, VersionState)> {
        let versions = self.documents.versions().borrow().clone();
        versions.iter().map(|version| (version.id.0, version.state)).collect()
    }

    /// The document of an item in the version of a model that serves.
    async fn served(&self, model: &str, id: i64) -> Option<String> {
        let versions = self.documents.versions().borrow().clone();
        let active = versions.iter().find(|it| it.model == model && it.state == VersionState::Active)?.id.0;
        self.document(active, id).await
    }

    /// The document of an item in a version.
    async fn document(&self, version: u32, id: i64) -> Option<String> {
        let document = self.documents.get(VersionId(version), &key::of(ValueRef::Int(id))).await.unwrap()?;
        Some(String::from_utf8(document.body.to_vec()).unwrap())
    }
}

fn store() -> (Arc<EmbeddedStore>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (opened(&folder), folder)
}

fn opened(folder: &tempfile::TempDir) -> Arc<EmbeddedStore> {
    let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
    EmbeddedStore::open(options).unwrap()
}

/// A backup of a store, which nobody is writing to.
fn saved(store: &EmbeddedStore, folder: &tempfile::TempDir) -> tempfile::TempDir {
    ProjectionStore::settle(store, Duration::ZERO).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// Folds new items from an offset on, all of one note.
fn bring(fold: &mut Fold, first: u64, ids: &[i64]) {
    let records: Vec<Record> = (first..).zip(ids).map(|(offset, id)| item(at(1, offset + 1), *id)).collect();
    fold.micro_batch(&[Input::whole(&batch(0, first, &records))], &mut |_| Ok(())).unwrap();
}

/// Folds that so many records are all there is: what the source had up to the last of them.
fn tell(fold: &mut Fold, end: u64) {
    let batch = progress(PREFIX, at(1, end), BTreeMap::from([(schema().table.topic(PREFIX), vec![end])]));
    fold.micro_batch(&[Input::whole(&batch)], &mut |_| Ok(())).unwrap();
}

/// Does all there is to do in the background.
fn work(fold: &mut Fold) {
    while fold.background(Duration::from_secs(1), &mut |_| Ok(())).unwrap().is_some() {}
}

/// The commit with which another version serves breaks off behind the rows: the one before serves on.
#[tokio::test]
async fn a_version_keeps_its_join_index_as_long_as_it_serves() {
    let mut failures = 0;
    for calls in 0.. {
        let place = Place::open();
        let mut whole = place.fold(&[with_same()]);
        bring(&mut whole, 0, &[0, 1]);
        tell(&mut whole, 2);
        work(&mut whole);
        whole.declare(&[alone()]).unwrap();
        place.calls_left.store(calls, Ordering::Relaxed);
        let done = whole.background(Duration::from_secs(60), &mut |_| Ok(())).is_ok();
        place.calls_left.store(-1, Ordering::Relaxed);
        if done {
            assert_eq!(place.states(), [(1, VersionState::Retired), (2, VersionState::Active)]);
            break;
        }
        failures += 1;
        assert_eq!(place.states(), [(1, VersionState::Active), (2, VersionState::Building)]);
        bring(&mut whole, 2, &[2]);
        let all = r#"{"id":0,"same":[{"id":0},{"id":1},{"id":2}]}"#;
        assert_eq!(place.document(1, 0).await.as_deref(), Some(all), "after {calls} calls");
    }
    assert!(failures > 1, "{failures}");
}

/// One item changes, in a table that is laid out like this.
fn change(fold: &mut Fold, schema: &TableSchema, offset: u64, id: i64, note: &str) {
    let records = [item_with(at(1, offset + 1), id, ValueRef::Text(note))];
    fold.micro_batch(&[Input::whole(&batch_as(schema, 0, offset, &records))], &mut |_| Ok(())).unwrap();
}

/// Somebody renames a column that a model names.
#[tokio::test]
async fn documents_of_a_model_that_does_not_fit_its_tables_any_more_stay_as_they_are() {
    let document = |id: i64, note: &str| Some(format!(r#"{{"id":{id},"note":"{note}"}}"#));
    let place = Place::open();
    let models = [noted("note"), alone()];
    let mut whole = place.fold(&models);
    bring(&mut whole, 0, &[0, 1, 2]);
    tell(&mut whole, 3);
    work(&mut whole);
    assert_eq!(place.served("noted", 0).await, document(0, "new"));

    change(&mut whole, &renamed(), 3, 0, "after");
    change(&mut whole, &renamed(), 4, 3, "new");
    // Nor do they follow what is older, and comes from a partition that is behind.
    let late = [item_with(at(1, 2), 1, ValueRef::Text("late"))];
    whole.micro_batch(&[Input::whole(&batch(1, 0, &late))], &mut |_| Ok(())).unwrap();
    for _ in 0..2 {
        tell(&mut whole, 5);
        work(&mut whole);
        for id in 0..3 {
            assert_eq!(place.served("noted", id).await, document(id, "new"));
        }
        assert_eq!(place.served("noted", 3).await, None);
        assert_eq!(place.served("item", 3).await.as_deref(), Some(r#"{"id":3}"#), "another model goes on");
        assert_eq!(place.frontier().position, at(1, 3), "what serves lacks what is newer");
        drop(whole);
        whole = place.fold(&models);
    }

    // It comes back, and all that was missed is in the documents.
    change(&mut whole, &schema(), 5, 2, "back");
    tell(&mut whole, 6);
    work(&mut whole);
    assert_eq!(place.served("noted", 2).await, document(2, "back"));
    assert_eq!(place.served("noted", 1).await, document(1, "new"));
    assert!(place.served("noted", 3).await.is_some());
    assert_eq!(place.frontier().position, at(1, 6));
    change(&mut whole, &schema(), 6, 1, "followed");
    assert_eq!(place.served("noted", 1).await, document(1, "followed"));
}

/// What the owner of the database does: renames the column, which has the table read again, and then changes the model.
#[tokio::test]
async fn another_definition_takes_the_place_of_one_that_does_not_fit() {
    let place = Place::open();
    let mut whole = place.fold(&[noted("note")]);
    bring(&mut whole, 0, &[0, 1]);
    tell(&mut whole, 2);
    work(&mut whole);
    change(&mut whole, &renamed(), 2, 0, "again");
    change(&mut whole, &renamed(), 3, 1, "again");
    tell(&mut whole, 4);
    work(&mut whole);
    assert_eq!(place.served("noted", 1).await.as_deref(), Some(r#"{"id":1,"note":"new"}"#));
    whole.declare(&[noted("words")]).unwrap();
    work(&mut whole);
    assert_eq!(place.served("noted", 1).await.as_deref(), Some(r#"{"id":1,"note":"again"}"#));
    assert_eq!(place.frontier().position, at(1, 4));
    let serving = place.states().iter().filter(|(_, state)| *state != VersionState::Retired).count();
    assert_eq!(serving, 1, "{:?}", place.states());
}

/// A version that is being built does not fit any more: it begins anew, since it missed changes.
#[tokio::test]
async fn what_is_being_built_and_does_not_fit_any_more_begins_anew() {
    let place = Place::open();
    let mut whole = place.fold(&[noted("note")]);
    bring(&mut whole, 0, &(0..10).collect::<Vec<i64>>());
    tell(&mut whole, 10);
    // A slice: some of the documents.
    whole.background(Duration::ZERO, &mut |_| Ok(())).unwrap();
    assert!(place.document(1, 0).await.is_some() && place.document(1, 9).await.is_none());
    change(&mut whole, &renamed(), 10, 0, "missed");
    work(&mut whole);
    change(&mut whole, &schema(), 11, 0, "back");
    tell(&mut whole, 12);
    work(&mut whole);
    for id in 0..10 {
        let note = if id == 0 { "back" } else { "new" };
        assert_eq!(place.served("noted", id).await, Some(format!(r#"{{"id":{id},"note":"{note}"}}"#)));
    }
}

/// A definition that fails for every row: the version before serves on, whatever breaks off on the way there, and both follow
/// all changes.
#[tokio::test]
async fn what_lacks_its_documents_is_held_and_followed() {
    let numbered = parsed(
        "model: item\nroot: { table: shop.items, key: id }\nfields: { id: id, number: { column: note, cast: integer } }\n",
    );
    let mut failures = 0;
    for calls in 0.. {
        let place = Place::open();
        let mut whole = place.fold(&[alone()]);
        bring(&mut whole, 0, &[0, 1, 2, 3]);
        tell(&mut whole, 4);
        work(&mut whole);
        whole.declare(std::slice::from_ref(&numbered)).unwrap();
        place.calls_left.store(calls, Ordering::Relaxed);
        let mut failed = false;
        loop {
            match whole.background(Duration::ZERO, &mut |_| Ok(())) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => failed = true,
            }
            if failed {
                place.calls_left.store(-1, Ordering::Relaxed);
            }
        }
        place.calls_left.store(-1, Ordering::Relaxed);
        failures += u64::from(failed);
        let held = [(1, VersionState::Active), (2, VersionState::Building)];
        assert_eq!(place.states(), held, "after {calls} calls");

        // Behind all that there was when it was filled.
        change(&mut whole, &schema(), 4, 9, "7");
        assert_eq!(place.document(2, 9).await.as_deref(), Some(r#"{"id":9,"number":7}"#));
        assert_eq!(place.served("item", 9).await.as_deref(), Some(r#"{"id":9}"#));
        drop(whole);
        let mut whole = place.fold(std::slice::from_ref(&numbered));
        whole.micro_batch(&[Input::whole(&batch(0, 5, &[deleted(at(1, 6), 9)]))], &mut |_| Ok(())).unwrap();
        assert_eq!((place.document(2, 9).await, place.served("item", 9).await), (None, None));
        for id in 0..3_i64 {
            change(&mut whole, &schema(), 6 + id.unsigned_abs(), id, "5");
        }
        work(&mut whole);
        assert_eq!(place.states(), held, "nobody asked, and a restart does not forget");
        whole.weigh_again().unwrap();
        work(&mut whole);
        assert_eq!(place.states(), [(1, VersionState::Retired), (2, VersionState::Active)], "one alone holds nothing");
        assert_eq!(place.served("item", 2).await.as_deref(), Some(r#"{"id":2,"number":5}"#));
        assert_eq!(place.served("item", 3).await, None);
        if !failed {
            break;
        }
    }
    assert!(failures > 1, "{failures}");
}

/// The volume of the projector is lost, and the database of the documents is not.
#[tokio::test]
async fn what_serves_does_so_until_new_rows_are_read() {
    let mut place = Place::open();
    let mut whole = place.fold(&[with_same()]);
    bring(&mut whole, 0, &[0, 1, 2]);
    tell(&mut whole, 3);
    work(&mut whole);
    whole.declare(&[alone()]).unwrap();
    assert_eq!(place.states(), [(1, VersionState::Active), (2, VersionState::Building)]);
    drop(whole);

    place.lose_rows();
    let mut whole = place.fold(&[alone()]);
    let states = [(1, VersionState::Active), (2, VersionState::Retired), (3, VersionState::Building)];
    assert_eq!(place.states(), states, "what was being built cannot be built on");
    whole.set_floor(&schema().table.topic(PREFIX), 0, 3);
    bring(&mut whole, 0, &[0, 1]);
    tell(&mut whole, 2);
    work(&mut whole);
    assert_eq!(place.states(), states);
    assert_eq!(place.frontier().position, at(1, 3), "it does not go back");
    let all = r#"{"id":0,"same":[{"id":0},{"id":1},{"id":2}]}"#;
    assert_eq!(place.document(1, 0).await.as_deref(), Some(all));

    // Nor does it come back with the next start.
    drop(whole);
    let mut whole = place.fold(&[alone()]);
    assert_eq!(place.states(), states);
    bring(&mut whole, 2, &[2, 3]);
    tell(&mut whole, 4);
    assert_eq!((place.states(), place.document(1, 3).await), (states.to_vec(), None));
    assert_eq!(place.frontier().position, at(1, 3), "what serves lacks what is newer");
    work(&mut whole);
    assert_eq!(place.states(), [(1, VersionState::Retired), (2, VersionState::Retired), (3, VersionState::Active)]);
    assert_eq!(place.frontier().position, at(1, 4));
    for id in 0..4 {
        assert_eq!(place.document(3, id).await, Some(format!(r#"{{"id":{id}}}"#)));
    }
}

/// What is told before the snapshot of a new table begins says that all that was told of is there: the table is not of it.
#[test]
fn a_version_waits_until_progress_tells_of_its_table() {
    let place = Place::open();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0, 1]);
    let before = progress(PREFIX, at(1, 2), BTreeMap::new());
    whole.micro_batch(&[Input::whole(&before)], &mut |_| Ok(())).unwrap();
    work(&mut whole);
    assert_eq!(place.states(), [(1, VersionState::Building)]);
    tell(&mut whole, 2);
    work(&mut whole);
    assert_eq!(place.states(), [(1, VersionState::Active)]);
}

/// A projector that starts reads some progress again that is older.
#[test]
fn a_frontier_does_not_go_back() {
    let place = Place::open();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0, 1, 2]);
    for (end, told) in [(2, 2), (1, 2), (3, 3), (2, 3)] {
        tell(&mut whole, end);
        assert_eq!(place.frontier().position, at(1, told));
    }
}

/// Readers wait for those alone. Older versions did not tell.
#[test]
fn the_registry_tells_what_sources_a_version_reads() {
    let place = Place::open();
    let record = || place.documents.versions().borrow()[0].clone();
    drop(place.fold(&[alone()]));
    assert_eq!(record().sources, ["shop"]);
    let mut batch = ProjectionStore::begin(&*place.documents).unwrap();
    batch.put_version(&VersionRecord { sources: Vec::new(), ..record() }).unwrap();
    batch.commit().unwrap();
    drop(place.fold(&[alone()]));
    assert_eq!(record().sources, ["shop"]);
}

/// Commits do not have the order of their times, nor do the clocks of a source and its standby agree.
#[test]
fn the_time_of_a_frontier_does_not_go_back() {
    let place = Place::open();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0, 1, 2]);
    for (commit, at_micros, told) in [(1, 5_000_000, 5_000_000), (2, 3_000_000, 5_000_000), (3, 6_000_000, 6_000_000)] {
        let watermarks = BTreeMap::from([(schema().table.topic(PREFIX), vec![commit])]);
        let said = SourceProgress { position: at(1, commit), at_micros, snapshot_done: true, watermarks };
        whole.micro_batch(&[Input::whole(&progress::of(PREFIX, said))], &mut |_| Ok(())).unwrap();
        let frontier = place.frontier();
        assert_eq!((frontier.position, frontier.at_micros), (at(1, commit), told));
    }
}

/// Frontiers stand still until its successor serves, which must not wait for them in turn.
#[tokio::test]
async fn what_serves_without_rows_holds_up_no_successor() {
    let mut place = Place::open();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0]);
    tell(&mut whole, 1);
    work(&mut whole);
    drop(whole);
    // A table that came later was being read when the rows were lost.
    let told = Frontier { snapshot_done: false, ..place.frontier() };
    let mut batch = ProjectionStore::begin(&*place.documents).unwrap();
    batch.set_frontier("shop", told).unwrap();
    batch.commit().unwrap();

    place.lose_rows();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0, 1]);
    tell(&mut whole, 2);
    assert_eq!(place.frontier(), told);
    work(&mut whole);
    assert_eq!(place.states(), [(1, VersionState::Retired), (2, VersionState::Active)]);
    assert_eq!(place.document(2, 1).await.as_deref(), Some(r#"{"id":1}"#));
    assert_eq!(place.frontier(), Frontier { position: at(1, 2), snapshot_done: true, ..told });
}

/// The rows know how far the version was that had this number before: that says nothing of the new one, whose first
/// documents are not yet written when the process starts again.
#[tokio::test]
async fn documents_that_are_lost_are_made_again_from_the_rows() {
    let mut place = Place::open();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0, 1, 2, 3]);
    tell(&mut whole, 4);
    work(&mut whole);
    drop(whole);

    place.lose_documents();
    drop(place.fold(&[alone()]));
    assert_eq!(place.states(), [(1, VersionState::Building)]);
    let mut whole = place.fold(&[alone()]);
    tell(&mut whole, 4);
    work(&mut whole);
    assert_eq!(place.states(), [(1, VersionState::Active)]);
    for id in 0..4 {
        assert_eq!(place.document(1, id).await, Some(format!(r#"{{"id":{id}}}"#)));
    }
}

/// One of the two engines, or both, is restored from a backup. Where it is one, nobody knows which documents lack what the rows
/// have, or the reverse.
#[tokio::test]
async fn documents_of_another_time_than_their_rows_are_built_anew() {
    let models = [noted("note")];
    for (rows, documents) in [(false, true), (true, false), (true, true), (false, false)] {
        let mut place = Place::open();
        let mut whole = place.fold(&models);
        bring(&mut whole, 0, &[0, 1]);
        tell(&mut whole, 2);
        work(&mut whole);
        drop(whole);
        let (saved_rows, saved_documents) =
            (saved(&place.rows, &place.folders[0]), saved(&place.documents, &place.folders[1]));
        let mut whole = place.fold(&models);
        change(&mut whole, &schema(), 2, 0, "after");
        tell(&mut whole, 3);
        drop(whole);
        if rows {
            place.rows = opened(&saved_rows);
        }
        if documents {
            place.documents = opened(&saved_documents);
        }

        let (one, apart) = ([(1, VersionState::Active)], rows != documents);
        let stands = if documents { "new" } else { "after" };
        // It is not forgotten with the next start.
        for _ in 0..2 {
            drop(place.fold(&models));
            let two = [(1, VersionState::Active), (2, VersionState::Building)];
            assert_eq!(place.states(), if apart { &two[..] } else { &one }, "{rows} {documents}");
            assert_eq!(place.served("noted", 0).await, Some(format!(r#"{{"id":0,"note":"{stands}"}}"#)));
        }
        let mut whole = place.fold(&models);
        if rows {
            change(&mut whole, &schema(), 2, 0, "after");
        }
        tell(&mut whole, 3);
        work(&mut whole);
        let built = [(1, VersionState::Retired), (2, VersionState::Active)];
        assert_eq!(place.states(), if apart { &built[..] } else { &one }, "{rows} {documents}");
        assert_eq!(place.served("noted", 0).await.as_deref(), Some(r#"{"id":0,"note":"after"}"#));
        assert_eq!(place.served("noted", 1).await.as_deref(), Some(r#"{"id":1,"note":"new"}"#));
    }
}

/// Also where its last documents are exactly as many as are removed at a time.
#[test]
fn nothing_is_left_of_a_version_that_is_gone() {
    const PURGED_AT_A_TIME: i64 = 2_048;
    for documents in [1, PURGED_AT_A_TIME] {
        let place = Place::open();
        let options = FoldOptions { retired_grace: Duration::ZERO, ..FoldOptions::default() };
        let mut whole = place.fold_with(&[alone()], options);
        bring(&mut whole, 0, &(0..documents).collect::<Vec<i64>>());
        tell(&mut whole, documents.unsigned_abs());
        work(&mut whole);
        whole.declare(&[]).unwrap();
        work(&mut whole);
        assert!(place.states().is_empty());
        let batch = RowStore::begin(&*place.rows).unwrap();
        for note in ["definition", "scan", "replay", "retired"] {
            let name = format!("version/1/{note}");
            assert_eq!(batch.note(&name).unwrap(), None, "{name}, {documents} documents");
        }
    }
}

/// Above every row may stand a document, and the note of all of them goes with the rows.
#[test]
fn a_large_truncation_goes_in_parts() {
    const ROWS: i64 = 25_000;
    let place = Place::open();
    let mut whole = place.fold_with(&[alone()], FoldOptions::default());
    bring(&mut whole, 0, &(0..ROWS).collect::<Vec<i64>>());
    let end = ROWS.unsigned_abs();
    tell(&mut whole, end);
    work(&mut whole);
    let truncated = batch(0, end, &[truncation(at(1, end + 1), 1)]);
    let mut left = Vec::new();
    for calls in (0..).step_by(4) {
        place.calls_left.store(calls, Ordering::Relaxed);
        let done = whole.micro_batch(&[Input::whole(&truncated)], &mut |_| Ok(())).is_ok();
        place.calls_left.store(-1, Ordering::Relaxed);
        left.push(ProjectionStore::begin(&*place.documents).unwrap().document_count(VersionId(1)).unwrap());
        if done {
            break;
        }
    }
    assert_eq!((left.first(), left.last()), (Some(&end), Some(&0)));
    assert!(left.iter().any(|left| (1..end).contains(left)), "all at once: {left:?}");
}

/// A release makes other documents of the same rows: they are built beside those that serve.
#[tokio::test]
async fn a_version_of_another_arithmetic_is_built_anew() {
    let place = Place::open();
    let averaged = parsed(
        "model: item\nroot: { table: shop.items, key: id }\nfields: [id]\n\
         nest: { same: { many: shop.items, on: { note: note }, fields: [id] } }\ncompute: { mean: { avg: same.id } }\n",
    );
    let mut whole = place.fold(std::slice::from_ref(&averaged));
    bring(&mut whole, 0, &[0, 1]);
    tell(&mut whole, 2);
    work(&mut whole);
    drop(whole);
    let mut batch = ProjectionStore::begin(&*place.documents).unwrap();
    let mut record = batch.versions().unwrap().remove(0);
    record.definition_hash.truncate(16);
    batch.put_version(&record).unwrap();
    batch.commit().unwrap();

    let mut whole = place.fold(std::slice::from_ref(&averaged));
    assert_eq!(place.states(), [(1, VersionState::Active), (2, VersionState::Building)]);
    work(&mut whole);
    assert_eq!(place.states(), [(1, VersionState::Retired), (2, VersionState::Active)]);
    let mean = place.document(2, 0).await.unwrap();
    assert!(mean.contains(r#""mean":"0.50000000000000000000""#), "{mean}");
}

/// Its model is gone as well.
#[test]
fn what_serves_without_rows_is_retired_with_its_model() {
    let mut place = Place::open();
    let mut whole = place.fold(&[with_same()]);
    bring(&mut whole, 0, &[0]);
    tell(&mut whole, 1);
    work(&mut whole);
    drop(whole);
    place.lose_rows();
    drop(place.fold(&[]));
    assert_eq!(place.states(), [(1, VersionState::Retired)]);
}

/// They do not count as a change: what a replay is building is built on.
#[test]
fn a_replay_keeps_new_descriptions() {
    let place = Place::open();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0]);
    tell(&mut whole, 1);
    work(&mut whole);
    whole.begin_replay("item", Vec::new()).unwrap();
    let described = ReadModel { doc: Some("What is on sale.".into()), ..alone() };
    whole.declare(&[described]).unwrap();
    work(&mut whole);
    assert_eq!(place.states(), [(1, VersionState::Retired), (2, VersionState::Active)]);
    let served = place.documents.versions().borrow()[1].shape.clone().unwrap();
    assert_eq!(served.doc.as_deref(), Some("What is on sale."));
}

/// By a projector that serves the same model, or by hand.
#[tokio::test]
async fn what_others_retire_has_its_grace_and_is_followed_no_longer() {
    let place = Place::open();
    let mut whole = place.fold(&[alone()]);
    bring(&mut whole, 0, &[0]);
    tell(&mut whole, 1);
    work(&mut whole);
    let record = place.documents.versions().borrow()[0].clone();
    let mut others = ProjectionStore::begin(&*place.documents).unwrap();
    others.put_version(&VersionRecord { state: VersionState::Retired, ..record }).unwrap();
    others.commit().unwrap();
    work(&mut whole);
    bring(&mut whole, 1, &[1]);
    assert_eq!(place.states(), [(1, VersionState::Retired)]);
    assert!(place.document(1, 0).await.is_some(), "readers who began on it can end");
    assert_eq!(place.document(1, 1).await, None);
}
