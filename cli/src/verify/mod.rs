//! Whether what is served is what the source's tables say.
//!
//! A round reads the tables in one snapshot and computes the documents by the naive evaluator; meanwhile it looks at the
//! served documents again and again, until the projector has passed the snapshot and every document was seen at least
//! once after that. A document is right when it was seen as it should be in that time. What was not is looked at again in
//! the next round: a document that the sources keep changing is right sooner or later, a wrong one never.

mod compare;
mod expected;
mod served;
pub(crate) mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use headwater_connectors::ConnectorConfig;
use headwater_schemas::model::definition::ReadModel;
use serde::Serialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::compare::{Difference, Seen, compare};
use self::expected::Expected;
use crate::client::Client;
use crate::failure::Failure;
use crate::report::items;

const ROUNDS_MAX: u32 = 10;
/// Pause between two looks at the documents in question.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What to compare with what.
#[derive(Clone, Debug)]
pub(crate) struct VerifyOptions {
    /// The sources of the models' tables.
    pub(crate) connectors: Vec<ConnectorConfig>,
    /// How many documents of a model, where not all.
    pub(crate) sample: Option<u64>,
    /// How long to wait for the projector.
    pub(crate) wait: Duration,
}

/// The outcome for one model.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelReport {
    /// The model.
    pub(crate) model: String,
    /// Documents compared.
    pub(crate) compared: u64,
    /// Documents that the projector gave up on, as the evaluator does: they are dead letters, not differences.
    pub(crate) dead_letters: u64,
    /// Rows of the source whose key cannot be represented, and so are in no document: not equal, whatever is served.
    pub(crate) unrepresentable: u64,
    /// Snapshots it took.
    pub(crate) rounds: u32,
    /// Differences by root.
    #[serde(serialize_with = "as_texts")]
    pub(crate) differences: BTreeMap<String, Difference>,
}

/// Compares one model.
pub(crate) async fn verify(
    model: &ReadModel,
    options: &VerifyOptions,
    api: &Client,
    admin: &Client,
) -> Result<ModelReport, Failure> {
    let mut report = ModelReport {
        model: model.name.clone(),
        compared: 0,
        dead_letters: 0,
        unrepresentable: 0,
        rounds: 0,
        differences: BTreeMap::new(),
    };
    let mut in_question: Option<BTreeSet<String>> = None;
    // Whether documents that do not show their key were too many: they can only be found again in the whole list.
    let mut unnamed = false;
    loop {
        report.rounds += 1;
        let whole = options.sample.is_none() && (report.rounds == 1 || unnamed);
        // From the second round on there are few, and they are watched all the while.
        let watch = in_question.clone().map(|ids| Watch::start(api, &model.name, ids));
        let expected = Expected::read(model, options, in_question.as_ref().filter(|_| !whole)).await?;
        wait_until_passed(admin, &model.name, &expected.positions, options.wait).await?;
        let ids = in_question.take().unwrap_or_else(|| expected.ids(options.sample));
        let mut seen = match watch {
            Some(watch) => watch.end().await?,
            None => Seen::new(),
        };
        let (client, name, looked_at) = (api.clone(), model.name.clone(), ids.clone());
        let (looked, listed) = blocking(move || {
            served::look(&client, &name, &looked_at, &mut seen)?;
            let listed = if whole { served::list_all(&client, &name)? } else { Vec::new() };
            Ok((seen, listed))
        })
        .await?;
        report.unrepresentable = expected.unrepresentable;
        if report.rounds == 1 {
            report.compared = ids.len() as u64;
            report.dead_letters = expected.poisoned;
        }
        let mut differences = BTreeMap::new();
        for id in ids {
            let none = BTreeSet::new();
            if expected.is_poisoned(&id) {
                continue;
            }
            if let Some(difference) = compare(&expected.body(&id), looked.get(&id).unwrap_or(&none)) {
                differences.insert(id, difference);
            }
        }
        unnamed = false;
        for body in expected.unknown(&listed, &looked) {
            unnamed |= !expected.shows_keys();
            differences.insert(expected.id_of(body), Difference::Extra);
        }
        // Something that is wrong in the same way twice will not become right by waiting.
        let settled = report.rounds > 1 && differences == report.differences && !has_changing(&differences);
        report.differences = differences;
        if report.differences.is_empty() || settled || report.rounds == ROUNDS_MAX {
            return Ok(report);
        }
        let named = report.differences.iter().filter(|(_, difference)| !unnamed || **difference != Difference::Extra);
        in_question = Some(named.map(|(id, _)| id.clone()).collect());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn has_changing(differences: &BTreeMap<String, Difference>) -> bool {
    differences.values().any(|difference| *difference == Difference::Changing)
}

/// Waits until the projector has passed every position. Of a model that it has a problem with nothing is compared: what is
/// served is as old as that.
async fn wait_until_passed(
    admin: &Client,
    model: &str,
    positions: &BTreeMap<String, u64>,
    patience: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    loop {
        let client = admin.clone();
        let status = blocking(move || client.json("/status")).await?;
        let versions = items(&status, "models").filter(|version| version["model"] == model);
        if let Some(problem) = versions.filter_map(|version| version["problem"].as_str()).next() {
            return Err(Failure::new(format_args!("{model} was not compared: {problem}")).with_status(2));
        }
        let frontier = |source: &str| -> Option<u64> {
            let sources = status["sources"].as_array()?;
            let found = sources.iter().find(|one| one["source"] == source)?;
            let position = found["frontier"]["position"].as_str()?;
            Some(headwater_schemas::SourcePosition::parse(position)?.commit)
        };
        let behind = positions.iter().find(|(source, position)| frontier(source).is_none_or(|at| at < **position));
        let Some((source, position)) = behind else { return Ok(()) };
        if Instant::now() > deadline {
            let at = frontier(source).map_or("nowhere yet".to_string(), |at| format!("at {at:X}"));
            return Err(Failure::new(format_args!(
                "the projector has not passed position {position:X} of `{source}` within {} s: it is {at}; see \
                 `headwater status`, or wait longer with --wait",
                patience.as_secs()
            ))
            .with_status(2));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at documents again and again, and keeps every state it saw.
struct Watch {
    /// Ends it also when the comparison is given up: the runtime waits for threads.
    end: DropGuard,
    task: tokio::task::JoinHandle<Result<Seen, Failure>>,
}

impl Watch {
    fn start(api: &Client, model: &str, ids: BTreeSet<String>) -> Self {
        let end = CancellationToken::new();
        let (api, model, ended) = (api.clone(), model.to_string(), end.clone());
        let task = tokio::task::spawn_blocking(move || {
            let mut seen = Seen::new();
            while !ended.is_cancelled() {
                served::look(&api, &model, &ids, &mut seen)?;
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(seen)
        });
        Self { end: end.drop_guard(), task }
    }

    async fn end(self) -> Result<Seen, Failure> {
        drop(self.end);
        self.task.await.unwrap_or_else(|error| Err(Failure::caused("the comparison broke", &error)))
    }
}

/// Runs something that waits for the network on a thread that may wait. What fails could not be compared.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::caused("the comparison broke", &error)))
        .map_err(|failure| failure.with_status(2))
}

fn as_texts<S: serde::Serializer>(differences: &BTreeMap<String, Difference>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(differences.iter().map(|(id, difference)| (id, difference.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::answering;

    #[test]
    fn a_watch_that_nobody_waits_for_ends() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (api, _) = answering(&[]);
            runtime.block_on(async {
                let watch = Watch::start(&api, "customer", BTreeSet::new());
                // It has begun, and then the comparison fails.
                std::thread::sleep(Duration::from_millis(100));
                drop(watch);
            });
            // Waits for what runs on threads.
            drop(runtime);
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(30)).expect("the watch ends");
    }
}
