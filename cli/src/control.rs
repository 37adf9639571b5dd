//! What operators can see and do while the pipeline runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use headwater_connectors::{Phase as SourcePhase, SourceStatus};
use headwater_projector::{self as projector, ErrorKind, ModelState, ProjectorHandle, ProjectorStatus, ReplayFrom};
use headwater_query_api::{Admin, AdminError};
use headwater_schemas::{Diagnostic, suggestion, temporal};
use headwater_store::{DocumentReader, VersionRecord, VersionState};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::config::{Configuration, ModelFile};
use crate::failure::chain;
use crate::preflight::Catalogs;
use crate::report::{GROUPS, SILENT_SECONDS, groups_of};
use crate::roles::Roles;
use crate::watch::LogWatch;

/// Engines that are well are heard of every second or two. An election of their servers may take some seconds.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Asks a connector how it is doing.
pub(crate) type AskSource = Box<dyn Fn() -> SourceStatus + Send + Sync>;

/// The running pipeline as operators see it.
pub(crate) struct Control {
    pub(crate) roles: Roles,
    /// The connectors that run here.
    pub(crate) sources: Vec<AskSource>,
    /// The projector, if it runs here.
    pub(crate) projector: Option<ProjectorHandle>,
    /// The broker, where this process needs it to be ready, and it is in another place.
    pub(crate) broker: Option<LogWatch>,
    /// The documents, where this process reads or writes them.
    pub(crate) reader: Option<Arc<dyn DocumentReader>>,
    /// As it was at the start, but for the models.
    pub(crate) configuration: Configuration,
    /// The models that are declared now. Held while they are changed.
    pub(crate) models: Mutex<Vec<ModelFile>>,
    /// Held while they are read again. Of two who do so at once, the one that read older files would else be the last to
    /// tell the projector.
    pub(crate) reading_again: tokio::sync::Mutex<()>,
    pub(crate) stopping: AtomicBool,
    /// Whether readers were let in once, or found a declared model in the store at the start.
    pub(crate) has_let_readers_in: AtomicBool,
}

/// What reading the models again did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reloaded {
    /// Names of all models that are declared now.
    pub(crate) models: Vec<String>,
    /// What is wrong in files that were refused; while there are any, no model that is missing now is retired.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Control {
    /// Whether this process does what it is there for: not stopping; a server found something to serve at its start, or
    /// had every declared model to serve once, and hears of changes; a connector holds its sources, and a projector runs,
    /// and the engines of both answer.
    fn readiness(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("stopping".into());
        }
        if self.roles.serve {
            return self.lets_readers_in().and_then(|()| self.hears());
        }
        self.broker_answers()?;
        if self.roles.project {
            self.hears()?;
        }
        let held = |status: &SourceStatus| {
            matches!(
                status.phase,
                SourcePhase::Snapshotting { .. } | SourcePhase::Streaming | SourcePhase::WaitingForSlot { .. }
            )
        };
        let why = |status: SourceStatus| match status.phase {
            SourcePhase::Retrying { error, .. } | SourcePhase::Stopped { error: Some(error) } => {
                format!("{}: {error}", status.source)
            }
            _ => status.source,
        };
        let lost: Vec<String> = self.sources.iter().map(|ask| ask()).filter(|status| !held(status)).map(why).collect();
        match lost.is_empty() {
            true => Ok(()),
            false => Err(format!("not captured: {}", lost.join("; "))),
        }
    }

    /// Whether the broker answers. While it does not, nothing is captured or projected.
    fn broker_answers(&self) -> Result<(), String> {
        let Some((silent, trouble)) = self.broker.as_ref().map(LogWatch::silent_for) else { return Ok(()) };
        if silent <= SILENCE_MAX {
            return Ok(());
        }
        let trouble = trouble.unwrap_or_else(|| "is it running, and reachable from here?".into());
        Err(format!("the broker, Kafka, has not answered for {} s: {trouble}", silent.as_secs()))
    }

    /// Whether readers may come. Who starts over a store without any declared model waits until all of them are built;
    /// who finds one there serves it at once. From then on a model that is not built yet, or never can be, keeps nobody
    /// from reading the others: it answers by itself that it is being built.
    fn lets_readers_in(&self) -> Result<(), String> {
        if !self.has_let_readers_in.load(Ordering::Relaxed) {
            self.all_served()?;
            self.has_let_readers_in.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether every declared model has a version that serves: as the projector tells, where it runs here, so that what the
    /// status shows is ready, too; or else as the registry does.
    fn all_served(&self) -> Result<(), String> {
        let served: Vec<String> = match (&self.projector, &self.reader) {
            (Some(projector), _) => {
                let models = projector.status().models;
                models.into_iter().filter(|it| it.state == ModelState::Active).map(|it| it.model).collect()
            }
            (None, Some(reader)) => {
                let versions = reader.versions().borrow().clone();
                let active = versions.iter().filter(|it| it.state == VersionState::Active);
                active.map(|it| it.model.clone()).collect()
            }
            (None, None) => return Ok(()),
        };
        let models = self.models.lock();
        let names = models.iter().map(|file| &file.model.name);
        let building: Vec<&str> = names.filter(|name| !served.contains(name)).map(String::as_str).collect();
        match building.is_empty() {
            true => Ok(()),
            false => Err(format!("not built yet: {}", building.join(", "))),
        }
    }

    /// Whether the document store says what changes. While it does not, what is kept of it grows old.
    fn hears(&self) -> Result<(), String> {
        match self.silence() {
            Some(seconds) => {
                let meanwhile = match self.roles.serve {
                    true => "answers may be as old, and what is not kept here cannot be read",
                    false => "documents stay as they are",
                };
                Err(format!(
                    "the document store, MongoDB, has not been heard of for {seconds} s: {meanwhile}; is it running, and \
                     reachable from here?"
                ))
            }
            None => Ok(()),
        }
    }

    /// For how many seconds the document store has been silent, where that is longer than it may be.
    fn silence(&self) -> Option<u64> {
        let silent = self.reader.as_ref()?.silent_for();
        (silent > SILENCE_MAX).then_some(silent.as_secs())
    }

    /// Where everything stands, as far as this process knows.
    pub(crate) fn overview(&self) -> Value {
        let projector = self.projector.as_ref().map(ProjectorHandle::status);
        let lag: u64 = projector.iter().flat_map(|it| &it.consumers).map(|consumer| consumer.lag).sum();
        let mut all = json!({
            "at_micros": now_micros(),
            "ready": self.readiness().is_ok(),
            SILENT_SECONDS: self.silence(),
            "roles": self.roles.names(),
            "sources": self.sources_overview(),
            "models": self.models_overview(projector.as_ref()),
            "projector": projector.as_ref().map(|projector| json!({
                "lag_events": lag,
                "events_total": projector.events_total,
                "batches_total": projector.batches_total,
                "documents_written_total": projector.documents_written_total,
                "last_error": projector.last_error,
            })),
            "consumers": projector.as_ref().map(|it| it.consumers.clone()).unwrap_or_default(),
            "dead_letters": projector.as_ref().map(|it| it.dead_letters),
        });
        all[GROUPS] = groups_of(&all);
        all
    }

    /// Every configured source: how its connector is doing, where that runs here, and how far it is projected.
    fn sources_overview(&self) -> Vec<Value> {
        let frontiers = self.reader.as_ref().map(|reader| reader.frontiers().borrow().clone()).unwrap_or_default();
        let here: Vec<SourceStatus> = self.sources.iter().map(|ask| ask()).collect();
        let overview = |source: &str| {
            let mut json = match here.iter().find(|status| status.source == source) {
                Some(status) => serde_json::to_value(status).unwrap_or_default(),
                None => json!({ "source": source, "phase": { "name": "in another process" } }),
            };
            let frontier = frontiers.get(source).map(|frontier| {
                json!({ "position": frontier.position.to_string(), "at_micros": frontier.at_micros,
                        "snapshot_done": frontier.snapshot_done })
            });
            json["frontier"] = frontier.unwrap_or_default();
            json
        };
        self.configuration.sources.iter().map(|source| overview(source)).collect()
    }

    /// Versions that serve or are being built: as the projector knows them, where it runs here, or else the registry. Where
    /// projectors are processes of their own, it may hold versions that nobody keeps any more: those are told in either case.
    fn models_overview(&self, projector: Option<&ProjectorStatus>) -> Vec<Value> {
        let versions = self.reader.as_ref().map(|reader| reader.versions().borrow().clone()).unwrap_or_default();
        let live = versions.iter().filter(|record| record.state != VersionState::Retired);
        let registered = |record: &VersionRecord| {
            json!({ "model": record.model, "version_id": record.id.0, "definition_hash": record.definition_hash,
                    "state": record.state, "version": author_version(record), "problem": self.undeclared(record) })
        };
        let Some(projector) = projector else { return live.map(registered).collect() };
        let with_version = |model: &projector::ModelStatus| {
            let record = versions.iter().find(|record| record.id.0 == model.version_id);
            let mut json = serde_json::to_value(model).unwrap_or_default();
            json["version"] = json!(record.and_then(author_version));
            json
        };
        let is_own = |record: &VersionRecord| projector.models.iter().any(|model| model.version_id == record.id.0);
        let left = live.filter(|record| !is_own(record) && self.undeclared(record).is_some());
        projector.models.iter().map(with_version).chain(left.map(registered)).collect()
    }

    /// What is to be said of a version of a model that no file of this process declares. Nothing where it has no model files
    /// at all: who serves needs none.
    fn undeclared(&self, record: &VersionRecord) -> Option<String> {
        let (model, models) = (&record.model, self.models.lock());
        let is_declared = models.is_empty() || models.iter().any(|file| file.model.name == *model);
        (self.roles.serve && !is_declared).then(|| {
            format!(
                "no model file of this process declares it: where it is new, read the files again (SIGHUP); where its \
                 projector has gone, it is served as it was then, and consistency tokens wait for it, until `headwater \
                 retire --model {model}`"
            )
        })
    }

    /// Says so in the log, too. A projector that runs here may be about to retire its own.
    pub(crate) fn tell_undeclared(&self) {
        let Some(reader) = self.reader.as_ref().filter(|_| self.projector.is_none()) else { return };
        let versions = reader.versions().borrow().clone();
        for record in versions.iter().filter(|record| record.state != VersionState::Retired) {
            if let Some(problem) = self.undeclared(record) {
                tracing::warn!(model = record.model, problem, "a model is served that is not declared");
            }
        }
    }

    /// Says in the log which models rules and channels name that are neither declared nor in the store. Who has files of
    /// all models is told by the check of the configuration.
    pub(crate) fn tell_unknown_rules(&self) {
        let Some(reader) = self.reader.as_ref().filter(|_| self.roles == Roles::SERVE) else { return };
        let (versions, models) = (reader.versions().borrow().clone(), self.models.lock());
        let registered = versions.iter().filter(|record| record.state != VersionState::Retired).map(|it| &*it.model);
        let known: BTreeSet<&str> = registered.chain(models.iter().map(|file| &*file.model.name)).collect();
        for model in self.configuration.settings.api.models_named().difference(&known) {
            tracing::warn!(
                model,
                help = suggestion(model, known.iter().copied()),
                "`api.access` or `api.channels` names a model that nobody has built yet"
            );
        }
    }

    /// The projector, or where to find it.
    fn here(&self) -> Result<&ProjectorHandle, AdminError> {
        let why = "no projector runs in this process: ask one that has the role `project`, with --admin";
        self.projector.as_ref().ok_or_else(|| AdminError::conflict("no_projector", why))
    }

    /// Where a replay of `model` is to begin; `from` as people write it.
    fn place(&self, model: &str, from: &str) -> Result<ReplayFrom, AdminError> {
        let models = self.models.lock();
        let Some(file) = models.iter().find(|file| file.model.name == model) else {
            let help = suggestion(model, models.iter().map(|file| file.model.name.as_str()));
            return Err(AdminError::not_found("unknown_model", format!("there is no model `{model}`; {help}")));
        };
        let prefix = &self.configuration.settings.prefix.value;
        let topics: Vec<String> = file.model.tables().iter().map(|table| table.topic(prefix)).collect();
        parse_place(from, &topics).map_err(|why| AdminError::invalid("invalid_place", why))
    }

    /// Reads the model files again. A file with mistakes is refused; the model it held runs on as it was. Where files
    /// cannot even be listed, nothing is changed: models that only seem to be gone must not be retired.
    pub(crate) async fn read_again(&self) -> Result<Reloaded, AdminError> {
        let _alone = self.reading_again.lock().await;
        let read = self.configuration.read_models();
        let unknown: Vec<Diagnostic> = read.unlisted.into_iter().chain(read.unmet).collect();
        // Who only serves retires nothing, and needs no files.
        if !unknown.is_empty() && self.roles != Roles::SERVE {
            return Err(AdminError::conflict("models_not_listed", not_listed(&unknown)));
        }
        let mut diagnostics = read.diagnostics;
        let catalogs = Catalogs::ask(&self.configuration.connectors).await;
        let mut accepted: Vec<ModelFile> = Vec::new();
        for file in read.models {
            let wrong = catalogs.check(std::slice::from_ref(&file));
            match wrong.is_empty() {
                true => accepted.push(file),
                false => diagnostics.extend(wrong),
            }
        }
        // A refused file may be meant for any model that is missing now: it may have been renamed.
        if !diagnostics.is_empty() {
            for old in self.models.lock().iter() {
                if accepted.iter().all(|file| file.model.name != old.model.name) {
                    accepted.push(old.clone());
                }
            }
        }
        accepted.sort_by(|a, b| a.file.cmp(&b.file));
        // Nobody may have asked until now whether what was declared before is served.
        self.lets_readers_in().ok();
        let definitions = accepted.iter().map(|file| file.model.clone()).collect();
        if let Some(projector) = &self.projector {
            projector.reload(definitions).await.map_err(refusal)?;
        }
        let models: Vec<String> = accepted.iter().map(|file| file.model.name.clone()).collect();
        *self.models.lock() = accepted;
        for diagnostic in &diagnostics {
            tracing::error!("a model file was refused, the others run on\n{diagnostic}");
        }
        tracing::info!(models = models.join(", "), "the models were read again");
        self.tell_undeclared();
        Ok(Reloaded { models, diagnostics })
    }
}

/// Whether one of the declared models can be served.
pub(crate) fn serves_any(declared: &[ModelFile], versions: &[VersionRecord]) -> bool {
    let mut active = versions.iter().filter(|version| version.state == VersionState::Active);
    active.any(|version| declared.iter().any(|file| file.model.name == version.model))
}

#[async_trait]
impl Admin for Control {
    fn ready(&self) -> Result<(), String> {
        self.readiness()
    }

    async fn status(&self) -> Value {
        self.overview()
    }

    async fn replay(&self, request: Value) -> Result<Value, AdminError> {
        let request: ReplayRequest = parse(request)?;
        let from = self.place(&request.model, &request.from)?;
        let version = self.here()?.replay(&request.model, from).await.map_err(refusal)?;
        Ok(json!({ "model": request.model, "version_id": version }))
    }

    async fn dead_letters(&self, limit: usize) -> Result<Value, AdminError> {
        let letters = self.here()?.list_dead_letters(limit).await.map_err(refusal)?;
        Ok(json!({ "dead_letters": letters }))
    }

    async fn retry_dead_letters(&self, request: Value) -> Result<Value, AdminError> {
        let request: RetryRequest = parse(request)?;
        let outcome = self.here()?.retry_dead_letters(request.offset.map(|offset| vec![offset])).await;
        Ok(json!(outcome.map_err(refusal)?))
    }

    async fn reload(&self) -> Result<Value, AdminError> {
        let Reloaded { models, diagnostics } = self.read_again().await?;
        let diagnostics: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        Ok(json!({ "models": models, "refused": diagnostics }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    model: String,
    #[serde(default = "earliest")]
    from: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    offset: Option<u64>,
}

fn earliest() -> String {
    "earliest".into()
}

fn parse<T: DeserializeOwned>(request: Value) -> Result<T, AdminError> {
    serde_json::from_value(request).map_err(|error| AdminError::invalid("invalid_request", error.to_string()))
}

/// What the projector answers, for who asked.
fn refusal(error: projector::Error) -> AdminError {
    let text = chain(&error);
    match (&error, error.kind()) {
        (projector::Error::UnknownModel { .. }, _) => AdminError::not_found("unknown_model", text),
        (projector::Error::RebuildRunning { .. }, _) => AdminError::conflict("rebuild_running", text),
        (_, ErrorKind::Poison) => AdminError::invalid("refused", text),
        _ => AdminError::failed("failed", text),
    }
}

/// Why a reload was refused as a whole.
fn not_listed(wrong: &[Diagnostic]) -> String {
    let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    format!("the models run on as they were, because their files cannot be listed\n{}", texts.join("\n"))
}

/// The number its author gave a version, where its documents are known.
fn author_version(record: &VersionRecord) -> Option<u32> {
    record.shape.as_ref().map(|shape| shape.version)
}

/// Where a replay is to begin, as people write it.
fn parse_place(text: &str, topics: &[String]) -> Result<ReplayFrom, String> {
    if text == "earliest" {
        return Ok(ReplayFrom::Earliest);
    }
    if let Ok(offset) = text.parse::<u64>() {
        return Ok(ReplayFrom::Offsets(topics.iter().map(|topic| (topic.clone(), offset)).collect()));
    }
    if text.contains('=') {
        let parsed = text.split(',').map(|part| {
            let (topic, offset) = part.split_once('=')?;
            Some((topic.trim().to_string(), offset.trim().parse::<u64>().ok()?))
        });
        if let Some(offsets) = parsed.collect::<Option<_>>() {
            return Ok(ReplayFrom::Offsets(offsets));
        }
    }
    if let Some(micros) = temporal::parse_timestamp_tz(text) {
        return Ok(ReplayFrom::Timestamp(micros.div_euclid(1000)));
    }
    Err(format!(
        "`{text}` is no place to replay from; write `earliest`, an offset, `topic=offset,…`, or a time like \
         2026-11-23T08:00:00Z"
    ))
}

/// Microseconds since 1970-01-01T00:00:00Z.
fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_replay() {
        let topics = ["a.b".to_string(), "a.c".to_string()];
        let parse = |text: &str| parse_place(text, &topics);
        assert_eq!(parse("earliest"), Ok(ReplayFrom::Earliest));
        let all = ReplayFrom::Offsets([("a.b".to_string(), 7), ("a.c".to_string(), 7)].into());
        assert_eq!(parse("7"), Ok(all));
        assert_eq!(parse("a.b=3"), Ok(ReplayFrom::Offsets([("a.b".to_string(), 3)].into())));
        assert_eq!(parse("2026-11-23T08:00:00Z"), Ok(ReplayFrom::Timestamp(1_795_420_800_000)));
        assert!(parse("yesterday").unwrap_err().contains("earliest"));
        assert!(parse("a=b").is_err());
    }
}
