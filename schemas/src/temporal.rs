//! Dates, times, instants, intervals and UUIDs as text, over the range databases allow: PostgreSQL's years reach from
//! 4714 BC to 294276, which no calendar crate covers, so the civil calendar is computed here. Microseconds since 1970 in
//! 64 bits end in the year 294247; the 29 years beyond cannot be represented and are refused.
//!
//! Written form is ISO 8601: astronomical years (1 BC is `0000`, 2 BC `-0001`), `+` before years past 9999, no trailing
//! zeros in fractions of a second, `Z` for instants, `infinity` and `-infinity` as PostgreSQL spells them.

use std::fmt::Write;

use crate::value::{Interval, ValueRef};

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

/// Appends the ISO 8601 form of a date, time, timestamp, interval, or the hyphenated form of a UUID. Other values have
/// no such form and append nothing.
pub fn format_into(out: &mut String, value: ValueRef<'_>) {
    match value {
        ValueRef::Date(i32::MAX) | ValueRef::Timestamp(i64::MAX) | ValueRef::TimestampTz(i64::MAX) => {
            out.push_str("infinity");
        }
        ValueRef::Date(i32::MIN) | ValueRef::Timestamp(i64::MIN) | ValueRef::TimestampTz(i64::MIN) => {
            out.push_str("-infinity");
        }
        ValueRef::Date(days) => format_date(out, i64::from(days)),
        ValueRef::Time(micros) => format_time(out, micros),
        ValueRef::TimeTz(micros, zone) => {
            format_time(out, micros);
            format_zone(out, zone);
        }
        ValueRef::Timestamp(micros) => format_timestamp(out, micros),
        ValueRef::TimestampTz(micros) => {
            format_timestamp(out, micros);
            out.push('Z');
        }
        ValueRef::Interval(interval) => format_interval_into(out, interval),
        ValueRef::Uuid(bytes) => out.push_str(&format_uuid(&bytes)),
        _ => {}
    }
}

fn push_digits(out: &mut String, n: i64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(n);
    for _ in digits.len()..width {
        out.push('0');
    }
    out.push_str(digits);
}

fn format_date(out: &mut String, days: i64) {
    let (year, month, day) = civil_from_days(days);
    if year < 0 {
        out.push('-');
    } else if year > 9999 {
        out.push('+');
    }
    push_digits(out, year.abs(), 4);
    out.push('-');
    push_digits(out, month, 2);
    out.push('-');
    push_digits(out, day, 2);
}

/// MySQL's times go below zero: the sign then stands before all.
fn format_time(out: &mut String, micros: i64) {
    if micros < 0 {
        out.push('-');
    }
    let magnitude = micros.unsigned_abs();
    let seconds = (magnitude / 1_000_000) as i64;
    push_digits(out, seconds / 3600, 2);
    out.push(':');
    push_digits(out, seconds / 60 % 60, 2);
    out.push(':');
    push_digits(out, seconds % 60, 2);
    push_fraction(out, (magnitude % 1_000_000) as i64);
}

fn push_fraction(out: &mut String, micros: i64) {
    if micros != 0 {
        out.push('.');
        push_digits(out, micros, 6);
        while out.ends_with('0') {
            out.pop();
        }
    }
}

fn format_timestamp(out: &mut String, micros: i64) {
    format_date(out, micros.div_euclid(MICROS_PER_DAY));
    out.push('T');
    format_time(out, micros.rem_euclid(MICROS_PER_DAY));
}

fn format_zone(out: &mut String, zone: i32) {
    out.push(if zone < 0 { '-' } else { '+' });
    let zone = i64::from(zone).abs();
    push_digits(out, zone / 3600, 2);
    out.push(':');
    push_digits(out, zone / 60 % 60, 2);
    if zone % 60 != 0 {
        out.push(':');
        push_digits(out, zone % 60, 2);
    }
}

pub(crate) fn format_uuid(bytes: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        write!(out, "{byte:02x}").expect("writing to a String cannot fail");
    }
    out
}

pub(crate) fn format_interval_into(out: &mut String, interval: Interval) {
    let Interval { months, days, micros } = interval;
    if (months, days, micros) == (0, 0, 0) {
        out.push_str("PT0S");
        return;
    }
    out.push('P');
    for (n, unit) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if n != 0 {
            push_digits(out, i64::from(n), 0);
            out.push(unit);
        }
    }
    if micros != 0 {
        out.push('T');
        let sign = if micros < 0 { "-" } else { "" };
        let total = micros.unsigned_abs();
        let (seconds, fraction) = (total / 1_000_000, (total % 1_000_000) as i64);
        for (n, unit) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
            if n != 0 {
                write!(out, "{sign}{n}{unit}").expect("writing to a String cannot fail");
            }
        }
        if seconds % 60 != 0 || fraction != 0 {
            write!(out, "{sign}{}", seconds % 60).expect("writing to a String cannot fail");
            push_fraction(out, fraction);
            out.push('S');
        }
    }
}

/// Reads digits off the front: at least `min`, at most `max` of them.
fn digits(text: &mut &str, min: usize, max: usize) -> Option<i64> {
    let count = text.bytes().take(max).take_while(u8::is_ascii_digit).count();
    if count < min {
        return None;
    }
    let (head, rest) = text.split_at(count);
    *text = rest;
    head.parse().ok()
}

fn expect(text: &mut &str, what: char) -> Option<()> {
    *text = text.strip_prefix(what)?;
    Some(())
}

/// Takes a date off the front. `bc` says that the whole text ended in ` BC`.
fn date_part(text: &mut &str, bc: bool) -> Option<i64> {
    let negative = text.starts_with('-');
    if negative || text.starts_with('+') {
        *text = &text[1..];
    }
    let year = digits(text, 4, 9)?;
    let year = if bc {
        1 - year
    } else if negative {
        -year
    } else {
        year
    };
    expect(text, '-')?;
    let month = digits(text, 2, 2)?;
    expect(text, '-')?;
    let day = digits(text, 2, 2)?;
    ((1..=12).contains(&month) && (1..=month_length(year, month)).contains(&day))
        .then(|| days_from_civil(year, month, day))
}

fn time_part(text: &mut &str) -> Option<i64> {
    let negative = text.starts_with('-');
    if negative {
        *text = &text[1..];
    }
    let hours = digits(text, 2, 10)?;
    expect(text, ':')?;
    let minutes = digits(text, 2, 2)?;
    let seconds = match text.strip_prefix(':') {
        Some(rest) => {
            *text = rest;
            digits(text, 2, 2)?
        }
        None => 0,
    };
    let mut micros = 0;
    if let Some(rest) = text.strip_prefix('.') {
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 || count > 6 {
            return None;
        }
        let (fraction, after) = rest.split_at(count);
        micros = fraction.parse::<i64>().ok()? * 10i64.pow(6 - count as u32);
        *text = after;
    }
    if minutes >= 60 || seconds > 60 {
        return None;
    }
    // Summed with its sign and in 128 bits, so that the smallest of all times can be read too.
    let sign = if negative { -1 } else { 1 };
    let seconds = i128::from(hours * 3600 + minutes * 60 + seconds);
    i64::try_from(sign * (seconds * i128::from(MICROS_PER_SECOND) + i128::from(micros))).ok()
}

/// Offset in seconds east of UTC.
fn zone_part(text: &mut &str) -> Option<i32> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        *text = rest;
        return Some(0);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    *text = &text[1..];
    let mut seconds = digits(text, 2, 2)? * 3600;
    for unit in [60, 1] {
        let rest = text.strip_prefix(':').unwrap_or(text);
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            *text = rest;
            seconds += digits(text, 2, 2)? * unit;
        }
    }
    i32::try_from(sign * seconds).ok()
}

fn without_era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// Days since 1970-01-01; `infinity` is `i32::MAX`, and the date that would be that number is refused.
pub fn parse_date(text: &str) -> Option<i32> {
    match text {
        "infinity" => return Some(i32::MAX),
        "-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let (mut text, bc) = without_era(text);
    let days = i32::try_from(date_part(&mut text, bc)?).ok()?;
    (text.is_empty() && days != i32::MAX && days != i32::MIN).then_some(days)
}

/// Microseconds since midnight; hours above 24 and times below zero are allowed, as MySQL has them.
pub fn parse_time(mut text: &str) -> Option<i64> {
    let micros = time_part(&mut text)?;
    text.is_empty().then_some(micros)
}

/// Microseconds since midnight and offset in seconds east of UTC.
pub fn parse_time_tz(mut text: &str) -> Option<(i64, i32)> {
    let micros = time_part(&mut text)?;
    let zone = zone_part(&mut text)?;
    text.is_empty().then_some((micros, zone))
}

/// Takes a date, or a date and a time of that day, off the front. In 128 bits, because the first day of the range begins
/// before the range does.
fn date_and_time(text: &mut &str, bc: bool) -> Option<i128> {
    let midnight = i128::from(date_part(text, bc)?) * i128::from(MICROS_PER_DAY);
    if text.is_empty() {
        return Some(midnight);
    }
    *text = text.strip_prefix(['T', ' '])?;
    let time = time_part(text).filter(|time| (0..=MICROS_PER_DAY).contains(time))?;
    Some(midnight + i128::from(time))
}

/// Microseconds of a finite instant.
fn finite(micros: i128) -> Option<i64> {
    i64::try_from(micros).ok().filter(|micros| *micros != i64::MAX && *micros != i64::MIN)
}

fn infinite(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

/// Microseconds since 1970-01-01T00:00:00; a date alone is its midnight.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    if let Some(infinite) = infinite(text) {
        return Some(infinite);
    }
    let (mut text, bc) = without_era(text);
    let micros = date_and_time(&mut text, bc)?;
    if text.is_empty() { finite(micros) } else { None }
}

/// Microseconds since 1970-01-01T00:00:00Z; a text without zone is taken as UTC.
pub fn parse_timestamp_tz(text: &str) -> Option<i64> {
    if let Some(infinite) = infinite(text) {
        return Some(infinite);
    }
    let (mut text, bc) = without_era(text);
    let micros = date_and_time(&mut text, bc)?;
    let zone = if text.is_empty() { 0 } else { zone_part(&mut text)? };
    if text.is_empty() { finite(micros - i128::from(zone) * i128::from(MICROS_PER_SECOND)) } else { None }
}

/// An ISO 8601 duration, as PostgreSQL writes it with `intervalstyle = iso_8601`.
pub fn parse_interval(text: &str) -> Option<Interval> {
    let mut rest = text.strip_prefix('P')?;
    let mut interval = Interval::default();
    let mut in_time = false;
    let mut parts = 0;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('T') {
            in_time = true;
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !matches!(c, '-' | '+' | '.' | '0'..='9'))?;
        let (number, unit) = (&rest[..end], &rest[end..]);
        let unit = unit.chars().next()?;
        rest = &rest[end + unit.len_utf8()..];
        parts += 1;
        let whole = || number.parse::<i64>().ok();
        let narrow = |n: i64| i32::try_from(n).ok();
        match (in_time, unit) {
            (false, 'Y') => interval.months = interval.months.checked_add(narrow(whole()?.checked_mul(12)?)?)?,
            (false, 'M') => interval.months = interval.months.checked_add(narrow(whole()?)?)?,
            (false, 'W') => interval.days = interval.days.checked_add(narrow(whole()?.checked_mul(7)?)?)?,
            (false, 'D') => interval.days = interval.days.checked_add(narrow(whole()?)?)?,
            (true, 'H') => interval.micros = interval.micros.checked_add(whole()?.checked_mul(3_600_000_000)?)?,
            (true, 'M') => interval.micros = interval.micros.checked_add(whole()?.checked_mul(60_000_000)?)?,
            (true, 'S') => {
                let negative = number.starts_with('-');
                let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
                if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let seconds = seconds.parse::<i64>().ok()?.checked_mul(MICROS_PER_SECOND)?;
                let fraction = if fraction.is_empty() {
                    0
                } else {
                    fraction.parse::<i64>().ok()? * 10i64.pow(6 - fraction.len() as u32)
                };
                let micros = if negative { seconds - fraction } else { seconds + fraction };
                interval.micros = interval.micros.checked_add(micros)?;
            }
            _ => return None,
        }
    }
    (parts > 0).then_some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
