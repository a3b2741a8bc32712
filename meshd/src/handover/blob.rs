//! What is too large for one message of the link: a bequest in a file that has no name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use dataplane::Bequest;
use rustix::fs::{MemfdFlags, memfd_create};

/// More than 64 full tables of flows take.
const BYTES_MAX: u64 = 256 << 20;

/// Writes a bequest.
pub(super) fn write(bequest: &Bequest) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("meshd-bequest", MemfdFlags::CLOEXEC)?);
    file.write_all(&bequest.encode())?;
    Ok(file.into())
}

/// Reads what [`write`] wrote, perhaps by another version.
pub(super) fn read(file: OwnedFd) -> Result<Bequest, String> {
    let mut file = File::from(file);
    let mut bytes = Vec::new();
    let mut read = || -> io::Result<u64> {
        file.seek(SeekFrom::Start(0))?;
        (&mut file).take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes.len() as u64)
    };
    let length = read().map_err(|error| format!("cannot read the list of peers: {error}"))?;
    if length > BYTES_MAX {
        return Err(format!(
            "the list of peers is longer than {BYTES_MAX} bytes"
        ));
    }
    Bequest::decode(&bytes).map_err(|error| format!("cannot use the list of peers: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bequest_goes_through_a_file() {
        let bequest = Bequest::default();
        assert_eq!(read(write(&bequest).unwrap()), Ok(bequest));
        let mut other = File::from(memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
        other.write_all(b"something else").unwrap();
        assert!(read(other.into()).is_err());
    }
}
