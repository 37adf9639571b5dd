//! The checkpoint: where a store goes on after the machine has stopped.
//!
//! A commit is handed to the operating system and not waited for. Whatever ends the process, it is there; but when the
//! machine stops, any of the pages written lately may be missing, and LMDB's two *meta pages*, which say what tree
//! counts, may name one that is torn. So from time to time the file is brought to disk, and then the meta pages of that
//! moment are written here. As long as they count, a read transaction of that moment is kept open, so that LMDB gives
//! none of its pages to a later commit. After a stop of the machine the meta pages are put back: the store is what it
//! was at the checkpoint.
//!
//! Two slots are written in turn, so that one is whole at any time. A slot names the *boot* it was written in (the
//! number Linux gives itself when it starts); as long as that is the present one, no page can have been lost.

use std::fs::{File, remove_file};
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::key::{take, take_u32, take_u64};

/// The checkpoint's file within the store's folder.
const FILE: &str = "checkpoint";
/// LMDB's file.
pub(super) const DATA_FILE: &str = "data.mdb";

const MAGIC: &[u8; 8] = b"HWCHECK1";
const SLOT: usize = 4096;
/// Bytes kept of a meta page; what LMDB writes there takes some 150.
const HEAD: usize = 512;
const HASH: usize = 32;

/// What LMDB's file held when it was last brought to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing of worth: it was about to be made.
    Nothing,
    /// What these meta pages lead to.
    Metas(Metas),
}

/// The beginnings of LMDB's meta pages, which are the first two of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metas {
    page_size: u32,
    heads: Box<[[u8; HEAD]; 2]>,
    /// Length of the file, which never shrinks; 0 where an earlier version wrote it. LMDB's own number of pages says nothing
    /// of it: the last ones may have been given back before they were ever written.
    len: u64,
}

impl Metas {
    /// Reads them. No commit may be under way.
    pub(super) fn read(data: &File, page_size: u32) -> io::Result<Self> {
        let mut heads = Box::new([[0; HEAD]; 2]);
        for (head, at) in heads.iter_mut().zip([0, u64::from(page_size)]) {
            data.read_exact_at(head, at)?;
        }
        Ok(Self { page_size, heads, len: data.metadata()?.len() })
    }

    fn put_back(&self, data: &File) -> io::Result<()> {
        for (head, at) in self.heads.iter().zip([0, u64::from(self.page_size)]) {
            data.write_all_at(head, at)?;
        }
        data.sync_all()
    }
}

/// Why a folder's checkpoint is of no use.
pub(super) enum Refused {
    Io(io::Error),
    Damaged(&'static str),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The number of this boot of the machine, where the system tells one.
pub(super) fn boot() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
}

/// The open file.
pub(super) struct Checkpoint {
    file: File,
    /// Number of the last slot that is known to be on disk; the greater one counts.
    number: u64,
    boot: Option<u128>,
    /// What that slot says.
    held: Held,
}

impl Checkpoint {
    /// Opens the checkpoint of a folder that nobody else has open, or makes one. If the machine has stopped since it was
    /// written, LMDB's file is put back to it.
    pub(super) fn open(folder: &Path, boot: Option<u128>) -> Result<Self, Refused> {
        let data_path = folder.join(DATA_FILE);
        let data = match File::options().read(true).write(true).open(&data_path) {
            Ok(data) if data.metadata()?.len() > 0 => Some(data),
            Ok(_) => None,
            Err(e) if e.kind() == IoKind::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        let file = File::options().read(true).write(true).create(true).truncate(false).open(folder.join(FILE))?;
        let last = Slot::last(&file)?;
        let (number, held) = last.as_ref().map_or((0, Held::Nothing), |slot| (slot.number, slot.held.clone()));
        let mut checkpoint = Self { file, number, boot, held };
        match (data, last) {
            (None, _) => {
                checkpoint.put(Held::Nothing)?;
                sync_folder(folder)?;
            }
            (Some(_), None) => {
                return Err(Refused::Damaged(
                    "data.mdb has no checkpoint beside it (an earlier version wrote it, or the file was removed)",
                ));
            }
            (Some(_), Some(Slot { held: Held::Nothing, .. })) => remove_file(&data_path)?,
            (Some(data), Some(Slot { held: Held::Metas(metas), boot: written_in, .. })) => {
                // Or the first read of what is missing would end the process.
                if data.metadata()?.len() < metas.len {
                    return Err(Refused::Damaged(
                        "data.mdb is shorter than when it was last brought to disk (it was cut off, or copied in part)",
                    ));
                }
                if written_in.is_none() || written_in != boot {
                    metas.put_back(&data)?;
                }
            }
        }
        Ok(checkpoint)
    }

    /// Says what LMDB's file holds on disk. When this returns, that counts; when it fails, that or what was said before.
    pub(super) fn put(&mut self, held: Held) -> io::Result<()> {
        // After a failure the same slot is written again: the other one is whole.
        let number = self.number + 1;
        let slot = Slot { number, boot: self.boot, held };
        self.file.write_all_at(&slot.encode(), number % 2 * SLOT as u64)?;
        self.file.sync_data()?;
        (self.number, self.held) = (number, slot.held);
        Ok(())
    }

    /// Pages may be lost although the machine goes on: the next opening is to go back to what was said last.
    pub(super) fn distrust(&mut self) -> io::Result<()> {
        self.boot = None;
        self.put(self.held.clone())
    }
}

/// Makes names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

struct Slot {
    number: u64,
    boot: Option<u128>,
    held: Held,
}

impl Slot {
    /// The slot that counts, if there is one.
    fn last(file: &File) -> io::Result<Option<Self>> {
        let mut last: Option<Self> = None;
        for at in [0, SLOT as u64] {
            let mut bytes = [0; SLOT];
            match file.read_exact_at(&mut bytes, at) {
                Ok(()) => {}
                Err(e) if e.kind() == IoKind::UnexpectedEof => continue,
                Err(e) => return Err(e),
            }
            let slot = Self::decode(&bytes);
            if slot.as_ref().map(|it| it.number) > last.as_ref().map(|it| it.number) {
                last = slot;
            }
        }
        Ok(last)
    }

    fn encode(&self) -> [u8; SLOT] {
        let mut out = Vec::with_capacity(SLOT);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.boot.unwrap_or(0).to_le_bytes());
        if let Held::Metas(metas) = &self.held {
            out.extend_from_slice(&metas.page_size.to_le_bytes());
            out.extend_from_slice(metas.heads.as_flattened());
            out.extend_from_slice(&metas.len.to_le_bytes());
        }
        out.resize(SLOT - HASH, 0);
        let hash = blake3::hash(&out);
        out.extend_from_slice(hash.as_bytes());
        out.try_into().expect("it was filled up to this length")
    }

    fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        let (content, hash) = bytes.split_at(SLOT - HASH);
        if blake3::hash(content).as_bytes() != hash {
            return None;
        }
        let rest = &mut &*content;
        if take(rest, MAGIC.len())? != MAGIC {
            return None;
        }
        let number = take_u64(rest)?;
        let boot = Some(u128::from_le_bytes(take(rest, 16)?.try_into().ok()?)).filter(|boot| *boot != 0);
        let held = match take_u32(rest)? {
            0 => Held::Nothing,
            page_size => {
                let mut head = || take(rest, HEAD)?.try_into().ok();
                let heads = Box::new([head()?, head()?]);
                Held::Metas(Metas { page_size, heads, len: take_u64(rest)? })
            }
        };
        Some(Self { number, boot, held })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn metas(n: u8) -> Held {
        Held::Metas(Metas { page_size: 4096, heads: Box::new([[n; HEAD], [n + 1; HEAD]]), len: 0 })
    }

    fn last(folder: &Path) -> Held {
        Slot::last(&File::open(folder.join(FILE)).unwrap()).unwrap().unwrap().held
    }

    #[test]
    fn a_torn_slot_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut checkpoint = Checkpoint::open(path, None).map_err(|_| "refused").unwrap();
        assert_eq!(last(path), Held::Nothing);
        for n in 1..6 {
            let before = std::fs::read(path.join(FILE)).unwrap();
            let known = last(path);
            checkpoint.put(metas(n)).unwrap();
            assert_eq!(last(path), metas(n));
            let after = std::fs::read(path.join(FILE)).unwrap();
            // Every sector of it may have come to disk or not.
            for torn in [0b0000_0001_u8, 0b0000_0011, 0b1000_0000, 0b0111_1110, 0b0101_0101] {
                let mut bytes = before.clone();
                bytes.resize(after.len(), 0);
                let slot = usize::from(n + 1) % 2 * SLOT;
                for sector in (0..8).filter(|sector| torn >> sector & 1 == 1) {
                    let at = slot + sector * 512;
                    bytes[at..at + 512].copy_from_slice(&after[at..at + 512]);
                }
                std::fs::write(path.join(FILE), &bytes).unwrap();
                assert!([&known, &metas(n)].contains(&&last(path)), "slot {n}, sectors {torn:b}");
            }
            std::fs::write(path.join(FILE), &after).unwrap();
        }
    }

    #[test]
    fn the_meta_pages_come_back_only_after_another_boot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let data = path.join(DATA_FILE);
        let old: Vec<u8> = (0..8192).map(|at| (at / 4096) as u8).collect();
        let mut checkpoint = Checkpoint::open(path, Some(7)).map_err(|_| "refused").unwrap();
        std::fs::write(&data, &old).unwrap();
        checkpoint.put(Held::Metas(Metas::read(&File::open(&data).unwrap(), 4096).unwrap())).unwrap();
        for (boot, back) in [(Some(7), false), (Some(8), true), (None, true)] {
            std::fs::write(&data, vec![9; 8192]).unwrap();
            Checkpoint::open(path, boot).map_err(|_| "refused").unwrap();
            let found = std::fs::read(&data).unwrap();
            assert_eq!(found[..HEAD] == old[..HEAD] && found[4096..4096 + HEAD] == old[4096..4096 + HEAD], back);
        }
        // A bad disk was met in this boot: its pages are not believed either.
        checkpoint.put(metas(1)).unwrap();
        std::fs::write(&data, vec![9; 8192]).unwrap();
        checkpoint.distrust().unwrap();
        Checkpoint::open(path, Some(7)).map_err(|_| "refused").unwrap();
        assert_eq!(std::fs::read(&data).unwrap()[..HEAD], [1; HEAD]);
    }

    #[test]
    fn data_without_a_checkpoint_is_refused_and_data_never_finished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join(DATA_FILE), [1; 8192]).unwrap();
        assert!(matches!(Checkpoint::open(path, None), Err(Refused::Damaged(_))));
        std::fs::remove_file(path.join(DATA_FILE)).unwrap();
        Checkpoint::open(path, None).map_err(|_| "refused").unwrap();
        std::fs::write(path.join(DATA_FILE), [1; 8192]).unwrap();
        Checkpoint::open(path, None).map_err(|_| "refused").unwrap();
        assert!(!path.join(DATA_FILE).exists());
    }
}
