//! Where the results go: to standard output, or into a directory as a table, a picture and numbers.

use std::fs;
use std::path::{Path, PathBuf};

use lab::LabError;
use serde_json::json;

use crate::aims;
use crate::kind::Kind;
use crate::link::Link;
use crate::plot;
use crate::presentation::{Presentation, Row};
use crate::results::Results;
use crate::table;

/// What is written besides the results, and where to.
pub(crate) struct Output<K: 'static> {
    directory: Option<PathBuf>,
    machine: String,
    links: Vec<Link>,
    rows: Vec<Row>,
    shown: Presentation<K>,
}

impl<K: Kind> Output<K> {
    /// Makes the directory, so that a run does not end without a place for its results.
    pub(crate) fn new(
        directory: Option<PathBuf>,
        machine: String,
        links: &[Link],
        rows: Vec<Row>,
        shown: Presentation<K>,
    ) -> Result<Self, LabError> {
        if let Some(directory) = &directory {
            fs::create_dir_all(directory).map_err(|error| {
                LabError::new(format!("cannot make {}: {error}", directory.display()))
            })?;
        }
        Ok(Self {
            directory,
            machine,
            links: links.to_vec(),
            rows,
            shown,
        })
    }

    /// Writes the files anew; without a directory nothing.
    pub(crate) fn write(&self, results: &Results<K>) -> Result<(), LabError> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let mut numbers = results.to_json();
        numbers["machine"] = json!(self.machine);
        let numbers = format!("{numbers:#}\n");
        let picture = plot::render(self.shown, &self.rows, &self.links, results);
        let table = format!(
            "# Measured\n\n{}\nWhat the figures mean: [performance](../{}).\n",
            self.table(results),
            self.shown.page,
        );
        write(&directory.join("table.md"), &table)?;
        write(&directory.join("plot.svg"), &picture)?;
        write(&directory.join("results.json"), &numbers)
    }

    /// The machine, the tables, and what was reached.
    pub(crate) fn table(&self, results: &Results<K>) -> String {
        let tables = table::render(self.shown, &self.rows, &self.links, results);
        format!(
            "{}\n\n{}{tables}",
            self.machine,
            aims::render(self.shown.aims, results)
        )
    }
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text)
        .map_err(|error| LabError::new(format!("cannot write {}: {error}", path.display())))
}
