//! Serves read models by REST and GraphQL.
//!
//! A request enters through [`http`](mod@http), is routed by [`rest`], reads documents of the versions that are
//! [`serving`], and leaves as bytes that were copied, not parsed ([`projection`]). Conditions become ranges of a declared
//! index ([`query`]); there is no way to cause a scan. [`live`] follows one document, [`graphql`] answers from the same
//! bytes, [`describe`] says what there is. [`admin`] is the other port: probes, metrics, status, control.
//!
//! [`start`] is the way in. [`ReadContext`](context::ReadContext) is the place for everything that will depend on who
//! reads.

mod admin;
mod api;
mod context;
mod describe;
mod error;
mod freshness;
mod graphql;
mod graphql_http;
mod http;
mod live;
mod metrics;
mod problem;
mod projection;
mod query;
mod rest;
mod server;
mod serving;

pub use admin::{Admin, AdminError};
pub use describe::{json_schema, openapi};
pub use error::{Error, ErrorKind};
pub use graphql::sdl_for;
pub use server::{ApiHandle, ApiOptions, start, start_admin};
