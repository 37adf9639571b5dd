//! The seam between the kinds of source databases and the one way into the log.

use async_trait::async_trait;
use bytes::Bytes;
use headwater_schemas::{SourcePosition, TableSchema};

use crate::{Error, Gathered, Routes};

/// A database whose changes are captured. One task owns it; see [`crate::start`] for the loop around it.
///
/// *Order*: what [`Self::gather`] puts in is in the source's commit order, first the rows of a snapshot where one is
/// needed, then the changes from the snapshot's position on. *Duplicates*: after [`Self::open`] with a checkpoint,
/// everything after that checkpoint is gathered again with the same positions. *Durability*: the source is told only
/// positions that are durable in the log, by [`Self::durable`], and lets its database forget no others.
#[async_trait]
pub trait Source: Send {
    /// Connects and gets ready to go on behind `checkpoint` ([`Mark::checkpoint`] of the last durable append), or from
    /// the beginning where there is none. Called again after every error, always before anything else. May be dropped;
    /// then it is called again.
    async fn open(&mut self, checkpoint: Option<Bytes>, routes: &mut Routes) -> Result<(), Error>;

    /// Waits for a change and puts everything that is ready into `into`, until that is full or nothing more is ready,
    /// and stops where it may be appended ([`Gathered::cut`]). Returns also when only the mark moved. May be dropped at
    /// any point and called again: what was put in stays, nothing is lost.
    async fn gather(&mut self, into: &mut Gathered, routes: &mut Routes) -> Result<(), Error>;

    /// Where what was gathered so far leads to; `None` before anything is known. In the middle of a transaction it is
    /// the mark before it.
    fn mark(&self) -> Option<Mark>;

    /// Told when everything gathered before `mark` is durable.
    fn durable(&mut self, mark: &Mark);

    /// The tables that can be captured, as the database has them now.
    async fn discover(&mut self) -> Result<Vec<TableSchema>, Error>;
}

/// A point between gathered events.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Everything the source committed up to here was gathered.
    pub position: SourcePosition,
    /// Source time to which that is complete, microseconds since 1970-01-01T00:00:00Z.
    pub at_micros: i64,
    /// Whether the snapshot is complete.
    pub snapshot_done: bool,
    /// The source's own number for this point, for [`Source::durable`].
    pub token: u64,
    /// What [`Source::open`] needs to go on from here.
    pub checkpoint: Bytes,
}
