//! The body of a list: its documents, and what is told of the list, in the form that was asked for.

use headwater_store::Document;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::format::Format;
use crate::problem::Problem;
use crate::projection::Selection;
use crate::query::Count;

const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");
const COUNT: HeaderName = HeaderName::from_static("x-count");
const COUNT_KIND: HeaderName = HeaderName::from_static("x-count-kind");

/// Largest buffer that is reserved for parts of documents: how much is wanted of them is not known.
const RESERVED_MAX: usize = 64 * 1024;

/// What is told of a list beside its documents.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Cursor of the next page.
    pub(super) next: Option<String>,
    pub(super) count: Option<Count>,
}

/// The body with these documents, in one buffer. One that was named again is written again: several that have more than
/// `bytes_max` bytes together are refused, however few were read.
pub(super) fn write<'d>(
    format: Format,
    documents: impl Iterator<Item = Option<&'d Document>> + Clone,
    selection: Option<&Selection>,
    told: &Told,
    bytes_max: usize,
) -> Result<Vec<u8>, Problem> {
    let limit = Limit { documents: documents.clone().flatten().count(), bytes: 0, bytes_max };
    if format == Format::Lines {
        return lines(documents, selection, limit);
    }
    let mut body = write_data(documents, selection, limit)?;
    told.write(&mut body);
    Ok(format.of_json(body)?)
}

/// What is written of the documents of one body, and how much that may be.
struct Limit {
    documents: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Limit {
    /// Takes what was written of a document. One that is alone is written whatever its size.
    fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes += bytes;
        if self.documents > 1 && self.bytes > self.bytes_max {
            return Err(Problem::too_large(self.documents, self.bytes_max));
        }
        Ok(())
    }
}

/// `{"data":[…]`, in one buffer.
fn write_data<'d>(
    documents: impl Iterator<Item = Option<&'d Document>> + Clone,
    selection: Option<&Selection>,
    mut limit: Limit,
) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(room(documents.clone(), selection).min(limit.bytes_max) + 400);
    body.extend_from_slice(b"{\"data\":[");
    for (at, document) in documents.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        write_document(&mut body, document, selection, &mut limit)?;
    }
    body.push(b']');
    Ok(body)
}

/// A document a line, null where one that was named is not there.
fn lines<'d>(
    documents: impl Iterator<Item = Option<&'d Document>> + Clone,
    selection: Option<&Selection>,
    mut limit: Limit,
) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(room(documents.clone(), selection).min(limit.bytes_max));
    for document in documents {
        let start = body.len();
        write_document(&mut body, document, selection, &mut limit)?;
        // Line ends can stand between the parts of an embedded JSON column, and nowhere else.
        body[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        body.push(b'\n');
    }
    Ok(body)
}

/// Bytes that are reserved for these documents.
fn room<'d>(documents: impl Iterator<Item = Option<&'d Document>>, selection: Option<&Selection>) -> usize {
    let bytes: usize = documents.map(|document| 5 + document.map_or(0, |document| document.body.len())).sum();
    if selection.is_some() { RESERVED_MAX.min(bytes) } else { bytes }
}

fn write_document(
    body: &mut Vec<u8>,
    document: Option<&Document>,
    selection: Option<&Selection>,
    limit: &mut Limit,
) -> Result<(), Problem> {
    let Some(document) = document else {
        body.extend_from_slice(b"null");
        return Ok(());
    };
    let start = body.len();
    match selection {
        None => body.extend_from_slice(&document.body),
        Some(selection) => selection.write(body, &document.body)?,
    }
    limit.take(body.len() - start)
}

impl Told {
    /// `,"page":…,"count":…}`.
    fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(b",\"page\":{\"next\":");
        match &self.next {
            Some(next) => {
                body.push(b'"');
                body.extend_from_slice(next.as_bytes());
                body.extend_from_slice(b"\",\"hasMore\":true}");
            }
            None => body.extend_from_slice(b"null,\"hasMore\":false}"),
        }
        body.extend_from_slice(b",\"count\":");
        match self.counted() {
            None => body.extend_from_slice(b"null"),
            Some((kind, value)) => {
                body.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"value\":{value}}}").as_bytes());
            }
        }
        body.push(b'}');
    }

    /// The same as headers, where the body has no place for it.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let cursor = self.next.as_ref().and_then(|next| HeaderValue::from_str(next).ok());
        headers.extend(cursor.map(|cursor| (NEXT_CURSOR, cursor)));
        if let Some((kind, value)) = self.counted() {
            headers.insert(COUNT, HeaderValue::from(value));
            headers.insert(COUNT_KIND, HeaderValue::from_static(kind));
        }
    }

    fn counted(&self) -> Option<(&'static str, u64)> {
        self.count.map(|count| match count {
            Count::Exact(value) => ("exact", value),
            Count::AtLeast(value) => ("atLeast", value),
        })
    }
}
