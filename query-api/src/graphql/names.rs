//! Names of the schema: readable, stable, and never the same twice.

use std::collections::BTreeSet;

/// Type names that belong to the language or to every schema made here.
const TYPES_TAKEN: [&str; 32] = [
    "Query",
    "Mutation",
    "Subscription",
    "Int",
    "Float",
    "String",
    "Boolean",
    "ID",
    "PageInfo",
    "BigInt",
    "Decimal",
    "Bytes",
    "Date",
    "Time",
    "TimeTz",
    "LocalDateTime",
    "DateTime",
    "Duration",
    "UUID",
    "JSON",
    "IntFilter",
    "FloatFilter",
    "StringFilter",
    "BooleanFilter",
    "BigIntFilter",
    "DecimalFilter",
    "BytesFilter",
    "DateFilter",
    "TimeFilter",
    "TimeTzFilter",
    "LocalDateTimeFilter",
    "DateTimeFilter",
];

/// The names given so far in one name space.
pub(super) struct Taken(BTreeSet<String>);

impl Taken {
    /// A name space with nothing in it.
    pub(super) fn empty() -> Self {
        Self(BTreeSet::new())
    }

    /// The name space of types.
    pub(super) fn types() -> Self {
        let more = ["DurationFilter", "UUIDFilter", "JSONFilter"];
        Self(TYPES_TAKEN.into_iter().chain(more).map(Into::into).collect())
    }

    /// Takes `wanted`, or when it is gone `wanted` with `suffix`, then with a number.
    pub(super) fn claim(&mut self, wanted: String, suffix: &str) -> String {
        let mut candidate = wanted.clone();
        let mut number = 1;
        while !self.0.insert(candidate.clone()) {
            candidate = if number == 1 { format!("{wanted}{suffix}") } else { format!("{wanted}{suffix}{number}") };
            number += 1;
        }
        candidate
    }
}

/// `customer_account` as `CustomerAccount`. Letters that no GraphQL name can hold are left out.
pub(super) fn type_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.extend(letters);
    }
    if !out.starts_with(|c: char| c.is_ascii_alphabetic()) {
        out.insert(0, 'T');
    }
    out
}

/// `customer_account` as `customerAccount`.
pub(crate) fn field_name(name: &str) -> String {
    let mut out = type_name(name);
    if let Some(first) = out.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    out
}

/// A path of an index as one name: `invoices.status` as `invoices_status`.
pub(super) fn path_name(path: &str) -> String {
    path.replace('.', "_")
}

/// The name of many: `customerAccount` as `customerAccounts`. A name that looks plural already gets `List`.
pub(crate) fn plural(name: &str) -> String {
    let before_last = name.len().checked_sub(2).map(|at| name.as_bytes()[at]);
    let vowel = before_last.is_some_and(|b| b"aeiou".contains(&b));
    if name.ends_with("ss") || name.ends_with("us") || name.ends_with("is") || name.ends_with(['x', 'z']) {
        format!("{name}es")
    } else if name.ends_with('s') {
        format!("{name}List")
    } else if name.ends_with("ch") || name.ends_with("sh") {
        format!("{name}es")
    } else if name.ends_with('y') && !vowel {
        format!("{}ies", &name[..name.len() - 1])
    } else {
        format!("{name}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_people_write_them() {
        assert_eq!(type_name("customer_account"), "CustomerAccount");
        assert_eq!(field_name("customer_account"), "customerAccount");
        assert_eq!(type_name("2nd"), "T2nd");
        for (one, many) in [
            ("customerAccount", "customerAccounts"),
            ("category", "categories"),
            ("day", "days"),
            ("status", "statuses"),
            ("address", "addresses"),
            ("invoices", "invoicesList"),
            ("branch", "branches"),
        ] {
            assert_eq!(plural(one), many);
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let mut taken = Taken::types();
        assert_eq!(taken.claim("Query".into(), "Document"), "QueryDocument");
        assert_eq!(taken.claim("Query".into(), "Document"), "QueryDocument2");
        assert_eq!(taken.claim("Query".into(), "Document"), "QueryDocument3");
        assert_eq!(taken.claim("Invoice".into(), "Document"), "Invoice");
    }
}
