//! A page inside a nested array.

use std::ops::Range;

use super::scan::{Torn, elements, members};

/// Elements of an array, as places in the document's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArrayPage {
    /// The elements of the page.
    pub(crate) elements: Vec<Range<usize>>,
    /// Whether there are more behind them.
    pub(crate) has_more: bool,
    /// How many the array has.
    pub(crate) len: usize,
}

/// Up to `limit` elements, from number `start` on, of the array at `path`. Empty where an object on the way is null.
pub(crate) fn array_page(json: &[u8], path: &[&str], start: usize, limit: usize) -> Result<ArrayPage, Torn> {
    let mut page = ArrayPage { elements: Vec::new(), has_more: false, len: 0 };
    let mut at = 0;
    for name in path {
        if json.get(at..at + 4) == Some(b"null") {
            return Ok(page);
        }
        let mut members = members(json, at)?;
        at = loop {
            let member = members.next()?.ok_or(Torn)?;
            if &json[member.name.clone()] == name.as_bytes() {
                break member.value.start;
            }
        };
    }
    let mut elements = elements(json, at)?;
    while let Some(element) = elements.next()? {
        if page.len >= start && page.elements.len() < limit {
            page.elements.push(element);
        }
        page.len += 1;
    }
    page.has_more = start.saturating_add(page.elements.len()) < page.len;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_together_are_the_array() {
        let json = br#"{"a":1,"b":{"c":[1,[2],{"d":3}]},"e":null}"#;
        let page = |start, limit| array_page(json, &["b", "c"], start, limit).expect("whole");
        let texts = |page: &ArrayPage| -> Vec<&[u8]> { page.elements.iter().map(|at| &json[at.clone()]).collect() };
        let first = page(0, 2);
        assert_eq!((texts(&first), first.has_more, first.len), (vec![&b"1"[..], b"[2]"], true, 3));
        let last = page(2, 2);
        assert_eq!((texts(&last), last.has_more), (vec![&br#"{"d":3}"#[..]], false));
        assert_eq!((page(9, 2).elements.len(), page(9, 2).has_more), (0, false));
        assert_eq!(array_page(json, &["e", "c"], 0, 2).expect("whole").len, 0);
        assert_eq!(array_page(json, &["a"], 0, 2), Err(Torn));
        assert_eq!(array_page(json, &["x"], 0, 2), Err(Torn));
    }
}
