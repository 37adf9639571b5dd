//! How callers prove who they are: tokens of issuers, and keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use headwater_connectors::Secret;
use headwater_query_api::{Algorithm, ApiKeyOptions, AuthOptions, IssuerOptions, KeySource, mixed_algorithms};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::{SECRET_MIN, text};
use crate::config::engines::Wrong;
use crate::config::quantity::Span;

/// Least time for `jwks.refresh`: an issuer is asked that often as long as the process runs.
const REFRESH_LEAST: Duration = Duration::from_secs(10);

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

impl Auth {
    pub(super) fn options(&self, folder: &Path) -> AuthOptions {
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

    pub(super) fn validate(&self) -> Option<Wrong> {
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
                (None, Some(secret), true) if secret.reveal().len() < SECRET_MIN => {
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
