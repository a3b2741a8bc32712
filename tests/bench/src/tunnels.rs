//! The bench of tunnels: two machines are joined, and streams and packets go from one to the other.

mod aims;
mod contender;
mod figure;
mod ground;
mod stream;

use lab::LabError;

use crate::arguments::{Arguments, choose};
use crate::link::Link;
use crate::output::Output;
use crate::presentation::{Presentation, Row};
use crate::rounds::{self, Plan};
use crate::{machine, tools};
use contender::Contender;
use figure::{Figure, Trial};
use ground::Ground;

const SHOWN: Presentation<Figure> = Presentation {
    page: "performance.md",
    facts: &["cipher", "MTU"],
    tables: &[
        ("streams", &Figure::OF_STREAMS),
        ("packets", &Figure::OF_PACKETS),
    ],
    panels: &[
        (Figure::TcpStream, "more is better"),
        (Figure::ProcessorTime, "less is better"),
        (Figure::Datagrams128, "more is better"),
        (Figure::LoadedRoundTrip, "less is better"),
    ],
    beyond_compare: "no tunnel",
    aims: aims::AIMS,
};

/// Measures what was asked for and shows it.
pub(crate) fn run(arguments: Arguments) -> Result<(), LabError> {
    let all = contender::all(&arguments.ours, &arguments.tools);
    let contenders = choose("contender", all, &arguments.only, |one| one.name())?;
    let plan = arguments.plan(Figure::all().collect(), &Link::ALL)?;
    tools::require(tools::OF_TUNNELS)?;
    // First, so that a program that is missing is noticed at once.
    let machine = describe(&plan, &contenders)?;
    let rows = contenders.iter().map(|one| row(one.as_ref())).collect();
    let output = Output::new(arguments.output, machine, &plan.links, rows, SHOWN)?;
    let results = rounds::run(
        &contenders,
        &plan,
        |one| one.name(),
        |one, link, figures| trial(one.as_ref(), link, &plan, figures),
        |results| output.write(results),
    )?;
    println!("{}", output.table(&results));
    Ok(())
}

fn describe(plan: &Plan<Figure>, contenders: &[Box<dyn Contender>]) -> Result<String, LabError> {
    let versions: Result<Vec<_>, _> = contenders.iter().map(|one| one.version()).collect();
    let how = format!(
        "TCP (reno) for {} s; less than 1 % of UDP datagrams lost",
        plan.seconds
    );
    let versions = versions?.into_iter().flatten().collect();
    Ok(machine::describe(plan.rounds, &how, versions))
}

fn row(contender: &dyn Contender) -> Row {
    Row {
        name: contender.name(),
        facts: vec![contender.cipher().into(), contender.mtu().to_string()],
    }
}

/// Measures one contender once, on machines of its own.
fn trial(
    contender: &dyn Contender,
    link: Link,
    plan: &Plan<Figure>,
    figures: &mut Vec<(Figure, f64)>,
) -> Result<(), LabError> {
    let ground = Ground::new(link)?;
    let joined = contender.join(&ground)?;
    let trial = Trial {
        ground: &ground,
        joined: &joined,
        wanted: &plan.figures,
        seconds: plan.seconds,
    };
    figure::measure(trial, figures)
}
