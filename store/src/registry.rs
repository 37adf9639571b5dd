//! Versions of read models.

use headwater_schemas::model::ModelShape;
use serde::{Deserialize, Serialize};

/// One incarnation of a model's definition: the name of its documents within a store. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId(pub u32);

/// What the registry holds of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its id.
    pub id: VersionId,
    /// Name of the model.
    pub model: String,
    /// [`headwater_schemas::model::definition::ReadModel::hash`] of the definition.
    pub definition_hash: String,
    /// Whether it serves.
    pub state: VersionState,
    /// Sources whose rows its documents are made of; empty where it was registered before this was noted.
    #[serde(default)]
    pub sources: Vec<String>,
    /// What its documents look like; `None` until the tables it reads are known.
    pub shape: Option<ModelShape>,
    /// When it was registered, milliseconds since 1970-01-01T00:00:00Z.
    pub created_at_ms: i64,
}

impl VersionRecord {
    /// Whether its documents are made of rows of this source, as far as is known.
    pub fn reads(&self, source: &str) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|read| read == source)
    }
}

/// Life of a version. At most one version of a model is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Being filled; kept up to date with changes meanwhile; not served.
    Building,
    /// Served.
    Active,
    /// Served before; its documents are being or have been removed.
    Retired,
}
