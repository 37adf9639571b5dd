//! What a process knows of versions and frontiers, and whom it tells of changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_schemas::SourcePosition;
use mongodb::ClientSession;
use mongodb::bson::{Bson, RawDocument, RawDocumentBuf};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::COUNTERS;
use crate::mongodb::bson::{DOCUMENT, Writer};
use crate::mongodb::server::{Fault, Server};
use crate::{DocumentChange, Frontier, VersionId, VersionRecord, VersionState};

pub(super) const VERSIONS: &str = "headwater.versions";
pub(super) const FRONTIERS: &str = "headwater.frontiers";
pub(super) const COUNTS: &str = "headwater.counts";

/// Ids of the counts of a version, the first of a process that writes alone.
pub(super) fn count_ids(VersionId(version): VersionId) -> Vec<i64> {
    (0..=COUNTERS).map(|counter| count_id(VersionId(version), counter)).collect()
}

/// Id of one of them.
pub(super) fn count_id(VersionId(version): VersionId, counter: i64) -> i64 {
    (counter << 32) + i64::from(version)
}

/// Messages about changed documents that a slow listener may be behind before it misses some.
const CHANGES_KEPT: usize = 256;

/// Sessions that are remembered as our own. The driver uses few, again and again.
const SESSIONS_KEPT: usize = 256;

const BROKEN: Fault = Fault::Damaged("an entry of the registry of versions cannot be read");

/// A version, or the collection made for one that nobody registered yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) collection: String,
    pub(super) projector: String,
    pub(super) record: Option<VersionRecord>,
}

/// Versions by id, and frontiers by projector and source.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) versions: BTreeMap<VersionId, Known>,
    pub(super) frontiers: BTreeMap<(String, String), Frontier>,
}

/// What is known, and how often this process changed it: what is read meanwhile may be older.
#[derive(Default)]
struct Held {
    state: State,
    version_changes: u64,
    frontier_changes: u64,
}

pub(super) struct Registry {
    held: Mutex<Held>,
    pub(super) versions: watch::Sender<Arc<Vec<VersionRecord>>>,
    pub(super) frontiers: watch::Sender<Arc<BTreeMap<String, Frontier>>>,
    pub(super) changes: broadcast::Sender<Arc<Vec<DocumentChange>>>,
    own_sessions: Mutex<VecDeque<Vec<u8>>>,
    /// Whether frontiers that this process sets itself are published when the server's stream tells them: they promise
    /// documents of other processes, too, which the stream has told by then.
    frontiers_by_stream: bool,
    /// When the server last said what has changed, or that nothing has.
    heard: Mutex<Instant>,
}

impl Registry {
    /// Of a process that writes all the documents its own frontiers promise, or none.
    pub(super) fn of_one_writer() -> Self {
        Self::new(false)
    }

    /// Of one of the processes that share documents.
    pub(super) fn of_several_writers() -> Self {
        Self::new(true)
    }

    fn new(frontiers_by_stream: bool) -> Self {
        Self {
            frontiers_by_stream,
            held: Mutex::default(),
            versions: watch::Sender::default(),
            frontiers: watch::Sender::default(),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            own_sessions: Mutex::default(),
            heard: Mutex::new(Instant::now()),
        }
    }

    /// The server said what has changed, or that nothing has.
    pub(super) fn heard(&self) {
        *self.heard.lock() = Instant::now();
    }

    /// How long ago it last did.
    pub(super) fn silent_for(&self) -> Duration {
        self.heard.lock().elapsed()
    }

    /// Reads all of it, and publishes what is new.
    pub(super) async fn read(&self, server: &Server) -> Result<(), Fault> {
        self.read_versions(server).await?;
        loop {
            let before = self.held.lock().frontier_changes;
            let read = State::read_frontiers(server).await?;
            let mut held = self.held.lock();
            if held.frontier_changes == before {
                held.state.frontiers = read.frontiers;
                self.publish(&held.state);
                return Ok(());
            }
        }
    }

    /// Reads the versions, and publishes what is new.
    pub(super) async fn read_versions(&self, server: &Server) -> Result<(), Fault> {
        loop {
            let before = self.held.lock().version_changes;
            let read = State::read_versions(server).await?;
            let mut held = self.held.lock();
            if held.version_changes == before {
                held.state.versions = read.versions;
                self.publish(&held.state);
                return Ok(());
            }
        }
    }

    /// Changes what is known of versions, as the one who changed them, and publishes what is new.
    pub(super) fn change_versions(&self, change: impl FnOnce(&mut State)) {
        let mut held = self.held.lock();
        change(&mut held.state);
        held.version_changes += 1;
        self.publish(&held.state);
    }

    /// Publishes frontiers that this process has set, unless the server's stream is to do so.
    pub(super) fn set_frontiers(&self, change: impl FnOnce(&mut State)) {
        if !self.frontiers_by_stream {
            self.change_frontiers(change);
        }
    }

    /// Whether a change of the frontiers, by this process or by another, is news.
    pub(super) fn learns_frontiers_of(&self, own: bool) -> bool {
        !own || self.frontiers_by_stream
    }

    /// Changes frontiers, as the one who set or heard of them, and publishes what is new.
    pub(super) fn change_frontiers(&self, change: impl FnOnce(&mut State)) {
        let mut held = self.held.lock();
        change(&mut held.state);
        held.frontier_changes += 1;
        self.publish(&held.state);
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.held.lock().state)
    }

    /// The collection of a version, if it has one.
    pub(super) fn collection(&self, version: VersionId) -> Option<String> {
        self.with(|state| Some(state.versions.get(&version)?.collection.clone()))
    }

    /// Under the lock, so that an older state is never published behind a newer one.
    fn publish(&self, state: &State) {
        let versions: Vec<VersionRecord> = state.versions.values().filter_map(|known| known.record.clone()).collect();
        let frontiers = state.least_frontiers();
        self.versions.send_if_modified(|published| {
            let new = **published != versions;
            if new {
                *published = Arc::new(versions);
            }
            new
        });
        self.frontiers.send_if_modified(|published| {
            let new = **published != frontiers;
            if new {
                *published = Arc::new(frontiers);
            }
            new
        });
    }

    /// Tells listeners of changed documents. An empty list says that some were missed.
    pub(super) fn tell(&self, changes: Vec<DocumentChange>) {
        // Nobody listens any more: nothing is lost.
        let _ = self.changes.send(Arc::new(changes));
    }

    /// Remembers a session as our own: what it changes has been told when the server's stream tells it again.
    pub(super) fn own(&self, session: &ClientSession) {
        let Some(Bson::Binary(id)) = session.id().get("id") else { return };
        let id = id.bytes.clone();
        let mut own = self.own_sessions.lock();
        if !own.contains(&id) {
            if own.len() == SESSIONS_KEPT {
                own.pop_front();
            }
            own.push_back(id);
        }
    }

    pub(super) fn is_own(&self, session: &[u8]) -> bool {
        self.own_sessions.lock().iter().any(|own| own == session)
    }
}

fn everything(server: &Server, collection: &str) -> RawDocumentBuf {
    server.bounded_command("find", collection, |find| {
        find.within(DOCUMENT, "filter", |_| {});
        find.within(DOCUMENT, "readConcern", |concern| concern.text("level", "majority"));
    })
}

impl State {
    /// The versions, as they are stored now.
    pub(super) async fn read_versions(server: &Server) -> Result<Self, Fault> {
        let mut read = Self::default();
        server.read(everything(server, VERSIONS), None, |version| read.learn_version(version)).await?;
        Ok(read)
    }

    /// The frontiers, as they are stored now.
    pub(super) async fn read_frontiers(server: &Server) -> Result<Self, Fault> {
        let mut read = Self::default();
        server.read(everything(server, FRONTIERS), None, |frontier| read.learn_frontier(frontier)).await?;
        Ok(read)
    }

    /// Per source the least of the projectors that keep versions up to date which read it, or of all where none does.
    fn least_frontiers(&self) -> BTreeMap<String, Frontier> {
        let lives = |projector: &str, source: &str| {
            let live = |record: &VersionRecord| record.state != VersionState::Retired && record.reads(source);
            let live = |known: &Known| known.projector == projector && known.record.as_ref().is_some_and(live);
            self.versions.values().any(live)
        };
        let mut least: BTreeMap<String, (bool, Frontier)> = BTreeMap::new();
        for ((projector, source), frontier) in &self.frontiers {
            let counts = lives(projector, source);
            match least.get_mut(source) {
                None => {
                    least.insert(source.clone(), (counts, *frontier));
                }
                Some((of_live, known)) => {
                    if counts && !*of_live || counts == *of_live && frontier.position < known.position {
                        (*of_live, *known) = (counts, *frontier);
                    }
                }
            }
        }
        least.into_iter().map(|(source, (_, frontier))| (source, frontier)).collect()
    }

    /// A version serves: any other of its model does so no longer.
    pub(super) fn put_version(&mut self, id: VersionId, known: Known) {
        if let Some(record) = known.record.as_ref().filter(|record| record.state == VersionState::Active) {
            let others =
                self.versions.iter_mut().filter(|(other, _)| **other != id).filter_map(|(_, it)| it.record.as_mut());
            for other in others.filter(|other| other.model == record.model && other.state == VersionState::Active) {
                other.state = VersionState::Retired;
            }
        }
        self.versions.insert(id, known);
    }

    fn learn_version(&mut self, document: &RawDocument) -> Result<(), Fault> {
        let id = document.get_i64("_id").ok().and_then(|id| u32::try_from(id).ok()).ok_or(BROKEN)?;
        let text = |name: &str| document.get_str(name).map(str::to_owned).map_err(|_| BROKEN);
        let record = match document.get("record").map_err(|_| BROKEN)? {
            None => None,
            Some(json) => {
                let json = json.as_str().ok_or(BROKEN)?;
                let mut record: VersionRecord = serde_json::from_str(json).map_err(|_| BROKEN)?;
                // What retires a version writes only its state.
                record.state = serde_json::from_value(text("state")?.into()).map_err(|_| BROKEN)?;
                Some(record)
            }
        };
        let known = Known { collection: text("collection")?, projector: text("projector")?, record };
        self.versions.insert(VersionId(id), known);
        Ok(())
    }

    pub(super) fn learn_frontier(&mut self, document: &RawDocument) -> Result<(), Fault> {
        let broken = || Fault::Damaged("a frontier cannot be read");
        let text = |name: &str| document.get_str(name).map(str::to_owned).map_err(|_| broken());
        let position = document.get_binary("position").ok().and_then(|it| SourcePosition::from_bytes(it.bytes));
        let frontier = Frontier {
            position: position.ok_or_else(broken)?,
            at_micros: document.get_i64("at_micros").map_err(|_| broken())?,
            snapshot_done: document.get_bool("snapshot_done").map_err(|_| broken())?,
        };
        self.frontiers.insert((text("projector")?, text("source")?), frontier);
        Ok(())
    }
}

/// A frontier as it is stored.
pub(super) fn frontier_document(projector: &str, source: &str, frontier: &Frontier) -> RawDocumentBuf {
    Writer::document(|document| {
        document.text("_id", &format!("{projector}/{source}"));
        document.text("projector", projector);
        document.text("source", source);
        document.binary("position", &frontier.position.to_bytes());
        document.int("at_micros", frontier.at_micros);
        document.bool("snapshot_done", frontier.snapshot_done);
    })
}

/// The words for a state, as its JSON has them.
pub(super) fn state_word(state: VersionState) -> &'static str {
    match state {
        VersionState::Building => "building",
        VersionState::Active => "active",
        VersionState::Retired => "retired",
    }
}

/// Name of the collection of a version: its model's, in letters that fit, and its number.
pub(super) fn collection_name(model: Option<&str>, VersionId(id): VersionId) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    match model {
        Some(model) => format!("{}_v{id}", model.chars().map(plain).take(100).collect::<String>()),
        None => format!("_v{id}"),
    }
}
