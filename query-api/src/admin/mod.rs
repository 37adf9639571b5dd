//! The admin port: probes, metrics, status, control, and two pages for people. It has no authentication and is not for
//! readers.

mod control;
mod host;
mod route;

pub use control::{Admin, AdminError};
pub(crate) use route::{AdminPort, answer};
