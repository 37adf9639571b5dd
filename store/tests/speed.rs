//! How fast the embedded engine is at what the projector and the query API do all day. Not run by default:
//! `cargo test --release -p headwater-store --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use headwater_schemas::{RowRef, SourcePosition, TableId, ValueRef, key};
use headwater_store::contract::Random;
use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};
use headwater_store::{
    Batch, ByteList, DocumentReader, DocumentWrite, JoinIndex, ProjectionStore, RowArena, RowWrite, SchemaId, VersionId,
};

const VERSION: VersionId = VersionId(1);
const ROWS: usize = 1_000_000;
/// Rows that share a join key.
const SIBLINGS: usize = 5;
const LOADED_PER_BATCH: usize = 10_000;
const CHANGES: usize = 200_000;
const GETS: usize = 1_000_000;

fn int(n: usize) -> Vec<u8> {
    key::of(ValueRef::Int(n as i64))
}

fn put(batch: &mut dyn Batch, join: &JoinIndex, row: usize, cells: &[u8]) {
    let (key, join_key) = (int(row), int(row / SIBLINGS));
    let same: &[(usize, &[u8])] = &[(0, &join_key)];
    let write = RowWrite {
        key: &key,
        row: Some(RowRef(cells)),
        schema: SchemaId(0),
        position: SourcePosition::after_commit(1, row as u64),
        removed: &[],
        added: same,
    };
    batch.put_row(&join.table, &[join], write).unwrap();
}

#[tokio::test]
#[ignore = "takes a while, and says nothing when other things run beside it"]
async fn load_project_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(EmbeddedOptions::new(folder.path())).unwrap();
    let join = JoinIndex { table: TableId::new("billing", "public", "lines"), columns: vec!["invoice".into()] };
    let mut random = Random::seeded(1);

    let start = Instant::now();
    for first in (0..ROWS).step_by(LOADED_PER_BATCH) {
        let mut batch = store.begin().unwrap();
        for row in first..first + LOADED_PER_BATCH {
            put(&mut *batch, &join, row, &[2; 120]);
        }
        batch.commit().unwrap();
    }
    let took = start.elapsed();
    println!("load: {:.0} rows/s", ROWS as f64 / took.as_secs_f64());

    let mut body = vec![b'x'; 1500];
    let mut cells = [2; 120];
    let (mut keys, mut rows) = (ByteList::default(), RowArena::default());
    for changed_per_batch in [500, 500, 5000] {
        let mut committing = Duration::ZERO;
        let start = Instant::now();
        for batch_number in 0..CHANGES / changed_per_batch {
            let mut batch = store.begin().unwrap();
            let changed: Vec<usize> = (0..changed_per_batch).map(|_| random.below(ROWS)).collect();
            keys.clear();
            rows.clear();
            changed.iter().for_each(|row| keys.push(&int(*row)));
            batch.rows_by_key(&join.table, &keys, 0, &mut rows).unwrap();
            for (at, row) in changed.iter().enumerate() {
                cells[..8].copy_from_slice(&(batch_number * changed_per_batch + at).to_le_bytes());
                put(&mut *batch, &join, *row, &cells);
            }
            let mut roots: Vec<usize> = changed.iter().map(|row| row / SIBLINGS).collect();
            roots.sort_unstable();
            roots.dedup();
            keys.clear();
            rows.clear();
            roots.iter().for_each(|root| keys.push(&int(*root)));
            batch.rows_by_join(&join, &keys, 0, &mut rows).unwrap();
            assert_eq!(rows.slots().len(), roots.len() * SIBLINGS);
            for root in &roots {
                body[..8].copy_from_slice(&random.number().to_le_bytes());
                let (id, value) = (int(*root), int(root % 1000));
                let write = DocumentWrite { id: &id, body: Some(&body), entries: &[(0, &value)], stamp: None };
                batch.put_documents(VERSION, 0, &[write]).unwrap();
            }
            let start = Instant::now();
            batch.commit().unwrap();
            committing += start.elapsed();
        }
        let took = start.elapsed().as_secs_f64();
        println!(
            "project in batches of {changed_per_batch}: {:.0} events/s, {:.0} % of the time in commits",
            CHANGES as f64 / took,
            committing.as_secs_f64() / took * 100.0
        );
    }

    let ids: Vec<Vec<u8>> = (0..GETS).map(|_| int(random.below(ROWS / SIBLINGS))).collect();
    let start = Instant::now();
    let mut found = 0;
    for id in &ids {
        found += usize::from(black_box(store.get(VERSION, id).await.unwrap()).is_some());
    }
    println!("get: {:.0} documents/s, {found} found of {GETS}", GETS as f64 / start.elapsed().as_secs_f64());
    println!("used: {} MiB", store.metrics().used.get() >> 20);
}
