//! What this project wants to reach, and whether a run reached it: so that a change that costs speed is seen
//! in a word.

use std::fmt::{self, Write};

use crate::kind::Kind;
use crate::link::Link;
use crate::results::Results;

/// One of ours, a figure on a link, and what it is to be like.
pub(crate) struct Aim<K> {
    pub(crate) ours: &'static str,
    pub(crate) figure: K,
    pub(crate) link: Link,
    pub(crate) bound: Bound,
}

/// What a figure is to be like.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// So many times what another has, or more.
    Least(f64, &'static str),
    /// So many times what another has, or less.
    Most(f64, &'static str),
    /// So much, or less.
    Ceiling(f64),
}

impl<K: Kind> Aim<K> {
    pub(crate) const fn new(ours: &'static str, figure: K, link: Link, bound: Bound) -> Self {
        Self {
            ours,
            figure,
            link,
            bound,
        }
    }

    /// Whoever of these is named by the aim.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        let other = match self.bound {
            Bound::Least(_, other) | Bound::Most(_, other) => Some(other),
            Bound::Ceiling(_) => None,
        };
        [self.ours].into_iter().chain(other)
    }

    /// What is wanted, in words.
    fn wanted(&self) -> String {
        match self.bound {
            Bound::Least(times, other) => format!("at least {times} × {other}"),
            Bound::Most(times, other) => format!("at most {times} × {other}"),
            Bound::Ceiling(limit) => format!("at most {limit}"),
        }
    }

    /// What was measured, in words, and whether it will do; `None` where something was not measured.
    fn reached(&self, results: &Results<K>) -> Option<(String, bool)> {
        let median = |contender| results.median(self.link, contender, self.figure);
        let ours = median(self.ours)?;
        let times = |other| Some(ours / median(other)?);
        Some(match self.bound {
            Bound::Least(least, other) => {
                let times = times(other)?;
                (format!("{times:.2} ×"), times >= least)
            }
            Bound::Most(most, other) => {
                let times = times(other)?;
                (format!("{times:.2} ×"), times <= most)
            }
            Bound::Ceiling(limit) => {
                let decimals = self.figure.decimals();
                (format!("{ours:.decimals$}"), ours <= limit)
            }
        })
    }
}

/// Renders the aims about which the run says something; nothing when there are none.
pub(crate) fn render<K: Kind>(aims: &[Aim<K>], results: &Results<K>) -> String {
    let mut text = String::new();
    write(&mut text, aims, results).expect("a String takes every text");
    text
}

fn write<K: Kind>(text: &mut String, aims: &[Aim<K>], results: &Results<K>) -> fmt::Result {
    let mut is_first = true;
    for aim in aims {
        let Some((measured, is_met)) = aim.reached(results) else {
            continue;
        };
        if is_first {
            writeln!(
                text,
                "### Aims\n\n| | on | wanted | measured | |\n|---|---|---|---:|---|"
            )?;
            is_first = false;
        }
        writeln!(
            text,
            "| {}: {} | {} | {} | {measured} | {} |",
            aim.ours,
            aim.figure.title(),
            aim.link.name(),
            aim.wanted(),
            if is_met { "met" } else { "**missed**" },
        )?;
    }
    if !is_first {
        writeln!(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Sample::{self, Cost, Speed};

    const AIMS: &[Aim<Sample>] = {
        use Link::DefaultOffloads;
        &[
            Aim::new("ours", Speed, DefaultOffloads, Bound::Least(3.6, "other")),
            Aim::new("second", Speed, DefaultOffloads, Bound::Least(5.2, "other")),
            Aim::new("ours", Cost, DefaultOffloads, Bound::Ceiling(2.5)),
            Aim::new("second", Cost, DefaultOffloads, Bound::Most(0.5, "ours")),
        ]
    };

    #[test]
    fn an_aim_is_judged_only_when_both_were_measured() {
        let mut results = Results::default();
        let mut speed = |contender, value| {
            results.add(Link::DefaultOffloads, contender, [(Speed, value)]);
        };
        speed("ours", 3.7);
        assert_eq!(render(AIMS, &Results::default()), "");
        speed("other", 1.0);
        speed("second", 5.1);
        let text = render(AIMS, &results);
        assert!(text.contains("at least 3.6 × other | 3.70 × | met |"));
        assert!(text.contains("at least 5.2 × other | 5.10 × | **missed** |"));
        assert_eq!(text.lines().count(), 4 + 2 + 1, "{text}");
    }

    #[test]
    fn bounds_from_above_are_met_below_them() {
        let mut results = Results::default();
        results.add(Link::DefaultOffloads, "ours", [(Cost, 2.51)]);
        results.add(Link::DefaultOffloads, "second", [(Cost, 1.25)]);
        let text = render(AIMS, &results);
        assert!(text.contains("at most 2.5 | 2.51 | **missed** |"), "{text}");
        assert!(
            text.contains("at most 0.5 × ours | 0.50 × | met |"),
            "{text}"
        );
    }
}
