//! Which versions there are: the declared models become versions.

use std::time::Instant;

use headwater_schemas::model::definition::ReadModel;
use headwater_store::{RowBatch, VersionId, VersionRecord, VersionState};

use super::{Leading, Surroundings};
use crate::Error;
use crate::clock::now_ms;
use crate::shared::agreement::{Sharing, scan_note};
use crate::shared::view::{Followed, SharedRows, View};
use crate::version::{definition_note, note_retired};

impl Leading {
    /// Makes these the declared models. Answers `false` when another one leads by now.
    pub(crate) fn declare(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
        models: &[ReadModel],
    ) -> Result<bool, Error> {
        if !self.leads(rows)? {
            return Ok(false);
        }
        // What is registered, but was not agreed on, broke off in between; what was replaced is on its way out.
        let agreed: Vec<VersionId> = rows.read(|view, _| Ok(view.versions.iter().map(|it| it.sharing.id).collect()))?;
        let mut outdated: Vec<VersionId> = Vec::new();
        let mut kept: Vec<(String, String)> = Vec::new();
        outdated.extend(
            agreed.iter().filter(|id| self.records.get(id).is_none_or(|record| record.state == VersionState::Retired)),
        );
        for record in self.records.values().filter(|record| record.state != VersionState::Retired) {
            let declared = models.iter().find(|model| model.name == record.model);
            let same = declared.is_some_and(|model| model.hash() == record.definition_hash);
            let serves = record.state == VersionState::Active;
            if agreed.contains(&record.id) && (same || declared.is_some() && serves) {
                kept.push((record.model.clone(), record.definition_hash.clone()));
            } else if agreed.contains(&record.id) || !serves || declared.is_none() {
                outdated.push(record.id);
            } else {
                let why = "nobody keeps its rows here: it stays as it is until it is replaced";
                tracing::warn!(model = record.model, version = record.id.0, why, "version is not followed");
            }
        }
        for id in outdated {
            if !self.retire(rows, around, id)? {
                return Ok(false);
            }
        }
        for model in models {
            let is_kept = kept.iter().any(|(name, hash)| *name == model.name && *hash == model.hash());
            if !is_kept && self.add(rows, around, model)?.is_none() {
                return Ok(false);
            }
        }
        self.describe(rows, models)
    }

    /// Descriptions do not count as a change of a model, but readers are to see the newest ones.
    fn describe(&mut self, rows: &mut SharedRows, models: &[ReadModel]) -> Result<bool, Error> {
        let described = |view: &View| {
            let newer = |version: &Followed| {
                let same = |model: &&ReadModel| {
                    model.name == version.model.name
                        && model.hash() == version.model.hash()
                        && **model != *version.model
                };
                Some((version.sharing.id, models.iter().find(same)?.clone()))
            };
            view.versions.iter().filter_map(newer).collect::<Vec<_>>()
        };
        if described(rows.view()).is_empty() {
            return Ok(true);
        }
        let done = self.write(rows, |view, batch| {
            let described = described(view);
            for (id, model) in &described {
                save_definition(batch, *id, model)?;
            }
            // How much may be missing from it may have been described, too.
            view.agreement.weigh_again(|sharing| described.iter().any(|(id, _)| *id == sharing.id));
            view.agreement.write(batch)
        })?;
        rows.outdate();
        Ok(done.is_some())
    }

    /// Begins the first of the versions that were asked for. `None`: there is none; `false`: another one leads by now.
    pub(super) fn begin_asked(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
    ) -> Result<Option<bool>, Error> {
        let view = rows.view();
        let Some(asked) = view.agreement.asked.first().cloned() else { return Ok(None) };
        // The definition that is newest by now.
        let newest = view.versions.iter().rev().find(|version| version.model.name == asked);
        let model = newest.map(|version| version.model.clone());
        if let Some(model) = model {
            return Ok(Some(self.add(rows, around, &model)?.is_some()));
        }
        let forgotten = self.write(rows, |view, batch| {
            view.agreement.asked.retain(|model| *model != asked);
            view.agreement.write(batch)
        })?;
        Ok(Some(forgotten.is_some()))
    }

    /// Begins a new version for the first of those that are [frozen](crate::frozen) and fit their tables again, where none of
    /// its model is being built. `None`: there is none; `false`: another one leads by now.
    pub(super) fn replace_frozen(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
    ) -> Result<Option<bool>, Error> {
        let view = rows.view();
        let is_building = |version: &Followed| {
            self.records.get(&version.sharing.id).is_some_and(|record| record.state == VersionState::Building)
        };
        let is_due = |version: &&Followed| {
            let is_other = |it: &&Followed| it.sharing.id != version.sharing.id && it.model.name == version.model.name;
            version.sharing.frozen
                && view.catalog.fits(&version.model)
                && !view.versions.iter().filter(is_other).any(is_building)
        };
        let Some(version) = view.versions.iter().find(is_due) else { return Ok(None) };
        let (id, model, serves) = (version.sharing.id, version.model.clone(), !is_building(version));
        if !serves && !self.retire(rows, around, id)? {
            return Ok(Some(false));
        }
        Ok(Some(self.add(rows, around, &model)?.is_some()))
    }

    /// Begins a version beside the one that serves, if any; `None` when another one leads by now.
    pub(crate) fn add(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
        model: &ReadModel,
    ) -> Result<Option<VersionId>, Error> {
        if !self.leads(rows)? {
            return Ok(None);
        }
        let mut transaction = self.registry(around)?;
        let record = VersionRecord {
            id: transaction.new_version_id()?,
            model: model.name.clone(),
            definition_hash: model.hash(),
            state: VersionState::Building,
            sources: model.sources(),
            shape: None,
            created_at_ms: now_ms(),
        };
        transaction.put_version(&record)?;
        transaction.flush()?;
        let id = record.id;
        self.records.insert(id, record);
        // Agreed on before its topic is made, however often that is refused: nobody gives it another number meanwhile, and it
        // is one topic that somebody is asked to make.
        let topic = dirty_topic(around.prefix, around.name, &model.name, id);
        let sharing = Sharing {
            id,
            topic,
            partitions: 0,
            epoch: epoch(),
            follow: false,
            frozen: false,
            refused: None,
            held: None,
        };
        let added = self.write(rows, |view, batch| {
            save_definition(batch, id, model)?;
            view.agreement.versions.push(sharing);
            view.agreement.asked.retain(|asked| *asked != model.name);
            view.agreement.write(batch)
        })?;
        rows.outdate();
        Ok(added.map(|()| id))
    }

    /// Takes a version out of the agreement, and out of service.
    fn retire(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>, id: VersionId) -> Result<bool, Error> {
        if let Some(record) = self.records.get_mut(&id) {
            record.state = VersionState::Retired;
            let record = record.clone();
            let mut transaction = self.registry(around)?;
            transaction.put_version(&record)?;
            transaction.flush()?;
        }
        let done = self.write(rows, |view, batch| forget_version(view, batch, id))?;
        rows.outdate();
        self.gates.remove(&id);
        self.counts.remove(&id);
        self.making.remove(&id);
        self.purge_at = Some(Instant::now());
        Ok(done.is_some())
    }

    /// Tells readers what the documents of a version look like, once its tables are known, and what sources it reads, which
    /// older versions did not.
    pub(super) fn publish_shapes(&mut self, rows: &mut SharedRows, around: &Surroundings<'_>) -> Result<bool, Error> {
        let mut changed = Vec::new();
        for version in &rows.view().versions {
            let Some(record) = self.records.get_mut(&version.sharing.id) else { continue };
            let plan = version.plan.as_ref().filter(|_| version.problem.is_none());
            let reshaped = plan.map(|plan| &plan.shape).filter(|shape| record.shape.as_ref() != Some(shape));
            let sources = version.model.sources();
            if reshaped.is_some() || record.sources != sources {
                record.shape = reshaped.cloned().or(record.shape.take());
                record.sources = sources;
                changed.push(record.clone());
            }
        }
        if changed.is_empty() {
            return Ok(true);
        }
        if !self.leads(rows)? {
            return Ok(false);
        }
        let mut transaction = self.registry(around)?;
        changed.iter().try_for_each(|record| transaction.put_version(record))?;
        transaction.flush()?;
        Ok(true)
    }
}

/// Name of the topic of a version's dirty roots.
fn dirty_topic(prefix: &str, name: &str, model: &str, version: VersionId) -> String {
    format!("{prefix}.{name}.dirty.{model}.{}", version.0)
}

/// Upper part of the stamps of a version's documents: above those of any topic made earlier under the same name. Counts
/// hours, and has 23 bits. Stamps that an engine gives by itself may be greater: they never meet in one version, since only
/// versions that were begun here are written here.
fn epoch() -> u64 {
    u64::try_from(now_ms()).unwrap_or(0) / 3_600_000
}

fn save_definition(batch: &mut dyn RowBatch, id: VersionId, model: &ReadModel) -> Result<(), Error> {
    let json = serde_json::to_vec(model).expect("a model has only string keys");
    Ok(batch.set_note(&definition_note(id.0), Some(&json))?)
}

pub(super) fn forget_version(view: &mut View, batch: &mut dyn RowBatch, id: VersionId) -> Result<(), Error> {
    view.agreement.versions.retain(|sharing| sharing.id != id);
    if let Some(gone) = view.version(id) {
        view.forget_unfilled(batch, Some(id), &gone.indexes)?;
    }
    batch.set_note(&definition_note(id.0), None)?;
    batch.set_note(&scan_note(id), None)?;
    note_retired(batch, id.0)?;
    view.agreement.write(batch)
}
