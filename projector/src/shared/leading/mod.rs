//! What one worker does for all: registers versions ([`declaring`]), makes their topics ([`topics`]), fills join indexes
//! and has new versions built ([`filling`]), lets them serve, removes what nobody needs any more ([`removing`]), and tells
//! readers how far each source is projected ([`publishing`]).
//!
//! The leader is whoever is assigned the one partition of the leaders' topic. Everything it changes in the rows it changes
//! under the condition that its claim still stands, as with any other partition; what it changes in the registry of the
//! document store, under the condition that nobody has claimed that since.

mod declaring;
mod filling;
mod publishing;
mod removing;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use headwater_broker::{EventLog, Offset, TopicPartition};
use headwater_schemas::SourceProgress;
use headwater_store::{DocumentStore, DocumentTransaction, Frontier, RowBatch, VersionId, VersionRecord};
use tokio::runtime::Handle;

use self::topics::Making;
use super::agreement::{Place, Sharing};
use super::view::{SharedRows, View};
use crate::Error;
use crate::held::Count;

/// What leading needs to know of the worker's surroundings.
pub(crate) struct Surroundings<'w> {
    pub(crate) log: &'w Arc<dyn EventLog>,
    pub(crate) documents: &'w dyn DocumentStore,
    pub(crate) runtime: &'w Handle,
    pub(crate) prefix: &'w str,
    /// Name of the projector, the same in all workers.
    pub(crate) name: &'w str,
    /// Consumer group of stage two.
    pub(crate) group: &'w str,
    /// Partitions of topics of dirty roots that are made.
    pub(crate) dirty_partitions: u32,
    pub(crate) slice_rows: usize,
    pub(crate) retired_grace_ms: i64,
}

/// Next offsets of some partitions.
type Marks = BTreeMap<TopicPartition, u64>;

/// The leader's knowledge.
pub(crate) struct Leading {
    at: TopicPartition,
    fence: u64,
    /// The claim to the registry of the document store.
    claim: u64,
    /// Newest progress of each source, and where its topic goes on.
    progress: BTreeMap<String, SourceProgress>,
    read_on: BTreeMap<String, Offset>,
    /// Ends of the sources' partitions when they were first seen: building begins behind them.
    floors: Marks,
    /// Progress that is applied, with the dirty roots that must be built before it is projected; oldest first.
    waiting: BTreeMap<String, Vec<(SourceProgress, Marks)>>,
    published: BTreeMap<String, Frontier>,
    /// The registry.
    records: BTreeMap<VersionId, VersionRecord>,
    /// Building versions whose scan has ended: the dirty roots that must be built before they serve.
    gates: BTreeMap<VersionId, Marks>,
    /// Roots counted of building versions that are built.
    counts: BTreeMap<VersionId, Count>,
    /// Topics that are being made.
    making: BTreeMap<VersionId, Making>,
    /// Rows scanned for building versions, since this worker leads.
    pub(crate) scanned: BTreeMap<VersionId, u64>,
    /// When retired versions are looked at next; `None` while there are none.
    purge_at: Option<Instant>,
}

impl Leading {
    /// Takes the lead over from whoever had it. First the registry: who claims both last, here and in the rows, leads, and
    /// of two who claim at once each may find that it does not.
    pub(crate) fn claim(rows: &mut SharedRows, around: &Surroundings<'_>, at: TopicPartition) -> Result<Self, Error> {
        let mut transaction = around.documents.begin()?;
        let claim = transaction.claim_registry()?;
        drop(transaction);
        let fence = rows.write(|view, batch| {
            let mut place = match Place::read(batch, &at)? {
                Some(place) => place,
                None => {
                    view.agreement.places.push((at.topic.to_string(), at.partition));
                    view.agreement.write(batch)?;
                    Place::default()
                }
            };
            place.fence += 1;
            let fence = place.fence;
            place.write(batch, &at)?;
            Ok(fence)
        })?;
        // Nobody who led before can change these any more.
        let transaction = around.documents.begin()?;
        let records = transaction.versions()?.into_iter().map(|record| (record.id, record)).collect();
        let published = transaction.frontiers()?;
        Ok(Self {
            at,
            fence,
            claim,
            progress: BTreeMap::new(),
            read_on: BTreeMap::new(),
            floors: Marks::new(),
            waiting: BTreeMap::new(),
            published,
            records,
            gates: BTreeMap::new(),
            counts: BTreeMap::new(),
            making: BTreeMap::new(),
            scanned: BTreeMap::new(),
            purge_at: Some(Instant::now()),
        })
    }

    /// Changes rows and notes as the leader; `None` when another one leads by now.
    fn write<T>(
        &self,
        rows: &mut SharedRows,
        step: impl FnOnce(&mut View, &mut dyn RowBatch) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        rows.write_if(|view, batch| {
            let Some(place) = Place::read(batch, &self.at)?.filter(|place| place.fence == self.fence) else {
                return Ok(None);
            };
            place.write(batch, &self.at)?;
            step(view, batch).map(Some)
        })
    }

    /// Begins to change versions and frontiers: nothing is changed where another one claimed the lead meanwhile.
    fn registry<'w>(&self, around: &Surroundings<'w>) -> Result<Box<dyn DocumentTransaction + 'w>, Error> {
        let mut transaction = around.documents.begin()?;
        transaction.under_claim(self.claim);
        Ok(transaction)
    }

    /// Whether nobody else was seen to have claimed the lead.
    pub(crate) fn stands(&self, rows: &mut SharedRows) -> Result<bool, Error> {
        rows.read(|_, batch| Ok(Place::read(batch, &self.at)?.is_some_and(|place| place.fence == self.fence)))
    }

    /// Whether this worker leads at this moment.
    fn leads(&self, rows: &mut SharedRows) -> Result<bool, Error> {
        Ok(self.write(rows, |_, _| Ok(()))?.is_some())
    }

    /// Does one thing that is due: answers whether there may be more; `None` when another one leads by now.
    pub(crate) fn work(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<Option<bool>, Error> {
        if !self.publish_shapes(rows, around)? {
            return Ok(None);
        }
        if let Some(told) = self.make_topics(rows, around)? {
            return Ok(told.then_some(true));
        }
        if let Some(begun) = self.begin_asked(rows, around)? {
            return Ok(begun.then_some(true));
        }
        if let Some(begun) = self.replace_frozen(rows, around)? {
            return Ok(begun.then_some(true));
        }
        if let Some(done) = self.fill_next_index(rows, around)? {
            return Ok(done.then_some(true));
        }
        let building = self.building(rows, around)?;
        for (id, follow) in building {
            let worked = match (follow, self.gates.contains_key(&id)) {
                (false, _) => self.follow(rows, id)?,
                (true, false) => self.scan(rows, around, id)?,
                (true, true) => self.activate_if_built(rows, around, id)?,
            };
            match worked {
                None => return Ok(None),
                Some(true) => return Ok(Some(true)),
                Some(false) => {}
            }
        }
        if self.purge_at.is_some_and(|at| at <= Instant::now()) {
            let purged = self.purge(rows, around)?;
            if purged != Some(false) {
                return Ok(purged);
            }
        }
        self.drop_index(rows)
    }

    /// Up to where the sources' partitions are applied, and the roots that this made dirty in the log.
    fn emitted(&self, rows: &mut SharedRows) -> Result<Marks, Error> {
        rows.read(|view, batch| {
            let places = view.agreement.read_places(batch)?;
            Ok(places.into_iter().map(|(at, place)| (at, place.emitted)).collect())
        })
    }
}

/// Where the topic of a version ends now.
fn ends(sharing: &Sharing, around: &Surroundings<'_>) -> Result<Marks, Error> {
    let mut ends = Marks::new();
    for partition in 0..sharing.partitions {
        let at = TopicPartition { topic: sharing.topic.as_str().into(), partition };
        let high = around.runtime.block_on(around.log.watermarks(&at))?.high;
        ends.insert(at, high.0);
    }
    Ok(ends)
}

/// Up to where dirty roots are built, as stage two said.
fn built(around: &Surroundings<'_>) -> Result<Marks, Error> {
    let committed = around.runtime.block_on(around.log.committed_offsets(around.group))?;
    Ok(committed.into_iter().map(|(at, offset)| (at, offset.0)).collect())
}

fn has_passed(built: &Marks, marks: &Marks) -> bool {
    marks.iter().all(|(at, mark)| *mark == 0 || built.get(at).is_some_and(|built| built >= mark))
}
