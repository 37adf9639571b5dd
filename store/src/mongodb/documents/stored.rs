//! A document as it is stored.
//!
//! ```text
//! { _id: id, …the model's fields…, _hw: { stamp, as_of, json, hash, e: [entries] } }
//! ```
//!
//! `json` is what readers get. `e` holds the index entries, strings that sort by number of the index, then by value, and
//! is indexed: what can be found always agrees with what is found. `hash` is over body and entries.

use bytes::Bytes;
use headwater_schemas::model::ModelShape;
use mongodb::bson::RawDocument;

use super::natural;
use crate::mongodb::bson::{DOCUMENT, STRING, Writer};
use crate::mongodb::server::Fault;
use crate::mongodb::text;
use crate::{Document, DocumentWrite};

/// Greatest size of a stored document: the server's 16 MiB, less what a command has around it.
pub(super) const STORED_BYTES_MAX: usize = (16 << 20) - (16 << 10);

pub(super) const BROKEN: Fault = Fault::Damaged("a document cannot be read");

/// Over body and entries.
pub(super) type Hash = [u8; 16];

pub(super) fn hash(body: &[u8], entries: &[(u16, &[u8])]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(body);
    for (index, value) in entries {
        part(&index.to_le_bytes());
        part(value);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    out
}

/// Appends an index entry as it is stored.
pub(super) fn push_entry(out: &mut Vec<u8>, index: u16, value: &[u8]) {
    text::push(out, &index.to_be_bytes());
    text::push(out, value);
}

/// An index entry, or the beginning of entries, as it is stored.
pub(super) fn entry(index: u16, value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len() + 4);
    push_entry(&mut bytes, index, value);
    String::from_utf8(bytes).expect("the string form of a key is UTF-8")
}

/// The value of an entry.
pub(super) fn entry_value(entry: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(entry.len());
    if !text::decode(&mut bytes, entry) || bytes.len() < 2 {
        return Err(BROKEN);
    }
    bytes.drain(..2);
    Ok(bytes)
}

/// Appends a document with a body; where its stamp is, within what was appended, is not told to anybody.
pub(super) fn write(
    out: &mut Writer,
    write: &DocumentWrite<'_>,
    body: &[u8],
    shape: Option<&ModelShape>,
    stamp: u64,
    as_of_micros: i64,
    hash: &Hash,
) {
    let begun = out.begin();
    out.element(STRING, "_id");
    out.text_with(|bytes| text::push(bytes, write.id));
    if let Some(shape) = shape {
        natural::write(out, body, shape);
    }
    out.within(DOCUMENT, "_hw", |hw| {
        hw.int("stamp", stamp as i64);
        hw.int("as_of", as_of_micros);
        hw.binary("json", body);
        hw.binary("hash", hash);
        hw.array("e", STRING, write.entries, |writer, (index, value)| {
            writer.text_with(|bytes| push_entry(bytes, *index, value));
        });
    });
    out.end(begun);
}

/// A document's id.
pub(super) fn id(document: &RawDocument) -> Result<Vec<u8>, Fault> {
    let id = document.get_str("_id").map_err(|_| BROKEN)?;
    let mut bytes = Vec::with_capacity(id.len());
    if text::decode(&mut bytes, id) { Ok(bytes) } else { Err(BROKEN) }
}

/// What is ours in a document.
pub(super) fn ours(document: &RawDocument) -> Result<&RawDocument, Fault> {
    document.get_document("_hw").map_err(|_| BROKEN)
}

/// A document as readers get it.
pub(super) fn read(document: &RawDocument) -> Result<Document, Fault> {
    let hw = ours(document)?;
    Ok(Document {
        stamp: hw.get_i64("stamp").map_err(|_| BROKEN)? as u64,
        as_of_micros: hw.get_i64("as_of").map_err(|_| BROKEN)?,
        body: Bytes::copy_from_slice(hw.get_binary("json").map_err(|_| BROKEN)?.bytes),
    })
}

/// A document's entries, ascending.
pub(super) fn entries(document: &RawDocument) -> Result<Vec<&str>, Fault> {
    let entries = ours(document)?.get_array("e").map_err(|_| BROKEN)?;
    entries.into_iter().map(|entry| entry.ok().and_then(|entry| entry.as_str()).ok_or(BROKEN)).collect()
}

/// A document's hash.
pub(super) fn stored_hash(document: &RawDocument) -> Result<Hash, Fault> {
    ours(document)?.get_binary("hash").ok().and_then(|hash| hash.bytes.try_into().ok()).ok_or(BROKEN)
}
