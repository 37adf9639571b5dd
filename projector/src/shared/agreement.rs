//! What the workers agree on: which versions there are, who reads which partition, and how far each is. Notes in the row
//! store, changed only in its transactions.

use headwater_broker::TopicPartition;
use headwater_store::{JoinIndex, RowBatch, VersionId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::held::Held;

/// Name of the note of the [`Agreement`].
const AGREEMENT: &str = "shared/agreement";

/// Everything that all workers must know alike. Its generation rises with every change of it, of the schemas, the tables
/// or the join indexes; each transaction reads it first, so that nobody works with what is outdated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    pub(crate) generation: u64,
    /// Partitions that have a [`Place`].
    pub(crate) places: Vec<(String, u32)>,
    /// Versions that are served or being built.
    pub(crate) versions: Vec<Sharing>,
    /// Models of which somebody asked for a new version, which the leader has not begun.
    #[serde(default)]
    pub(crate) asked: Vec<String>,
}

/// A version as the workers share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sharing {
    pub(crate) id: VersionId,
    /// Topic of its dirty roots.
    pub(crate) topic: String,
    /// Partitions of the topic; none until it is made.
    pub(crate) partitions: u32,
    /// Upper part of the stamps; greater in every later topic of this name.
    pub(crate) epoch: u64,
    /// Whether changes of rows are followed by now.
    pub(crate) follow: bool,
    /// Whether it is [frozen](crate::frozen): changes are followed no longer.
    #[serde(default)]
    pub(crate) frozen: bool,
    /// Why its topic could not be made when that was tried last.
    #[serde(default)]
    pub(crate) refused: Option<String>,
    /// Why it does not take over although all its roots were built.
    #[serde(default)]
    pub(crate) held: Option<Held>,
}

/// How far one partition of a source is, and who reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Rises with every claim. Who knows a lower one has been taken over.
    pub(crate) fence: u64,
    /// Rises with every write, so that two transactions that write it can never both commit, even where neither changes
    /// anything else.
    pub(crate) turn: u64,
    /// Next offset to be applied.
    pub(crate) next: u64,
    /// Everything below has been applied, and the roots it made dirty are in the log.
    pub(crate) emitted: u64,
    /// The partition under whose name the seeds lie that may not be in the log yet.
    pub(crate) home: Option<(String, u32)>,
}

impl Agreement {
    /// Whether these rows are shared by several workers, or were.
    pub(crate) fn exists(batch: &(impl RowBatch + ?Sized)) -> Result<bool, Error> {
        Ok(batch.note(AGREEMENT)?.is_some())
    }

    pub(crate) fn read(batch: &dyn RowBatch) -> Result<Self, Error> {
        Ok(read(batch, AGREEMENT)?.unwrap_or_default())
    }

    /// Stores a change.
    pub(crate) fn write(&mut self, batch: &mut dyn RowBatch) -> Result<(), Error> {
        self.generation += 1;
        write(batch, AGREEMENT, self)
    }

    /// Has it counted again what versions lack that are held: those for which this holds. To be written then.
    pub(crate) fn weigh_again(&mut self, is_meant: impl Fn(&Sharing) -> bool) {
        let meant = self.versions.iter_mut().filter(|sharing| is_meant(sharing));
        meant.for_each(|sharing| sharing.held = None);
    }

    /// Writes every place, so that no transaction that began before this one can commit after it: from here on every
    /// change of rows is made by one who knows what this transaction changed.
    pub(crate) fn touch_all(&self, batch: &mut dyn RowBatch) -> Result<(), Error> {
        for (at, place) in self.read_places(batch)? {
            place.write(batch, &at)?;
        }
        Ok(())
    }

    /// Every place.
    pub(crate) fn read_places(&self, batch: &dyn RowBatch) -> Result<Vec<(TopicPartition, Place)>, Error> {
        let at =
            |(topic, partition): &(String, u32)| TopicPartition { topic: topic.as_str().into(), partition: *partition };
        let all: Vec<TopicPartition> = self.places.iter().map(at).collect();
        let places = Place::read_all(batch, &all)?;
        Ok(all.into_iter().zip(places).filter_map(|(at, place)| Some((at, place?))).collect())
    }
}

impl Sharing {
    /// Whether the topic is there.
    pub(crate) fn is_made(&self) -> bool {
        self.partitions > 0
    }
}

impl Place {
    pub(crate) fn read(batch: &dyn RowBatch, at: &TopicPartition) -> Result<Option<Self>, Error> {
        read(batch, &place_note(at))
    }

    /// The places of these partitions, in their order.
    pub(crate) fn read_all(batch: &dyn RowBatch, all: &[TopicPartition]) -> Result<Vec<Option<Self>>, Error> {
        let names: Vec<String> = all.iter().map(place_note).collect();
        let notes = batch.notes(&names)?;
        names.iter().zip(notes).map(|(name, note)| note.map(|json| parse(name, &json)).transpose()).collect()
    }

    pub(crate) fn write(mut self, batch: &mut dyn RowBatch, at: &TopicPartition) -> Result<(), Error> {
        self.turn += 1;
        write(batch, &place_note(at), &self)
    }
}

fn place_note(at: &TopicPartition) -> String {
    format!("shared/place/{}/{}", at.partition, at.topic)
}

/// Name of the note of the seeds that lie under a partition's name.
pub(crate) fn pending_note(topic: &str, partition: u32) -> String {
    format!("shared/pending/{partition}/{topic}")
}

/// Name of the note that holds how far the scan of a building version is.
pub(crate) fn scan_note(version: VersionId) -> String {
    format!("shared/scan/{}", version.0)
}

/// Name of the note that holds how far a join index is filled.
pub(crate) fn index_note(index: &JoinIndex) -> String {
    format!("shared/index/{}/{}", index.table, index.columns.join(","))
}

fn read<T: DeserializeOwned>(batch: &dyn RowBatch, name: &str) -> Result<Option<T>, Error> {
    batch.note(name)?.map(|json| parse(name, &json)).transpose()
}

fn parse<T: DeserializeOwned>(name: &str, json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|_| Error::Note { note: name.to_string() })
}

fn write(batch: &mut dyn RowBatch, name: &str, value: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_vec(value).expect("numbers, texts and lists of them");
    Ok(batch.set_note(name, Some(&json))?)
}
