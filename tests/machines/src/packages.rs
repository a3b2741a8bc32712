//! The built packages of one version.

use std::fs;
use std::path::{Path, PathBuf};

use lab::LabError;

use crate::image::target_directory;

/// What `cargo xtask package --profile dev` made.
#[derive(Debug, Clone)]
pub struct Packages {
    /// The daemon and the operator's tool.
    pub meshd: PathBuf,
    /// The coordinator.
    pub coordinator: PathBuf,
    /// The same, for machines of the other family.
    pub meshd_rpm: PathBuf,
    /// The same, for machines of the other family.
    pub coordinator_rpm: PathBuf,
}

impl Packages {
    /// Finds the packages of the version that the sources have.
    ///
    /// # Errors
    ///
    /// They were not made.
    pub fn find() -> Result<Self, LabError> {
        Self::find_number(env!("CARGO_PKG_VERSION"))
    }

    /// Finds the packages that were made under another number: the same programs, as what a machine
    /// is upgraded to.
    ///
    /// # Errors
    ///
    /// They were not made.
    pub fn find_number(number: &str) -> Result<Self, LabError> {
        let directory = target_directory()?.join("packages/dev").join(number);
        let one = |start: &str, end: &str| one_file(&directory, start, end, number);
        Ok(Self {
            meshd: one("meshd_", ".deb")?,
            coordinator: one("mesh-coordinator_", ".deb")?,
            meshd_rpm: one("meshd-", ".rpm")?,
            coordinator_rpm: one("mesh-coordinator-", ".rpm")?,
        })
    }
}

fn one_file(directory: &Path, start: &str, end: &str, number: &str) -> Result<PathBuf, LabError> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found = files.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    });
    found.ok_or_else(|| {
        LabError::new(format!(
            "there is no {start}*{end} in {}: run `cargo xtask package --profile dev --number {number}`",
            directory.display()
        ))
    })
}
