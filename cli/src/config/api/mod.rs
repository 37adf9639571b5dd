//! Settings of the query API: where it listens, who is let in, who sees what, and how much.

mod access;
mod auth;
mod cors;
mod graphql;
mod limits;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use headwater_connectors::Secret;
use headwater_query_api::{AccessOptions, ROLES_MAX};
use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::suggestion;
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;

use self::access::Access;
use self::auth::Auth;
use self::cors::Cors;
use self::graphql::GraphQl;
use self::limits::Limits;
use super::channels::{Channel, Select};
use super::engines::Wrong;
use super::quantity::{ByteSize, Span};
use super::settings::unplaced;

/// Least length of a secret, in bytes.
const SECRET_MIN: usize = 32;

/// The query API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Api {
    /// Address and port.
    pub(crate) listen: Spanned<SocketAddr>,
    /// How callers prove who they are; without it nobody is asked.
    pub(crate) auth: Option<Auth>,
    /// What callers see of each model, by its name.
    pub(crate) access: BTreeMap<String, Spanned<Access>>,
    /// Shapes of models for kinds of readers, by their names.
    pub(crate) channels: BTreeMap<String, Spanned<Channel>>,
    /// How the channel of a request is found: the first that matches. By the header `X-Channel` otherwise.
    pub(crate) select: Option<Vec<Spanned<Select>>>,
    /// Whether requests of no channel are refused.
    pub(crate) channel_required: Option<Spanned<bool>>,
    /// Requests that take longer are logged; `off`: none is.
    pub(crate) slow_query: SlowQuery,
    /// Whether answers tell how long their parts took.
    pub(crate) server_timing: bool,
    /// How much callers may ask for.
    pub(crate) limits: Limits,
    /// Pages of which other origins may read answers in a browser.
    pub(crate) cors: Option<Cors>,
    /// Documents kept at hand.
    pub(crate) cache: Cache,
    /// Whether answers are compressed for clients that take them so.
    pub(crate) compression: bool,
    /// How GraphQL is served.
    pub(crate) graphql: GraphQl,
    /// Seals the cursors of lists, and keys the hashes that `mask: hash` shows: servers behind one address must have the
    /// same, of at least 32 characters. Another one makes old cursors void and hashes other ones. Otherwise made once, and
    /// kept beside the documents in MongoDB, or in `data`.
    pub(crate) cursor_secret: Option<Spanned<Secret>>,
}

/// Documents kept at hand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cache {
    /// Bytes of them, at most; 0: each read goes to the store.
    pub(crate) bytes: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { bytes: ByteSize(64 << 20) }
    }
}

/// How long a request may take before it is logged; `None`: any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlowQuery(pub(crate) Option<Duration>);

/// Reads a text, or says what was expected. The text is not shown: it may be a secret put in the wrong place.
fn text<'de, D: Deserializer<'de>, T>(
    from: D,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| de::Error::custom(format_args!("expected {expected}")))
}

impl<'de> Deserialize<'de> for SlowQuery {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from, "a duration like 250ms or 2s, or off", |text| match text {
            "off" => Some(Self(None)),
            text => Span::parse(text).map(|span| Self(Some(span.0))),
        })
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: unplaced(SocketAddr::from(([127, 0, 0, 1], 8080))),
            auth: None,
            access: BTreeMap::new(),
            channels: BTreeMap::new(),
            select: None,
            channel_required: None,
            slow_query: SlowQuery(Some(Duration::from_millis(250))),
            server_timing: false,
            limits: Limits::default(),
            cors: None,
            cache: Cache::default(),
            compression: true,
            graphql: GraphQl::default(),
            cursor_secret: None,
        }
    }
}

impl Api {
    /// As the query API takes it; files are relative to `folder`.
    pub(crate) fn access_options(&self, folder: &Path) -> AccessOptions {
        AccessOptions {
            auth: self.auth.as_ref().map(|auth| auth.options(folder)),
            rules: self.access.iter().map(|(model, access)| (model.clone(), access.value.rule())).collect(),
            limits: self.limits.options(),
            cors: self.cors.as_ref().map(Cors::options),
        }
    }

    /// What is wrong although every value by itself is right.
    pub(in crate::config) fn validate(&self) -> Option<Wrong> {
        let wrong = |at, message: String, help: &str| Some((at, message, help.to_string()));
        if let (None, Some((model, rule))) = (&self.auth, self.access.first_key_value()) {
            let help = "say under `api.auth` how callers prove who they are, or take the rules out";
            return wrong(rule.referenced, format!("`api.access.{model}` needs `api.auth`: nobody is asked"), help);
        }
        if let Some(auth) = &self.auth {
            if let Some(found) = auth.validate() {
                return Some(found);
            }
            if auth.jwt.is_empty() && auth.api_keys.is_empty() && !auth.anonymous {
                let at = self.listen.referenced;
                return wrong(at, "`api.auth` lets nobody in".into(), "add an issuer to `jwt`, or a key to `api_keys`");
            }
        }
        let mut roles: Vec<&String> = Vec::new();
        for access in self.access.values() {
            roles.extend(access.value.role_names());
            roles.sort();
            roles.dedup();
            if roles.len() > ROLES_MAX {
                let help = "let the issuer put people into groups, and name those";
                return wrong(access.referenced, format!("`api.access` names more than {ROLES_MAX} roles"), help);
            }
        }
        if let Some(found) = self.cors.as_ref().and_then(Cors::validate) {
            return Some(found);
        }
        if let Some(secret) = self.cursor_secret.as_ref().filter(|secret| secret.value.reveal().len() < SECRET_MIN) {
            let help =
                "cursors are sealed and masked fields hashed with it: take `openssl rand -base64 32`, or leave it out";
            let message = format!("`api.cursor_secret` is shorter than {SECRET_MIN} characters");
            return wrong(secret.referenced, message, help);
        }
        let graphql = || self.graphql.validate();
        self.validate_channels().or_else(graphql).or_else(|| self.limits.validate())
    }

    /// What of the rules does not fit the models: `fields` and `indexes` of each, by their paths. Where `all_declared`,
    /// there are no other models.
    pub(in crate::config) fn check_models(&self, models: &[ReadModel], all_declared: bool) -> Vec<Wrong> {
        let mut found = Vec::new();
        for (name, access) in &self.access {
            let Some(model) = models.iter().find(|model| model.name == *name) else {
                if all_declared {
                    let help = suggestion(name, models.iter().map(|model| model.name.as_str()));
                    let message = format!("`api.access` names the model `{name}`, which is not there");
                    found.push((access.referenced, message, help));
                }
                continue;
            };
            found.extend(access.value.misfits(model));
        }
        found
    }
}
