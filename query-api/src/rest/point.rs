//! One document: the way most requests go, so it is one function that copies little.

use std::time::Instant;

use hyper::Response;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use sha2::{Digest, Sha256};

use super::compressed::{Compression, GZIP};
use super::format::Format;
use super::parameters::{once, parse, unknown};
use super::respond;
use crate::api::Api;
use crate::context::ReadContext;
use crate::http::{Body, Effort, compressed_etag, etag_matches, gzip};
use crate::problem::Problem;
use crate::projection::{Selection, write_cbor};
use crate::sending::is_free;
use crate::serving::Model;

/// What of a document is sent, and how.
pub(super) struct Wanted<'h> {
    /// Some of its fields.
    pub(super) selection: Option<Selection>,
    pub(super) format: Format,
    pub(super) compression: Compression,
    pub(super) headers: &'h HeaderMap,
    /// Whether the document is the caller's own, by an address that is the same for every caller. Counted by the route then,
    /// and not here.
    pub(super) is_own: bool,
}

/// Answers with a document as the caller sees it, or the parts of it that are wanted. `None` is an id that no document
/// can have.
pub(super) async fn point(
    api: &Api,
    model: &Model,
    id: Option<Vec<u8>>,
    wanted: Wanted<'_>,
    context: &ReadContext,
    started: Instant,
) -> Result<Response<Body>, Problem> {
    let Wanted { selection, format, compression, headers, is_own } = wanted;
    let absent = || Problem::no_document(model.name());
    let id = id.ok_or_else(absent)?;
    // Before the document is read, so that nothing that came later is promised.
    let moment = api.freshness.now();
    let document = model.visibility.get(&*api.reader, &id, context).await?.ok_or_else(absent)?;
    let mut shape = format.etag_shape(selection.as_ref().map(Selection::fingerprint));
    if is_own {
        shape = Some(shape_of_own(shape, &id));
    }
    let mut validator = model.etag(document.stamp, shape);
    if etag_matches(headers, validator.as_bytes()) {
        let response = respond::not_modified(model, moment, validator, context);
        if !is_own {
            model.point_metrics.not_modified(started.elapsed());
        }
        return Ok(response);
    }
    // Sent as it is stored, it is compressed once and kept.
    let as_stored = selection.is_none() && format == Format::Json && model.visibility.fingerprint.is_none();
    let compressed = match &api.cache {
        Some(cache) if as_stored && compression.is_for(document.body.len()) => {
            let compress = async { gzip(document.body.clone(), Effort::Kept).await.ok_or(()) };
            Box::pin(cache.compressed((model.visibility.version, &id, document.stamp), compress)).await.ok()
        }
        _ => None,
    };
    let encoding = compressed.is_some().then_some(GZIP);
    if encoding.is_some()
        && let Some(renamed) = compressed_etag(&validator)
    {
        validator = renamed;
    }
    let body = match (compressed, selection) {
        (Some(compressed), _) => compressed,
        (None, None) if format == Format::Json => document.body,
        (None, None) => {
            let mut out = Vec::with_capacity(document.body.len());
            write_cbor(&mut out, &document.body)?;
            out.into()
        }
        (None, Some(selection)) => {
            let mut out = Vec::with_capacity(document.body.len());
            selection.write(&mut out, &document.body)?;
            format.of_json(out)?.into()
        }
    };
    let len = body.len();
    let mut response = respond::documents(body, format, model, moment, Some(validator), context);
    if let Some(encoding) = encoding {
        response.headers_mut().insert(CONTENT_ENCODING, encoding);
    }
    // What may yet be refused is counted when it is known.
    if !is_own && is_free(len) {
        model.point_metrics.sent(len, started.elapsed());
    }
    Ok(response)
}

/// Tells apart what is answered at one address: another caller has another document there, which may have the same stamp.
fn shape_of_own(shape: Option<u64>, id: &[u8]) -> u64 {
    let told = [u8::from(shape.is_some())];
    let digest =
        Sha256::new().chain_update(told).chain_update(shape.unwrap_or_default().to_be_bytes()).chain_update(id);
    digest.finalize()[..8].iter().fold(0, |shape, byte| shape << 8 | u64::from(*byte))
}

/// The `fields` of a query string that may have nothing else.
pub(crate) fn selection(query: &str, model: &Model) -> Result<Option<Selection>, Problem> {
    let mut fields = None;
    for parameter in parse(query)? {
        match &*parameter.name {
            "fields" => once(&mut fields, parameter)?,
            name => return Err(unknown(name, &["fields"])),
        }
    }
    fields.map(|fields| Selection::new(&fields, &model.visibility.shape.fields)).transpose()
}
