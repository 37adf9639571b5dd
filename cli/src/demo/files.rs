//! The example's configuration, written out for this demo's database and ports.

use std::path::{Path, PathBuf};

use tokio_postgres::config::Host;

use crate::failure::Failure;

const SETTINGS: &str = include_str!("../../../examples/billing/headwater.yaml");
const CONNECTOR: &str = include_str!("../../../examples/billing/connectors/billing.yaml");
const MODELS: [(&str, &str); 3] = [
    ("customer_account.yaml", include_str!("../../../examples/billing/models/customer_account.yaml")),
    ("invoice.yaml", include_str!("../../../examples/billing/models/invoice.yaml")),
    ("tariff.yaml", include_str!("../../../examples/billing/models/tariff.yaml")),
];

/// Engines outside this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Engines<'a> {
    /// `host:port` of a Kafka broker.
    pub(super) kafka: Option<&'a str>,
    /// Connection string of a MongoDB.
    pub(super) mongodb: Option<&'a str>,
}

impl Engines<'_> {
    /// The example's settings with these engines.
    fn choose(&self, mut settings: String) -> String {
        if let Some(server) = self.kafka {
            let kafka =
                format!("broker:\n  kafka: {{ servers: [{}], partitions: 1, replication: 1 }}\n", quoted(server));
            settings = settings.replace("broker:\n", &kafka);
        }
        if let Some(uri) = self.mongodb {
            settings.push_str(&format!("store: {{ mongodb: {{ uri: {} }} }}\n", quoted(uri)));
        }
        settings
    }
}

/// Where the demo listens.
pub(super) struct Ports {
    /// The query API.
    pub(super) api_port: u16,
    /// The admin port.
    pub(super) admin_port: u16,
    /// The example's page.
    pub(super) web_port: u16,
}

/// Writes the configuration into `folder`, readable by its owner alone; answers with the path of `headwater.yaml`.
pub(super) fn write(
    folder: &Path,
    database: &tokio_postgres::Config,
    engines: &Engines<'_>,
    ports: &Ports,
) -> Result<PathBuf, Failure> {
    let settings = engines
        .choose(SETTINGS.to_string())
        // Database, load and readers share one machine here: that a processor is late is no reason to turn readers away.
        .replace("api:\n", "api:\n  limits: { queue_delay_max: 5s }\n")
        .replace("listen: 127.0.0.1:8080", &format!("listen: 127.0.0.1:{}", ports.api_port))
        .replace("http://127.0.0.1:8088", &format!("http://127.0.0.1:{}", ports.web_port))
        .replace("listen: 127.0.0.1:9090", &format!("listen: 127.0.0.1:{}", ports.admin_port));
    let host = match database.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(folder)) => folder.display().to_string(),
        None => "127.0.0.1".to_string(),
    };
    let port = database.get_ports().first().copied().unwrap_or(5432);
    let user = database.get_user().unwrap_or("headwater");
    let name = database.get_dbname().unwrap_or(user);
    let password = String::from_utf8_lossy(database.get_password().unwrap_or_default());
    let connector = CONNECTOR
        .replace("${BILLING_HOST:-127.0.0.1}", &quoted(&host))
        .replace("${BILLING_PORT:-5432}", &port.to_string())
        .replace("${BILLING_DATABASE:-billing}", &quoted(name))
        .replace("${BILLING_USER:-headwater}", &quoted(user))
        .replace("${BILLING_PASSWORD:-}", &quoted(&password));
    let files = [("headwater.yaml".to_string(), settings), ("connectors/billing.yaml".to_string(), connector)];
    let models = MODELS.map(|(name, text)| (format!("models/{name}"), text.to_string()));
    for (name, text) in files.into_iter().chain(models) {
        let path = folder.join(&name);
        let written =
            std::fs::create_dir_all(path.parent().unwrap_or(folder)).and_then(|()| std::fs::write(&path, text));
        written.map_err(|error| Failure::caused(format_args!("cannot write {}", path.display()), &error))?;
    }
    Ok(folder.join("headwater.yaml"))
}

/// As a YAML scalar in single quotes, which has one escape only.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Configuration, Environment};

    #[test]
    fn every_variable_of_the_example_is_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let database = "postgresql://me:it%27s@localhost:6543/other".parse().unwrap();
        let engines = Engines { kafka: Some("k:9092"), mongodb: Some("mongodb://m/?a=b") };
        let ports = Ports { api_port: 1234, admin_port: 1235, web_port: 1236 };
        let file = write(folder.path(), &database, &engines, &ports).unwrap();
        let configuration = Configuration::load_with(&file, &Environment::new()).unwrap();
        let postgres = &configuration.connectors[0].config.postgres;
        assert_eq!((postgres.host.as_str(), postgres.port, postgres.database.as_str()), ("localhost", 6543, "other"));
        assert_eq!((postgres.user.as_str(), postgres.password.reveal()), ("me", "it's"));
        assert_eq!(configuration.settings.api.listen.value.port(), 1234);
        assert_eq!(configuration.settings.admin.listen.value.port(), 1235);
        assert_eq!(configuration.models.len(), 3);
        assert_eq!(configuration.settings.broker.kafka.as_ref().unwrap().servers.value, ["k:9092"]);
        assert_eq!(configuration.settings.store.mongodb.as_ref().unwrap().uri.reveal(), "mongodb://m/?a=b");
        let file = write(folder.path(), &database, &Engines::default(), &ports).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("http://127.0.0.1:1236"));
        assert!(Configuration::load_with(&file, &Environment::new()).unwrap().settings.broker.kafka.is_none());
    }
}
