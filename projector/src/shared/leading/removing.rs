//! What nobody needs any more: documents of retired versions, join indexes that no version walks.

use std::time::{Duration, Instant};

use headwater_store::{VersionId, VersionRecord, VersionState};

use super::{Leading, Surroundings};
use crate::Error;
use crate::clock::now_ms;
use crate::shared::view::{SharedRows, View};
use crate::version::{note_retired, retired_note, retired_since};

/// How often it is looked whether the grace of a retired version is over.
const PURGE_LOOK: Duration = Duration::from_secs(1);

/// Documents removed in one step.
const PURGE_CHUNK: usize = 2_048;

impl Leading {
    /// Removes some documents of a retired version whose grace is over.
    pub(super) fn purge(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<Option<bool>, Error> {
        let retired = |record: &&VersionRecord| record.state == VersionState::Retired;
        let ids: Vec<VersionId> = self.records.values().filter(retired).map(|record| record.id).collect();
        self.purge_at = (!ids.is_empty()).then(|| Instant::now() + PURGE_LOOK);
        for id in ids {
            let Some(since) = rows.read(|_, batch| retired_since(batch, id.0))? else {
                // Another projector retired it: its grace begins where that is found out.
                let Some(()) = self.write(rows, |_, batch| note_retired(batch, id.0))? else { return Ok(None) };
                continue;
            };
            if now_ms().saturating_sub(since) < around.retired_grace_ms {
                continue;
            }
            if !self.leads(rows)? {
                return Ok(None);
            }
            let mut transaction = self.registry(around)?;
            transaction.purge_version(id, PURGE_CHUNK)?;
            // Its last documents may have filled the chunk.
            let is_gone = !transaction.versions()?.iter().any(|left| left.id == id);
            transaction.flush()?;
            // There may be more to remove at once.
            self.purge_at = Some(Instant::now());
            if is_gone {
                self.records.remove(&id);
                let forgotten = self.write(rows, |_, batch| Ok(batch.set_note(&retired_note(id.0), None)?))?;
                return Ok(forgotten.map(|()| true));
            }
            return Ok(Some(true));
        }
        Ok(Some(false))
    }

    /// Removes a join index that no version walks any more.
    pub(super) fn drop_index(&self, rows: &mut SharedRows) -> Result<Option<bool>, Error> {
        let view = rows.view();
        if view.versions.iter().any(|version| version.plan.is_none()) {
            return Ok(Some(false));
        }
        let unwanted = |view: &View| {
            let wanted = |index| view.versions.iter().any(|version| version.indexes.contains(index));
            view.complete.iter().find(|index| !wanted(index)).cloned()
        };
        if unwanted(view).is_none() {
            return Ok(Some(false));
        }
        let done = self.write(rows, |view, batch| {
            let Some(index) = unwanted(view) else { return Ok(()) };
            batch.drop_join_index(&index)?;
            view.agreement.write(batch)?;
            // Nobody writes its entries any more from here on.
            view.agreement.touch_all(batch)
        })?;
        rows.outdate();
        Ok(done.map(|()| true))
    }
}
