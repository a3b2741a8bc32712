//! What was measured so far, and its medians.

use std::collections::BTreeMap;

use crate::figure::Figure;
use crate::link::Link;

/// Every value of every round.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<(Link, &'static str, Figure), Vec<f64>>);

impl Results {
    pub(crate) fn add(
        &mut self,
        link: Link,
        contender: &'static str,
        figures: impl IntoIterator<Item = (Figure, f64)>,
    ) {
        for (figure, value) in figures {
            self.0
                .entry((link, contender, figure))
                .or_default()
                .push(value);
        }
    }

    /// Returns the median of a figure; `None` where a contender has none of the kind.
    pub(crate) fn median(
        &self,
        link: Link,
        contender: &'static str,
        figure: Figure,
    ) -> Option<f64> {
        median(self.0.get(&(link, contender, figure))?)
    }
}

/// Returns the median: of an even number the mean of the two in the middle, of none `None`.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
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

    #[test]
    fn one_outlier_does_not_move_the_median_far() {
        assert_eq!(median(&[3.0, 1000.0, 2.0]), Some(3.0));
        assert_eq!(median(&[4.0, 2.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }
}
