//! Values to text.

use std::fmt::Write;

use super::{MICROS_PER_DAY, civil_from_days};
use crate::value::{Interval, ValueRef};

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

fn format_interval_into(out: &mut String, interval: Interval) {
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
