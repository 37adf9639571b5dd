//! Dates, times, instants, intervals and UUIDs as text, over the range databases allow: PostgreSQL's years reach from
//! 4714 BC to 294276, which no calendar crate covers, so the civil calendar is computed here. Microseconds since 1970 in
//! 64 bits end in the year 294247; the 29 years beyond cannot be represented and are refused.
//!
//! Written form is ISO 8601: astronomical years (1 BC is `0000`, 2 BC `-0001`), `+` before years past 9999, no trailing
//! zeros in fractions of a second, `Z` for instants, `infinity` and `-infinity` as PostgreSQL spells them.

mod format;
mod parse;

pub use format::format_into;
pub(crate) use format::format_uuid;
pub use parse::{parse_date, parse_interval, parse_time, parse_time_tz, parse_timestamp, parse_timestamp_tz};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueRef;

    fn text(value: ValueRef<'_>) -> String {
        let mut out = String::new();
        format_into(&mut out, value);
        out
    }

    #[test]
    fn dates_and_times_round_trip_over_the_whole_range() {
        for (written, parsed) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("0000-12-31", -719_163),
            ("-4713-11-24", -2_440_588),
            ("infinity", i32::MAX),
        ] {
            assert_eq!(parse_date(written), Some(parsed), "{written}");
            assert_eq!(text(ValueRef::Date(parsed)), written);
        }
        assert_eq!(parse_date("0001-12-31 BC"), Some(-719_163));
        assert_eq!(parse_date("2023-02-29"), None);
        let instant = parse_timestamp_tz("294246-12-31 23:59:59.999999+00").expect("valid");
        assert_eq!(text(ValueRef::TimestampTz(instant)), "+294246-12-31T23:59:59.999999Z");
        assert_eq!(parse_timestamp_tz("+294246-12-31T23:59:59.999999Z"), Some(instant));
        assert_eq!(parse_timestamp_tz("2026-01-01 01:30:00+05:30"), parse_timestamp_tz("2025-12-31T20:00:00Z"));
        assert_eq!(parse_time_tz("10:00:00-03:30"), Some((36_000_000_000, -12_600)));
        assert_eq!(text(ValueRef::Time(86_400_000_000)), "24:00:00");
        for days in (-3_000_000..3_000_000).step_by(997) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }

    #[test]
    fn intervals_round_trip() {
        for written in ["PT0S", "P1Y2M3DT4H5M6.5S", "P-1M", "PT-0.000001S", "P3DT-4H"] {
            let parsed = parse_interval(written).expect("valid");
            assert_eq!(text(ValueRef::Interval(parsed)), written);
        }
        assert_eq!(parse_interval("P"), None);
    }

    #[test]
    fn intervals_that_are_too_long_are_none() {
        let longest = ["PT9223372036854.775807S", "PT-9223372036854.775808S"];
        assert_eq!(longest.map(|it| parse_interval(it).map(|it| it.micros)), [Some(i64::MAX), Some(i64::MIN)]);
        for written in ["PT9223372036854.999999S", "PT-9223372036854.999999S", "PT1H9223372036854S", "P-2147483649D"] {
            assert_eq!(parse_interval(written), None, "{written}");
        }
    }
}
