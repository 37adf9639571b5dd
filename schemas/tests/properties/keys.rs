use std::cmp::Ordering;

use headwater_schemas::{Value, ValueRef, key};
use proptest::prelude::*;

use super::{check, values};

fn key_of(value: &Value) -> Vec<u8> {
    let mut scratch = Vec::new();
    key::of(value.as_ref(&mut scratch))
}

fn compare(a: &Value, b: &Value) -> Ordering {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    a.as_ref(&mut left).compare(&b.as_ref(&mut right))
}

/// Two values of one type, so that they are often near one another.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    let same = values::kind().prop_flat_map(|kind| (values::value(&kind), values::value(&kind)));
    prop_oneof![3 => same, 1 => (values::any_value(), values::any_value())]
}

#[test]
fn bytes_sort_as_values_compare() {
    check("bytes_sort_as_values_compare", 3000, pair(), |(a, b)| {
        prop_assert_eq!(key_of(&a).cmp(&key_of(&b)), compare(&a, &b));
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        Ok(())
    });
}

#[test]
fn numbers_sort_by_value_whatever_their_type() {
    let number = || prop_oneof![values::decimal(), (-300i64..300).prop_map(|n| n.to_string())];
    check("numbers_sort_by_value", 2000, (number(), number()), |(a, b)| {
        // A second opinion, by arithmetic.
        let (Ok(x), Ok(y)) = (a.parse::<bigdecimal::BigDecimal>(), b.parse::<bigdecimal::BigDecimal>()) else {
            return Ok(());
        };
        prop_assert_eq!(key::of(ValueRef::Decimal(&a)).cmp(&key::of(ValueRef::Decimal(&b))), x.cmp(&y));
        if let Ok(n) = a.parse::<i64>() {
            prop_assert_eq!(key::of(ValueRef::Int(n)), key::of(ValueRef::Decimal(&a)));
        }
        Ok(())
    });
}

#[test]
fn numbers_of_any_size_keep_their_order() {
    let mut sizes: Vec<usize> = (0..80).chain([120, 121, 378, 379, 380, 381, 382, 5_000, 100_000, 131_072]).collect();
    sizes.dedup();
    let large = sizes.iter().map(|zeros| format!("1{}", "0".repeat(*zeros)));
    let small = sizes.iter().rev().take(91).map(|zeros| format!("0.{}1", "0".repeat(*zeros % 16_383)));
    let mut positive: Vec<String> = small.chain(large).collect();
    positive.sort_by(|a, b| headwater_schemas::compare_decimals(a, b));
    positive.dedup();
    for pair in positive.windows(2) {
        let (low, high) = (key::of(ValueRef::Decimal(&pair[0])), key::of(ValueRef::Decimal(&pair[1])));
        assert!(low < high, "{} and {} digits", pair[0].len(), pair[1].len());
        let two = [&low[..], &high[..]].concat();
        assert_eq!(key::split_first(&two), Some((&low[..], &high[..])));
        let (minus_low, minus_high) = (format!("-{}", pair[0]), format!("-{}", pair[1]));
        assert!(key::of(ValueRef::Decimal(&minus_high)) < key::of(ValueRef::Decimal(&minus_low)));
    }
}

#[test]
fn no_key_is_the_beginning_of_another() {
    check("no_key_is_the_beginning_of_another", 3000, pair(), |(a, b)| {
        let (a, b) = (key_of(&a), key_of(&b));
        prop_assert!(a == b || !(a.starts_with(&b) || b.starts_with(&a)));
        Ok(())
    });
}

#[test]
fn keys_of_several_parts_are_split_again() {
    check("keys_of_several_parts_are_split_again", 1000, prop::collection::vec(values::any_value(), 0..6), |parts| {
        let keys: Vec<Vec<u8>> = parts.iter().map(key_of).collect();
        let whole = keys.concat();
        let mut rest = &whole[..];
        for key in &keys {
            let (part, after) = key::split_first(rest).unwrap();
            prop_assert_eq!(part, &key[..]);
            rest = after;
        }
        prop_assert!(rest.is_empty());
        Ok(())
    });
}
