//! What is configured of who may see what, and how much.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

pub use jsonwebtoken::Algorithm;

/// Role of callers without credentials, where they are let in.
pub const ANONYMOUS_ROLE: &str = "anonymous";

/// Who may see what, and how much.
#[derive(Clone, Debug, Default)]
pub struct AccessOptions {
    /// How callers prove who they are; `None`: nobody is asked, and everybody sees everything.
    pub auth: Option<AuthOptions>,
    /// What callers see of each model. With `auth` a model that is not named here is served to nobody.
    pub rules: BTreeMap<String, ModelRule>,
    /// How much callers may ask for.
    pub limits: LimitOptions,
    /// Pages of which other origins may read answers in a browser.
    pub cors: Option<CorsOptions>,
}

/// How callers prove who they are.
#[derive(Clone, Debug, Default)]
pub struct AuthOptions {
    /// Whether a request without credentials is answered, with the role [`ANONYMOUS_ROLE`].
    pub anonymous: bool,
    /// Whose tokens are believed.
    pub issuers: Vec<IssuerOptions>,
    /// Keys for programs.
    pub api_keys: Vec<ApiKeyOptions>,
}

/// An issuer of JSON Web Tokens.
#[derive(Clone, Debug)]
pub struct IssuerOptions {
    /// The `iss` of its tokens, compared letter by letter.
    pub issuer: String,
    /// The `aud` of tokens meant for this API; one of them is enough. Not empty.
    pub audiences: Vec<String>,
    /// Algorithms its tokens are signed with: HMAC ones, or others, and never both. Not empty.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub keys: KeySource,
    /// How far its clock and ours may be apart.
    pub leeway: Duration,
    /// Claims that must be there, beside `exp` and the one that names the subject.
    pub required: Vec<String>,
    /// Claim that names the subject.
    pub subject: String,
    /// Claim with the caller's roles: an array of texts, or one text with blanks between. Points lead into objects.
    pub roles: String,
    /// Least time between two fetches of the keys, whatever tokens come.
    pub refetch_min: Duration,
    /// Time after which keys are fetched again, so that those taken back are forgotten.
    pub refresh: Duration,
}

/// Where the keys of an issuer are.
#[derive(Clone)]
pub enum KeySource {
    /// A JSON Web Key Set behind `http` or `https`.
    Url(String),
    /// A JSON Web Key Set in a file, read at start and at every refresh.
    File(PathBuf),
    /// A secret that is shared with the issuer, for the HMAC algorithms.
    Secret(Vec<u8>),
}

/// A key for a program.
#[derive(Clone)]
pub struct ApiKeyOptions {
    /// Names the caller in logs.
    pub name: String,
    /// SHA-256 of the key. The key itself must be random, 128 bits or more: it is not stretched.
    pub sha256: [u8; 32],
    /// The caller's roles.
    pub roles: Vec<String>,
    /// The caller's claims, for owner and tenant rules.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// What callers see of a model.
#[derive(Clone, Debug, Default)]
pub struct ModelRule {
    /// Roles that may read it; `None`: every caller that is let in.
    pub roles: Option<Vec<String>>,
    /// Whose a document is.
    pub owner: Option<BindingRule>,
    /// Which tenant a document belongs to.
    pub tenant: Option<BindingRule>,
    /// Fields that are not shown as they are.
    pub masks: Vec<MaskRule>,
}

/// A caller sees only documents whose value is that of a claim.
#[derive(Clone, Debug)]
pub struct BindingRule {
    /// The claim. Points lead into objects, unless a claim has just this name.
    pub claim: String,
    /// Path of the declared index with the value; `None`: the document's id.
    pub field: Option<String>,
    /// Roles that see every document.
    pub except: Vec<String>,
}

/// Some fields, and how they are shown.
#[derive(Clone, Debug)]
pub struct MaskRule {
    /// Their paths.
    pub fields: Vec<String>,
    /// How they are shown.
    pub mask: Mask,
    /// Roles that see them as they are.
    pub except: Vec<String>,
}

/// How a field is shown to those who may not see it. A field under any mask cannot be filtered or sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mask {
    /// The same value has the same hash within a field, and says no more.
    Hash,
    /// The last four characters of eight or more.
    Partial,
    /// Not at all: as if the model had no such field.
    Hidden,
}

/// How much callers may ask for.
#[derive(Clone, Debug)]
pub struct LimitOptions {
    /// Requests of one caller; `None`: any number.
    pub principal: Option<Rate>,
    /// Requests from one address, looked at before credentials are; `None`: any number.
    pub address: Option<Rate>,
    /// Proxies in front of this API. The caller's address is taken from that place of `X-Forwarded-For`, counted from
    /// its end; 0 takes the address of the connection.
    pub trusted_hops: usize,
    /// Requests that are answered at the same time; more are told to come back. The last quarter is kept from a caller who has
    /// a quarter.
    /// Callers who do not say who they are are told apart by their addresses, where [`Self::trusted_hops`] or
    /// [`Self::address`] is set, and are not limited so where neither is.
    pub requests_max: usize,
    /// Bytes of answers that are on their way to clients at the same time, at most; one that would be too much is told to come
    /// back. Answers of up to 64 KiB and live streams are not counted, and what several answers share is counted once. The last
    /// quarter is kept from a caller who has a quarter, as of [`Self::requests_max`].
    pub sending_bytes_max: usize,
    /// Connections that are open at the same time; more wait to be accepted.
    pub connections_max: usize,
    /// Connections from one address that are open at the same time; more are closed at once. Not looked at behind trusted
    /// proxies, whose addresses are all that is seen then. `None`: any number, since a balancer in front may hide who comes.
    pub connections_per_address_max: Option<usize>,
    /// Live streams and subscriptions of one caller that are open at the same time. Callers who do not say who they are
    /// are told apart by their addresses. `None`: any number.
    pub streams_max: Option<usize>,
    /// How long a request may take.
    pub deadline: Duration,
    /// How long work may wait for a processor before requests are turned away.
    pub queue_delay_max: Duration,
}

/// So many requests in so long, evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub requests: NonZeroU32,
    /// In so long.
    pub per: Duration,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

/// Pages of which other origins may read answers in a browser.
#[derive(Clone, Debug)]
pub struct CorsOptions {
    /// Origins as browsers write them: `https://app.example.com`. `*` alone means every origin.
    pub origins: Vec<String>,
    /// Whether browsers may send cookies and other credentials they keep by themselves; not with `*`.
    pub credentials: bool,
    /// How long browsers may remember what is allowed.
    pub max_age: Duration,
}

impl IssuerOptions {
    /// An issuer with everything else as it is usually right.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, algorithm: Algorithm, keys: KeySource) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            algorithms: vec![algorithm],
            keys,
            leeway: Duration::from_secs(30),
            required: Vec::new(),
            subject: "sub".into(),
            roles: "roles".into(),
            refetch_min: Duration::from_secs(30),
            refresh: Duration::from_secs(600),
        }
    }
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            principal: None,
            address: None,
            trusted_hops: 0,
            requests_max: 1024,
            sending_bytes_max: 512 << 20,
            connections_max: 20_000,
            connections_per_address_max: None,
            streams_max: None,
            deadline: Duration::from_secs(10),
            queue_delay_max: Duration::from_millis(200),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Secret(_) => f.write_str("Secret(…)"),
        }
    }
}

impl fmt::Debug for ApiKeyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyOptions").field("name", &self.name).field("roles", &self.roles).finish_non_exhaustive()
    }
}
