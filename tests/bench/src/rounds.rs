//! Who is measured when.

use lab::LabError;

use crate::kind::Kind;
use crate::link::Link;
use crate::results::Results;

/// What is measured, how often and how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan<K> {
    pub(crate) rounds: u32,
    /// Of each stream, or of each load.
    pub(crate) seconds: u32,
    pub(crate) links: Vec<Link>,
    pub(crate) figures: Vec<K>,
}

/// Goes through all contenders on all links, as often as planned; `trial` measures one once. Each round
/// begins with another contender, so that nobody always follows the same one. Who fails is told of and goes
/// on in the next round; after each round `report` is given what there is.
pub(crate) fn run<C, K: Kind>(
    contenders: &[C],
    plan: &Plan<K>,
    name: impl Fn(&C) -> &'static str,
    mut trial: impl FnMut(&C, Link, &mut Vec<(K, f64)>) -> Result<(), LabError>,
    mut report: impl FnMut(&Results<K>) -> Result<(), LabError>,
) -> Result<Results<K>, LabError> {
    let mut results = Results::default();
    for round in 0..plan.rounds {
        for link in &plan.links {
            for contender in in_turn(contenders, round as usize) {
                let name = name(contender);
                let place = format!("round {} of {}, {}", round + 1, plan.rounds, link.name());
                let mut figures = Vec::new();
                let outcome = trial(contender, *link, &mut figures);
                eprintln!("{place}: {name}: {}", shown(&figures));
                results.add(*link, name, figures);
                if let Err(error) = outcome {
                    eprintln!("{place}: {name} failed: {error}");
                    results.add_failure(*link, name, round, &error.to_string());
                }
            }
        }
        report(&results)?;
    }
    Ok(results)
}

fn in_turn<T>(all: &[T], first: usize) -> impl Iterator<Item = &T> {
    let (before, after) = all.split_at(first % all.len().max(1));
    after.iter().chain(before)
}

fn shown<K: Kind>(figures: &[(K, f64)]) -> String {
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
