//! The committed inputs: `corpus/TARGET/FILE`, one input each, as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Seed, Target};

/// No committed input is longer: what takes more to show is a test of its own.
pub const INPUT_BYTES_MAX: u64 = 2048;
/// No target has more committed inputs.
pub const INPUTS_MAX: usize = 60;

/// Returns the directory of a target's committed inputs.
pub fn directory(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// Reads all committed inputs of a target, in the order of their names.
///
/// # Errors
/// The directory or a file in it cannot be read.
pub fn read(target: &Target) -> io::Result<Vec<Seed>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(directory(target))? {
        let entry = entry?;
        inputs.push(Seed {
            name: entry.file_name().to_string_lossy().into_owned(),
            bytes: fs::read(entry.path())?,
        });
    }
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(inputs)
}

/// Writes the seeds of a target into a directory, as `seed-NAME`, and returns how many.
///
/// # Errors
/// The directory cannot be made or written.
pub fn write_seeds(target: &Target, directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let seeds = (target.seeds)();
    for seed in &seeds {
        fs::write(directory.join(format!("seed-{}", seed.name)), &seed.bytes)?;
    }
    Ok(seeds.len())
}
