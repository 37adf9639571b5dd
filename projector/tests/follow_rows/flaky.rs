//! A store that fails at a chosen call. What was not committed is gone, as after a crash.

#[macro_use]
#[path = "pass_on.rs"]
mod pass_on;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use headwater_schemas::{TableId, TableSchema};
use headwater_store::embedded::EmbeddedStore;
use headwater_store::{
    Batch, ByteList, DocumentBatch, DocumentStore, DocumentTransaction, DocumentWrite, Error, Frontier, JoinIndex,
    ProjectionStore, RowArena, RowBatch, RowWrite, SchemaId, VersionId, VersionRecord, Written,
};

pub(crate) struct FlakyStore {
    pub(crate) inner: Arc<dyn ProjectionStore>,
    /// Calls until one fails; negative: none fails.
    pub(crate) calls_left: Arc<AtomicI64>,
    /// Rows that a batch may write.
    pub(crate) rows_max: usize,
    /// Rows of a truncated table that may go in one batch.
    pub(crate) swept_max: u64,
}

impl ProjectionStore for FlakyStore {
    fn begin(&self) -> Result<Box<dyn Batch + '_>, Error> {
        fail(&self.calls_left)?;
        let (inner, rows_left) = (self.inner.begin()?, self.rows_max);
        Ok(Box::new(FlakyBatch { inner, calls_left: self.calls_left.clone(), rows_left }))
    }

    fn rows_swept_max(&self) -> u64 {
        self.swept_max
    }
}

struct FlakyBatch<'s> {
    inner: Box<dyn Batch + 's>,
    calls_left: Arc<AtomicI64>,
    rows_left: usize,
}

impl FlakyBatch<'_> {
    fn put(&mut self) -> Result<(), Error> {
        let too_large = || Error::BatchTooLarge { place: "test".into(), cause: "so the test wants it".into() };
        self.rows_left = self.rows_left.checked_sub(1).ok_or_else(too_large)?;
        fail(&self.calls_left)
    }
}

fn fail(calls_left: &AtomicI64) -> Result<(), Error> {
    match calls_left.load(Ordering::Relaxed) {
        left if left < 0 => Ok(()),
        left => {
            calls_left.store(left - 1, Ordering::Relaxed);
            if left > 0 {
                return Ok(());
            }
            let source = std::io::Error::other("a failure of the test's making").into();
            Err(Error::Engine { place: "test".into(), action: "go on", source })
        }
    }
}

impl Batch for FlakyBatch<'_> {
    fn unfinished(&self) -> Result<Vec<(VersionId, ByteList)>, Error> {
        fail(&self.calls_left)?;
        self.inner.unfinished()
    }

    fn commit(self: Box<Self>) -> Result<(), Error> {
        fail(&self.calls_left)?;
        self.inner.commit()
    }
}

/// Every call but the commit is passed on after its turn to fail.
macro_rules! pass_on {
    (put $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty) => {
        fn $name(&mut self $(, $argument: $kind)*) -> Result<$answer, Error> {
            self.put()?;
            self.inner.$name($($argument),*)
        }
    };
    (read $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty) => {
        fn $name(&self $(, $argument: $kind)*) -> Result<$answer, Error> {
            fail(&self.calls_left)?;
            self.inner.$name($($argument),*)
        }
    };
    (few $name:ident($of:ty)) => {
        fn $name(&self, of: &$of, keys: &ByteList, from: usize, out: &mut RowArena) -> Result<usize, Error> {
            fail(&self.calls_left)?;
            self.inner.$name(of, &pass_on::few(keys, from), from, out)
        }
    };
    (write $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty) => {
        fn $name(&mut self $(, $argument: $kind)*) -> Result<$answer, Error> {
            fail(&self.calls_left)?;
            self.inner.$name($($argument),*)
        }
    };
}

pass_on_rows!(FlakyBatch<'_>);
pass_on_documents!(FlakyBatch<'_>);

/// Documents whose flush fails at a chosen call: between the commit of the rows, of another engine, and the documents.
pub(crate) struct FlakyDocuments {
    pub(crate) inner: Arc<dyn DocumentStore>,
    pub(crate) calls_left: Arc<AtomicI64>,
}

impl DocumentStore for FlakyDocuments {
    fn begin(&self) -> Result<Box<dyn DocumentTransaction + '_>, Error> {
        Ok(Box::new(FlakyTransaction { inner: self.inner.begin()?, calls_left: self.calls_left.clone() }))
    }
}

struct FlakyTransaction<'s> {
    inner: Box<dyn DocumentTransaction + 's>,
    calls_left: Arc<AtomicI64>,
}

impl DocumentTransaction for FlakyTransaction<'_> {
    fn flush(self: Box<Self>) -> Result<(), Error> {
        fail(&self.calls_left)?;
        self.inner.flush()
    }

    fn mark(&mut self) -> Option<u64> {
        self.inner.mark()
    }

    fn stored_mark(&self) -> Result<u64, Error> {
        self.inner.stored_mark()
    }
}

pass_on_documents!(FlakyTransaction<'_>);

/// Documents in an embedded store beside that of the rows, as in another engine; flaky as the others.
pub(crate) struct EmbeddedDocuments {
    pub(crate) inner: Arc<EmbeddedStore>,
    pub(crate) calls_left: Arc<AtomicI64>,
}

impl DocumentStore for EmbeddedDocuments {
    fn begin(&self) -> Result<Box<dyn DocumentTransaction + '_>, Error> {
        let inner = ProjectionStore::begin(&*self.inner)?;
        Ok(Box::new(EmbeddedTransaction { inner, calls_left: self.calls_left.clone() }))
    }
}

const MARK: &str = "mark";

struct EmbeddedTransaction<'s> {
    inner: Box<dyn Batch + 's>,
    calls_left: Arc<AtomicI64>,
}

impl DocumentTransaction for EmbeddedTransaction<'_> {
    fn flush(self: Box<Self>) -> Result<(), Error> {
        fail(&self.calls_left)?;
        self.inner.commit()
    }

    /// Of every flush, and kept in a note.
    fn mark(&mut self) -> Option<u64> {
        let mark = self.stored_mark().unwrap() + 1;
        self.inner.set_note(MARK, Some(&mark.to_le_bytes())).unwrap();
        Some(mark)
    }

    fn stored_mark(&self) -> Result<u64, Error> {
        let note = self.inner.note(MARK)?;
        Ok(note.map_or(0, |mark| u64::from_le_bytes(mark.try_into().unwrap())))
    }
}

pass_on_documents!(EmbeddedTransaction<'_>);
