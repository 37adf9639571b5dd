//! Truncations of tables that are larger than an engine takes in one commit.

use headwater_schemas::{SourcePosition, TableId};
use headwater_store::{Batch, READ_BYTES, RowArena};

use crate::Error;
use crate::apply::erase;
use crate::fold::{Fold, FoldOptions, Folded, Letters, State};
use crate::records::{Input, truncates};

/// Slices of a truncated table that go in one commit: with the usual settings as many rows as a micro-batch has events.
const SLICES: usize = 10;

/// How truncations go on after errors.
pub(crate) struct Sweeping {
    /// Slices in one commit: fewer after an error, until the table is done.
    slices: usize,
    /// A truncation failed: small tables go before their batch, too. Their rows may be large.
    also_small: bool,
}

impl Default for Sweeping {
    fn default() -> Self {
        Self { slices: SLICES, also_small: false }
    }
}

/// The removal of the rows of a table below a truncation.
struct Sweep {
    table: TableId,
    below: SourcePosition,
    /// The last key that was looked at.
    after: Option<Vec<u8>>,
}

impl Fold {
    /// Rows below the truncations among these records become tombstones, in as many commits as it takes, where a table has
    /// more of them than the engine takes in one; else they go with the batch of the records. Comes before that batch,
    /// which moves the offsets: where this breaks off it is done again, and finds what is left.
    pub(crate) fn sweep(&mut self, inputs: &[Input<'_>], letters: &mut Letters<'_>) -> Result<Folded, Error> {
        let most = self.store.rows_swept_max();
        let mut all = Folded::default();
        if most == u64::MAX {
            return Ok(all);
        }
        for (table, below) in truncates(inputs) {
            let is_due = |state: &State, rows: u64, also_small| {
                !state.is_swept(&table, below) && (rows > most || (also_small && rows > 0))
            };
            let also_small = self.sweeping.also_small;
            if !self.step(|state, batch, _| Ok(is_due(state, batch.row_count(&table)?, also_small)))? {
                // Until the batch has been committed, it may be what fails.
                self.sweeping.also_small = true;
                continue;
            }
            all = all.and(self.sweep_table(Sweep { table, below, after: None }, letters)?);
        }
        Ok(all)
    }

    /// What was begun with [`Self::sweep`] is committed.
    pub(crate) fn swept(&mut self) {
        self.sweeping.also_small = false;
    }

    fn sweep_table(&mut self, mut sweep: Sweep, letters: &mut Letters<'_>) -> Result<Folded, Error> {
        let mut all = Folded::default();
        loop {
            let slices = self.sweeping.slices;
            match self.step(|state, batch, options| state.sweep_part(batch, options, &sweep, slices, letters)) {
                Ok((after, folded)) => {
                    all = all.and(folded);
                    sweep.after = after;
                    if sweep.after.is_none() {
                        break;
                    }
                }
                Err(error) => {
                    // What takes the server too long has no word of its own: the next attempt, too, begins with fewer.
                    self.sweeping.slices = (slices / 2).max(1);
                    if !error.is_too_large() || slices == 1 {
                        return Err(error);
                    }
                }
            }
        }
        self.sweeping.slices = SLICES;
        // Of a table of which nothing is known yet, rows from before the truncation may still come.
        if self.state.catalog.truncated_at(&sweep.table) >= Some(sweep.below) {
            self.state.swept.insert(sweep.table, sweep.below);
        }
        Ok(all)
    }
}

impl State {
    /// Whether nothing is left of the table below a truncation.
    pub(crate) fn is_swept(&self, table: &TableId, below: SourcePosition) -> bool {
        self.swept.get(table).is_some_and(|swept| *swept >= below)
    }

    /// The next rows below a truncation become tombstones, and the documents above them are built; answers with the key up
    /// to which the table has been gone through, `None` at its end.
    fn sweep_part(
        &mut self,
        batch: &mut dyn Batch,
        options: &FoldOptions,
        sweep: &Sweep,
        slices: usize,
        letters: &mut Letters<'_>,
    ) -> Result<(Option<Vec<u8>>, Folded), Error> {
        // First of all, and kept: rows from before the truncation, whenever they arrive, do not come back.
        self.catalog.truncated(batch, &sweep.table, sweep.below)?;
        let mut dirty = self.take_unfinished();
        let (indexes, mut ascents) = (self.indexes_of(&sweep.table), self.ascents());
        let (mut after, mut bytes) = (sweep.after.clone(), 0);
        for _ in 0..slices {
            let mut arena = RowArena::default();
            batch.scan_rows(&sweep.table, after.as_deref(), options.slice_rows, &mut arena)?;
            after = arena.slots().last().map(|last| arena.key(last).to_vec());
            ascents.begin(&erase(batch, &sweep.table, &indexes, &arena, sweep.below)?);
            bytes += arena.byte_len();
            if after.is_none() || bytes >= READ_BYTES {
                break;
            }
        }
        let rows = ascents.changed;
        self.climb_all(batch, ascents, &mut dirty)?;
        let mut found = Vec::new();
        let documents = self.build_all(batch, dirty, 0, &mut found)?;
        if !found.is_empty() {
            letters(&found)?;
        }
        Ok((after, Folded { rows, documents, dead_letters: found.len() as u64, ..Folded::default() }))
    }
}
