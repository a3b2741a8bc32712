//! The checks, each a function of the facts. One file for each part of the machine.

mod auto_mtu;
mod coordinator;
mod daemon;
mod drops;
mod firewall;
mod host;
mod iptables;
mod names;
mod network;
mod peers;

#[cfg(test)]
pub(super) mod healthy;

use super::facts::Facts;
use super::finding::Finding;

type Check = fn(&Facts) -> Finding;

/// In the order in which they are told: what explains the rest comes first.
const ALL: &[Check] = &[
    daemon::settings,
    daemon::daemon,
    daemon::version,
    daemon::unit,
    daemon::membership,
    daemon::alarms,
    host::disk,
    host::clock,
    host::certificate,
    host::tun,
    host::kernel,
    network::interface,
    network::routes,
    network::obstacles,
    network::leftovers,
    network::port,
    firewall::firewall,
    iptables::iptables,
    firewall::keepers,
    network::coordinator,
    peers::peers,
    peers::large_packets,
    peers::underlay_mtu,
    auto_mtu::auto_mtu,
    drops::drops,
    names::resolver,
    names::resolution,
];

/// Runs every check that this machine needs.
pub(super) fn run(facts: &Facts) -> Vec<Finding> {
    let of_daemon = ALL.iter().filter(|_| facts.has_daemon());
    let of_daemon = of_daemon.map(|check| check(facts));
    let own = facts.own_coordinator.iter();
    let of_coordinator = own.flat_map(|own| coordinator::ALL.iter().map(|check| check(own)));
    of_daemon.chain(of_coordinator).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Outcome;
    use super::*;

    #[test]
    fn a_healthy_host_has_nothing_to_tell() {
        let findings = run(&healthy::facts());
        for finding in &findings {
            assert_eq!(finding.outcome, Outcome::Ok, "{finding:?}");
        }
        let mut names: Vec<&str> = findings.iter().map(|it| it.check).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len(), "each has a name of its own");
    }

    #[test]
    fn nothing_known_is_no_failure_but_the_daemon_s() {
        let findings = run(&healthy::unknown());
        let failures = findings.iter().filter(|it| it.outcome > Outcome::Skipped);
        let failures: Vec<&str> = failures.map(|it| it.check).collect();
        assert_eq!(failures, ["daemon"]);
    }
}
