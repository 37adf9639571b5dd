//! One line for every access that was denied: who, from where, to what, why. Never a value of a document, and never
//! credentials.

use std::net::IpAddr;
use std::sync::Arc;

use super::principal::Principal;
use crate::context::{ReadContext, RequestId};

/// Where audit lines go; a filter of the log by this name keeps them apart.
const TARGET: &str = "headwater::audit";

/// A request that is not let in. Told to the log when its caller is told: what is tried again is not denied yet.
#[derive(Debug)]
pub(crate) struct Denial {
    /// `None`: it is not known who asks.
    principal: Option<Arc<Principal>>,
    address: IpAddr,
    reason: &'static str,
}

impl Denial {
    /// Of a caller that is not known.
    pub(crate) fn of_stranger(address: IpAddr, reason: &'static str) -> Self {
        Self { principal: None, address, reason }
    }

    /// Of a caller that is known.
    pub(crate) fn of_caller(principal: &Arc<Principal>, address: IpAddr, reason: &'static str) -> Self {
        Self { principal: Some(principal.clone()), address, reason }
    }

    /// Writes the line.
    pub(crate) fn tell(&self, request_id: &RequestId) {
        tracing::info!(
            target: TARGET,
            request_id = request_id.as_str(),
            trace_id = request_id.trace_id(),
            principal = self.principal.as_ref().map(|principal| &*principal.name),
            address = %self.address,
            reason = self.reason,
            "access denied"
        );
    }
}

/// A caller that is known asked for documents of a model that are not theirs, or not there at all: both are told, so that
/// the time an answer takes does not tell them apart. Once where they are followed: nobody asks when they change.
pub(crate) fn not_visible(context: &ReadContext, model: &str, exists: bool) {
    if context.is_followed {
        return;
    }
    tracing::info!(
        target: TARGET,
        request_id = context.request_id.as_str(),
        trace_id = context.request_id.trace_id(),
        principal = &*context.principal.name,
        address = %context.address,
        model,
        reason = "not_visible",
        exists,
        "access denied"
    );
}

/// A caller that was let in was denied something; `model`: of that model.
pub(crate) fn denied(context: &ReadContext, model: Option<&str>, reason: &'static str) {
    tracing::info!(
        target: TARGET,
        request_id = context.request_id.as_str(),
        trace_id = context.request_id.trace_id(),
        principal = &*context.principal.name,
        address = %context.address,
        model,
        reason,
        "access denied"
    );
}
