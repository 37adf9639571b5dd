//! Read transactions, kept between reads.
//!
//! To begin one costs about as much as the read itself: a slot in LMDB's table of readers, and a look-up of each table
//! by name. So those that saw the last commit are kept and lent out. They hold back no old pages, for a commit ends
//! them.

use heed::{Env, RoTxn, WithoutTls};
use parking_lot::Mutex;

use super::environment::Fault;

pub(super) struct Readers {
    env: Env<WithoutTls>,
    idle: Mutex<Idle>,
}

/// Transactions of one moment, and none before it is ever lent out again: what one reader has seen, every later read
/// sees too.
#[derive(Default)]
struct Idle {
    /// Number of the commit they saw.
    commit: usize,
    txns: Vec<RoTxn<'static, WithoutTls>>,
}

impl Readers {
    pub(super) fn new(env: Env<WithoutTls>) -> Self {
        Self { env, idle: Mutex::default() }
    }

    /// Reads in a transaction that sees at least what was committed, and what others had been answered, before the call.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&RoTxn<'static, WithoutTls>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let kept = self.idle.lock().txns.pop();
        let txn = match kept {
            Some(txn) => txn,
            None => self.env.clone().static_read_txn()?,
        };
        let answer = read(&txn);
        // Before the answer is given: a commit may have been seen by this transaction and not yet been announced.
        self.give_back(txn);
        answer
    }

    fn give_back(&self, txn: RoTxn<'static, WithoutTls>) {
        let commit = txn.id();
        let mut idle = self.idle.lock();
        let old = idle.forget_before(commit);
        let late = if idle.commit == commit {
            idle.txns.push(txn);
            None
        } else {
            Some(txn)
        };
        // They end outside of the lock.
        drop(idle);
        drop((old, late));
    }

    /// Ends the kept transactions that do not see the last commit.
    pub(super) fn renew(&self) {
        let last = self.env.info().last_txn_id;
        let old = self.idle.lock().forget_before(last);
        drop(old);
    }
}

impl Idle {
    #[must_use]
    fn forget_before(&mut self, commit: usize) -> Vec<RoTxn<'static, WithoutTls>> {
        if commit <= self.commit {
            return Vec::new();
        }
        self.commit = commit;
        std::mem::take(&mut self.txns)
    }
}
