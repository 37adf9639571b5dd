use bigdecimal::num_bigint::Sign;
use bigdecimal::{BigDecimal, RoundingMode};
use headwater_schemas::DecimalSum;
use proptest::prelude::*;

use super::{check, values};

fn scale(text: &str) -> usize {
    text.find('.').map_or(0, |at| text.len() - at - 1)
}

#[test]
fn sums_are_exact_and_do_not_depend_on_order() {
    let finite = values::decimal().prop_filter("finite", |text| text.bytes().any(|b| b.is_ascii_digit()));
    check("sums_are_exact", 1000, prop::collection::vec(finite, 1..8), |numbers| {
        let (mut forth, mut back) = (DecimalSum::default(), DecimalSum::default());
        numbers.iter().for_each(|number| forth.add_decimal(number).unwrap());
        numbers.iter().rev().for_each(|number| back.add_decimal(number).unwrap());
        prop_assert_eq!(forth.to_text(), back.to_text());
        prop_assert_eq!(forth.average(), back.average());

        let exact: BigDecimal = numbers.iter().map(|number| number.parse::<BigDecimal>().unwrap()).sum();
        prop_assert_eq!(forth.to_text().parse::<BigDecimal>().unwrap(), exact.clone());
        let places = numbers.iter().map(|number| scale(number)).max().unwrap_or(0);
        prop_assert_eq!(scale(&forth.to_text()), places);

        // Exact division may not end: enough digits that only an exact half rounds as one.
        let count = BigDecimal::from(numbers.len() as u64);
        let mean = exact.with_prec(400) / count;
        let average = forth.average().unwrap();
        prop_assert!(scale(&average) >= places, "{}", average);
        let digits = average.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
        prop_assert!(digits >= 16 || mean.sign() == Sign::NoSign, "{}", average);
        let rounded = mean.with_scale_round(scale(&average) as i64, RoundingMode::HalfUp);
        prop_assert_eq!(average.parse::<BigDecimal>().unwrap(), rounded);
        Ok(())
    });
}
