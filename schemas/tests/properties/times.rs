use headwater_schemas::{ColumnType, Value, temporal};
use proptest::prelude::*;

use super::{check, values};

#[test]
fn times_are_parsed_as_they_were_written() {
    use ColumnType::*;
    let kinds = vec![Date, Time, TimeTz, Timestamp, TimestampTz, Interval, Uuid];
    let cases = prop::sample::select(kinds).prop_flat_map(|kind| (values::value(&kind), Just(kind)));
    check("times_are_parsed_as_they_were_written", 3000, cases, |(value, kind)| {
        let mut text = String::new();
        temporal::format_into(&mut text, value.scalar().unwrap());
        prop_assert_eq!(Value::parse(&text, &kind), Ok(value), "{}", text);
        Ok(())
    });
}

#[test]
fn what_only_looks_like_a_time_is_refused() {
    use ColumnType::*;
    for (kind, text) in [
        (Date, "2026-02-30"),
        (Date, "2026-13-01"),
        (Date, "2026-1-1"),
        (Date, "5881580-07-11"),
        (Timestamp, "2026-01-01T24:00:01"),
        (Timestamp, "2026-01-01T00:00:00Z"),
        (TimestampTz, "2026-01-01T00:00:00.1234567Z"),
        (TimestampTz, "294247-01-10T04:00:54.775807Z"),
        (TimestampTz, "2026-01-01T00:00:00+"),
        (Time, "12:60:00"),
        (Time, "12"),
        (Interval, "PT1.-5S"),
        (Interval, "P1"),
        (Interval, "1 day"),
        (Uuid, "00000000-0000-0000-0000-00000000000g"),
        (Float64, "1e400"),
    ] {
        assert!(Value::parse(text, &kind).is_err(), "{text}");
    }
}
