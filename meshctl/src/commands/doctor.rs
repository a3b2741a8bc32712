//! `meshctl doctor`: looks at what breaks in the field, says what is wrong, why it matters and what to
//! do. Changes nothing, needs no daemon that runs, and tells less to who is not root.

mod checks;
mod facts;
mod finding;
mod gather;

use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::{Doctor, Targets};
use crate::failure::Failure;
use crate::output::{Output, Tone};

use finding::{Finding, Outcome};

pub(crate) use gather::said_by;

/// What `--json` shows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Examination {
    failures: usize,
    warnings: usize,
    checks: Vec<Finding>,
    /// Whoever asked may see everything.
    #[serde(skip)]
    sees_all: bool,
}

/// Looks, and tells.
///
/// # Errors
/// Something does not work: exit code 5.
pub async fn doctor(doctor: Doctor, targets: &Targets, output: &Output) -> Result<(), Failure> {
    output.progress("looking at this machine, its peers and its coordinators");
    let examination = examine(targets, doctor.config).await;
    output.show("Examination", &examination, |output| {
        examination.text(doctor.all, output)
    });
    match examination.failures {
        0 => Ok(()),
        _ => Err(Failure::Wanting(String::new())),
    }
}

/// Gathers the facts, and runs every check on them.
pub(crate) async fn examine(targets: &Targets, config: Option<std::path::PathBuf>) -> Examination {
    let facts = gather::facts(targets, config).await;
    let checks = checks::run(&facts);
    let count = |outcome| checks.iter().filter(|it| it.outcome == outcome).count();
    Examination {
        failures: count(Outcome::Failure),
        warnings: count(Outcome::Warning),
        checks,
        sees_all: facts.is_root,
    }
}

impl Examination {
    /// Returns it for people: what is wrong with all that is known of it, the rest in a line each.
    pub(crate) fn text(&self, all: bool, output: &Output) -> String {
        let shown = |it: &&Finding| all || it.outcome > Outcome::Skipped;
        let mut lines: Vec<String> = Vec::new();
        for finding in self.checks.iter().filter(shown) {
            lines.extend(told(finding, output));
        }
        let good = self
            .checks
            .iter()
            .filter(|it| it.outcome == Outcome::Ok)
            .count();
        let skipped = self
            .checks
            .iter()
            .filter(|it| it.outcome == Outcome::Skipped)
            .count();
        let mut sum = format!(
            "{} failed, {}, {good} in order",
            checks_in(self.failures),
            counted(self.warnings, "warning")
        );
        if skipped > 0 {
            sum += &format!(", {skipped} not looked at");
        }
        if skipped > 0 && !self.sees_all {
            sum += " (most of it for root only: try sudo)";
        }
        if !all {
            sum += "; --all shows each";
        }
        lines.push(sum);
        lines.join("\n")
    }
}

fn checks_in(count: usize) -> String {
    counted(count, "check")
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn told(finding: &Finding, output: &Output) -> Vec<String> {
    let (tone, word) = match finding.outcome {
        Outcome::Ok => (Tone::Good, "ok     "),
        Outcome::Skipped => (Tone::Faint, "-      "),
        Outcome::Warning => (Tone::Doubtful, "warning"),
        Outcome::Failure => (Tone::Bad, "failure"),
    };
    let indent = " ".repeat(9);
    let what = finding.what.replace('\n', &format!("\n{indent}"));
    let mut lines = vec![format!(
        "{}  {}: {what}",
        output.paint(tone, word),
        finding.check
    )];
    lines.extend(finding.why.map(|why| format!("{indent}{why}")));
    let advice = finding.advice.as_ref();
    lines.extend(advice.map(|advice| format!("{indent}→ {advice}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Color;

    #[test]
    fn people_see_what_is_wrong_first_and_the_rest_when_they_ask() {
        let mut facts = checks::healthy::facts();
        facts.tun = facts::TunNode::Missing;
        let checks = checks::run(&facts);
        let examination = Examination {
            failures: 1,
            warnings: 0,
            checks,
            sees_all: true,
        };
        let output = Output::new(false, Color::Never);
        let text = examination.text(false, &output);
        assert!(
            text.starts_with(
                "failure  tun: there is no /dev/net/tun\n         the overlay's interface is a TUN device\n         → `modprobe tun`"
            ),
            "{text}"
        );
        assert!(
            text.contains("1 check failed, 0 warnings, 26 in order; --all"),
            "{text}"
        );
        assert!(examination.text(true, &output).contains("ok       disk: "));
    }
}
