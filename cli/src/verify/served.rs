//! What a running Headwater serves.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::compare::{Body, Seen};
use crate::client::Client;
use crate::failure::Failure;

/// Documents asked for in one request.
const IDS_PER_REQUEST: usize = 100;
/// Documents of one page of a list.
const PAGE: usize = 100;

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<Option<&'a RawValue>>,
    #[serde(default)]
    page: Paging,
}

#[derive(Default, Deserialize)]
struct Paging {
    next: Option<String>,
}

/// Reads documents by id, and adds what it sees.
pub(crate) fn look(api: &Client, model: &str, ids: &BTreeSet<String>, seen: &mut Seen) -> Result<(), Failure> {
    // An id with a comma cannot stand in a list of ids.
    let (alone, listed): (Vec<&String>, Vec<&String>) = ids.iter().partition(|id| id.contains(','));
    for id in alone {
        let body = api.find(&format!("/v1/{model}/{}", encode(id)))?.map(String::into_bytes);
        seen.entry(id.clone()).or_default().insert(body);
    }
    for chunk in listed.chunks(IDS_PER_REQUEST) {
        let joined: Vec<String> = chunk.iter().map(|id| encode(id)).collect();
        let path = format!("/v1/{model}?ids={}", joined.join(","));
        let text = api.text(&path)?;
        let list = parse(&path, &text)?;
        if list.data.len() != chunk.len() {
            let (asked, got) = (chunk.len(), list.data.len());
            return Err(Failure::new(format_args!("asked for {asked} documents of {model}, and got {got}")));
        }
        for (id, body) in chunk.iter().zip(list.data) {
            let body: Body = body.map(|raw| raw.get().as_bytes().to_vec());
            seen.entry((*id).clone()).or_default().insert(body);
        }
    }
    Ok(())
}

/// Every document of a model, page by page.
pub(crate) fn list_all(api: &Client, model: &str, mut each: impl FnMut(&[u8])) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let path = format!("/v1/{model}?limit={PAGE}{after}");
        let text = api.text(&path)?;
        let list = parse(&path, &text)?;
        for body in list.data.iter().flatten() {
            each(body.get().as_bytes());
        }
        match list.page.next {
            Some(cursor) => after = format!("&after={}", encode(&cursor)),
            None => return Ok(()),
        }
    }
}

fn parse<'a>(path: &str, text: &'a str) -> Result<List<'a>, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::caused(format_args!("{path} answered with no list"), &error))
}

/// Percent-encodes everything that could mean something in a URL.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
