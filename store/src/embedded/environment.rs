//! The open LMDB environment and its tables.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, MdbError, RwTxn, WithoutTls};

use super::EmbeddedOptions;
use super::catalog;
use super::checkpoint::{self, Checkpoint, Refused};
use super::room::no_room;
use super::settler::{Moment, file_size};
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
    /// Table number, row key. Where rows are, see [`super::rows`].
    pub rows: Table,
    /// Join index number, join key, row key. The rows.
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
    /// The store is of this format, or, as before formats were numbered, of none, and not of the one that is read here.
    OtherFormat {
        found: Option<u32>,
        read: u32,
    },
    /// More rows are read at once than so many bytes.
    TooManyRows(usize),
    /// Commits do not come to disk any more.
    NotSettled(Arc<heed::Error>),
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

/// What brings later commits to disk: see [`super::settler`].
pub(super) struct Settled {
    pub data: File,
    pub checkpoint: Checkpoint,
    pub moment: Moment,
}

/// How what was found is brought to disk: [`Moment::settle`].
type Settle = fn(&Moment, &Env<WithoutTls>, &mut Checkpoint) -> heed::Result<()>;

impl Environment {
    /// Opens the environment in a folder, as it was left; or, if the machine has stopped since, as it was at the last
    /// checkpoint. `boot` is [`checkpoint::boot`].
    pub(super) fn open(options: &EmbeddedOptions, boot: Option<u128>) -> Result<(Self, Settled), Error> {
        Self::open_with(options, boot, Moment::settle)
    }

    fn open_with(options: &EmbeddedOptions, boot: Option<u128>, settle: Settle) -> Result<(Self, Settled), Error> {
        let place = options.folder.display().to_string();
        let engine = |action: &'static str| {
            let place = place.clone();
            move |source: Box<dyn std::error::Error + Send + Sync>| Error::Engine { place, action, source }
        };
        std::fs::create_dir_all(&options.folder).map_err(|e| engine("create its folder")(e.into()))?;
        let lock = lock(&options.folder, &place)?;
        let mut checkpoint = Checkpoint::open(&options.folder, boot).map_err(|refused| match refused {
            Refused::Io(e) => engine("go back to its checkpoint")(e.into()),
            Refused::Damaged(what) => Error::Damaged { place: place.clone(), what: what.to_owned() },
        })?;
        let env = open_env(options).map_err(|e| engine("open")(e.into()))?;
        let mut settle_found = || -> heed::Result<(File, Moment)> {
            // Slots of readers that were killed would keep old pages from being used again.
            env.clear_stale_readers()?;
            checkpoint::sync_folder(&options.folder)?;
            let data = env.try_clone_inner_file()?;
            let moment = Moment::now(&env, &data)?;
            settle(&moment, &env, &mut checkpoint)?;
            Ok((data, moment))
        };
        let (data, moment) = match settle_found() {
            Ok(settled) => settled,
            Err(e) => {
                // Pages that could not be written are forgotten by the system: at the next opening a success would mean
                // nothing. If even this cannot be written down, nothing better can be done.
                let _ = checkpoint.distrust();
                return Err(fail(&place, "bring to disk what was written before", e.into()));
            }
        };
        // From here on there is a checkpoint to go back to.
        let tables = || -> heed::Result<Tables> {
            let mut txn = env.write_txn()?;
            let tables = Tables::create(&env, &mut txn)?;
            if tables.meta.is_empty(&txn)? {
                catalog::put_format(tables.meta, &mut txn)?;
            }
            txn.commit()?;
            Ok(tables)
        };
        let tables = tables().map_err(|e| fail(&place, "open", e.into()))?;
        Ok((Self { env, tables, place, _lock: lock }, Settled { data, checkpoint, moment }))
    }

    /// The error of an action that met a fault.
    pub(super) fn fail(&self, action: &'static str, fault: impl Into<Fault>) -> Error {
        fail(&self.place, action, fault.into())
    }

    /// Bytes of the file that have been used so far; the file does not shrink.
    pub(super) fn size(&self) -> u64 {
        file_size(&self.env)
    }
}

fn fail(place: &str, action: &'static str, fault: Fault) -> Error {
    let place = place.to_owned();
    let source = match fault {
        Fault::Damaged(what) => return Error::Damaged { place, what: what.to_owned() },
        Fault::OtherFormat { found, read } => {
            let found = found.map_or("one without a number".to_owned(), |format| format!("{format}"));
            return Error::Unusable {
                place,
                what: format!(
                    "another version of Headwater wrote it (its format is {found}, this version reads {read})"
                ),
                remedy: "start that version again; or stop Headwater, move the folder away and start this version: the store \
                         is rebuilt from the broker, and the copy can go once that is done; which tables retention has \
                         removed too much of for that, and are to be read again, `headwater status` says then",
                source: None,
            };
        }
        Fault::TooManyRows(limit) => return Error::TooManyRows { limit },
        Fault::NotSettled(source) => return Error::NotSettled { place, source },
        Fault::Engine(source) => source,
    };
    if let Some(cause) = no_room(Path::new(&place), &source) {
        return Error::Full { place, cause };
    }
    match source {
        heed::Error::Mdb(e @ (MdbError::Corrupted | MdbError::PageNotFound | MdbError::Invalid)) => {
            Error::Damaged { place, what: e.to_string() }
        }
        // LMDB's answer to everything once it could not write a meta page: to try again is no use.
        heed::Error::Mdb(MdbError::Panic) => Error::DiskRefused { place },
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
// that no other process of ours has it open, and the checkpoint is put back before this. NO_SYNC lets a commit be visible
// before it is on disk. By itself that may leave a torn file when the machine stops; the checkpoint is what brings
// back a whole one.
#[allow(unsafe_code)]
fn open_env(options: &EmbeddedOptions) -> heed::Result<Env<WithoutTls>> {
    const PAGES: u64 = 1 << 16;
    let size = options.size_max.max(1).div_ceil(PAGES).saturating_mul(PAGES);
    let mut open = EnvOpenOptions::new().read_txn_without_tls();
    open.map_size(usize::try_from(size).unwrap_or(usize::MAX & !0xffff)).max_dbs(Tables::COUNT).max_readers(READERS);
    // SAFETY: see above.
    unsafe {
        open.flags(EnvFlags::NO_SYNC);
        open.open(&options.folder)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_an_opening_could_not_bring_to_disk_is_not_believed_by_the_next() {
        const BOOT: Option<u128> = Some(7);
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { size_max: 1 << 30, ..EmbeddedOptions::new(folder.path()) };
        let is_there = |environment: &Environment| {
            let txn = environment.env.read_txn().unwrap();
            environment.tables.documents.get(&txn, b"id").unwrap().is_some()
        };
        // Nothing brings this to disk: the process is killed before.
        {
            let (environment, _settled) = Environment::open(&options, BOOT).unwrap();
            let mut txn = environment.env.write_txn().unwrap();
            environment.tables.documents.put(&mut txn, b"id", b"a document").unwrap();
            txn.commit().unwrap();
        }
        // The machine goes on, so it is there.
        {
            let (environment, _settled) = Environment::open(&options, BOOT).unwrap();
            assert!(is_there(&environment));
            let mut txn = environment.env.write_txn().unwrap();
            environment.tables.documents.delete(&mut txn, b"id").unwrap();
            txn.commit().unwrap();
        }
        let refused = Environment::open_with(&options, BOOT, |_, _, _| {
            Err(std::io::Error::from(std::io::ErrorKind::Other).into())
        });
        assert!(matches!(refused, Err(Error::Engine { .. })));
        let (environment, _settled) = Environment::open(&options, BOOT).unwrap();
        assert!(is_there(&environment), "the deletion did not come to disk");
    }

    #[test]
    fn a_meta_page_that_was_not_written_is_not_tried_again() {
        let error = fail("here", "commit a batch", heed::Error::Mdb(MdbError::Panic).into());
        assert_eq!(error.kind(), ErrorKind::Fatal);
        assert!(error.to_string().contains("mend the disk"), "{error}");
    }
}
