//! The channel of a request.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_schemas::nearest;
use hyper::StatusCode;
use hyper::Uri;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use super::options::{CHANNEL_DEFAULT, CHANNELS_MAX, ChannelOptions, ChannelsOptions, Rule, SelectRule};
use crate::problem::Problem;

/// What answers depend on where nobody is asked who they are, and where callers are.
const VARY_PUBLIC: &str = "accept, accept-encoding";
const VARY_PRIVATE: &str = "accept, accept-encoding, authorization, x-api-key";
/// Bytes of a user agent that are looked at.
const USER_AGENT_MAX: usize = 1024;

/// Number of a channel; 0 is that of requests of no channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ChannelId(u16);

/// The channels there are.
#[derive(Debug)]
pub(crate) struct Channels {
    channels: Vec<Channel>,
    rules: Vec<Rule>,
    required: bool,
    /// Headers that name channels, for pages of other origins.
    headers: Vec<HeaderName>,
    vary_public: HeaderValue,
    vary_private: HeaderValue,
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// What it shows.
    pub(crate) options: ChannelOptions,
}

impl ChannelId {
    /// That of requests of no channel.
    pub(crate) const DEFAULT: Self = Self(0);

    /// Place in lists that begin with [`Self::DEFAULT`].
    pub(crate) fn place(self) -> usize {
        usize::from(self.0)
    }
}

impl Channels {
    /// The channels of these options. Names beyond [`CHANNELS_MAX`] are not taken; configuration refuses them.
    pub(crate) fn new(options: &ChannelsOptions) -> Self {
        let channel = |(name, options): (&String, &ChannelOptions)| Channel {
            name: name.as_str().into(),
            options: options.clone(),
        };
        let rules: Vec<Rule> = match options.channels.is_empty() {
            true => Vec::new(),
            false => options.select.iter().map(|SelectRule(rule)| rule.clone()).collect(),
        };
        let looked_at: BTreeSet<String> = rules.iter().map(|rule| rule.looks_at().to_string()).collect();
        let vary = |base: &'static str| {
            if looked_at.is_empty() {
                return HeaderValue::from_static(base);
            }
            let text = looked_at.iter().fold(base.to_string(), |text, name| format!("{text}, {name}"));
            HeaderValue::try_from(text).expect("names of headers")
        };
        let header = |rule: &Rule| match rule {
            Rule::Header(name) => Some(name.clone()),
            _ => None,
        };
        Self {
            channels: options.channels.iter().take(CHANNELS_MAX).map(channel).collect(),
            required: options.required && !options.channels.is_empty(),
            headers: rules.iter().filter_map(header).collect(),
            vary_public: vary(VARY_PUBLIC),
            vary_private: vary(VARY_PRIVATE),
            rules,
        }
    }

    /// The channel of a request with this head.
    ///
    /// # Errors
    ///
    /// A header names a channel that is not there, or none is named where one must be.
    pub(crate) fn choose(&self, uri: &Uri, headers: &HeaderMap) -> Result<ChannelId, Problem> {
        for rule in &self.rules {
            let found = match rule {
                Rule::Header(name) => match headers.get(name) {
                    None => continue,
                    Some(_) if headers.get_all(name).iter().count() > 1 => {
                        let detail = format!("`{name}` stands twice; name one channel");
                        return Err(Problem::parameter(name.as_str(), detail));
                    }
                    Some(given) => return self.named(&String::from_utf8_lossy(given.as_bytes()), name.as_str()),
                },
                Rule::Host { host, channel } => is_for(uri, headers, host).then_some(channel),
                Rule::UserAgent { pattern, channel } => {
                    let given = headers.get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
                    let given = String::from_utf8_lossy(&given[..given.len().min(USER_AGENT_MAX)]);
                    pattern.is_match(&given).then_some(channel)
                }
            };
            if let Some(id) = found.and_then(|name| self.id(name)) {
                return Ok(id);
            }
        }
        match self.required {
            false => Ok(ChannelId::DEFAULT),
            true => Err(self.missing()),
        }
    }

    /// What of a request's head [`Self::choose`] looks at, to be kept for a connection whose first message may name a
    /// channel.
    pub(crate) fn decisive(&self, uri: &Uri, headers: &HeaderMap) -> (Uri, HeaderMap) {
        let mut kept = HeaderMap::new();
        for rule in &self.rules {
            let name = rule.looks_at();
            if !kept.contains_key(&name) {
                kept.extend(headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
            }
        }
        (uri.clone(), kept)
    }

    /// The channel named `name`; `parameter` is where the name stands.
    pub(crate) fn named(&self, name: &str, parameter: &str) -> Result<ChannelId, Problem> {
        self.id(name).ok_or_else(|| {
            let names = || self.channels.iter().map(|channel| &*channel.name);
            let help = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`? There are {}", self.names()),
                None if self.channels.is_empty() => "none is configured".to_string(),
                None => format!("there are {}", self.names()),
            };
            let detail = format!("there is no channel `{name}`; {help}");
            Problem { code: "unknown_channel", ..Problem::parameter(parameter, detail) }
        })
    }

    fn missing(&self) -> Problem {
        let title = "A channel must be named";
        let way = match self.headers.first() {
            Some(name) => format!("name one by the header `{name}`"),
            None => "use the address of one".to_string(),
        };
        let detail = format!("{way}; there are {}", self.names());
        Problem::new(StatusCode::BAD_REQUEST, "channel_required", title, detail)
    }

    fn id(&self, name: &str) -> Option<ChannelId> {
        let at = self.channels.iter().position(|channel| &*channel.name == name)?;
        u16::try_from(at + 1).ok().map(ChannelId)
    }

    fn names(&self) -> String {
        self.channels.iter().map(|channel| format!("`{}`", channel.name)).collect::<Vec<_>>().join(", ")
    }

    /// Every channel with its number.
    pub(crate) fn all(&self) -> impl Iterator<Item = (ChannelId, &Channel)> {
        self.channels.iter().enumerate().map(|(at, channel)| (ChannelId(at as u16 + 1), channel))
    }

    /// A channel; `None`: the one of requests of no channel.
    pub(crate) fn get(&self, id: ChannelId) -> Option<&Channel> {
        id.place().checked_sub(1).and_then(|at| self.channels.get(at))
    }

    /// Whether GraphQL answers nothing but trusted documents by a channel.
    pub(crate) fn trusted_only(&self, id: ChannelId) -> bool {
        self.get(id).is_some_and(|channel| channel.options.trusted_only)
    }

    /// What requests of a channel are counted under.
    pub(crate) fn label(&self, id: ChannelId) -> &str {
        self.get(id).map_or(CHANNEL_DEFAULT, |channel| &channel.name)
    }

    /// Value of `Vary`; `private`: callers are asked who they are.
    pub(crate) fn vary(&self, private: bool) -> HeaderValue {
        if private { self.vary_private.clone() } else { self.vary_public.clone() }
    }

    /// Headers that name channels.
    pub(crate) fn headers(&self) -> &[HeaderName] {
        &self.headers
    }
}

impl Rule {
    /// The header it looks at.
    fn looks_at(&self) -> HeaderName {
        match self {
            Self::Header(name) => name.clone(),
            Self::Host { .. } => HOST,
            Self::UserAgent { .. } => USER_AGENT,
        }
    }
}

/// Whether a request is for a host.
fn is_for(uri: &Uri, headers: &HeaderMap, host: &str) -> bool {
    let given = match uri.host() {
        Some(given) => given,
        None => match headers.get(HOST).and_then(|given| given.to_str().ok()) {
            Some(given) => given,
            None => return false,
        },
    };
    let name = match given.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => given,
    };
    name.trim_end_matches('.').eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn channels(required: bool) -> Channels {
        let names = ["web", "mobile", "iot"];
        Channels::new(&ChannelsOptions {
            channels: names.map(|name| (name.to_string(), ChannelOptions::default())).into(),
            select: vec![
                SelectRule::header("X-Channel").expect("a name"),
                SelectRule::host("M.example.com", "mobile"),
                SelectRule::user_agent("^Fridge/", "iot").expect("a pattern"),
            ],
            required,
        })
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let channels = channels(false);
        for (headers, wanted) in [
            (&[][..], "default"),
            (&[("x-channel", "web")], "web"),
            (&[("x-channel", "web"), ("host", "m.example.com")], "web"),
            (&[("host", "m.example.com")], "mobile"),
            (&[("host", "M.EXAMPLE.com:8080"), ("user-agent", "Fridge/2")], "mobile"),
            (&[("host", "m.example.com.evil.org")], "default"),
            (&[("host", "am.example.com")], "default"),
            (&[("user-agent", "Fridge/2")], "iot"),
            (&[("user-agent", "A Fridge/2")], "default"),
        ] {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            let id = channels.choose(&Uri::from_static("/v1/a"), &headers).expect("a channel");
            assert_eq!(channels.label(id), wanted, "{headers:?}");
        }
        assert_eq!(channels.vary(false), "accept, accept-encoding, host, user-agent, x-channel");
        assert_eq!(
            channels.vary(true),
            "accept, accept-encoding, authorization, x-api-key, host, user-agent, x-channel"
        );
    }

    #[test]
    fn a_channel_that_is_not_there_is_refused_with_those_there_are() {
        let said = |value: &'static str| {
            let headers =
                HeaderMap::from_iter([(HeaderName::from_static("x-channel"), HeaderValue::from_static(value))]);
            channels(false).choose(&Uri::from_static("/"), &headers).expect_err(value).detail
        };
        assert_eq!(
            said("mobil"),
            "there is no channel `mobil`; did you mean `mobile`? There are `iot`, `mobile`, `web`"
        );
        assert!(said("").contains("there are `iot`") && said("default").contains("there is no channel `default`"));
        let refused = channels(true).choose(&Uri::from_static("/"), &HeaderMap::new()).expect_err("required");
        assert_eq!((refused.code, refused.status.as_u16()), ("channel_required", 400));
    }

    #[test]
    fn without_channels_nothing_is_looked_at() {
        let options = ChannelsOptions {
            channels: BTreeMap::new(),
            select: vec![SelectRule::header("x-channel").expect("a name")],
            required: true,
        };
        let channels = Channels::new(&options);
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-channel"), HeaderValue::from_static("web"))]);
        assert_eq!(channels.choose(&Uri::from_static("/"), &headers).expect("none"), ChannelId::DEFAULT);
        assert_eq!(channels.vary(false), "accept, accept-encoding");
    }
}
