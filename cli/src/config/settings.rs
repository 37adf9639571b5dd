//! What stands in `headwater.yaml`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::quantity::{ByteSize, Span};

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

/// Which broker; there is one engine so far.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Broker {
    /// A log inside this process.
    pub(crate) embedded: EmbeddedBroker,
}

/// Settings of the embedded broker.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmbeddedBroker {
    /// Largest size of the log's file. Address space, not disk: it grows as it fills.
    pub(crate) size_max: Spanned<ByteSize>,
    /// Partitions of new topics, 1 to 1024. A topic that exists keeps its number.
    pub(crate) partitions: Spanned<u32>,
    /// What the log may forget.
    pub(crate) retention: RetentionSettings,
}

/// Retention of the topics of change events; without limits everything is kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetentionSettings {
    /// Events older than this may go.
    pub(crate) age: Option<Span>,
    /// The oldest events of a partition may go while it is larger than this.
    pub(crate) size: Option<ByteSize>,
}

/// Which store; there is one engine so far.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// A store inside this process.
    pub(crate) embedded: EmbeddedStore,
}

/// Settings of the embedded store.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EmbeddedStore {
    /// Largest size of the store's file. Address space, not disk: it grows as it fills.
    pub(crate) size_max: Spanned<ByteSize>,
}

/// How rows are folded into documents.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Projector {
    /// Bytes of events taken into one micro-batch, at most.
    pub(crate) batch_bytes_max: Spanned<ByteSize>,
}

/// The query API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Api {
    /// Address and port.
    pub(crate) listen: Spanned<SocketAddr>,
}

/// The admin port: health, metrics, control. Keep it private: it has no authentication.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    /// Address and port.
    pub(crate) listen: Spanned<SocketAddr>,
}

fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(value, serde_saphyr::Location::UNKNOWN, serde_saphyr::Location::UNKNOWN)
}

fn default_prefix() -> Spanned<String> {
    unplaced("headwater".to_string())
}

fn default_data() -> PathBuf {
    ".headwater".into()
}

impl Default for EmbeddedBroker {
    fn default() -> Self {
        Self { size_max: unplaced(ByteSize::gib(64)), partitions: unplaced(1), retention: RetentionSettings::default() }
    }
}

impl Default for EmbeddedStore {
    fn default() -> Self {
        Self { size_max: unplaced(ByteSize::gib(64)) }
    }
}

impl Default for Projector {
    fn default() -> Self {
        Self { batch_bytes_max: unplaced(ByteSize(16 << 20)) }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: unplaced(SocketAddr::from(([127, 0, 0, 1], 8080))) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: unplaced(SocketAddr::from(([127, 0, 0, 1], 9090))) }
    }
}

impl Settings {
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
        let partitions = &self.broker.embedded.partitions;
        if !(1..=1024).contains(&partitions.value) {
            return wrong(
                partitions.referenced,
                "`broker.embedded.partitions` must be from 1 to 1024",
                "one partition is right for one process",
            );
        }
        for (path, size) in [
            ("broker.embedded.size_max", &self.broker.embedded.size_max),
            ("store.embedded.size_max", &self.store.embedded.size_max),
        ] {
            if size.value.0 < 16 << 20 {
                return wrong(
                    size.referenced,
                    &format!("`{path}` must be at least 16MiB"),
                    "it is address space, not disk: be generous",
                );
            }
        }
        let batch = &self.projector.batch_bytes_max;
        if !(64 << 10..=256 << 20).contains(&batch.value.0) {
            return wrong(
                batch.referenced,
                "`projector.batch_bytes_max` must be from 64KiB to 256MiB",
                "small batches are fresh, large ones fast; 16MiB is both",
            );
        }
        let (api, admin) = (&self.api.listen, &self.admin.listen);
        if api.value == admin.value && api.value.port() != 0 {
            return wrong(
                admin.referenced,
                "`admin.listen` is the same address as `api.listen`",
                "the admin port has no authentication: keep it apart",
            );
        }
        None
    }
}
