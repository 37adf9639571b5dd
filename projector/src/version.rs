//! One version of a model while the projector runs: its definition, its plan, and how far it is built.

use std::sync::Arc;
use std::time::Instant;

use headwater_schemas::model::definition::ReadModel;
use headwater_store::{Batch, JoinIndex, RowBatch, VersionRecord, VersionState};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::catalog::Catalog;
use crate::clock::now_ms;
use crate::found::FoundLetters;
use crate::frozen;
use crate::held::{Count, Held};
use crate::plan::Plan;

/// Every store scans rows in the order of so many bytes of their keys; what is longer may be cut, and is ordered by a hash
/// from there on.
const KEY_UNCUT: usize = 480;

/// A version that serves or is being built.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) record: VersionRecord,
    pub(crate) model: Arc<ReadModel>,
    /// `None` while a table it reads is unknown, the model does not fit the tables, or it is frozen.
    pub(crate) plan: Option<Plan>,
    pub(crate) problem: Option<String>,
    /// Whether it is [frozen](crate::frozen): it follows no change any more.
    pub(crate) frozen: bool,
    pub(crate) indexes: Vec<JoinIndex>,
    /// How far a building version is; an active one follows every change.
    pub(crate) scan: Scan,
    pub(crate) replay: Option<Replay>,
}

/// The scan of the root table that fills a building version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// Not begun: changes are not followed, since the scan will see them.
    Waiting,
    /// Roots up to this key are built and follow changes; those behind it will be seen by the scan.
    Running {
        after: Option<Vec<u8>>,
        /// Rows scanned.
        done: u64,
        /// Rows to be scanned, about.
        total: u64,
        /// When this process began, and how many rows were done then.
        started: (Instant, u64),
    },
    /// All roots are built and follow changes, and what it lacks is being counted.
    Counting(Count),
    /// It lacks too much to take over.
    Held(Held),
}

/// The reading of topics again that comes before the scan of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replay {
    pub(crate) parts: Vec<ReplayPart>,
    /// Records read so far, of all parts.
    pub(crate) done: u64,
    /// Records to be read, of all parts.
    pub(crate) total: u64,
    /// Time spent reading, milliseconds.
    pub(crate) spent_ms: u64,
    /// Records that retention removed before they were read, of all parts; kept as long as the version is.
    #[serde(default)]
    pub(crate) missed: u64,
}

/// What a replay reads of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayPart {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: u32,
    /// Offset of the next record to be read.
    pub next: u64,
    /// Offset behind the last one.
    pub end: u64,
}

impl Replay {
    pub(crate) fn new(parts: Vec<ReplayPart>) -> Self {
        let total = parts.iter().map(|part| part.end.saturating_sub(part.next)).sum();
        Self { parts, total, ..Self::default() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.parts.iter().all(|part| part.next >= part.end)
    }
}

impl Version {
    pub(crate) fn new(record: VersionRecord, model: Arc<ReadModel>) -> Self {
        let (plan, problem, indexes) = (None, None, Vec::new());
        Self { record, model, plan, problem, frozen: false, indexes, scan: Scan::Waiting, replay: None }
    }

    /// Reads what the store holds of a version; `None`: these rows do not have its definition.
    pub(crate) fn load(batch: &dyn RowBatch, record: VersionRecord) -> Result<Option<Self>, Error> {
        let damaged = |note: &str| Error::Note { note: note.to_string() };
        let id = record.id.0;
        let name = definition_note(id);
        let Some(definition) = batch.note(&name)? else { return Ok(None) };
        let model: ReadModel = serde_json::from_slice(&definition).map_err(|_| damaged(&name))?;
        let mut version = Self::new(record, Arc::new(model));
        version.frozen = batch.note(&frozen_note(id))?.is_some();
        let name = replay_note(id);
        if let Some(note) = batch.note(&name)? {
            version.replay = Some(serde_json::from_slice(&note).map_err(|_| damaged(&name))?);
        }
        if !version.is_building() {
            return Ok(Some(version));
        }
        let name = filled_note(id);
        if let Some(note) = batch.note(&name)? {
            let held: Option<Held> = serde_json::from_slice(&note).map_err(|_| damaged(&name))?;
            version.scan = held.map_or_else(|| Scan::Counting(Count::default()), Scan::Held);
            return Ok(Some(version));
        }
        let name = scan_note(id);
        if let Some(note) = batch.note(&name)? {
            let (done, after) = note.split_first_chunk::<8>().ok_or_else(|| damaged(&name))?;
            let after = (!after.is_empty()).then(|| after.to_vec());
            let done = u64::from_be_bytes(*done);
            let total = batch.row_count(&version.model.root.table)?;
            version.scan = Scan::Running { after, done, total, started: (Instant::now(), done) };
        }
        Ok(Some(version))
    }

    /// Makes the plan by the tables as they are now. A version that follows changes and does not fit them is frozen.
    pub(crate) fn replan(&mut self, batch: &mut dyn Batch, catalog: &Catalog) -> Result<(), Error> {
        let sources = self.model.sources();
        if self.record.sources != sources {
            // It was registered before this was noted.
            self.record.sources = sources;
            batch.put_version(&self.record)?;
        }
        let Some(tables) = catalog.current(&self.model.tables()) else {
            self.problem = Some(catalog.awaits(&self.model));
            return Ok(());
        };
        let error = match Plan::new(&self.model, &tables) {
            Ok(mut plan) if !self.frozen => {
                catalog.schemas().for_each(|(id, schema)| plan.learn(id, schema));
                self.indexes = plan.join_indexes();
                if self.record.shape.as_ref() != Some(&plan.shape) {
                    self.record.shape = Some(plan.shape.clone());
                    batch.put_version(&self.record)?;
                }
                (self.plan, self.problem) = (Some(plan), None);
                return Ok(());
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = &error {
            tracing::warn!(model = self.record.model, problem = %error, "model does not fit its tables");
            let has_begun = self.is_active() || self.scan != Scan::Waiting;
            if has_begun && !self.frozen {
                self.frozen = true;
                batch.set_note(&frozen_note(self.record.id.0), Some(b"true"))?;
            }
        }
        self.problem = Some(match error {
            Some(error) if self.frozen => frozen::misfit(&error),
            Some(error) => error.to_string(),
            None => frozen::FITS_AGAIN.to_owned(),
        });
        self.plan = None;
        self.indexes.clear();
        Ok(())
    }

    /// Stores the definition, which a restart needs even when the files have changed.
    pub(crate) fn save_definition(&self, batch: &mut dyn Batch) -> Result<(), Error> {
        let json = serde_json::to_vec(&*self.model).expect("a model has only string keys");
        batch.set_note(&definition_note(self.record.id.0), Some(&json))?;
        Ok(())
    }

    /// Stores how far the scan is.
    pub(crate) fn save_scan(&self, batch: &mut dyn Batch) -> Result<(), Error> {
        if let Scan::Running { after, done, .. } = &self.scan {
            let mut note = done.to_be_bytes().to_vec();
            note.extend_from_slice(after.as_deref().unwrap_or_default());
            batch.set_note(&scan_note(self.record.id.0), Some(&note))?;
        }
        Ok(())
    }

    /// Stores that the scan has ended, and whether the version is held.
    pub(crate) fn save_filled(&self, batch: &mut dyn Batch) -> Result<(), Error> {
        let held = if let Scan::Held(held) = &self.scan { Some(held) } else { None };
        let json = serde_json::to_vec(&held).expect("numbers and texts");
        batch.set_note(&filled_note(self.record.id.0), Some(&json))?;
        Ok(())
    }

    /// Keeps the newest of these letters as an example of what cannot be built.
    pub(crate) fn note_example(&self, batch: &mut dyn Batch, found: &mut FoundLetters<'_>) -> Result<(), Error> {
        if let Some(example) = found.example.take() {
            batch.set_note(&example_note(self.record.id.0), Some(example.as_bytes()))?;
        }
        Ok(())
    }

    /// An example of a document that could not be built when the version was filled.
    pub(crate) fn example(&self, batch: &dyn RowBatch) -> Result<Option<String>, Error> {
        let note = batch.note(&example_note(self.record.id.0))?;
        Ok(note.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Stores how far the reading again is.
    pub(crate) fn save_replay(&self, batch: &mut dyn Batch) -> Result<(), Error> {
        let json = self.replay.as_ref().map(|replay| serde_json::to_vec(replay).expect("numbers and texts"));
        batch.set_note(&replay_note(self.record.id.0), json.as_deref())?;
        Ok(())
    }

    /// Removes the notes of a version that is gone, or has not begun. Not before it is gone: notes lie with the rows and the
    /// registry with the documents, and where those are two engines a break may leave the registry as it was.
    pub(crate) fn forget(batch: &mut dyn Batch, version: u32) -> Result<(), Error> {
        let notes = [definition_note, scan_note, filled_note, example_note, replay_note, frozen_note, retired_note];
        for note in notes {
            batch.set_note(&note(version), None)?;
        }
        Ok(())
    }

    pub(crate) fn is_active(&self) -> bool {
        self.record.state == VersionState::Active
    }

    pub(crate) fn is_building(&self) -> bool {
        self.record.state == VersionState::Building
    }

    /// By what changes of rows are followed up, where any are this version's business now.
    pub(crate) fn followed_plan(&self) -> Option<&Plan> {
        self.plan.as_ref().filter(|_| self.follows(&[]))
    }

    /// Whether a change of this root is this version's business now.
    pub(crate) fn follows(&self, root: &[u8]) -> bool {
        if self.frozen {
            return false;
        }
        match (&self.record.state, &self.scan) {
            (VersionState::Active, _) => true,
            (VersionState::Building, Scan::Running { after, .. }) => {
                // Where the store cuts keys they lie in another order: such a root is followed from the beginning.
                after.as_deref().is_some_and(|after| root <= after || root.len() > KEY_UNCUT)
            }
            (VersionState::Building, Scan::Counting(_) | Scan::Held(_)) => true,
            _ => false,
        }
    }
}

/// Name of the note that holds the definition of a version.
pub(crate) fn definition_note(version: u32) -> String {
    format!("version/{version}/definition")
}

fn scan_note(version: u32) -> String {
    format!("version/{version}/scan")
}

fn filled_note(version: u32) -> String {
    format!("version/{version}/filled")
}

fn example_note(version: u32) -> String {
    format!("version/{version}/example")
}

fn frozen_note(version: u32) -> String {
    format!("version/{version}/frozen")
}

fn replay_note(version: u32) -> String {
    format!("version/{version}/replay")
}

/// Name of the note that holds since when a version is retired.
pub(crate) fn retired_note(version: u32) -> String {
    format!("version/{version}/retired")
}

/// Since when a version is retired, milliseconds since 1970; `None`: it was not noted.
pub(crate) fn retired_since(batch: &dyn RowBatch, version: u32) -> Result<Option<i64>, Error> {
    let note = batch.note(&retired_note(version))?;
    Ok(note.and_then(|note| note.as_slice().try_into().ok()).map(i64::from_be_bytes))
}

/// Notes that a version is retired from now on.
pub(crate) fn note_retired(batch: &mut dyn RowBatch, version: u32) -> Result<(), Error> {
    Ok(batch.set_note(&retired_note(version), Some(&now_ms().to_be_bytes()))?)
}
