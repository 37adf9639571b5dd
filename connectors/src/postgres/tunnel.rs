//! The way of a replication session through TLS of our own, for `verify-ca`.
//!
//! The replication client refuses a certificate for another name in that mode, too, and takes neither a verifier nor a
//! connection of ours. But it speaks plain text with a Unix socket. So it is given one, in a folder that nobody else can enter,
//! and what goes through it is carried over a connection that was verified as those for queries are. The bytes are copied once
//! more on their way; in the other modes the client connects by itself.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::PostgresConfig;
use super::connect::{CONNECT_MAX, not_connected, refused};
use super::tls;
use crate::Error;

/// `SSLRequest` of the protocol: its length and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const BUFFER_BYTES: usize = 128 << 10;

/// Connects to the database, and gives the folder of the socket by which one client can go on from there, and soon.
pub(crate) async fn open(config: &PostgresConfig) -> Result<String, Error> {
    let tls = tls::client_config(&config.tls)?;
    let connected = tokio::time::timeout(CONNECT_MAX, connect(config, tls)).await;
    let server = connected
        .map_err(|elapsed| not_connected(config, "no answer in time: check host, port and firewall", elapsed))?
        .map_err(|error| {
            let hint = refused(config, &error).unwrap_or_else(|| error.to_string());
            not_connected(config, &hint, error)
        })?;
    let (folder, listener) = socket(config.port).map_err(|error| Error::File {
        path: std::env::temp_dir().display().to_string(),
        problem: format!(
            "no socket can be made there, which `tls.mode: verify-ca` needs: {error}; name another folder by TMPDIR"
        ),
    })?;
    let name = folder.path().display().to_string();
    tokio::spawn(async move {
        if let Err(error) = carry(server, folder, listener).await {
            tracing::debug!(%error, "a replication session was cut off");
        }
    });
    Ok(name)
}

async fn connect(config: &PostgresConfig, tls: rustls::ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let mut server = TcpStream::connect((config.host.as_str(), config.port)).await?;
    server.set_nodelay(true)?;
    server.write_all(&SSL_REQUEST).await?;
    if server.read_u8().await? != b'S' {
        return Err(io::Error::other("the server does not offer TLS"));
    }
    let name = ServerName::try_from(config.host.clone()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(tls)).connect(name, server).await
}

/// A socket where the client looks for one.
fn socket(port: u16) -> io::Result<(TempDir, UnixListener)> {
    let folder =
        tempfile::Builder::new().prefix("headwater-").tempdir_in(std::path::absolute(std::env::temp_dir())?)?;
    let listener = UnixListener::bind(folder.path().join(format!(".s.PGSQL.{port}")))?;
    Ok((folder, listener))
}

/// Hands on in both directions until either side ends: a server that is gone never answers the end of the client.
async fn carry(server: TlsStream<TcpStream>, folder: TempDir, listener: UnixListener) -> io::Result<()> {
    let (client, _) = tokio::time::timeout(CONNECT_MAX, listener.accept()).await??;
    drop((listener, folder));
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = tokio::io::split(server);
    let mut from_server = tokio::io::BufReader::with_capacity(BUFFER_BYTES, from_server);
    // Whichever is dropped, the session is over.
    tokio::select! {
        ended = tokio::io::copy_buf(&mut from_server, &mut to_client) => ended,
        ended = tokio::io::copy(&mut from_client, &mut to_server) => ended,
    }?;
    Ok(())
}
