//! Live documents: server-sent events.

mod listeners;
mod stream;

pub(crate) use listeners::{Listeners, dispatch};
pub(crate) use stream::stream;
