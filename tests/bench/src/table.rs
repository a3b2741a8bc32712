//! The results as Markdown: a table for each link, every figure with its ratio to ours.

use std::fmt::Write;

use crate::figure::Figure;
use crate::link::Link;
use crate::results::Results;

/// The row that the others are compared with.
const OURS: &str = "ours";

/// Renders a table for each link.
pub(crate) fn render(contenders: &[&'static str], results: &Results) -> String {
    let mut text = String::new();
    for link in Link::ALL {
        write!(text, "\n### {}\n\n|", link.name()).expect("a String takes every text");
        text.push_str(" |");
        for figure in Figure::ALL {
            write!(text, " {} |", figure.title()).expect("a String takes every text");
        }
        text.push_str("\n|---|");
        text.push_str(&"---:|".repeat(Figure::ALL.len()));
        text.push('\n');
        for contender in contenders {
            write!(text, "| {contender} |").expect("a String takes every text");
            for figure in Figure::ALL {
                write!(text, " {} |", cell(results, link, contender, figure))
                    .expect("a String takes every text");
            }
            text.push('\n');
        }
    }
    text
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

    #[test]
    fn medians_stand_beside_their_ratio_to_ours() {
        let mut results = Results::default();
        for value in [1.0, 2.0, 9.0] {
            results.add(Link::NicLike, OURS, [(Figure::TcpStream, value)]);
        }
        results.add(Link::NicLike, "other", [(Figure::TcpStream, 0.5)]);
        let text = render(&[OURS, "other"], &results);
        assert!(text.contains("| ours | 2.00 | – | – | – | – |\n"), "{text}");
        assert!(text.contains("| other | 0.50 (0.25×) | – |"), "{text}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_the_head() {
        let text = render(&["a", "b"], &Results::default());
        let cells: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.matches('|').count())
            .collect();
        assert_eq!(cells, vec![Figure::ALL.len() + 2; 8]);
    }
}
