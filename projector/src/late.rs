//! Partitions that were begun behind records which retention had removed before anybody read them.
//!
//! What was in those records is missing, and nothing says what it was: a version over such a table must not be served as if
//! it were whole. It is whole again once the table has been read again by its connector: behind the last row of such a
//! reading, in a new epoch, stands the truncation of everything older.
//!
//! The note is with the rows, and one for all forms of a projector: those that share rows go on with what one noted that
//! worked alone before.

use std::collections::BTreeMap;

use headwater_broker::{TopicPartition, Watermarks};
use headwater_schemas::Op;
use headwater_schemas::model::definition::ReadModel;
use headwater_store::RowBatch;

use crate::Error;
use crate::fold::Fold;
use crate::records::Input;

const NOTE: &str = "begun_late";

/// By topic and partition: the epoch of the first event that was there; `None` until it has been read.
#[derive(Default)]
pub(crate) struct Late(BTreeMap<(String, u32), Option<u32>>);

impl Late {
    pub(crate) fn load(batch: &dyn RowBatch) -> Result<Self, Error> {
        let damaged = |_| Error::Note { note: NOTE.into() };
        let Some(note) = batch.note(NOTE)? else { return Ok(Self::default()) };
        let places: Vec<(String, u32, Option<u32>)> = serde_json::from_slice(&note).map_err(damaged)?;
        Ok(Self(places.into_iter().map(|(topic, partition, epoch)| ((topic, partition), epoch)).collect()))
    }

    fn write(&self, batch: &mut dyn RowBatch) -> Result<(), Error> {
        let places: Vec<_> = self.0.iter().map(|((topic, partition), epoch)| (topic, partition, epoch)).collect();
        let json = serde_json::to_vec(&places).expect("texts and numbers");
        Ok(batch.set_note(NOTE, (!self.0.is_empty()).then_some(&json))?)
    }

    /// Says that a partition nobody has read is begun at its low watermark, its first records removed.
    pub(crate) fn begin(
        &mut self,
        batch: &mut dyn RowBatch,
        at: &TopicPartition,
        marks: Watermarks,
    ) -> Result<(), Error> {
        tracing::warn!(partition = %at, low = marks.low.0, "records were removed by retention before they were read");
        // Of a partition that is empty nothing will be missed from here on.
        let first = (marks.low == marks.high).then_some(0);
        self.0.insert((at.topic.to_string(), at.partition), first);
        self.write(batch)
    }

    /// Takes note of tables that have been read again; answers whether there was anything to note.
    pub(crate) fn read_again(&mut self, batch: &mut dyn RowBatch, inputs: &[Input<'_>]) -> Result<bool, Error> {
        let mut changed = false;
        for input in inputs {
            let place = (input.batch.from.topic.to_string(), input.batch.from.partition);
            let Some(first) = self.0.get_mut(&place) else { continue };
            let mut is_whole = false;
            for header in input.headers() {
                let epoch = header.position.epoch;
                // A reading whose beginning was removed has the epoch of what was there first.
                let before = *first.get_or_insert_with(|| {
                    changed = true;
                    epoch
                });
                is_whole |= header.op == Op::Truncate && epoch > before;
            }
            if is_whole {
                self.0.remove(&place);
                changed = true;
            }
        }
        if changed {
            self.write(batch)?;
        }
        Ok(changed)
    }

    /// Why a version of this model must not be served, if records of its tables are missing.
    pub(crate) fn lacks(&self, model: &ReadModel, prefix: &str) -> Option<String> {
        let topics: Vec<String> = model.tables().iter().map(|table| table.topic(prefix)).collect();
        let (topic, partition) = self.0.keys().find(|(topic, _)| topics.contains(topic))?;
        Some(format!(
            "records of {topic}-{partition} were removed by retention before they were read, so that rows are missing: have \
             the table read again, by taking it out of its connector's `tables` for one start"
        ))
    }
}

impl Fold {
    /// Begins a partition that nobody has read at its low watermark, its first records removed.
    pub(crate) fn begin_late(&mut self, at: &TopicPartition, marks: Watermarks) -> Result<(), Error> {
        self.step(|state, batch, _| {
            state.late.begin(batch, at, marks)?;
            batch.set_offset(&at.topic, at.partition, marks.low.0)?;
            state.offsets.insert((at.topic.to_string(), at.partition), marks.low.0);
            Ok(())
        })
    }
}
