//! What is shown of a document: of each object the members that may be seen, some of them changed, under the names they
//! have for the reader. A member that is not named is left out, whatever it is.

use std::borrow::Cow;

use headwater_schemas::write_json_string;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::scan::{Torn, elements, members};
use crate::channel::Slice;

/// What stands for the part of a text that is not shown.
const COVERED: &str = "****";
/// Characters shown of a text under a partial mask, and how many it must have for that.
const SHOWN: usize = 4;
const SHOWN_FROM: usize = 8;
/// Bytes of a hash that are shown.
const HASH_LEN: usize = 16;

/// The members of an object that are shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    /// As it stands in JSON, without quotes.
    name: Box<[u8]>,
    /// `"name":` as it is written, where that is not its name.
    renamed: Option<Box<[u8]>>,
    how: How,
}

/// How a member is shown.
#[derive(Clone, Debug)]
pub(crate) enum How {
    /// As it is.
    Whole,
    /// The end of its text.
    Partial,
    /// A hash of its value, with a key of its own.
    Hash(Box<Hmac<Sha256>>),
    /// An object, or an array of them, of which these members are shown.
    Below(Shown),
    /// An array of which these elements are shown, and of each of them these members; `None`: all of them.
    Elements(Slice, Option<Shown>),
}

impl Shown {
    /// Shows one more member, under the name `shown_as`.
    pub(crate) fn add(&mut self, name: &str, shown_as: &str, how: How) {
        let quoted = |name: &str| {
            let mut quoted = Vec::with_capacity(name.len() + 3);
            write_json_string(&mut quoted, name);
            quoted
        };
        let own = quoted(name);
        let renamed = (name != shown_as).then(|| {
            let mut new = quoted(shown_as);
            new.push(b':');
            new.into()
        });
        self.members.push(Member { name: own[1..own.len() - 1].into(), renamed, how });
    }

    /// Appends what is shown of the object `json`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, json: &[u8]) -> Result<(), Torn> {
        self.object(out, json, 0)
    }

    fn object(&self, out: &mut Vec<u8>, json: &[u8], at: usize) -> Result<(), Torn> {
        let mut found = members(json, at)?;
        out.push(b'{');
        let start = out.len();
        while let Some(member) = found.next()? {
            let name = &json[member.name.clone()];
            let Some(shown) = self.members.iter().find(|shown| *shown.name == *name) else { continue };
            if out.len() > start {
                out.push(b',');
            }
            match &shown.renamed {
                Some(renamed) => out.extend_from_slice(renamed),
                None => out.extend_from_slice(&json[member.whole().start..member.value.start]),
            }
            shown.how.value(out, &json[..member.value.end], member.value.start)?;
        }
        out.push(b'}');
        Ok(())
    }
}

impl How {
    fn value(&self, out: &mut Vec<u8>, json: &[u8], at: usize) -> Result<(), Torn> {
        let value = &json[at..];
        match self {
            Self::Whole => out.extend_from_slice(value),
            // That there is no value is shown.
            _ if value == b"null" => out.extend_from_slice(value),
            Self::Partial => write_json_string(out, &partial(&text(value)?)),
            Self::Hash(key) => {
                let mac = (**key).clone().chain_update(text(value)?.as_bytes()).finalize().into_bytes();
                out.push(b'"');
                out.extend(mac[..HASH_LEN].iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
                out.push(b'"');
            }
            Self::Below(shown) => match json.get(at) {
                Some(b'{') => shown.object(out, json, at)?,
                Some(b'[') => array(out, json, at, EVERY, Some(shown))?,
                // What should be an object and is none is not shown.
                _ => return Err(Torn),
            },
            Self::Elements(slice, shown) => array(out, json, at, *slice, shown.as_ref())?,
        }
        Ok(())
    }
}

/// Every element.
const EVERY: Slice = Slice { from: 0, to: usize::MAX };

/// Appends some elements of the array at `at`, of each what is shown.
fn array(out: &mut Vec<u8>, json: &[u8], at: usize, slice: Slice, shown: Option<&Shown>) -> Result<(), Torn> {
    let mut items = elements(json, at)?;
    out.push(b'[');
    let mut number = 0;
    // Behind the last one that is shown nothing is read.
    while number < slice.to
        && let Some(item) = items.next()?
    {
        if number >= slice.from {
            if number > slice.from {
                out.push(b',');
            }
            match shown {
                Some(shown) => shown.object(out, json, item.start)?,
                None => out.extend_from_slice(&json[item]),
            }
        }
        number += 1;
    }
    out.push(b']');
    Ok(())
}

/// The text of a value: of a string what it says, of others their JSON.
fn text(value: &[u8]) -> Result<Cow<'_, str>, Torn> {
    if value.first() == Some(&b'"') {
        return serde_json::from_slice::<String>(value).map(Cow::Owned).map_err(|_| Torn);
    }
    std::str::from_utf8(value).map(Cow::Borrowed).map_err(|_| Torn)
}

fn partial(text: &str) -> String {
    let letters = text.chars().count();
    let shown = if letters >= SHOWN_FROM { letters - SHOWN } else { letters };
    COVERED.chars().chain(text.chars().skip(shown)).collect()
}

fn digit(half: u8) -> u8 {
    b"0123456789abcdef"[usize::from(half)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_shown() {
        let key = |word: &[u8]| How::Hash(Box::new(Mac::new_from_slice(word).expect("any length")));
        let mut nested = Shown::default();
        nested.add("b", "b", How::Whole);
        let mut shown = Shown::default();
        for (name, how) in [
            ("\"q", How::Whole),
            ("long", How::Partial),
            ("short", How::Partial),
            ("number", How::Partial),
            ("none", How::Partial),
            ("hash", key(b"1")),
            ("same", key(b"1")),
            ("other", key(b"2")),
            ("nested", How::Below(nested.clone())),
            ("empty", How::Below(nested.clone())),
            ("many", How::Below(nested)),
        ] {
            shown.add(name, name, how);
        }
        let json = br#"{"x":1,"\"q":{"a":1},"long":"a\u00e9bcdefgh","short":"abcdefg","number":123456789,"none":null,"hash":"v","same":"v","other":"v","nested":{"a":"secret","b":2},"empty":null,"many":[{"b":"}","a":"secret"},{"a":0}],"z":"secret"}"#;
        let mut out = Vec::new();
        shown.write(&mut out, json).expect("whole");
        let seen: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let text = String::from_utf8_lossy(&out);
        assert!(!text.contains("secret") && !text.contains("\"x\"") && !text.contains("\"z\""), "{text}");
        assert_eq!(seen["long"], "****efgh");
        assert_eq!((&seen["short"], &seen["number"]), (&"****".into(), &"****6789".into()));
        assert_eq!(seen["hash"], seen["same"]);
        assert_ne!(seen["hash"], seen["other"]);
        assert_eq!(seen["many"], serde_json::json!([{"b": "}"}, {}]));
        assert_eq!((&seen["none"], &seen["empty"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    }

    #[test]
    fn elements_and_names_are_those_of_the_reader() {
        let mut line = Shown::default();
        line.add("amount", "a\"mt", How::Whole);
        let mut shown = Shown::default();
        shown.add("total", "sum", How::Partial);
        shown.add("lines", "items", How::Elements(Slice { from: 1, to: 3 }, Some(line)));
        shown.add("tags", "tags", How::Elements(Slice { from: 0, to: 1 }, None));
        let lines: Vec<String> = (0..5).map(|n| format!(r#"{{"text":"]{n}","amount" : {n}}}"#)).collect();
        let json = format!(r#"{{"lines":[{}],"total":"123456789", "tags" :[{{"x":1}},{{}}]}}"#, lines.join(" , "));
        let mut out = Vec::new();
        shown.write(&mut out, json.as_bytes()).expect("whole");
        let wanted = r#"{"items":[{"a\"mt":1},{"a\"mt":2}],"sum":"****6789","tags" :[{"x":1}]}"#;
        assert_eq!(String::from_utf8_lossy(&out), wanted);
        out.clear();
        shown.write(&mut out, br#"{"lines":[],"total":null,"tags":[{}]}"#).expect("whole");
        assert_eq!(String::from_utf8_lossy(&out), r#"{"items":[],"sum":null,"tags":[{}]}"#);
        assert_eq!(shown.write(&mut Vec::new(), br#"{"lines":{}}"#), Err(Torn));
    }

    #[test]
    fn what_should_be_an_object_is_not_shown_as_something_else() {
        let mut shown = Shown::default();
        shown.add("a", "a", How::Below(Shown::default()));
        for json in [&br#"{"a":"secret"}"#[..], br#"{"a":["secret"]}"#, br#"{"a":7}"#, b"{", b"[]"] {
            assert_eq!(shown.write(&mut Vec::new(), json), Err(Torn), "{}", String::from_utf8_lossy(json));
        }
    }
}
