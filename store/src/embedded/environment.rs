//! The open LMDB environment and its tables.

use std::fs::{File, TryLockError};
use std::io::ErrorKind as IoKind;
use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, MdbError, RwTxn, WithoutTls};

use super::{EmbeddedOptions, Sync};
use crate::Error;

/// The file whose lock says that a process has the store open.
const LOCK_FILE: &str = "headwater.lock";

/// How many read transactions may be open at once.
const READERS: u32 = 512;

/// One table of the environment.
pub(super) type Table = Database<Bytes, Bytes>;

/// The tables. Layout of keys: numbers are big-endian, parts as in [`super::key`].
#[derive(Clone, Copy)]
pub(super) struct Tables {
    /// Table number, row key.
    pub rows: Table,
    /// Join index number, join key, row key.
    pub joins: Table,
    /// Version, id.
    pub documents: Table,
    /// Version, index, value, id.
    pub index: Table,
    /// See [`super::catalog`].
    pub meta: Table,
}

impl Tables {
    const COUNT: u32 = 5;

    fn create(env: &Env<WithoutTls>, txn: &mut RwTxn<'_>) -> heed::Result<Self> {
        let mut create = |name| env.create_database(txn, Some(name));
        Ok(Self {
            rows: create("rows")?,
            joins: create("joins")?,
            documents: create("documents")?,
            index: create("index")?,
            meta: create("meta")?,
        })
    }
}

/// What went wrong below, before it is known what was being done.
pub(super) enum Fault {
    Engine(heed::Error),
    /// What does not have its form.
    Damaged(&'static str),
    /// More rows are read at once than so many bytes.
    TooManyRows(usize),
}

impl From<heed::Error> for Fault {
    fn from(source: heed::Error) -> Self {
        Self::Engine(source)
    }
}

pub(super) struct Environment {
    // Before `_lock`: the environment is closed while the folder is still ours.
    pub env: Env<WithoutTls>,
    pub tables: Tables,
    /// Where the store is, for messages.
    pub place: String,
    _lock: File,
}

impl Environment {
    pub(super) fn open(options: &EmbeddedOptions) -> Result<Self, Error> {
        let place = options.folder.display().to_string();
        let engine = |action: &'static str| {
            let place = place.clone();
            move |source: Box<dyn std::error::Error + Send + std::marker::Sync>| Error::Engine { place, action, source }
        };
        std::fs::create_dir_all(&options.folder).map_err(|e| engine("create its folder")(e.into()))?;
        let lock = lock(&options.folder, &place)?;
        let env = open_env(options).map_err(|e| engine("open")(e.into()))?;
        let tables = || -> heed::Result<Tables> {
            // Slots of readers that were killed would keep old pages from being used again.
            env.clear_stale_readers()?;
            let mut txn = env.write_txn()?;
            let tables = Tables::create(&env, &mut txn)?;
            txn.commit()?;
            Ok(tables)
        };
        let tables = tables().map_err(|e| fail(&place, "open", e.into()))?;
        Ok(Self { env, tables, place, _lock: lock })
    }

    /// The error of an action that met a fault.
    pub(super) fn fail(&self, action: &'static str, fault: impl Into<Fault>) -> Error {
        fail(&self.place, action, fault.into())
    }

    /// Bytes of the file that have been used so far; the file does not shrink.
    pub(super) fn size(&self) -> u64 {
        let pages = self.env.info().last_page_number as u64 + 1;
        pages * u64::from(self.env.stat().page_size)
    }
}

fn fail(place: &str, action: &'static str, fault: Fault) -> Error {
    let place = place.to_owned();
    let source = match fault {
        Fault::Damaged(what) => return Error::Damaged { place, what: what.to_owned() },
        Fault::TooManyRows(limit) => return Error::TooManyRows { limit },
        Fault::Engine(source) => source,
    };
    match source {
        heed::Error::Mdb(MdbError::MapFull) => {
            Error::Full { place, cause: "no room within its greatest size".to_owned() }
        }
        heed::Error::Io(e) if matches!(e.kind(), IoKind::StorageFull | IoKind::QuotaExceeded) => {
            Error::Full { place, cause: e.to_string() }
        }
        heed::Error::Mdb(e @ (MdbError::Corrupted | MdbError::PageNotFound | MdbError::Invalid)) => {
            Error::Damaged { place, what: e.to_string() }
        }
        source => Error::Engine { place, action, source: source.into() },
    }
}

fn lock(folder: &Path, place: &str) -> Result<File, Error> {
    let engine = |e: std::io::Error| Error::Engine { place: place.to_owned(), action: "lock", source: e.into() };
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK_FILE)).map_err(engine)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { place: place.to_owned() }),
        Err(TryLockError::Error(e)) => Err(engine(e)),
    }
}

// LMDB maps its file into memory, which is sound only while nobody else changes that file: the lock taken before says
// that no other process of ours has it open. Of the flags that weaken its promises only NO_META_SYNC is ever set, which
// can lose the last commits when the machine stops, never tear one.
#[allow(unsafe_code)]
fn open_env(options: &EmbeddedOptions) -> heed::Result<Env<WithoutTls>> {
    const PAGES: u64 = 1 << 16;
    let size = options.size_max.max(1).div_ceil(PAGES).saturating_mul(PAGES);
    let mut open = EnvOpenOptions::new().read_txn_without_tls();
    open.map_size(usize::try_from(size).unwrap_or(usize::MAX & !0xffff)).max_dbs(Tables::COUNT).max_readers(READERS);
    // SAFETY: see above.
    unsafe {
        if options.sync == Sync::NoMetaSync {
            open.flags(EnvFlags::NO_META_SYNC);
        }
        open.open(&options.folder)
    }
}
