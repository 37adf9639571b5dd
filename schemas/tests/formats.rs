//! The forms that outlive a process: what was written yesterday must be read tomorrow. A change here is a new version of
//! the form, and the old fixture stays.
//!
//! `HEADWATER_UPDATE_FORMATS=1` writes fixtures that are not there yet; it never changes one.

#![allow(clippy::unwrap_used, missing_docs)]

use headwater_schemas::codec::debezium::{EventReader, EventWriter, SourceInfo, from_json};
use headwater_schemas::{
    ArrayValue, Column, ColumnType, EventHeader, EventRef, Interval, Op, RowBuilder, RowRef, SourcePosition, TableId,
    TableSchema, Value, WriteRow, key,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/formats");

fn fixture(name: &str, written: &[u8]) -> Vec<u8> {
    let path = format!("{FOLDER}/{name}");
    if std::env::var_os("HEADWATER_UPDATE_FORMATS").is_some()
        && !written.is_empty()
        && !std::path::Path::new(&path).exists()
    {
        std::fs::write(&path, written).unwrap();
    }
    std::fs::read(&path).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let mut text: String =
        bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n").collect();
    if text.is_empty() {
        text.push('\n');
    }
    text
}

/// A column of every type with a value in it.
fn columns() -> Vec<(&'static str, ColumnType, Value)> {
    use ColumnType as C;
    let interval = Interval { months: 14, days: -3, micros: 4_500_000 };
    let cells = vec![Value::Int(1), Value::Null, Value::Int(3), Value::Int(-4)];
    vec![
        ("id", C::Int64, Value::Int(9_007_199_254_740_993)),
        ("code", C::Text, Value::Text("a\0\"é".into())),
        ("yes", C::Bool, Value::Bool(true)),
        ("small", C::Int32, Value::Int(-7)),
        ("large", C::UInt64, Value::UInt(u64::MAX)),
        ("amount", C::Decimal, Value::Decimal("-19.90".into())),
        ("ratio32", C::Float32, Value::Float32(0.1)),
        ("ratio64", C::Float64, Value::Float64(f64::NEG_INFINITY)),
        ("raw", C::Bytes, Value::Bytes(vec![0, 255])),
        ("day", C::Date, Value::Date(20_454)),
        ("at", C::Time, Value::Time(86_399_000_001)),
        ("at_zone", C::TimeTz, Value::TimeTz(36_000_000_000, -12_600)),
        ("stamp", C::Timestamp, Value::Timestamp(-1)),
        ("instant", C::TimestampTz, Value::TimestampTz(i64::MAX)),
        ("span", C::Interval, Value::Interval(interval)),
        ("uuid", C::Uuid, Value::Uuid([0xab; 16])),
        ("json", C::Json, Value::Json("{\"a\": 1.0}".into())),
        ("status", C::Enum, Value::Enum("open".into())),
        ("list", C::Array(Box::new(C::Int32)), Value::Array(ArrayValue { dimensions: vec![2, 2], cells })),
        ("shape", C::Other, Value::Text("(1,2)".into())),
        ("note", C::Text, Value::Missing),
        ("nothing", C::Text, Value::Null),
    ]
}

fn schema() -> TableSchema {
    let columns = columns().into_iter().map(|(name, kind, _)| Column {
        name: name.into(),
        kind,
        source_type: format!("{name}_type"),
        key_ordinal: match name {
            "code" => Some(0),
            "id" => Some(1),
            _ => None,
        },
    });
    TableSchema { table: TableId::new("billing", "public", "invoices"), columns: columns.collect() }
}

fn row(key_only: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut row = RowBuilder::new(&mut bytes);
    for (name, _, value) in columns() {
        let keep = !key_only || matches!(name, "id" | "code");
        row.push_value(if keep { &value } else { &Value::Missing });
    }
    bytes
}

fn event() -> Vec<u8> {
    let header = EventHeader {
        op: Op::Update,
        position: SourcePosition { epoch: 4, commit: 53_195_832, ordinal: 3 },
        transaction: 571,
        committed_at_micros: 1_767_225_600_123_456,
        last_in_transaction: true,
        before_is_key_only: true,
    };
    let mut before = |out: &mut Vec<u8>| out.extend_from_slice(&row(true));
    let mut after = |out: &mut Vec<u8>| out.extend_from_slice(&row(false));
    let mut bytes = Vec::new();
    header.encode(&mut bytes, Some(&mut before as WriteRow<'_>), Some(&mut after as WriteRow<'_>));
    bytes
}

fn truncation() -> Vec<u8> {
    let header = EventHeader {
        op: Op::Truncate,
        position: SourcePosition { epoch: 4, commit: 53_195_832, ordinal: 4 },
        transaction: 571,
        committed_at_micros: 1_767_225_600_123_456,
        last_in_transaction: false,
        before_is_key_only: false,
    };
    let mut bytes = Vec::new();
    EventRef { header, before: None, after: None, partitions: Some(6) }.encode(&mut bytes);
    bytes
}

fn record_key() -> Vec<u8> {
    let (row, schema) = (row(false), schema());
    let mut bytes = Vec::new();
    schema.key_columns().into_iter().for_each(|at| key::write(&mut bytes, RowRef(&row).cell(at)));
    bytes
}

#[test]
fn binary_forms_are_as_they_were() {
    let schema = schema();
    for (name, bytes) in [
        ("event.v1.hex", event()),
        ("truncation.v1.hex", truncation()),
        ("schema.v1.hex", schema.to_bytes()),
        ("record_key.v1.hex", record_key()),
    ] {
        let written = hex(&bytes);
        assert_eq!(String::from_utf8(fixture(name, written.as_bytes())).unwrap(), written, "{name}");
    }
    let keys: String = columns()
        .iter()
        .map(|(name, _, value)| {
            let mut scratch = Vec::new();
            format!("{name} {}", hex(&key::of(value.as_ref(&mut scratch))))
        })
        .collect();
    // Keys are compared and never read back: of an earlier form nothing has to be understood, but no store may mix the two.
    assert_eq!(String::from_utf8(fixture("keys.v2.hex", keys.as_bytes())).unwrap(), keys);
}

#[test]
fn the_json_form_is_as_it_was() {
    let schema = schema();
    let source = SourceInfo { version: "1.0".into(), connector: "postgresql".into(), database: "erp".into() };
    let mut writer = EventWriter::new(schema.clone(), &source);
    for (name, bytes, key) in
        [("event.v2.json", event(), record_key()), ("truncation.v2.json", truncation(), Vec::new())]
    {
        let mut json = Vec::new();
        writer.write(&EventRef::decode(&bytes).unwrap(), &key, &mut json).unwrap();
        json.push(b'\n');
        let golden = fixture(name, &json);
        assert_eq!(String::from_utf8_lossy(&json), String::from_utf8_lossy(&golden), "{name}");
        let back = from_json(&golden, Some(&schema)).unwrap();
        assert_eq!((&back.bytes, &back.key), (&bytes, &key), "{name}");
        // What was written before there were `source.sequence` and placeholders.
        let earlier = fixture(&name.replace("v2", "v1"), b"");
        let back = from_json(&earlier, Some(&schema)).unwrap();
        assert_eq!((&back.bytes, &back.key), (&bytes, &key), "{name}, as it was");
        for json in [golden, earlier] {
            let (mut read_key, mut read) = (Vec::new(), Vec::new());
            EventReader::new(schema.clone()).read(json.trim_ascii_end(), &mut read_key, &mut read).unwrap();
            assert_eq!((&read, &read_key), (&bytes, &key), "{name}, fast");
        }
    }

    let (event, row, mut json) = (event(), row(true), Vec::new());
    let header = EventRef::decode(&event).unwrap().header;
    let event = EventRef { header, before: None, after: Some(RowRef(&row)), partitions: None };
    let key = writer.write(&event, &[], &mut json).unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&json[key]), "{\"code\":\"a\\u0000\\\"é\",\"id\":\"9007199254740993\"}");
}

/// A value that was not sent has Debezium's placeholder, which is nothing to us; one that reads like it is what it is.
#[test]
fn a_placeholder_is_no_value_and_a_value_no_placeholder() {
    const LOOKS_ALIKE: &str = "__debezium_unavailable_value";
    let source = SourceInfo { version: "1.0".into(), connector: "postgresql".into(), database: "erp".into() };
    let kinds = [
        ("id", ColumnType::Int64, Value::Int(1)),
        ("text", ColumnType::Text, Value::Text(LOOKS_ALIKE.into())),
        ("document", ColumnType::Json, Value::Json(LOOKS_ALIKE.into())),
        ("bytes", ColumnType::Bytes, Value::Bytes(LOOKS_ALIKE.into())),
        (
            "list",
            ColumnType::Array(Box::new(ColumnType::Text)),
            Value::Array(ArrayValue { dimensions: vec![1], cells: vec![Value::Text(LOOKS_ALIKE.into())] }),
        ),
    ];
    let columns = kinds.iter().map(|(name, kind, _)| {
        let key_ordinal = (*name == "id").then_some(0);
        Column { name: (*name).into(), kind: kind.clone(), source_type: String::new(), key_ordinal }
    });
    let schema = TableSchema { table: TableId::new("s", "p", "t"), columns: columns.collect() };
    let mut writer = EventWriter::new(schema.clone(), &source);
    let row = |sent: u32| {
        let mut bytes = Vec::new();
        let mut row = RowBuilder::new(&mut bytes);
        for (at, (_, _, value)) in kinds.iter().enumerate() {
            row.push_value(if (sent >> at) & 1 == 1 { value } else { &Value::Missing });
        }
        bytes
    };
    // All that the columns behind the key may lack, in both rows.
    for sent in (1..32).step_by(2) {
        let (before, after) = (row((33 - sent) | 1), row(sent));
        let header = EventHeader {
            op: Op::Update,
            position: SourcePosition { epoch: 1, commit: 9, ordinal: sent },
            transaction: 5,
            committed_at_micros: 0,
            last_in_transaction: false,
            before_is_key_only: false,
        };
        let event = EventRef { header, before: Some(RowRef(&before)), after: Some(RowRef(&after)), partitions: None };
        let (key, mut bytes, mut json) = (key::of(kinds[0].2.as_ref(&mut Vec::new())), Vec::new(), Vec::new());
        event.encode(&mut bytes);
        writer.write(&event, &key, &mut json).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(told["after"].as_object().unwrap().len(), kinds.len(), "{told}");
        assert_eq!(told["after"]["text"], LOOKS_ALIKE);
        assert_eq!(told["after"]["bytes"], "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==");
        assert_eq!(told["x"]["v"], if sent == 31 { 1 } else { 2 }, "an older version must not read it as a value");
        assert_eq!(from_json(&json, Some(&schema)).unwrap().bytes, bytes, "{told}");
        let (mut read_key, mut read) = (Vec::new(), Vec::new());
        EventReader::new(schema.clone()).read(&json, &mut read_key, &mut read).unwrap();
        assert_eq!((read, read_key), (bytes, key), "{told}");
    }
}

/// Whoever orders by `source` can: within a transaction, too.
#[test]
fn the_sequence_rises_within_a_transaction() {
    let source = SourceInfo { version: "1.0".into(), connector: "postgresql".into(), database: "erp".into() };
    let mut writer = EventWriter::new(schema(), &source);
    let mut sequence = |commit, ordinal| {
        let (bytes, mut json) = (event(), Vec::new());
        let event = EventRef::decode(&bytes).unwrap();
        let header = EventHeader { position: SourcePosition { epoch: 1, commit, ordinal }, ..event.header };
        writer.write(&EventRef { header, ..event }, &record_key(), &mut json).unwrap();
        let event: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let sequence: Vec<String> = serde_json::from_str(event["source"]["sequence"].as_str().unwrap()).unwrap();
        sequence.iter().map(|part| part.parse().unwrap()).collect::<Vec<u64>>()
    };
    let all = [(9, 1), (9, 2), (9, 10), (10, 1)].map(|(commit, ordinal)| sequence(commit, ordinal));
    assert!(all.is_sorted_by(|a, b| a < b) && all[2] == [9, 10], "{all:?}");
}

#[test]
fn what_would_not_come_back_is_refused_and_named() {
    let source = SourceInfo { version: "1.0".into(), connector: "postgresql".into(), database: "erp".into() };
    let write = |kind: ColumnType, value: Value| {
        let column = Column { name: "c".into(), kind, source_type: String::new(), key_ordinal: None };
        let schema = TableSchema { table: TableId::new("s", "p", "t"), columns: vec![column] };
        let mut bytes = Vec::new();
        RowBuilder::new(&mut bytes).push_value(&value);
        let event = event();
        let header = EventRef::decode(&event).unwrap().header;
        let event = EventRef { header, before: None, after: Some(RowRef(&bytes)), partitions: None };
        EventWriter::new(schema, &source).write(&event, &[], &mut Vec::new()).map_err(|error| error.to_string())
    };
    for (kind, value) in [
        (ColumnType::Decimal, Value::Text("19.90".into())),
        (ColumnType::Text, Value::Int(1)),
        (ColumnType::Int64, Value::UInt(u64::MAX)),
        (ColumnType::UInt64, Value::UInt(7)),
        (ColumnType::TimeTz, Value::TimeTz(0, i32::MAX)),
        (
            ColumnType::Array(Box::new(ColumnType::Int32)),
            Value::Array(ArrayValue { dimensions: vec![1], cells: vec![Value::Missing] }),
        ),
        (
            ColumnType::Array(Box::new(ColumnType::Int32)),
            Value::Array(ArrayValue { dimensions: vec![0], cells: vec![] }),
        ),
    ] {
        let error = write(kind, value).unwrap_err();
        assert!(error.starts_with("column c of s.p.t cannot be written as JSON: "), "{error}");
    }
    // Bytes that are no row at all are refused as a row, before any cell is looked at.
    let torn = Value::Array(ArrayValue { dimensions: vec![2], cells: vec![Value::Null] });
    let error = write(ColumnType::Array(Box::new(ColumnType::Int32)), torn).unwrap_err();
    assert_eq!(error, "a row of s.p.t does not have the 1 readable cells of its schema");
}

#[test]
fn json_that_is_no_event_of_ours_is_refused() {
    let golden = String::from_utf8(fixture("event.v2.json", b"")).unwrap();
    let schema = schema();
    for (from, to, reason) in [
        ("\"op\":\"u\"", "\"op\":\"z\"", "unknown operation"),
        ("\"v\":2", "\"v\":3", "version"),
        ("\"pos\":\"", "\"pos\":\"x", "not a position"),
        ("\"small\":-7", "\"small\":-7.5", "column small"),
        ("\"small\":-7", "\"smal\":-7", "a column that its schema does not have"),
        ("\"yes\":true", "\"yes\":\"true\"", "column yes"),
        ("\"-19.90\"", "\"-19.9O\"", "column amount"),
        ("[[1,null],[3,-4]]", "[[1,null],[3]]", "column list"),
        ("[[1,null],[3,-4]]", "[[1,null],3]", "column list"),
        ("[[1,null],[3,-4]]", "[[],[]]", "column list"),
        ("\"x\":{", "\"y\":{", "block `x` is missing"),
        ("\"schema\":\"", "\"schema\":\"f", "not a fingerprint"),
        ("\"schema\":\"d", "\"schema\":\"e", "other columns"),
        ("}}\n", "}", "not a change event"),
    ] {
        // The last occurrence: `schema` also names the table's schema.
        let at = golden.rfind(from).unwrap();
        let torn = format!("{}{to}{}", &golden[..at], &golden[at + from.len()..]);
        let error = from_json(torn.as_bytes(), Some(&schema)).unwrap_err().to_string();
        assert!(error.contains(reason), "{from} -> {to}: {error}");
    }
}
