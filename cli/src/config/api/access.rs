//! What callers see of a model.

use headwater_query_api::{BindingRule, Mask, MaskRule, ModelRule};
use headwater_schemas::model::definition::ReadModel;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::config::engines::Wrong;

/// What callers see of a model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Access {
    /// Roles that may read it; every caller that is let in otherwise.
    roles: Option<Vec<String>>,
    /// Whose a document is.
    owner: Option<BindingSettings>,
    /// Which tenant a document belongs to.
    tenant: Option<BindingSettings>,
    /// Fields that are not shown as they are.
    masks: Vec<MaskSettings>,
}

/// A caller sees only documents whose value is that of a claim.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingSettings {
    claim: String,
    /// Path of a declared index; the document's id otherwise.
    #[serde(default)]
    field: Option<Spanned<String>>,
    /// Roles that see every document.
    #[serde(default)]
    except: Vec<String>,
}

/// Some fields, and how they are shown.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaskSettings {
    fields: Vec<Spanned<String>>,
    #[serde(default)]
    mask: MaskWord,
    /// Roles that see them as they are.
    #[serde(default)]
    except: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MaskWord {
    #[default]
    Hidden,
    Partial,
    Hash,
}

impl Access {
    pub(super) fn rule(&self) -> ModelRule {
        let binding = |of: &BindingSettings| BindingRule {
            claim: of.claim.clone(),
            field: of.field.as_ref().map(|field| field.value.clone()),
            except: of.except.clone(),
        };
        let mask = |of: &MaskSettings| MaskRule {
            fields: of.fields.iter().map(|field| field.value.clone()).collect(),
            mask: match of.mask {
                MaskWord::Hidden => Mask::Hidden,
                MaskWord::Partial => Mask::Partial,
                MaskWord::Hash => Mask::Hash,
            },
            except: of.except.clone(),
        };
        ModelRule {
            roles: self.roles.clone(),
            owner: self.owner.as_ref().map(binding),
            tenant: self.tenant.as_ref().map(binding),
            masks: self.masks.iter().map(mask).collect(),
        }
    }

    pub(super) fn role_names(&self) -> impl Iterator<Item = &String> {
        let bindings = self.owner.iter().chain(&self.tenant).flat_map(|binding| &binding.except);
        self.roles.iter().flatten().chain(bindings).chain(self.masks.iter().flat_map(|mask| &mask.except))
    }

    /// What of it does not fit the model: `fields` and `indexes`, by their paths.
    pub(super) fn misfits(&self, model: &ReadModel) -> Vec<Wrong> {
        let (name, mut found) = (&model.name, Vec::new());
        let indexes: Vec<String> = model.indexes.iter().map(|index| index.name()).collect();
        for binding in self.owner.iter().chain(&self.tenant) {
            let Some(field) = &binding.field else { continue };
            if !indexes.contains(&field.value) {
                let help = format!("add it to `indexes` of {name}: lists are restricted by it");
                found.push((field.referenced, format!("`{}` is no declared index of {name}", field.value), help));
            }
        }
        for field in self.masks.iter().flat_map(|mask| &mask.fields) {
            if !model.has_field(&field.value) {
                let help = "write the path as it stands in documents: customer.email".to_string();
                found.push((field.referenced, format!("{name} has no field `{}`", field.value), help));
            }
        }
        found
    }
}
