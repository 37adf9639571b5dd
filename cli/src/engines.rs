//! The engines behind the seams, as configured, and only those that a process's roles need.
//!
//! An engine in another place may be away when we start, as it may be later: it is waited for, and the log and the admin port
//! say so. One that answers and refuses us is not waited for at the start, where the configuration is wrong as a rule: it
//! ends the start with what is to be done. Later it is waited for, too.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_broker::EventLog;
use headwater_broker::embedded::{EmbeddedLog, EmbeddedOptions as LogOptions};
use headwater_broker::kafka::{KafkaLog, KafkaOptions, KafkaSasl, KafkaTls, SaslMechanism};
use headwater_projector::ProjectorOptions;
use headwater_query_api::AdminServer;
use headwater_schemas::codec::debezium::SourceInfo;
use headwater_store::embedded::{EmbeddedOptions as StoreOptions, EmbeddedStore};
use headwater_store::mongodb::{MongoDocuments, MongoOptions, MongoReader, MongoRows};
use headwater_store::{DocumentReader, DocumentStore, Paired, ProjectionStore, RowStore};
use prometheus_client::registry::Registry;
use serde_saphyr::Spanned;

use crate::config::{self, Configuration, Kafka, StoreEngine, folder_of};
use crate::failure::{Failure, chain};
use crate::roles::Roles;

/// Pause before an engine that is away is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Rows and documents, for projection.
#[derive(Clone)]
pub(crate) enum Projection {
    /// For one process.
    Alone(Arc<dyn ProjectionStore>),
    /// For any number of processes that share the work.
    Shared { rows: Arc<dyn RowStore>, documents: Arc<dyn DocumentStore> },
}

/// The open engines.
#[derive(Default)]
pub(crate) struct Engines {
    /// The log, for capture and projection.
    pub(crate) log: Option<Arc<dyn EventLog>>,
    /// Documents, for readers.
    pub(crate) reader: Option<Arc<dyn DocumentReader>>,
    projection: Option<Projection>,
    /// The log once more where it is inside this process, and is to be closed.
    embedded_log: Option<Arc<EmbeddedLog>>,
}

impl Engines {
    /// Opens what `roles` need; `projector` is the name under which rows and documents are written. Metrics of each
    /// engine are registered, and `admin` tells which is waited for. When this fails, or is dropped while it waits, what
    /// is open already is to be closed by [`Self::close`].
    pub(crate) async fn open(
        &mut self,
        configuration: &Configuration,
        roles: Roles,
        projector: &str,
        registry: &mut Registry,
        admin: &AdminServer,
    ) -> Result<(), Failure> {
        if roles.need_log() {
            self.open_log(configuration, projector, registry, admin).await?;
        }
        if roles.need_documents() {
            self.open_store(configuration, roles, projector, registry, admin).await?;
        }
        Ok(())
    }

    async fn open_log(
        &mut self,
        configuration: &Configuration,
        projector: &str,
        registry: &mut Registry,
        admin: &AdminServer,
    ) -> Result<(), Failure> {
        let settings = &configuration.settings;
        if let Some(kafka) = &settings.broker.kafka {
            let options = kafka_options(configuration, kafka);
            let open = || async {
                let log = KafkaLog::open(options.clone())?;
                log.check().await?;
                Ok(log)
            };
            let log = patiently(admin, "use Kafka", broker_is_away, open).await?;
            log.metrics().register(registry);
            self.log = Some(log);
            return Ok(());
        }
        let log = EmbeddedLog::open(LogOptions {
            size_max: settings.broker.embedded.size_max.value.0,
            ..LogOptions::new(configuration.data_folder().join("broker"))
        })
        .map_err(|error| Failure::caused("cannot open the broker's log", &error))?;
        self.embedded_log = Some(log.clone());
        // This process alone reads it: what a projector of another name once read would be kept for ever.
        let own = ProjectorOptions::group(&settings.prefix.value, projector);
        forget_groups(&log, &own)
            .await
            .map_err(|error| Failure::caused("cannot forget old consumer groups", &error))?;
        log.metrics().register(registry);
        self.log = Some(log);
        Ok(())
    }

    async fn open_store(
        &mut self,
        configuration: &Configuration,
        roles: Roles,
        projector: &str,
        registry: &mut Registry,
        admin: &AdminServer,
    ) -> Result<(), Failure> {
        let settings = &configuration.settings.store;
        let embedded = || {
            EmbeddedStore::open(StoreOptions {
                size_max: settings.embedded.size_max.value.0,
                ..StoreOptions::new(configuration.data_folder().join("store"))
            })
            .map_err(|error| Failure::caused("cannot open the store", &error))
        };
        let Some(mongodb) = settings.mongodb.as_ref().filter(|_| settings.documents() == StoreEngine::Mongodb) else {
            let store = embedded()?;
            store.metrics().register(registry);
            self.reader = Some(store.clone());
            self.projection = Some(Projection::Alone(store));
            return Ok(());
        };
        let options = MongoOptions {
            projector: projector.to_string(),
            shared: configuration.settings.shares_rows(),
            ..MongoOptions::new(mongodb.uri.reveal(), mongodb.database.value.clone())
        };
        options.metrics.register(registry);
        if !roles.project {
            self.reader =
                Some(patiently(admin, "use MongoDB", store_is_away, || MongoReader::open(options.clone())).await?);
            return Ok(());
        }
        let documents =
            patiently(admin, "use MongoDB", store_is_away, || MongoDocuments::open(options.clone())).await?;
        let rows: Arc<dyn RowStore> = match settings.rows() {
            StoreEngine::Embedded => embedded()?,
            StoreEngine::Mongodb => {
                patiently(admin, "use MongoDB", store_is_away, || MongoRows::open(options.clone())).await?
            }
        };
        self.reader = Some(documents.reader());
        let documents: Arc<dyn DocumentStore> = documents;
        self.projection = Some(match configuration.settings.shares_rows() {
            true => Projection::Shared { rows, documents },
            false => Projection::Alone(Paired::new(rows, documents)),
        });
        Ok(())
    }

    /// What a projector works with.
    pub(crate) fn for_projection(&self) -> (Arc<dyn EventLog>, Projection) {
        let both = self.log.clone().zip(self.projection.clone());
        both.expect("a process with the role `project` opened both")
    }

    /// Closes what is inside this process; everything in it is durable already.
    pub(crate) async fn close(self) {
        if let Some(log) = self.embedded_log {
            log.close().await.ok();
        }
    }
}

/// What is found at the engines that are in other places, as the start would find it: what each is to this process, what it
/// is, and why it cannot be used, if so. Changes nothing there.
pub(crate) async fn look(configuration: &Configuration) -> Vec<(&'static str, String, Result<(), String>)> {
    let settings = &configuration.settings;
    let mut found = Vec::new();
    if let Some(kafka) = &settings.broker.kafka {
        let options = KafkaOptions { create_topics: false, ..kafka_options(configuration, kafka) };
        let looked = async {
            match KafkaLog::open(options)?.check().await {
                // The first start makes them.
                Err(headwater_broker::Error::Topic { .. }) if kafka.create_topics => Ok(()),
                looked => looked,
            }
        };
        let place = format!("Kafka at {}", kafka.servers.value.join(","));
        found.push(("broker", place, looked.await.map_err(|error: headwater_broker::Error| chain(&error))));
    }
    if let Some(mongodb) =
        settings.store.mongodb.as_ref().filter(|_| settings.store.documents() == StoreEngine::Mongodb)
    {
        let options = MongoOptions {
            shared: settings.shares_rows(),
            ..MongoOptions::new(mongodb.uri.reveal(), mongodb.database.value.clone())
        };
        let looked = MongoReader::open(options).await;
        found.push(("store", "MongoDB".to_owned(), looked.map(drop).map_err(|error| chain(&error))));
    }
    found
}

/// Whether waiting may mend an error of the broker at the start.
pub(crate) fn broker_is_away(error: &headwater_broker::Error) -> bool {
    error.kind() == headwater_broker::ErrorKind::Retryable && !error.is_refusal()
}

/// Whether waiting may mend an error of the store at the start.
pub(crate) fn store_is_away(error: &headwater_store::Error) -> bool {
    error.kind() == headwater_store::ErrorKind::Retryable && !error.is_refusal()
}

/// Does what needs an engine, however long that is away, and tells meanwhile that it is waited for. What waiting does not mend
/// is a failure.
pub(crate) async fn patiently<T, E, F>(
    admin: &AdminServer,
    action: &str,
    retry: impl Fn(&E) -> bool,
    attempt: impl Fn() -> F,
) -> Result<T, Failure>
where
    E: std::error::Error,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = PAUSE.0;
    admin.waits(Some(format!("waiting to {action}")));
    loop {
        match attempt().await {
            Ok(done) => {
                admin.waits(None);
                return Ok(done);
            }
            Err(error) if retry(&error) => {
                admin.waits(Some(format!("waiting to {action}: {}", chain(&error))));
                tracing::warn!(error = chain(&error), again_in = ?pause, "cannot {action} yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => return Err(Failure::caused(format_args!("cannot {action}"), &error)),
        }
    }
}

fn kafka_options(configuration: &Configuration, kafka: &Kafka) -> KafkaOptions {
    let security = &kafka.security;
    let file = |path: &Spanned<PathBuf>| folder_of(&configuration.file).join(&path.value);
    let tls = security.tls.then(|| KafkaTls {
        ca: security.ca.as_ref().map(file),
        certificate: security.certificate.as_ref().zip(security.key.as_ref()).map(|(own, key)| (file(own), file(key))),
    });
    let sasl = match (security.mechanism, &security.user, &security.password) {
        (Some(mechanism), Some(user), Some(password)) => Some(KafkaSasl {
            mechanism: match mechanism {
                config::SaslMechanism::Plain => SaslMechanism::Plain,
                config::SaslMechanism::ScramSha256 => SaslMechanism::ScramSha256,
                config::SaslMechanism::ScramSha512 => SaslMechanism::ScramSha512,
            },
            user: user.clone(),
            password: password.reveal().to_string(),
        }),
        _ => None,
    };
    let sources: BTreeMap<String, SourceInfo> = configuration
        .connectors
        .iter()
        .map(|file| {
            let info = SourceInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                connector: "postgresql".into(),
                database: file.config.postgres.database.clone(),
            };
            (file.config.source.clone(), info)
        })
        .collect();
    KafkaOptions {
        tls,
        sasl,
        prefix: configuration.settings.prefix.value.clone(),
        replication_factor: u16::try_from(kafka.replication.value).ok(),
        create_topics: kafka.create_topics,
        sources,
        topic_settings: kafka.topic_settings.clone(),
        tombstones: kafka.tombstones,
        settings: kafka.settings.clone(),
        ..KafkaOptions::new(kafka.servers.value.join(","))
    }
}

/// Lets go of what groups other than `own` have not read.
async fn forget_groups(log: &EmbeddedLog, own: &str) -> Result<(), headwater_broker::Error> {
    for group in log.groups()?.into_iter().filter(|group| group != own) {
        let committed = log.committed_offsets(&group).await?;
        let partitions: Vec<_> = committed.into_iter().map(|(partition, _)| partition).collect();
        log.forget_offsets(&group, &partitions).await?;
        tracing::info!(group, "nobody reads for this consumer group any more: retention does not wait for it");
    }
    Ok(())
}
