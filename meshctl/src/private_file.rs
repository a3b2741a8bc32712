//! Files that only their owner may read: written whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file with mode 0600, all of it or nothing, durably.
///
/// # Errors
/// The file system refuses; what was there before stays.
pub fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = file.with_added_extension("unfinished");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut open| {
            open.write_all(bytes)?;
            open.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, file));
    if written.is_err() {
        // What is there is of no use to anybody.
        let _ = fs::remove_file(&unfinished);
    }
    written
}
