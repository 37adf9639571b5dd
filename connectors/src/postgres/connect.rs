//! Sessions with the database: for queries, and for replication.

use std::time::Duration;

use pgwire_replication::{Lsn, ReplicationClient, ReplicationConfig};
use rustls::CertificateError;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::catalog::quote;
use super::config::{PostgresConfig, TlsMode};
use super::{tls, tunnel};
use crate::Error;

/// Settings that fix the text form of values. Snapshot and stream have the same, so one decoder reads both. Rows that a
/// policy would hide make a query fail: the stream knows no policies. And a backslash in a literal is a backslash, whatever
/// the database's own setting.
const TEXT_FORMS: &str = "-c datestyle=ISO,YMD -c intervalstyle=iso_8601 -c timezone=UTC -c extra_float_digits=3 \
     -c bytea_output=hex -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=0 \
     -c row_security=off -c standard_conforming_strings=on";
/// Of a database that does not know in which encoding its texts are (`SQL_ASCII`): they come as they are stored. As UTF-8 the
/// server would look at each, and fail for ever at the first that is not; so such a value alone cannot be represented.
const AS_STORED: &str = "SELECT set_config('client_encoding', 'SQL_ASCII', false)
                         WHERE current_setting('server_encoding') = 'SQL_ASCII'";
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// Messages between the reader of the socket and the decoder. Each is a row, of up to a gigabyte, and their bytes are not
/// counted: a thousand rows of ten megabytes would be ten gigabytes of memory.
const BUFFERED_MESSAGES: usize = 64;

/// A session for queries; ends when dropped.
pub(crate) struct Sql {
    pub(crate) client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Sql {
    pub(crate) async fn connect(config: &PostgresConfig) -> Result<Self, Error> {
        let mut driver = tokio_postgres::Config::new();
        driver.host(&config.host).port(config.port).dbname(&config.database).user(&config.user);
        driver.password(config.password.reveal()).application_name("headwater").options(TEXT_FORMS);
        driver.connect_timeout(CONNECT_MAX).keepalives_idle(Duration::from_secs(30));
        driver.ssl_mode(match config.tls.mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        });
        let tls = MakeRustlsConnect::new(tls::client_config(&config.tls)?);
        let connected = tokio::time::timeout(CONNECT_MAX * 2, driver.connect(tls)).await;
        let (client, connection) = connected
            .map_err(|elapsed| not_connected(config, "no answer in time: check host, port and firewall", elapsed))?
            .map_err(|error| not_connected(config, &hint(config, &error), error))?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database session ended");
            }
        });
        let session = Self { client, connection };
        session.execute("choose the encoding of texts", AS_STORED).await?;
        Ok(session)
    }

    /// Runs one statement with the simple protocol and gives its rows.
    pub(crate) async fn rows(&self, action: &str, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
        let messages = self.client.simple_query(sql).await.map_err(|error| failed(action, error))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// Runs statements whose rows do not matter.
    pub(crate) async fn execute(&self, action: &str, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await.map_err(|error| failed(action, error))
    }
}

fn place(config: &PostgresConfig) -> String {
    format!("{}:{}/{} as {}", config.host, config.port, config.database, config.user)
}

pub(crate) fn not_connected(
    config: &PostgresConfig,
    hint: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Connect { place: place(config), hint: hint.into(), source: source.into() }
}

fn hint(config: &PostgresConfig, error: &tokio_postgres::Error) -> String {
    let said = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    match error.code() {
        Some(&SqlState::INVALID_PASSWORD) => "the password is wrong".into(),
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
            format!("{said}; allow this user, host and encryption in pg_hba.conf")
        }
        Some(&SqlState::INVALID_CATALOG_NAME) => said,
        Some(&SqlState::TOO_MANY_CONNECTIONS) => format!("{said}; raise max_connections"),
        Some(_) => said,
        None => refused(config, error)
            .unwrap_or_else(|| "the server does not answer; check host, port, firewall and TLS settings".into()),
    }
}

/// What to do about a certificate of the server that was not accepted, if that is what is wrong.
pub(crate) fn refused(config: &PostgresConfig, error: &(dyn std::error::Error + 'static)) -> Option<String> {
    Some(match refused_certificate(error)? {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the server's certificate is not for `{}`: set `host` to a name that it is for, or have the server give one \
             for this name",
            config.host
        ),
        CertificateError::UnknownIssuer => {
            "the server's certificate was not signed by an authority of `tls.ca`: name the file of the one that did"
                .into()
        }
        _ => "the server's certificate is not accepted; renew it, or check `tls.ca`".into(),
    })
}

fn refused_certificate<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e CertificateError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let tls = match error.downcast_ref::<std::io::Error>() {
            // Its cause is the cause of what it holds, not that itself.
            Some(error) => error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()),
            None => error.downcast_ref::<rustls::Error>(),
        };
        if let Some(rustls::Error::InvalidCertificate(why)) = tls {
            return Some(why);
        }
        cause = error.source();
    }
    None
}

/// Wraps a failed query with what was being done.
pub(crate) fn failed(action: &str, source: tokio_postgres::Error) -> Error {
    let message = source.as_db_error().map_or_else(|| source.to_string(), |error| error.message().to_owned());
    Error::Query { action: action.into(), message, source }
}

/// A value of a simple query's row that must be there.
pub(crate) fn text<'a>(row: &'a SimpleQueryRow, column: &str) -> Result<&'a str, Error> {
    row.try_get(column).ok().flatten().ok_or(Error::Malformed { what: "answer to a catalog query" })
}

/// A value of a simple query's row that may be null.
pub(crate) fn optional<'a>(row: &'a SimpleQueryRow, column: &str) -> Option<&'a str> {
    row.try_get(column).ok().flatten()
}

/// A number of a simple query's row.
pub(crate) fn number<T: std::str::FromStr>(row: &SimpleQueryRow, column: &str) -> Result<T, Error> {
    text(row, column)?.parse().map_err(|_| Error::Malformed { what: "number in the answer to a catalog query" })
}

/// Opens a replication session that runs commands before it streams from `start`.
pub(crate) async fn replication(config: &PostgresConfig, source: &str, start: Lsn) -> Result<ReplicationClient, Error> {
    let (mut host, mut mode) = (config.host.clone(), config.tls.verified_mode());
    if mode == TlsMode::VerifyCa {
        (host, mode) = (tunnel::open(config).await?, TlsMode::Disable);
    }
    let mode = match mode {
        TlsMode::Disable => pgwire_replication::SslMode::Disable,
        TlsMode::Prefer => pgwire_replication::SslMode::Prefer,
        TlsMode::Require => pgwire_replication::SslMode::Require,
        TlsMode::VerifyCa | TlsMode::VerifyFull => pgwire_replication::SslMode::VerifyFull,
    };
    let tls = pgwire_replication::TlsConfig {
        mode,
        ca_pem_path: config.tls.ca.clone(),
        sni_hostname: None,
        client_cert_pem_path: config.tls.cert.clone(),
        client_key_pem_path: config.tls.key.clone(),
    };
    let slot = config.slot_name(source);
    // The server reads it as SQL: a bare name would lose its capital letters.
    let publication = quote(&config.publication_name(source));
    let session = ReplicationConfig::new(
        host.as_str(),
        config.user.as_str(),
        config.password.reveal(),
        config.database.as_str(),
        slot.as_str(),
        publication.as_str(),
    )
    .with_port(config.port)
    .with_tls(tls)
    .with_start_lsn(start)
    .with_status_interval(STATUS_INTERVAL)
    .with_wakeup_interval(Duration::from_secs(5))
    .with_buffer_size(BUFFERED_MESSAGES)
    .with_options(TEXT_FORMS)
    .with_application_name("headwater");
    let connected = tokio::time::timeout(CONNECT_MAX, ReplicationClient::connect_gated(session)).await;
    let client = connected.map_err(|_| Error::Replication {
        action: "open a replication session",
        source: pgwire_replication::PgWireError::Internal("no answer in time".into()),
    })?;
    let failed = |source| Error::Replication { action: "open a replication session", source };
    let mut client = client.map_err(failed)?;
    client.simple_query(AS_STORED).await.map_err(failed)?;
    Ok(client)
}
