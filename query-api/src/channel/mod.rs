//! Channels: what kinds of readers (web, mobile, devices) see of the same models.
//!
//! A channel is a declaration ([`options`]): fields as [`pattern`]s, names of its own, pages, a format. [`fit`] makes it
//! fit a model, and says what does not; [`choose`] finds the channel of a request. What is shown is then decided where it
//! is decided for roles, in [`Visibility`](crate::access::Visibility): first the role, then the channel. A channel is a
//! shape and no permission: whoever may ask may ask by any of them.

mod choose;
mod fit;
mod level;
mod options;
mod pattern;
mod problem;

pub(crate) use choose::{ChannelId, Channels};
pub(crate) use fit::{Cut, Fitted, Slice, Taken};
pub use fit::{Misfit, Place, misfits};
pub use options::{
    CHANNEL_DEFAULT, CHANNELS_MAX, ChannelOptions, ChannelsOptions, Format, ModelChannel, PAGE_DEFAULT, PAGE_MAX,
    PageLimits, SelectRule,
};
pub use pattern::FieldPattern;
pub(crate) use problem::{ChannelProblem, fit_all, tell_problems};
