//! Topics of dirty roots, one per version. Where the log refuses one, its version waits, and nothing else does.

use std::time::{Duration, Instant};

use headwater_broker::{Error as LogError, EventLog, Retention, TopicSpec};
use headwater_store::VersionId;
use tokio::task::JoinHandle;

use super::{Leading, Surroundings};
use crate::rounds::explained;
use crate::shared::view::SharedRows;
use crate::{Error, ErrorKind};

/// Pauses between attempts to make a topic, each twice as long as the one before: who makes it by hand does not wait long.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// How far the topic of a version is.
pub(super) enum Making {
    /// The log was asked. It may take its time, in which the leader has other things to do.
    Asked(JoinHandle<Result<u32, LogError>>, Duration),
    /// It was refused, and is tried again then, and after this pause once more.
    Refused(Instant, Duration),
}

impl Leading {
    /// Goes on with the topics of versions that have none. `None`: there is nothing new of any; `false`: another one leads
    /// by now.
    pub(super) fn make_topics(
        &mut self,
        rows: &mut SharedRows,
        around: &Surroundings<'_>,
    ) -> Result<Option<bool>, Error> {
        let sharings = rows.view().versions.iter().map(|version| &version.sharing);
        let unmade: Vec<(VersionId, String)> =
            sharings.filter(|sharing| !sharing.is_made()).map(|sharing| (sharing.id, sharing.topic.clone())).collect();
        self.making.retain(|id, _| unmade.iter().any(|(unmade, _)| unmade == id));
        for (id, topic) in unmade {
            let Some(outcome) = self.make_topic(id, &topic, around)? else { continue };
            if let Err(why) = &outcome
                && rows.view().version(id).is_some_and(|version| version.sharing.refused.as_ref() == Some(why))
            {
                continue;
            }
            let told = self.write(rows, |view, batch| {
                if let Some(sharing) = view.agreement.versions.iter_mut().find(|sharing| sharing.id == id) {
                    match outcome {
                        Ok(partitions) => (sharing.partitions, sharing.refused) = (partitions, None),
                        Err(why) => sharing.refused = Some(why),
                    }
                }
                view.agreement.write(batch)
            })?;
            rows.outdate();
            return Ok(Some(told.is_some()));
        }
        Ok(None)
    }

    /// Asks for a topic where it is time, and answers with its partitions, or why it is refused, once the log has answered.
    fn make_topic(
        &mut self,
        id: VersionId,
        topic: &str,
        around: &Surroundings<'_>,
    ) -> Result<Option<Result<u32, String>>, Error> {
        let pause = match self.making.remove(&id) {
            None => PAUSES.0,
            Some(Making::Refused(again_at, pause)) if again_at <= Instant::now() => pause,
            Some(Making::Asked(asked, pause)) if asked.is_finished() => {
                let answer = around.runtime.block_on(asked).map_err(|_| Error::Panicked)?;
                let error = match answer {
                    Ok(partitions) => return Ok(Some(Ok(partitions))),
                    Err(error) => Error::Log(error),
                };
                // A name that the log cannot have is the version's affair, too.
                if error.kind() == ErrorKind::Fatal && !matches!(error, Error::Log(LogError::Refused { .. })) {
                    return Err(error);
                }
                self.making.insert(id, Making::Refused(Instant::now() + pause, (2 * pause).min(PAUSES.1)));
                let why = explained(&error);
                tracing::warn!(topic, why, again_in = ?pause, "a version waits for its topic");
                return Ok(Some(Err(why)));
            }
            Some(waits) => {
                self.making.insert(id, waits);
                return Ok(None);
            }
        };
        let (log, topic, partitions) = (around.log.clone(), topic.to_owned(), around.dirty_partitions);
        let asked = around.runtime.spawn(async move { ensure(&*log, &topic, partitions).await });
        self.making.insert(id, Making::Asked(asked, pause));
        Ok(None)
    }
}

/// Makes a topic, if it is not there; answers with its partitions.
async fn ensure(log: &dyn EventLog, topic: &str, partitions: u32) -> Result<u32, LogError> {
    // Of each root only the last record must stay: none may be lost before it is built, however long that takes.
    let retention = Retention { compact: true, ..Retention::default() };
    log.create_topics(&[TopicSpec { name: topic.into(), partitions, retention }]).await?;
    let topics = log.topics().await?;
    let found = topics.iter().find(|(name, _)| **name == *topic);
    Ok(found.map_or(partitions, |(_, partitions)| *partitions).max(1))
}
