//! The results as Markdown: for each link the tables of the bench, every figure with its ratio to ours.

use std::fmt::{self, Write};

use crate::kind::Kind;
use crate::link::Link;
use crate::presentation::{Presentation, Row};
use crate::results::Results;

/// The row that the others are compared with.
const OURS: &str = "ours";

/// Renders the tables of each link, and below who failed.
pub(crate) fn render<K: Kind>(
    shown: Presentation<K>,
    rows: &[Row],
    links: &[Link],
    results: &Results<K>,
) -> String {
    let mut text = String::new();
    write(&mut text, shown, rows, links, results).expect("a String takes every text");
    text
}

fn write<K: Kind>(
    text: &mut String,
    shown: Presentation<K>,
    rows: &[Row],
    links: &[Link],
    results: &Results<K>,
) -> fmt::Result {
    for link in links {
        for (about, figures) in shown.tables {
            let is_measured = |figure: &K| {
                let has = |row: &Row| results.median(*link, row.name, *figure).is_some();
                rows.iter().any(has)
            };
            let figures: Vec<_> = figures.iter().copied().filter(is_measured).collect();
            if figures.is_empty() {
                continue;
            }
            writeln!(text, "### {}: {about}\n", link.name())?;
            write!(text, "| |")?;
            for fact in shown.facts {
                write!(text, " {fact} |")?;
            }
            for figure in &figures {
                write!(text, " {} |", figure.title())?;
            }
            let (left, right) = (
                "---|".repeat(shown.facts.len()),
                "---:|".repeat(figures.len()),
            );
            writeln!(text, "\n|---|{left}{right}")?;
            for row in rows {
                write!(text, "| {} | {} |", row.name, row.facts.join(" | "))?;
                for figure in &figures {
                    write!(text, " {} |", cell(results, *link, row.name, *figure))?;
                }
                writeln!(text)?;
            }
            writeln!(text)?;
        }
    }
    for failure in results.failures() {
        writeln!(
            text,
            "- {} failed in round {} ({}): {}",
            failure.contender,
            failure.round + 1,
            failure.link.name(),
            failure.reason
        )?;
    }
    Ok(())
}

fn cell<K: Kind>(results: &Results<K>, link: Link, contender: &'static str, figure: K) -> String {
    let Some(value) = results.median(link, contender, figure) else {
        return "–".into();
    };
    let decimals = figure.decimals();
    match results.median(link, OURS, figure) {
        Some(ours) if contender != OURS && ours > 0.0 => {
            format!("{value:.decimals$} ({:.2}×)", value / ours)
        }
        _ => format!("{value:.decimals$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Sample::{self, Cost, Speed};

    const SHOWN: Presentation<Sample> = Presentation {
        page: "",
        facts: &["cipher", "MTU"],
        tables: &[("everything", &[Speed, Cost])],
        panels: &[],
        beyond_compare: "",
        aims: &[],
    };

    fn row(name: &'static str) -> Row {
        Row {
            name,
            facts: vec!["none".into(), "1420".into()],
        }
    }

    #[test]
    fn medians_stand_beside_their_ratio_to_ours() {
        let mut results = Results::default();
        for value in [1.0, 2.0, 9.0] {
            results.add(Link::NicLike, OURS, [(Speed, value)]);
        }
        results.add(Link::NicLike, OURS, [(Cost, 3.0)]);
        results.add(Link::NicLike, "other", [(Speed, 0.5)]);
        let text = render(SHOWN, &[row(OURS), row("other")], &Link::ALL, &results);
        assert!(
            text.contains("| ours | none | 1420 | 2.00 | 3.00 |\n"),
            "{text}"
        );
        assert!(
            text.contains("| other | none | 1420 | 0.50 (0.25×) | – |\n"),
            "{text}"
        );
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head_and_nothing_unmeasured_has_a_table() {
        let mut results = Results::default();
        results.add(Link::NicLike, "a", [(Speed, 1.0)]);
        let text = render(SHOWN, &[row("a"), row("b")], &Link::ALL, &results);
        let cells: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells, [5; 4]);
    }

    #[test]
    fn who_failed_is_named_below() {
        let mut results = Results::<Sample>::default();
        results.add_failure(Link::NicLike, "a", 1, "no answer");
        let text = render(SHOWN, &[row("a")], &Link::ALL, &results);
        let line = "- a failed in round 2 (NIC-like (TSO, GSO, GRO off)): no answer\n";
        assert_eq!(text, line);
    }
}
