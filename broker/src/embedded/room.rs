//! Whether a failure means that there is no room.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use super::writer::GROUP_BYTES;

/// LMDB's answer when the file system took only part of a write, which it does when it is nearly full.
const SHORT_WRITE: i32 = 5;

/// What the engine or the file system said, if it said that there is no room.
pub(super) fn no_room(folder: &Path, error: &heed::Error) -> Option<String> {
    match error {
        heed::Error::Mdb(heed::MdbError::MapFull) => Some("no room within its greatest size".to_owned()),
        heed::Error::Io(e) if is_full(e) => Some(e.to_string()),
        // A failing disk has the same number, so ask the file system itself.
        heed::Error::Io(e) if e.raw_os_error() == Some(SHORT_WRITE) => {
            probe(folder).err().filter(is_full).map(|e| e.to_string())
        }
        _ => None,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes as much as a group of writes may be, and removes it again.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join("headwater.probe");
    let chunk = vec![1; 1 << 20];
    let written = File::create(&path).and_then(|mut file| {
        for _ in 0..GROUP_BYTES.div_ceil(chunk.len()) {
            file.write_all(&chunk)?;
        }
        Ok(())
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}
