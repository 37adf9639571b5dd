//! What is known of a request while it is answered and told when it was: the [`trace`] it belongs to, what it [`reads`],
//! whether it was [`slow`]. Log lines written deep inside ask [`current`] whose request it is.

mod current;
mod reads;
pub(crate) mod slow;
mod trace;

pub(crate) use current::{current, scope};
pub(crate) use reads::Reads;
pub(crate) use trace::Trace;
