//! Serves read models by REST and GraphQL.
//!
//! A request enters through [`http`](mod@http), is routed by [`rest`], reads documents of the versions that are
//! [`serving`], and leaves as bytes that were copied, not parsed ([`projection`]). Conditions become ranges of a declared
//! index ([`query`]); there is no way to cause a scan. [`live`] follows what changes, [`graphql`] answers from the same
//! bytes (spoken by [`graphql_http`] and [`graphql_ws`]), [`describe`] says what there is. [`admin`] is the other port: probes, metrics, status, control.
//!
//! [`cache`] keeps documents at hand until they change. A [`channel`] gives a kind of readers a shape of its own;
//! [`observe`] tells what became of a request.
//!
//! [`access`](mod@access) decides who may see what, and how much: what a caller sees of a model is one object
//! ([`Visibility`](access::Visibility)) that everything above asks. [`start`] is the way in, [`AdminServer`] that of
//! operators; [`ReadContext`](context::ReadContext) carries who asks from the edge to the store.

mod access;
mod admin;
mod api;
mod cache;
mod channel;
mod context;
mod describe;
mod error;
#[cfg(feature = "test-util")]
mod executor;
mod freshness;
#[cfg(any(test, feature = "test-util"))]
pub mod fuzz;
mod graphql;
mod graphql_http;
mod graphql_ws;
mod http;
mod listen;
mod live;
mod metrics;
mod observe;
mod places;
mod problem;
mod projection;
mod query;
mod rest;
mod sending;
mod server;
mod serving;

pub use access::options::{
    ANONYMOUS_ROLE, AccessOptions, Algorithm, ApiKeyOptions, AuthOptions, BindingRule, CorsOptions, IssuerOptions,
    KeySource, LimitOptions, Mask, MaskRule, ModelRule, Rate,
};
pub use access::{ROLES_MAX, mixed_algorithms};
pub use admin::{Admin, AdminError, AdminServer};
pub use channel::{
    CHANNEL_DEFAULT, CHANNELS_MAX, ChannelOptions, ChannelsOptions, FieldPattern, Format, Misfit, ModelChannel,
    PAGE_DEFAULT, PAGE_MAX, PageLimits, Place, SelectRule, misfits,
};
pub use describe::{json_schema, openapi};
pub use error::{Error, ErrorKind};
#[cfg(feature = "test-util")]
pub use executor::Executor;
pub use graphql::sdl_for;
pub use listen::BoundPort;
pub use server::{ApiHandle, ApiOptions, GraphQlOptions, TrustedDocuments, start};
