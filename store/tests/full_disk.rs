//! A full disk. Alone in its process: a program that is being started holds for a moment what other tests have locked.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use headwater_schemas::{ValueRef, key};
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{DocumentReader, DocumentWrite, Error, ErrorKind, ProjectionStore, VersionId};
use headwater_test_servers::on_small_disk;

const VERSION: VersionId = VersionId(1);

fn put(store: &EmbeddedStore, n: u64, bytes: usize) -> Result<(), Error> {
    let mut batch = store.begin()?;
    let (id, body) = (key::of(ValueRef::UInt(n)), vec![b'x'; bytes]);
    batch.put_documents(VERSION, 0, &[DocumentWrite { id: &id, body: Some(&body), entries: &[], stamp: None }])?;
    batch.commit()
}

async fn fill(disk: &Path, bytes: usize) {
    let folder = tempfile::tempdir_in(disk).unwrap();
    let other = disk.join("other");
    std::fs::write(&other, vec![1; 3 << 20]).unwrap();
    let open = || EmbeddedStore::open(EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) });
    let store = open().unwrap();
    let (written, full) = (0..).find_map(|n| put(&store, n, bytes).err().map(|error| (n, error))).unwrap();
    assert!(matches!(&full, Error::Full { cause, .. } if cause.contains("No space left")), "of {bytes}: {full:?}");
    assert_eq!(full.kind(), ErrorKind::Retryable);
    assert_eq!(store.document_count(VERSION).await.unwrap(), written);
    std::fs::remove_file(other).unwrap();
    put(&store, written, bytes).unwrap();
    drop(store);
    assert_eq!(open().unwrap().document_count(VERSION).await.unwrap(), written + 1);
}

/// Commits of several sizes, so that some end with a write of which the disk takes a part.
#[test]
fn a_full_disk_is_told_as_one_and_room_is_all_it_takes() {
    on_small_disk("a_full_disk_is_told_as_one_and_room_is_all_it_takes", 8, |disk| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        for bytes in [4_000, 30_000, 160_000, 1_200_000] {
            runtime.block_on(fill(disk, bytes));
        }
    });
}
