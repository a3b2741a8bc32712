//! Answers for people, as aligned tables and sentences, and for programs, as JSON of a stable
//! shape: `{"version": 1, "kind": "...", "data": ...}`.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use model::admin::DiagnosticView;
use serde::Serialize;

use crate::failure::Failure;

/// Raised when a field changes its meaning or goes; new fields may come without.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// When colour is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On terminals, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where and how a command shows its answer.
#[derive(Debug)]
pub struct Output {
    json: bool,
    color: bool,
    /// Programs get one document, an answer or an error.
    has_shown: AtomicBool,
    /// Standard output takes no more.
    is_broken: AtomicBool,
    /// What of the answer nobody got, and why.
    lost: Mutex<Option<String>>,
}

/// Colours that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Works, allowed.
    Good,
    /// Look at it.
    Doubtful,
    /// Broken, denied.
    Bad,
    /// Less important.
    Faint,
}

impl Output {
    /// Chooses how to show answers.
    pub fn new(json: bool, color: Color) -> Self {
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => wants_color(io::stdout().is_terminal()),
        };
        Self {
            json,
            color,
            has_shown: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            lost: Mutex::new(None),
        }
    }

    /// Returns whether an answer was shown already.
    pub fn has_shown(&self) -> bool {
        self.has_shown.load(Ordering::Relaxed)
    }

    /// Returns whether programs read this.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns whether somebody may still read what is shown.
    pub fn has_reader(&self) -> bool {
        !self.is_broken.load(Ordering::Relaxed)
    }

    /// Shows an answer: `data` to programs, what `people` writes to people.
    pub fn show<T: Serialize>(&self, kind: &str, data: &T, people: impl FnOnce(&Self) -> String) {
        let written = self.answer(kind, data, people);
        self.remember(written, None);
    }

    /// Shows an answer that cannot be had again; `again` says what to do when it is lost.
    pub fn show_once<T: Serialize>(
        &self,
        kind: &str,
        data: &T,
        again: &str,
        people: impl FnOnce(&Self) -> String,
    ) {
        let written = self.answer(kind, data, people);
        self.remember(written, Some(again));
    }

    /// Writes text that has a shape of its own, for people and programs alike.
    pub fn print(&self, text: &[u8]) {
        self.remember(write_out(text), None);
    }

    /// Returns whether everything that was shown could be written.
    ///
    /// # Errors
    /// Says what was lost, and how to have it again.
    pub fn finish(&self) -> Result<(), Failure> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.take().map_or(Ok(()), |why| Err(Failure::Failed(why)))
    }

    fn answer<T: Serialize>(
        &self,
        kind: &str,
        data: &T,
        people: impl FnOnce(&Self) -> String,
    ) -> io::Result<()> {
        let mut text = if self.json {
            let whole =
                serde_json::json!({ "version": SCHEMA_VERSION, "kind": kind, "data": data });
            serde_json::to_string_pretty(&whole).expect("answers are JSON")
        } else {
            people(self)
        };
        self.has_shown.store(true, Ordering::Relaxed);
        text.truncate(text.trim_end().len());
        text.push('\n');
        write_out(text.as_bytes())
    }

    fn remember(&self, written: io::Result<()>, again: Option<&str>) {
        let Err(error) = written else {
            return;
        };
        self.is_broken.store(true, Ordering::Relaxed);
        let why = match again {
            // A closed pipe is the reader's way to say that it has enough.
            None if error.kind() == ErrorKind::BrokenPipe => return,
            None => format!("cannot write the answer to standard output: {error}"),
            Some(again) => {
                format!(
                    "cannot write the answer to standard output, and it is lost: {error}; {again}"
                )
            }
        };
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get_or_insert(why);
    }

    /// Tells people how a long command goes on; programs and pipes hear nothing.
    pub fn progress(&self, text: &str) {
        if !self.json && io::stderr().is_terminal() {
            let _ = writeln!(io::stderr(), "{}", self.paint(Tone::Faint, text));
        }
    }

    /// Tells people something beside the answer; programs hear nothing.
    pub fn remark(&self, text: &str) {
        if !self.json {
            // Nobody reads standard error: then nobody is to be told.
            let _ = writeln!(io::stderr(), "{}", self.paint(Tone::Doubtful, text));
        }
    }

    /// Colours a text, where colour is used.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

fn write_out(text: &[u8]) -> io::Result<()> {
    let mut standard = io::stdout().lock();
    standard.write_all(text)?;
    standard.flush()
}

/// Follows what people set for all their programs: https://no-color.org, http://bixense.com/clicolors
fn wants_color(is_terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && (is_terminal || is_set("CLICOLOR_FORCE"))
}

/// Rows under headings, aligned by their widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Makes a table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| (*heading).to_owned())
                    .collect(),
            ],
        }
    }

    /// Adds a row, with one cell for each heading.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Returns the text, a line a row; `empty` when there is no row.
    pub fn text(&self, empty: &str) -> String {
        if self.rows.len() == 1 {
            return empty.to_owned();
        }
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| visible_width(cell))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        self.rows
            .iter()
            .map(|row| line(row, &widths))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in row.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width - visible_width(cell) + 2));
    }
    text.trim_end().to_owned()
}

/// Colour codes take no room.
fn visible_width(cell: &str) -> usize {
    let mut width = 0;
    let mut in_code = false;
    for character in cell.chars() {
        match (in_code, character) {
            (false, '\u{1b}') => in_code = true,
            (false, _) => width += 1,
            (true, 'm') => in_code = false,
            (true, _) => {}
        }
    }
    width
}

/// Returns a diagnostic as one line, as compilers write it.
pub fn diagnostic_line(diagnostic: &DiagnosticView) -> String {
    let place = match (diagnostic.line, diagnostic.column) {
        (0, _) => diagnostic.file.clone(),
        (line, 0) => format!("{}:{line}", diagnostic.file),
        (line, column) => format!("{}:{line}:{column}", diagnostic.file),
    };
    let help = diagnostic
        .help
        .as_ref()
        .map(|help| format!("\n  help: {help}"))
        .unwrap_or_default();
    format!(
        "{place}: {}: {}{help}",
        diagnostic.severity, diagnostic.message
    )
}

/// Returns a time for people: RFC 3339, to the second, UTC.
pub fn time(unix_secs: u64) -> String {
    i64::try_from(unix_secs)
        .ok()
        .and_then(|secs| jiff::Timestamp::from_second(secs).ok())
        .map_or_else(|| format!("@{unix_secs}"), |time| time.to_string())
}

/// Returns a span for people, in its two largest units.
pub fn span(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", secs % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// Returns how long ago a time was, for people.
pub fn ago(unix_secs: u64, now_secs: u64) -> String {
    format!("{} ago", span(now_secs.saturating_sub(unix_secs)))
}

/// Returns Unix seconds now.
pub fn now_secs() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// Returns a count of bytes for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = count as f64;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_also_with_colour() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a".into(), "up".into()]);
        table.row(["\u{1b}[32mlonger\u{1b}[0m".into(), "down".into()]);
        assert_eq!(
            table.text("none"),
            "NAME    STATE\na       up\n\u{1b}[32mlonger\u{1b}[0m  down"
        );
        assert_eq!(Table::new(&["X"]).text("none"), "none");
    }

    #[test]
    fn spans_and_sizes_read_well() {
        assert_eq!(
            [span(0), span(59), span(61), span(3600), span(90000)],
            ["0s", "59s", "1m01s", "1h00m", "1d01h"]
        );
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536)],
            ["0 B", "1023 B", "1.5 KiB"]
        );
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
    }
}
