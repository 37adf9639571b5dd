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

/// The body with these documents, in one buffer.
pub(super) fn write<'d>(
    format: Format,
    documents: impl Iterator<Item = Option<&'d Document>> + Clone,
    selection: Option<&Selection>,
    told: &Told,
) -> Result<Vec<u8>, Problem> {
    if format == Format::Lines {
        return lines(documents, selection);
    }
    let mut body = write_data(documents, selection)?;
    told.write(&mut body);
    Ok(format.of_json(body)?)
}

/// `{"data":[…]`, in one buffer.
fn write_data<'d>(
    documents: impl Iterator<Item = Option<&'d Document>> + Clone,
    selection: Option<&Selection>,
) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(room(documents.clone(), selection) + 400);
    body.extend_from_slice(b"{\"data\":[");
    for (at, document) in documents.enumerate() {
        if at > 0 {
            body.push(b',');
        }
        write_document(&mut body, document, selection)?;
    }
    body.push(b']');
    Ok(body)
}

/// A document a line, null where one that was named is not there.
fn lines<'d>(
    documents: impl Iterator<Item = Option<&'d Document>> + Clone,
    selection: Option<&Selection>,
) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(room(documents.clone(), selection));
    for document in documents {
        let start = body.len();
        write_document(&mut body, document, selection)?;
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
) -> Result<(), Problem> {
    match (document, selection) {
        (None, _) => body.extend_from_slice(b"null"),
        (Some(document), None) => body.extend_from_slice(&document.body),
        (Some(document), Some(selection)) => selection.write(body, &document.body)?,
    }
    Ok(())
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
