//! A PostgreSQL database as a source.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_schemas::{EventHeader, Op, SourcePosition, TableSchema};
use pgwire_replication::{PgWireError, ReplicationClient};

use super::catalog::{self, CatalogTable, Server};
use super::checkpoint::{Checkpoint, TableSnapshot};
use super::config::OnLostSlot;
use super::connect::{Sql, number, replication, text};
use super::history;
use super::layout::Layout;
use super::lsn::Lsn;
use super::monitor::Monitor;
use super::plan::TablePlan;
use super::publication::{Entries, Published};
use super::setup::{self, Tables};
use super::slot::{self, Slot};
use super::snapshot::{Snapshot, Stamp, Wanted};
use super::stream::Stream;
use super::transaction::to_every_partition;
use super::writers;
use crate::metrics::{CaptureMetrics, SourceMetrics};
use crate::session::now_millis;
use crate::status::{Phase, StatusCell};
use crate::{ConnectorConfig, Error, Gathered, Mark, Routes, Source};

/// A PostgreSQL database; see [`Source`].
pub struct PostgresSource {
    config: ConnectorConfig,
    status: StatusCell,
    metrics: SourceMetrics,
    state: State,
    checkpoint: Option<Checkpoint>,
    monitor: Option<Monitor>,
    sql: Option<Arc<Sql>>,
    /// Tables whose existence is still to be told.
    announce: Vec<TablePlan>,
    /// The schema of every captured table when the source was opened.
    schemas: Vec<TableSchema>,
    /// Up to where somebody else had captured who was seen to read the slot, when nothing had been captured from it here.
    others_at: Option<Lsn>,
    /// What the publication sent when the source was opened.
    published: Entries,
    /// The stream came to changes of a time when there was no publication: no reading of the slot gets past them.
    unpublished: bool,
}

type Opening = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

enum State {
    Closed,
    Snapshotting(Box<Reading>),
    Opening(Opening),
    Streaming(Box<Stream>),
}

/// A snapshot and the session that keeps it alive.
struct Reading {
    snapshot: Snapshot,
    _exporter: Exporter,
}

struct Exporter {
    /// The session that made the slot, if the snapshot is the slot's.
    _slot: Option<ReplicationClient>,
    /// A session within the snapshot.
    inside: Sql,
}

impl PostgresSource {
    /// A source that tells nobody how it is doing; [`crate::start`] makes its own.
    pub fn unobserved(config: ConnectorConfig) -> Self {
        let status = StatusCell::new(&config.source);
        let metrics = CaptureMetrics::default().of(&config.source);
        Self::new(config, status, metrics)
    }

    pub(crate) fn new(config: ConnectorConfig, status: StatusCell, metrics: SourceMetrics) -> Self {
        Self {
            config,
            status,
            metrics,
            state: State::Closed,
            checkpoint: None,
            monitor: None,
            sql: None,
            announce: Vec::new(),
            schemas: Vec::new(),
            others_at: None,
            published: Entries::default(),
            unpublished: false,
        }
    }

    fn slot_name(&self) -> String {
        self.config.postgres.slot_name(&self.config.source)
    }

    /// Makes a slot and begins the checkpoint there.
    async fn create_slot(&mut self, sql: &Sql, server: &Server, epoch: u32) -> Result<(Stamp, Exporter), Error> {
        fail::fail_point!("capture::before_slot");
        let name = self.slot_name();
        let none = pgwire_replication::Lsn(0);
        let mut session = replication(&self.config.postgres, &self.config.source, none).await?;
        let system = session.identify_system().await.map_err(cannot_replicate)?;
        tracing::info!(slot = name, epoch, "creating the replication slot");
        let created = slot::create(sql, session, server, &name, &self.status).await?;
        let inside = Sql::connect(&self.config.postgres).await?;
        let enter =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'", created.snapshot);
        inside.execute("enter the snapshot", &enter).await?;
        let rows = inside.rows("look into the snapshot", &format!("SELECT {SNAPSHOT_FACTS}")).await?;
        let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
        let (horizon, at_micros) = (number(row, "horizon")?, number(row, "at")?);
        let held = self.checkpoint.as_mut().map(Checkpoint::hold);
        self.checkpoint = Some(Checkpoint {
            epoch,
            slot: name,
            system: system.system_id,
            timeline: system.timeline,
            consistent_point: created.consistent_point,
            commit: created.consistent_point,
            ordinal: 0,
            resume: created.consistent_point,
            at_micros,
            held,
            publication_written: 0,
            partitions: 0,
            tables: BTreeMap::new(),
        });
        let position = SourcePosition { epoch, commit: created.consistent_point.0, ordinal: 0 };
        let covers = created.consistent_point;
        let stamp = Stamp { snapshot: created.snapshot, position, at_micros, horizon, covers };
        Ok((stamp, Exporter { _slot: Some(created.session), inside }))
    }

    /// Exports a snapshot of its own, for tables whose reading was interrupted or that were configured later. Its rows
    /// are stamped with the position from which streaming goes on: changes between that position and the snapshot come
    /// again, in order, and bring every row to where it belongs.
    ///
    /// `covers`: see [`Stamp`].
    async fn export_snapshot(
        config: &ConnectorConfig,
        position: SourcePosition,
        covers: Lsn,
    ) -> Result<(Stamp, Exporter), Error> {
        let sql = Sql::connect(&config.postgres).await?;
        sql.execute("open a snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let query = format!("SELECT pg_export_snapshot() AS snapshot, {SNAPSHOT_FACTS}");
        let rows = sql.rows("export a snapshot", &query).await?;
        let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
        let snapshot = text(row, "snapshot")?.to_owned();
        let (horizon, at_micros) = (number(row, "horizon")?, number(row, "at")?);
        Ok((Stamp { snapshot, position, at_micros, horizon, covers }, Exporter { _slot: None, inside: sql }))
    }

    /// Changes cannot be had any more: `false` where all is to be read again, or else an error.
    fn lost(&self, problem: String) -> Result<bool, Error> {
        if self.config.postgres.on_lost_slot == OnLostSlot::Resnapshot {
            let slot = self.slot_name();
            tracing::warn!(slot, problem, "making a new slot and reading all tables again, as configured");
            return Ok(false);
        }
        Err(Error::Unsafe {
            problem,
            remedy:
                "changes since then cannot be had any more; set `on_lost_slot: resnapshot` to make a new slot and read \
                     all tables again, and set max_slot_wal_keep_size so that the server keeps enough"
                    .into(),
        })
    }

    /// Compares the checkpoint with the slot; `true` when the slot holds everything behind the checkpoint.
    fn compare(&self, checkpoint: &Checkpoint, slot: Option<&Slot>) -> Result<bool, Error> {
        let name = self.slot_name();
        let lost = |problem| self.lost(problem);
        let Some(slot) = slot else {
            return lost(format!(
                "replication slot `{name}` is gone, while capture stands at {}: it was dropped, or this is another server",
                checkpoint.resume
            ));
        };
        check_slot_kind(&name, slot, &self.config.postgres.database)?;
        if slot.is_lost() {
            return lost(format!(
                "the server has invalidated replication slot `{name}`, because it kept more log than max_slot_wal_keep_size \
                 allows or had to; capture stands at {}",
                checkpoint.resume
            ));
        }
        match slot.confirmed_flush {
            Some(confirmed) if confirmed > checkpoint.resume => lost(format!(
                "replication slot `{name}` is at {confirmed}, ahead of capture at {}: another reader moved it on, or the \
                 log was restored from an older copy",
                checkpoint.resume
            )),
            _ => Ok(true),
        }
    }

    /// The plan and the progress of every captured table, the finished ones apart.
    fn plan(&self, tables: Tables, routes: &mut Routes) -> (Vec<TablePlan>, Vec<Wanted>) {
        let Tables { captured, types, .. } = tables;
        let mut plans = Vec::new();
        let mut wanted = Vec::new();
        for (table, published) in captured {
            let plan = TablePlan::new(table.table_schema(&self.config.source, &types), table.padded(&types), routes);
            plans.push(plan.clone());
            let noted = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.tables.get(&table.name()));
            let mut state = noted.cloned().unwrap_or_default();
            if !state.complete {
                state.published_by = published.by;
                state.layout = Some(Layout::of(&table).after(state.layout.as_ref()));
                wanted.push(Wanted { table, published, plan, state });
            }
        }
        (plans, wanted)
    }

    /// Notes how the tables are laid out that begin to be read, and which changes that covers. What an earlier attempt has
    /// read of one counts as long as its rows are the same.
    ///
    /// A reading that is begun again covers no more than its first attempt did: rows of that one may be in the log, with
    /// the same position, and what happened to them since is in the stream alone.
    fn note_reading(&mut self, wanted: &mut [Wanted], covers: Lsn) -> Result<(), Error> {
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        for Wanted { table, state, .. } in wanted {
            if state.covers == Lsn::default() {
                state.covers = covers;
            }
            let name = table.name();
            if let Some(problem) = checkpoint.compare_layout(&name, &Layout::of(table)) {
                return Err(Error::NotReady {
                    problem: format!("table {name} {problem} while it was about to be read"),
                    remedy: "nothing is to be done: it is read anew".into(),
                });
            }
            checkpoint.tables.insert(name, state.clone());
        }
        Ok(())
    }

    /// Fails once the publication was altered: what it left out meanwhile is in no stream, and all is to be read again. Also
    /// once something was added to it or taken out: no message tells of a table that is sent no more.
    fn check_publication(&self) -> Result<(), Error> {
        let (Some(checkpoint), Some(monitor)) = (&self.checkpoint, &self.monitor) else { return Ok(()) };
        let Some((written, entries)) = monitor.seen().publication else { return Ok(()) };
        let name = self.config.postgres.publication_name(&self.config.source);
        if checkpoint.is_publication_altered(written) {
            return Err(Error::NotReady {
                problem: format!("publication `{name}` was altered, and may have left changes out for a while"),
                remedy: "nothing is to be done: its tables are read again".into(),
            });
        }
        if entries != self.published {
            return Err(Error::NotReady {
                problem: format!("tables were taken out of publication `{name}`, or added to it"),
                remedy: "nothing is to be done: it is looked at anew which tables are captured".into(),
            });
        }
        Ok(())
    }

    fn open_stream(&self, sql: &Arc<Sql>) -> Opening {
        let (config, sql, schemas) = (self.config.clone(), Arc::clone(sql), self.schemas.clone());
        let (checkpoint, status) = (self.checkpoint.clone(), self.status.clone());
        Box::pin(async move {
            let checkpoint = checkpoint.ok_or(Error::TaskLost { what: "opens the stream" })?;
            let start = pgwire_replication::Lsn(checkpoint.resume.0);
            let mut client = replication(&config.postgres, &config.source, start).await?;
            let system = client.identify_system().await.map_err(cannot_replicate)?;
            check_system(&checkpoint, &system.system_id)?;
            if system.timeline != checkpoint.timeline || Lsn(system.xlogpos.0) < checkpoint.captured() {
                return Err(Error::NotReady {
                    problem: "another server took over while the stream was opened".into(),
                    remedy: "nothing is to be done: it is looked at anew".into(),
                });
            }
            let starting = |source| Error::Replication { action: "start the change stream", source };
            client.start().await.map_err(starting)?;
            client.wait_started().await.map_err(starting)?;
            // Now that the slot is ours nobody can move it: had it been moved before, the server would silently have
            // begun there.
            let name = config.postgres.slot_name(&config.source);
            let confirmed = slot::find(&sql, &name).await?.and_then(|slot| slot.confirmed_flush);
            if confirmed.is_none_or(|confirmed| confirmed > checkpoint.resume) {
                return Err(Error::NotReady {
                    problem: format!("replication slot `{name}` was moved while the stream was opened"),
                    remedy: "see who else uses it".into(),
                });
            }
            Ok(Stream::new(client, sql, status, &config, checkpoint.epoch, schemas))
        })
    }

    fn announce(&mut self, into: &mut Gathered) {
        let Some(checkpoint) = &self.checkpoint else { return };
        if self.announce.is_empty() {
            return;
        }
        let header = EventHeader {
            op: Op::Schema,
            position: checkpoint.position(),
            transaction: 0,
            committed_at_micros: now_millis() * 1000,
            last_in_transaction: false,
            before_is_key_only: false,
        };
        for plan in self.announce.drain(..) {
            to_every_partition(&plan, header, into);
        }
        into.cut();
    }
}

const SNAPSHOT_FACTS: &str = "pg_snapshot_xmin(pg_current_snapshot()) AS horizon, \
     (extract(epoch FROM now()) * 1000000)::bigint AS at";

fn cannot_replicate(source: pgwire_replication::PgWireError) -> Error {
    Error::Replication { action: "open a replication session", source }
}

/// Whether the stream ended since at that point of the log there was no publication. Newer servers than 17 do not end it.
///
/// The code (undefined_object) alone tells: messages are in the server's language, and what else is looked up by name, the
/// slot, was found before anything streamed.
fn is_unpublished(error: &Error) -> bool {
    let Error::Replication { source: PgWireError::Server(said), .. } = error else { return false };
    said.ends_with("(SQLSTATE 42704)")
}

fn check_system(checkpoint: &Checkpoint, system: &str) -> Result<(), Error> {
    if checkpoint.system == system {
        return Ok(());
    }
    Err(Error::Unsafe {
        problem: format!(
            "this is another database cluster (system identifier {system}) than the one captured so far ({})",
            checkpoint.system
        ),
        remedy: "point the connector back at the old one, or give the new one a source name of its own".into(),
    })
}

pub(super) fn check_slot_kind(name: &str, slot: &Slot, database: &str) -> Result<(), Error> {
    if slot.plugin.as_deref() != Some("pgoutput") || slot.database.as_deref() != Some(database) {
        return Err(Error::NotReady {
            problem: format!("replication slot `{name}` belongs to something else (another plugin or database)"),
            remedy: "name another `slot`".into(),
        });
    }
    if let Some(pid) = slot.active_pid {
        return Err(Error::NotReady {
            problem: format!("replication slot `{name}` is in use by another process (server pid {pid})"),
            remedy: "stop the other reader, or name another `slot`; this is tried again until it is free".into(),
        });
    }
    Ok(())
}

/// To drop such a slot would cost the one who reads it every change from now until it is back.
fn taken(name: &str) -> Error {
    Error::NotReady {
        problem: format!("another process captures from replication slot `{name}`, which is free for the moment"),
        remedy: format!(
            "name another `slot` (and `source`) here; or stop the other one for good, drop what it leaves by SELECT \
             pg_drop_replication_slot('{name}'), and this one begins"
        ),
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn open(&mut self, checkpoint: Option<Bytes>, routes: &mut Routes) -> Result<(), Error> {
        self.state = State::Closed;
        self.monitor = None;
        self.checkpoint = checkpoint.as_deref().map(Checkpoint::from_bytes).transpose()?;
        self.config.validate()?;
        let (config, name) = (self.config.clone(), self.slot_name());
        let sql = Arc::new(Sql::connect(&config.postgres).await?);
        self.sql = Some(Arc::clone(&sql));
        let server = catalog::server(&sql).await?;
        setup::check_server(&server)?;
        // The publication comes before the slot: a slot can only decode with publications older than itself.
        let mut tables = setup::prepare(&config, &sql, &server, routes).await?;
        if let Some(checkpoint) = &self.checkpoint {
            setup::refuse_departed(&config, &sql, checkpoint, &mut tables).await?;
        }
        self.status.update(|status| {
            status.slot = Some(name.clone());
            status.refused_tables.clone_from(&tables.refused);
        });
        for (table, refusal) in &tables.refused {
            tracing::warn!(table, problem = refusal.problem, remedy = refusal.remedy, "table is not captured");
        }

        let existing = slot::find(&sql, &name).await?;
        let mut fresh = None;
        let keep = match self.checkpoint.clone() {
            Some(checkpoint) => {
                let none = pgwire_replication::Lsn(0);
                let mut session = replication(&config.postgres, &config.source, none).await?;
                let system = session.identify_system().await.map_err(cannot_replicate)?;
                check_system(&checkpoint, &system.system_id)?;
                match history::missing(&checkpoint, &server, &system, &mut session).await? {
                    Some(problem) => self.lost(problem)?,
                    None if std::mem::take(&mut self.unpublished) => self.lost(format!(
                        "publication `{}` was dropped and made again, and the server cannot tell what changed between",
                        config.postgres.publication_name(&config.source)
                    ))?,
                    None => {
                        let keep = self.compare(&checkpoint, existing.as_ref())?;
                        self.checkpoint = Some(Checkpoint { timeline: system.timeline, ..checkpoint });
                        keep
                    }
                }
            }
            None => false,
        };
        if !keep {
            if let Some(slot) = &existing {
                // Nothing of ours depends on it: it is left over from an attempt that ended before anything was durable,
                // or it is lost.
                if slot.is_lost() {
                    tracing::info!(slot = name, "dropping the lost slot");
                } else {
                    if self.checkpoint.is_none() && slot.active_pid.is_some() {
                        self.others_at = self.others_at.or(slot.confirmed_flush);
                    }
                    check_slot_kind(&name, slot, &config.postgres.database)?;
                    // One that stands still may be ours, of a session that the server has not noticed to be dead.
                    if self.others_at.is_some_and(|at| slot.confirmed_flush != Some(at)) {
                        return Err(taken(&name));
                    }
                    tracing::warn!(slot = name, "dropping a slot of our name from which nothing was captured");
                }
                slot::drop(&sql, &name).await?;
            }
            let epoch = self.checkpoint.as_ref().map_or(1, |checkpoint| checkpoint.epoch + 1);
            fresh = Some(self.create_slot(&sql, &server, epoch).await?);
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            let found =
                |(table, published): &(CatalogTable, Published)| (table.name(), (published.by, Layout::of(table)));
            let captured = tables.captured.iter().map(found).collect();
            let again = checkpoint.compare_tables(&captured, routes.partitions(), tables.publication_written);
            for (table, problem) in again {
                tracing::warn!(table, problem, epoch = checkpoint.epoch, "reading a table again");
            }
        }
        let publication = config.postgres.publication_name(&config.source);
        let (status, metrics) = (self.status.clone(), self.metrics.clone());
        self.published = tables.publication_entries;
        self.monitor = Some(Monitor::begin(&config.postgres, &server, name, publication, status, metrics));
        let checkpoint = self.checkpoint.as_mut().ok_or(Error::TaskLost { what: "opens the source" })?;
        let is_read = |name: &str| checkpoint.tables.get(name).is_some_and(|state| state.complete);
        if tables.captured.iter().all(|(table, _)| is_read(&table.name())) {
            checkpoint.held = None;
            self.announce = self.plan(tables, routes).0;
            self.schemas = self.announce.iter().map(|plan| plan.schema.clone()).collect();
            self.state = State::Opening(self.open_stream(&sql));
            return Ok(());
        }
        let position = SourcePosition { epoch: checkpoint.epoch, commit: checkpoint.resume.0, ordinal: 0 };
        let (stamp, exporter) = match fresh {
            Some(fresh) => fresh,
            None => {
                // A transaction that wrote to a table before it was published is in no stream; a snapshot made before
                // its end would not have it either.
                let unread = tables.captured.iter().map(|(table, _)| table).filter(|table| !is_read(&table.name()));
                let covers = writers::wait(&sql, unread, &self.status).await?;
                Self::export_snapshot(&config, position, covers).await?
            }
        };
        // The columns are those that the snapshot shows.
        setup::look_again(&config, &exporter.inside, &server, &mut tables).await?;
        let (plans, mut wanted) = self.plan(tables, routes);
        catalog::measure(&exporter.inside, wanted.iter_mut().map(|wanted| &mut wanted.table)).await?;
        self.note_reading(&mut wanted, stamp.covers)?;
        self.schemas = plans.iter().map(|plan| plan.schema.clone()).collect();
        self.announce = plans;
        let snapshot = Snapshot::begin(&config.postgres, wanted, &stamp);
        self.status.set_phase(Phase::Snapshotting { tables: snapshot.progress() });
        self.state = State::Snapshotting(Box::new(Reading { snapshot, _exporter: exporter }));
        Ok(())
    }

    async fn gather(&mut self, into: &mut Gathered, routes: &mut Routes) -> Result<(), Error> {
        if !self.announce.is_empty() {
            self.announce(into);
            return Ok(());
        }
        self.check_publication()?;
        loop {
            match &mut self.state {
                State::Closed => return Err(Error::TaskLost { what: "opens the source" }),
                State::Snapshotting(reading) => {
                    let checkpoint = self.checkpoint.as_mut().ok_or(Error::TaskLost { what: "opens the source" })?;
                    if !reading.snapshot.is_done() {
                        let note = |table: &str, state: &TableSnapshot| {
                            checkpoint.tables.insert(table.to_owned(), state.clone());
                        };
                        let gathered = reading.snapshot.gather(into, note).await;
                        self.status.set_phase(Phase::Snapshotting { tables: reading.snapshot.progress() });
                        return gathered;
                    }
                    checkpoint.held = None;
                    let sql = self.sql.clone().ok_or(Error::TaskLost { what: "opens the source" })?;
                    self.state = State::Opening(self.open_stream(&sql));
                }
                State::Opening(opening) => {
                    let stream = opening.await?;
                    self.status.set_phase(Phase::Streaming);
                    self.metrics.streaming.set(1);
                    self.state = State::Streaming(Box::new(stream));
                }
                State::Streaming(stream) => {
                    let checkpoint = self.checkpoint.as_mut().ok_or(Error::TaskLost { what: "opens the source" })?;
                    if let Some(monitor) = &self.monitor {
                        monitor.check_alive(stream.heard())?;
                    }
                    let gathered = stream.gather(into, routes, checkpoint).await;
                    self.unpublished = gathered.as_ref().is_err_and(is_unpublished);
                    return gathered;
                }
            }
        }
    }

    fn mark(&self) -> Option<Mark> {
        let mut checkpoint = self.checkpoint.clone()?;
        let snapshot_done = matches!(self.state, State::Opening(_) | State::Streaming(_));
        if let (State::Streaming(stream), Some(monitor)) = (&self.state, &self.monitor) {
            let seen = monitor.seen();
            if !stream.in_transaction() && checkpoint.resume >= seen.end {
                checkpoint.at_micros = checkpoint.at_micros.max(seen.at_micros);
            }
        }
        let (position, at_micros) = checkpoint.complete();
        Some(Mark { position, at_micros, snapshot_done, token: checkpoint.resume.0, checkpoint: checkpoint.to_bytes() })
    }

    fn durable(&mut self, mark: &Mark) {
        let captured = Lsn(mark.token);
        // What was told stays told while the end of the log runs ahead again.
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.at_micros = checkpoint.at_micros.max(mark.at_micros);
        }
        if let State::Streaming(stream) = &mut self.state {
            stream.acknowledge(captured);
        }
        if let Some(monitor) = &self.monitor {
            monitor.note(captured);
        }
        // Before that, rows of the snapshot are still to come that are older.
        if mark.snapshot_done {
            self.status.update(|status| status.source_position = Some(captured.to_string()));
        }
    }

    async fn discover(&mut self) -> Result<Vec<TableSchema>, Error> {
        super::read::discover(&self.config).await
    }
}

#[cfg(test)]
mod tests {
    use headwater_test_servers::Postgres;

    use super::*;
    use crate::contract::{self, World};

    struct OnPostgres(Postgres);

    impl World for OnPostgres {
        fn source(&self) -> Box<dyn Source> {
            let config = serde_json::json!({ "source": "world", "postgres": {
                "host": "127.0.0.1", "port": self.0.port(), "database": self.0.database(), "user": self.0.user(),
                "password": self.0.password(), "tables": ["numbers"],
            }});
            Box::new(PostgresSource::unobserved(serde_json::from_value(config).expect("a configuration")))
        }

        fn insert(&self, numbers: std::ops::RangeInclusive<i64>) {
            let (from, to) = numbers.into_inner();
            self.0.psql(&format!("INSERT INTO numbers SELECT generate_series({from}, {to})"));
        }
    }

    #[test]
    fn a_missing_publication_is_known_in_any_language() {
        let said = |text: &str| {
            let source = PgWireError::Server(text.into());
            is_unpublished(&Error::Replication { action: "follow the change stream", source })
        };
        assert!(said("publication \"p\" does not exist (SQLSTATE 42704)"));
        assert!(said("Publikation »p« existiert nicht (SQLSTATE 42704)"));
        assert!(!said("terminating connection due to administrator command (SQLSTATE 57P01)"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let server = Postgres::start();
        server.psql("CREATE TABLE numbers (n bigint PRIMARY KEY)");
        contract::keeps(&OnPostgres(server)).await;
    }
}
