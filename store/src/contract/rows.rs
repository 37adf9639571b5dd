use headwater_schemas::{Column, ColumnType, RowBuilder, RowRef, TableSchema, ValueRef};

use super::Place;
use super::sample::{at, cells, int, join, joined, keys, listed, put, table, text, visited};
use crate::{Batch, Error, Frontier, JoinIndex, READ_BYTES, RowArena, RowWrite, SchemaId};

pub async fn a_batch_reads_its_own_writes(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let mut batch = opened.writer.begin().unwrap();
    put(&mut *batch, &join, &int(1), 10, &int(100));
    assert_eq!(joined(&*batch, &join, &[&int(100)]), [(0, int(1), 10)]);
    put(&mut *batch, &join, &int(1), 11, &int(100));
    assert_eq!(joined(&*batch, &join, &[&int(100)]), [(0, int(1), 11)]);
    let mut out = RowArena::default();
    batch.rows_by_key(&join.table, &keys([&int(1)[..]]), 0, &mut out).unwrap();
    assert_eq!(listed(&out), [(0, int(1), 11)]);
    if place.counts_uncommitted_rows() {
        assert_eq!(batch.row_count(&join.table).unwrap(), 1);
    }
}

pub async fn a_dropped_batch_changed_nothing(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let mut batch = opened.writer.begin().unwrap();
    put(&mut *batch, &join, &int(1), 10, &int(100));
    batch.set_note("n", Some(b"kept")).unwrap();
    batch.commit().unwrap();

    let mut batch = opened.writer.begin().unwrap();
    put(&mut *batch, &join, &int(1), 11, &int(100));
    put(&mut *batch, &JoinIndex { table: table("other"), ..join.clone() }, &int(2), 12, &int(100));
    batch.set_note("n", None).unwrap();
    batch.set_offset("t", 0, 5).unwrap();
    batch.set_frontier("billing", Frontier { position: at(9), ..Frontier::default() }).unwrap();
    batch.add_join_index(&join).unwrap();
    drop(batch);

    let batch = opened.writer.begin().unwrap();
    assert_eq!(joined(&*batch, &join, &[&int(100)]), [(0, int(1), 10)]);
    assert_eq!(batch.row_count(&join.table).unwrap(), 1);
    assert_eq!(batch.row_count(&table("other")).unwrap(), 0);
    assert_eq!(batch.note("n").unwrap().as_deref(), Some(&b"kept"[..]));
    assert!(batch.offsets().unwrap().is_empty());
    assert!(batch.frontiers().unwrap().is_empty());
    assert!(batch.join_indexes().unwrap().is_empty());
}

pub async fn a_commit_survives_reopening(place: &impl Place) {
    let join = join(&table("lines"), "invoice");
    let opened = place.open();
    for n in 0..20 {
        let mut batch = opened.writer.begin().unwrap();
        put(&mut *batch, &join, &int(n), n, &int(100));
        batch.commit().unwrap();
    }
    drop(opened);
    let opened = place.open();
    let mut batch = opened.writer.begin().unwrap();
    let rows = joined(&*batch, &join, &[&int(100)]);
    assert_eq!(rows, (0..20).map(|n| (0, int(n), n)).collect::<Vec<_>>());
    assert_eq!(batch.row_count(&join.table).unwrap(), 20);
    // A new table does not share a number with the old one.
    let other = JoinIndex { table: table("other"), ..join.clone() };
    put(&mut *batch, &other, &int(0), 77, &int(100));
    assert_eq!(joined(&*batch, &join, &[&int(100)]).len(), 20);
}

pub async fn rows_come_in_request_order(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let mut batch = opened.writer.begin().unwrap();
    for n in [3, 1, 2] {
        put(&mut *batch, &join, &int(n), n * 10, &int(n % 2));
    }
    let mut out = RowArena::default();
    let wanted = [int(2), int(9), int(3), int(2)];
    batch.rows_by_key(&join.table, &keys(wanted.iter().map(Vec::as_slice)), 0, &mut out).unwrap();
    assert_eq!(listed(&out), [(0, int(2), 20), (2, int(3), 30), (3, int(2), 20)]);
    assert_eq!(out.slots()[0].position, at(1));
    let rows = joined(&*batch, &join, &[&int(1), &int(5), &int(0)]);
    assert_eq!(rows, [(0, int(1), 10), (0, int(3), 30), (2, int(2), 20)]);
    // Reads append.
    batch.rows_by_key(&join.table, &keys([&int(1)[..]]), 0, &mut out).unwrap();
    assert_eq!(out.slots().len(), 4);
}

pub async fn tombstones_are_rows_but_not_joined(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let mut batch = opened.writer.begin().unwrap();
    put(&mut *batch, &join, &int(1), 10, &int(100));
    let gone: &[(usize, &[u8])] = &[(0, &int(100))];
    let key = int(1);
    let write = RowWrite { key: &key, row: None, schema: SchemaId(0), position: at(2), removed: gone, added: &[] };
    batch.put_row(&join.table, &[&join], write).unwrap();
    assert!(joined(&*batch, &join, &[&int(100)]).is_empty());
    let mut out = RowArena::default();
    batch.rows_by_key(&join.table, &keys([&key[..]]), 0, &mut out).unwrap();
    batch.scan_rows(&join.table, None, 10, &mut out).unwrap();
    assert_eq!(out.slots().len(), 2);
    for slot in out.slots() {
        assert_eq!((out.key(slot), out.row(slot), slot.position), (&key[..], None, at(2)));
    }
}

pub async fn removed_rows_leave_nothing(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let other = JoinIndex { columns: vec!["tariff".into()], ..join.clone() };
    let indexes = [&join, &other];
    let found_by: &[(usize, &[u8])] = &[(0, &int(100)), (1, &int(200))];
    let put = |batch: &mut dyn Batch, key: &[u8], n: Option<i64>| {
        let cells = n.map(cells);
        let row = cells.as_deref().map(RowRef);
        let added = if row.is_some() { found_by } else { &[] };
        let write = RowWrite { key, row, schema: SchemaId(0), position: at(1), removed: &[], added };
        batch.put_row(&join.table, &indexes, write).unwrap();
    };
    let remove = |batch: &mut dyn Batch, key: &[u8]| batch.remove_row(&join.table, &indexes, key, found_by).unwrap();
    let check = |batch: &dyn Batch, n: i64| {
        let mut out = RowArena::default();
        let long = text(&"k".repeat(900));
        batch.rows_by_key(&join.table, &keys([&int(1)[..], &long, &int(3), &int(4)]), 0, &mut out).unwrap();
        assert_eq!(listed(&out), [(3, int(4), n)]);
        out.clear();
        batch.scan_rows(&join.table, None, 10, &mut out).unwrap();
        assert_eq!(listed(&out), [(0, int(4), n)]);
        assert_eq!(joined(batch, &join, &[&int(100)]), [(0, int(4), n)]);
        assert_eq!(joined(batch, &other, &[&int(200)]), [(0, int(4), n)]);
    };

    let mut batch = opened.writer.begin().unwrap();
    let long = text(&"k".repeat(900));
    for (key, n) in [(int(1), Some(10)), (long.clone(), Some(20)), (int(3), None), (int(4), Some(40))] {
        put(&mut *batch, &key, n);
    }
    batch.commit().unwrap();
    let mut batch = opened.writer.begin().unwrap();
    // The last of them was never there.
    for key in [int(1), long, int(3), int(9)] {
        remove(&mut *batch, &key);
    }
    check(&*batch, 40);
    batch.commit().unwrap();
    let mut batch = opened.writer.begin().unwrap();
    check(&*batch, 40);
    assert_eq!(batch.row_count(&join.table).unwrap(), 1);

    // Of one row, the last counts.
    put(&mut *batch, &int(3), Some(30));
    remove(&mut *batch, &int(3));
    remove(&mut *batch, &int(4));
    put(&mut *batch, &int(4), Some(41));
    batch.commit().unwrap();
    drop(opened);
    let opened = place.open();
    let batch = opened.writer.begin().unwrap();
    check(&*batch, 41);
    assert_eq!(batch.row_count(&join.table).unwrap(), 1);
}

pub async fn reads_end_when_they_are_full(place: &impl Place) {
    const ROW: usize = READ_BYTES / 5;
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let mut cells = Vec::new();
    RowBuilder::new(&mut cells).push(ValueRef::Text(&"x".repeat(ROW)));
    for n in 0..12 {
        let mut batch = opened.writer.begin().unwrap();
        let (key, join_key) = (int(n), int(n / 2));
        let added: &[(usize, &[u8])] = &[(0, &join_key)];
        let row = Some(RowRef(&cells));
        let write = RowWrite { key: &key, row, schema: SchemaId(0), position: at(1), removed: &[], added };
        batch.put_row(&join.table, &[&join], write).unwrap();
        batch.commit().unwrap();
    }
    let batch = opened.writer.begin().unwrap();
    let requests = |out: &RowArena| -> Vec<u32> { out.slots().iter().map(|slot| slot.request).collect() };
    // One of the keys has no row.
    let wanted: Vec<Vec<u8>> = [99].into_iter().chain(0..12).map(int).collect();
    let wanted = keys(wanted.iter().map(Vec::as_slice));
    let (mut from, mut read) = (0, Vec::new());
    while from < wanted.len() {
        let mut out = RowArena::default();
        let end = batch.rows_by_key(&join.table, &wanted, from, &mut out).unwrap();
        assert!(end == wanted.len() || end > from && out.is_full(), "{from} to {end}");
        assert!(out.byte_len() <= 3 * READ_BYTES, "{} bytes at once", out.byte_len());
        read.extend(requests(&out));
        from = end;
    }
    assert_eq!(read, (1..13).collect::<Vec<_>>());
    let joined: Vec<Vec<u8>> = (0..6).map(int).collect();
    let joined = keys(joined.iter().map(Vec::as_slice));
    let (mut from, mut read) = (0, Vec::new());
    while from < joined.len() {
        let mut out = RowArena::default();
        let end = batch.rows_by_join(&join, &joined, from, &mut out).unwrap();
        assert!(end == joined.len() || end > from && out.is_full(), "{from} to {end}");
        assert!(out.byte_len() <= 3 * READ_BYTES, "{} bytes at once", out.byte_len());
        read.extend(requests(&out));
        from = end;
    }
    assert_eq!(read, (0..12).map(|n| n / 2).collect::<Vec<_>>());
    // Who goes on with the same arena gets further, up to what it may hold.
    let (mut from, mut out) = (0, RowArena::default());
    while from < joined.len() {
        let end = batch.rows_by_join(&join, &joined, from, &mut out).unwrap();
        assert!(end > from, "nothing was read from {from} on");
        from = end;
    }
    assert_eq!(out.slots().len(), 12);
    let mut small = RowArena::default();
    small.set_bytes_max(ROW + ROW / 2);
    let refused = batch.rows_by_join(&join, &joined, 0, &mut small).unwrap_err();
    assert!(matches!(refused, Error::TooManyRows { limit } if limit == ROW + ROW / 2), "{refused}");
    assert!(small.byte_len() <= 3 * ROW, "{} bytes at once", small.byte_len());
    let (mut after, mut read): (Option<Vec<u8>>, _) = (None, 0);
    loop {
        let mut out = RowArena::default();
        batch.scan_rows(&join.table, after.as_deref(), 100, &mut out).unwrap();
        assert!(out.byte_len() <= 2 * READ_BYTES, "{} bytes at once", out.byte_len());
        let Some(last) = out.slots().last() else { break };
        after = Some(out.key(last).to_vec());
        read += out.slots().len();
    }
    assert_eq!(read, 12);
}

pub async fn visits_take_a_part_at_a_time(place: &impl Place) {
    const ROW: usize = READ_BYTES / 5;
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let mut large = Vec::new();
    RowBuilder::new(&mut large).push(ValueRef::Text(&"x".repeat(ROW)));
    // More than three times what is read at once, and all of it found by one key.
    for n in 0..17 {
        let mut batch = opened.writer.begin().unwrap();
        let (key, join_key) = (int(n), int(1));
        let added: &[(usize, &[u8])] = &[(0, &join_key)];
        let row = Some(RowRef(&large));
        let write = RowWrite { key: &key, row, schema: SchemaId(0), position: at(1), removed: &[], added };
        batch.put_row(&join.table, &[&join], write).unwrap();
        batch.commit().unwrap();
    }
    let mut batch = opened.writer.begin().unwrap();
    for n in 0..60 {
        put(&mut *batch, &join, &int(100 + n), n, &int(10 + n / 3));
    }
    let mut found = Vec::new();
    let mut visit = |part: &RowArena| {
        let bytes = part.byte_len();
        assert!(bytes > 0 && bytes <= 2 * READ_BYTES, "{bytes} bytes at once");
        for slot in part.slots() {
            let is_small = part.key(slot) >= &int(100)[..];
            assert!(is_small || part.row(slot).unwrap().0 == large, "a row is not what was written");
            found.push(part.key(slot).to_vec());
        }
    };
    // Of the others, one has no row.
    let wanted = [int(10), int(1), int(99), int(11)];
    batch.visit_by_join(&join, &keys(wanted.iter().map(Vec::as_slice)), &mut visit).unwrap();
    found.sort();
    assert_eq!(found, (0..17).chain(100..106).map(int).collect::<Vec<_>>());
    // Few rows of many keys come together.
    let (mut parts, mut rows) = (0, Vec::new());
    let many: Vec<Vec<u8>> = (10..30).map(int).collect();
    let mut visit = |part: &RowArena| {
        parts += 1;
        rows.extend(listed(part));
    };
    batch.visit_by_join(&join, &keys(many.iter().map(Vec::as_slice)), &mut visit).unwrap();
    rows.sort();
    assert_eq!(rows, (0..60).map(|n| (0, int(100 + n), n)).collect::<Vec<_>>());
    assert_eq!(parts, 1);
    let unknown = JoinIndex { columns: vec!["tariff".into()], ..join.clone() };
    assert!(visited(&*batch, &join, &[]).is_empty() && visited(&*batch, &unknown, &[&int(10)]).is_empty());
}

/// Keys that are alike: beginnings of one another, with zero bytes, and far beyond what an engine may take as a key.
fn alike() -> Vec<Vec<u8>> {
    let long = "x".repeat(600);
    let mut texts: Vec<String> =
        ["", "a", "ab", "a\0", "a\0b", "\0", "a\u{1}", "b"].into_iter().map(str::to_owned).collect();
    for length in [220, 221, 222, 223, 224, 225, 226, 480, 490, 500, 505, 506, 507, 508, 509, 510, 511, 512] {
        texts.push("x".repeat(length));
    }
    texts.extend([format!("{long}1"), format!("{long}2"), format!("{long}\0"), long.clone(), long.repeat(20)]);
    texts.iter().map(|t| text(t)).collect()
}

pub async fn joins_find_exactly_their_rows(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let other = JoinIndex { columns: vec!["tariff".into()], ..join.clone() };
    let mut batch = opened.writer.begin().unwrap();
    let (join_keys, row_keys) = (alike(), alike());
    for (j, join_key) in join_keys.iter().enumerate() {
        for (r, row_key) in row_keys.iter().enumerate() {
            // The row's key is its own and the join's, so that no two rows of the table share one.
            let key = [row_key.as_slice(), &int(j as i64)].concat();
            put(&mut *batch, &join, &key, (j * 1000 + r) as i64, join_key);
        }
    }
    batch.commit().unwrap();
    let batch = opened.writer.begin().unwrap();
    for (j, join_key) in join_keys.iter().enumerate() {
        let mut expected: Vec<_> = row_keys
            .iter()
            .enumerate()
            .map(|(r, row_key)| (0, [row_key.as_slice(), &int(j as i64)].concat(), (j * 1000 + r) as i64))
            .collect();
        expected.sort();
        assert_eq!(joined(&*batch, &join, &[join_key]), expected, "join key {j}");
        assert_eq!(visited(&*batch, &join, &[join_key]), expected, "visits of join key {j}");
        let mut out = RowArena::default();
        batch.rows_by_key(&join.table, &keys(expected.iter().map(|(_, key, _)| &key[..])), 0, &mut out).unwrap();
        let found: Vec<_> = listed(&out).into_iter().map(|(_, key, n)| (0, key, n)).collect();
        assert_eq!(found, expected, "rows of join key {j}");
    }
    assert!(joined(&*batch, &other, &[&join_keys[0]]).is_empty());
    assert!(joined(&*batch, &join, &[&text("xx"), &text(&"x".repeat(601))]).is_empty());
}

pub async fn moved_rows_leave_their_old_entries(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let long = text(&"y".repeat(700));
    let mut batch = opened.writer.begin().unwrap();
    let places = [int(1), long.clone(), int(2), long, int(1)];
    for (n, key) in [(1, int(1)), (2, text(&"k".repeat(900)))] {
        put(&mut *batch, &join, &key, n, &places[0]);
        for step in places.windows(2) {
            let cells = cells(n);
            let (removed, added) = (&[(0, &step[0][..])], &[(0, &step[1][..])]);
            let row = Some(RowRef(&cells));
            let write = RowWrite { key: &key, row, schema: SchemaId(0), position: at(2), removed, added };
            batch.put_row(&join.table, &[&join], write).unwrap();
            assert!(joined(&*batch, &join, &[&step[0]]).iter().all(|(_, found, _)| *found != key));
            assert!(joined(&*batch, &join, &[&step[1]]).contains(&(0, key.clone(), n)));
        }
    }
    if place.counts_uncommitted_rows() {
        assert_eq!(batch.row_count(&join.table).unwrap(), 2);
    }
}

pub async fn rows_are_scanned_in_key_order(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let before = JoinIndex { table: table("aa"), ..join.clone() };
    let behind = JoinIndex { table: table("zz"), ..join.clone() };
    let mut batch = opened.writer.begin().unwrap();
    for n in 0..50 {
        put(&mut *batch, &before, &int(n), -1, &int(0));
        put(&mut *batch, &join, &int(n), n, &int(0));
        put(&mut *batch, &behind, &int(n), -2, &int(0));
    }
    // Order among keys that agree in all an engine keeps of them is its own; each still comes exactly once.
    let long: Vec<Vec<u8>> = (0..9).map(|n| text(&format!("{}{n}", "z".repeat(800)))).collect();
    for (n, key) in long.iter().enumerate() {
        put(&mut *batch, &join, key, 1000 + n as i64, &int(0));
    }
    for limit in [1, 7, 100] {
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let mut out = RowArena::default();
            batch.scan_rows(&join.table, after.as_deref(), limit, &mut out).unwrap();
            assert!(out.slots().len() <= limit);
            let Some(last) = out.slots().last() else { break };
            after = Some(out.key(last).to_vec());
            found.extend(listed(&out).into_iter().map(|(_, key, n)| (key, n)));
        }
        assert_eq!(found[..50], (0..50).map(|n| (int(n), n)).collect::<Vec<_>>());
        let mut rest = found.split_off(50);
        rest.sort();
        assert_eq!(rest, long.iter().cloned().zip(1000..).collect::<Vec<_>>());
    }
}

pub async fn a_dropped_join_index_is_empty(place: &impl Place) {
    let opened = place.open();
    let join = join(&table("lines"), "invoice");
    let kept = JoinIndex { columns: vec!["tariff".into()], ..join.clone() };
    let mut batch = opened.writer.begin().unwrap();
    put(&mut *batch, &join, &int(1), 10, &int(100));
    put(&mut *batch, &kept, &int(1), 10, &int(100));
    assert!(batch.join_indexes().unwrap().is_empty(), "entries alone do not make it complete");
    batch.add_join_index(&join).unwrap();
    batch.add_join_index(&kept).unwrap();
    batch.commit().unwrap();
    let mut batch = opened.writer.begin().unwrap();
    assert_eq!(batch.join_indexes().unwrap(), [join.clone(), kept.clone()]);
    batch.drop_join_index(&join).unwrap();
    batch.commit().unwrap();
    drop(opened);
    let opened = place.open();
    let mut batch = opened.writer.begin().unwrap();
    assert_eq!(batch.join_indexes().unwrap(), std::slice::from_ref(&kept));
    assert!(joined(&*batch, &join, &[&int(100)]).is_empty());
    put(&mut *batch, &join, &int(2), 20, &int(100));
    assert_eq!(joined(&*batch, &join, &[&int(100)]), [(0, int(2), 20)]);
    assert_eq!(joined(&*batch, &kept, &[&int(100)]), [(0, int(1), 10)]);
}

pub async fn schemas_keep_their_numbers(place: &impl Place) {
    let schema = |name: &str| TableSchema {
        table: table("lines"),
        columns: vec![Column {
            name: name.into(),
            kind: ColumnType::Int64,
            source_type: "bigint".into(),
            key_ordinal: Some(0),
        }],
    };
    let opened = place.open();
    let mut batch = opened.writer.begin().unwrap();
    let (a, b) = (batch.schema_id(&schema("a")).unwrap(), batch.schema_id(&schema("b")).unwrap());
    assert_ne!(a, b);
    assert_eq!(batch.schema_id(&schema("a")).unwrap(), a);
    batch.commit().unwrap();
    let mut batch = opened.writer.begin().unwrap();
    let dropped = batch.schema_id(&schema("c")).unwrap();
    drop(batch);
    drop(opened);
    let opened = place.open();
    let mut batch = opened.writer.begin().unwrap();
    assert_eq!(batch.schemas().unwrap(), [(a, schema("a")), (b, schema("b"))]);
    assert_eq!(batch.schema_id(&schema("b")).unwrap(), b);
    assert_eq!(batch.schema_id(&schema("d")).unwrap(), dropped);
}

pub async fn notes_offsets_and_frontiers_are_kept(place: &impl Place) {
    let opened = place.open();
    let frontier = |commit| Frontier { position: at(commit), at_micros: -5, snapshot_done: true };
    let topic = "t".repeat(600);
    let mut batch: Box<dyn Batch> = opened.writer.begin().unwrap();
    batch.set_note("a", Some(b"1")).unwrap();
    batch.set_note("b", Some(b"2")).unwrap();
    batch.set_note("b", None).unwrap();
    batch.set_offset("events", 0, 5).unwrap();
    batch.set_offset("events", 1, 6).unwrap();
    batch.set_offset("events", 0, 7).unwrap();
    batch.set_offset(&topic, 0, 8).unwrap();
    batch.set_frontier("billing", frontier(3)).unwrap();
    batch.set_frontier("crm", frontier(4)).unwrap();
    batch.commit().unwrap();
    drop(opened);
    let opened = place.open();
    let batch = opened.writer.begin().unwrap();
    assert_eq!((batch.note("a").unwrap().as_deref(), batch.note("b").unwrap()), (Some(&b"1"[..]), None));
    let mut offsets = batch.offsets().unwrap();
    offsets.sort();
    assert_eq!(offsets, [("events".to_owned(), 0, 7), ("events".to_owned(), 1, 6), (topic, 0, 8)]);
    let expected = [("billing".to_owned(), frontier(3)), ("crm".to_owned(), frontier(4))].into();
    assert_eq!(batch.frontiers().unwrap(), expected);
    assert_eq!(**opened.reader.frontiers().borrow(), expected);
}
