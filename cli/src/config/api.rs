//! Settings of the query API: where it listens, who is let in, who sees what, and how much.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use headwater_connectors::Secret;
use headwater_query_api::{
    AccessOptions, Algorithm, ApiKeyOptions, AuthOptions, BindingRule, CorsOptions, GraphQlOptions, IssuerOptions,
    KeySource, LimitOptions, Mask, MaskRule, ModelRule, ROLES_MAX, Rate, TrustedDocuments, mixed_algorithms,
};
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;

use super::channels::{Channel, Select};
use super::engines::Wrong;
use super::quantity::{ByteSize, Span};
use super::settings::unplaced;

/// Least number for `limits.sending_bytes_max`: with less, answers would keep each other waiting.
const SENDING_BYTES_LEAST: u64 = 1 << 20;
/// Least time for `jwks.refresh`: an issuer is asked that often as long as the process runs.
const REFRESH_LEAST: Duration = Duration::from_secs(10);

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
    /// Signs the cursors of lists: servers behind one address must have the same. Otherwise made once, and kept beside the
    /// documents in MongoDB, or in `data`.
    pub(crate) cursor_secret: Option<Secret>,
}

/// How GraphQL is served.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GraphQl {
    /// Operations of one request, at most; 0 refuses arrays.
    batch_max: Option<Spanned<usize>>,
    /// Bytes of persisted queries that are kept; 0 keeps none.
    persisted_queries: Option<ByteSize>,
    /// Documents that callers name by their ids.
    trusted_documents: Option<Trusted>,
    /// Operations that run on one WebSocket at the same time.
    subscriptions_max: Option<Spanned<usize>>,
}

/// Documents that callers name by their ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trusted {
    /// A folder of `*.graphql` or a manifest in JSON, relative to the configuration file.
    path: PathBuf,
    /// Whether nothing else is answered.
    #[serde(default)]
    only: bool,
}

/// How callers prove who they are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// Whether a request without credentials is answered, with the role `anonymous`.
    pub(crate) anonymous: bool,
    /// Whose tokens are believed.
    pub(crate) jwt: Vec<Spanned<Issuer>>,
    /// Keys for programs.
    pub(crate) api_keys: Vec<Spanned<ApiKey>>,
}

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    /// The `iss` of its tokens.
    issuer: String,
    /// The `aud` of tokens meant for this API; one of them is enough.
    audience: OneOrMore,
    /// Algorithms its tokens are signed with.
    algorithms: Spanned<Vec<AlgorithmName>>,
    /// Its published keys.
    #[serde(default)]
    jwks: Option<Jwks>,
    /// A secret that is shared with it, for the HMAC algorithms.
    #[serde(default)]
    secret: Option<Secret>,
    /// How far its clock and ours may be apart.
    #[serde(default)]
    leeway: Option<Span>,
    /// Claims that must be there.
    #[serde(default)]
    required: Vec<String>,
    /// Claim that names the subject.
    #[serde(default)]
    subject: Option<String>,
    /// Claim with the caller's roles.
    #[serde(default)]
    roles: Option<String>,
}

/// Where published keys are: exactly one of the two.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwks {
    /// Behind `http` or `https`.
    #[serde(default)]
    url: Option<Spanned<String>>,
    /// In a file, relative to the configuration file.
    #[serde(default)]
    file: Option<PathBuf>,
    /// Least time between two fetches.
    #[serde(default)]
    refetch_min: Option<Span>,
    /// Time after which keys are fetched again.
    #[serde(default)]
    refresh: Option<Spanned<Span>>,
}

/// A key for a program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKey {
    name: String,
    /// SHA-256 of the key, 64 hexadecimal digits.
    sha256: Sha256Hex,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    claims: BTreeMap<String, serde_json::Value>,
}

/// What callers see of a model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Access {
    /// Roles that may read it; every caller that is let in otherwise.
    roles: Option<Vec<String>>,
    /// Whose a document is.
    owner: Option<BindingSettings>,
    /// Which tenant a document belongs to.
    tenant: Option<BindingSettings>,
    /// Fields that are not shown as they are.
    masks: Vec<MaskSettings>,
}

/// A caller sees only documents whose value is that of a claim.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingSettings {
    claim: String,
    /// Path of a declared index; the document's id otherwise.
    #[serde(default)]
    field: Option<Spanned<String>>,
    /// Roles that see every document.
    #[serde(default)]
    except: Vec<String>,
}

/// Some fields, and how they are shown.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaskSettings {
    fields: Vec<Spanned<String>>,
    #[serde(default)]
    mask: MaskWord,
    /// Roles that see them as they are.
    #[serde(default)]
    except: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MaskWord {
    #[default]
    Hidden,
    Partial,
    Hash,
}

/// How much callers may ask for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Requests of one caller.
    principal: Option<RateSettings>,
    /// Requests from one address.
    address: Option<RateSettings>,
    /// Proxies in front that append to `X-Forwarded-For`.
    trusted_hops: usize,
    /// Requests that are answered at the same time.
    requests_max: Option<Spanned<usize>>,
    /// Bytes of answers that are on their way to clients at the same time.
    sending_bytes_max: Option<Spanned<ByteSize>>,
    /// Connections that are open at the same time.
    connections_max: Option<Spanned<usize>>,
    /// Connections from one address that are open at the same time.
    connections_per_address_max: Option<Spanned<usize>>,
    /// Live streams of one caller that are open at the same time.
    streams_max: Option<Spanned<usize>>,
    /// How long a request may take.
    deadline: Option<Spanned<Span>>,
    /// How long work may wait for a processor before requests are turned away.
    queue_delay_max: Option<Span>,
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

/// A rate, and how many may come at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateSettings {
    /// As `100/s`, `600/m` or `1000/h`.
    rate: RateText,
    /// Requests at once after a pause; as many as the rate has otherwise.
    #[serde(default)]
    burst: Option<NonZeroU32>,
}

/// Pages of other origins.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cors {
    origins: Spanned<Vec<String>>,
    #[serde(default)]
    credentials: bool,
    #[serde(default)]
    max_age: Option<Span>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Clone, Copy, Debug)]
struct AlgorithmName(Algorithm);
#[derive(Clone, Copy, Debug)]
struct Sha256Hex([u8; 32]);
#[derive(Clone, Copy, Debug)]
struct RateText(NonZeroU32, Duration);

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

impl<'de> Deserialize<'de> for AlgorithmName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384 or HS512";
        text(from, expected, |text| Algorithm::from_str(text).ok().map(Self))
    }
}

impl<'de> Deserialize<'de> for Sha256Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from, "the SHA-256 of the key, 64 hexadecimal digits: printf %s KEY | sha256sum", |text| {
            let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
            let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            (digits.len() == 64).then_some(Self(bytes.try_into().ok()?))
        })
    }
}

impl<'de> Deserialize<'de> for SlowQuery {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from, "a duration like 250ms or 2s, or off", |text| match text {
            "off" => Some(Self(None)),
            text => Span::parse(text).map(|span| Self(Some(span.0))),
        })
    }
}

impl<'de> Deserialize<'de> for RateText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from, "a rate like 100/s, 600/m or 1000/h", |text| {
            let (number, unit) = text.split_once('/')?;
            let seconds = match unit.trim() {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => return None,
            };
            Some(Self(number.trim().parse().ok()?, Duration::from_secs(seconds)))
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
            cors: self.cors.as_ref().map(|cors| CorsOptions {
                origins: cors.origins.value.clone(),
                credentials: cors.credentials,
                max_age: cors.max_age.map_or(Duration::from_secs(600), |age| age.0),
            }),
        }
    }

    /// What is wrong although every value by itself is right.
    pub(super) fn validate(&self) -> Option<Wrong> {
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
        if let Some(cors) = &self.cors {
            let any = cors.origins.value.iter().any(|origin| origin == "*");
            let at = cors.origins.referenced;
            if any && (cors.credentials || cors.origins.value.len() > 1) {
                let help = "name the origins, or leave `credentials` out";
                return wrong(at, "`*` stands alone, and not with `credentials`".into(), help);
            }
            let is_origin = |origin: &String| {
                let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
                origin == "*" || rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', ' ', '*']))
            };
            if let Some(origin) = cors.origins.value.iter().find(|origin| !is_origin(origin)) {
                let help = "write it as browsers do, without a path: https://app.example.com";
                return wrong(at, format!("`{origin}` is no origin"), help);
            }
        }
        let graphql = || self.graphql.validate();
        self.validate_channels().or_else(graphql).or_else(|| self.limits.validate())
    }

    /// What of the rules does not fit the models: `fields` and `indexes` of each, by their paths.
    pub(super) fn check_models(&self, models: &[headwater_schemas::model::definition::ReadModel]) -> Vec<Wrong> {
        let mut found = Vec::new();
        for (name, access) in &self.access {
            let Some(model) = models.iter().find(|model| model.name == *name) else {
                let names = || models.iter().map(|model| model.name.as_str());
                let help = match headwater_schemas::nearest(name, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                };
                found.push((
                    access.referenced,
                    format!("`api.access` names the model `{name}`, which is not there"),
                    help,
                ));
                continue;
            };
            let indexes: Vec<String> = model.indexes.iter().map(|index| index.name()).collect();
            for binding in access.value.owner.iter().chain(&access.value.tenant) {
                let Some(field) = &binding.field else { continue };
                if !indexes.contains(&field.value) {
                    let help = format!("add it to `indexes` of {name}: lists are restricted by it");
                    found.push((field.referenced, format!("`{}` is no declared index of {name}", field.value), help));
                }
            }
            for field in access.value.masks.iter().flat_map(|mask| &mask.fields) {
                if !model.has_field(&field.value) {
                    let help = "write the path as it stands in documents: customer.email".to_string();
                    found.push((field.referenced, format!("{name} has no field `{}`", field.value), help));
                }
            }
        }
        found
    }
}

impl GraphQl {
    /// As the query API takes it; files are relative to `folder`.
    pub(crate) fn options(&self, folder: &Path) -> GraphQlOptions {
        let defaults = GraphQlOptions::default();
        GraphQlOptions {
            batch_max: self.batch_max.as_ref().map_or(defaults.batch_max, |max| max.value),
            persisted_bytes_max: self.persisted_queries.map_or(defaults.persisted_bytes_max, |size| size.0 as usize),
            trusted: self
                .trusted_documents
                .as_ref()
                .map(|of| TrustedDocuments { path: folder.join(&of.path), only: of.only }),
            subscriptions_max: self.subscriptions_max.as_ref().map_or(defaults.subscriptions_max, |max| max.value),
            init_wait: defaults.init_wait,
        }
    }

    /// Whether there are documents that callers name by their ids.
    pub(super) fn has_trusted_documents(&self) -> bool {
        self.trusted_documents.is_some()
    }

    fn validate(&self) -> Option<Wrong> {
        let wrong = |of: &Spanned<usize>, name: &str, least: usize| {
            let message = format!("`api.graphql.{name}` must be from {least} to 1000");
            Some((of.referenced, message, "leave it out for what is usually right".to_string()))
        };
        match (&self.batch_max, &self.subscriptions_max) {
            (Some(max), _) if max.value > 1000 => wrong(max, "batch_max", 0),
            (_, Some(max)) if !(1..=1000).contains(&max.value) => wrong(max, "subscriptions_max", 1),
            _ => None,
        }
    }
}

impl Auth {
    fn options(&self, folder: &Path) -> AuthOptions {
        let key = |key: &Spanned<ApiKey>| ApiKeyOptions {
            name: key.value.name.clone(),
            sha256: key.value.sha256.0,
            roles: key.value.roles.clone(),
            claims: key.value.claims.clone().into_iter().collect(),
        };
        AuthOptions {
            anonymous: self.anonymous,
            issuers: self.jwt.iter().map(|issuer| issuer.value.options(folder)).collect(),
            api_keys: self.api_keys.iter().map(key).collect(),
        }
    }

    fn validate(&self) -> Option<Wrong> {
        let wrong = |at, message: String, help: &str| Some((at, message, help.to_string()));
        for (number, issuer) in self.jwt.iter().enumerate() {
            let (at, issuer) = (issuer.referenced, &issuer.value);
            if self.jwt[..number].iter().any(|other| other.value.issuer == issuer.issuer) {
                return wrong(at, format!("a second issuer `{}`", issuer.issuer), "keep one of the two");
            }
            if issuer.audiences().is_empty() {
                return wrong(at, "`audience` is empty".into(), "a token for another API must not be good here");
            }
            let algorithms: Vec<Algorithm> = issuer.algorithms.value.iter().map(|name| name.0).collect();
            let at_algorithms = issuer.algorithms.referenced;
            if algorithms.is_empty() {
                return wrong(
                    at_algorithms,
                    "`algorithms` is empty".into(),
                    "name those the issuer signs with: [RS256]",
                );
            }
            if mixed_algorithms(&algorithms) {
                let help = "a public key could be taken for a secret: make two issuers of it";
                return wrong(at_algorithms, "HMAC algorithms and others are mixed".into(), help);
            }
            if let Some(refresh) = issuer.jwks.as_ref().and_then(|jwks| jwks.refresh.as_ref())
                && refresh.value.0 < REFRESH_LEAST
            {
                let help =
                    "10m is usually right: a token with a key that is not known makes the keys be fetched at once";
                return wrong(refresh.referenced, "`jwks.refresh` must be 10s or longer".into(), help);
            }
            let is_hmac = matches!(algorithms[0], Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
            match (&issuer.jwks, &issuer.secret, is_hmac) {
                (Some(jwks), None, false) => match (&jwks.url, &jwks.file) {
                    (Some(url), None) if !url.value.starts_with("https://") && !url.value.starts_with("http://") => {
                        return wrong(url.referenced, "`url` must begin with https:// or http://".into(), "");
                    }
                    (Some(_), None) | (None, Some(_)) => {}
                    _ => return wrong(at, "`jwks` needs either `url` or `file`".into(), "keep one of the two"),
                },
                (None, Some(secret), true) if secret.reveal().len() < 32 => {
                    let help = "take 32 random bytes: openssl rand -base64 32";
                    return wrong(at, "the `secret` of the issuer is shorter than 32 characters".into(), help);
                }
                (None, Some(_), true) => {}
                (_, _, true) => {
                    return wrong(
                        at,
                        "HMAC algorithms need `secret`, and no `jwks`".into(),
                        "or name other algorithms",
                    );
                }
                (_, _, false) => {
                    return wrong(
                        at,
                        "these algorithms need `jwks`, and no `secret`".into(),
                        "or name HMAC algorithms",
                    );
                }
            }
        }
        for (number, key) in self.api_keys.iter().enumerate() {
            let others = &self.api_keys[..number];
            let same = |other: &Spanned<ApiKey>| {
                other.value.name == key.value.name || other.value.sha256.0 == key.value.sha256.0
            };
            if others.iter().any(same) {
                let message = format!("the API key `{}` is there twice, by name or by hash", key.value.name);
                return wrong(key.referenced, message, "each caller has a name and a key of its own");
            }
        }
        None
    }
}

impl Issuer {
    fn audiences(&self) -> Vec<String> {
        match &self.audience {
            OneOrMore::One(one) if one.is_empty() => Vec::new(),
            OneOrMore::One(one) => vec![one.clone()],
            OneOrMore::More(more) => more.clone(),
        }
    }

    fn options(&self, folder: &Path) -> IssuerOptions {
        let jwks = self.jwks.as_ref();
        let keys = match (jwks.and_then(|jwks| jwks.url.as_ref()), jwks.and_then(|jwks| jwks.file.as_ref())) {
            (Some(url), _) => KeySource::Url(url.value.clone()),
            (None, Some(file)) => KeySource::File(folder.join(file)),
            (None, None) => KeySource::Secret(
                self.secret.as_ref().map_or_else(Vec::new, |secret| secret.reveal().as_bytes().to_vec()),
            ),
        };
        let defaults = IssuerOptions::new("", "", Algorithm::RS256, keys);
        IssuerOptions {
            issuer: self.issuer.clone(),
            audiences: self.audiences(),
            algorithms: self.algorithms.value.iter().map(|name| name.0).collect(),
            leeway: self.leeway.map_or(defaults.leeway, |span| span.0),
            required: self.required.clone(),
            subject: self.subject.clone().unwrap_or(defaults.subject),
            roles: self.roles.clone().unwrap_or(defaults.roles),
            refetch_min: jwks.and_then(|jwks| jwks.refetch_min).map_or(defaults.refetch_min, |span| span.0),
            refresh: jwks.and_then(|jwks| jwks.refresh.as_ref()).map_or(defaults.refresh, |span| span.value.0),
            keys: defaults.keys,
        }
    }
}

impl Access {
    fn rule(&self) -> ModelRule {
        let binding = |of: &BindingSettings| BindingRule {
            claim: of.claim.clone(),
            field: of.field.as_ref().map(|field| field.value.clone()),
            except: of.except.clone(),
        };
        let mask = |of: &MaskSettings| MaskRule {
            fields: of.fields.iter().map(|field| field.value.clone()).collect(),
            mask: match of.mask {
                MaskWord::Hidden => Mask::Hidden,
                MaskWord::Partial => Mask::Partial,
                MaskWord::Hash => Mask::Hash,
            },
            except: of.except.clone(),
        };
        ModelRule {
            roles: self.roles.clone(),
            owner: self.owner.as_ref().map(binding),
            tenant: self.tenant.as_ref().map(binding),
            masks: self.masks.iter().map(mask).collect(),
        }
    }

    fn role_names(&self) -> impl Iterator<Item = &String> {
        let bindings = self.owner.iter().chain(&self.tenant).flat_map(|binding| &binding.except);
        self.roles.iter().flatten().chain(bindings).chain(self.masks.iter().flat_map(|mask| &mask.except))
    }
}

impl Limits {
    fn options(&self) -> LimitOptions {
        let rate = |of: &RateSettings| {
            let RateText(requests, per) = of.rate;
            Rate { requests, per, burst: of.burst.unwrap_or(requests) }
        };
        let defaults = LimitOptions::default();
        LimitOptions {
            principal: self.principal.as_ref().map(rate),
            address: self.address.as_ref().map(rate),
            trusted_hops: self.trusted_hops,
            requests_max: self.requests_max.as_ref().map_or(defaults.requests_max, |max| max.value),
            sending_bytes_max: self
                .sending_bytes_max
                .as_ref()
                .map_or(defaults.sending_bytes_max, |size| usize::try_from(size.value.0).unwrap_or(usize::MAX)),
            connections_max: self.connections_max.as_ref().map_or(defaults.connections_max, |max| max.value),
            connections_per_address_max: self.connections_per_address_max.as_ref().map(|max| max.value),
            streams_max: self.streams_max.as_ref().map(|max| max.value),
            deadline: self.deadline.as_ref().map_or(defaults.deadline, |span| span.value.0),
            queue_delay_max: self.queue_delay_max.map_or(defaults.queue_delay_max, |span| span.0),
        }
    }

    fn validate(&self) -> Option<Wrong> {
        for (name, max) in [
            ("requests_max", &self.requests_max),
            ("connections_max", &self.connections_max),
            ("connections_per_address_max", &self.connections_per_address_max),
            ("streams_max", &self.streams_max),
        ] {
            if let Some(max) = max
                && !(1..=1_000_000).contains(&max.value)
            {
                let message = format!("`api.limits.{name}` must be from 1 to 1000000");
                return Some((max.referenced, message, "leave it out for what is usually right".to_string()));
            }
        }
        if let Some(size) = &self.sending_bytes_max
            && size.value.0 < SENDING_BYTES_LEAST
        {
            let message = "`api.limits.sending_bytes_max` must be 1MiB or more".to_string();
            return Some((size.referenced, message, "512MiB is usually right".to_string()));
        }
        if let Some(deadline) = &self.deadline
            && deadline.value.0.is_zero()
        {
            let message = "`api.limits.deadline` must be longer than nothing".to_string();
            return Some((deadline.referenced, message, "10s is usually right".to_string()));
        }
        None
    }
}
