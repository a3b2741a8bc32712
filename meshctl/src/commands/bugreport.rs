//! `meshctl bugreport`: what is known of this host, in one file for who is to help. Every text goes
//! through the redaction; files that hold secrets are named and measured, never read.

mod archive;
mod collection;
mod redaction;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Bugreport, Targets};
use crate::failure::Failure;
use crate::output::{Output, Table, bytes, now_secs, time};

use redaction::Redaction;

/// What `--json` shows.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BugReport")]
pub(crate) struct Report {
    /// `null`: nothing was written.
    file: Option<PathBuf>,
    /// Bytes of the file.
    size: Option<usize>,
    /// What is in it.
    contents: Vec<Entry>,
}

/// One file of the archive.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "BugReportEntry")]
pub(crate) struct Entry {
    name: String,
    bytes: usize,
}

/// Collects, redacts and writes.
///
/// # Errors
/// The file is there already or cannot be written.
pub async fn bugreport(
    asked: Bugreport,
    targets: &Targets,
    output: &Output,
) -> Result<(), Failure> {
    output.progress("collecting what is known of this host, without its secrets");
    let redaction = Redaction::new(asked.redact_addresses);
    let collected = collection::collect(targets, asked.config).await;
    let texts: Vec<(String, String)> = collected
        .into_iter()
        .map(|(name, text)| (name.to_owned(), redaction.apply(&text)))
        .collect();
    let contents = texts.iter().map(|(name, text)| Entry {
        name: name.clone(),
        bytes: text.len(),
    });
    let mut report = Report {
        file: None,
        size: None,
        contents: contents.collect(),
    };
    if !asked.list {
        let now = now_secs();
        let path = asked.file.unwrap_or_else(|| default_name(now));
        let whole = archive::gzipped(&texts, now);
        write(&path, &whole)?;
        report.size = Some(whole.len());
        report.file = Some(path);
    }
    output.show("BugReport", &report, |_| text(&report));
    Ok(())
}

fn default_name(now: u64) -> PathBuf {
    let uname = rustix::system::uname();
    let node = uname.nodename().to_string_lossy();
    let host = node.split('.').next().unwrap_or("host");
    let host: String = host
        .chars()
        .filter(|it| it.is_ascii_alphanumeric() || *it == '-')
        .collect();
    let stamp: String = time(now)
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    format!("meshctl-bugreport-{host}-{stamp}.tar.gz").into()
}

/// For its owner alone: it says much about the network, if nothing secret.
fn write(path: &PathBuf, whole: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(whole)?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        Failure::Failed(format!(
            "cannot write {}: {error}; --file chooses another place",
            path.display()
        ))
    })
}

fn text(report: &Report) -> String {
    let mut table = Table::new(&["FILE", "BYTES"]);
    for entry in &report.contents {
        table.row([entry.name.clone(), entry.bytes.to_string()]);
    }
    let table = table.text("nothing is known of this host");
    match (&report.file, report.size) {
        (Some(file), Some(size)) => format!(
            "{table}\n\nwritten to {} ({}), which only you can read. Keys, tokens and credentials are left out; look through it before you pass it on: `tar xOzf {0} | less`",
            file.display(),
            bytes(u64::try_from(size).unwrap_or(u64::MAX)),
        ),
        _ => format!("{table}\n\nnothing was written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_report_is_its_owner_s_and_takes_nobody_s_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.tar.gz");
        write(&path, b"whole").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = write(&path, b"other").unwrap_err().to_string();
        assert!(refused.contains("--file"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_name_says_when() {
        let name = default_name(0).display().to_string();
        assert!(name.ends_with("-19700101T000000Z.tar.gz"), "{name}");
    }
}
