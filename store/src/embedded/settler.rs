//! Brings commits to disk, behind the back of the one who commits.
//!
//! A thread makes a [checkpoint](super::checkpoint) when the oldest commit that is not on disk has waited for the
//! interval: it notes the state between two batches, waits for the disk while further batches are committed, and then
//! lets the checkpoint count. All commits of an interval share one wait for the disk, which writes a page once
//! however often it changed place. A batch begins only while the disk is not too far behind, in time and in space.

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use heed::{Env, RoTxn, WithoutTls};
use parking_lot::{Condvar, Mutex};

use super::catalog::Catalog;
use super::checkpoint::{Checkpoint, Held, Metas};
use super::environment::{Fault, Settled};

/// A batch does not begin while an older commit than this is not on disk.
pub(super) const BEHIND_MAX: Duration = Duration::from_secs(2);

/// When the file has grown by so many bytes since the last checkpoint, the next is made at once: what a checkpoint
/// needs cannot be used again before the next one.
const GROWN_HURRY: u64 = 64 << 20;
/// A batch does not begin while the file has grown by more than this.
const GROWN_MAX: u64 = 256 << 20;

/// A moment that is on disk, or is to be: its meta pages, and the transaction that keeps its pages from being used again.
pub(super) struct Moment {
    metas: Metas,
    _pin: RoTxn<'static, WithoutTls>,
    file_size: u64,
}

impl Moment {
    /// The present one. No batch may be open.
    pub(super) fn now(env: &Env<WithoutTls>, data: &File) -> Result<Self, heed::Error> {
        let page_size = env.stat().page_size;
        let _pin = env.clone().static_read_txn()?;
        Ok(Self { metas: Metas::read(data, page_size)?, _pin, file_size: file_size(env) })
    }

    /// Brings it to disk and makes it the checkpoint. Until this returns, the moment of the last one must be kept.
    pub(super) fn settle(&self, env: &Env<WithoutTls>, checkpoint: &mut Checkpoint) -> Result<(), heed::Error> {
        env.force_sync()?;
        Ok(checkpoint.put(Held::Metas(self.metas.clone()))?)
    }
}

/// Bytes of the file that are in use or were.
pub(super) fn file_size(env: &Env<WithoutTls>) -> u64 {
    (env.info().last_page_number as u64 + 1) * u64::from(env.stat().page_size)
}

/// The running thread; ends, with all commits on disk, when dropped.
pub(super) struct Settler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// When the first commit was made that no checkpoint holds, nor the one in the making.
    waiting: Option<Instant>,
    /// The same of those that the checkpoint in the making holds.
    under_way: Option<Instant>,
    /// Size of LMDB's file at the last checkpoint, and by now.
    sizes: (u64, u64),
    /// Somebody waits for the next checkpoint.
    hurry: bool,
    closing: bool,
    /// Why commits no longer come to disk.
    failed: Option<Arc<heed::Error>>,
}

impl State {
    fn grown(&self) -> u64 {
        self.sizes.1.saturating_sub(self.sizes.0)
    }

    /// Whether every commit up to then is on disk.
    fn is_settled(&self, until: Instant) -> bool {
        self.under_way.or(self.waiting).is_none_or(|oldest| oldest > until)
    }
}

/// What the thread works with.
struct Work {
    env: Env<WithoutTls>,
    data: File,
    checkpoint: Checkpoint,
    /// That of the checkpoint.
    last: Moment,
    /// Held while a moment is noted, so that no batch is open.
    catalog: Arc<Mutex<Catalog>>,
    interval: Duration,
    shared: Arc<Shared>,
}

impl Settler {
    /// Starts from a moment that has been settled.
    pub(super) fn start(
        env: Env<WithoutTls>,
        settled: Settled,
        catalog: Arc<Mutex<Catalog>>,
        interval: Duration,
    ) -> std::io::Result<Self> {
        let Settled { data, checkpoint, moment: last } = settled;
        let state = State {
            // What opening wrote is not settled yet.
            waiting: Some(Instant::now()),
            under_way: None,
            sizes: (last.file_size, last.file_size),
            hurry: false,
            closing: false,
            failed: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let work = Work { env, data, checkpoint, last, catalog, interval, shared: shared.clone() };
        let thread = std::thread::Builder::new().name("store-settler".to_owned()).spawn(move || work.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes note of a commit, before the next batch can begin.
    pub(super) fn committed(&self, file_size: u64) {
        let mut state = self.shared.state.lock();
        let first = state.waiting.is_none();
        state.waiting.get_or_insert_with(Instant::now);
        state.sizes.1 = file_size;
        let hurry = !state.hurry && state.grown() > GROWN_HURRY;
        state.hurry |= hurry;
        drop(state);
        if first || hurry {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until the disk is near enough for a further batch.
    pub(super) fn keep_up(&self) -> Result<(), Fault> {
        self.wait(|state, now| {
            now.checked_sub(BEHIND_MAX).is_none_or(|until| state.is_settled(until)) && state.grown() <= GROWN_MAX
        })
    }

    /// Waits until everything is on disk that was committed more than so long ago.
    pub(super) fn settle(&self, age: Duration) -> Result<(), Fault> {
        let until = Instant::now().checked_sub(age);
        self.wait(|state, _| until.is_none_or(|until| state.is_settled(until)))
    }

    fn wait(&self, enough: impl Fn(&State, Instant) -> bool) -> Result<(), Fault> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(failed) = &state.failed {
                return Err(Fault::NotSettled(failed.clone()));
            }
            if enough(&state, Instant::now()) {
                return Ok(());
            }
            if !state.hurry {
                state.hurry = true;
                self.shared.changed.notify_all();
            }
            self.shared.changed.wait(&mut state);
        }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, the checkpoint before would count.
            let _ = thread.join();
        }
    }
}

impl Work {
    fn run(mut self) {
        while self.wait_for_commits() {
            let (moment, settled) = match self.moment() {
                Ok(None) => (None, Ok(())),
                Ok(Some(moment)) => {
                    let settled = moment.settle(&self.env, &mut self.checkpoint);
                    (Some(moment), settled)
                }
                Err(failed) => (None, Err(failed)),
            };
            let mut state = self.shared.state.lock();
            if let Err(failed) = settled {
                // Pages that could not be written are forgotten by the system: a later success would mean nothing.
                // If even this cannot be written down, nothing better can be done.
                let _ = self.checkpoint.distrust();
                state.failed = Some(Arc::new(failed));
                self.shared.changed.notify_all();
                // One batch more may be open. It must find the pages of both moments in use until it is over: the store
                // opens next with the last one, or with this one if the disk has its checkpoint after all.
                while !state.closing {
                    self.shared.changed.wait(&mut state);
                }
                return;
            }
            state.under_way = None;
            if let Some(moment) = moment {
                state.sizes.0 = moment.file_size;
                // Only now may the pages of the last one be used again.
                self.last = moment;
            }
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Waits until a checkpoint is due; `false`: none is, and the store is closed.
    fn wait_for_commits(&self) -> bool {
        let mut state = self.shared.state.lock();
        loop {
            match state.waiting {
                None if state.closing => return false,
                None => {
                    state.hurry = false;
                    self.shared.changed.wait(&mut state);
                }
                Some(since) => {
                    let left = self.interval.saturating_sub(since.elapsed());
                    if state.closing || state.hurry || left.is_zero() {
                        return true;
                    }
                    self.shared.changed.wait_for(&mut state, left);
                }
            }
        }
    }

    /// Notes the present moment, between two batches. `None`: nothing was written since the last one.
    fn moment(&self) -> Result<Option<Moment>, heed::Error> {
        let _between = self.catalog.lock();
        let moment = Moment::now(&self.env, &self.data)?;
        let mut state = self.shared.state.lock();
        state.under_way = state.waiting.take();
        state.hurry = false;
        Ok((moment.metas != self.last.metas).then_some(moment))
    }
}
