//! What all benches have in common of what they measure: numbers of certain kinds.

use std::fmt::Debug;

/// A kind of number that a contender has on a link.
pub(crate) trait Kind: Copy + Debug + Ord + 'static {
    /// How it is written.
    fn writing(self) -> Writing;

    /// What `--figures` and the results call it.
    fn key(self) -> &'static str {
        self.writing().key
    }

    /// The head of its column.
    fn title(self) -> &'static str {
        self.writing().title
    }

    /// Digits behind the point that mean something.
    fn decimals(self) -> usize {
        self.writing().decimals
    }
}

/// How a figure is written.
pub(crate) struct Writing {
    /// For `--figures` and the results.
    pub(crate) key: &'static str,
    /// The head of its column.
    pub(crate) title: &'static str,
    /// Digits behind the point that mean something.
    pub(crate) decimals: usize,
}

/// What tests of what is common measure.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sample {
    /// Of which more is better.
    Speed,
    /// Of which less is better.
    Cost,
}

#[cfg(test)]
impl Kind for Sample {
    fn writing(self) -> Writing {
        let (key, title) = match self {
            Self::Speed => ("speed", "Speed (Gb/s)"),
            Self::Cost => ("cost", "Cost (s)"),
        };
        Writing {
            key,
            title,
            decimals: 2,
        }
    }
}
