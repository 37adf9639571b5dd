//! The admin port from the first moment of a process to its last.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Admin;
use super::route::{AdminPort, Started, answer};
use crate::Error;
use crate::http::{ConnectionsMax, WRITE_WAIT, serve};
use crate::listen::BoundPort;
use crate::server::ApiHandle;

/// Connections that are open at the same time.
const CONNECTIONS_MAX: usize = 1024;

/// The admin port. It listens before there is anything to tell: whoever looks after processes must not take one that waits
/// for somebody for a dead one. Closed when this is dropped.
pub struct AdminServer {
    address: SocketAddr,
    port: Arc<AdminPort>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl AdminServer {
    /// Listens where operators and probes connect; port 0 takes a free one. It has no authentication. `hosts` are names by
    /// which it may be asked, beside those that nobody else can own.
    ///
    /// Until [`Self::open`] probes are told that the process lives and is not started, and whatever else is asked is answered
    /// with 503 and why.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] when the address is taken or not ours.
    pub async fn listen(address: SocketAddr, hosts: Vec<String>) -> Result<Self, Error> {
        let (listener, address) = BoundPort::bind("admin.listen", address)?.listen()?;
        let port = Arc::new(AdminPort { hosts, waits: Mutex::default(), started: OnceLock::new() });
        let stop = CancellationToken::new();
        let answering = port.clone();
        let connections_max = ConnectionsMax { all: CONNECTIONS_MAX, of_address: None };
        let task = tokio::spawn(serve(listener, connections_max, WRITE_WAIT, stop.clone(), move |request, peer| {
            let port = answering.clone();
            async move { answer(&port, request, peer).await }
        }));
        tracing::info!(%address, "the admin port listens");
        Ok(Self { address, port, stop: stop.drop_guard(), task })
    }

    /// Where operators and probes connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the start waits for from now on, for those who ask meanwhile; `None`: for nothing.
    pub fn waits(&self, what: Option<String>) {
        *self.port.waits.lock() = what;
    }

    /// The process has started: from now on everything is answered. `metrics` is every metric of the process, `api` the query
    /// API, where it serves. To be called once; later calls change nothing.
    pub fn open(&self, admin: Arc<dyn Admin>, metrics: Arc<Mutex<Registry>>, api: Option<&ApiHandle>) {
        let started = Started { admin, metrics, api: api.map(|handle| handle.api.clone()) };
        self.port.started.set(started).ok();
    }

    /// Waits until it is closed.
    pub async fn ended(&mut self) {
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the admin port failed");
        }
    }

    /// Closes it: no new connections, requests that are being answered end.
    pub async fn close(self) {
        let Self { stop, task, .. } = self;
        drop(stop);
        // One that has ended has been waited for.
        if !task.is_finished() {
            task.await.ok();
        }
    }
}
