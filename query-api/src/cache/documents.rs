//! What is kept, and when it is not.
//!
//! Entries are named by version and id and never by who asked; whose a document is is checked with each read, by the bytes
//! themselves. Whoever finds nothing takes the entry's place, reads the store and fills it in; others wait for that. A
//! change empties the entry *and* takes away the place of whoever is reading: what it read may be older than the change,
//! so it is answered to those who asked before the change was heard, and not kept. Whoever comes later takes a place of
//! their own and reads the store anew. So no stamps need be compared, and nothing be remembered of documents that are not
//! kept.
//!
//! Compressed bytes lie beside the document under the same bound. They name the stamp of the document they were made of,
//! which identifies its bytes: they need not be told of changes.

use bytes::Bytes;
use headwater_store::{Document, DocumentChange, VersionId};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter};
use smallvec::SmallVec;

/// Bytes an entry takes beside its document and id, about.
const ENTRY_BYTES: usize = 160;
/// Size of a document and its entry, about: so many entries are made room for.
const DOCUMENT_BYTES: u64 = 2048;

/// Documents kept at hand, up to a number of bytes.
pub(crate) struct DocumentCache {
    entries: Cache<Key, Kept, Weight, DefaultHashBuilder, Evictions>,
    metrics: CacheMetrics,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    version: VersionId,
    compressed: bool,
    id: Id,
}

/// The id lies in the key itself where it is short, as most are: comparing it looks at no other place of the memory.
type Id = SmallVec<[u8; 24]>;

/// A key that owns nothing: looking for an entry takes no memory.
#[derive(Hash)]
struct KeyRef<'k> {
    version: VersionId,
    compressed: bool,
    id: &'k [u8],
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.version == key.version && self.compressed == key.compressed && *self.id == *key.id
    }
}

#[derive(Clone, Debug)]
enum Kept {
    /// A document; `None` only until those who waited for it were answered.
    Document(Option<Document>),
    /// The compressed bytes of the document with this stamp.
    Compressed { stamp: u64, bytes: Bytes },
}

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Key, Kept> for Weight {
    fn weight(&self, key: &Key, kept: &Kept) -> u64 {
        let bytes = match kept {
            Kept::Document(document) => document.as_ref().map_or(0, |document| document.body.len()),
            Kept::Compressed { bytes, .. } => bytes.len(),
        };
        (ENTRY_BYTES + key.id.len() + bytes) as u64
    }
}

/// Counts what has to go to make room.
#[derive(Clone, Debug)]
struct Evictions(Counter);

impl Lifecycle<Key, Kept> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Key, _: Kept) {
        self.0.inc();
    }
}

/// What the cache counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheMetrics {
    hits: Counter,
    misses: Counter,
    evictions: Counter,
    changes: Counter,
    losses: Counter,
    bytes: Gauge,
}

impl CacheMetrics {
    /// Registers them under `headwater_api_cache_…`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let cache = registry.sub_registry_with_prefix("headwater_api_cache");
        cache.register("hits", "Documents that were at hand", self.hits.clone());
        cache.register("misses", "Documents that were read from the store", self.misses.clone());
        cache.register("evictions", "Entries that went to make room", self.evictions.clone());
        cache.register("invalidations", "Changed documents that were heard of", self.changes.clone());
        cache.register("clearings", "Times everything was forgotten, because changes were missed", self.losses.clone());
        cache.register_with_unit("size", "What is kept", Unit::Bytes, self.bytes.clone());
    }
}

impl DocumentCache {
    /// An empty cache of at most `bytes_max`.
    pub(crate) fn new(bytes_max: u64, metrics: CacheMetrics) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / DOCUMENT_BYTES).clamp(1, 1 << 20) as usize)
            .build()
            .expect("both capacities are given");
        let evictions = Evictions(metrics.evictions.clone());
        let entries = Cache::with_options(options, Weight, DefaultHashBuilder::default(), evictions);
        Self { entries, metrics }
    }

    /// A document that is kept.
    pub(crate) fn get(&self, version: VersionId, id: &[u8]) -> Option<Document> {
        match self.entries.get(&KeyRef { version, compressed: false, id }) {
            Some(Kept::Document(Some(document))) => {
                self.metrics.hits.inc();
                Some(document)
            }
            _ => None,
        }
    }

    /// Reads a document by `read`, or waits for another who does, and keeps it unless it changes meanwhile. One that is
    /// kept already is read all the same.
    pub(crate) async fn fetch<E>(
        &self,
        version: VersionId,
        id: &[u8],
        read: impl Future<Output = Result<Option<Document>, E>>,
    ) -> Result<Option<Document>, E> {
        if self.entries.contains_key(&KeyRef { version, compressed: false, id }) {
            self.metrics.misses.inc();
            return read.await;
        }
        let key = Key { version, compressed: false, id: id.into() };
        let place = match self.entries.get_value_or_guard_async(&key).await {
            Err(place) => place,
            Ok(Kept::Document(document)) => {
                self.metrics.hits.inc();
                return Ok(document);
            }
            Ok(Kept::Compressed { .. }) => return read.await,
        };
        self.metrics.misses.inc();
        let document = read.await?;
        // An error says that the place was taken away.
        let kept = place.insert(Kept::Document(document.clone())).is_ok();
        if kept && document.is_none() {
            // What is not there is asked of the store each time: else ids could be told apart by how long they take.
            self.entries
                .remove_if(&KeyRef { version, compressed: false, id }, |kept| matches!(kept, Kept::Document(None)));
        }
        self.measure();
        Ok(document)
    }

    /// The compressed body of the document with this stamp, made by `compress` once for all who wait for it.
    pub(crate) async fn compressed<E>(
        &self,
        (version, id, stamp): (VersionId, &[u8], u64),
        compress: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Bytes, E> {
        let of_stamp = |kept: Kept| match kept {
            Kept::Compressed { stamp: of, bytes } if of == stamp => Some(bytes),
            _ => None,
        };
        if let Some(bytes) = self.entries.get(&KeyRef { version, compressed: true, id }).and_then(of_stamp) {
            return Ok(bytes);
        }
        let key = Key { version, compressed: true, id: id.into() };
        let bytes = match self.entries.get_value_or_guard_async(&key).await {
            Err(place) => {
                let bytes = compress.await?;
                // No matter whether it can be kept.
                let _ = place.insert(Kept::Compressed { stamp, bytes: bytes.clone() });
                bytes
            }
            Ok(kept) => match of_stamp(kept) {
                Some(bytes) => return Ok(bytes),
                None => {
                    let bytes = compress.await?;
                    self.entries.insert(key, Kept::Compressed { stamp, bytes: bytes.clone() });
                    bytes
                }
            },
        };
        self.measure();
        Ok(bytes)
    }

    /// Documents changed. None named: which ones is not known.
    pub(crate) fn changed(&self, changes: &[DocumentChange]) {
        if changes.is_empty() {
            self.metrics.losses.inc();
            self.entries.clear();
        }
        for change in changes {
            // Whoever is reading it loses its place with it.
            self.entries.remove(&KeyRef { version: change.version, compressed: false, id: &change.id });
        }
        self.metrics.changes.inc_by(changes.len() as u64);
        self.measure();
    }

    fn measure(&self) {
        self.metrics.bytes.set(i64::try_from(self.entries.weight()).unwrap_or(i64::MAX));
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.entries.weight()
    }
}
