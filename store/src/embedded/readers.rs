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

#[derive(Default)]
struct Idle {
    /// Rises with every commit.
    generation: u64,
    txns: Vec<RoTxn<'static, WithoutTls>>,
}

impl Readers {
    pub(super) fn new(env: Env<WithoutTls>) -> Self {
        Self { env, idle: Mutex::default() }
    }

    /// Reads in a transaction that sees at least the last commit before the call.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&RoTxn<'static, WithoutTls>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (generation, kept) = {
            let mut idle = self.idle.lock();
            (idle.generation, idle.txns.pop())
        };
        let txn = match kept {
            Some(txn) => txn,
            None => self.env.clone().static_read_txn()?,
        };
        let answer = read(&txn);
        let mut idle = self.idle.lock();
        if idle.generation == generation {
            idle.txns.push(txn);
        } else {
            drop(idle);
            drop(txn);
        }
        answer
    }

    /// Ends the kept transactions: there is a new commit to see.
    pub(super) fn renew(&self) {
        let mut idle = self.idle.lock();
        idle.generation += 1;
        let old = std::mem::take(&mut idle.txns);
        drop(idle);
        drop(old);
    }
}
