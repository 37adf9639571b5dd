//! JSON Web Tokens: whose they are, whether they hold, until when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, Header, Validation, decode, decode_header, get_current_timestamp};
use serde_json::{Map, Value};

use super::keys::Keys;
use super::options::{IssuerOptions, LimitOptions};
use super::principal::{Principal, RoleNames, claim};

/// Longest token looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Roles of one token that are looked at.
const TOKEN_ROLES_MAX: usize = 256;

/// An issuer whose tokens are believed.
pub(super) struct Issuer {
    options: IssuerOptions,
    pub(super) keys: Arc<Keys>,
}

/// Why a token is not believed. Told to the log, and to the caller only as "it is not valid".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed,
    UnknownIssuer,
    Algorithm,
    UnknownKey,
    Signature,
    Expired,
    NotYetValid,
    Audience,
    Claim,
    /// The keys are not there yet, or could not be fetched anew in time; the token may be good.
    NoKeys,
}

impl Refused {
    /// For logs and metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::UnknownIssuer => "token_issuer",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Audience => "token_audience",
            Self::Claim => "token_claim",
            Self::NoKeys => "keys_unavailable",
        }
    }
}

impl Issuer {
    pub(super) fn new(options: &IssuerOptions, limits: &LimitOptions) -> Self {
        Self { keys: Arc::new(Keys::new(options, limits)), options: options.clone() }
    }

    pub(super) fn refresh(&self) -> Duration {
        self.options.refresh
    }

    async fn verify(
        &self,
        token: &str,
        header: &Header,
        names: &RoleNames,
        looked_at: &[String],
    ) -> Result<Principal, Refused> {
        let algorithm = header.alg;
        if !self.options.algorithms.contains(&algorithm) {
            return Err(Refused::Algorithm);
        }
        let mut candidates = self.keys.candidates(header.kid.as_deref(), algorithm);
        if candidates.is_empty() {
            // In a box of its own: it is rare, and every request carries the room for it.
            Box::pin(self.keys.refetch()).await.map_err(|_| Refused::NoKeys)?;
            candidates = self.keys.candidates(header.kid.as_deref(), algorithm);
        }
        if candidates.is_empty() {
            return Err(if self.keys.are_there() { Refused::UnknownKey } else { Refused::NoKeys });
        }
        let validation = self.validation(algorithm);
        let mut refused = Refused::Signature;
        for key in candidates.iter() {
            match decode::<Map<String, Value>>(token, &key.decoding, &validation) {
                Ok(found) => {
                    let mut principal = self.principal(&found.claims, names, looked_at)?;
                    principal.taken_back = Some(key.gone.clone());
                    return Ok(principal);
                }
                Err(error) => match error.kind() {
                    ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => {}
                    ErrorKind::ExpiredSignature => refused = Refused::Expired,
                    ErrorKind::ImmatureSignature => refused = Refused::NotYetValid,
                    ErrorKind::InvalidAudience => refused = Refused::Audience,
                    ErrorKind::InvalidIssuer => refused = Refused::UnknownIssuer,
                    ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => refused = Refused::Claim,
                    _ => refused = Refused::Malformed,
                },
            }
        }
        Err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.options.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_audience(&self.options.audiences);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation
    }

    fn principal(
        &self,
        claims: &Map<String, Value>,
        names: &RoleNames,
        looked_at: &[String],
    ) -> Result<Principal, Refused> {
        let now = get_current_timestamp();
        let leeway = self.options.leeway.as_secs();
        // A text, not a list that has it: the issuer was chosen by it.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.options.issuer) {
            return Err(Refused::UnknownIssuer);
        }
        match claims.get("iat").map(Value::as_f64) {
            None => {}
            Some(Some(issued)) if issued <= (now + leeway) as f64 => {}
            Some(Some(_)) => return Err(Refused::NotYetValid),
            Some(None) => return Err(Refused::Claim),
        }
        let is_there = |path: &String| claim(claims, path).is_some_and(|value| !value.is_null());
        if !self.options.required.iter().all(is_there) {
            return Err(Refused::Claim);
        }
        let subject = match claim(claims, &self.options.subject) {
            Some(Value::String(subject)) if !subject.is_empty() => subject.clone(),
            Some(Value::Number(subject)) => subject.to_string(),
            _ => return Err(Refused::Claim),
        };
        let roles = match claim(claims, &self.options.roles) {
            Some(Value::String(words)) => names.set(words.split(' ').take(TOKEN_ROLES_MAX)),
            Some(Value::Array(words)) => names.set(words.iter().take(TOKEN_ROLES_MAX).filter_map(Value::as_str)),
            _ => names.set([]),
        };
        let ends = claims.get("exp").and_then(Value::as_f64).ok_or(Refused::Claim)? as u64;
        let left = ends.saturating_add(leeway).saturating_sub(now);
        let expires = Instant::now().checked_add(Duration::from_secs(left));
        // `|` stands in no issuer that is a URL, so no two pairs read the same.
        let name = format!("{}|{subject}", self.options.issuer);
        Ok(Principal::verified(name, roles, claims, looked_at, expires))
    }
}

/// Finds the issuer of a token and verifies it; also tells which issuer it was.
pub(super) async fn verify(
    issuers: &[Issuer],
    token: &str,
    names: &RoleNames,
    looked_at: &[String],
) -> Result<Principal, Refused> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refused::Malformed);
    }
    // `none` and algorithms nobody knows fail here: the header names none of those there are.
    let header = decode_header(token).map_err(|_| match is_of_no_algorithm(token) {
        true => Refused::Algorithm,
        false => Refused::Malformed,
    })?;
    // An extension that must be understood, or a token that is not in plain form: none is.
    if header.crit.is_some()
        || header.enc.is_some()
        || header.zip.is_some()
        || header.extras.inner().contains_key("b64")
    {
        return Err(Refused::Malformed);
    }
    let named = claimed_issuer(token).ok_or(Refused::Malformed)?;
    let issuer = issuers.iter().find(|issuer| issuer.options.issuer == named).ok_or(Refused::UnknownIssuer)?;
    issuer.verify(token, &header, names, looked_at).await
}

/// The issuer a token says it is of, before anything is verified: good to choose the keys by, and for nothing else.
fn claimed_issuer(token: &str) -> Option<String> {
    Some(part(token, 1)?.get("iss")?.as_str()?.to_string())
}

/// Whether a token's header names an algorithm that is none.
fn is_of_no_algorithm(token: &str) -> bool {
    let header = part(token, 0);
    let algorithm = header.as_ref().and_then(|header| header.get("alg")).and_then(Value::as_str);
    algorithm.is_some_and(|algorithm| algorithm.parse::<Algorithm>().is_err())
}

/// The object that a part of a token is.
fn part(token: &str, number: usize) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(number)?).ok()?).ok()
}

/// Whether HMAC and other algorithms are mixed, by which a public key could be taken for a secret.
pub fn mixed(algorithms: &[Algorithm]) -> bool {
    let hmac = |algorithm: &Algorithm| algorithm.family() == AlgorithmFamily::Hmac;
    algorithms.iter().any(hmac) && !algorithms.iter().all(hmac)
}
