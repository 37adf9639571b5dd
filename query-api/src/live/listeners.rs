//! Who waits for which document. One task hears all changes and wakes only those who wait for one of them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_store::{DocumentChange, VersionId};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

type Key = (VersionId, Bytes);

/// Everyone who waits for a document.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    by_document: Mutex<HashMap<Key, watch::Sender<()>>>,
}

/// One who waits for a document; forgotten when dropped.
pub(crate) struct Listener {
    listeners: Arc<Listeners>,
    key: Key,
    changed: watch::Receiver<()>,
}

impl Listeners {
    /// From now on waits for changes of a document.
    pub(crate) fn listen(self: &Arc<Self>, version: VersionId, id: Bytes) -> Listener {
        let key = (version, id);
        let mut by_document = self.by_document.lock();
        let sender = by_document.entry(key.clone()).or_insert_with(|| watch::Sender::new(()));
        Listener { listeners: self.clone(), changed: sender.subscribe(), key }
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

    fn missed(&self) {
        for sender in self.by_document.lock().values() {
            sender.send_replace(());
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

impl Drop for Listener {
    fn drop(&mut self) {
        let mut by_document = self.listeners.by_document.lock();
        // Its own receiver is still counted.
        if by_document.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            by_document.remove(&self.key);
        }
    }
}

/// Passes changes on to those who wait for them, until `stop` is cancelled.
pub(crate) async fn dispatch(
    listeners: Arc<Listeners>,
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
            Ok(changes) => listeners.changed(&changes),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_those_who_wait_are_woken() {
        let listeners = Arc::new(Listeners::default());
        let (send, changes) = broadcast::channel(8);
        let stop = CancellationToken::new();
        let task = tokio::spawn(dispatch(listeners.clone(), changes, stop.clone()));
        let id = |text: &'static str| Bytes::from_static(text.as_bytes());
        let mut one = listeners.listen(VersionId(1), id("a"));
        let mut same = listeners.listen(VersionId(1), id("a"));
        let mut other = listeners.listen(VersionId(2), id("a"));
        let change = DocumentChange { version: VersionId(1), id: id("a"), stamp: Some(1) };
        send.send(Arc::new(vec![change])).expect("heard");
        assert!(one.changed().await && same.changed().await);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), other.changed()).await;
        assert!(waited.is_err(), "another version's document did not change");
        drop((one, other));
        assert_eq!(listeners.by_document.lock().len(), 1);
        drop(same);
        assert!(listeners.by_document.lock().is_empty());
        stop.cancel();
        task.await.expect("ended");
    }
}
