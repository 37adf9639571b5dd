//! Configuration of a PostgreSQL source.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Secret};

/// How to reach a PostgreSQL database and what to capture of it. PostgreSQL 14 or later with `wal_level = logical`; the
/// connection must be direct, because poolers do not pass replication on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Host name, IP address, or folder of a Unix socket.
    pub host: String,
    /// Port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// User with the `REPLICATION` attribute and the right to read the tables.
    pub user: String,
    /// The user's password; write `${ENV_NAME}` and keep it out of the file.
    #[serde(default)]
    pub password: Secret,
    /// Encryption of the connection.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Tables to capture, `schema.table` or `table` (then in `public`). Empty: every table of the publication, which
    /// then must exist.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Publication to read; by default `headwater_` and the source's name.
    #[serde(default)]
    pub publication: Option<String>,
    /// Create the publication if it is missing, and add configured tables that it lacks. Needs ownership of the tables.
    #[serde(default = "default_true")]
    pub create_publication: bool,
    /// Replication slot; by default `headwater_` and the source's name. Created if it is missing and nothing was
    /// captured yet.
    #[serde(default)]
    pub slot: Option<String>,
    /// What to do when the slot is lost: dropped, invalidated, or moved on by someone else.
    #[serde(default)]
    pub on_lost_slot: OnLostSlot,
    /// The initial reading of the tables.
    #[serde(default)]
    pub snapshot: SnapshotConfig,
    /// Warn when the server keeps more than this many bytes of log for us. Default 10 GiB.
    #[serde(default = "default_retained_wal_warn_bytes")]
    pub retained_wal_warn_bytes: u64,
}

/// What to do about a lost slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLostSlot {
    /// Stop and explain: changes between the last captured one and now cannot be had any more.
    #[default]
    Stop,
    /// Make a new slot and read all tables again. Rows that are gone since are removed once their table is read; changes
    /// in between are not seen one by one.
    Resnapshot,
}

/// How tables are read at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Connections that read in parallel, 1 to 32. Default 2.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Rows per chunk, at least 100: after a crash, chunks that were durable are not read again. Default 50000.
    #[serde(default = "default_rows_per_chunk")]
    pub rows_per_chunk: u64,
}

/// Encryption of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// How much of it.
    #[serde(default)]
    pub mode: TlsMode,
    /// File with the certificates (PEM) of the authorities to trust; needed by `verify-ca` and `verify-full`. With it,
    /// `require` verifies as `verify-ca` does.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// File with our certificate (PEM), where the server wants one.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// File with the key (PEM) of our certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// The modes of `libpq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Plain text.
    Disable,
    /// Encrypted if the server offers it, with any certificate.
    #[default]
    Prefer,
    /// Encrypted, with any certificate; with one of a trusted authority where `ca` names some.
    Require,
    /// Encrypted, with a certificate of a trusted authority.
    VerifyCa,
    /// Encrypted, with a certificate of a trusted authority for this very host name.
    VerifyFull,
}

impl TlsConfig {
    /// The mode in effect: as in `libpq`, whoever names an authority and requires encryption wants it verified.
    pub(crate) fn verified_mode(&self) -> TlsMode {
        match self.mode {
            TlsMode::Require if self.ca.is_some() => TlsMode::VerifyCa,
            mode => mode,
        }
    }

    /// The first key that would be read and never used, with the reason.
    fn unused(&self) -> Option<(&'static str, &'static str)> {
        let (ca, cert) = (self.ca.is_some(), self.cert.is_some() || self.key.is_some());
        match self.mode {
            TlsMode::Disable if ca => Some(("ca", "nothing is verified with `mode: disable`: set `verify-full`")),
            TlsMode::Disable if cert => Some(("cert", "it is not shown with `mode: disable`: set `verify-full`")),
            TlsMode::Prefer if ca => Some((
                "ca",
                "nothing is verified with `mode: prefer`, which is the default and takes plain text, too: set \
                 `verify-full`, or `verify-ca` for any host name",
            )),
            _ => None,
        }
    }
}

fn default_port() -> u16 {
    5432
}

fn default_true() -> bool {
    true
}

fn default_workers() -> usize {
    2
}

fn default_rows_per_chunk() -> u64 {
    50_000
}

fn default_retained_wal_warn_bytes() -> u64 {
    10 << 30
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { workers: default_workers(), rows_per_chunk: default_rows_per_chunk() }
    }
}

impl PostgresConfig {
    /// The publication's name.
    pub fn publication_name(&self, source: &str) -> String {
        self.publication.clone().unwrap_or_else(|| format!("headwater_{source}"))
    }

    /// The slot's name.
    pub fn slot_name(&self, source: &str) -> String {
        self.slot.clone().unwrap_or_else(|| format!("headwater_{source}"))
    }

    /// The configured tables as (schema, table).
    pub fn table_names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tables.iter().map(|name| name.split_once('.').unwrap_or(("public", name)))
    }

    /// Whether the publication is to be made or completed.
    pub(crate) fn publishes(&self) -> bool {
        self.create_publication && !self.tables.is_empty()
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |path: &str, problem: &str| {
            Err(Error::Config { path: format!("postgres.{path}"), problem: problem.into() })
        };
        if !(1..=32).contains(&self.snapshot.workers) {
            return wrong("snapshot.workers", "must be 1 to 32");
        }
        if self.snapshot.rows_per_chunk < 100 {
            return wrong("snapshot.rows_per_chunk", "must be at least 100");
        }
        let slot_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if let Some(slot) = &self.slot
            && (slot.is_empty() || slot.len() > 63 || !slot.bytes().all(slot_letter))
        {
            return wrong("slot", "PostgreSQL allows at most 63 lower-case letters, digits and `_`");
        }
        if let Some(publication) = &self.publication
            && (publication.is_empty() || publication.contains([',', ' ', '"']))
        {
            return wrong("publication", "a name without blanks, commas and quotes");
        }
        if self.tables.iter().any(|name| name.split('.').any(str::is_empty) || name.split('.').count() > 2) {
            return wrong("tables", "each is `schema.table` or `table`");
        }
        if self.tables.is_empty() && self.publication.is_none() {
            return wrong("tables", "name the tables to capture, or a `publication` that exists");
        }
        let verifies = matches!(self.tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
        if verifies && self.tls.ca.is_none() {
            return wrong("tls.ca", "name the file with the authority's certificate: this `mode` verifies by it");
        }
        if self.tls.mode == TlsMode::VerifyFull && self.host.parse::<std::net::IpAddr>().is_ok() {
            return wrong(
                "host",
                "`verify-full` compares the certificate with a host name: write a name, not an address",
            );
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return wrong("tls", "`cert` and `key` belong together");
        }
        if let Some((key, problem)) = self.tls.unused() {
            return wrong(&format!("tls.{key}"), problem);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_tls(tls: serde_json::Value) -> PostgresConfig {
        let config = serde_json::json!({ "host": "h", "database": "d", "user": "u", "tables": ["t"], "tls": tls });
        serde_json::from_value(config).expect("a configuration")
    }

    #[test]
    fn an_authority_that_nothing_would_be_verified_by_is_refused() {
        for (tls, path) in [
            (serde_json::json!({ "ca": "ca.pem" }), "postgres.tls.ca"),
            (serde_json::json!({ "mode": "prefer", "ca": "ca.pem" }), "postgres.tls.ca"),
            (serde_json::json!({ "mode": "disable", "ca": "ca.pem" }), "postgres.tls.ca"),
            (serde_json::json!({ "mode": "disable", "cert": "c.pem", "key": "k.pem" }), "postgres.tls.cert"),
        ] {
            let error = with_tls(tls.clone()).validate().expect_err("it is refused");
            assert!(matches!(&error, Error::Config { path: at, .. } if at == path), "{tls}: {error}");
        }
        let required = with_tls(serde_json::json!({ "mode": "require", "ca": "ca.pem" }));
        assert!(required.validate().is_ok() && required.tls.verified_mode() == TlsMode::VerifyCa);
        let unverified = with_tls(serde_json::json!({ "mode": "require", "cert": "c.pem", "key": "k.pem" }));
        assert!(unverified.validate().is_ok() && unverified.tls.verified_mode() == TlsMode::Require);
    }
}
