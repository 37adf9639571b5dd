//! Versions whose model did not fit its tables at some time: a column that it names was renamed or dropped.
//!
//! What rows hold under such a name is not known from then on. So the version is frozen: its documents stay as they were, and
//! while it serves, the frontiers of its sources stay, too. Rows are folded on. It never goes on, since the changes that it
//! did not follow are not known either: once its model fits again, a new version of the same definition is built from the
//! rows and takes its place, as one of a changed definition does.

use headwater_store::{Batch, JoinIndex, VersionId};

use crate::Error;
use crate::background::index_note;
use crate::fold::State;

/// What is told of a version that is frozen, by what does not fit.
pub(crate) fn misfit(error: &Error) -> String {
    format!(
        "{error}; its documents stay as they were before that, and so does how far they are said to be: change the model's \
         definition, or give the table back what it had"
    )
}

/// What is told of a version that was frozen and fits its tables again.
pub(crate) const FITS_AGAIN: &str = "it did not fit its tables for a while, and its documents stay as they were before that, \
                                     until a new version, built from the rows, takes its place";

impl State {
    /// Whether a version over this source serves that is frozen.
    pub(crate) fn is_held(&self, source: &str) -> bool {
        let mut frozen = self.versions.iter().filter(|version| version.is_active() && version.frozen);
        frozen.any(|version| version.model.tables().iter().any(|table| *table.source == *source))
    }

    /// Begins a new version for each that is frozen and fits its tables again, where none of its model is being built.
    pub(crate) fn replace_frozen(&mut self, batch: &mut dyn Batch) -> Result<(), Error> {
        let fits = self.versions.iter().filter(|version| version.frozen && self.catalog.fits(&version.model));
        let fits: Vec<VersionId> = fits.map(|version| version.record.id).collect();
        for id in fits {
            let version = self.versions.iter().find(|it| it.record.id == id).expect("only others were retired");
            let (model, serves) = (version.model.clone(), version.is_active());
            if !serves {
                self.retire(batch, id)?;
            }
            if !self.versions.iter().any(|it| it.record.model == model.name && it.is_building()) {
                self.add(batch, model)?;
                let added = self.versions.last_mut().expect("added just now");
                added.replan(batch, &self.catalog)?;
            }
        }
        Ok(())
    }

    /// Removes those of these join indexes that are filled halfway and that nobody keeps: whoever wants one later begins anew.
    pub(crate) fn forget_unfilled(&self, batch: &mut dyn Batch, indexes: &[JoinIndex]) -> Result<(), Error> {
        for index in indexes {
            let wanted = self.versions.iter().any(|other| other.indexes.contains(index));
            if !wanted && !self.complete.contains(index) {
                batch.drop_join_index(index)?;
                batch.set_note(&index_note(index), None)?;
            }
        }
        Ok(())
    }
}
