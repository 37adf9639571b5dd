//! Who asks: what verified credentials said, reduced to what rules look at.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::options::{ANONYMOUS_ROLE, AccessOptions};

/// Roles that rules may name, at most.
pub const ROLES_MAX: usize = 64;

/// A set of roles, as bits; only those that some rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Roles(u64);

impl Roles {
    /// Whether the two have a role in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The roles that rules name. Others make no difference and are forgotten.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoleNames(BTreeMap<String, u32>);

impl RoleNames {
    /// The roles of these rules.
    pub(super) fn of(options: &AccessOptions) -> Self {
        let mut names = BTreeMap::new();
        let rules = options.rules.values().flat_map(|rule| {
            let bindings = rule.owner.iter().chain(&rule.tenant).flat_map(|binding| &binding.except);
            rule.roles.iter().flatten().chain(bindings).chain(rule.masks.iter().flat_map(|mask| &mask.except))
        });
        for name in rules {
            let next = names.len() as u32;
            names.entry(name.clone()).or_insert(next);
        }
        // Whoever has a role beyond the number is taken not to have it; configuration refuses so many.
        names.retain(|_, number| (*number as usize) < ROLES_MAX);
        Self(names)
    }

    /// The set of these roles.
    pub(super) fn set<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Roles {
        Roles(names.into_iter().filter_map(|name| self.0.get(name)).fold(0, |bits, number| bits | 1 << number))
    }
}

/// Whose requests and streams are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// One who said who they are, by their tag.
    Known([u8; 16]),
    /// Everybody at one address who did not.
    At(u128),
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    /// Names the caller in logs: issuer and subject, or the name of an API key.
    pub(crate) name: Box<str>,
    /// Tells callers apart; all zero for one without credentials.
    pub(crate) tag: [u8; 16],
    /// What they are.
    pub(crate) roles: Roles,
    /// Claims that rules look at.
    claims: Map<String, Value>,
    /// When the credentials end.
    pub(crate) expires: Option<Instant>,
    /// Ends when the key is taken back by which the credentials were verified.
    pub(super) taken_back: Option<CancellationToken>,
    /// Whether rules about documents hold for the caller; they do not on the admin port.
    pub(crate) restricted: bool,
}

impl Principal {
    /// Someone whose credentials were verified. `claims`: all they said.
    pub(super) fn verified(
        name: String,
        roles: Roles,
        claims: &Map<String, Value>,
        looked_at: &[String],
        expires: Option<Instant>,
    ) -> Self {
        let mut tag = [0; 16];
        tag.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
        let kept = looked_at.iter().filter_map(|path| Some((path.clone(), claim(claims, path)?.clone())));
        let claims = kept.collect();
        Self { name: name.into(), tag, roles, claims, expires, taken_back: None, restricted: true }
    }

    /// A caller without credentials, where these are let in.
    pub(super) fn anonymous(names: &RoleNames) -> Arc<Self> {
        Self::without_credentials(names.set([ANONYMOUS_ROLE]), true)
    }

    /// An operator on the admin port, or any caller where nobody is asked: sees everything.
    pub(crate) fn everything() -> Arc<Self> {
        Self::without_credentials(Roles(0), false)
    }

    fn without_credentials(roles: Roles, restricted: bool) -> Arc<Self> {
        let claims = Map::new();
        Arc::new(Self { name: "".into(), tag: [0; 16], roles, claims, expires: None, taken_back: None, restricted })
    }

    /// Waits until a caller must show again who they are: the credentials end, or the key is taken back by which they were
    /// verified. For ever where neither can be.
    pub(crate) async fn ended(&self) {
        let expired = async {
            match self.expires {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        let unverified = async {
            match &self.taken_back {
                Some(taken_back) => taken_back.cancelled().await,
                None => pending().await,
            }
        };
        // Both are marks that stay.
        tokio::select! {
            () = expired => {}
            () = unverified => {}
        }
    }

    /// As whom they are counted at this address.
    pub(super) fn caller(&self, address: IpAddr) -> Caller {
        match self.tag {
            [0, ..] if self.name.is_empty() => Caller::At(limited(address)),
            tag => Caller::Known(tag),
        }
    }

    /// The values of a claim as texts: a text, a number, or several. Nothing else is a value.
    pub(super) fn values(&self, claim: &str) -> Vec<String> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        match self.claims.get(claim) {
            Some(Value::Array(values)) => values.iter().filter_map(text).take(crate::query::VALUES_MAX).collect(),
            Some(value) => text(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// A claim by its name, or by a path into objects.
pub(super) fn claim<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (name, rest) = path.split_once('.')?;
    claim(claims.get(name)?.as_object()?, rest)
}

/// An address as limits see it: of IPv6 the network, since a caller has all of one.
pub(crate) fn limited(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 64 << 64) | 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_or_path() {
        let claims = json!({"a.b": 1, "a": {"b": 2, "c": {"d": "x"}}, "https://x.example/id": "y"});
        let claims = claims.as_object().expect("an object");
        for (path, wanted) in [
            ("a.b", Some(json!(1))),
            ("a.c.d", Some(json!("x"))),
            ("https://x.example/id", Some(json!("y"))),
            ("a.d", None),
            ("b", None),
        ] {
            assert_eq!(claim(claims, path), wanted.as_ref(), "{path}");
        }
    }

    #[test]
    fn only_texts_and_numbers_are_values() {
        let claims = json!({"many": ["a", 7, null, true, {}, []], "none": null, "object": {"a": 1}, "one": 7});
        let looked_at = ["many", "none", "object", "one"].map(String::from);
        let claims = claims.as_object().expect("an object");
        let principal = Principal::verified("x".into(), Roles::default(), claims, &looked_at, None);
        assert_eq!(principal.values("many"), ["a", "7"]);
        assert_eq!(principal.values("one"), ["7"]);
        assert!(principal.values("none").is_empty() && principal.values("object").is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| limited(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
