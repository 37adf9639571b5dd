//! Who waits for which document or list. One task hears all changes and wakes only those who wait for one of them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_store::{Document, DocumentChange, DocumentReader, VersionId};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::api::DOCUMENTS_BYTES_MAX;

type Key = (VersionId, Bytes);

/// Documents read at once to find the lists they are on.
const READ_MAX: usize = 256;
/// Changes of one message that are looked into one by one. Beyond, every list of the version reads again: that is less.
const LOOKED_INTO_MAX: usize = 4096;

/// Everyone who waits.
#[derive(Default)]
pub(crate) struct Listeners {
    by_document: Mutex<HashMap<Key, watch::Sender<()>>>,
    lists: Mutex<HashMap<VersionId, Vec<Arc<Waiting>>>>,
}

/// What a list waits for.
pub(crate) trait Interest: Send + Sync {
    /// Whether a change of this document, or its deletion, may change the list.
    fn concerns(&self, id: &[u8], document: Option<&Document>) -> bool;
}

struct Waiting {
    interest: Arc<dyn Interest>,
    changed: Notify,
}

/// One who waits for a document; forgotten when dropped.
pub(crate) struct Listener {
    listeners: Arc<Listeners>,
    key: Key,
    changed: watch::Receiver<()>,
}

/// One who waits for a list; forgotten when dropped.
pub(crate) struct ListListener {
    listeners: Arc<Listeners>,
    version: VersionId,
    waiting: Arc<Waiting>,
}

impl Listeners {
    /// From now on waits for changes of a document.
    pub(crate) fn listen(self: &Arc<Self>, version: VersionId, id: Bytes) -> Listener {
        let key = (version, id);
        let mut by_document = self.by_document.lock();
        let sender = by_document.entry(key.clone()).or_insert_with(|| watch::Sender::new(()));
        Listener { listeners: self.clone(), changed: sender.subscribe(), key }
    }

    /// From now on waits for changes of what is of interest.
    pub(crate) fn listen_to_list(self: &Arc<Self>, version: VersionId, interest: Arc<dyn Interest>) -> ListListener {
        let waiting = Arc::new(Waiting { interest, changed: Notify::new() });
        self.lists.lock().entry(version).or_default().push(waiting.clone());
        ListListener { listeners: self.clone(), version, waiting }
    }

    fn changed(&self, changes: &[DocumentChange]) {
        let by_document = self.by_document.lock();
        if by_document.is_empty() {
            return;
        }
        for change in changes {
            if let Some(sender) = by_document.get(&(change.version, change.id.clone())) {
                sender.send_replace(());
            }
        }
    }

    /// Wakes the lists that one of these documents is on, was on, or may come onto.
    async fn lists_changed(&self, changes: &[DocumentChange], reader: &dyn DocumentReader) {
        let followed: Vec<VersionId> = self.lists.lock().keys().copied().collect();
        for version in followed {
            let ids: Vec<Vec<u8>> =
                changes.iter().filter(|change| change.version == version).map(|change| change.id.to_vec()).collect();
            if ids.len() > LOOKED_INTO_MAX {
                self.wake(version, |_| true);
                continue;
            }
            for ids in ids.chunks(READ_MAX) {
                match reader.get_many(version, ids, DOCUMENTS_BYTES_MAX).await {
                    Ok(Some(found)) => self.wake(version, |interest| {
                        ids.iter().zip(&found).any(|(id, document)| interest.concerns(id, document.as_ref()))
                    }),
                    // They read again, and see for themselves.
                    Ok(None) | Err(_) => self.wake(version, |_| true),
                }
            }
        }
    }

    fn wake(&self, version: VersionId, is_concerned: impl Fn(&dyn Interest) -> bool) {
        let waiting: Vec<Arc<Waiting>> = self.lists.lock().get(&version).cloned().unwrap_or_default();
        for one in waiting.iter().filter(|one| is_concerned(&*one.interest)) {
            one.changed.notify_one();
        }
    }

    fn missed(&self) {
        for sender in self.by_document.lock().values() {
            sender.send_replace(());
        }
        for waiting in self.lists.lock().values().flatten() {
            waiting.changed.notify_one();
        }
    }
}

impl Listener {
    /// Waits until the document may have changed since the last call. Cancellation-safe: what was not answered is
    /// answered by the next call. `false`: there will be no more changes.
    pub(crate) async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }
}

impl ListListener {
    /// Waits until the list may have changed since the last call. Cancellation-safe, likewise.
    pub(crate) async fn changed(&self) {
        self.waiting.changed.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut by_document = self.listeners.by_document.lock();
        // Its own receiver is still counted.
        if by_document.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            by_document.remove(&self.key);
        }
    }
}

impl Drop for ListListener {
    fn drop(&mut self) {
        let mut lists = self.listeners.lists.lock();
        if let Some(waiting) = lists.get_mut(&self.version) {
            if let Some(at) = waiting.iter().position(|one| Arc::ptr_eq(one, &self.waiting)) {
                waiting.swap_remove(at);
            }
            if waiting.is_empty() {
                lists.remove(&self.version);
            }
        }
    }
}

/// Passes changes on to those who wait for them, until `stop` is cancelled.
pub(crate) async fn dispatch(
    listeners: Arc<Listeners>,
    reader: Arc<dyn DocumentReader>,
    mut changes: broadcast::Receiver<Arc<Vec<DocumentChange>>>,
    stop: CancellationToken,
) {
    loop {
        // Receiving is cancellation-safe: a message that was not taken stays.
        let received = tokio::select! {
            received = changes.recv() => received,
            () = stop.cancelled() => return,
        };
        match received {
            // Which were missed is not known: all read again.
            Ok(changes) if changes.is_empty() => listeners.missed(),
            Err(RecvError::Lagged(_)) => listeners.missed(),
            Ok(changes) => {
                listeners.changed(&changes);
                listeners.lists_changed(&changes, &*reader).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_store::embedded::{EmbeddedOptions, EmbeddedStore};

    use super::*;

    struct Only(&'static [u8]);

    impl Interest for Only {
        fn concerns(&self, id: &[u8], _: Option<&Document>) -> bool {
            id == self.0
        }
    }

    #[tokio::test]
    async fn only_those_who_wait_are_woken() {
        let folder = tempfile::tempdir().expect("a folder");
        let reader: Arc<dyn DocumentReader> =
            EmbeddedStore::open(EmbeddedOptions::new(folder.path())).expect("a store");
        let listeners = Arc::new(Listeners::default());
        let (send, changes) = broadcast::channel(8);
        let stop = CancellationToken::new();
        let task = tokio::spawn(dispatch(listeners.clone(), reader, changes, stop.clone()));
        let id = |text: &'static str| Bytes::from_static(text.as_bytes());
        let mut one = listeners.listen(VersionId(1), id("a"));
        let mut same = listeners.listen(VersionId(1), id("a"));
        let mut other = listeners.listen(VersionId(2), id("a"));
        let list = listeners.listen_to_list(VersionId(1), Arc::new(Only(b"a")));
        let other_list = listeners.listen_to_list(VersionId(1), Arc::new(Only(b"b")));
        let change = DocumentChange { version: VersionId(1), id: id("a"), stamp: Some(1) };
        send.send(Arc::new(vec![change])).expect("heard");
        assert!(one.changed().await && same.changed().await);
        list.changed().await;
        let short = std::time::Duration::from_millis(20);
        let waited = tokio::time::timeout(short, other.changed()).await;
        assert!(waited.is_err(), "another version's document did not change");
        let waited = tokio::time::timeout(short, other_list.changed()).await;
        assert!(waited.is_err(), "no document of that list changed");
        send.send(Arc::new(Vec::new())).expect("heard");
        assert!(other.changed().await, "nobody knows what was missed");
        other_list.changed().await;
        drop((one, other, list, other_list));
        assert_eq!(listeners.by_document.lock().len(), 1);
        assert!(listeners.lists.lock().is_empty());
        drop(same);
        assert!(listeners.by_document.lock().is_empty());
        stop.cancel();
        task.await.expect("ended");
    }
}
