//! Whatever comes in between: a read that starts after a change was heard is never answered with older bytes.
//!
//! Each of these was tried, and makes the test fail: to keep what was read although the place was taken away, to forget
//! nothing when messages are lost, to forget nothing when a change is heard.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use headwater_store::{Document, DocumentChange, VersionId};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::documents::{CacheMetrics, DocumentCache};

const VERSION: VersionId = VersionId(1);
const IDS: usize = 4;
/// Room for three documents or so.
const BYTES_MAX: u64 = 800;

#[derive(Clone, Debug)]
enum Step {
    /// A document is written, or deleted, and a message says so.
    Write { id: usize, deleted: bool },
    /// The next message is heard.
    Hear,
    /// Messages are lost, and that is heard.
    Lose,
    /// A reader comes.
    Read { id: usize },
    /// A read of the store goes on: first it sees what is stored, then it returns.
    GoOn { read: usize },
    /// A reader goes away.
    GiveUp { read: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0..IDS;
    prop_oneof![
        3 => (id(), prop::bool::weighted(0.2)).prop_map(|(id, deleted)| Step::Write { id, deleted }),
        3 => Just(Step::Hear),
        1 => Just(Step::Lose),
        5 => id().prop_map(|id| Step::Read { id }),
        8 => (0usize..8).prop_map(|read| Step::GoOn { read }),
        1 => (0usize..8).prop_map(|read| Step::GiveUp { read }),
    ]
}

/// What is stored of a document: how often it was written, and whether it is there.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    writes: u64,
    there: bool,
}

type Answer<'c> = Pin<Box<dyn Future<Output = Result<Option<Document>, ()>> + 'c>>;

struct Reader<'c> {
    id: usize,
    /// What had been heard of the document when it came.
    heard: State,
    /// What the store's read waits for, the next last.
    gates: Vec<oneshot::Sender<()>>,
    answer: Answer<'c>,
}

struct World<'c> {
    cache: &'c DocumentCache,
    stored: Rc<RefCell<[State; IDS]>>,
    heard: [State; IDS],
    messages: VecDeque<(usize, State)>,
    readers: Vec<Reader<'c>>,
    /// Every state in which each document was not there.
    absent: [Vec<u64>; IDS],
}

fn key(id: usize) -> [u8; 1] {
    [id as u8]
}

fn document(state: State) -> Option<Document> {
    let body = Bytes::from(vec![b'x'; 60]);
    state.there.then_some(Document { stamp: state.writes, as_of_micros: 0, body })
}

impl<'c> World<'c> {
    fn new(cache: &'c DocumentCache) -> Self {
        Self {
            cache,
            stored: Rc::default(),
            heard: Default::default(),
            messages: VecDeque::new(),
            readers: Vec::new(),
            absent: std::array::from_fn(|_| vec![0]),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write { id, deleted } => {
                let mut stored = self.stored.borrow_mut();
                let writes = stored[id].writes + 1;
                stored[id] = State { writes, there: !deleted };
                if deleted {
                    self.absent[id].push(writes);
                }
                self.messages.push_back((id, stored[id]));
            }
            Step::Hear => {
                if let Some((id, state)) = self.messages.pop_front() {
                    let stamp = state.there.then_some(state.writes);
                    let id_bytes = Bytes::copy_from_slice(&key(id));
                    self.cache.changed(&[DocumentChange { version: VERSION, id: id_bytes, stamp }]);
                    self.heard[id] = state;
                }
            }
            Step::Lose => {
                self.messages.clear();
                self.cache.changed(&[]);
                self.heard = *self.stored.borrow();
            }
            Step::Read { id } => self.read(id),
            Step::GoOn { read } => {
                let count = self.readers.len().max(1);
                if let Some(reader) = self.readers.get_mut(read % count)
                    && let Some(gate) = reader.gates.pop()
                {
                    // Nobody waits there: another reads for this one.
                    let _ = gate.send(());
                }
            }
            Step::GiveUp { read } => {
                if !self.readers.is_empty() {
                    self.readers.remove(read % self.readers.len());
                }
            }
        }
        self.poll();
    }

    fn read(&mut self, id: usize) {
        if let Some(document) = self.cache.get(VERSION, &key(id)) {
            return self.check(id, self.heard[id], Some(document));
        }
        let ((look, looks), (give, gives)) = (oneshot::channel(), oneshot::channel());
        let (stored, cache) = (self.stored.clone(), self.cache);
        let answer = Box::pin(async move {
            let read = async {
                let _ = looks.await;
                let seen = document(stored.borrow()[id]);
                let _ = gives.await;
                Ok(seen)
            };
            cache.fetch(VERSION, &key(id), read).await
        });
        self.readers.push(Reader { id, heard: self.heard[id], gates: vec![give, look], answer });
    }

    /// Lets everybody go as far as they can.
    fn poll(&mut self) {
        loop {
            let mut ended = None;
            for (at, reader) in self.readers.iter_mut().enumerate() {
                if let Poll::Ready(answer) = reader.answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    ended = Some((at, answer.expect("no read fails")));
                    break;
                }
            }
            let Some((at, answer)) = ended else { break };
            let reader = self.readers.remove(at);
            self.check(reader.id, reader.heard, answer);
        }
        assert!(self.cache.weight() <= BYTES_MAX, "{} bytes are kept", self.cache.weight());
    }

    fn check(&self, id: usize, heard: State, answer: Option<Document>) {
        match answer {
            Some(document) => {
                assert!(document.stamp >= heard.writes, "{document:?} is older than {heard:?}, which was heard");
            }
            None => assert!(self.absent[id].iter().any(|of| *of >= heard.writes), "{heard:?} was heard, and is gone"),
        }
    }

    fn end(mut self) {
        while let Some(at) = self.readers.iter().position(|reader| !reader.gates.is_empty()) {
            self.take(Step::GoOn { read: at });
        }
        assert!(self.readers.is_empty(), "{} readers wait for ever", self.readers.len());
        while !self.messages.is_empty() {
            self.take(Step::Hear);
        }
        for id in 0..IDS {
            if let Some(document) = self.cache.get(VERSION, &key(id)) {
                assert_eq!(document.stamp, self.stored.borrow()[id].writes, "what is kept is what is stored");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_older_than_what_was_heard_is_answered(steps in prop::collection::vec(step(), 1..60)) {
        let cache = DocumentCache::new(BYTES_MAX, CacheMetrics::default());
        let mut world = World::new(&cache);
        steps.into_iter().for_each(|step| world.take(step));
        world.end();
    }
}

#[tokio::test]
async fn many_who_want_the_same_cause_one_read() {
    let cache = DocumentCache::new(1 << 20, CacheMetrics::default());
    let reads = RefCell::new(0);
    let one = || {
        cache.fetch(VERSION, b"a", async {
            *reads.borrow_mut() += 1;
            tokio::task::yield_now().await;
            Ok::<_, ()>(document(State { writes: 7, there: true }))
        })
    };
    let all = futures_util::future::join_all((0..100).map(|_| one())).await;
    assert!(all.into_iter().all(|answer| answer.expect("read").is_some_and(|document| document.stamp == 7)));
    assert_eq!(*reads.borrow(), 1);
    assert!(cache.get(VERSION, b"a").is_some() && cache.get(VersionId(2), b"a").is_none());
    // Who failed does not fail the others.
    let failed = cache.fetch(VERSION, b"b", async { Err(()) }).await;
    assert_eq!(failed, Err(()));
    let absent = cache.fetch(VERSION, b"b", async { Ok::<_, ()>(None) }).await;
    assert_eq!((absent, cache.get(VERSION, b"b")), (Ok(None), None));
}

#[tokio::test]
async fn compressed_bytes_are_those_of_their_stamp() {
    let cache = DocumentCache::new(1 << 20, CacheMetrics::default());
    let compressed = |stamp: u64, bytes: &'static str| {
        cache.compressed((VERSION, b"a", stamp), async move { Ok::<_, ()>(Bytes::from_static(bytes.as_bytes())) })
    };
    assert_eq!(compressed(1, "one").await, Ok(Bytes::from_static(b"one")));
    assert_eq!(compressed(1, "not made again").await, Ok(Bytes::from_static(b"one")));
    assert_eq!(compressed(2, "two").await, Ok(Bytes::from_static(b"two")));
    assert_eq!(compressed(2, "not made again").await, Ok(Bytes::from_static(b"two")));
    assert_eq!(cache.get(VERSION, b"a"), None);
}
