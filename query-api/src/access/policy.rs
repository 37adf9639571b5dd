//! The configured rules, ready to be made to fit versions of models.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_schemas::model::ModelShape;
use headwater_store::VersionId;

use super::options::{AccessOptions, ModelRule};
use super::principal::{RoleNames, Roles};
use super::visibility::Visibility;
use crate::channel::Fitted;

/// Who sees what.
pub(crate) struct Policy {
    options: AccessOptions,
    names: RoleNames,
    /// Hashes of masked fields are made with it.
    secret: Vec<u8>,
    /// What was complained of already.
    told: parking_lot::Mutex<BTreeSet<String>>,
}

impl Policy {
    pub(super) fn new(options: &AccessOptions, names: RoleNames, secret: &[u8]) -> Self {
        Self { options: options.clone(), names, secret: secret.to_vec(), told: parking_lot::Mutex::default() }
    }

    /// What callers with these roles see of a version by a channel; `None`: there is no such model for them.
    pub(crate) fn visibility(
        &self,
        version: VersionId,
        shape: &ModelShape,
        roles: Roles,
        channel: Option<&Fitted>,
    ) -> Option<Arc<Visibility>> {
        if self.options.auth.is_none() {
            return match channel {
                None => Some(Visibility::everything(version, shape.clone())),
                Some(channel) => Visibility::of_channel(version, shape, channel),
            };
        }
        let Some(rule) = self.options.rules.get(&shape.model) else {
            self.tell(
                &shape.model,
                "`api.access` does not name it: write `{}` behind its name to show it to every caller",
            );
            return None;
        };
        match Visibility::new(version, shape, rule, roles, &self.names, &self.secret, channel) {
            Ok(visibility) => visibility,
            Err(unfit) => {
                self.tell(&shape.model, &unfit.0);
                None
            }
        }
    }

    /// Whether callers with these roles may know that there is such a model, of which there is no version yet.
    pub(crate) fn is_known(&self, model: &str, roles: Roles) -> bool {
        let allows = |rule: &ModelRule| {
            let set = |of: &Vec<String>| self.names.set(of.iter().map(String::as_str));
            rule.roles.as_ref().is_none_or(|of| roles.meets(set(of)))
        };
        self.options.auth.is_none() || self.options.rules.get(model).is_some_and(allows)
    }

    /// Complains once of each thing.
    fn tell(&self, model: &str, why: &str) {
        if self.told.lock().insert(format!("{model}: {why}")) {
            tracing::error!(model, why, "a model is shown to nobody");
        }
    }
}
