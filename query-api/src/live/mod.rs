//! What changes is told: documents and lists as server-sent events, and what GraphQL subscriptions follow.
//!
//! One task hears every change of the store ([`dispatch`]) and wakes only those who wait for one of them
//! ([`Listeners`]). A stream that was woken reads what there is then: whoever is slow sees fewer, newer states, and
//! nothing is queued for anybody.

mod difference;
pub(crate) mod event;
mod list;
mod listeners;
mod stream;
mod subscription;

use prometheus_client::metrics::gauge::Gauge;

pub(crate) use list::{Of, list};
pub(crate) use listeners::{Listeners, dispatch};
pub(crate) use stream::stream;
pub(crate) use subscription::{Next, Subscription, Told};

use crate::access::{Caller, Refusal};
use crate::api::Api;
use crate::context::ReadContext;
use crate::places::TakenPlace;
use crate::problem::Problem;
use crate::serving::Model;

/// Refuses to follow what the channel does not have followed.
fn check_live(model: &Model) -> Result<(), Problem> {
    if model.visibility.live {
        return Ok(());
    }
    let channel = model.visibility.channel.as_deref().unwrap_or_default();
    let detail = format!("the channel {channel} has no live streams; ask again from time to time, with If-None-Match");
    Err(Problem::not_acceptable("live_not_served", detail))
}

/// Says in the log that a stream ends because what it follows cannot be read. The client comes back by itself and says what
/// it saw last.
fn warn_of_end(context: &ReadContext, problem: &Problem, what: &str) {
    tracing::warn!(
        request_id = context.request_id.as_str(),
        trace_id = context.request_id.trace_id(),
        code = problem.code,
        "a live stream ends: the {what} cannot be read"
    );
}

/// Counts a stream while it is there, and holds its place among those of its caller.
pub(crate) struct Counted {
    gauge: Gauge,
    _place: Option<TakenPlace<Caller>>,
}

impl Counted {
    /// Refuses what would be one too many of its caller.
    pub(crate) fn new(api: &Api, context: &ReadContext) -> Result<Self, Box<Refusal>> {
        let place = api.gate.begin_stream(context)?;
        let gauge = api.metrics.live_streams.clone();
        gauge.inc();
        Ok(Self { gauge, _place: place })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
