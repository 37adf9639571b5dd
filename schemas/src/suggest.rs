//! "Did you mean": the nearest correct name for a mistyped one.

/// The candidate nearest to `given`, if one is near enough that a person could have meant it.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_lowercase();
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| {
            let length = name.chars().count().max(given.chars().count());
            *distance <= length.div_ceil(3) && *distance < length
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::nearest;

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
}
