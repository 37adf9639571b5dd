//! What a worker tells about itself, and what it does when asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schemas::{DeadLetter, Payload};
use headwater_store::{VersionId, VersionState};
use tokio::sync::oneshot;

use super::applying::records;
use super::runtime::Worker;
use super::share::apply_group;
use crate::dead_letters::{self, ListedLetter, Pages, RetryOutcome};
use crate::handle::Command;
use crate::keys::KeySet;
use crate::observer::Observation;
use crate::resolved::Resolved;
use crate::rounds;
use crate::status::{ConsumerStatus, ModelState, ModelStatus, Phase, Progress};
use crate::{Error, ErrorKind, ReplayFrom};

/// How long what is asked is tried, and the pause between.
const ASKED_MAX: Duration = Duration::from_secs(2);
const ASKED_PAUSE: Duration = Duration::from_millis(20);

/// A rebuild that was asked for, until somebody has begun it.
pub(super) struct Asked {
    model: String,
    /// The newest version of before.
    newest: VersionId,
    answer: oneshot::Sender<Result<u32, Error>>,
}

impl Worker {
    /// Makes the status anew.
    pub(super) fn tell(&mut self, observed: Observation) -> Result<(), Error> {
        let Observation { ends, letters, .. } = observed;
        let apply_group = apply_group(&self.options.prefix, &self.options.name);
        let mut consumers = ConsumerStatus::all(&apply_group, self.source_next.iter(), &ends, &mut self.times);
        let build_group = self.share.build_group();
        consumers.extend(ConsumerStatus::all(build_group, self.dirty_built.iter(), &ends, &mut self.times));
        let behind: u64 = consumers.iter().map(|one| one.lag).sum();
        let models = self.models()?;
        // Another worker may have resolved some.
        let resolved = self.share.resolved()?;
        let unresolved = {
            let mut known = self.shared.resolved.lock();
            known.extend(&resolved);
            letters.unresolved(&known)
        };
        self.metrics.lag_records.set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.shared.look(models, consumers, unresolved);
        self.answer_begun();
        Ok(())
    }

    fn models(&mut self) -> Result<Vec<ModelStatus>, Error> {
        let versions = self.share.versions()?;
        let mut models = Vec::with_capacity(versions.len());
        for version in versions {
            let active = version.state == VersionState::Active;
            // Only the leader knows how far it has scanned.
            let progress = (!active).then(|| match version.follow {
                false => Progress::new(Phase::Waiting, 0, 0, 0, 0.0),
                true => Progress::new(Phase::Building, version.scanned, version.rows, 0, 0.0),
            });
            models.push(ModelStatus {
                model: version.model,
                version_id: version.id.0,
                definition_hash: version.definition_hash,
                state: if active { ModelState::Active } else { ModelState::Building },
                documents: version.documents,
                progress,
                problem: version.problem,
                // It reads rows alone.
                replay_missed: 0,
                freshness: None,
            });
        }
        models.sort_by(|a, b| (&a.model, a.version_id).cmp(&(&b.model, b.version_id)));
        Ok(models)
    }

    /// Does what was asked.
    pub(super) fn obey(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Reload { models, answer } => {
                let declared = self.patiently(|worker| worker.share.declare(models.clone()));
                rounds::answer(answer, declared)
            }
            Command::Replay { model, from: ReplayFrom::Earliest, answer } => {
                match self.patiently(|worker| worker.share.ask_rebuild(&model)) {
                    Ok(newest) => {
                        self.asked.push(Asked { model, newest, answer });
                        Ok(())
                    }
                    refused => rounds::answer(answer, refused.map(|id| id.0)),
                }
            }
            Command::Replay { answer, .. } => {
                let why = "projectors that share their rows rebuild a model from the rows, which hold every event of the \
                           topics; say `earliest`, or nothing";
                rounds::answer(answer, Err(Error::ReplayFrom { why: why.into() }))
            }
            Command::Retry { offsets, answer } => {
                let done = self.retry(offsets.as_deref());
                rounds::answer(answer, done)
            }
        }
    }

    /// Does something again where it failed in a way that may pass, for a moment: who asks need not know that another worker
    /// wrote in the same instant.
    fn patiently<T>(&mut self, mut step: impl FnMut(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let began = Instant::now();
        loop {
            match step(self) {
                Err(error) if error.kind() == ErrorKind::Retryable && began.elapsed() < ASKED_MAX => {
                    std::thread::sleep(ASKED_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Tells those who asked for rebuilds that have begun, as the status shows, where they look for them next.
    fn answer_begun(&mut self) {
        let status = self.shared.status.lock();
        for one in std::mem::take(&mut self.asked) {
            let begun = |known: &&ModelStatus| known.model == one.model && known.version_id > one.newest.0;
            match status.models.iter().find(begun) {
                Some(begun) => drop(one.answer.send(Ok(begun.version_id))),
                None if one.answer.is_closed() => {}
                None => self.asked.push(one),
            }
        }
    }

    /// Calls the roots of dead letters dirty again. That is in the log before the letters are resolved, and a document
    /// that fails again makes a new one. Records are not read a second time: the place of each is passed for good.
    fn retry(&mut self, offsets: Option<&[u64]>) -> Result<RetryOutcome, Error> {
        let mut pages = self.runtime.block_on(Pages::of_all(&*self.log, &self.options.prefix))?;
        let mut outcome = RetryOutcome::default();
        while let Some(letters) = self.runtime.block_on(pages.next(&*self.log, &Resolved::default()))? {
            self.retry_some(letters, offsets, &mut outcome)?;
        }
        self.patiently(|worker| worker.share.weigh_again())?;
        Ok(outcome)
    }

    fn retry_some(
        &mut self,
        letters: Vec<ListedLetter>,
        offsets: Option<&[u64]>,
        outcome: &mut RetryOutcome,
    ) -> Result<(), Error> {
        // Looked at after the letters: a version that one of them is about is known by then.
        let resolved = self.patiently(|worker| worker.share.resolved())?;
        let mut done = Vec::new();
        let mut dirty: BTreeMap<String, (KeySet, u64)> = BTreeMap::new();
        for ListedLetter { offset, letter } in letters {
            if resolved.contains(offset) || offsets.is_some_and(|offsets| !offsets.contains(&offset)) {
                continue;
            }
            let Some((root, model)) = root_of(&letter) else {
                outcome.skip(&letter);
                continue;
            };
            if !self.share.has(model) {
                outcome.leave(offsets.is_some(), offset, &mut done);
                continue;
            }
            let (roots, count) = dirty.entry(model.to_string()).or_default();
            roots.push(&root);
            *count += 1;
            done.push(offset);
        }
        for (model, (roots, count)) in dirty {
            let mut batches = Vec::new();
            for sharing in self.share.sharings(&model) {
                records(&sharing, roots.clone(), 0, &mut batches);
            }
            outcome.retried += count;
            // One that is new is built of every root.
            match batches.is_empty() {
                true => outcome.resolved += count,
                false => outcome.queued += count,
            }
            self.append(batches)?;
        }
        if done.is_empty() {
            return Ok(());
        }
        let first_left = self.runtime.block_on(dead_letters::first_left(&*self.log, &self.options.prefix));
        let resolved = self.patiently(|worker| worker.share.note(|batch| Resolved::mark(batch, &done, first_left)))?;
        self.shared.resolved.lock().extend(&resolved);
        Ok(())
    }
}

/// The root whose document a letter is about, and its model.
fn root_of(letter: &DeadLetter) -> Option<(Vec<u8>, &str)> {
    match (&letter.payload, &letter.model) {
        (Payload::Root(root), Some(model)) => Some((STANDARD.decode(root).ok()?, model.as_str())),
        _ => None,
    }
}
