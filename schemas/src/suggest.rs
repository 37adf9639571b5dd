//! "Did you mean": the nearest correct name for a mistyped one.

/// Longest name that is compared, in characters. Whoever sends more has not mistyped a name, and the work grows with the
/// product of the lengths.
const GIVEN_MAX: usize = 64;

/// The candidate nearest to `given`, if one is near enough that a person could have meant it.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.chars().nth(GIVEN_MAX).is_some() {
        return None;
    }
    let (lower, given_length) = (given.to_lowercase(), given.chars().count());
    let near = |name: &'a str| {
        let name_length = name.chars().count();
        let length = name_length.max(given_length);
        let distance_max = length.div_ceil(3);
        // As many edits as the lengths differ by are needed at least.
        if name_length.abs_diff(given_length) > distance_max {
            return None;
        }
        let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
        (distance <= distance_max && distance < length).then_some((distance, name))
    };
    candidates.into_iter().filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// What to tell whoever gave a name that is none of `names`: the nearest of them, or all, or that there are none.
pub fn suggestion<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match (nearest(given, names.iter().copied()), names.as_slice()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "there is none at all".to_string(),
        (None, [only]) => format!("there is only `{only}`"),
        (None, all) => format!("there are {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{nearest, suggestion};

    #[test]
    fn whoever_gives_a_wrong_name_is_told_the_right_ones() {
        assert_eq!(suggestion("invoce", ["customer", "invoice"]), "did you mean `invoice`?");
        assert_eq!(suggestion("x", ["customer", "invoice"]), "there are customer, invoice");
        assert_eq!(suggestion("x", ["customer"]), "there is only `customer`");
        assert_eq!(suggestion("x", []), "there is none at all");
    }

    #[test]
    fn only_what_a_person_could_have_meant_is_suggested() {
        let words = ["status", "total", "id", "issued_on"];
        for (given, wanted) in [
            ("stauts", Some("status")),
            ("TOTAL", Some("total")),
            ("issuedon", Some("issued_on")),
            ("idd", Some("id")),
            ("x", None),
            ("customer", None),
        ] {
            assert_eq!(nearest(given, words), wanted, "{given}");
        }
    }

    #[test]
    fn what_no_person_has_typed_is_compared_with_nothing() {
        let name = "é".repeat(64);
        let shorter = "é".repeat(63);
        assert_eq!(nearest(&shorter, [name.as_str()]), Some(name.as_str()));
        assert_eq!(nearest(&name, [shorter.as_str()]), Some(shorter.as_str()));
        let longer = "é".repeat(65);
        assert_eq!(nearest(&longer, [name.as_str()]), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), ["status", "x"]), None);
        let candidate = "x".repeat(1 << 20);
        assert_eq!(nearest("x", [candidate.as_str(), "xy"]), Some("xy"), "nor with what is much longer");
    }
}
