//! Whether a failure means that there is no room.

use std::io::{self, Write as _};
use std::path::Path;

use heed::MdbError;

/// LMDB's answer when the file system took only part of a write, which it does when it is nearly full. A failing disk has the
/// same number.
const SHORT_WRITE: i32 = 5;
/// What is left after a write of which only a part was taken is less than this.
const PROBE: usize = 1 << 20;

/// What the engine or the file system said, if it said that there is no room.
pub(super) fn no_room(folder: &Path, error: &heed::Error) -> Option<String> {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => Some("no room within its greatest size".to_owned()),
        heed::Error::Io(e) if is_full(e) => Some(e.to_string()),
        heed::Error::Io(e) if e.raw_os_error() == Some(SHORT_WRITE) => {
            probe(folder).err().filter(is_full).map(|e| e.to_string())
        }
        _ => None,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Asks the file system, by a file that is gone again when this returns.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join("headwater.probe");
    let written = std::fs::File::create(&path).and_then(|mut file| file.write_all(&vec![1; PROBE]));
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}
