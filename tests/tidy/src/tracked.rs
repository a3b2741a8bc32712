//! Reads the repository: files by `git ls-files`, crates by `cargo metadata`.

use std::fs;
use std::path::Path;
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};

/// The platform whose dependencies are examined.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// One file of the repository that is text.
#[derive(Debug, Clone)]
pub struct Tracked {
    /// Relative to the repository, with `/` between the parts.
    pub path: String,
    /// The whole file.
    pub text: String,
}

impl Tracked {
    /// A file for the unit tests of a rule.
    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether a tool wrote it: such a file answers to its generator, not to these rules.
    pub(crate) fn is_generated(&self) -> bool {
        self.text.starts_with("// @generated")
    }
}

/// What cargo knows about the workspace.
///
/// # Panics
///
/// When `cargo metadata` fails.
pub fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(vec!["--filter-platform".into(), PLATFORM.into()])
        .exec()
        .expect("`cargo metadata` runs in this workspace")
}

/// Every text file that git tracks or would track after `git add`.
///
/// # Panics
///
/// When `root` is not a git checkout.
pub fn tracked_files(root: &Path) -> Vec<Tracked> {
    let output = Command::new("git")
        .current_dir(root)
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .output()
        .expect("git is installed");
    assert!(
        output.status.success(),
        "`git ls-files` fails in {}: run these tests in a git checkout of the project\n{}",
        root.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut paths: Vec<String> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter_map(|path| {
            // A file that was just deleted, or is not text, has no lines to judge.
            let text = fs::read_to_string(root.join(&path)).ok()?;
            Some(Tracked { path, text })
        })
        .collect()
}
