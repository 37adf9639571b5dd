//! Documents that belong to someone: a claim names whose a caller may see, by their id or by a declared index.

use headwater_schemas::ColumnType;
use headwater_schemas::model::ModelShape;
use headwater_store::{Filter, KeyRange};

use super::options::BindingRule;
use super::principal::Principal;
use super::visibility::{Unfit, Visibility};
use crate::projection::{Torn, index_keys};
use crate::query::key_of;

/// A rule that binds documents to a claim, made to fit a model.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    claim: String,
    place: Place,
}

/// Where in a document the value of the claim has to be.
#[derive(Clone, Debug)]
enum Place {
    Id,
    Index { number: u16, path: String, kind: ColumnType },
}

/// What one caller may see of one model's documents. Every part must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Only documents with these ids, in ascending order.
    pub(crate) ids: Option<Vec<Vec<u8>>>,
    /// Only documents that match each of these, by the store's numbers of indexes.
    pub(crate) filters: Vec<BoundFilter>,
}

/// One of the values of an index must be one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundFilter {
    /// As the store takes it.
    pub(crate) filter: Filter,
    path: String,
    kind: ColumnType,
}

impl Binding {
    pub(super) fn new(shape: &ModelShape, rule: &BindingRule, of: &str) -> Result<Self, Unfit> {
        let place = match &rule.field {
            None => Place::Id,
            Some(path) => {
                let (number, index) = shape.index(path).ok_or_else(|| {
                    Unfit(format!("its {of} is `{path}`, which is no declared index of {}", shape.model))
                })?;
                Place::Index { number, path: path.clone(), kind: index.kind.clone() }
            }
        };
        Ok(Self { claim: rule.claim.clone(), place })
    }

    /// Adds what this rule says of a caller. A claim that is missing, or no possible value, leaves nothing to see.
    fn add(&self, shape: &ModelShape, principal: &Principal, bound: &mut Bound) {
        let values = principal.values(&self.claim);
        match &self.place {
            Place::Id => {
                let mut ids: Vec<Vec<u8>> = values.iter().filter_map(|value| shape.parse_id(value)).collect();
                ids.sort_unstable();
                ids.dedup();
                if let Some(others) = &bound.ids {
                    ids.retain(|id| others.contains(id));
                }
                bound.ids = Some(ids);
            }
            Place::Index { number, path, kind } => {
                let mut keys: Vec<Vec<u8>> = values.iter().filter_map(|value| key_of(value, kind).ok()).collect();
                keys.sort_unstable();
                keys.dedup();
                let ranges = keys.iter().map(|key| KeyRange::exactly(key)).collect();
                let filter = Filter { index: *number, ranges, negated: false };
                bound.filters.push(BoundFilter { filter, path: path.clone(), kind: kind.clone() });
            }
        }
    }
}

impl Visibility {
    /// What a caller may see.
    pub(crate) fn bound(&self, principal: &Principal) -> Bound {
        let mut bound = Bound::default();
        if principal.restricted {
            self.bindings.iter().for_each(|binding| binding.add(&self.shape, principal, &mut bound));
        }
        bound
    }

    /// What belongs to the caller, also where they may see more; `None` where the model has no owner.
    pub(crate) fn own(&self, principal: &Principal) -> Option<Bound> {
        let owner = self.owner.as_ref()?;
        let mut bound = self.bound(principal);
        if !(self.owner_is_bound && principal.restricted) {
            owner.add(&self.shape, principal, &mut bound);
        }
        Some(bound)
    }
}

impl Bound {
    /// Whether a stored document may be seen.
    pub(crate) fn allows(&self, id: &[u8], body: &[u8]) -> Result<bool, Torn> {
        if self.ids.as_ref().is_some_and(|ids| !ids.iter().any(|own| own == id)) {
            return Ok(false);
        }
        for of in &self.filters {
            if !index_keys(body, &of.path, &of.kind)?.iter().any(|key| of.filter.within(key)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
