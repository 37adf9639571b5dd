//! What is configured of channels.

use std::collections::BTreeMap;

use hyper::header::HeaderName;
use regex::{Regex, RegexBuilder};

use super::pattern::FieldPattern;

/// Channels, at most: each has a schema of its own, and series of its own in the metrics.
pub const CHANNELS_MAX: usize = 32;
/// What requests of no channel are counted under. No channel has this name.
pub const CHANNEL_DEFAULT: &str = "default";
/// Documents of a page, unless asked otherwise.
pub const PAGE_DEFAULT: usize = 20;
/// Documents of a page, at most.
pub const PAGE_MAX: usize = 100;
/// Bytes a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The channels, and how the one of a request is found.
#[derive(Clone, Debug, Default)]
pub struct ChannelsOptions {
    /// The channels by their names: letters, digits, `-` and `_`, and at most [`CHANNELS_MAX`].
    pub channels: BTreeMap<String, ChannelOptions>,
    /// Asked in this order; the first that matches decides. Where none does the whole shape is served.
    pub select: Vec<SelectRule>,
    /// Whether a request for which no rule matches is refused instead.
    pub required: bool,
}

/// What readers of one kind see.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// The models of the channel by their names; `None`: all of them. A model without a shape of its own has `shape`.
    pub models: Option<BTreeMap<String, Option<ModelChannel>>>,
    /// What is shown of models that have no shape of their own.
    pub shape: ModelChannel,
    /// Documents and elements of a page.
    pub page: PageLimits,
    /// What documents are written as.
    pub format: Format,
    /// Whether changes are streamed.
    pub live: bool,
    /// Whether GraphQL answers trusted documents and nothing else.
    pub trusted_only: bool,
}

/// What is shown of a model.
#[derive(Clone, Debug, Default)]
pub struct ModelChannel {
    /// Its fields; none: all of them.
    pub fields: Vec<FieldPattern>,
    /// New last names of fields, by the paths they have in the model.
    pub rename: BTreeMap<String, String>,
}

/// Sizes of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageLimits {
    /// Unless asked otherwise. Not over `max`.
    pub default: usize,
    /// At most. From 1 to [`PAGE_MAX`].
    pub max: usize,
}

/// What documents are written as where a request does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `application/cbor`: the same values in fewer bytes.
    Cbor,
}

/// One way to find the channel of a request.
#[derive(Clone, Debug)]
pub struct SelectRule(pub(super) Rule);

#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// The value of this header names the channel.
    Header(HeaderName),
    /// The request is for this host, in lower case and without a port.
    Host { host: String, channel: String },
    /// The user agent matches.
    UserAgent { pattern: Regex, channel: String },
}

impl ChannelOptions {
    /// What is shown of a model; `None`: the channel has no such model.
    pub fn of(&self, model: &str) -> Option<&ModelChannel> {
        match &self.models {
            None => Some(&self.shape),
            Some(models) => models.get(model).map(|own| own.as_ref().unwrap_or(&self.shape)),
        }
    }
}

impl Default for ChannelOptions {
    /// Everything, as it is.
    fn default() -> Self {
        Self {
            models: None,
            shape: ModelChannel::default(),
            page: PageLimits::default(),
            format: Format::default(),
            live: true,
            trusted_only: false,
        }
    }
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { default: PAGE_DEFAULT, max: PAGE_MAX }
    }
}

impl SelectRule {
    /// The value of the header `name` names the channel; `None`: no header can have this name.
    pub fn header(name: &str) -> Option<Self> {
        name.parse().ok().map(|name| Self(Rule::Header(name)))
    }

    /// Requests for `host`, on whatever port, are of this channel.
    pub fn host(host: &str, channel: impl Into<String>) -> Self {
        Self(Rule::Host { host: host.to_ascii_lowercase(), channel: channel.into() })
    }

    /// Requests whose user agent matches `pattern` are of this channel.
    ///
    /// # Errors
    ///
    /// What is wrong with the pattern, or that it is too large.
    pub fn user_agent(pattern: &str, channel: impl Into<String>) -> Result<Self, regex::Error> {
        let pattern = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build()?;
        Ok(Self(Rule::UserAgent { pattern, channel: channel.into() }))
    }

    /// The channel it leads to, where it is always the same.
    pub fn channel(&self) -> Option<&str> {
        match &self.0 {
            Rule::Header(_) => None,
            Rule::Host { channel, .. } | Rule::UserAgent { channel, .. } => Some(channel),
        }
    }
}
