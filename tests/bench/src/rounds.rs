//! Who is measured when.

use lab::LabError;

use crate::contender::Contender;
use crate::figure::{self, Figure};
use crate::ground::Ground;
use crate::link::Link;
use crate::results::Results;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    /// Of each stream.
    pub(crate) seconds: u32,
}

/// Goes through all contenders on all links, as often as planned. Each round begins with another
/// contender, so that nobody always follows the same one.
pub(crate) fn run(contenders: &[Box<dyn Contender>], plan: Plan) -> Result<Results, LabError> {
    let mut results = Results::default();
    for round in 0..plan.rounds {
        for link in Link::ALL {
            for contender in in_turn(contenders, round as usize) {
                let name = contender.name();
                let figures = trial(contender.as_ref(), link, plan.seconds)
                    .map_err(|error| LabError::new(format!("{name}, {}: {error}", link.name())))?;
                eprintln!(
                    "round {} of {}, {}: {name}: {}",
                    round + 1,
                    plan.rounds,
                    link.name(),
                    shown(&figures)
                );
                results.add(link, name, figures);
            }
        }
    }
    Ok(results)
}

/// Measures one contender once, on machines of its own.
fn trial(
    contender: &dyn Contender,
    link: Link,
    seconds: u32,
) -> Result<Vec<(Figure, f64)>, LabError> {
    let ground = Ground::new(link)?;
    let joined = contender.join(&ground)?;
    figure::measure(&ground, &joined, seconds)
}

fn in_turn<T>(all: &[T], first: usize) -> impl Iterator<Item = &T> {
    let (before, after) = all.split_at(first % all.len().max(1));
    after.iter().chain(before)
}

fn shown(figures: &[(Figure, f64)]) -> String {
    let each = figures
        .iter()
        .map(|(figure, value)| format!("{} {value:.*}", figure.title(), figure.decimals()));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another() {
        let all = ["a", "b", "c"];
        let rounds: Vec<String> = (0..4)
            .map(|first| in_turn(&all, first).copied().collect())
            .collect();
        assert_eq!(rounds, ["abc", "bca", "cab", "abc"]);
    }
}
