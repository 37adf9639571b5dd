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
/// How often a walk through a list is begun anew because the model's version was switched.
const WALKS_MAX: u32 = 5;

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

/// Every document of a model. A new version that begins to serve meanwhile ends the walk from page to page: then it is
/// begun anew.
pub(crate) fn list_all(api: &Client, model: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let mut walks = 1;
    loop {
        match walk(api, model) {
            Err(failure) if failure.has_code("invalid_cursor") && walks < WALKS_MAX => walks += 1,
            walked => return walked,
        }
    }
}

fn walk(api: &Client, model: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let mut after = String::new();
    let mut bodies = Vec::new();
    loop {
        let path = format!("/v1/{model}?limit={PAGE}{after}");
        let text = api.text(&path)?;
        let list = parse(&path, &text)?;
        bodies.extend(list.data.iter().flatten().map(|body| body.get().as_bytes().to_vec()));
        match list.page.next {
            Some(cursor) => after = format!("&after={}", encode(&cursor)),
            None => return Ok(bodies),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::answering;

    const FIRST: &str =
        "200 OK\r\ncontent-length: 39\r\nconnection: close\r\n\r\n{\"data\":[{\"id\":1}],\"page\":{\"next\":\"a\"}}";
    const SWITCHED: &str =
        "400 Bad Request\r\ncontent-length: 25\r\nconnection: close\r\n\r\n{\"code\":\"invalid_cursor\"}";
    const ALL: &str = "200 OK\r\ncontent-length: 28\r\nconnection: close\r\n\r\n{\"data\":[{\"id\":1},{\"id\":2}]}";

    #[test]
    fn a_list_is_walked_anew_when_the_version_is_switched() {
        let (client, thread) = answering(&[FIRST, SWITCHED, ALL]);
        let bodies = list_all(&client, "customer").unwrap();
        assert_eq!(bodies, [b"{\"id\":1}", b"{\"id\":2}"]);
        thread.join().unwrap();
    }
}
