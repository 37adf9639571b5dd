//! Configuration of one connector.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::postgres::PostgresConfig;

/// One connector: a source's name and how to read it. One file of the `connectors` folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorConfig {
    /// Name of the source: lower-case letters, digits and `_`, starting with a letter; at most 40. Part of topic names,
    /// and of the default names of publication and slot: renaming a source makes it another one.
    pub source: String,
    /// A PostgreSQL database.
    pub postgres: PostgresConfig,
}

impl ConnectorConfig {
    /// Checks what types cannot say. The path in the error is dotted, as in `postgres.tls.ca`.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |path: &str, problem: &str| Error::Config { path: path.into(), problem: problem.into() };
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if self.source.len() > 40 || !plain(&self.source) || !self.source.starts_with(|c: char| c.is_ascii_lowercase())
        {
            return Err(wrong("source", "a name of at most 40 lower-case letters, digits and `_`, letter first"));
        }
        self.postgres.validate()
    }
}
