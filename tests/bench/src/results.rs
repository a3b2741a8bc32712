//! What was measured so far, its medians, and who failed at what.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::link::Link;

/// Every value of every round.
#[derive(Debug)]
pub(crate) struct Results<K> {
    values: BTreeMap<(Link, &'static str, K), Vec<f64>>,
    failures: Vec<Failure>,
}

impl<K> Default for Results<K> {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            failures: Vec::new(),
        }
    }
}

/// Somebody could not be measured to the end.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) link: Link,
    pub(crate) contender: &'static str,
    /// From 0 on.
    pub(crate) round: u32,
    /// The first line of what was said.
    pub(crate) reason: String,
}

impl<K: Kind> Results<K> {
    pub(crate) fn add(
        &mut self,
        link: Link,
        contender: &'static str,
        figures: impl IntoIterator<Item = (K, f64)>,
    ) {
        for (figure, value) in figures {
            self.values
                .entry((link, contender, figure))
                .or_default()
                .push(value);
        }
    }

    pub(crate) fn add_failure(
        &mut self,
        link: Link,
        contender: &'static str,
        round: u32,
        said: &str,
    ) {
        self.failures.push(Failure {
            link,
            contender,
            round,
            reason: said.lines().next().unwrap_or_default().to_owned(),
        });
    }

    /// Who failed, in the order in which it happened.
    pub(crate) fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Returns the median of a figure; `None` where a contender has none of the kind.
    pub(crate) fn median(&self, link: Link, contender: &'static str, figure: K) -> Option<f64> {
        median(self.values.get(&(link, contender, figure))?)
    }

    /// Every value, for programs.
    pub(crate) fn to_json(&self) -> Value {
        let values = self
            .values
            .iter()
            .map(|((link, contender, figure), values)| {
                json!({
                    "link": link.key(),
                    "contender": contender,
                    "figure": figure.key(),
                    "median": median(values),
                    "rounds": values,
                })
            });
        let failures = self.failures.iter().map(|failure| {
            json!({
                "link": failure.link.key(),
                "contender": failure.contender,
                "round": failure.round + 1,
                "reason": failure.reason,
            })
        });
        json!({
            "values": values.collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
        })
    }
}

/// Returns the median: of an even number the mean of the two in the middle, of none `None`.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Sample::{self, Speed};

    #[test]
    fn one_outlier_does_not_move_the_median_far() {
        assert_eq!(median(&[3.0, 1000.0, 2.0]), Some(3.0));
        assert_eq!(median(&[4.0, 2.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn programs_read_every_round_and_every_failure() {
        let mut results = Results::<Sample>::default();
        for value in [1.0, 3.0] {
            results.add(Link::NicLike, "a", [(Speed, value)]);
        }
        results.add_failure(Link::DefaultOffloads, "b", 0, "no answer\nits log follows");
        let json = results.to_json();
        assert_eq!(json["values"][0]["rounds"], json!([1.0, 3.0]));
        assert_eq!(json["values"][0]["median"], 2.0);
        assert_eq!(json["failures"][0]["reason"], "no answer");
    }
}
