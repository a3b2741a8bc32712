//! Calls of services, by who calls what.

use model::local::CallPart;
use proxy::{EdgeSum, Observatory, Stage, Transport};
use runtime::metrics::Page;

use super::*;

/// Writes all of them.
pub(super) fn write(page: &mut Page, observatory: &Observatory) {
    let edges = observatory.edges();
    let mut calls = page.metric(CALLS);
    for edge in &edges {
        for (status, reason, count) in edge.ended() {
            calls.add([part(edge), &edge.from, &edge.to, status, reason], count);
        }
    }
    let mut to_answer = page.metric(CALL_SECONDS);
    for edge in &edges {
        let labels = [part(edge), &*edge.from, &*edge.to];
        to_answer.add_histogram(labels, edge.to_answer());
    }
    let mut stages = page.metric(CALL_STAGE_SECONDS);
    for edge in &edges {
        for stage in Stage::ALL {
            let labels = [part(edge), &*edge.from, &*edge.to, stage.name()];
            stages.add_histogram(labels, edge.stage(stage));
        }
    }
    let mut bytes = page.metric(CALL_BYTES);
    for edge in &edges {
        let (from, to) = edge.bytes();
        bytes
            .add([part(edge), &edge.from, &edge.to, "request"], from)
            .add([part(edge), &edge.from, &edge.to, "answer"], to);
    }
    let mut retries = page.metric(CALL_RETRIES);
    for edge in edges.iter().filter(|it| it.part == Some(CallPart::Source)) {
        retries.add([&*edge.from, &*edge.to], edge.retries());
    }
    let (log, spans) = observatory.lost();
    page.metric(CALLS_NOT_TOLD)
        .add(["log"], log)
        .add(["spans"], spans);
    write_services(page, observatory);
    write_connections(page, observatory);
}

fn write_services(page: &mut Page, observatory: &Observatory) {
    let services = observatory.services();
    let mut under_way = page.metric(CALLS_UNDER_WAY);
    for service in &services {
        under_way
            .add([&*service.service, "sent"], u64::from(service.in_flight))
            .add([&*service.service, "waiting"], u64::from(service.waiting));
    }
    let mut states = page.metric(ENDPOINTS);
    for service in &services {
        let count = |state: fn(&model::local::LiveEndpoint) -> bool| {
            service.endpoints.iter().filter(|it| state(it)).count()
        };
        states
            .add(
                [&*service.service, "ready"],
                count(|it| !it.down && it.ejected_by == 0),
            )
            .add(
                [&*service.service, "ejected"],
                count(|it| !it.down && it.ejected_by > 0),
            )
            .add(
                [&*service.service, "down"],
                count(|it| it.down && it.unreachable.is_none()),
            )
            .add(
                [&*service.service, "unreachable"],
                count(|it| it.unreachable.is_some()),
            );
    }
    let mut checks = page.metric(CHECKS_PASSING);
    for check in observatory.checks() {
        checks.add([check.service.as_str()], check.failing.is_none());
    }
}

fn write_connections(page: &mut Page, observatory: &Observatory) {
    let seen = observatory.connections();
    let mut connections = page.metric(CONNECTIONS);
    for transport in [Transport::Tcp, Transport::Quic] {
        let over = seen.iter().filter(|it| it.transport == transport);
        let count: usize = over.map(|it| it.connections).sum();
        connections.add([transport.name()], count);
    }
}

const fn part(edge: &EdgeSum) -> &'static str {
    match edge.part {
        Some(CallPart::Source) => "source",
        Some(CallPart::Destination) => "destination",
        None => "any",
    }
}
