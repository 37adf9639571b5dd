//! The registry of versions: which version of a model serves, which one is being built, and which are on their way out.

use std::sync::Arc;

use headwater_schemas::model::definition::ReadModel;
use headwater_schemas::nearest;
use headwater_store::{Batch, VersionId, VersionRecord, VersionState};

use crate::Error;
use crate::clock::now_ms;
use crate::fold::{Fold, State};
use crate::version::{Replay, ReplayPart, Version, note_retired, retired_note};

impl Fold {
    /// Makes the declared models the ones that are served. A model whose definition is new or has changed gets a version
    /// that is built beside the one that serves; a version of a model that is no longer declared is retired.
    pub fn declare(&mut self, models: &[ReadModel]) -> Result<(), Error> {
        for (at, model) in models.iter().enumerate() {
            if models[..at].iter().any(|other| other.name == model.name) {
                return Err(Error::DuplicateModel { model: model.name.clone() });
            }
        }
        self.step(|state, batch, _| state.declare(batch, models))
    }

    /// Begins a new version of a model beside the one that serves, to be filled once `parts` of the log have been read
    /// again ([`Fold::replay_batch`]). Refused while a version of the model is being built.
    ///
    /// Only what was folded before is read again: what follows will be read anyway, and an event must not be applied
    /// before its predecessors, from which its missing cells are filled in.
    pub fn begin_replay(&mut self, model: &str, parts: Vec<ReplayPart>) -> Result<VersionId, Error> {
        self.step(|state, batch, _| {
            if state.versions.iter().any(|it| it.record.model == model && it.is_building()) {
                return Err(Error::RebuildRunning { model: model.to_string() });
            }
            let Some(at) = state.versions.iter().position(|it| it.record.model == model && it.is_active()) else {
                return Err(state.unknown_model(model));
            };
            let definition = state.versions[at].model.clone();
            let folded = |part: ReplayPart| {
                let folded = state.offsets.get(&(part.topic.clone(), part.partition)).copied().unwrap_or(0);
                ReplayPart { next: part.next.min(folded), end: part.end.min(folded), ..part }
            };
            let replay = Replay::new(parts.into_iter().map(folded).collect());
            let id = state.add(batch, definition)?;
            let version = state.versions.last_mut().expect("added just now");
            version.replay = Some(replay);
            version.save_replay(batch)?;
            state.replan(batch)?;
            Ok(id)
        })
    }

    /// Tables and topics that a model reads.
    pub(crate) fn model_topics(&self, model: &str) -> Result<Vec<String>, Error> {
        let found = self.state.versions.iter().find(|version| version.record.model == model);
        let version = found.ok_or_else(|| self.state.unknown_model(model))?;
        Ok(version.model.tables().iter().map(|table| table.topic(&self.options.prefix)).collect())
    }
}

impl State {
    /// Reads the versions that serve or are being built; retired ones wait for their removal.
    pub(crate) fn load_versions(&mut self, batch: &mut dyn Batch) -> Result<(), Error> {
        let apart = batch.is_apart();
        let why =
            if apart { "rows and documents are of different times, as after a restore" } else { "its rows are gone" };
        for record in batch.versions()? {
            if record.state == VersionState::Retired {
                continue;
            }
            if apart {
                // From this commit on the two are of one time, but not what this version serves.
                Version::forget(batch, record.id.0)?;
            }
            // Left by a commit that broke off: a grace that it began is none.
            batch.set_note(&retired_note(record.id.0), None)?;
            match Version::load(&*batch, record.clone())? {
                Some(version) => self.versions.push(version),
                None => {
                    let (model, version) = (&record.model, record.id.0);
                    tracing::warn!(
                        model,
                        version,
                        why,
                        "version is not followed: it stays as it is until it is replaced"
                    );
                    self.lost.push(record);
                }
            }
        }
        Ok(())
    }

    fn declare(&mut self, batch: &mut dyn Batch, models: &[ReadModel]) -> Result<(), Error> {
        let mut outdated = Vec::new();
        for version in &self.versions {
            let declared = models.iter().find(|model| model.name == version.record.model);
            let same = declared.is_some_and(|model| model.hash() == version.record.definition_hash);
            // What serves goes on until its successor is built.
            if !(same || declared.is_some() && version.is_active()) {
                outdated.push(version.record.id);
            }
        }
        for id in outdated {
            self.retire(batch, id)?;
        }
        let is_declared = |name: &str| models.iter().any(|model| model.name == name);
        self.retire_lost(batch, |record| record.state == VersionState::Building || !is_declared(&record.model))?;
        for model in models {
            let (hash, mut is_new) = (model.hash(), true);
            let is_it = |it: &VersionRecord| it.model == model.name && it.definition_hash == hash;
            // One that serves, and one that a replay builds.
            for version in self.versions.iter_mut().filter(|version| is_it(&version.record)) {
                is_new = false;
                // Descriptions do not count as a change, but readers are to see the newest ones.
                if *version.model != *model {
                    version.model = Arc::new(model.clone());
                    version.save_definition(batch)?;
                    version.weigh_again(batch)?;
                }
            }
            if is_new {
                self.add(batch, Arc::new(model.clone()))?;
            }
        }
        self.replan(batch)
    }

    pub(crate) fn add(&mut self, batch: &mut dyn Batch, model: Arc<ReadModel>) -> Result<VersionId, Error> {
        let id = batch.new_version_id()?;
        let record = VersionRecord {
            id,
            model: model.name.clone(),
            definition_hash: model.hash(),
            state: VersionState::Building,
            sources: model.sources(),
            shape: None,
            created_at_ms: now_ms(),
        };
        batch.put_version(&record)?;
        // Another one may have had this number, in a registry that is lost: how far that one was says nothing of this.
        Version::forget(batch, id.0)?;
        let version = Version::new(record, model);
        version.save_definition(batch)?;
        self.versions.push(version);
        Ok(id)
    }

    /// The version serves from this commit on, and the one before it no longer.
    pub(crate) fn activate(&mut self, batch: &mut dyn Batch, at: usize) -> Result<(), Error> {
        let model = self.versions[at].record.model.clone();
        let id = self.versions[at].record.id;
        let before = self.versions.iter().find(|it| it.record.model == model && it.is_active());
        if let Some(before) = before.map(|it| it.record.id) {
            self.retire(batch, before)?;
        }
        self.retire_lost(batch, |record| record.model == model)?;
        let version = self.versions.iter_mut().find(|it| it.record.id == id).expect("only another one was retired");
        version.record.state = VersionState::Active;
        batch.put_version(&version.record)?;
        tracing::info!(model, version = id.0, "version is active");
        Ok(())
    }

    /// The version is followed no longer, and does not serve from this commit on.
    pub(crate) fn retire(&mut self, batch: &mut dyn Batch, id: VersionId) -> Result<(), Error> {
        let Some(at) = self.versions.iter().position(|version| version.record.id == id) else { return Ok(()) };
        let version = self.versions.remove(at);
        self.forget_unfilled(batch, &version.indexes)?;
        put_retired(batch, version.record)
    }

    /// Retires those lost versions for which this holds. Nobody can build them, nor follow what they serve.
    fn retire_lost(&mut self, batch: &mut dyn Batch, is_over: impl Fn(&VersionRecord) -> bool) -> Result<(), Error> {
        let lost = std::mem::take(&mut self.lost);
        let (over, left): (Vec<VersionRecord>, Vec<VersionRecord>) = lost.into_iter().partition(is_over);
        self.lost = left;
        over.into_iter().try_for_each(|record| put_retired(batch, record))
    }

    pub(crate) fn unknown_model(&self, model: &str) -> Error {
        unknown_model(model, self.versions.iter().map(|version| version.record.model.as_str()))
    }
}

/// The version is retired from this commit on.
fn put_retired(batch: &mut dyn Batch, mut record: VersionRecord) -> Result<(), Error> {
    record.state = VersionState::Retired;
    batch.put_version(&record)?;
    note_retired(batch, record.id.0)?;
    tracing::info!(model = record.model, version = record.id.0, "version is retired");
    Ok(())
}

/// There is no such model among these.
pub(crate) fn unknown_model<'n>(model: &str, names: impl Iterator<Item = &'n str>) -> Error {
    let names: Vec<&str> = names.collect();
    let hint = match nearest(model, names.iter().copied()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; there are {}", names.join(", ")),
    };
    Error::UnknownModel { model: model.to_string(), hint }
}
