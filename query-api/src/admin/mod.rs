//! The admin port: probes, metrics, status, control, and two pages for people. It has no authentication and is not for
//! readers. It listens from the first moment of a process on, and tells what its start waits for.

mod control;
mod host;
mod route;
mod server;

pub use control::{Admin, AdminError};
pub use server::AdminServer;
