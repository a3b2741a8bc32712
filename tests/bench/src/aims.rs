//! What this project wants to reach, and whether a run reached it: so that a change that costs speed is seen
//! in a word.

use std::fmt::{self, Write};

use crate::figure::Figure;
use crate::link::Link;
use crate::results::Results;

/// One of ours, a figure on a link, and what it is to be like.
struct Aim {
    ours: &'static str,
    figure: Figure,
    link: Link,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    /// So many times what another has, or more.
    Least(f64, &'static str),
    /// So many times what another has, or less.
    Most(f64, &'static str),
    /// So much, or less.
    Ceiling(f64),
}

const STANDARD: &str = "ours";
const AES: &str = "ours, AES";

const fn aim(ours: &'static str, figure: Figure, link: Link, bound: Bound) -> Aim {
    Aim {
        ours,
        figure,
        link,
        bound,
    }
}

const AIMS: &[Aim] = {
    use Bound::{Ceiling, Least, Most};
    use Figure::{
        Datagrams128, IdleRoundTrip, LoadedRoundTrip, ProcessorTime, ResidentMemory, TcpStream,
    };
    use Link::{DefaultOffloads, NicLike};
    const OTHER: &str = "gotatun-cli";
    const BARE: &str = "bare forwarder";
    const BARE_AES: &str = "bare forwarder, AES";
    &[
        aim(STANDARD, TcpStream, DefaultOffloads, Least(3.6, OTHER)),
        aim(STANDARD, TcpStream, NicLike, Least(2.8, OTHER)),
        aim(AES, TcpStream, DefaultOffloads, Least(5.2, OTHER)),
        aim(AES, TcpStream, NicLike, Least(3.5, OTHER)),
        aim(STANDARD, TcpStream, DefaultOffloads, Least(0.9, BARE)),
        aim(STANDARD, TcpStream, NicLike, Least(0.9, BARE)),
        aim(AES, TcpStream, DefaultOffloads, Least(0.9, BARE_AES)),
        aim(AES, TcpStream, NicLike, Least(0.9, BARE_AES)),
        aim(STANDARD, ProcessorTime, DefaultOffloads, Ceiling(2.5)),
        aim(AES, ProcessorTime, DefaultOffloads, Ceiling(1.5)),
        aim(STANDARD, Datagrams128, DefaultOffloads, Least(4.0, OTHER)),
        aim(AES, Datagrams128, DefaultOffloads, Least(4.0, OTHER)),
        aim(
            STANDARD,
            IdleRoundTrip,
            DefaultOffloads,
            Most(1.0, "vpncloud, AES"),
        ),
        aim(STANDARD, LoadedRoundTrip, DefaultOffloads, Ceiling(800.0)),
        aim(AES, LoadedRoundTrip, DefaultOffloads, Ceiling(800.0)),
        aim(STANDARD, ResidentMemory, DefaultOffloads, Ceiling(20.0)),
        aim(AES, ResidentMemory, DefaultOffloads, Ceiling(20.0)),
    ]
};

impl Aim {
    /// What is wanted, in words.
    fn wanted(&self) -> String {
        match self.bound {
            Bound::Least(times, other) => format!("at least {times} × {other}"),
            Bound::Most(times, other) => format!("at most {times} × {other}"),
            Bound::Ceiling(limit) => format!("at most {limit}"),
        }
    }

    /// What was measured, in words, and whether it will do; `None` where something was not measured.
    fn reached(&self, results: &Results) -> Option<(String, bool)> {
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
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::new();
    write(&mut text, results).expect("a String takes every text");
    text
}

fn write(text: &mut String, results: &Results) -> fmt::Result {
    let mut is_first = true;
    for aim in AIMS {
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

    #[test]
    fn an_aim_is_judged_only_when_both_were_measured() {
        let mut results = Results::default();
        let mut stream = |contender, value| {
            results.add(
                Link::DefaultOffloads,
                contender,
                [(Figure::TcpStream, value)],
            );
        };
        stream(STANDARD, 3.7);
        assert_eq!(render(&Results::default()), "");
        stream("gotatun-cli", 1.0);
        stream(AES, 5.1);
        let text = render(&results);
        assert!(text.contains("at least 3.6 × gotatun-cli | 3.70 × | met |"));
        assert!(text.contains("at least 5.2 × gotatun-cli | 5.10 × | **missed** |"));
        assert_eq!(text.lines().count(), 4 + 2 + 1, "{text}");
    }

    #[test]
    fn bounds_from_above_are_met_below_them() {
        let mut results = Results::default();
        let figures = [
            (Figure::ProcessorTime, 2.51),
            (Figure::ResidentMemory, 20.0),
        ];
        results.add(Link::DefaultOffloads, STANDARD, figures);
        let text = render(&results);
        assert!(text.contains("at most 2.5 | 2.51 | **missed** |"));
        assert!(text.contains("at most 20 | 20.0 | met |"));
    }

    #[test]
    fn every_aim_is_about_somebody_who_is_measured() {
        let nowhere = std::path::Path::new("");
        let names: Vec<_> = crate::contender::all(nowhere, nowhere)
            .iter()
            .map(|one| one.name())
            .collect();
        for aim in AIMS {
            assert!(names.contains(&aim.ours));
            if let Bound::Least(_, other) | Bound::Most(_, other) = aim.bound {
                assert!(names.contains(&other), "{other}");
            }
        }
    }
}
