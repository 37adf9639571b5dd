//! Bytes from outside: whatever they are, reading them ends, without a panic and without more memory than they are worth.

use headwater_schemas::codec::debezium::from_json;
use headwater_schemas::{EventRef, RowRef, TableSchema, Value, ValueRef, key, write_json_value};
use proptest::prelude::*;

use super::{check, values};

/// Bytes that are nothing, or a well-formed row with something wrong in it.
fn torn(whole: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let torn = (whole, any::<prop::sample::Index>(), any::<u8>(), 0usize..4).prop_map(|(mut bytes, at, byte, what)| {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            match what {
                0 => bytes.truncate(at),
                1 => bytes[at] = byte,
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..40), 3 => torn]
}

fn read_all(row: RowRef<'_>) {
    let cells: Vec<ValueRef<'_>> = row.cells().collect();
    for (at, cell) in cells.iter().enumerate() {
        let mut out = Vec::new();
        write_json_value(&mut out, *cell);
        key::write(&mut out, *cell);
        let _ = cell.to_value();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        headwater_schemas::RowBuilder::new(&mut one).push(*cell);
        headwater_schemas::RowBuilder::new(&mut other).push(row.cell(at));
        assert_eq!(one, other, "cell {at} alone and among the others");
    }
    assert_eq!(row.cell(cells.len()), ValueRef::Missing);
}

#[test]
fn torn_rows_are_read_without_panic() {
    let row = prop::collection::vec(values::any_value(), 1..5).prop_map(|cells| values::row(&cells));
    check("torn_rows", 5000, (torn(row), 0usize..6), |(bytes, columns)| {
        let row = RowRef(&bytes);
        read_all(row);
        row.is_well_formed(columns);
        row.has_missing();
        let mut out = Vec::new();
        row.fill_missing(row, Some, &mut out);
        Ok(())
    });
}

#[test]
fn rows_that_promise_more_than_they_hold_cost_nothing() {
    // One array cell of 2^32 - 1 times 2^32 - 1 elements, and none there; and arrays within arrays, thousands deep.
    let mut huge = vec![20, 11, 2];
    huge.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    let mut deep: Vec<u8> = Vec::new();
    for _ in 0..20_000 {
        let mut length = Vec::new();
        let mut n = deep.len() + 2;
        while n >= 0x80 {
            length.push(n as u8 | 0x80);
            n >>= 7;
        }
        length.push(n as u8);
        deep.splice(0..0, [20].into_iter().chain(length).chain([1, 1]));
    }
    for bytes in [huge, deep] {
        assert!(!RowRef(&bytes).is_well_formed(1));
        read_all(RowRef(&bytes));
    }
}

#[test]
fn torn_schemas_keys_and_events_are_read_without_panic() {
    let schema = torn(values::schema().prop_map(|schema| schema.to_bytes()));
    check("torn_schemas", 5000, schema, |bytes| {
        if let Some(schema) = TableSchema::from_bytes(&bytes) {
            prop_assert_eq!(TableSchema::from_bytes(&schema.to_bytes()), Some(schema));
        }
        Ok(())
    });
    assert_eq!(TableSchema::from_bytes(&[vec![1, 0, 0, 0, 1, 0, 0, 0], vec![19; 100_000]].concat()), None);

    check(
        "torn_events",
        5000,
        torn(Just([&b"\x01u\x06"[..], &[0; 32], &[2, 0, 0, 0, 1, 1], &[0; 4]].concat())),
        |bytes| {
            if let Ok(event) = EventRef::decode(&bytes) {
                event.before.into_iter().chain(event.after).for_each(read_all);
            }
            let _ = from_json(&bytes, None);
            Ok(())
        },
    );

    let key = values::any_value().prop_map(|value: Value| {
        let mut scratch = Vec::new();
        key::of(value.as_ref(&mut scratch))
    });
    check("torn_keys", 5000, torn(key), |bytes| {
        let mut rest = &bytes[..];
        while let Some((part, after)) = key::split_first(rest) {
            prop_assert!(!part.is_empty());
            rest = after;
        }
        Ok(())
    });
    assert_eq!(key::split_first(&[0x50, 1].repeat(50_000)), None);
}

#[test]
fn torn_models_are_read_without_panic() {
    use headwater_schemas::model::{ParseContext, parse};
    let example = include_str!("../models/customer_account.yaml");
    check("torn_models", 1000, torn(Just(example.as_bytes().to_vec())), |bytes| {
        let _ = parse("torn.yaml", &String::from_utf8_lossy(&bytes), &ParseContext::default())
            .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>());
        Ok(())
    });
}
