//! New versions of which too many documents cannot be built.
//!
//! A cast that fails for nearly every root makes nearly no document, and a dead letter of each. Such a version does not take
//! over from one that serves: it is *held*, and follows changes as before, until enough of its documents can be built after
//! all, or somebody says that it is wanted as it is. What is compared is what there is: the roots that should have a document,
//! and the documents. So retried letters count, and changes of rows, and nothing that could be counted twice.

use headwater_schemas::model::definition::{DEAD_LETTERS_PERCENT, ReadModel};
use headwater_store::{Batch, RowArena, RowBatch, VersionState};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::background::Slice;
use crate::fold::{Fold, FoldOptions, State};
use crate::plan::Plan;
use crate::version::{Scan, Version};

/// The roots that should have a document are counted, a slice at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    after: Option<Vec<u8>>,
    wanted: u64,
}

/// Why a version is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Documents that cannot be built.
    missing: u64,
    /// Roots that should have one.
    wanted: u64,
    /// One of them, and why it cannot.
    example: Option<String>,
}

impl Count {
    /// Counts those among some more rows; answers how many there are once those were all.
    pub(crate) fn some_more(
        &mut self,
        batch: &dyn RowBatch,
        plan: &Plan,
        slice_rows: usize,
    ) -> Result<Option<u64>, Error> {
        let mut rows = RowArena::default();
        batch.scan_rows(plan.root_table(), self.after.as_deref(), slice_rows, &mut rows)?;
        let Some(last) = rows.slots().last() else { return Ok(Some(self.wanted)) };
        self.after = Some(rows.key(last).to_vec());
        let mut cells = Vec::new();
        for slot in rows.slots() {
            let Some(row) = rows.row(slot) else { continue };
            self.wanted += u64::from(plan.wants(slot.schema, row, &mut cells));
        }
        Ok(None)
    }
}

impl Held {
    /// Whether a version is held that has so many documents of those that are wanted. A single one that is missing holds none,
    /// unless it is the only one.
    pub(crate) fn new(model: &ReadModel, wanted: u64, documents: u64) -> Option<Self> {
        let missing = wanted.saturating_sub(documents);
        let is_held = missing.saturating_mul(100) > wanted.saturating_mul(percent_max(model).into());
        (is_held && (missing > 1 || documents == 0)).then_some(Self { missing, wanted, example: None })
    }

    pub(crate) fn such_as(self, example: Option<String>) -> Self {
        Self { example, ..self }
    }

    /// What is told of it.
    pub(crate) fn problem(&self, model: &ReadModel) -> String {
        let Self { missing, wanted, example } = self;
        let percent = percent_max(model);
        let example = example.as_ref().map(|example| format!(", such as {example}")).unwrap_or_default();
        format!(
            "a new version is held back, and the one before it serves on: {missing} of its {wanted} documents cannot be \
             built, more than {percent} %{example}; see `headwater dead-letters list`. Mend the model's definition; or the \
             data, and then say `headwater dead-letters retry`; or have it take over as it is, by `dead_letters_percent_max` \
             in the model's file"
        )
    }
}

fn percent_max(model: &ReadModel) -> u32 {
    model.dead_letters_percent_max.unwrap_or(DEAD_LETTERS_PERCENT)
}

impl Fold {
    /// Counts again what versions lack that are held back because too many of their documents could not be built: letters were
    /// tried again, say.
    pub fn weigh_again(&mut self) -> Result<(), Error> {
        if !self.state.versions.iter().any(|version| matches!(version.scan, Scan::Held(_))) {
            return Ok(());
        }
        self.step(|state, batch, _| state.versions.iter_mut().try_for_each(|version| version.weigh_again(batch)))
    }
}

impl Version {
    /// Counts again what a version lacks that is held.
    pub(crate) fn weigh_again(&mut self, batch: &mut dyn Batch) -> Result<(), Error> {
        if matches!(self.scan, Scan::Held(_)) {
            self.scan = Scan::Counting(Count::default());
            self.save_filled(batch)?;
        }
        Ok(())
    }
}

impl State {
    /// Every root of the version was scanned: it serves, or what it lacks is counted first.
    pub(crate) fn filled(&mut self, batch: &mut dyn Batch, options: &FoldOptions, at: usize) -> Result<Slice, Error> {
        let model = &self.versions[at].record.model;
        let mut serving = self.versions.iter().map(|version| &version.record).chain(&self.lost);
        if serving.any(|record| record.model == *model && record.state == VersionState::Active) {
            let version = &mut self.versions[at];
            version.scan = Scan::Counting(Count::default());
            version.save_filled(batch)?;
            return Ok(Slice::Work);
        }
        self.take_over(batch, options, at)
    }

    /// Counts what the version lacks, and lets it serve or holds it.
    pub(crate) fn weigh(&mut self, batch: &mut dyn Batch, options: &FoldOptions, at: usize) -> Result<Slice, Error> {
        let version = &mut self.versions[at];
        let (Scan::Counting(count), Some(plan)) = (&mut version.scan, &version.plan) else { return Ok(Slice::Nothing) };
        let Some(wanted) = count.some_more(&*batch, plan, options.slice_rows)? else { return Ok(Slice::Work) };
        let documents = batch.document_count(version.record.id)?;
        let Some(held) = Held::new(&version.model, wanted, documents) else {
            return self.take_over(batch, options, at);
        };
        let held = held.such_as(version.example(&*batch)?);
        tracing::warn!(model = version.record.model, problem = held.problem(&version.model), "a version is held");
        version.scan = Scan::Held(held);
        version.save_filled(batch)?;
        Ok(Slice::Work)
    }

    fn take_over(&mut self, batch: &mut dyn Batch, options: &FoldOptions, at: usize) -> Result<Slice, Error> {
        self.activate(batch, at)?;
        // It may be what frontiers were held back for, and the next progress may be long in coming.
        self.advance(batch, options)?;
        Ok(Slice::Activated)
    }
}

#[cfg(test)]
mod tests {
    use headwater_schemas::model::{ParseContext, parse};

    use super::*;

    #[test]
    fn a_version_is_held_that_lacks_more_than_its_share() {
        let held = |percent: &str, wanted, documents| {
            let yaml = format!("model: m\nroot: {{ table: s.t, key: id }}\nfields: [id]\n{percent}");
            let model = parse("m.yaml", &yaml, &ParseContext::default()).expect("a sound model");
            Held::new(&model, wanted, documents).map(|held| held.missing)
        };
        assert_eq!(held("", 100, 90), None);
        assert_eq!(held("", 100, 89), Some(11));
        assert_eq!(held("dead_letters_percent_max: 11", 100, 89), None);
        assert_eq!(held("dead_letters_percent_max: 0", 100, 98), Some(2));
        assert_eq!(held("dead_letters_percent_max: 100", 100, 0), None);
        // One alone holds no version, unless readers were left with nothing.
        assert_eq!(held("", 2, 1), None);
        assert_eq!(held("dead_letters_percent_max: 0", 100, 99), None);
        assert_eq!(held("", 1, 0), Some(1));
        // Roots that came behind the count.
        assert_eq!(held("", 0, 0), None);
        assert_eq!(held("", 3, 4), None);
    }
}
