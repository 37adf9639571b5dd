//! Following the log: messages in, events out.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use headwater_schemas::{Column, ColumnType, TableId, TableSchema};
use pgwire_replication::{PgWireError, ReplicationClient, ReplicationEvent};

use super::catalog::{self, CatalogTable};
use super::checkpoint::Checkpoint;
use super::connect::Sql;
use super::fetch::{self, Fetched};
use super::identity::names_rows;
use super::layout::Layout;
use super::lsn::Lsn;
use super::pgoutput::{self, Message, Relation, Tuples};
use super::plan::TablePlan;
use super::publication;
use super::transaction::{Step, Transaction};
use super::types::Types;
use crate::status::StatusCell;
use crate::{ConnectorConfig, Error, Gathered, Refusal, Routes};

/// 2000-01-01, where PostgreSQL's clock begins, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What the stream knows of a relation.
enum Known {
    /// What committed before `covers` is in what was read of the table, which stands below it: sent again, it would
    /// undo what came in between and is in no stream. Old rows are said to be `whole` by REPLICA IDENTITY FULL.
    Captured { plan: Box<TablePlan>, covers: Lsn, whole: bool },
    /// Published, but not among the tables we are to capture, or no longer fit to be.
    Ignored,
    /// Not as the table was read, by what was announced behind `covers`: what committed before is in that reading. A change
    /// from there on would have been announced anew, had the table become as it was read. So with the first that was not,
    /// the table is left.
    Behind { table: String, problem: &'static str, covers: Lsn },
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// Something to be asked of the database before the message that needs it can go on. Kept here, so that waiting for it
/// may be dropped.
enum Waiting {
    Relation(Answer<TablePlanParts>),
    /// `None`: the table is no longer as the message has it.
    Columns(Bytes, Answer<Option<Fetched>>),
}

/// A table as a relation message announced it, with what only the catalog knows.
struct TablePlanParts {
    oid: u32,
    table: CatalogTable,
    types: Types,
    /// Its name in the catalog now; `None` if it is gone from there.
    name_now: Option<String>,
    /// Its layout there; `None` if it is gone or has no key.
    layout: Option<Layout>,
    /// The tables (schema, name) that it is a partition of there.
    ancestors: Vec<(String, String)>,
    /// What publishes it now; `None` if the publication is gone.
    published: Option<publication::Entry>,
}

pub(crate) struct Stream {
    client: ReplicationClient,
    sql: Arc<Sql>,
    status: StatusCell,
    source: Arc<str>,
    publication: String,
    relations: HashMap<u32, Known>,
    /// The schema that was announced last, by table.
    announced: HashMap<TableId, TableSchema>,
    tuples: Tuples,
    transaction: Transaction,
    in_transaction: bool,
    held: Option<ReplicationEvent>,
    waiting: Option<Waiting>,
    /// When the server last sent something.
    heard: Instant,
    /// Everything before is durable.
    durable: Lsn,
    /// A table is to be read again.
    again: Option<Again>,
}

/// Why a table is to be read again, which the next session does. This one ends once the checkpoint that says so is
/// durable: one that reflects more than this position.
struct Again {
    problem: String,
    behind: Lsn,
}

impl Stream {
    pub(crate) fn new(
        client: ReplicationClient,
        sql: Arc<Sql>,
        status: StatusCell,
        config: &ConnectorConfig,
        epoch: u32,
        announced: Vec<TableSchema>,
    ) -> Self {
        Self {
            client,
            sql,
            status,
            source: config.source.as_str().into(),
            publication: config.postgres.publication_name(&config.source),
            relations: HashMap::new(),
            announced: announced.into_iter().map(|schema| (schema.table.clone(), schema)).collect(),
            tuples: Tuples::default(),
            transaction: Transaction::new(epoch),
            in_transaction: false,
            held: None,
            waiting: None,
            heard: Instant::now(),
            durable: Lsn::default(),
            again: None,
        }
    }

    /// When the server last sent something.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Tells the server that everything before `lsn` is durable.
    pub(crate) fn acknowledge(&mut self, lsn: Lsn) {
        self.durable = lsn;
        self.client.update_applied_lsn(pgwire_replication::Lsn(lsn.0));
    }

    /// Whether a transaction is half gathered.
    pub(crate) fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// See [`crate::Source::gather`]. Everything taken from the client is either gathered or kept in `self` before the
    /// next wait.
    pub(crate) async fn gather(
        &mut self,
        into: &mut Gathered,
        routes: &mut Routes,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), Error> {
        if let Some(again) = self.again.take_if(|again| self.durable > again.behind) {
            let remedy =
                "nothing is to be done: the table is read again, unless the status says why it cannot be".into();
            return Err(Error::NotReady { problem: again.problem, remedy });
        }
        if self.waiting.is_some() {
            self.answer(into, routes, checkpoint).await?;
        }
        loop {
            let event = match self.held.take() {
                Some(held) => held,
                // Nothing to append yet: wait. Otherwise only take what is there.
                None if !into.is_ready() => received(self.client.recv().await)?,
                None => match tokio::task::unconstrained(self.client.recv()).now_or_never() {
                    Some(event) => received(event)?,
                    None => return Ok(()),
                },
            };
            self.heard = Instant::now();
            match event {
                ReplicationEvent::XLogData { data, .. } => {
                    if into.is_full() && self.makes_event(&data) {
                        // Another event of this transaction follows, so none of those gathered is its last.
                        self.held = Some(ReplicationEvent::XLogData {
                            wal_start: pgwire_replication::Lsn(0),
                            wal_end: pgwire_replication::Lsn(0),
                            server_time_micros: 0,
                            data,
                        });
                        into.cut();
                        return Ok(());
                    }
                    self.message(data, None, into, checkpoint)?;
                    if self.waiting.is_some() {
                        self.answer(into, routes, checkpoint).await?;
                    }
                }
                ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                    self.in_transaction = true;
                    self.transaction.begin(final_lsn.0, xid, commit_time_micros + POSTGRES_EPOCH_MICROS);
                }
                ReplicationEvent::Commit { lsn, end_lsn, commit_time_micros } => {
                    self.in_transaction = false;
                    into.mark_last_in_transaction();
                    checkpoint.advance_past_commit(Lsn(lsn.0), Lsn(end_lsn.0));
                    checkpoint.at_micros = checkpoint.at_micros.max(commit_time_micros + POSTGRES_EPOCH_MICROS);
                    into.cut();
                    if into.is_full() {
                        return Ok(());
                    }
                }
                ReplicationEvent::KeepAlive { wal_end, .. } => {
                    // Within a transaction the server's position says nothing about what we have of it. Nor does its clock
                    // about that position, which is as far as it has read its log.
                    if !self.in_transaction {
                        checkpoint.advance_to(Lsn(wal_end.0));
                    }
                }
                ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => {}
            }
        }
    }

    /// Whether a message becomes an event.
    fn makes_event(&self, data: &[u8]) -> bool {
        let relation = relation_of(data).and_then(|relation| self.relations.get(&relation));
        matches!(relation, Some(Known::Captured { covers, .. }) if self.transaction.commit() >= *covers)
    }

    /// Takes one message in. `fetched` are the columns that were asked for because the message lacks them.
    fn message(
        &mut self,
        data: Bytes,
        fetched: Option<Fetched>,
        into: &mut Gathered,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), Error> {
        let malformed = |_| Error::Malformed { what: "message of the change stream" };
        let message = pgoutput::read(&data, &mut self.tuples).map_err(malformed)?;
        let relation = match &message {
            Message::Relation(relation) => {
                self.waiting = Some(self.look_up(relation));
                return Ok(());
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    self.transaction.count();
                    self.leave_behind(*relation, checkpoint);
                    if let Some(Known::Captured { plan, covers, .. }) = self.relations.get(relation)
                        && self.transaction.commit() >= *covers
                    {
                        self.transaction.truncate(plan, into);
                    }
                }
                return Ok(());
            }
            Message::Ignored => return Ok(()),
            Message::Insert { relation } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                *relation
            }
        };
        // One that waited for columns was counted before.
        if fetched.is_none() {
            self.transaction.count();
        }
        self.leave_behind(relation, checkpoint);
        let plan = match self.relations.get(&relation) {
            Some(Known::Captured { covers, .. }) if self.transaction.commit() < *covers => return Ok(()),
            Some(Known::Captured { plan, .. }) => plan,
            Some(Known::Ignored | Known::Behind { .. }) => return Ok(()),
            None => return Err(Error::Malformed { what: "change of a relation that was not announced" }),
        };
        match self.transaction.row(plan, &message, &data, &self.tuples, fetched, into) {
            Step::Done => Ok(()),
            Step::Lacks { query } => {
                let sql = Arc::clone(&self.sql);
                let xid = self.transaction.xid();
                let fetch = Box::pin(async move { fetch::row(&sql, xid, &query).await });
                self.waiting = Some(Waiting::Columns(data, fetch));
                Ok(())
            }
        }
    }

    /// Waits for what was asked and goes on with the message that needed it.
    async fn answer(
        &mut self,
        into: &mut Gathered,
        routes: &mut Routes,
        checkpoint: &mut Checkpoint,
    ) -> Result<(), Error> {
        match &mut self.waiting {
            Some(Waiting::Relation(lookup)) => {
                let found = lookup.await?;
                self.waiting = None;
                self.learn(found, into, routes, checkpoint);
            }
            Some(Waiting::Columns(_, fetch)) => {
                let fetched = fetch.await?;
                if let Some(Waiting::Columns(data, _)) = self.waiting.take() {
                    match fetched {
                        Some(fetched) => self.message(data, Some(fetched), into, checkpoint)?,
                        None => self.give_up(&data, checkpoint),
                    }
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Ends the capture of a table from which columns that a message lacks cannot be had any more, until it is read
    /// again.
    fn give_up(&mut self, data: &[u8], checkpoint: &mut Checkpoint) {
        let Some(relation) = relation_of(data) else { return };
        if let Some(Known::Captured { plan, .. }) = self.relations.insert(relation, Known::Ignored) {
            let problem = "became another before the unchanged columns of a row could be fetched";
            self.leave(&name_of(&plan.schema.table), problem, checkpoint);
        }
    }

    /// Leaves a table of which a change comes that is in no reading, while what was announced of it does not fit.
    fn leave_behind(&mut self, relation: u32, checkpoint: &mut Checkpoint) {
        let Some(Known::Behind { table, problem, covers }) = self.relations.get(&relation) else { return };
        if self.transaction.commit() < *covers {
            return;
        }
        let (table, problem) = (table.clone(), *problem);
        self.relations.insert(relation, Known::Ignored);
        self.leave(&table, problem, checkpoint);
    }

    /// Notes that changes of a table pass by, and that it is to be read again.
    fn leave(&mut self, table: &str, problem: &str, checkpoint: &mut Checkpoint) {
        checkpoint.leave(table);
        checkpoint.hold();
        let (problem, behind) = (format!("table {table} {problem}"), checkpoint.resume);
        self.again.get_or_insert(Again { problem, behind });
    }

    /// Asks the catalog for what a relation message does not say: the order of the key's columns, what types that the
    /// server does not share with all others are, and what publishes the table. The columns themselves are those of the
    /// message, because the catalog may already be ahead of it.
    fn look_up(&self, relation: &Relation<'_>) -> Waiting {
        let (sql, publication) = (Arc::clone(&self.sql), self.publication.clone());
        let oid = relation.oid;
        let schema = if relation.schema.is_empty() { "pg_catalog" } else { relation.schema }.to_owned();
        let table = relation.table.to_owned();
        let identity = (relation.identity as char).to_string();
        let flagged: Vec<String> =
            relation.columns.iter().filter(|column| column.identity).map(|column| column.name.to_owned()).collect();
        let columns: Vec<(String, u32, i32)> = relation
            .columns
            .iter()
            .map(|column| (column.name.to_owned(), column.type_oid, column.type_modifier))
            .collect();
        Waiting::Relation(Box::pin(async move {
            let mut types = Types::default();
            let known = catalog::tables(&sql, &mut types, &format!("c.oid = {oid}")).await?.pop();
            types.learn(&sql, columns.iter().map(|column| column.1).collect()).await?;
            let server = catalog::server(&sql).await?;
            let published = publication::entry_of(&sql, &server, &publication, oid).await?;
            let described = catalog::describe_columns(&sql, columns).await?;
            let layout = known.as_ref().filter(|known| known.key().is_ok()).map(Layout::of);
            let name_now = known.as_ref().map(CatalogTable::name);
            let (indexes, ancestors) = known.map(|known| (known.indexes, known.ancestors)).unwrap_or_default();
            let mut table = CatalogTable::announced(schema, table, identity, described, indexes);
            table.trust_identity(flagged);
            Ok(TablePlanParts { oid, table, types, name_now, layout, ancestors, published })
        }))
    }

    /// Takes a relation in. Changes of a table that is ignored pass by: once it can be captured again, it is to be read
    /// again. So is a table whose key becomes another: its rows stand under the old one. Neither is so while the log is
    /// behind the reading of the table, which has those changes. What the catalog says of a table's layout and of what
    /// publishes it is of now, so that it counts in any case.
    fn learn(&mut self, found: TablePlanParts, into: &mut Gathered, routes: &mut Routes, checkpoint: &mut Checkpoint) {
        let TablePlanParts { oid, table, types, name_now, layout, ancestors, published } = found;
        let name = table.name();
        self.leave_renamed(oid, &name, name_now.as_deref(), checkpoint);
        self.leave_partitioned(&table, &ancestors, checkpoint);
        let schema = table.table_schema(&self.source, &types);
        let covers = checkpoint.covers(&name);
        let covered = self.transaction.commit() < covers;
        let announced = self.announced.get_mut(&schema.table);
        let (Some(announced), false) = (announced, schema.key_columns().is_empty()) else {
            let is_captured = self.announced.contains_key(&schema.table);
            let known = if is_captured && covered {
                Known::Behind { table: name.clone(), problem: "has no key that identifies its rows", covers }
            } else {
                Known::Ignored
            };
            self.relations.insert(oid, known);
            if is_captured && !covered {
                self.refuse_keyless(&table);
                checkpoint.leave(&name);
            }
            return;
        };
        let problem = if checkpoint.has_left(&name) {
            Some("can be captured again, after changes passed by")
        } else if checkpoint.is_replaced(&name, oid) {
            Some("was replaced by another table")
        } else {
            changed_rows(announced, &schema)
        };
        if let Some(problem) = problem {
            if covered {
                self.relations.insert(oid, Known::Behind { table: name, problem, covers });
            } else {
                self.relations.insert(oid, Known::Ignored);
                self.leave(&name, problem, checkpoint);
            }
            return;
        }
        let problem = if published.is_some_and(|entry| checkpoint.is_published_anew(&name, entry.by)) {
            Some("was not captured for a while")
        } else if published.is_some_and(|entry| checkpoint.is_publication_altered(entry.written)) {
            Some("may have been published in part for a while")
        } else {
            layout.and_then(|layout| checkpoint.compare_layout(&name, &layout))
        };
        if let Some(problem) = problem {
            self.relations.insert(oid, Known::Ignored);
            self.leave(&name, problem, checkpoint);
            return;
        }
        let plan = TablePlan::new(schema, table.padded(&types), routes);
        if *announced != plan.schema {
            self.transaction.schema(&plan, into);
            announced.clone_from(&plan.schema);
        }
        self.relations.insert(oid, Known::Captured { plan: Box::new(plan), covers, whole: table.identity == "f" });
    }
}

impl Stream {
    /// Leaves a table that was captured under another name than a message gives it, unless it was read since. One that
    /// has its old name back is read again.
    fn leave_renamed(&mut self, oid: u32, name: &str, name_now: Option<&str>, checkpoint: &mut Checkpoint) {
        let Some(was) = checkpoint.table_of(oid).filter(|was| *was != name).map(str::to_owned) else { return };
        if self.transaction.commit() < checkpoint.covers(&was) {
            return;
        }
        if name_now == Some(was.as_str()) {
            self.leave(&was, "had another name for a while", checkpoint);
            return;
        }
        checkpoint.leave(&was);
        let problem = format!("table {was} was renamed to {name} and is no longer captured");
        let remedy = format!("name `{name}` in `postgres.tables` and in the read models");
        self.note(was, Refusal { problem, remedy });
    }

    /// Leaves a partitioned table when the relation message of a partition, which comes behind the table's, tells that its
    /// changes do not name rows by the table's key.
    fn leave_partitioned(
        &mut self,
        partition: &CatalogTable,
        ancestors: &[(String, String)],
        checkpoint: &mut Checkpoint,
    ) {
        let commit = self.transaction.commit();
        let strayed = self.relations.iter().find_map(|(oid, known)| {
            let Known::Captured { plan, covers, whole } = known else { return None };
            let table = &plan.schema.table;
            let is_above = ancestors.iter().any(|(schema, name)| **schema == *table.schema && **name == *table.table);
            if !is_above || commit < *covers {
                return None;
            }
            let key: Vec<String> = plan.key.iter().map(|&at| plan.schema.columns[at].name.to_string()).collect();
            let named = names_rows(&key, *whole, &partition.identity, &partition.indexes);
            (!named).then(|| (*oid, name_of(table)))
        });
        if let Some((oid, name)) = strayed {
            self.relations.insert(oid, Known::Ignored);
            self.leave(&name, "has a partition whose changes do not name rows by its key", checkpoint);
        }
    }

    fn refuse_keyless(&self, table: &CatalogTable) {
        if let Err(refusal) = table.key() {
            self.note(table.name(), refusal);
        }
    }

    fn note(&self, table: String, refusal: Refusal) {
        tracing::error!(table, problem = refusal.problem, remedy = refusal.remedy, "table is no longer captured");
        self.status.update(|status| {
            status.refused_tables.insert(table, refusal);
        });
    }
}

/// The relation that a message about a row is of.
fn relation_of(message: &[u8]) -> Option<u32> {
    match message {
        [b'I' | b'U' | b'D', a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// A table as checkpoints name it.
fn name_of(table: &TableId) -> String {
    format!("{}.{}", table.schema, table.table)
}

/// What makes rows that do not change other than what was told of them: the server tells nothing of that, so that they must
/// be read again. Columns that are added or dropped do not.
fn changed_rows(before: &TableSchema, now: &TableSchema) -> Option<&'static str> {
    let key = |schema: &TableSchema| -> Vec<Arc<str>> {
        schema.key_columns().iter().map(|at| schema.columns[*at].name.clone()).collect()
    };
    let gone = before.columns.iter().any(|column| now.column_index(&column.name).is_none());
    let new = now.columns.iter().any(|column| before.column_index(&column.name).is_none());
    let other_type = |column: &Column| {
        let before = before.column_index(&column.name).map(|at| &before.columns[at]);
        before.is_some_and(|before| !has_same_values(before, column))
    };
    if gone && new {
        Some("has a column under another name")
    } else if key(before) != key(now) {
        Some("has another key")
    } else if now.columns.iter().any(other_type) {
        Some("has a column of another type")
    } else {
        None
    }
}

/// Whether a change from one type to the other leaves every value as it was written.
fn has_same_values(before: &Column, now: &Column) -> bool {
    use ColumnType::{Int32, Int64, Text};
    match (&before.kind, &now.kind) {
        (Int32 | Int64, Int32 | Int64) => true,
        // Whether blanks at their ends are kept, the layout tells.
        (Text, Text) => true,
        // The same kind may have another form: digits behind the point, fractions of a second.
        (one, other) => one == other && before.source_type == now.source_type,
    }
}

fn received(event: Result<Option<ReplicationEvent>, PgWireError>) -> Result<ReplicationEvent, Error> {
    let ended = || PgWireError::Internal("the server ended the stream".into());
    event
        .and_then(|event| event.ok_or_else(ended))
        .map_err(|source| Error::Replication { action: "follow the change stream", source })
}
