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
    // What another put there, or left, is not written into: it may be readable, or a way elsewhere.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_others_put_in_the_way_is_not_written_into() {
        let directory = tempfile::tempdir().unwrap();
        let [file, unfinished, elsewhere] =
            ["kept", "kept.unfinished", "elsewhere"].map(|name| directory.path().join(name));
        fs::write(&elsewhere, "theirs").unwrap();
        symlink(&elsewhere, &unfinished).unwrap();
        write(&file, b"secret").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        fs::write(&unfinished, "").unwrap();
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o666)).unwrap();
        write(&file, b"secret again").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"secret again");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
