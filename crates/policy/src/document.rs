//! What operators write: one directory of strict YAML, parsed (`parse`) and checked (`check`)
//! without knowing any host. Names of hosts are bound to hosts by `resolve`.

use std::collections::BTreeMap;

use model::name::Name;
use model::rule::Bundle;

use crate::SourceFile;
use crate::diagnostic::{Diagnostic, Place, Report};
use crate::yaml::{self, Node};

mod bundle;
mod expectation;
mod http;
mod later;
mod ports;
mod quantity;
mod reader;
mod rule;
mod selector;
mod service;
mod suggest;
mod warnings;
mod when;
mod workload;

pub(crate) use expectation::{Asked, AskedRequest};
pub use expectation::{Expectation, Test};
pub(crate) use quantity::Shown;
pub(crate) use reader::Section;
pub(crate) use suggest::nearest;

/// The files of a bundle, valid as YAML.
#[derive(Debug)]
pub struct Document {
    files: Vec<SourceFile>,
    roots: Vec<Option<Node>>,
}

/// A bundle that is right as far as it can be told without the fleet's hosts.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The fleet that it is for.
    pub fleet: Name,
    /// What it says; hosts are named and not yet identified.
    pub bundle: Bundle,
    /// What it promises of itself.
    pub tests: Vec<Test>,
    /// What deserves a look.
    pub warnings: Vec<Diagnostic>,
    pub(crate) files: Vec<SourceFile>,
    pub(crate) names: Names,
}

/// Where names stand, for messages once the hosts are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Each mention of a host in a rule or service.
    pub(crate) hosts: Vec<(Name, Place)>,
    /// Each service, where it is described.
    pub(crate) services: Vec<(Name, Place)>,
}

/// Parses and checks.
///
/// # Errors
/// Everything that is wrong, as far as it can be told at once.
pub fn load(files: &[SourceFile]) -> Result<Checked, Vec<Diagnostic>> {
    parse(files)?.check()
}

/// Parses the files of a bundle's directory, in the order of their paths.
///
/// # Errors
/// What is not strict YAML.
pub fn parse(files: &[SourceFile]) -> Result<Document, Vec<Diagnostic>> {
    let mut files = files.to_vec();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut report = Report::new(&files);
    let roots = yaml::parse_files(&mut report);
    report.finish()?;
    Ok(Document { files, roots })
}

impl Document {
    /// Checks what the files say.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(self) -> Result<Checked, Vec<Diagnostic>> {
        let mut report = Report::new(&self.files);
        let contents = bundle::read(&self.roots, &mut report);
        let warnings = report.finish()?;
        let bundle::Contents {
            fleet,
            bundle,
            tests,
            names,
        } = contents;
        let fleet = fleet.expect("a missing fleet is an error");
        Ok(Checked {
            fleet,
            bundle,
            tests,
            warnings,
            files: self.files,
            names,
        })
    }
}

/// What a bundle describes, by name, so that a bare word is known to be one of them or a host.
#[derive(Default)]
pub(crate) struct Nouns {
    workloads: Described,
    services: Described,
}

/// Where things of one kind are described.
#[derive(Default)]
pub(crate) struct Described(BTreeMap<Name, Place>);

impl Described {
    /// Adds a name, or returns where one stands already.
    fn add(&mut self, name: &Name, place: Place) -> Result<(), Place> {
        match self.0.get(name) {
            Some(first) => Err(*first),
            None => {
                self.0.insert(name.clone(), place);
                Ok(())
            }
        }
    }

    fn contains(&self, name: &Name) -> bool {
        self.0.contains_key(name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(Name::as_str)
    }
}
