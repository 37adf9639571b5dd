//! Who waits for which document or list. One task hears all changes and wakes only those who wait for one of them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_store::{Document, DocumentChange, DocumentReader, VersionId};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::api::DOCUMENTS_BYTES_MAX;
use crate::query::FirstPage;

type Key = (VersionId, Bytes);

/// Documents read at once to find the lists they are on.
const READ_MAX: usize = 256;
/// Changes of one message that are looked into one by one. Beyond, every list of the version reads again: that is less.
const LOOKED_INTO_MAX: usize = 4096;
/// Times a list is held against a document for one message. Beyond, all of them read again, side by side: everybody's
/// changes wait for the one task that looks.
const LOOKS_MAX: usize = 1 << 18;
/// Looks between which others get their turn.
const LOOKS_AT_ONCE: usize = 256;
/// Bytes of a document that take as long as one look, about.
const LOOK_BYTES: usize = 4096;

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

impl Interest for FirstPage {
    fn concerns(&self, id: &[u8], document: Option<&Document>) -> bool {
        FirstPage::concerns(self, id, document)
    }
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
            if ids.len() > LOOKED_INTO_MAX || ids.len().saturating_mul(self.waiting(version).len()) > LOOKS_MAX {
                self.wake_all(version);
                continue;
            }
            for ids in ids.chunks(READ_MAX) {
                match reader.get_many(version, ids, DOCUMENTS_BYTES_MAX).await {
                    Ok(Some(found)) => self.wake(version, ids, &found).await,
                    // They read again, and see for themselves.
                    Ok(None) | Err(_) => self.wake_all(version),
                }
            }
        }
    }

    /// Wakes the lists that one of these documents concerns. A list that comes meanwhile reads what there is.
    async fn wake(&self, version: VersionId, ids: &[Vec<u8>], found: &[Option<Document>]) {
        let mut looks = 0;
        for one in self.waiting(version) {
            for (id, document) in ids.iter().zip(found) {
                if looks >= LOOKS_AT_ONCE {
                    looks = 0;
                    yield_now().await;
                }
                looks += 1 + document.as_ref().map_or(0, |document| document.body.len() / LOOK_BYTES);
                if one.interest.concerns(id, document.as_ref()) {
                    one.changed.notify_one();
                    break;
                }
            }
        }
    }

    fn wake_all(&self, version: VersionId) {
        for one in self.waiting(version) {
            one.changed.notify_one();
        }
    }

    fn waiting(&self, version: VersionId) -> Vec<Arc<Waiting>> {
        self.lists.lock().get(&version).cloned().unwrap_or_default()
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
    fn changes_of(count: usize) -> Vec<DocumentChange> {
        let change = |n: usize| DocumentChange { version: VersionId(1), id: n.to_string().into(), stamp: Some(1) };
        (0..count).map(change).collect()
    }

    fn is_woken(list: &ListListener) -> bool {
        use futures_util::FutureExt;
        list.changed().now_or_never().is_some()
    }

    #[tokio::test]
    async fn many_lists_leave_others_their_turn_and_more_read_again_by_themselves() {
        let folder = tempfile::tempdir().expect("a folder");
        let reader: Arc<dyn DocumentReader> =
            EmbeddedStore::open(EmbeddedOptions::new(folder.path())).expect("a store");
        let listeners = Arc::new(Listeners::default());
        let list = |of| listeners.listen_to_list(VersionId(1), Arc::new(Only(of)));
        let lists: Vec<ListListener> = (0..100).map(|n| list(if n == 99 { &b"19"[..] } else { b"none" })).collect();
        let few = changes_of(20);
        let mut looked = std::pin::pin!(listeners.lists_changed(&few, &*reader));
        let mut turns = 0;
        while futures_util::poll!(looked.as_mut()).is_pending() {
            turns += 1;
        }
        assert!(turns >= lists.len() * few.len() / LOOKS_AT_ONCE, "{turns} turns");
        assert!(is_woken(&lists[99]) && !lists[..99].iter().any(is_woken));
        let many = changes_of(LOOKS_MAX / lists.len() + 1);
        assert!(many.len() < LOOKED_INTO_MAX);
        listeners.lists_changed(&many, &*reader).await;
        assert!(lists.iter().all(is_woken), "what is too much to look into wakes all");
    }
}
