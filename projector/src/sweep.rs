//! Truncations of tables that are larger than an engine takes in one commit.

use headwater_schemas::{SourcePosition, TableId};
use headwater_store::{Batch, READ_BYTES, RowArena};

use crate::Error;
use crate::apply::erase;
use crate::fold::{Fold, FoldOptions, Folded, Letters, State};
use crate::found::FoundLetters;
use crate::records::{Input, before_truncations, truncates};

/// Slices of a truncated table that go in one commit: with the usual settings as many rows as a micro-batch has events.
const SLICES: usize = 10;

/// How truncations go on after errors.
pub(crate) struct Sweeping {
    /// Slices in one commit: fewer after an error, until the table is done.
    slices: usize,
    /// A batch with a truncation was begun and not committed: the next time small tables go before it, too. Their rows may
    /// be large.
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

/// Folds records in a commit of their own.
type FoldThem = fn(&mut Fold, &[Input<'_>], &mut Letters<'_>) -> Result<Folded, Error>;

impl Fold {
    /// Folds records, and before them, in as many commits as it takes, sweeps the tables that they truncate and that have
    /// more rows than the engine takes in one. Offsets move with the truncation itself: where this breaks off it is done
    /// again, and finds what is left.
    ///
    /// What was read again stands before the truncation that removes the others, in each partition, and is folded first:
    /// nobody must see it go.
    pub(crate) fn in_order(
        &mut self,
        inputs: &[Input<'_>],
        letters: &mut Letters<'_>,
        fold: FoldThem,
    ) -> Result<Folded, Error> {
        let due = self.sweeps(inputs)?;
        if due.is_empty() {
            let folded = fold(self, inputs, letters)?;
            self.sweeping.also_small = false;
            return Ok(folded);
        }
        let (before, rest) = before_truncations(inputs);
        let mut all = Folded::default();
        if !before.is_empty() {
            all = all.and(fold(self, &before, letters)?);
        }
        for sweep in due {
            all = all.and(self.sweep_table(sweep, letters)?);
        }
        all = all.and(fold(self, &rest, letters)?);
        self.sweeping.also_small = false;
        Ok(all)
    }

    /// The truncations that take effect with these records and are more than one commit.
    fn sweeps(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Sweep>, Error> {
        let most = self.store.rows_swept_max();
        if most == u64::MAX {
            return Ok(Vec::new());
        }
        let mut due = Vec::new();
        let also_small = self.sweeping.also_small;
        for (table, brought) in truncates(inputs) {
            self.sweeping.also_small = true;
            due.extend(self.step(|state, batch, _| {
                let below = state.catalog.truncations(&table).bring(&brought);
                let Some(below) = below.filter(|below| !state.is_swept(&table, *below)) else { return Ok(None) };
                let rows = batch.row_count(&table)?;
                Ok((rows > most || (also_small && rows > 0)).then_some(Sweep { table, below, after: None }))
            })?);
        }
        Ok(due)
    }

    fn sweep_table(&mut self, mut sweep: Sweep, letters: &mut Letters<'_>) -> Result<Folded, Error> {
        let mut all = Folded::default();
        loop {
            if self.stop.is_cancelled() {
                return Err(Error::SweepBrokenOff { table: sweep.table.to_string() });
            }
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

    /// The next rows below a truncation are removed, and the documents above them are built; answers with the key up
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
        let mut found = FoundLetters::new(letters);
        let documents = self.build_all(batch, dirty, 0, &mut found)?;
        Ok((after, Folded { rows, documents, dead_letters: found.finish()?, ..Folded::default() }))
    }
}
