//! Text to values.

use super::{MICROS_PER_DAY, MICROS_PER_SECOND, days_from_civil, month_length};
use crate::value::Interval;

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
                let micros = if negative { seconds.checked_sub(fraction) } else { seconds.checked_add(fraction) };
                interval.micros = interval.micros.checked_add(micros?)?;
            }
            _ => return None,
        }
    }
    (parts > 0).then_some(interval)
}
