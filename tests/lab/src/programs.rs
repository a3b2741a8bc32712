//! Where the built programs are.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Doing, LabError};

const DIRECTORY_VARIABLE: &str = "MESH_PROGRAMS";

/// The three programs of the product, as built.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon of a host.
    pub meshd: PathBuf,
    /// The operator's tool.
    pub meshctl: PathBuf,
    /// The control program.
    pub coordinator: PathBuf,
}

impl Programs {
    /// Whether `MESH_PROGRAMS` says where they are.
    pub fn are_named() -> bool {
        env::var_os(DIRECTORY_VARIABLE).is_some()
    }

    /// Finds them in the directory that `MESH_PROGRAMS` names, or where this program was built.
    ///
    /// # Errors
    ///
    /// When one is not there.
    pub fn find() -> Result<Self, LabError> {
        let directory = match env::var_os(DIRECTORY_VARIABLE) {
            Some(directory) => PathBuf::from(directory),
            None => build_directory(&env::current_exe().doing("find this program's own file")?),
        };
        Ok(Self {
            meshd: program(&directory, "meshd")?,
            meshctl: program(&directory, "meshctl")?,
            coordinator: program(&directory, "mesh-coordinator")?,
        })
    }
}

/// Where the packages of Python are that the lab's clients and servers import.
///
/// # Errors
///
/// When they are not installed.
pub fn python_packages() -> Result<PathBuf, LabError> {
    let executable = env::current_exe().doing("find this program's own file")?;
    let profile = build_directory(&executable);
    let target = profile.parent().unwrap_or(&profile);
    let packages = target.join("tools/python");
    if packages.is_dir() {
        return Ok(packages);
    }
    Err(LabError::new(format!(
        "there is no {}: run `cargo xtask python`, which installs what tests/lab/clients needs",
        packages.display()
    )))
}

/// Puts a script in the place of a program, as a package manager would put another program there:
/// who runs the former one goes on with it.
///
/// # Errors
///
/// When it cannot be written.
pub fn replace_program(path: &Path, script: &str) -> Result<(), LabError> {
    let next = path.with_extension("new");
    let executable = fs::Permissions::from_mode(0o755);
    fs::write(&next, script)
        .and_then(|()| fs::set_permissions(&next, executable))
        .and_then(|()| fs::rename(&next, path))
        .doing(format_args!("replace {}", path.display()))
}

/// `target/PROFILE` of a program in it, or of a test in `target/PROFILE/deps`.
fn build_directory(executable: &Path) -> PathBuf {
    let directory = executable.parent().unwrap_or(executable);
    match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(directory).to_path_buf(),
        _ => directory.to_path_buf(),
    }
}

fn program(directory: &Path, name: &str) -> Result<PathBuf, LabError> {
    let path = directory.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(LabError::new(format!(
        "{} is not built: run `cargo build --bins`, or set {DIRECTORY_VARIABLE} to the directory \
         of the built programs",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_finds_the_programs_one_directory_up() {
        let test = Path::new("/x/target/debug/deps/story-0123");
        assert_eq!(build_directory(test), Path::new("/x/target/debug"));
    }

    #[test]
    fn the_demo_finds_the_programs_beside_itself() {
        let demo = Path::new("/x/target/release/xtask");
        assert_eq!(build_directory(demo), Path::new("/x/target/release"));
    }
}
