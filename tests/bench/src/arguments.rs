//! What a person may ask of a bench: how long, how often, and of whom.

use std::path::PathBuf;

use clap::Args;
use lab::LabError;

use crate::kind::Kind;
use crate::link::Link;
use crate::rounds::Plan;

/// The same for every bench.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Seconds of each stream or load that count; what warms it up goes before them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Measures only these contenders.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) only: Vec<String>,
    /// Measures only these figures, and what is measured with them.
    #[arg(long, value_name = "FIGURE", num_args = 1..)]
    figures: Vec<String>,
    /// Measures only on these links: default, nic-like.
    #[arg(long, value_name = "LINK", num_args = 1..)]
    links: Vec<String>,
    /// Writes table.md, plot.svg and results.json there, anew after each round.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output: Option<PathBuf>,
    /// Where our programs are, built with --release.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) ours: PathBuf,
    /// Where the tools are that were installed for this project alone.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) tools: PathBuf,
}

impl Arguments {
    /// What is measured: everything of these, or what was asked for.
    pub(crate) fn plan<K: Kind>(
        &self,
        figures: Vec<K>,
        links: &[Link],
    ) -> Result<Plan<K>, LabError> {
        let asked_links = match self.links.is_empty() {
            true => links.to_vec(),
            false => choose("link", Link::ALL.to_vec(), &self.links, |link| link.key())?,
        };
        Ok(Plan {
            rounds: self.rounds,
            seconds: self.seconds,
            links: asked_links,
            figures: choose("figure", figures, &self.figures, |one| one.key())?,
        })
    }
}

/// All, or those that were asked for by their names.
pub(crate) fn choose<T>(
    kind: &str,
    mut all: Vec<T>,
    wanted: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>, LabError> {
    let names: Vec<_> = all.iter().map(&name).collect();
    for wanted in wanted {
        if !names.contains(&wanted.as_str()) {
            return Err(LabError::new(format!(
                "there is no {kind} \"{wanted}\"; there are: {}",
                names.join("; ")
            )));
        }
    }
    if !wanted.is_empty() {
        all.retain(|one| wanted.iter().any(|wanted| wanted == name(one)));
    }
    Ok(all)
}
