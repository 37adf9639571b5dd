//! The initial reading of tables: chunks of blocks, read in parallel in one exported snapshot.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use headwater_broker::RecordBuffer;
use headwater_schemas::{DeadLetter, EventHeader, Op, Payload, SourcePosition, Stage};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::catalog::{CatalogTable, WITH_PARTITIONS, literal, quote};
use super::checkpoint::TableSnapshot;
use super::config::PostgresConfig;
use super::connect::{Sql, failed, number, optional};
use super::copy::CopyLine;
use super::lsn::Lsn;
use super::plan::{TablePlan, Tuple};
use super::publication::Published;
use crate::session::now_millis;
use crate::{Error, Gathered, TableProgress};

/// A worker hands on what it has read when it is this large, whether or not the chunk is done.
const PART_BYTES: usize = 1 << 20;
/// Parts waiting to be appended. Full means that the workers wait, and with them the server.
const PARTS_WAITING: usize = 4;
/// Taken for the rows of a block when the table was never analysed.
const ROWS_PER_BLOCK: u64 = 50;

/// A table to be read.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) table: CatalogTable,
    pub(crate) published: Published,
    pub(crate) plan: TablePlan,
    /// What an earlier attempt has read.
    pub(crate) state: TableSnapshot,
}

/// What all rows of a snapshot share.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// Name of the exported snapshot.
    pub(crate) snapshot: String,
    pub(crate) position: SourcePosition,
    /// The source's clock when the snapshot was taken, microseconds since 1970.
    pub(crate) at_micros: i64,
    /// First transaction that the snapshot may not see.
    pub(crate) horizon: u64,
    /// It sees every transaction that committed before, as far as the tables go that are read.
    pub(crate) covers: Lsn,
}

/// A run of blocks of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    table: usize,
    from: u64,
    /// Exclusive; for the last chunk only what is noted as read, while everything behind is read too.
    to: u64,
    open_ended: bool,
    /// Read only rows written by this transaction or later ones: the others were read by an earlier attempt.
    newer_than: Option<u64>,
}

/// Something a worker has read.
struct Part {
    table: usize,
    rows: u64,
    buffers: Vec<RecordBuffer>,
    dead_letters: Vec<DeadLetter>,
    /// The chunk that ends with it.
    done: Option<Chunk>,
}

/// A snapshot being read. Dropping it ends the workers.
pub(crate) struct Snapshot {
    tables: Vec<Wanted>,
    chunks_left: Vec<usize>,
    rows_done: Vec<u64>,
    stamp: Stamp,
    parts: mpsc::Receiver<Result<Part, Error>>,
    _workers: JoinSet<()>,
}

impl Snapshot {
    /// Begins to read `tables`.
    pub(crate) fn begin(config: &PostgresConfig, mut tables: Vec<Wanted>, stamp: &Stamp) -> Self {
        let mut chunks = VecDeque::new();
        let mut chunks_left = Vec::new();
        for (at, wanted) in tables.iter_mut().enumerate() {
            let planned = plan_chunks(at, wanted, config.snapshot.rows_per_chunk);
            chunks_left.push(planned.len());
            chunks.extend(planned);
            if wanted.state.blocks.is_empty() {
                wanted.state.filenode = wanted.table.filenode;
                wanted.state.horizon = stamp.horizon;
            }
        }
        let (sender, parts) = mpsc::channel(PARTS_WAITING);
        let queue = Arc::new(Mutex::new(chunks));
        let shared: Arc<[Wanted]> = tables.clone().into();
        let mut workers = JoinSet::new();
        for _ in 0..config.snapshot.workers.min(chunks_left.iter().sum()) {
            let mut worker = Worker {
                config: config.clone(),
                stamp: stamp.clone(),
                tables: Arc::clone(&shared),
                queue: Arc::clone(&queue),
                parts: sender.clone(),
            };
            workers.spawn(async move {
                if let Err(error) = worker.run().await {
                    // When nobody listens any more, nobody needs to know.
                    worker.parts.send(Err(error)).await.ok();
                }
            });
        }
        let rows_done = vec![0; tables.len()];
        Self { tables, chunks_left, rows_done, stamp: stamp.clone(), parts, _workers: workers }
    }

    /// Whether everything is read and gathered.
    pub(crate) fn is_done(&self) -> bool {
        self.chunks_left.iter().all(|left| *left == 0)
    }

    /// Waits for rows and gathers what is ready. Tells `note` how far each table it met is. May be dropped at any
    /// point: the only wait is for a part of the queue.
    pub(crate) async fn gather(
        &mut self,
        into: &mut Gathered,
        mut note: impl FnMut(&str, &TableSnapshot),
    ) -> Result<(), Error> {
        while !self.is_done() && !into.is_full() {
            let part = match self.parts.try_recv() {
                Ok(part) => part,
                Err(_) if into.is_ready() => break,
                Err(_) => {
                    let lost = Error::TaskLost { what: "reads a snapshot" };
                    self.parts.recv().await.unwrap_or(Err(lost))
                }
            }?;
            self.rows_done[part.table] += part.rows;
            let wanted = &mut self.tables[part.table];
            for (partition, records) in part.buffers.into_iter().enumerate() {
                if !records.is_empty() {
                    into.push_rows(&wanted.plan.route, partition as u32, records);
                }
            }
            for letter in part.dead_letters {
                into.push_dead_letter(letter);
            }
            if let Some(chunk) = part.done {
                self.chunks_left[part.table] -= 1;
                if chunk.newer_than.is_none() {
                    wanted.state.add(chunk.from, chunk.to);
                }
                if self.chunks_left[part.table] == 0 {
                    if self.stamp.position.epoch > 1 {
                        sweep(&wanted.plan, &self.stamp, into);
                    }
                    let TableSnapshot { published_by, covers, layout, .. } = std::mem::take(&mut wanted.state);
                    wanted.state =
                        TableSnapshot { complete: true, published_by, covers, layout, ..TableSnapshot::default() };
                }
                note(&wanted.table.name(), &wanted.state);
            }
            into.cut();
            if !self.is_done() {
                fail::fail_point!("capture::mid_copy");
            }
        }
        Ok(())
    }

    /// How far it is, for people.
    pub(crate) fn progress(&self) -> Vec<TableProgress> {
        let of = |(at, wanted): (usize, &Wanted)| TableProgress {
            table: wanted.table.name(),
            rows_done: self.rows_done[at],
            rows_estimate: wanted.table.rows_estimate,
            done: self.chunks_left[at] == 0,
        };
        self.tables.iter().enumerate().map(of).collect()
    }
}

/// After a table was read in a later epoch: rows that stand below this reading and were not met by it were deleted while nobody
/// looked. What was just read stands above this position and stays; consumers clear what is below.
fn sweep(plan: &TablePlan, stamp: &Stamp, into: &mut Gathered) {
    let SourcePosition { epoch, commit, .. } = stamp.position;
    let header = EventHeader {
        op: Op::Truncate,
        position: SourcePosition::after_commit(epoch, commit.saturating_sub(1)),
        transaction: 0,
        committed_at_micros: stamp.at_micros,
        last_in_transaction: false,
        before_is_key_only: false,
    };
    super::transaction::to_every_partition(plan, header, into);
}

/// Cuts what is still to be read of a table into chunks.
fn plan_chunks(at: usize, wanted: &mut Wanted, rows_per_chunk: u64) -> Vec<Chunk> {
    let table = &wanted.table;
    let whole = Chunk { table: at, from: 0, to: table.blocks.max(1), open_ended: true, newer_than: None };
    if table.kind != "r" {
        // A partitioned table has no blocks of its own: it is read in one go.
        wanted.state.blocks.clear();
        return vec![whole];
    }
    if wanted.state.filenode != table.filenode {
        wanted.state.blocks.clear();
    }
    let rows_per_block = match table.rows_estimate {
        Some(rows) if rows > 0 && table.blocks > 0 => rows.div_ceil(table.blocks),
        _ => ROWS_PER_BLOCK,
    };
    let step = (rows_per_chunk / rows_per_block).max(1);
    let mut chunks = Vec::new();
    // Rows that were in blocks not yet read may have moved into blocks that were: those are looked through again for
    // what was written since. Otherwise a later change that does not send all columns would find no row to complete it.
    let horizon = wanted.state.horizon;
    chunks.extend(wanted.state.blocks.iter().map(|&(from, to)| Chunk {
        from,
        to,
        open_ended: false,
        newer_than: Some(horizon),
        ..whole
    }));
    let mut from = 0;
    let read = wanted.state.blocks.iter().copied().chain([(whole.to.max(from), u64::MAX)]);
    for (read_from, read_to) in read {
        while from < read_from {
            let to = (from + step).min(read_from);
            chunks.push(Chunk { from, to, open_ended: false, newer_than: None, ..whole });
            from = to;
        }
        from = from.max(read_to);
    }
    match chunks.iter_mut().rev().find(|chunk| chunk.newer_than.is_none()) {
        Some(last) if last.to >= whole.to => last.open_ended = true,
        // Everything there was is read; what was added behind it is not.
        _ => {
            let from = wanted.state.blocks.last().map_or(0, |range| range.1);
            chunks.push(Chunk { from, to: from.max(whole.to), ..whole });
        }
    }
    chunks
}

struct Worker {
    config: PostgresConfig,
    stamp: Stamp,
    tables: Arc<[Wanted]>,
    queue: Arc<Mutex<VecDeque<Chunk>>>,
    parts: mpsc::Sender<Result<Part, Error>>,
}

impl Worker {
    async fn run(&mut self) -> Result<(), Error> {
        let sql = Sql::connect(&self.config).await?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{}'",
            self.stamp.snapshot
        );
        sql.execute("enter the snapshot", &begin).await?;
        loop {
            let next = self.queue.lock().pop_front();
            let Some(chunk) = next else { return Ok(()) };
            if !self.read(&sql, chunk).await? {
                return Ok(());
            }
        }
    }

    /// Reads one chunk; `false` when nobody listens any more.
    async fn read(&self, sql: &Sql, chunk: Chunk) -> Result<bool, Error> {
        let wanted = &self.tables[chunk.table];
        let action = format!("read a snapshot of {}", wanted.table.name());
        let copied = sql.client.copy_out(&copy_statement(wanted, chunk)).await;
        let mut lines = pin!(copied.map_err(|error| failed(&action, error))?);
        let mut reader = RowReader::new(&wanted.plan, &self.stamp);
        while let Some(line) = lines.next().await {
            reader.push(&line.map_err(|error| failed(&action, error))?);
            if reader.bytes >= PART_BYTES && self.parts.send(Ok(reader.take(chunk.table, None))).await.is_err() {
                return Ok(false);
            }
        }
        self.check_files(sql, &wanted.table).await?;
        Ok(self.parts.send(Ok(reader.take(chunk.table, Some(chunk)))).await.is_ok())
    }

    /// Fails when the table just read is another one of that name, or it or one of its partitions has another file than the
    /// one that the snapshot knows: it looked empty then, however many rows it has. Its lock, held since, keeps it as it
    /// is.
    async fn check_files(&self, sql: &Sql, table: &CatalogTable) -> Result<(), Error> {
        // The catalog is shown by the snapshot, and what the function tells is the present.
        let query = format!(
            "WITH asked AS (SELECT to_regclass({})::oid AS oid)
             SELECT count(*) AS rewritten, (SELECT oid FROM asked)::bigint AS oid FROM pg_class c
             WHERE c.oid IN ({WITH_PARTITIONS})
               AND c.relkind = 'r' AND c.relfilenode <> coalesce(pg_relation_filenode(c.oid), 0)",
            literal(&table.quoted())
        );
        let rows = sql.rows("look at a table's file", &query).await?;
        let row = rows.first().ok_or(Error::Malformed { what: "answer to a catalog query" })?;
        let is_it = optional(row, "oid").and_then(|oid| oid.parse().ok()) == Some(table.oid);
        if is_it && number::<u64>(row, "rewritten")? == 0 {
            return Ok(());
        }
        Err(Error::NotReady {
            problem: format!(
                "table {} was rewritten, truncated or replaced while it was about to be read",
                table.name()
            ),
            remedy: "nothing is to be done: it is read anew".into(),
        })
    }
}

/// The columns of a table as the stream sends them, as SQL.
pub(super) fn select_list(plan: &TablePlan) -> String {
    plan.schema.columns.iter().map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
}

fn copy_statement(wanted: &Wanted, chunk: Chunk) -> String {
    let table = &wanted.table;
    let mut conditions: Vec<String> = wanted.published.row_filter.iter().map(|filter| format!("({filter})")).collect();
    if table.kind == "r" {
        conditions.push(format!("ctid >= '({},0)'::tid", chunk.from));
        if !chunk.open_ended {
            conditions.push(format!("ctid < '({},0)'::tid", chunk.to));
        }
        if let Some(horizon) = chunk.newer_than {
            conditions.push(format!("age(xmin) <= age('{}'::xid)", horizon as u32));
        }
    }
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    format!("COPY (SELECT {} FROM {}{filter}) TO STDOUT", select_list(&wanted.plan), table.quoted_alone())
}

/// Turns lines into snapshot events.
struct RowReader<'a> {
    plan: &'a TablePlan,
    header: EventHeader,
    line: CopyLine,
    key: Vec<u8>,
    row: Vec<u8>,
    scratch: Vec<u8>,
    buffers: Vec<RecordBuffer>,
    dead_letters: Vec<DeadLetter>,
    rows: u64,
    bytes: usize,
}

impl<'a> RowReader<'a> {
    fn new(plan: &'a TablePlan, stamp: &Stamp) -> Self {
        let header = EventHeader {
            op: Op::Read,
            position: stamp.position,
            transaction: 0,
            committed_at_micros: stamp.at_micros,
            last_in_transaction: false,
            before_is_key_only: false,
        };
        Self {
            plan,
            header,
            line: CopyLine::default(),
            key: Vec::new(),
            row: Vec::new(),
            scratch: Vec::new(),
            buffers: Self::empty_buffers(plan),
            dead_letters: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    fn empty_buffers(plan: &TablePlan) -> Vec<RecordBuffer> {
        (0..plan.route.partitions()).map(|_| RecordBuffer::default()).collect()
    }

    fn push(&mut self, line: &[u8]) {
        self.rows += 1;
        self.line.read(line);
        let tuple = Tuple { bytes: &self.line.bytes, cells: &self.line.cells, fallback: None };
        self.key.clear();
        self.row.clear();
        let written = self
            .plan
            .write_key(&mut self.key, tuple, &mut self.scratch)
            .and_then(|()| self.plan.write_row(&mut self.row, tuple, &mut self.scratch));
        if let Ok(Some(bad)) | Err(bad) = written {
            let cause = self.plan.complaint(bad);
            self.dead_letters.push(dead_letter(self.plan, self.header.position, cause, line));
            self.bytes += line.len();
        }
        if written.is_err() {
            return;
        }
        let partition = self.plan.route.partition_of(&self.key) as usize;
        let (header, row) = (self.header, &self.row);
        let write = |out: &mut Vec<u8>| {
            header.encode(out, None, Some(&mut |out: &mut Vec<u8>| out.extend_from_slice(row)));
        };
        let at_millis = self.header.committed_at_micros.div_euclid(1000);
        self.buffers[partition].push(at_millis, &self.key, Some(write));
        self.bytes += self.key.len() + self.row.len() + 64;
    }

    fn take(&mut self, table: usize, done: Option<Chunk>) -> Part {
        self.bytes = 0;
        Part {
            table,
            rows: std::mem::take(&mut self.rows),
            buffers: std::mem::replace(&mut self.buffers, Self::empty_buffers(self.plan)),
            dead_letters: std::mem::take(&mut self.dead_letters),
            done,
        }
    }
}

/// The dead letter for a row that could not become an event, or not whole.
pub(super) fn dead_letter(plan: &TablePlan, position: SourcePosition, cause: String, message: &[u8]) -> DeadLetter {
    use base64::Engine;
    let kept = &message[..message.len().min(DeadLetter::PAYLOAD_MAX)];
    DeadLetter {
        stage: Stage::Capture,
        cause,
        at_millis: now_millis(),
        table: Some(plan.schema.table.to_string()),
        position: Some(position.to_string()),
        model: None,
        root: None,
        payload: Payload::SourceMessage(base64::engine::general_purpose::STANDARD.encode(kept)),
    }
}
