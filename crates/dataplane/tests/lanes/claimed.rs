//! Flows that pass because of who sends them go to their lanes with what is known of that.

use model::name::Name;
use model::rule::{Bundle, Selector, Source, Workload};

use crate::pair::team::Arrival;
use crate::pair::{bundle, rule, udp_port};
use crate::{SECOND, SERVICE, lanes, lost_answers, no_drops, open_lanes, teams};

fn web() -> Name {
    "web".parse().expect("a name")
}

/// The workload `web` of any host may ask the service.
fn of_web() -> Bundle {
    let mut allow = rule("web-service", udp_port(SERVICE));
    allow.from = vec![Selector::Workload(web())];
    let workload = Workload {
        name: web(),
        unit: Some("web.service".parse().expect("a unit")),
        user: None,
        hosts: vec![Selector::Any],
        source: Source::default(),
    };
    Bundle {
        workloads: vec![workload],
        ..bundle(vec![allow], Vec::new())
    }
}

#[test]
fn claimed_flows_lose_nothing_while_lanes_open_and_close() {
    for arrival in [Arrival::Steered, Arrival::InTurn] {
        let mut teams = teams([4, 2]);
        teams.arrival = arrival;
        for host in [0, 1] {
            teams.hosts[host].sender = Some(web());
            teams.set_bundle(host, &of_web(), 7);
        }
        open_lanes(&mut teams);
        for host in [0, 1] {
            assert_eq!(lanes(&mut teams, host), [0, 1]);
        }
        // Clients are silent, and lanes that nobody uses close.
        for _ in 0..10 {
            teams.pass(16 * SECOND);
            assert_eq!(lost_answers(&mut teams), 0);
        }
        no_drops(&teams);
    }
}
