//! A store with documents of many owners, an issuer, and an API that asks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use headwater_query_api::{
    AccessOptions, Algorithm, ApiKeyOptions, ApiOptions, AuthOptions, BindingRule, IssuerOptions, KeySource, Mask,
    MaskRule, ModelRule,
};
use headwater_store::DocumentReader;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fixture::{Answer, World, wait_until};
use crate::issuer::{AUDIENCE, ISSUER, KeyServer, RSA, ec_jwk, ec_key, ed_jwk, ed_key, good, rsa_jwk};

pub(crate) const API_KEY: &str = "k-2f9c6b1d0e7a4835-9b1f";

/// An API with these rules.
pub(crate) struct Guarded {
    world: World,
    pub(crate) issuer: KeyServer,
    pub(crate) ec: ring::signature::EcdsaKeyPair,
    pub(crate) ed: ring::signature::Ed25519KeyPair,
}

impl Deref for Guarded {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

pub(crate) fn binding(claim: &str, field: Option<&str>) -> BindingRule {
    BindingRule { claim: claim.into(), field: field.map(Into::into), except: vec!["support".into()] }
}

pub(crate) fn mask(fields: &[&str], mask: Mask) -> MaskRule {
    MaskRule { fields: fields.iter().map(|path| path.to_string()).collect(), mask, except: vec!["support".into()] }
}

/// Customers belong to the one whose `customer_id` is their id.
pub(crate) fn by_id() -> ModelRule {
    ModelRule { owner: Some(binding("customer_id", None)), ..ModelRule::default() }
}

/// Customers belong to everybody whose `group` is their `n`.
pub(crate) fn by_index() -> ModelRule {
    ModelRule { owner: Some(binding("group", Some("n"))), ..ModelRule::default() }
}

impl Guarded {
    pub(crate) fn new(customer: ModelRule) -> Self {
        Self::with(customer, |_| {})
    }

    pub(crate) fn with(customer: ModelRule, change: impl FnOnce(&mut AccessOptions)) -> Self {
        Self::with_options(customer, |options| change(&mut options.access))
    }

    pub(crate) fn with_options(customer: ModelRule, change: impl FnOnce(&mut ApiOptions)) -> Self {
        Self::over(customer, |store| store, change)
    }

    /// The same over a reader made of the store's.
    pub(crate) fn over(
        customer: ModelRule,
        change_reader: impl FnOnce(Arc<dyn DocumentReader>) -> Arc<dyn DocumentReader>,
        change: impl FnOnce(&mut ApiOptions),
    ) -> Self {
        let (ec, ed) = (ec_key(), ed_key());
        let issuer = KeyServer::start(vec![rsa_jwk("rsa", &RSA), ec_jwk("ec", &ec), ed_jwk("ed", &ed)]);
        let mut options = IssuerOptions::new(ISSUER, AUDIENCE, Algorithm::RS256, KeySource::Url(issuer.url()));
        options.algorithms = vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
        let key = ApiKeyOptions {
            name: "reports".into(),
            sha256: Sha256::digest(API_KEY).into(),
            roles: vec!["support".into()],
            claims: serde_json::Map::new(),
        };
        let auth = AuthOptions { anonymous: false, issuers: vec![options], api_keys: vec![key] };
        let rules = BTreeMap::from([("customer".to_string(), customer)]);
        let access = AccessOptions { auth: Some(auth), rules, ..AccessOptions::default() };
        let world = World::over(access, change_reader, change);
        let asked = issuer.asked.clone();
        wait_until("the keys", || asked.load(std::sync::atomic::Ordering::SeqCst) > 0);
        Self { world, issuer, ec, ed }
    }

    /// Asks with a good token that has these claims besides.
    pub(crate) fn get_as(&self, claims: &Value, path: &str) -> Answer {
        self.get_with(path, &[("authorization", &format!("Bearer {}", good(claims.clone())))])
    }

    pub(crate) fn graphql_as(&self, claims: &Value, query: &str) -> Answer {
        let token = format!("Bearer {}", good(claims.clone()));
        let headers = [("content-type", "application/json"), ("authorization", token.as_str())];
        self.ask("POST", "/graphql", &headers, Some(&json!({"query": query}).to_string()))
    }
}

/// How long a request that hangs may: longer than any test.
pub(crate) const HANGS: Duration = Duration::from_secs(300);

/// A request whose body is announced and never sent. It has its place when this returns: the body is asked for only
/// then, and what is asked meanwhile could otherwise take the place of one that hangs.
pub(crate) fn hang(world: &World, headers: &[(&str, &str)]) -> TcpStream {
    let mut stream = TcpStream::connect(world.api.address).unwrap();
    let mut head = "POST /graphql HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n".to_string();
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 25];
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut answer).expect("the body is asked for");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 100 Continue\r\n\r\n");
    stream
}
