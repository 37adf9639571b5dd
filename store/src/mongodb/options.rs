//! Where the store is and how it is spoken to.

use std::fmt;
use std::time::Duration;

use crate::StoreMetrics;

/// Where and how a MongoDB store is kept. Rows and documents may be in the same database; where the rows change much,
/// giving them a database of their own keeps them out of what the documents' change streams have to look through.
#[derive(Clone)]
pub struct MongoOptions {
    /// Connection string as every MongoDB tool takes it: `mongodb://…` or `mongodb+srv://…`, with credentials, TLS and
    /// pool settings. Its secrets are not shown by `Debug` nor in errors. Read and write concerns and read preferences
    /// in it are overruled: majority, journaled, primary.
    pub uri: String,
    /// The database; made if it is not there.
    pub database: String,
    /// Name of the projector that writes: 1 to 60 letters, digits, `-` and `_`. One process at a time writes under a
    /// name, unless it is [`Self::shared`]; one that opens takes over from the one before, which is told so at its next
    /// write.
    pub projector: String,
    /// Whether several processes write under that name at once, each of which says itself what it must not overwrite: rows
    /// under the condition of what was read before, documents with stamps of their own. Opening still shuts out one that
    /// writes alone. Default: no.
    pub shared: bool,
    /// How long the server may work on one operation. Default 30 s.
    pub operation_max: Duration,
    /// How long a server that can take the operation is looked for. Default 5 s.
    pub selection_max: Duration,
    /// Connections opened ahead, so that the first reads do not wait. Default 4; a `minPoolSize` in `uri` wins.
    pub connections_min: u32,
    /// What is counted. Rows and documents count into their own, or, given the same, into one: both count their commits.
    pub metrics: StoreMetrics,
}

impl MongoOptions {
    /// With the defaults, for projector `default`.
    pub fn new(uri: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            database: database.into(),
            projector: "default".into(),
            shared: false,
            operation_max: Duration::from_secs(30),
            selection_max: Duration::from_secs(5),
            connections_min: 4,
            metrics: StoreMetrics::default(),
        }
    }

    /// The place as it may be shown: hosts and database, no credentials and no settings.
    pub(super) fn place(&self) -> String {
        let (scheme, rest) = self.uri.split_once("://").unwrap_or(("mongodb", ""));
        // A password must be percent-encoded; where it is not, everything up to the last `@` is taken for one.
        let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
        let hosts = hosts.split(['/', '?']).next().unwrap_or_default();
        format!("{scheme}://{hosts}/{}", self.database)
    }
}

impl fmt::Debug for MongoOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoOptions")
            .field("place", &self.place())
            .field("projector", &self.projector)
            .field("shared", &self.shared)
            .field("operation_max", &self.operation_max)
            .field("selection_max", &self.selection_max)
            .field("connections_min", &self.connections_min)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (uri, place) in [
            (
                "mongodb://user:s3cret@a:1,b:2/admin?authSource=x&tlsCertificateKeyFilePassword=s3cret",
                "mongodb://a:1,b:2/hw",
            ),
            ("mongodb+srv://user:s3@cret@cluster.example", "mongodb+srv://cluster.example/hw"),
            ("mongodb://localhost", "mongodb://localhost/hw"),
            ("s3cret", "mongodb:///hw"),
        ] {
            let options = MongoOptions::new(uri, "hw");
            assert_eq!(options.place(), place);
            assert!(!format!("{options:?}").contains("cret"), "{options:?}");
        }
    }
}
