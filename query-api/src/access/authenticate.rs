//! From the headers of a request to who asks.

use std::sync::Arc;
use std::time::Instant;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use tokio_util::sync::CancellationToken;

use super::api_key::ApiKeys;
use super::crypto;
use super::jwt::{self, Issuer, Refused};
use super::options::AccessOptions;
use super::principal::{Principal, RoleNames};
use super::token_cache::TokenCache;
use crate::problem::Problem;

/// A key for a program.
pub(crate) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Finds out who asks.
pub(crate) struct Authenticator {
    /// `None`: nobody is asked.
    auth: Option<Auth>,
    /// Who a caller without credentials is.
    nobody: Arc<Principal>,
}

struct Auth {
    anonymous: bool,
    issuers: Vec<Issuer>,
    api_keys: ApiKeys,
    names: RoleNames,
    /// Claims that rules look at.
    looked_at: Vec<String>,
    tokens: TokenCache,
}

/// Why credentials are not accepted.
pub(crate) struct Denied {
    /// For the log.
    pub(crate) reason: &'static str,
    /// For the caller, who is not told why.
    pub(crate) problem: Problem,
}

impl Authenticator {
    pub(super) fn new(options: &AccessOptions, names: &RoleNames) -> Self {
        let limits = &options.limits;
        let Some(auth) = &options.auth else { return Self { auth: None, nobody: Principal::everything() } };
        crypto::install();
        let bindings = options.rules.values().flat_map(|rule| rule.owner.iter().chain(&rule.tenant));
        let mut looked_at: Vec<String> = bindings.map(|binding| binding.claim.clone()).collect();
        looked_at.sort();
        looked_at.dedup();
        let auth = Auth {
            anonymous: auth.anonymous,
            issuers: auth.issuers.iter().map(|issuer| Issuer::new(issuer, limits)).collect(),
            api_keys: ApiKeys::new(&auth.api_keys, names, &looked_at),
            names: names.clone(),
            looked_at,
            tokens: TokenCache::default(),
        };
        Self { auth: Some(auth), nobody: Principal::anonymous(names) }
    }

    /// Whether anybody is asked who they are.
    pub(crate) fn asks(&self) -> bool {
        self.auth.is_some()
    }

    /// Who asks. Nothing but these two headers is looked at: whatever else claims to say who asks is not believed.
    pub(crate) async fn principal(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Denied> {
        let Some(auth) = &self.auth else { return Ok(self.nobody.clone()) };
        let mut tokens = headers.get_all(AUTHORIZATION).iter();
        let mut keys = headers.get_all(X_API_KEY).iter();
        match (tokens.next(), keys.next()) {
            (None, None) if auth.anonymous => Ok(self.nobody.clone()),
            (None, None) => Err(missing()),
            (Some(_), Some(_)) => Err(invalid("credentials_twice")),
            _ if tokens.next().is_some() || keys.next().is_some() => Err(invalid("credentials_twice")),
            (None, Some(key)) => auth.api_keys.find(key.as_bytes()).ok_or_else(|| invalid("api_key")),
            (Some(given), None) => {
                let token = given.to_str().ok().and_then(bearer).ok_or_else(|| invalid("authorization_scheme"))?;
                auth.token(token).await
            }
        }
    }

    /// Keeps the keys of all issuers current, until `stop` is cancelled.
    pub(crate) async fn follow_keys(&self, stop: CancellationToken) {
        let issuers = self.auth.iter().flat_map(|auth| &auth.issuers).filter(|issuer| issuer.keys.changes());
        futures_util::future::join_all(issuers.map(|issuer| async {
            loop {
                issuer.keys.refresh().await;
                // Both may be dropped at any time: nothing is lost but a wait.
                tokio::select! {
                    () = tokio::time::sleep(issuer.refresh()) => {}
                    () = stop.cancelled() => return,
                }
            }
        }))
        .await;
    }
}

impl Auth {
    async fn token(&self, token: &str) -> Result<Arc<Principal>, Denied> {
        // Before it is verified: keys that change meanwhile make it be verified again.
        let generation = self.issuers.iter().map(|issuer| issuer.keys.generation()).sum();
        let (tag, now) = (self.tokens.tag(token), Instant::now());
        if let Some(known) = self.tokens.get(tag, generation, now) {
            return Ok(known);
        }
        match jwt::verify(&self.issuers, token, &self.names, &self.looked_at).await {
            Ok(principal) => {
                let principal = Arc::new(principal);
                self.tokens.put(tag, generation, now, principal.clone());
                Ok(principal)
            }
            Err(refused @ Refused::NoKeys) => {
                let detail =
                    "the keys that tokens are verified with are not there, or too many wait for them; try again";
                Err(Denied { reason: refused.word(), problem: Problem::unavailable("keys_unavailable", detail, 2) })
            }
            Err(refused) => Err(invalid(refused.word())),
        }
    }
}

/// The token of `Bearer …`.
fn bearer(given: &str) -> Option<&str> {
    let (scheme, token) = given.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn missing() -> Denied {
    let detail = "send a token as `Authorization: Bearer …`, or a key as `X-API-Key`";
    Denied { reason: "no_credentials", problem: Problem::unauthenticated(detail, false) }
}

fn invalid(reason: &'static str) -> Denied {
    let detail = "what was sent to show who asks is not valid, or no longer; the server's log says why";
    Denied { reason, problem: Problem::unauthenticated(detail, true) }
}
