//! Rows whose store fails now and then: before a commit, or after it, when only the answer is lost.

#[macro_use]
#[path = "../follow_rows/pass_on.rs"]
mod pass_on;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use headwater_schemas::{TableId, TableSchema};
use headwater_store::{ByteList, Error, JoinIndex, RowArena, RowBatch, RowStore, RowTransaction, RowWrite, SchemaId};

pub(crate) struct FlakyRows {
    pub(crate) inner: Arc<dyn RowStore>,
    /// Twice the number of commits until one fails; one more where that commit goes well, and nobody hears of it.
    /// Negative: none fails.
    pub(crate) commits_left: Arc<AtomicI64>,
}

impl RowStore for FlakyRows {
    fn begin(&self) -> Result<Box<dyn RowTransaction + '_>, Error> {
        Ok(Box::new(FlakyTransaction { inner: self.inner.begin()?, commits_left: self.commits_left.clone() }))
    }
}

struct FlakyTransaction<'s> {
    inner: Box<dyn RowTransaction + 's>,
    commits_left: Arc<AtomicI64>,
}

impl RowTransaction for FlakyTransaction<'_> {
    fn commit(self: Box<Self>) -> Result<(), Error> {
        let left = self.commits_left.load(Ordering::Relaxed);
        let failure = || {
            let source = std::io::Error::other("a failure of the test's making").into();
            Err(Error::Engine { place: "test".into(), action: "go on", source })
        };
        self.commits_left.store((left - 2).max(-1), Ordering::Relaxed);
        match left {
            0 => failure(),
            1 => {
                self.inner.commit()?;
                failure()
            }
            _ => self.inner.commit(),
        }
    }
}

/// Every call but the commit is passed on.
macro_rules! pass_on {
    (read $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty) => {
        fn $name(&self $(, $argument: $kind)*) -> Result<$answer, Error> {
            self.inner.$name($($argument),*)
        }
    };
    (few $name:ident($of:ty)) => {
        fn $name(&self, of: &$of, keys: &ByteList, from: usize, out: &mut RowArena) -> Result<usize, Error> {
            self.inner.$name(of, &pass_on::few(keys, from), from, out)
        }
    };
    (put $($call:tt)*) => { pass_on!(write $($call)*); };
    (write $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty) => {
        fn $name(&mut self $(, $argument: $kind)*) -> Result<$answer, Error> {
            self.inner.$name($($argument),*)
        }
    };
}

pass_on_rows!(FlakyTransaction<'_>);
