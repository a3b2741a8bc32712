//! `meshctl policy`: one file for each few verbs that belong together.

use crate::arguments::{Policy, Targets};
use crate::failure::Failure;
use crate::output::Output;

mod apply;
mod bundle;
mod check;
mod diff;
mod directory;
mod fmt;
mod history;
mod plan;
mod size;

pub(crate) use apply::Outcome as AppliedOutcome;
pub(crate) use check::{CheckReport, TestRun};
pub(crate) use diff::DiffReport;
pub(crate) use fmt::FormatReport;

/// Runs a verb of `meshctl policy`.
///
/// # Errors
/// The bundle is wrong (exit code 5), or the coordinator does not answer or refuses.
pub async fn run(verb: Policy, targets: &Targets, output: &Output) -> Result<(), Failure> {
    match verb {
        Policy::Check { directory } => check::check(&directory, output),
        Policy::Test { directory } => check::test(&directory, targets, output).await,
        Policy::Fmt { directory, check } => fmt::fmt(&directory, check, output),
        Policy::Schema => {
            // It is JSON of a known shape already.
            output.print(policy::SCHEMA.as_bytes());
            Ok(())
        }
        Policy::Diff { first, second } => {
            diff::diff(&first, second.as_deref(), targets, output).await
        }
        Policy::Plan { what } => plan::plan(&what, targets, output).await,
        Policy::Apply(apply) => apply::put_in_force(apply, targets, output).await,
        Policy::History => history::history(targets, output).await,
        Policy::Show { version } => history::show(version, targets, output).await,
        Policy::Rollback(back) => apply::rollback(back, targets, output).await,
        Policy::Status => apply::status(targets, output).await,
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_shortened() {
        let names: Vec<String> = (0..12).map(|number| format!("vm-{number}")).collect();
        assert!(shortened(&names).ends_with("vm-9 and 2 more"));
    }
}
