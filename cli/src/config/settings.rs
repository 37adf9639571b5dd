//! What stands in `headwater.yaml`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::api::Api;
use super::engines::{Broker, Store, StoreEngine};
use super::quantity::ByteSize;

/// The whole of `headwater.yaml`. Every key has a default but `connectors` and `models`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// First part of the names of all topics.
    #[serde(default = "default_prefix")]
    pub(crate) prefix: Spanned<String>,
    /// Folder of the embedded broker and store, relative to the configuration file.
    #[serde(default = "default_data")]
    pub(crate) data: PathBuf,
    /// One file per source; patterns may have `*` in the file name. Relative to the configuration file.
    pub(crate) connectors: Vec<Spanned<String>>,
    /// One file per read model, likewise.
    pub(crate) models: Vec<Spanned<String>>,
    /// The log of changes.
    #[serde(default)]
    pub(crate) broker: Broker,
    /// Rows and documents.
    #[serde(default)]
    pub(crate) store: Store,
    /// Folding of rows into documents.
    #[serde(default)]
    pub(crate) projector: Projector,
    /// Where readers connect.
    #[serde(default)]
    pub(crate) api: Api,
    /// Where operators and probes connect.
    #[serde(default)]
    pub(crate) admin: Admin,
}

/// How rows are folded into documents.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Projector {
    /// Bytes of events taken into one micro-batch, at most.
    pub(crate) batch_bytes_max: Spanned<ByteSize>,
}

/// The admin port: health, metrics, control. Keep it private: it has no authentication.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    /// Address and port.
    pub(crate) listen: Spanned<SocketAddr>,
    /// Names by which it may be asked, beside addresses and names that nobody else can own.
    hosts: Vec<Spanned<String>>,
}

impl Admin {
    /// Names by which it may be asked, without ports.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.hosts.iter().map(|host| host.value.clone()).collect()
    }
}

pub(super) fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(value, serde_saphyr::Location::UNKNOWN, serde_saphyr::Location::UNKNOWN)
}

fn default_prefix() -> Spanned<String> {
    unplaced("headwater".to_string())
}

fn default_data() -> PathBuf {
    ".headwater".into()
}

impl Default for Projector {
    fn default() -> Self {
        Self { batch_bytes_max: unplaced(ByteSize(16 << 20)) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: unplaced(SocketAddr::from(([127, 0, 0, 1], 9090))), hosts: Vec::new() }
    }
}

impl Settings {
    /// Whether any number of processes share the work of one projector: all of them reach the rows, and the broker says who
    /// does what.
    pub(crate) fn shares_rows(&self) -> bool {
        self.broker.kafka.is_some() && self.store.rows() == StoreEngine::Mongodb
    }

    /// What is wrong although every value by itself is right: the place, the message, the remedy.
    pub(super) fn validate(&self) -> Option<(serde_saphyr::Location, String, String)> {
        let wrong =
            |at: serde_saphyr::Location, message: &str, help: &str| Some((at, message.to_string(), help.to_string()));
        let prefix = &self.prefix;
        if prefix.value.is_empty() || !prefix.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            return wrong(
                prefix.referenced,
                "`prefix` must be letters, digits, `_` and `-`",
                "it starts the name of every topic",
            );
        }
        if let Some((at, message, help)) = self.broker.validate().or_else(|| self.store.validate()) {
            return wrong(at, &message, &help);
        }
        let batch = &self.projector.batch_bytes_max;
        if !(64 << 10..=256 << 20).contains(&batch.value.0) {
            return wrong(
                batch.referenced,
                "`projector.batch_bytes_max` must be from 64KiB to 256MiB",
                "small batches are fresh, large ones fast; 16MiB is both",
            );
        }
        if let Some(wrong) = self.api.validate() {
            return Some(wrong);
        }
        let (api, admin) = (&self.api.listen, &self.admin.listen);
        if api.value == admin.value && api.value.port() != 0 {
            return wrong(
                admin.referenced,
                "`admin.listen` is the same address as `api.listen`",
                "the admin port has no authentication: keep it apart",
            );
        }
        let is_name =
            |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if let Some(host) = self.admin.hosts.iter().find(|host| !is_name(&host.value)) {
            return wrong(
                host.referenced,
                "`admin.hosts` are names of hosts",
                "write each without scheme and port: ops.example.com",
            );
        }
        None
    }
}
