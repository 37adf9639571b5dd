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
                let mut ids: Vec<Vec<u8>> = values.iter().filter_map(|value| id_of(shape, value)).collect();
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

/// The id that a claim is. Nothing in it is decoded as in the ids that readers send: whoever may choose a user name
/// could write that of another in a second way. Where a key has several parts the claim is an id, in its one right form.
fn id_of(shape: &ModelShape, claim: &str) -> Option<Vec<u8>> {
    match shape.key.as_slice() {
        [kind] => key_of(claim, kind).ok(),
        _ => shape.parse_canonical_id(claim),
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

#[cfg(test)]
mod tests {
    use headwater_schemas::Value;

    use super::*;

    fn shape(key: &[ColumnType]) -> ModelShape {
        ModelShape {
            model: "account".into(),
            version: 1,
            doc: None,
            key: key.to_vec(),
            fields: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// What a document with this id is stored under.
    fn stored(shape: &ModelShape, parts: &[Value]) -> Vec<u8> {
        let parts = parts.iter().map(|part| part.scalar().expect("a scalar"));
        shape.parse_id(&ModelShape::format_id(parts)).expect("an id")
    }

    #[test]
    fn a_claim_is_the_id_of_nobody_else() {
        let shape = shape(&[ColumnType::Text]);
        for name in ["alice", "al%69ce", "a~b", "100%", "%7E", "%25", ""] {
            let own = stored(&shape, &[Value::Text(name.into())]);
            assert_eq!(id_of(&shape, name), Some(own), "{name}");
        }
        assert_ne!(id_of(&shape, "al%69ce"), id_of(&shape, "alice"));
    }

    #[test]
    fn a_claim_of_another_type_is_nobodys() {
        for (kind, claim, own) in [
            (ColumnType::Int64, "7", Some(Value::Int(7))),
            (ColumnType::Int64, "%37", None),
            (ColumnType::Bytes, "AQI=", Some(Value::Bytes(vec![1, 2]))),
            (ColumnType::Uuid, "nobody", None),
        ] {
            let shape = shape(std::slice::from_ref(&kind));
            assert_eq!(id_of(&shape, claim), own.map(|own| stored(&shape, &[own])), "{kind:?} {claim}");
        }
    }

    #[test]
    fn a_claim_of_several_parts_is_an_id_in_its_one_form() {
        let shape = shape(&[ColumnType::Text, ColumnType::Int32]);
        for name in ["alice", "a~b", "100%"] {
            let parts = [Value::Text(name.into()), Value::Int(7)];
            let id = ModelShape::format_id(parts.iter().map(|part| part.scalar().expect("a scalar")));
            assert_eq!(id_of(&shape, &id), Some(stored(&shape, &parts)), "{id}");
        }
        for claim in ["al%69ce~7", "alice~07", "alice~%37", "a%7eb~7", "alice", "alice~7~7", "100%~7", "%FF~7"] {
            assert_eq!(id_of(&shape, claim), None, "{claim}");
        }
    }
}
