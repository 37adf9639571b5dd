//! Partitions that were begun behind records which retention had removed before anybody read them.
//!
//! What was in those records is missing, and nothing says what it was: a version over such a table must not be served as if
//! it were whole. It is whole again once the table has been read again by its connector: behind the last row of such a
//! reading, in a new epoch, stands the truncation of everything older.

use std::collections::BTreeMap;

use headwater_schemas::Op;
use headwater_store::Batch;

use crate::Error;
use crate::fold::{Fold, State};
use crate::records::Input;
use crate::version::Version;

const NOTE: &str = "begun_late";

/// By topic and partition: the epoch of the first event that was there; `None` until it has been read.
pub(crate) type Late = BTreeMap<(String, u32), Option<u32>>;

pub(crate) fn load(batch: &dyn Batch) -> Result<Late, Error> {
    let damaged = |_| Error::Note { note: NOTE.into() };
    let Some(note) = batch.note(NOTE)? else { return Ok(Late::new()) };
    let places: Vec<(String, u32, Option<u32>)> = serde_json::from_slice(&note).map_err(damaged)?;
    Ok(places.into_iter().map(|(topic, partition, epoch)| ((topic, partition), epoch)).collect())
}

fn write(late: &Late, batch: &mut dyn Batch) -> Result<(), Error> {
    let places: Vec<_> = late.iter().map(|((topic, partition), epoch)| (topic, partition, epoch)).collect();
    let json = serde_json::to_vec(&places).expect("texts and numbers");
    Ok(batch.set_note(NOTE, (!late.is_empty()).then_some(&json))?)
}

impl Fold {
    /// Says that a partition nobody has read is begun at `low`, its first records removed; `is_empty`: with all others.
    pub(crate) fn begin_late(&mut self, topic: &str, partition: u32, low: u64, is_empty: bool) -> Result<(), Error> {
        tracing::warn!(topic, partition, low, "records were removed by retention before they were read");
        self.step(|state, batch, _| {
            // Of a partition that is empty nothing will be missed from here on.
            state.late.insert((topic.to_owned(), partition), is_empty.then_some(0));
            write(&state.late, batch)?;
            batch.set_offset(topic, partition, low)?;
            state.offsets.insert((topic.to_owned(), partition), low);
            Ok(())
        })
    }
}

impl State {
    /// Takes note of tables that have been read again.
    pub(crate) fn read_again(&mut self, batch: &mut dyn Batch, inputs: &[Input<'_>]) -> Result<(), Error> {
        let mut changed = false;
        for input in inputs {
            let place = (input.batch.from.topic.to_string(), input.batch.from.partition);
            let Some(first) = self.late.get_mut(&place) else { continue };
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
                self.late.remove(&place);
                changed = true;
            }
        }
        if changed { write(&self.late, batch) } else { Ok(()) }
    }

    /// Why a version must not be served, if records of its tables are missing.
    pub(crate) fn lacks(&self, version: &Version, prefix: &str) -> Option<String> {
        let topics: Vec<String> = version.model.tables().iter().map(|table| table.topic(prefix)).collect();
        let ((topic, partition), _) = self.late.iter().find(|((topic, _), _)| topics.contains(topic))?;
        Some(format!(
            "records of {topic}-{partition} were removed by retention before they were read, so that rows are missing: have \
             the table read again, by taking it out of its connector's `tables` for one start"
        ))
    }
}
