//! How much callers may ask for.

use std::num::NonZeroU32;
use std::time::Duration;

use headwater_query_api::{LimitOptions, Rate};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::text;
use crate::config::engines::Wrong;
use crate::config::quantity::{ByteSize, Span};

/// Least number for `sending_bytes_max`: with less, answers would keep each other waiting.
const SENDING_BYTES_LEAST: u64 = 1 << 20;

/// How much callers may ask for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Requests of one caller.
    principal: Option<RateSettings>,
    /// Requests from one address.
    address: Option<RateSettings>,
    /// Proxies in front that append to `X-Forwarded-For`.
    trusted_hops: usize,
    /// Requests that are answered at the same time.
    requests_max: Option<Spanned<usize>>,
    /// Bytes of answers that are on their way to clients at the same time.
    sending_bytes_max: Option<Spanned<ByteSize>>,
    /// Connections that are open at the same time.
    connections_max: Option<Spanned<usize>>,
    /// Connections from one address that are open at the same time.
    connections_per_address_max: Option<Spanned<usize>>,
    /// Live streams of one caller that are open at the same time.
    streams_max: Option<Spanned<usize>>,
    /// How long a request may take.
    deadline: Option<Spanned<Span>>,
    /// How long work may wait for a processor before requests are turned away.
    queue_delay_max: Option<Spanned<Span>>,
}

/// A rate, and how many may come at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateSettings {
    /// As `100/s`, `600/m` or `1000/h`.
    rate: RateText,
    /// Requests at once after a pause; as many as the rate has otherwise.
    #[serde(default)]
    burst: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug)]
struct RateText(NonZeroU32, Duration);

impl<'de> Deserialize<'de> for RateText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from, "a rate like 100/s, 600/m or 1000/h", |text| {
            let (number, unit) = text.split_once('/')?;
            let seconds = match unit.trim() {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => return None,
            };
            Some(Self(number.trim().parse().ok()?, Duration::from_secs(seconds)))
        })
    }
}

impl Limits {
    pub(super) fn options(&self) -> LimitOptions {
        let rate = |of: &RateSettings| {
            let RateText(requests, per) = of.rate;
            Rate { requests, per, burst: of.burst.unwrap_or(requests) }
        };
        let defaults = LimitOptions::default();
        LimitOptions {
            principal: self.principal.as_ref().map(rate),
            address: self.address.as_ref().map(rate),
            trusted_hops: self.trusted_hops,
            requests_max: self.requests_max.as_ref().map_or(defaults.requests_max, |max| max.value),
            sending_bytes_max: self
                .sending_bytes_max
                .as_ref()
                .map_or(defaults.sending_bytes_max, |size| usize::try_from(size.value.0).unwrap_or(usize::MAX)),
            connections_max: self.connections_max.as_ref().map_or(defaults.connections_max, |max| max.value),
            connections_per_address_max: self.connections_per_address_max.as_ref().map(|max| max.value),
            streams_max: self.streams_max.as_ref().map(|max| max.value),
            deadline: self.deadline.as_ref().map_or(defaults.deadline, |span| span.value.0),
            queue_delay_max: self.queue_delay_max.as_ref().map_or(defaults.queue_delay_max, |span| span.value.0),
        }
    }

    pub(super) fn validate(&self) -> Option<Wrong> {
        for (name, max) in [
            ("requests_max", &self.requests_max),
            ("connections_max", &self.connections_max),
            ("connections_per_address_max", &self.connections_per_address_max),
            ("streams_max", &self.streams_max),
        ] {
            if let Some(max) = max
                && !(1..=1_000_000).contains(&max.value)
            {
                let message = format!("`api.limits.{name}` must be from 1 to 1000000");
                return Some((max.referenced, message, "leave it out for what is usually right".to_string()));
            }
        }
        if let Some(size) = &self.sending_bytes_max
            && size.value.0 < SENDING_BYTES_LEAST
        {
            let message = "`api.limits.sending_bytes_max` must be 1MiB or more".to_string();
            return Some((size.referenced, message, "512MiB is usually right".to_string()));
        }
        let spans = [
            ("deadline", &self.deadline, "10s is usually right"),
            ("queue_delay_max", &self.queue_delay_max, "leave it out for what is usually right"),
        ];
        for (name, span, help) in spans {
            if let Some(span) = span
                && span.value.0.is_zero()
            {
                let message = format!("`api.limits.{name}` must be longer than nothing");
                return Some((span.referenced, message, help.to_string()));
            }
        }
        None
    }
}
