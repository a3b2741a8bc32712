//! The results as a picture: a panel for each of the figures that matter most, a row for each contender, a
//! bar for each link.

use std::fmt::{self, Write};

use crate::kind::Kind;
use crate::link::Link;
use crate::presentation::{Presentation, Row};
use crate::results::Results;

const PANELS_ABREAST: usize = 2;

// In pixels.
const PANEL_WIDTH: f64 = 560.0;
const NAMES_WIDTH: f64 = 170.0;
const VALUES_WIDTH: f64 = 60.0;
const BAR_HEIGHT: f64 = 8.0;
const ROW_HEIGHT: f64 = 24.0;
const HEAD_HEIGHT: f64 = 44.0;
const MARGIN: f64 = 16.0;
const LEGEND_HEIGHT: f64 = 28.0;

const STYLE: &str = "\
text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.note{fill:#666}.value{font-size:10px;fill:#444}\
.ours{font-weight:bold}.default{fill:#2166ac}.nic-like{fill:#92c5de}";

/// Draws the medians.
pub(crate) fn render<K: Kind>(
    shown: Presentation<K>,
    rows: &[Row],
    links: &[Link],
    results: &Results<K>,
) -> String {
    let mut text = String::new();
    draw(&mut text, shown, rows, links, results).expect("a String takes every text");
    text
}

fn draw<K: Kind>(
    text: &mut String,
    shown: Presentation<K>,
    rows: &[Row],
    links: &[Link],
    results: &Results<K>,
) -> fmt::Result {
    let panel_height = HEAD_HEIGHT + ROW_HEIGHT * rows.len() as f64 + MARGIN;
    let width = MARGIN + PANEL_WIDTH * PANELS_ABREAST as f64;
    let down = shown.panels.len().div_ceil(PANELS_ABREAST) as f64;
    let height = LEGEND_HEIGHT + panel_height * down + MARGIN;
    writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">"
    )?;
    writeln!(text, "<style>{STYLE}</style>")?;
    writeln!(
        text,
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>"
    )?;
    for (number, link) in links.iter().enumerate() {
        let x = MARGIN + 260.0 * number as f64;
        writeln!(
            text,
            "<rect class=\"{}\" x=\"{x}\" y=\"12\" width=\"12\" height=\"12\"/><text x=\"{}\" y=\"22\">{}</text>",
            link.key(),
            x + 18.0,
            link.name()
        )?;
    }
    for (number, (figure, way)) in shown.panels.iter().enumerate() {
        let panel = Panel {
            x: MARGIN + PANEL_WIDTH * (number % PANELS_ABREAST) as f64,
            y: LEGEND_HEIGHT + panel_height * (number / PANELS_ABREAST) as f64,
            figure: *figure,
            way,
            beyond_compare: shown.beyond_compare,
        };
        panel.draw(text, rows, links, results)?;
    }
    writeln!(text, "</svg>")
}

/// One figure of all.
struct Panel<K> {
    x: f64,
    y: f64,
    figure: K,
    way: &'static str,
    beyond_compare: &'static str,
}

impl<K: Kind> Panel<K> {
    fn draw(
        &self,
        text: &mut String,
        rows: &[Row],
        links: &[Link],
        results: &Results<K>,
    ) -> fmt::Result {
        let Self {
            x, y, figure, way, ..
        } = self;
        writeln!(
            text,
            "<text x=\"{x}\" y=\"{}\"><tspan class=\"title\">{}</tspan> <tspan class=\"note\">{way}</tspan></text>",
            y + 28.0,
            figure.title()
        )?;
        let value = |row: &Row, link: &Link| results.median(*link, row.name, *figure);
        let all = rows
            .iter()
            .filter(|row| row.name != self.beyond_compare)
            .flat_map(|row| links.iter().filter_map(|link| value(row, link)));
        let most = all.fold(0.0, f64::max);
        for (number, row) in rows.iter().enumerate() {
            let top = y + HEAD_HEIGHT + ROW_HEIGHT * number as f64;
            let class = if row.name.starts_with("ours") {
                "ours"
            } else {
                "name"
            };
            writeln!(
                text,
                "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                x + NAMES_WIDTH - 8.0,
                top + BAR_HEIGHT + 4.0,
                row.name
            )?;
            for (at, link) in links.iter().enumerate() {
                let Some(value) = value(row, link) else {
                    continue;
                };
                let room = PANEL_WIDTH - NAMES_WIDTH - VALUES_WIDTH - MARGIN;
                let share = value / most.max(f64::MIN_POSITIVE);
                let (length, cut) = match share <= 1.0 {
                    true => (room * share, ""),
                    false => (room, " (cut)"),
                };
                let (left, bar) = (x + NAMES_WIDTH, top + (BAR_HEIGHT + 2.0) * at as f64);
                let decimals = figure.decimals();
                writeln!(
                    text,
                    "<rect class=\"{}\" x=\"{left}\" y=\"{bar}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\"/>\
                     <text class=\"value\" x=\"{:.1}\" y=\"{}\">{value:.decimals$}{cut}</text>",
                    link.key(),
                    left + length + 4.0,
                    bar + BAR_HEIGHT,
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Sample::{self, Speed};

    const SHOWN: Presentation<Sample> = Presentation {
        page: "",
        facts: &[],
        tables: &[],
        panels: &[(Speed, "more is better")],
        beyond_compare: "no tunnel",
        aims: &[],
    };

    #[test]
    fn bars_are_as_long_as_their_values_say() {
        let row = |name| Row {
            name,
            facts: Vec::new(),
        };
        let mut results = Results::default();
        results.add(Link::NicLike, "ours", [(Speed, 4.0)]);
        results.add(Link::NicLike, "other", [(Speed, 1.0)]);
        let picture = render(
            SHOWN,
            &[row("ours"), row("other")],
            &[Link::NicLike],
            &results,
        );
        let widths: Vec<f64> = picture
            .lines()
            .filter(|line| line.contains("class=\"value\""))
            .map(|line| line.split("width=\"").nth(1).unwrap())
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(widths, [314.0, 78.5]);
        assert!(!picture.contains("cut"));
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn the_bare_link_does_not_make_the_others_short() {
        let rows = ["no tunnel", "ours"].map(|name| Row {
            name,
            facts: Vec::new(),
        });
        let mut results = Results::default();
        results.add(Link::NicLike, "no tunnel", [(Speed, 50.0)]);
        results.add(Link::NicLike, "ours", [(Speed, 4.0)]);
        let picture = render(SHOWN, &rows, &[Link::NicLike], &results);
        assert!(picture.contains(">50.00 (cut)<"));
        assert_eq!(picture.matches("width=\"314.0\"").count(), 2, "{picture}");
    }
}
