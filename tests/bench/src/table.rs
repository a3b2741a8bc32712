//! The results as Markdown: for each link a table about streams and one about packets, every figure with
//! its ratio to ours.

use std::fmt::{self, Write};

use crate::contender::Contender;
use crate::figure::Figure;
use crate::link::Link;
use crate::results::Results;

/// The row that the others are compared with.
const OURS: &str = "ours";

/// A row's head.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) cipher: &'static str,
    pub(crate) mtu: u16,
}

impl From<&dyn Contender> for Row {
    fn from(contender: &dyn Contender) -> Self {
        Self {
            name: contender.name(),
            cipher: contender.cipher(),
            mtu: contender.mtu(),
        }
    }
}

/// Renders the tables of each link, and below who failed.
pub(crate) fn render(rows: &[Row], links: &[Link], results: &Results) -> String {
    let mut text = String::new();
    write(&mut text, rows, links, results).expect("a String takes every text");
    text
}

fn write(text: &mut String, rows: &[Row], links: &[Link], results: &Results) -> fmt::Result {
    for link in links {
        for (about, figures) in [
            ("streams", &Figure::OF_STREAMS[..]),
            ("packets", &Figure::OF_PACKETS[..]),
        ] {
            let is_measured = |figure: &Figure| {
                let has = |row: &Row| results.median(*link, row.name, *figure).is_some();
                rows.iter().any(has)
            };
            let figures: Vec<_> = figures.iter().copied().filter(is_measured).collect();
            if figures.is_empty() {
                continue;
            }
            writeln!(text, "### {}: {about}\n", link.name())?;
            write!(text, "| | cipher | MTU |")?;
            for figure in &figures {
                write!(text, " {} |", figure.title())?;
            }
            writeln!(text, "\n|---|---|---:|{}", "---:|".repeat(figures.len()))?;
            for row in rows {
                write!(text, "| {} | {} | {} |", row.name, row.cipher, row.mtu)?;
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

fn cell(results: &Results, link: Link, contender: &'static str, figure: Figure) -> String {
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

    fn row(name: &'static str) -> Row {
        Row {
            name,
            cipher: "none",
            mtu: 1420,
        }
    }

    #[test]
    fn medians_stand_beside_their_ratio_to_ours() {
        let mut results = Results::default();
        for value in [1.0, 2.0, 9.0] {
            results.add(Link::NicLike, OURS, [(Figure::TcpStream, value)]);
        }
        results.add(Link::NicLike, OURS, [(Figure::ProcessorTime, 3.0)]);
        results.add(Link::NicLike, "other", [(Figure::TcpStream, 0.5)]);
        let text = render(&[row(OURS), row("other")], &Link::ALL, &results);
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
        results.add(Link::NicLike, "a", [(Figure::Datagrams64, 1.0)]);
        let text = render(&[row("a"), row("b")], &Link::ALL, &results);
        let cells: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells, [5; 4]);
    }

    #[test]
    fn who_failed_is_named_below() {
        let mut results = Results::default();
        results.add_failure(Link::NicLike, "a", 1, "no answer");
        let text = render(&[row("a")], &Link::ALL, &results);
        let line = "- a failed in round 2 (NIC-like (TSO, GSO, GRO off)): no answer\n";
        assert_eq!(text, line);
    }
}
