//! Random types, values, schemas and rows.

use headwater_schemas::{ArrayValue, Column, ColumnType, Interval, RowBuilder, RowRef, TableId, TableSchema, Value};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) fn scalar_kind() -> impl Strategy<Value = ColumnType> {
    use ColumnType::*;
    prop::sample::select(vec![
        Bool,
        Int32,
        Int64,
        UInt64,
        Decimal,
        Float32,
        Float64,
        Text,
        Bytes,
        Date,
        Time,
        TimeTz,
        Timestamp,
        TimestampTz,
        Interval,
        Uuid,
        Json,
        Enum,
        Other,
    ])
}

pub(crate) fn kind() -> impl Strategy<Value = ColumnType> {
    prop_oneof![4 => scalar_kind(), 1 => scalar_kind().prop_map(|kind| ColumnType::Array(Box::new(kind)))]
}

/// Text with the characters that codecs stumble over.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let sharp = prop::sample::select(vec!['\0', '\u{1}', '"', '\\', '~', '%', '\n', '\u{2028}', '\u{ff}', '😀', '{']);
    vec(prop_oneof![prop::char::range('a', 'e'), sharp, any::<char>()], 0..8)
        .prop_map(|letters| letters.into_iter().collect())
}

pub(crate) fn decimal() -> impl Strategy<Value = String> {
    let digits = |range| vec(prop::char::range('0', '9'), range).prop_map(String::from_iter);
    let finite =
        (any::<bool>(), digits(1..45), prop::option::of(digits(1..30))).prop_map(|(minus, whole, fraction)| {
            let sign = if minus { "-" } else { "" };
            fraction.map_or(format!("{sign}{whole}"), |fraction| format!("{sign}{whole}.{fraction}"))
        });
    let short = (-200i64..200, 0u32..4).prop_map(|(n, zeros)| {
        format!("{}{}.{:02}{}", if n < 0 { "-" } else { "" }, n.abs() / 100, n.abs() % 100, "0".repeat(zeros as usize))
    });
    let zero = (1usize..40).prop_map(|places| format!("0.{}", "0".repeat(places)));
    let special = prop::sample::select(vec!["NaN", "Infinity", "-Infinity", "0", "-0", "-0.0"]);
    prop_oneof![3 => finite, 3 => short, 1 => zero, 1 => special.prop_map(String::from)]
}

pub(crate) fn float64() -> impl Strategy<Value = f64> {
    let special =
        [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1];
    prop_oneof![prop::sample::select(special.to_vec()), any::<f64>().prop_filter("one NaN", |n| !n.is_nan())]
}

pub(crate) fn float32() -> impl Strategy<Value = f32> {
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, f32::MAX, 1e-45, 0.1];
    prop_oneof![prop::sample::select(special.to_vec()), any::<f32>().prop_filter("one NaN", |n| !n.is_nan())]
}

fn int64() -> impl Strategy<Value = i64> {
    let edge = 1i64 << 53;
    let special = vec![0, 1, -1, i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1, edge, edge + 1, -edge, -edge - 1];
    prop_oneof![prop::sample::select(special), any::<i64>(), -1000i64..1000]
}

/// A value that a column of this type may hold, not null.
pub(crate) fn value(kind: &ColumnType) -> BoxedStrategy<Value> {
    use ColumnType as C;
    let instant = || prop_oneof![int64(), -10_000_000_000_000_000i64..10_000_000_000_000_000];
    match kind {
        C::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        C::Int32 => any::<i32>().prop_map(|n| Value::Int(n.into())).boxed(),
        C::Int64 => int64().prop_map(Value::Int).boxed(),
        C::UInt64 => prop_oneof![Just(u64::MAX), Just(1 << 63), any::<u64>()]
            .prop_map(|n| i64::try_from(n).map_or(Value::UInt(n), Value::Int))
            .boxed(),
        C::Decimal => decimal().prop_map(Value::Decimal).boxed(),
        C::Float32 => float32().prop_map(Value::Float32).boxed(),
        C::Float64 => float64().prop_map(Value::Float64).boxed(),
        C::Text | C::Other => text().prop_map(Value::Text).boxed(),
        C::Enum => text().prop_map(Value::Enum).boxed(),
        C::Bytes => vec(any::<u8>(), 0..9).prop_map(Value::Bytes).boxed(),
        C::Date => prop_oneof![
            prop::sample::select(vec![i32::MAX, i32::MIN, i32::MAX - 1, i32::MIN + 1]),
            any::<i32>(),
            -800_000i32..40_000
        ]
        .prop_map(Value::Date)
        .boxed(),
        C::Time => prop_oneof![0i64..=86_400_000_000, int64()].prop_map(Value::Time).boxed(),
        C::TimeTz => (0i64..=86_400_000_000, -57_599i32..=57_599).prop_map(|(t, z)| Value::TimeTz(t, z)).boxed(),
        C::Timestamp => instant().prop_map(Value::Timestamp).boxed(),
        C::TimestampTz => instant().prop_map(Value::TimestampTz).boxed(),
        C::Interval => (any::<i32>(), any::<i32>(), int64())
            .prop_map(|(months, days, micros)| Value::Interval(Interval { months, days, micros }))
            .boxed(),
        C::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        C::Json => prop::sample::select(vec!["null", "{}", " { \"a\" : 1.0 , \"a\":2 }", "[1e400,\n\"\\u0000\"]", "7"])
            .prop_map(|text| Value::Json(text.into()))
            .boxed(),
        C::Array(element) => {
            let cell = prop_oneof![5 => value(element), 1 => Just(Value::Null)].boxed();
            vec(1u32..4, 0..4)
                .prop_flat_map(move |dimensions| {
                    let count = if dimensions.is_empty() { 0 } else { dimensions.iter().product::<u32>() as usize };
                    (Just(dimensions), vec(cell.clone(), count))
                })
                .prop_map(|(dimensions, cells)| Value::Array(ArrayValue { dimensions, cells }))
                .boxed()
        }
    }
}

/// A value of any type.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![9 => kind().prop_flat_map(|kind| value(&kind)), 1 => Just(Value::Null)]
}

/// Columns of any types, of which some are the key.
pub(crate) fn schema() -> impl Strategy<Value = TableSchema> {
    vec((text(), kind(), any::<bool>()), 1..7).prop_map(|columns| {
        let keys = columns.iter().filter(|(_, _, key)| *key).count() as u16;
        let mut next = keys;
        let columns = columns.into_iter().enumerate().map(|(at, (name, kind, key))| Column {
            name: format!("{at}{name}").into(),
            kind,
            source_type: "numeric(12,2)".into(),
            // From the last to the first, so that key order is not column order.
            key_ordinal: key.then(|| {
                next -= 1;
                next
            }),
        });
        TableSchema { table: TableId::new("billing", "public", "odd \"name\""), columns: columns.collect() }
    })
}

/// The cells of a row; of columns outside the key some are missing, and with `key_only` all.
pub(crate) fn cells(schema: &TableSchema, key_only: bool) -> BoxedStrategy<Vec<Value>> {
    let cells: Vec<BoxedStrategy<Value>> = schema
        .columns
        .iter()
        .map(|column| match (column.key_ordinal, key_only) {
            (Some(_), _) => value(&column.kind),
            (None, true) => Just(Value::Missing).boxed(),
            (None, false) => {
                prop_oneof![6 => value(&column.kind), 1 => Just(Value::Null), 1 => Just(Value::Missing)].boxed()
            }
        })
        .collect();
    cells.boxed()
}

/// The row with its missing cells lost where the bit of their column in `chosen` is set.
pub(crate) fn lose(row: &[u8], chosen: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, cell) in RowRef(row).raw_cells().enumerate() {
        if RowRef(cell).has_missing() && chosen >> at & 1 == 1 {
            RowBuilder::new(&mut bytes).push_lost();
        } else {
            bytes.extend_from_slice(cell);
        }
    }
    bytes
}

pub(crate) fn row(cells: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut row = RowBuilder::new(&mut bytes);
    cells.iter().for_each(|cell| row.push_value(cell));
    bytes
}
