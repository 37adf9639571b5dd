//! How GraphQL is served.

use std::path::{Path, PathBuf};

use headwater_query_api::{GraphQlOptions, TrustedDocuments};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::config::engines::Wrong;
use crate::config::quantity::ByteSize;

/// How GraphQL is served.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GraphQl {
    /// Operations of one request, at most; 0 refuses arrays.
    batch_max: Option<Spanned<usize>>,
    /// Bytes of persisted queries that are kept; 0 keeps none.
    persisted_queries: Option<ByteSize>,
    /// Documents that callers name by their ids.
    trusted_documents: Option<Trusted>,
    /// Operations that run on one WebSocket at the same time.
    subscriptions_max: Option<Spanned<usize>>,
}

/// Documents that callers name by their ids.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trusted {
    /// A folder of `*.graphql` or a manifest in JSON, relative to the configuration file.
    path: PathBuf,
    /// Whether nothing else is answered.
    #[serde(default)]
    only: bool,
}

impl GraphQl {
    /// As the query API takes it; files are relative to `folder`.
    pub(crate) fn options(&self, folder: &Path) -> GraphQlOptions {
        let defaults = GraphQlOptions::default();
        GraphQlOptions {
            batch_max: self.batch_max.as_ref().map_or(defaults.batch_max, |max| max.value),
            persisted_bytes_max: self.persisted_queries.map_or(defaults.persisted_bytes_max, |size| size.0 as usize),
            trusted: self
                .trusted_documents
                .as_ref()
                .map(|of| TrustedDocuments { path: folder.join(&of.path), only: of.only }),
            subscriptions_max: self.subscriptions_max.as_ref().map_or(defaults.subscriptions_max, |max| max.value),
            init_wait: defaults.init_wait,
            patience: defaults.patience,
        }
    }

    /// Whether there are documents that callers name by their ids.
    pub(in crate::config) fn has_trusted_documents(&self) -> bool {
        self.trusted_documents.is_some()
    }

    pub(super) fn validate(&self) -> Option<Wrong> {
        let wrong = |of: &Spanned<usize>, name: &str, least: usize| {
            let message = format!("`api.graphql.{name}` must be from {least} to 1000");
            Some((of.referenced, message, "leave it out for what is usually right".to_string()))
        };
        match (&self.batch_max, &self.subscriptions_max) {
            (Some(max), _) if max.value > 1000 => wrong(max, "batch_max", 0),
            (_, Some(max)) if !(1..=1000).contains(&max.value) => wrong(max, "subscriptions_max", 1),
            _ => None,
        }
    }
}
