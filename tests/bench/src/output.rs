//! Where the results go: to standard output, or into a directory as a table, a picture and numbers.

use std::fs;
use std::path::{Path, PathBuf};

use lab::LabError;
use serde_json::json;

use crate::aims;
use crate::contender::Contender;
use crate::link::Link;
use crate::plot;
use crate::results::Results;
use crate::table::{self, Row};

/// What is written besides the results, and where to.
pub(crate) struct Output {
    directory: Option<PathBuf>,
    machine: String,
    links: Vec<Link>,
    rows: Vec<Row>,
}

impl Output {
    /// Makes the directory, so that a run does not end without a place for its results.
    pub(crate) fn new(
        directory: Option<PathBuf>,
        machine: String,
        links: &[Link],
        contenders: &[Box<dyn Contender>],
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
            rows: contenders.iter().map(|one| one.as_ref().into()).collect(),
        })
    }

    /// Writes the files anew; without a directory nothing.
    pub(crate) fn write(&self, results: &Results) -> Result<(), LabError> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let mut numbers = results.to_json();
        numbers["machine"] = json!(self.machine);
        let numbers = format!("{numbers:#}\n");
        let picture = plot::render(&self.rows, &self.links, results);
        let table = format!(
            "# Measured\n\n{}\nWhat the figures mean: [performance](../performance.md).\n",
            self.table(results)
        );
        write(&directory.join("table.md"), &table)?;
        write(&directory.join("plot.svg"), &picture)?;
        write(&directory.join("results.json"), &numbers)
    }

    /// The machine, the tables, and what was reached.
    pub(crate) fn table(&self, results: &Results) -> String {
        let tables = table::render(&self.rows, &self.links, results);
        format!("{}\n\n{}{tables}", self.machine, aims::render(results))
    }
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text)
        .map_err(|error| LabError::new(format!("cannot write {}: {error}", path.display())))
}
