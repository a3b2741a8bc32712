//! The bench of services: a client on one machine calls a server on another through a pair of proxies that
//! trust each other by certificates, as two hosts of a mesh do.

mod aims;
mod certificates;
mod contender;
mod figure;
mod ground;
mod load;
mod origin;

use lab::LabError;

use crate::arguments::{Arguments, choose};
use crate::link::Link;
use crate::output::Output;
use crate::presentation::{Presentation, Row};
use crate::rounds;
use crate::{machine, tools};
use contender::Contender;
use figure::Figure;

const SHOWN: Presentation<Figure> = Presentation {
    page: "services-performance.md",
    facts: &["between the hosts"],
    tables: &[
        ("requests", &Figure::OF_REQUESTS),
        ("time", &Figure::OF_TIME),
        ("memory and large bodies", &Figure::OF_SIZE),
    ],
    panels: &[
        (Figure::Requests, "more is better"),
        (Figure::ProcessorTime, "less is better"),
        (Figure::AddedP50, "less is better"),
        (Figure::AddedP99, "less is better"),
    ],
    beyond_compare: "no proxy",
    aims: aims::AIMS,
};

/// Measures what was asked for and shows it.
pub(crate) fn run(arguments: Arguments) -> Result<(), LabError> {
    let all = contender::all(&arguments.ours, &arguments.tools);
    let contenders = choose("contender", all, &arguments.only, |one| one.name())?;
    let plan = arguments.plan(Figure::all().collect(), &[Link::DefaultOffloads])?;
    tools::require(tools::OF_SERVICES)?;
    load::allow_many_files();
    // First, so that a program that is missing is noticed at once.
    let versions: Result<Vec<_>, _> = contenders.iter().map(|one| one.version()).collect();
    let how = format!(
        "{} s of each load, times with {} requests a second that do not wait for each other",
        plan.seconds,
        figure::TIMED_PER_SEC
    );
    let versions = versions?.into_iter().flatten().collect();
    let machine = machine::describe(plan.rounds, &how, versions);
    let rows = contenders.iter().map(|one| row(one.as_ref())).collect();
    let output = Output::new(arguments.output, machine, &plan.links, rows, SHOWN)?;
    let results = rounds::run(
        &contenders,
        &plan,
        |one| one.name(),
        |one, link, figures| figure::measure(&one.stand(link)?, &plan, figures),
        |results| output.write(results),
    )?;
    println!("{}", output.table(&results));
    Ok(())
}

fn row(contender: &dyn Contender) -> Row {
    Row {
        name: contender.name(),
        facts: vec![contender.between().into()],
    }
}
