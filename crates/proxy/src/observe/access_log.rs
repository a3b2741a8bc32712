//! The access log: one line of JSON for each call.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Known;
use super::explain::explain;
use super::record::Record;
use crate::refusal::Reason;

/// How often it is looked whether the file was moved away, as log rotation does.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a file that cannot be written is complained of.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Which calls are logged, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Those that the mesh refused or ended, to a file, or else to standard output.
    Denied(Option<PathBuf>),
    /// All.
    All(Option<PathBuf>),
}

impl AccessLog {
    /// Whether a call is logged that ended for this reason of the mesh, or for none.
    pub(super) const fn wants(&self, reason: Option<Reason>) -> bool {
        match self {
            Self::Off => false,
            Self::Denied(_) => reason.is_some(),
            Self::All(_) => true,
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Denied(path) | Self::All(path) => path.as_deref(),
        }
    }
}

/// Writes the lines.
#[derive(Debug)]
pub(super) struct LogWriter {
    settings: AccessLog,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    file: Option<File>,
    looked: Option<Instant>,
    complained: Option<Instant>,
}

/// One line. New keys may come.
#[derive(Debug, Serialize)]
struct Line<'c> {
    /// With its milliseconds, in UTC.
    time: String,
    #[serde(flatten)]
    call: &'c model::local::CallExplained,
}

impl LogWriter {
    pub(super) const fn new(settings: AccessLog) -> Self {
        Self {
            settings,
            lines: Vec::new(),
            file: None,
            looked: None,
            complained: None,
        }
    }

    pub(super) const fn settings(&self) -> &AccessLog {
        &self.settings
    }

    /// Adds the line of a call; `flush` writes it.
    pub(super) fn write(&mut self, record: &Record, known: &[Known]) {
        let call = explain(record, known);
        let line = Line {
            time: moment(call.began_millis),
            call: &call,
        };
        serde_json::to_writer(&mut self.lines, &line).expect("a line is JSON");
        self.lines.push(b'\n');
    }

    /// Writes what was added. What cannot be written is left out, and complained of.
    pub(super) fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if let Err(error) = self.try_flush() {
            self.file = None;
            if self
                .complained
                .is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY)
            {
                self.complained = Some(Instant::now());
                let path = self.settings.path().unwrap_or(Path::new("standard output"));
                tracing::error!(%error, path = %path.display(), "the access log cannot be written; may meshd write there?");
            }
        }
        self.lines.clear();
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let Some(path) = self.settings.path() else {
            return io::stdout().lock().write_all(&self.lines);
        };
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            if self.file.as_ref().is_some_and(|file| !is_at(file, path)) {
                self.file = None;
            }
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o640)
                .open(path)?,
        };
        file.write_all(&self.lines)?;
        self.file = Some(file);
        Ok(())
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), path.metadata()) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Returns a time as RFC 3339 has it: days to a date by the rules of the civil calendar.
fn moment(unix_millis: u64) -> String {
    let (secs, millis) = (unix_millis / 1000, unix_millis % 1000);
    let (days, second) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of so many days after 1970-01-01 (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", civil_from_days), for days that are not before it.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + 400 * era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_609_459_199_999, "2020-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(moment(millis), expected);
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let mut log = LogWriter::new(AccessLog::All(Some(path.clone())));
        log.lines.extend_from_slice(b"one\n");
        log.flush();
        std::fs::rename(&path, &moved).unwrap();
        log.looked = None;
        log.lines.extend_from_slice(b"two\n");
        log.flush();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn refusals_alone_are_logged_where_only_they_are_asked_for() {
        let denied = AccessLog::Denied(None);
        assert!(denied.wants(Some(Reason::Denied)) && !denied.wants(None));
        assert!(AccessLog::All(None).wants(None));
        assert!(!AccessLog::Off.wants(Some(Reason::Denied)));
    }
}
