//! Documents kept at hand: a read that was made once is not made again until the document changes.
//!
//! [`CachedReader`] stands in front of the store's reader and is one itself, so that nothing else knows of it. It hears of
//! every change first, forgets what changed, and only then passes the change on, and behind it the frontier: whoever was
//! told of a change, or holds a token of it, never reads older bytes here ([`documents`] says why).

mod documents;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use documents::{CacheMetrics, DocumentCache};
pub(crate) use reader::{CachedReader, Follower};
