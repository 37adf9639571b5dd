use std::collections::{BTreeMap, BTreeSet};

use headwater_schemas::{ValueRef, key};

use super::sample::{VERSION, commit, int, text};
use super::{Opened, Place, Random};
use crate::{Counted, Cursor, DocumentWrite, Filter, IndexQuery, KeyRange, VersionId};

/// Ids and index entries.
type Documents = BTreeMap<Vec<u8>, BTreeSet<(u16, Vec<u8>)>>;

/// What a query is to find: value of the walked index and id, in order.
fn naive(documents: &Documents, query: &IndexQuery) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    for (id, entries) in documents {
        let passes = |filter: &Filter| {
            let own: Vec<_> = entries.iter().filter(|(index, _)| *index == filter.index).collect();
            let inside = own.iter().any(|(_, value)| filter.ranges.iter().any(|range| range.contains(value)));
            if filter.negated { !own.is_empty() && !inside } else { inside }
        };
        if !query.filters.iter().all(passes) {
            continue;
        }
        let Some(walk) = &query.walk else {
            found.push((Vec::new(), id.clone()));
            continue;
        };
        let mut values = entries
            .iter()
            .filter(|(index, value)| *index == walk.index && walk.ranges.iter().any(|range| range.contains(value)))
            .map(|(_, value)| value.clone());
        let first = if query.descending { values.next_back() } else { values.next() };
        found.extend(first.map(|value| (value, id.clone())));
    }
    found.sort();
    if query.descending {
        found.reverse();
    }
    found
}

/// A value; few enough for many documents to share one. Long ones differ where every engine still keeps them.
fn value(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => key::of(ValueRef::Null),
        1 => text(["", "\0", "a", "ab", "a\0b", "b"][random.below(6)]),
        2 => {
            let (letter, length) = [("p", 221), ("q", 222), ("r", 600), ("s", 3000)][random.below(4)];
            text(&letter.repeat(length))
        }
        3 => key::of(ValueRef::Decimal(["-1.5", "0.5", "2.50", "1e0"][random.below(3)])),
        4 => key::of(ValueRef::Bool(random.one_in(2))),
        _ => int(random.below(12) as i64 - 4),
    }
}

fn id(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => text(&["i", "j"][random.below(2)].repeat(520)),
        1 => text(&["k", "l"][random.below(2)].repeat(300)),
        2 => [int(random.below(3) as i64), text("part")].concat(),
        _ => int(random.below(60) as i64),
    }
}

/// Bounds as a query API makes them: at a value, just behind it, at a beginning of it, or at the end of everything.
fn ranges(random: &mut Random) -> Vec<KeyRange> {
    if random.one_in(5) {
        return vec![KeyRange::default()];
    }
    let mut bounds: Vec<Vec<u8>> = (0..2 * (1 + random.below(4)))
        .map(|_| {
            let mut bound = value(random);
            match random.below(4) {
                0 => bound.push(0),
                1 => bound.truncate(1 + random.below(bound.len())),
                _ => {}
            }
            bound
        })
        .collect();
    if random.one_in(3) {
        return bounds.into_iter().collect::<BTreeSet<_>>().iter().map(|value| KeyRange::exactly(value)).fold(
            Vec::new(),
            |mut ranges: Vec<KeyRange>, range| {
                if ranges.last().is_none_or(|last| last.high.as_ref().is_some_and(|high| *high <= range.low)) {
                    ranges.push(range);
                }
                ranges
            },
        );
    }
    bounds.sort();
    bounds.dedup();
    let mut ranges: Vec<KeyRange> =
        bounds.chunks_exact(2).map(|pair| KeyRange { low: pair[0].clone(), high: Some(pair[1].clone()) }).collect();
    if let Some(last) = ranges.last_mut().filter(|_| random.one_in(4)) {
        last.high = None;
    }
    ranges
}

fn query(random: &mut Random) -> IndexQuery {
    let filter =
        |random: &mut Random, negated| Filter { index: random.below(3) as u16, ranges: ranges(random), negated };
    let walk = if random.one_in(4) { None } else { Some(filter(random, false)) };
    let filters = (0..random.below(3)).map(|_| {
        let negated = random.one_in(2);
        filter(random, negated)
    });
    let filters = filters.collect();
    let limit = [1, 2, 7, 1000][random.below(4)];
    let entries_max = [1, 3, 20, 10_000][random.below(4)];
    // Of documents whose bodies are their ids.
    let bytes_max = [0, 40, 2_000, usize::MAX, usize::MAX][random.below(5)];
    IndexQuery { walk, descending: random.one_in(2), filters, after: None, limit, entries_max, bytes_max }
}

/// Reads page after page.
async fn pages(opened: &Opened, version: VersionId, query: &IndexQuery) -> Vec<Vec<u8>> {
    let (mut found, mut query) = (Vec::new(), query.clone());
    for _ in 0..10_000 {
        let page = opened.reader.query(version, &query).await.unwrap();
        assert!(page.documents.len() <= query.limit);
        let bytes: usize = page.documents.iter().map(|(_, document)| document.body.len()).sum();
        assert!(bytes <= query.bytes_max || page.documents.len() == 1, "{bytes} bytes, {} allowed", query.bytes_max);
        for (id, document) in page.documents {
            assert_eq!(&document.body[..], &id[..], "the body of these tests is the id");
            found.push(id);
        }
        match page.next {
            None => return found,
            next => {
                assert_ne!(next, query.after, "no way forward");
                query.after = next;
            }
        }
    }
    panic!("the pages do not end");
}

/// Brings random documents to random new states.
fn change(opened: &Opened, random: &mut Random, version: VersionId, documents: &mut Documents) {
    let mut batch = opened.writer.begin().unwrap();
    for _ in 0..random.below(80) {
        let id = id(random);
        if random.one_in(6) {
            documents.remove(&id);
            batch
                .put_documents(version, 0, &[DocumentWrite { id: &id, body: None, entries: &[], stamp: None }])
                .unwrap();
            continue;
        }
        let mut entries = BTreeSet::new();
        for index in 0..3 {
            for _ in 0..random.below(4) {
                entries.insert((index, value(random)));
            }
        }
        let borrowed: Vec<(u16, &[u8])> = entries.iter().map(|(index, value)| (*index, &value[..])).collect();
        batch
            .put_documents(version, 0, &[DocumentWrite { id: &id, body: Some(&id), entries: &borrowed, stamp: None }])
            .unwrap();
        documents.insert(id, entries);
    }
    batch.commit().unwrap();
}

pub async fn pages_are_those_of_a_naive_evaluation(place: &impl Place) {
    let opened = place.open();
    let mut random = Random::announced("pages_are_those_of_a_naive_evaluation");
    for case in 0..place.random_cases() {
        let version = VersionId(case);
        let mut documents = Documents::new();
        for _ in 0..1 + random.below(3) {
            change(&opened, &mut random, version, &mut documents);
        }
        assert_eq!(opened.reader.document_count(version).await.unwrap(), documents.len() as u64);
        for _ in 0..4 {
            let query = query(&mut random);
            let expected = naive(&documents, &query);
            let found = pages(&opened, version, &query).await;
            let ids: Vec<_> = expected.iter().map(|(_, id)| id.clone()).collect();
            assert_eq!(found, ids, "case {case}: {query:?}");
            // From any place, also one whose document is gone or never was.
            let after = match expected.get(random.below(expected.len() + 1)) {
                Some((value, id)) => Cursor { value: value.clone(), id: id.clone() },
                None if query.walk.is_none() => Cursor { value: vec![], id: id(&mut random) },
                None => Cursor { value: value(&mut random), id: id(&mut random) },
            };
            let place = (after.value.clone(), after.id.clone());
            let rest = expected.iter().filter(|at| if query.descending { **at < place } else { **at > place });
            let rest: Vec<_> = rest.map(|(_, id)| id.clone()).collect();
            let behind = IndexQuery { after: Some(after), ..query.clone() };
            assert_eq!(pages(&opened, version, &behind).await, rest, "case {case}: {behind:?}");
            // With a small budget the number may stay unknown, never be wrong.
            let all = expected.len() as u64;
            let Counted { seen, is_all } = opened.reader.count(version, &query, 9).await.unwrap();
            assert!(if is_all { seen == all } else { seen <= all.min(9) }, "case {case}: {seen} of {query:?}");
            let whole = IndexQuery { entries_max: 100_000, ..query };
            for limit in [0, 1, 5, 1_000_000] {
                let count = opened.reader.count(version, &whole, limit).await.unwrap();
                // Where nothing is to be counted, it may still be plain that there is nothing.
                let is_all = all < limit || (all == 0 && limit == 0 && count.is_all);
                assert_eq!(count, Counted { seen: all.min(limit), is_all }, "case {case}: {limit} of {whole:?}");
            }
        }
    }
}

/// Values and ids that differ only far behind what an engine may keep of them in a key: all are found, exactly, page by
/// page; their order among one another is the engine's.
pub async fn long_values_and_ids_are_found(place: &impl Place) {
    let opened = place.open();
    let values: Vec<Vec<u8>> = (0..12).map(|n| text(&format!("{}{n:02}", "v".repeat(700)))).collect();
    let ids: Vec<Vec<u8>> = (0..12).map(|n| text(&format!("{}{n:02}", "i".repeat(700)))).collect();
    for (n, id) in ids.iter().enumerate() {
        // Each at three neighbouring values.
        let entries: Vec<(u16, &[u8])> = values.iter().skip(n).take(3).map(|value| (0, &value[..])).collect();
        commit(&opened, &[DocumentWrite { id, body: Some(id), entries: &entries, stamp: None }]);
    }
    for (n, value) in values.iter().enumerate() {
        let from = KeyRange { low: value.clone(), high: None };
        let behind = KeyRange { low: [&value[..], &[0]].concat(), high: None };
        let below = KeyRange { low: vec![], high: Some(value.clone()) };
        let cases = [
            (vec![KeyRange::exactly(value)], n.saturating_sub(2)..n + 1),
            (vec![from], n.saturating_sub(2)..12),
            (vec![behind], (n + 1).saturating_sub(2).min(12)..if n == 11 { 0 } else { 12 }),
            (vec![below.clone()], 0..n),
            (vec![below, KeyRange::exactly(value)], 0..n + 1),
        ];
        for (ranges, expected) in cases {
            for (descending, limit, entries_max) in [(false, 2, 3), (true, 2, 3), (false, 100, 1000), (true, 1, 1)] {
                let walk = Some(Filter { index: 0, ranges: ranges.clone(), negated: false });
                let bytes_max = usize::MAX;
                let query =
                    IndexQuery { walk, descending, filters: vec![], after: None, limit, entries_max, bytes_max };
                let mut found = pages(&opened, VERSION, &query).await;
                found.sort();
                let expected = ids.get(expected.clone()).unwrap_or_default();
                assert_eq!(found, expected, "value {n}, descending {descending}, limit {limit}");
            }
        }
    }
    let query = IndexQuery {
        walk: None,
        descending: false,
        filters: vec![],
        after: None,
        limit: 5,
        entries_max: 7,
        bytes_max: usize::MAX,
    };
    let mut found = pages(&opened, VERSION, &query).await;
    found.sort();
    assert_eq!(found, ids);
}
