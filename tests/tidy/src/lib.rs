//! The rules of the house, as functions that list what breaks them.
//!
//! `tests/house.rs` applies them to this repository; the unit tests show each rule finding something.

mod dependencies;
mod documents;
mod edges;
mod files;
mod links;
mod rust_source;
mod tracked;

pub use dependencies::{misplaced_dependencies, pure_crates_with_io, unnamed_versions};
pub use documents::{forbidden_words, foreign_registries, missing_commands, unlisted_decisions};
pub use edges::forbidden_edges;
pub use files::{banned_names, crates_without_lints, missing_purpose, oversized_files};
pub use links::{broken_links, unlisted_pages};
pub use rust_source::{misplaced_unsafe, undocumented_unsafe};
pub use tracked::{Tracked, metadata, tracked_files};

/// The files of this repository and its crate graph: what every rule reads.
#[derive(Debug)]
pub struct House {
    /// What `cargo metadata` says about the workspace and its dependencies.
    pub metadata: cargo_metadata::Metadata,
    /// Every file that git tracks or would track.
    pub files: Vec<Tracked>,
}

impl House {
    /// Reads the repository that this crate was built from.
    ///
    /// # Panics
    ///
    /// When `cargo metadata` or `git ls-files` does not run here.
    pub fn read() -> Self {
        let metadata = metadata();
        let files = tracked_files(metadata.workspace_root.as_std_path());
        Self { metadata, files }
    }
}
