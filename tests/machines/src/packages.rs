//! The built packages of one version.

use std::fs;
use std::path::{Path, PathBuf};

use lab::LabError;

use crate::image::target_directory;

/// The number of the next version, as `cargo xtask test` makes it.
const NEWER: &str = "99.0.0";

/// What `cargo xtask package` made.
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
        Self::find_number("dev", env!("CARGO_PKG_VERSION"))
    }

    /// Finds the packages that users get.
    ///
    /// # Errors
    ///
    /// They were not made.
    pub fn find_released() -> Result<Self, LabError> {
        Self::find_number("release", env!("CARGO_PKG_VERSION"))
    }

    /// Finds the packages that were made of the same programs under a higher number.
    ///
    /// # Errors
    ///
    /// They were not made.
    pub fn find_newer() -> Result<Self, LabError> {
        Self::find_number("dev", NEWER)
    }

    fn find_number(profile: &str, number: &str) -> Result<Self, LabError> {
        let directory = target_directory()?
            .join("packages")
            .join(profile)
            .join(number);
        let command = command(profile, number);
        let one = |start: &str, end: &str| one_file(&directory, start, end, &command);
        Ok(Self {
            meshd: one("meshd_", ".deb")?,
            coordinator: one("mesh-coordinator_", ".deb")?,
            meshd_rpm: one("meshd-", ".rpm")?,
            coordinator_rpm: one("mesh-coordinator-", ".rpm")?,
        })
    }
}

/// What makes the packages of that number.
fn command(profile: &str, number: &str) -> String {
    let number = match number == env!("CARGO_PKG_VERSION") {
        true => String::new(),
        false => format!(" --number {number}"),
    };
    format!("cargo xtask package --profile {profile}{number}")
}

fn one_file(directory: &Path, start: &str, end: &str, command: &str) -> Result<PathBuf, LabError> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found = files.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    });
    found.ok_or_else(|| {
        LabError::new(format!(
            "there is no {start}*{end} in {}: run `{command}`",
            directory.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advised_makes_what_is_missing() {
        let own = command("release", env!("CARGO_PKG_VERSION"));
        assert_eq!(own, "cargo xtask package --profile release");
        let newer = command("dev", NEWER);
        assert_eq!(newer, "cargo xtask package --profile dev --number 99.0.0");
    }
}
