//! What every request needs: where documents are read, what is served, and what accompanies a read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_store::{DocumentReader, VersionId, VersionRecord, VersionState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::{Gate, Principal};
use crate::cache::DocumentCache;
use crate::channel::{ChannelId, Channels};
use crate::context::{ReadContext, RequestId};
use crate::freshness::Freshness;
use crate::graphql::KnownTexts;
use crate::live::Listeners;
use crate::metrics::ApiMetrics;
use crate::observe::Reads;
use crate::query::CursorKey;
use crate::sending::Sending;
use crate::server::GraphQlOptions;
use crate::serving::Serving;

/// Index entries one query may look at, unless set otherwise.
pub(crate) const ENTRIES_MAX: usize = 10_000;

/// Bytes of the documents that are read for one request, unless set otherwise. All of them are held until they are
/// written, however little of them is wanted.
pub(crate) const DOCUMENTS_BYTES_MAX: usize = 64 << 20;

/// The query API as requests see it.
pub(crate) struct Api {
    /// Where documents are read.
    pub(crate) reader: Arc<dyn DocumentReader>,
    /// What of that is kept at hand; `None`: nothing is.
    pub(crate) cache: Option<Arc<DocumentCache>>,
    /// Whether answers are compressed for those who take them so.
    pub(crate) compression: bool,
    /// What is served, kept current.
    pub(crate) serving: watch::Receiver<Arc<Serving>>,
    /// Up to when answers are complete.
    pub(crate) freshness: Freshness,
    /// Signs cursors.
    pub(crate) cursors: Arc<CursorKey>,
    /// Index entries one query may look at, at most.
    pub(crate) entries_max: usize,
    /// Bytes of the documents that are read for one list, at most.
    pub(crate) documents_bytes_max: usize,
    /// Lets requests in.
    pub(crate) gate: Gate,
    /// Counts what is sent.
    pub(crate) sending: Sending,
    /// How GraphQL is served.
    pub(crate) graphql: GraphQlOptions,
    /// Texts of operations that callers may name.
    pub(crate) known_texts: KnownTexts,
    /// The shapes there are for kinds of readers.
    pub(crate) channels: Arc<Channels>,
    /// Requests that take longer are logged.
    pub(crate) slow_query: Option<Duration>,
    /// Whether answers tell how long their parts took.
    pub(crate) server_timing: bool,
    /// Who waits for changes of which document.
    pub(crate) listeners: Arc<Listeners>,
    /// What is counted.
    pub(crate) metrics: ApiMetrics,
    /// Whether `/bench/static` is served.
    pub(crate) bench_route: bool,
    /// Cancelled when the API is to stop.
    pub(crate) stop: CancellationToken,
}

impl Api {
    /// What is served now. A request asks once and keeps the answer.
    pub(crate) fn serving(&self) -> Arc<Serving> {
        self.serving.borrow().clone()
    }

    /// Whether a version is the one that is served of its model.
    pub(crate) fn is_active(&self, version: VersionId) -> bool {
        let is_own = |record: &VersionRecord| record.id == version && record.state == VersionState::Active;
        self.reader.versions().borrow().iter().any(is_own)
    }

    /// What accompanies a request of this caller, at this address, by a channel.
    pub(crate) fn context(
        &self,
        request_id: RequestId,
        (principal, address): (Arc<Principal>, IpAddr),
        channel: ChannelId,
        started: Instant,
    ) -> ReadContext {
        ReadContext {
            request_id,
            cursors: self.cursors.clone(),
            entries_max: self.entries_max,
            documents_bytes_max: self.documents_bytes_max,
            principal,
            address,
            is_private: self.gate.asks(),
            channel,
            vary: self.channels.vary(self.gate.asks()),
            reads: Reads::new(started, self.server_timing),
            is_followed: false,
        }
    }
}
