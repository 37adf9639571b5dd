//! Keys for programs: kept as hashes, compared in constant time.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::options::ApiKeyOptions;
use super::principal::{Principal, RoleNames};

/// Longest key looked at, in bytes.
const KEY_BYTES_MAX: usize = 512;

/// The keys there are.
pub(super) struct ApiKeys(Vec<([u8; 32], Arc<Principal>)>);

impl ApiKeys {
    pub(super) fn new(options: &[ApiKeyOptions], names: &RoleNames, looked_at: &[String]) -> Self {
        let one = |key: &ApiKeyOptions| {
            let roles = names.set(key.roles.iter().map(String::as_str));
            let name = format!("key|{}", key.name);
            (key.sha256, Arc::new(Principal::verified(name, roles, &key.claims, looked_at, None)))
        };
        Self(options.iter().map(one).collect())
    }

    /// Whose key it is. Every key is compared, and each in constant time, so that time tells nothing of any.
    pub(super) fn find(&self, key: &[u8]) -> Option<Arc<Principal>> {
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        let hash = Sha256::digest(key);
        let mut found = None;
        for (of, principal) in &self.0 {
            if bool::from(of.ct_eq(&hash[..])) {
                found = Some(principal.clone());
            }
        }
        found
    }
}
