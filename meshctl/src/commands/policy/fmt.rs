//! `meshctl policy fmt`. A file is replaced whole or not at all: it may be the only copy.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::check::rendered;
use super::count;
use super::directory::read_bundle;
use crate::failure::Failure;
use crate::output::{Output, Tone};

/// What was done, for `--json`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct FormatReport {
    /// Files that are, or would be, written differently.
    changed: Vec<String>,
    files: usize,
}

/// Formats all files of a directory, or none when one cannot be.
pub(super) fn fmt(directory: &Path, check: bool, output: &Output) -> Result<(), Failure> {
    let files = read_bundle(directory)?;
    let (mut changed, mut wrong) = (Vec::new(), Vec::new());
    for file in &files {
        match policy::format(file) {
            Ok(text) if text == file.text => {}
            Ok(text) => changed.push((&file.path, text)),
            Err(diagnostics) => wrong.extend(diagnostics),
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::Wanting(format!(
            "{}\nno file was changed",
            rendered(&wrong)
        )));
    }
    if !check {
        for (path, text) in &changed {
            let path = directory.join(path);
            replace(&path, text).map_err(|error| {
                Failure::Failed(format!(
                    "cannot write {}: {error}; it is as it was",
                    path.display()
                ))
            })?;
        }
    }
    let report = FormatReport {
        changed: changed.iter().map(|(path, _)| (*path).clone()).collect(),
        files: files.len(),
    };
    show(&report, check, output);
    if check && !report.changed.is_empty() {
        return Err(Failure::Wanting(format!(
            "{} not formatted; `meshctl policy fmt {}` does it",
            count(report.changed.len(), "file"),
            directory.display()
        )));
    }
    Ok(())
}

fn show(report: &FormatReport, check: bool, output: &Output) {
    output.show("PolicyFormat", report, |output| {
        let (mark, done) = if check {
            (output.paint(Tone::Bad, "✗"), "would be written differently")
        } else {
            (output.paint(Tone::Good, "✓"), "formatted")
        };
        let changed = report.changed.iter();
        let mut lines: Vec<String> = changed
            .map(|path| format!("{mark} {path} {done}"))
            .collect();
        let right = report.files - report.changed.len();
        if right > 0 {
            lines.push(format!("{} formatted already", count(right, "file")));
        }
        lines.join("\n")
    });
}

/// Replaces the content of a file, which keeps its mode, and its owner as far as that is allowed.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one: what it points to is replaced.
    let path = path.canonicalize()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    write_beside(&path, &new, text).inspect_err(|_| {
        // What is left is no bundle file by its name, and the error says more.
        let _ = fs::remove_file(&new);
    })
}

fn write_beside(path: &Path, new: &Path, text: &str) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let mut file = File::create_new(new)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(metadata.permissions())?;
    // Only root may give a file away; for others it is theirs already.
    let _ = chown(new, Some(metadata.uid()), Some(metadata.gid()));
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::output::Color;

    const UNTIDY: &str = "fleet:  prod # of them\n";

    fn output() -> Output {
        Output::new(false, Color::Never)
    }

    #[test]
    fn a_check_changes_nothing_and_a_run_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        fs::write(&path, UNTIDY).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let wanting = fmt(directory.path(), true, &output());
        assert!(matches!(wanting, Err(Failure::Wanting(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), UNTIDY);
        fmt(directory.path(), false, &output()).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "fleet: prod # of them\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        fmt(directory.path(), true, &output()).unwrap();
    }

    #[test]
    fn one_file_that_is_wrong_leaves_all_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), UNTIDY).unwrap();
        fs::write(directory.path().join("b.yaml"), "allow: [\n").unwrap();
        let wanting = fmt(directory.path(), false, &output()).unwrap_err();
        assert!(wanting.to_string().contains("b.yaml"), "{wanting}");
        let text = fs::read_to_string(directory.path().join("a.yaml")).unwrap();
        assert_eq!(text, UNTIDY);
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let target = elsewhere.path().join("shared.yaml");
        fs::write(&target, UNTIDY).unwrap();
        let link = directory.path().join("policy.yaml");
        symlink(&target, &link).unwrap();
        fmt(directory.path(), false, &output()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            fs::read_to_string(&target).unwrap(),
            "fleet: prod # of them\n"
        );
    }
}
