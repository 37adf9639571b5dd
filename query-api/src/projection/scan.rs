//! Walks over stored JSON: members of an object, elements of an array. Bytes that are not what the projector writes are
//! an error, never a panic.

use std::ops::Range;

use crate::context::RequestId;
use crate::observe::current;
use crate::problem::Problem;

/// The bytes are not the JSON of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Torn;

impl From<Torn> for Problem {
    fn from(_: Torn) -> Self {
        current(|id| {
            tracing::error!(
                request_id = id.map(RequestId::as_str),
                trace_id = id.and_then(RequestId::trace_id),
                "the stored bytes of a document are not JSON of its shape"
            );
        });
        Self::internal("a stored document is damaged; replay the model")
    }
}

/// One member of an object, as places in the bytes.
pub(super) struct Member {
    /// The name without its quotes.
    pub(super) name: Range<usize>,
    /// The value.
    pub(super) value: Range<usize>,
}

impl Member {
    /// Name and value as they stand.
    pub(super) fn whole(&self) -> Range<usize> {
        self.name.start - 1..self.value.end
    }
}

/// The members of an object, in their order.
pub(super) struct Members<'j> {
    json: &'j [u8],
    at: usize,
    first: bool,
}

/// The members of the object that begins at `at`.
pub(super) fn members(json: &[u8], at: usize) -> Result<Members<'_>, Torn> {
    match json.get(at) {
        Some(b'{') => Ok(Members { json, at: at + 1, first: true }),
        _ => Err(Torn),
    }
}

impl Members<'_> {
    /// The next member; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Torn> {
        let Some(start) = step(self.json, &mut self.at, &mut self.first, b'}')? else { return Ok(None) };
        if self.json.get(start) != Some(&b'"') {
            return Err(Torn);
        }
        let end = string_end(self.json, start)?;
        let colon = blank(self.json, end);
        if self.json.get(colon) != Some(&b':') {
            return Err(Torn);
        }
        let value = blank(self.json, colon + 1);
        let value = value..value_end(self.json, value)?;
        self.at = value.end;
        Ok(Some(Member { name: start + 1..end - 1, value }))
    }
}

/// The elements of an array, in their order.
pub(super) struct Elements<'j> {
    json: &'j [u8],
    at: usize,
    first: bool,
}

/// The elements of the array that begins at `at`.
pub(super) fn elements(json: &[u8], at: usize) -> Result<Elements<'_>, Torn> {
    match json.get(at) {
        Some(b'[') => Ok(Elements { json, at: at + 1, first: true }),
        _ => Err(Torn),
    }
}

impl Elements<'_> {
    /// The place of the next element; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Range<usize>>, Torn> {
        let Some(start) = step(self.json, &mut self.at, &mut self.first, b']')? else { return Ok(None) };
        self.at = value_end(self.json, start)?;
        Ok(Some(start..self.at))
    }
}

/// Where the next item begins; `None` at the closing bracket.
fn step(json: &[u8], at: &mut usize, first: &mut bool, close: u8) -> Result<Option<usize>, Torn> {
    let mut next = blank(json, *at);
    let is_first = std::mem::replace(first, false);
    match json.get(next) {
        Some(byte) if *byte == close => {
            *at = next;
            return Ok(None);
        }
        Some(b',') if !is_first => next = blank(json, next + 1),
        Some(_) if is_first => {}
        _ => return Err(Torn),
    }
    Ok(Some(next))
}

/// The first place at or behind `at` that is not white space: columns of JSON are embedded as their author wrote them.
pub(super) fn blank(json: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = json.get(at) {
        at += 1;
    }
    at
}

/// The place behind the string that begins at `at`.
pub(super) fn string_end(json: &[u8], at: usize) -> Result<usize, Torn> {
    let mut at = at + 1;
    loop {
        let rest = json.get(at..).ok_or(Torn)?;
        let found = memchr::memchr2(b'"', b'\\', rest).ok_or(Torn)?;
        if rest[found] == b'"' {
            return Ok(at + found + 1);
        }
        at += found + 2;
    }
}

/// The place behind the value that begins at `at`.
fn value_end(json: &[u8], at: usize) -> Result<usize, Torn> {
    match json.get(at) {
        Some(b'"') => string_end(json, at),
        Some(b'{' | b'[') => closing(json, at + 1),
        Some(b',' | b'}' | b']' | b':') | None => Err(Torn),
        Some(_) => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            Ok(json[at..].iter().position(ends).map_or(json.len(), |len| at + len))
        }
    }
}

/// The place behind the bracket that closes what is open at `at`.
fn closing(json: &[u8], mut at: usize) -> Result<usize, Torn> {
    let mut depth = 1usize;
    while depth > 0 {
        match json.get(at).ok_or(Torn)? {
            b'"' => {
                at = string_end(json, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_elements_are_found() {
        let json = br#"{"a":1,"b\"":[1,{"c":"]}"}, "x"],"d":{}}"#;
        let mut members = members(json, 0).expect("an object");
        let mut seen = Vec::new();
        while let Some(member) = members.next().expect("whole") {
            seen.push((&json[member.name.clone()], &json[member.value.clone()]));
        }
        let list: &[u8] = br#"[1,{"c":"]}"}, "x"]"#;
        assert_eq!(seen, [(&b"a"[..], &b"1"[..]), (br#"b\""#, list), (b"d", b"{}")]);
        let mut elements = elements(list, 0).expect("an array");
        let mut seen = Vec::new();
        while let Some(element) = elements.next().expect("whole") {
            seen.push(&list[element]);
        }
        assert_eq!(seen, [&b"1"[..], br#"{"c":"]}"}"#, br#""x""#]);
    }

    #[test]
    fn torn_bytes_are_an_error() {
        for json in
            [&b"{"[..], b"{\"a\"", b"{\"a\":", b"{\"a\":1", b"{\"a\":\"\\", b"{\"a\":[1,}", b"{,}", b"{1:2}", b""]
        {
            let whole = members(json, 0).and_then(|mut members| {
                while members.next()?.is_some() {}
                Ok(())
            });
            assert_eq!(whole, Err(Torn), "{}", String::from_utf8_lossy(json));
        }
    }
}
