//! What is wrong with a bundle, or deserves a look: where, why and what to try, shown with the
//! line and a caret under it.

use std::fmt::Write;

use model::admin::DiagnosticView;
use model::rule::Source;

use crate::SourceFile;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The bundle cannot be applied.
    Error,
    /// The bundle can be applied and may not do what was meant.
    Warning,
}

impl Severity {
    /// Returns the word for people and machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, or deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Relative to the bundle's directory; empty: the bundle as a whole.
    pub file: String,
    /// From 1; 0: the whole file.
    pub line: u32,
    /// From 1, in characters; 0: the whole line.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to try.
    pub help: Option<String>,
    excerpt: Option<Excerpt>,
}

/// The part of a line that is shown, made safe for terminals.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    caret_start: usize,
    caret_length: usize,
}

impl Diagnostic {
    /// Makes a diagnostic out of what a coordinator answered, with the lines of the files that it
    /// was asked about.
    pub fn from_view(view: &DiagnosticView, files: &[SourceFile]) -> Self {
        let severity = if view.severity == "warning" {
            Severity::Warning
        } else {
            Severity::Error
        };
        let text = files
            .iter()
            .find(|file| file.path == view.file)
            .map(|file| file.text.as_str());
        Self {
            severity,
            file: view.file.clone(),
            line: view.line,
            column: view.column,
            message: view.message.clone(),
            help: view.help.clone(),
            excerpt: text.and_then(|text| Excerpt::of(text, view.line, view.column, 1)),
        }
    }

    /// Returns the diagnostic as people read it, over several lines, the last one ended.
    pub fn render(&self) -> String {
        let mut out = format!("{}: {}\n", self.severity.as_str(), self.message);
        let gutter = " ".repeat(self.line.to_string().len());
        if !self.file.is_empty() {
            let place = match (self.line, self.column) {
                (0, _) => self.file.clone(),
                (line, 0) => format!("{}:{line}", self.file),
                (line, column) => format!("{}:{line}:{column}", self.file),
            };
            let _ = writeln!(out, "{gutter}--> {place}");
        }
        if let Some(excerpt) = &self.excerpt {
            let indent = " ".repeat(excerpt.caret_start);
            let carets = "^".repeat(excerpt.caret_length);
            let _ = writeln!(out, "{gutter} |");
            let _ = writeln!(out, "{} | {}", self.line, excerpt.text);
            let _ = writeln!(out, "{gutter} | {indent}{carets}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{gutter} = help: {help}");
        }
        out
    }
}

impl From<&Diagnostic> for DiagnosticView {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: diagnostic.severity.as_str().to_owned(),
            file: diagnostic.file.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
        }
    }
}

impl Excerpt {
    /// How much of a long line is shown, and how much of that before the place.
    const CHARS_MAX: usize = 140;
    const CHARS_BEFORE: usize = 60;

    fn of(text: &str, line: u32, column: u32, length: u32) -> Option<Self> {
        let line = text.lines().nth(line.checked_sub(1)? as usize)?;
        let start = column.checked_sub(1)? as usize;
        let skipped = if start < Self::CHARS_MAX {
            0
        } else {
            start - Self::CHARS_BEFORE
        };
        let shown: String = line
            .chars()
            .skip(skipped)
            .take(Self::CHARS_MAX)
            .map(printable)
            .collect();
        let shown = shown.trim_end();
        let room = shown.chars().count().saturating_sub(start - skipped);
        Some(Self {
            text: shown.to_owned(),
            caret_start: start - skipped,
            caret_length: (length as usize).min(room).max(1),
        })
    }
}

fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        other if other.is_control() => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// Returns text of an operator as it stands in a message: short, on one line, in backticks.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).map(printable).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Position in the list of files.
    pub(crate) file: u32,
    /// From 1; 0: the whole file.
    pub(crate) line: u32,
    /// From 1, in characters.
    pub(crate) column: u32,
    /// In characters, on its first line.
    pub(crate) length: u32,
}

impl Place {
    /// Returns the place of a file as a whole.
    pub(crate) const fn whole_file(file: u32) -> Self {
        Self {
            file,
            line: 0,
            column: 0,
            length: 0,
        }
    }

    /// Returns file and line, as rules keep it.
    pub(crate) fn source(self, files: &[SourceFile]) -> Source {
        Source {
            file: files[self.file as usize].path.clone(),
            line: self.line,
        }
    }
}

/// Collects diagnostics about some files, up to a number that a person can read.
pub(crate) struct Report<'f> {
    files: &'f [SourceFile],
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
}

/// What is wrong with one value, before it is known where the value stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Complaint {
    /// Says what is wrong.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to try.
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    /// Adds what was probably meant, if anything was.
    pub(crate) fn suggest(self, meant: Option<String>) -> Self {
        match meant {
            Some(meant) => self.help(format!("did you mean `{meant}`?")),
            None => self,
        }
    }
}

impl<'f> Report<'f> {
    /// How many diagnostics are kept.
    const DIAGNOSTICS_MAX: usize = 100;

    /// After how many errors there is no use in looking for more.
    const ERRORS_MAX: usize = 1_000;

    /// Starts an empty report about the files.
    pub(crate) fn new(files: &'f [SourceFile]) -> Self {
        Self {
            files,
            diagnostics: Vec::new(),
            errors: 0,
            left_out: 0,
        }
    }

    /// Returns the files.
    pub(crate) fn files(&self) -> &'f [SourceFile] {
        self.files
    }

    /// Adds an error.
    pub(crate) fn error(&mut self, place: Place, complaint: Complaint) {
        self.errors += 1;
        self.add(Severity::Error, Some(place), complaint);
    }

    /// Returns whether so much is wrong that there is no use in looking for more.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.errors >= Self::ERRORS_MAX
    }

    /// Adds an error about the bundle as a whole.
    pub(crate) fn error_of_bundle(&mut self, complaint: Complaint) {
        self.errors += 1;
        self.add(Severity::Error, None, complaint);
    }

    /// Adds a warning.
    pub(crate) fn warn(&mut self, place: Place, complaint: Complaint) {
        self.add(Severity::Warning, Some(place), complaint);
    }

    /// Returns the value, or reports what is wrong with it.
    pub(crate) fn check<T>(&mut self, place: Place, result: Result<T, Complaint>) -> Option<T> {
        result
            .map_err(|complaint| self.error(place, complaint))
            .ok()
    }

    /// Returns a place as text for messages: `rules.yaml:3`.
    pub(crate) fn named(&self, place: Place) -> String {
        place.source(self.files).to_string()
    }

    /// Returns the warnings.
    ///
    /// # Errors
    /// Everything in the order of the files, when an error is among it.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        self.diagnostics.sort_by(|a, b| {
            (&a.file, a.line, a.column, a.severity).cmp(&(&b.file, b.line, b.column, b.severity))
        });
        if self.left_out > 0 {
            let at_least = if self.is_hopeless() { "at least " } else { "" };
            let message = format!("{at_least}{} more are not shown", self.left_out);
            let severity = if self.errors > 0 {
                Severity::Error
            } else {
                Severity::Warning
            };
            self.diagnostics
                .push(self.diagnostic(severity, None, Complaint::new(message)));
        }
        if self.errors == 0 {
            Ok(self.diagnostics)
        } else {
            Err(self.diagnostics)
        }
    }

    fn add(&mut self, severity: Severity, place: Option<Place>, complaint: Complaint) {
        if self.diagnostics.len() < Self::DIAGNOSTICS_MAX {
            let diagnostic = self.diagnostic(severity, place, complaint);
            self.diagnostics.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    fn diagnostic(
        &self,
        severity: Severity,
        place: Option<Place>,
        complaint: Complaint,
    ) -> Diagnostic {
        let Complaint { message, help } = complaint;
        let file = place.map(|place| &self.files[place.file as usize]);
        Diagnostic {
            severity,
            file: file.map(|file| file.path.clone()).unwrap_or_default(),
            line: place.map_or(0, |place| place.line),
            column: place.map_or(0, |place| place.column),
            message,
            help,
            excerpt: place
                .zip(file)
                .and_then(|(at, file)| Excerpt::of(&file.text, at.line, at.column, at.length)),
        }
    }
}
