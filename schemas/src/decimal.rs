//! Exact decimals. A decimal travels as its plain text (`-12.50`, `NaN`, `Infinity`), because copying text is both
//! exact and cheaper than any arithmetic; it becomes a number only where it is compared or summed.

use std::cmp::Ordering;

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};

/// Whether `text` is a decimal in plain notation: optional minus, digits, optional point and digits; or `NaN`,
/// `Infinity`, `-Infinity` as PostgreSQL writes them.
pub fn is_decimal(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity") || {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        !whole.is_empty()
            && !fraction.is_empty()
            && whole.bytes().all(|b| b.is_ascii_digit())
            && fraction.bytes().all(|b| b.is_ascii_digit())
    }
}

/// A finite decimal taken apart: sign, whole digits without leading zeros, fraction digits without trailing zeros.
pub(crate) struct Parts<'a> {
    pub(crate) negative: bool,
    pub(crate) whole: &'a str,
    pub(crate) fraction: &'a str,
}

pub(crate) enum Class<'a> {
    NegativeInfinity,
    Finite(Parts<'a>),
    Infinity,
    NaN,
}

pub(crate) fn classify(text: &str) -> Class<'_> {
    match text {
        "NaN" => Class::NaN,
        "Infinity" => Class::Infinity,
        "-Infinity" => Class::NegativeInfinity,
        _ => {
            let (negative, digits) = match text.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            let whole = whole.trim_start_matches('0');
            let fraction = fraction.trim_end_matches('0');
            let zero = whole.is_empty() && fraction.is_empty();
            Class::Finite(Parts { negative: negative && !zero, whole, fraction })
        }
    }
}

impl Class<'_> {
    fn rank(&self) -> u8 {
        match self {
            Class::NegativeInfinity => 0,
            Class::Finite(_) => 1,
            Class::Infinity => 2,
            Class::NaN => 3,
        }
    }
}

/// Compares by numeric value: `1.0` equals `1.00`. Infinity is above every number and NaN above infinity and equal to
/// itself, as in PostgreSQL.
pub fn compare_decimals(a: &str, b: &str) -> Ordering {
    match (classify(a), classify(b)) {
        (Class::Finite(a), Class::Finite(b)) => {
            let magnitude = |a: &Parts<'_>, b: &Parts<'_>| {
                a.whole
                    .len()
                    .cmp(&b.whole.len())
                    .then_with(|| a.whole.cmp(b.whole))
                    .then_with(|| a.fraction.cmp(b.fraction))
            };
            match (a.negative, b.negative) {
                (false, true) => Ordering::Greater,
                (true, false) => Ordering::Less,
                (false, false) => magnitude(&a, &b),
                (true, true) => magnitude(&b, &a),
            }
        }
        (a, b) => a.rank().cmp(&b.rank()),
    }
}

/// Significant digits that a quotient has at least.
const QUOTIENT_DIGITS: i64 = 16;

/// Digits that PostgreSQL takes together when it estimates the size of a quotient.
const GROUP: usize = 4;

/// A text that should have been a decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number: expected digits with an optional point, NaN or ±Infinity")]
pub struct InvalidDecimal;

/// An exact running sum. Adds in 128-bit integers while the digits fit and in arbitrary precision beyond; the scale of
/// the result is the largest scale added, as SQL's `sum` keeps it.
///
/// ```
/// use headwater_schemas::DecimalSum;
///
/// let mut sum = DecimalSum::default();
/// sum.add_decimal("0.10")?;
/// sum.add_int(2);
/// assert_eq!(sum.to_text(), "2.10");
/// assert_eq!(sum.average().as_deref(), Some("1.0500000000000000"));
/// # Ok::<(), headwater_schemas::InvalidDecimal>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct DecimalSum {
    unscaled: i128,
    scale: u32,
    /// Set once the sum no longer fits; then `unscaled` is unused, and `scale` is still that of the result.
    wide: Option<Box<BigDecimal>>,
    special: Special,
    count: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Special {
    #[default]
    None,
    Infinity,
    NegativeInfinity,
    NaN,
}

impl DecimalSum {
    /// Adds a 64-bit integer.
    pub fn add_int(&mut self, n: i64) {
        self.count += 1;
        self.add_scaled(i128::from(n), 0);
    }

    /// Adds a decimal in plain notation.
    pub fn add_decimal(&mut self, text: &str) -> Result<(), InvalidDecimal> {
        let special = match text {
            "NaN" => Special::NaN,
            "Infinity" => Special::Infinity,
            "-Infinity" => Special::NegativeInfinity,
            _ => Special::None,
        };
        if special != Special::None {
            self.special = match self.special {
                Special::None => special,
                same if same == special => same,
                _ => Special::NaN,
            };
        } else {
            let scale = text.find('.').map_or(0, |at| text.len() - at - 1);
            match parse_unscaled(text).zip(u32::try_from(scale).ok()) {
                Some((unscaled, scale)) => self.add_scaled(unscaled, scale),
                // Only plain notation: `1e999999999` is short to read and long to write out.
                None if !is_decimal(text) => return Err(InvalidDecimal),
                None => {
                    let scale = u32::try_from(scale).map_err(|_| InvalidDecimal)?;
                    self.widen_and_add(&text.parse().map_err(|_| InvalidDecimal)?, scale);
                }
            }
        }
        self.count += 1;
        Ok(())
    }

    fn add_scaled(&mut self, unscaled: i128, scale: u32) {
        if self.wide.is_none() {
            let common = self.scale.max(scale);
            let widened = |n: i128, from: u32| 10i128.checked_pow(common - from).and_then(|f| n.checked_mul(f));
            let sum =
                widened(self.unscaled, self.scale).zip(widened(unscaled, scale)).and_then(|(a, b)| a.checked_add(b));
            if let Some(sum) = sum {
                self.unscaled = sum;
                self.scale = common;
                return;
            }
        }
        self.widen_and_add(&BigDecimal::new(unscaled.into(), i64::from(scale)), scale);
    }

    fn widen_and_add(&mut self, n: &BigDecimal, scale: u32) {
        let (unscaled, own) = (self.unscaled, self.scale);
        let wide = self.wide.get_or_insert_with(|| Box::new(BigDecimal::new(unscaled.into(), i64::from(own))));
        **wide += n;
        // Kept beside the sum: the library treats zeros by rules of its own, and the text of a sum must not depend on the
        // order of adding.
        self.scale = own.max(scale);
    }

    /// How many numbers were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum in plain notation; `0` when nothing was added.
    pub fn to_text(&self) -> String {
        match self.special {
            Special::NaN => "NaN".into(),
            Special::Infinity => "Infinity".into(),
            Special::NegativeInfinity => "-Infinity".into(),
            Special::None => match &self.wide {
                Some(wide) => wide.with_scale(i64::from(self.scale)).to_plain_string(),
                None => plain_text(self.unscaled, self.scale),
            },
        }
    }

    /// The mean as PostgreSQL's `avg` of `numeric` writes it: with at least sixteen significant digits and no fewer digits
    /// after the point than what was added, rounded half away from zero; `None` when nothing was added.
    pub fn average(&self) -> Option<String> {
        if self.count == 0 {
            return None;
        }
        let text = self.to_text();
        let Class::Finite(parts) = classify(&text) else { return Some(text) };
        let sum = match &self.wide {
            Some(wide) => (**wide).clone(),
            None => BigDecimal::new(self.unscaled.into(), i64::from(self.scale)),
        };
        let scale = quotient_scale(&parts, self.count).max(i64::from(self.scale));
        let (unscaled, _) = sum.with_scale(scale).into_bigint_and_exponent();
        let count = BigInt::from(self.count);
        let (quotient, remainder) = (&unscaled / &count, &unscaled % &count);
        let is_away = remainder.magnitude() * 2u8 >= *count.magnitude();
        let step = if unscaled.sign() == Sign::Minus { -1 } else { 1 };
        let rounded = BigDecimal::new(if is_away { quotient + step } else { quotient }, scale);
        Some(rounded.to_plain_string())
    }
}

/// Digits after the point of a quotient, before what the dividend has: `select_div_scale` in PostgreSQL's `numeric.c`. It
/// estimates the quotient's size from the first group of digits of both numbers.
fn quotient_scale(dividend: &Parts<'_>, divisor: u64) -> i64 {
    let divisor = divisor.to_string();
    let (dividend, divisor) = (first_group(dividend.whole, dividend.fraction), first_group(&divisor, ""));
    let smaller = i64::from(dividend.1 <= divisor.1);
    QUOTIENT_DIGITS - (dividend.0 - divisor.0 - smaller) * GROUP as i64
}

/// Where the first group of digits that is not zero stands, in groups from the one before the point, and its value; both 0
/// of zero.
fn first_group(whole: &str, fraction: &str) -> (i64, u32) {
    let value = |digits: &str| digits.bytes().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    if !whole.is_empty() {
        let others = (whole.len() - 1) / GROUP;
        return (others as i64, value(&whole[..whole.len() - others * GROUP]));
    }
    let Some(zeros) = fraction.find(|digit| digit != '0') else { return (0, 0) };
    let start = zeros / GROUP * GROUP;
    let group = &fraction[start..fraction.len().min(start + GROUP)];
    (-1 - (start / GROUP) as i64, value(&format!("{group:0<GROUP$}")))
}

fn parse_unscaled(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut n = 0i128;
    let mut seen_digit = false;
    let mut seen_point = false;
    for byte in digits.bytes() {
        match byte {
            b'0'..=b'9' => {
                seen_digit = true;
                n = n.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
            }
            b'.' if !seen_point => seen_point = true,
            _ => return None,
        }
    }
    seen_digit.then_some(if negative { -n } else { n })
}

fn plain_text(unscaled: i128, scale: u32) -> String {
    let digits = unscaled.unsigned_abs().to_string();
    let scale = scale as usize;
    let padded = if digits.len() <= scale { format!("{digits:0>width$}", width = scale + 1) } else { digits };
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_the_largest_scale_and_never_lose_a_digit() {
        let mut sum = DecimalSum::default();
        for text in ["0.10", "0.2", "-5", "99999999999999999999999999999999999999.001"] {
            sum.add_decimal(text).expect("valid");
        }
        assert_eq!(sum.to_text(), "99999999999999999999999999999999999994.301");
        let mut small = DecimalSum::default();
        small.add_decimal("-0.05").expect("valid");
        assert_eq!(small.to_text(), "-0.05");
        small.add_decimal("NaN").expect("valid");
        assert_eq!(small.to_text(), "NaN");
        assert!(small.add_decimal("1e5x").is_err());
    }

    #[test]
    fn zeros_count_for_the_scale_whatever_is_added_before() {
        let (mut before, mut after) = (DecimalSum::default(), DecimalSum::default());
        let wide = "9".repeat(50);
        for (sum, numbers) in [(&mut before, ["0.000", &wide]), (&mut after, [&wide, "0.000"])] {
            numbers.iter().for_each(|number| sum.add_decimal(number).expect("valid"));
            assert_eq!(sum.to_text(), format!("{wide}.000"));
        }
    }

    /// Each as PostgreSQL 15 answered `SELECT avg(v) FROM (VALUES …) t(v)`.
    #[test]
    fn averages_are_what_postgresql_says() {
        let cases: &[(&[&str], &str)] = &[
            (&["10.00", "10.00", "0.00"], "6.6666666666666667"),
            (&["0.000001", "0.000002"], "0.000001500000000000000000"),
            (&["1", "2"], "1.5000000000000000"),
            (&["0.00", "0"], "0.00000000000000000000"),
            (&["-0.0000000001", "0"], "-0.0000000000500000000000000000"),
            (&["-2.5", "-2.5", "-3"], "-2.6666666666666667"),
            (&["123456789012345678901234567890.12", "1", "1"], "41152263004115226300411522630.71"),
            (&["0.00000000000000000005", "0.00000000000000000000"], "0.000000000000000000025000000000000000"),
            (&["0.0000000000000001", "0.0000000000000002", "0"], "0.000000000000000100000000000000000000"),
            (&["99990000", "1", "1"], "33330000.666666666667"),
            (&["30000", "0", "0"], "10000.0000000000000000"),
            (&["20000", "0", "0"], "6666.6666666666666667"),
            (&["0.00012345", "0.5", "7"], "2.5000411500000000"),
            (&["1000000000000000000000000000000", "1", "1", "1", "1", "1", "1"], "142857142857142857142857142858"),
            (&["1.00000000000000000000000000000000000005", "0"], "0.50000000000000000000000000000000000003"),
            (&["1", "NaN"], "NaN"),
            (&["-Infinity", "1"], "-Infinity"),
        ];
        for (numbers, wanted) in cases {
            let mut sum = DecimalSum::default();
            numbers.iter().for_each(|number| sum.add_decimal(number).expect("valid"));
            assert_eq!(sum.average().as_deref(), Some(*wanted));
        }
    }

    #[test]
    fn comparison_is_numeric() {
        for (a, b, expected) in [
            ("1.0", "1.00", Ordering::Equal),
            ("-0", "0.0", Ordering::Equal),
            ("2", "10", Ordering::Less),
            ("-2", "-10", Ordering::Greater),
            ("0.5", "0.45", Ordering::Greater),
            ("NaN", "Infinity", Ordering::Greater),
            ("-Infinity", "-1", Ordering::Less),
        ] {
            assert_eq!(compare_decimals(a, b), expected, "{a} vs {b}");
        }
    }
}
