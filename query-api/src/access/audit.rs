//! One line for every access that was denied: who, to what, why. Never a value of a document, and never credentials.

use crate::context::{ReadContext, RequestId};

/// Where audit lines go; a filter of the log by this name keeps them apart.
const TARGET: &str = "headwater::audit";

/// A caller that is known asked for documents of a model that are not theirs, or not there at all: both are told, so that
/// the time an answer takes does not tell them apart.
pub(crate) fn not_visible(context: &ReadContext, model: &str, exists: bool) {
    tracing::info!(
        target: TARGET,
        request_id = context.request_id.as_str(),
        trace_id = context.request_id.trace_id(),
        principal = &*context.principal.name,
        model,
        reason = "not_visible",
        exists,
        "access denied"
    );
}

/// A caller that is known was denied something of a model.
pub(crate) fn denied(context: &ReadContext, model: &str, reason: &'static str) {
    tracing::info!(
        target: TARGET,
        request_id = context.request_id.as_str(),
        trace_id = context.request_id.trace_id(),
        principal = &*context.principal.name,
        model,
        reason,
        "access denied"
    );
}

/// A caller that is not known was turned away.
pub(crate) fn turned_away(request_id: &RequestId, address: std::net::IpAddr, reason: &'static str) {
    let (id, trace_id) = (request_id.as_str(), request_id.trace_id());
    tracing::info!(target: TARGET, request_id = id, trace_id, %address, reason, "access denied");
}

/// A caller that is known asked for more than one caller may.
pub(crate) fn limited(request_id: &RequestId, principal: &str, address: std::net::IpAddr, reason: &'static str) {
    let (id, trace_id) = (request_id.as_str(), request_id.trace_id());
    tracing::info!(target: TARGET, request_id = id, trace_id, principal, %address, reason, "access denied");
}
