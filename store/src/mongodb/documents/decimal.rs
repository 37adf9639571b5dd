//! Exact decimals as BSON's Decimal128: 34 digits, in the binary encoding of IEEE 754-2008.

const DIGITS_MAX: usize = 34;
const EXPONENT_MIN: i64 = -6176;
const EXPONENT_MAX: i64 = 6111;

/// The sixteen bytes for a decimal's text, also one with an exponent; `None` when it would not be exact, or is no number.
/// The digits behind the point are kept as they are written, zeros too, where there is room.
pub(super) fn encode(text: &str) -> Option<[u8; 16]> {
    let special = |high: u64| Some((u128::from(high) << 64).to_le_bytes());
    match text {
        "NaN" => return special(0x7c << 56),
        "Infinity" => return special(0x78 << 56),
        "-Infinity" => return special(0xf8 << 56),
        _ => {}
    }
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match magnitude.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (magnitude, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let mut exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
    let mut significant: Vec<u8> = digits().skip_while(|digit| *digit == b'0').collect();
    while significant.last() == Some(&b'0') && (significant.len() > DIGITS_MAX || exponent < EXPONENT_MIN) {
        significant.pop();
        exponent += 1;
    }
    while exponent > EXPONENT_MAX && !significant.is_empty() && significant.len() < DIGITS_MAX {
        significant.push(b'0');
        exponent -= 1;
    }
    if significant.is_empty() {
        exponent = exponent.clamp(EXPONENT_MIN, EXPONENT_MAX);
    }
    if significant.len() > DIGITS_MAX || !(EXPONENT_MIN..=EXPONENT_MAX).contains(&exponent) {
        return None;
    }
    let coefficient = significant.iter().fold(0_u128, |n, digit| n * 10 + u128::from(digit - b'0'));
    let biased = u128::try_from(exponent - EXPONENT_MIN).expect("within its range");
    Some((u128::from(negative) << 127 | biased << 113 | coefficient).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use mongodb::bson::Decimal128;

    use super::*;

    #[test]
    fn what_fits_is_exact() {
        for (text, shown) in [
            ("0", "0"),
            ("19.90", "19.90"),
            ("-0.001", "-0.001"),
            ("9999999999999999999999999999999999", "9999999999999999999999999999999999"),
            ("12345678901234567890.1234567890", "12345678901234567890.1234567890"),
            ("1.0000000000000000000000000000000000000000000", "1.000000000000000000000000000000000"),
            ("NaN", "NaN"),
            ("-Infinity", "-Infinity"),
            ("00012.50", "12.50"),
            ("1e3", "1E+3"),
        ] {
            let bytes = encode(text).unwrap_or_else(|| panic!("{text} fits"));
            assert_eq!(Decimal128::from_bytes(bytes).to_string(), shown, "{text}");
            assert_eq!(shown.parse::<Decimal128>().expect("a decimal").bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_none() {
        for text in [
            "12345678901234567890123456789012345",
            "0.12345678901234567890123456789012345",
            "1e7000",
            "",
            "-",
            ".",
            "x",
            "1x",
        ] {
            assert_eq!(encode(text), None, "{text}");
        }
        assert!(encode(&format!("1{}", "0".repeat(6144))).is_some());
        assert!(encode(&format!("1{}", "0".repeat(6145))).is_none());
    }
}
