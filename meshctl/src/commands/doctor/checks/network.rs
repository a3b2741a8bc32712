//! The machine's network: interface, routes, what a dead daemon left, the port, the coordinator.

use ipnet::IpNet;
use model::local::HostState;

use super::super::facts::{Facts, Obstacle, Route, Verdict};
use super::super::finding::Finding;

/// Why something is not judged that a daemon which still runs may have made.
const HUNG: &str = "meshd runs and does not answer: see the check daemon";

pub(super) fn interface(facts: &Facts) -> Finding {
    const CHECK: &str = "interface";
    let (Ok(settings), Ok(_), Ok(status)) = (&facts.settings, &facts.links, &facts.daemon) else {
        return Finding::skipped(CHECK, "it is not known which interface there should be");
    };
    let is_member = matches!(status.state, HostState::Online | HostState::Autonomous);
    let name = &settings.interface;
    match facts.link(name) {
        Some(link) if link.is_up => Finding::ok(CHECK, format!("{name} is up")),
        Some(_) => Finding::failure(
            CHECK,
            format!("the interface {name} is down"),
            "no packet of the overlay passes",
            "find out who took it down (a network manager?) and let it leave this interface alone; meshd brings it up again within seconds",
        ),
        None if is_member => Finding::failure(
            CHECK,
            format!("there is no interface {name}, although this host is a member"),
            "no packet of the overlay passes",
            "the alarms of `meshctl status` say why; see also the checks tun, routes and firewall",
        ),
        None => Finding::skipped(CHECK, "no member needs none"),
    }
}

pub(super) fn routes(facts: &Facts) -> Finding {
    const CHECK: &str = "routes";
    let routes = match &facts.routes {
        Ok(routes) => routes,
        Err(why) => return Finding::skipped(CHECK, why.clone()),
    };
    let overlay = facts.overlay();
    if overlay.is_empty() {
        return Finding::skipped(CHECK, "the overlay's prefixes are not known here");
    }
    let own = facts.own_devices();
    if own.is_empty() {
        return Finding::skipped(CHECK, "which interface is the overlay's is not known here");
    }
    let is_own = |route: &Route| route.device.as_ref().is_some_and(|it| own.contains(it));
    let is_foreign = |route: &&Route| !route.is_ours && !is_own(route);
    let clash = routes.iter().filter(is_foreign).find_map(|route| {
        let theirs = route.destination?;
        let ours = overlay.iter().find(|ours| overlaps(**ours, theirs))?;
        Some((route, theirs, ours))
    });
    match clash {
        Some((route, theirs, ours)) => Finding::failure(
            CHECK,
            format!(
                "the overlay's prefix {ours} overlaps with the route {theirs}{}",
                route
                    .device
                    .as_ref()
                    .map_or(String::new(), |it| format!(" dev {it}"))
            ),
            "packets for peers go elsewhere, or those for that network into the overlay; meshd does not start on such an overlap",
            "remove that route, or found the fleet with another --overlay-v4",
        ),
        None => Finding::ok(CHECK, "no route of this host overlaps with the overlay"),
    }
}

fn overlaps(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

pub(super) fn obstacles(facts: &Facts) -> Finding {
    const CHECK: &str = "plan";
    match &facts.obstacles {
        Err(_) if matches!(facts.verdict, Verdict::Refused(_)) => {
            Finding::skipped(CHECK, "meshd does not take its settings: see that check")
        }
        Err(Obstacle::Refused(why)) => Finding::failure(
            CHECK,
            format!("meshd cannot tell what it would make here: {why}"),
            "it does not start either where it cannot tell that",
            "as it says; `meshd --plan` tells it again",
        ),
        Err(Obstacle::NotAsked(why)) => Finding::skipped(CHECK, why.clone()),
        Ok(_) if facts.is_hung() => Finding::skipped(CHECK, HUNG),
        Ok(found) if found.is_empty() => {
            Finding::ok(CHECK, "nothing is in the way of what meshd would make")
        }
        Ok(found) => Finding::failure(
            CHECK,
            found.join("\n"),
            "meshd changes nothing on a host where its overlay would clash",
            "as it says; `meshd --plan` shows all that meshd would make",
        ),
    }
}

pub(super) fn leftovers(facts: &Facts) -> Finding {
    const CHECK: &str = "leftovers";
    if facts.daemon.is_ok() {
        return Finding::ok(CHECK, "what guards the overlay is looked after by meshd");
    }
    if facts.is_hung() {
        return Finding::skipped(CHECK, HUNG);
    }
    if facts.routes.is_err() {
        return Finding::skipped(CHECK, "the routes are not known");
    }
    match &facts.overlay()[..] {
        [] => Finding::ok(CHECK, "no daemon that died left anything"),
        left => {
            let left: Vec<String> = left.iter().map(ToString::to_string).collect();
            Finding::warning(
                CHECK,
                format!(
                    "meshd does not run, and {} is kept unreachable",
                    left.join(" and ")
                ),
                "on purpose: nothing for peers leaves in the clear while their tunnels are gone",
                "start meshd; or free the addresses: `nft delete table inet mesh; ip route flush proto 190; ip -6 route flush proto 190`",
            )
        }
    }
}

pub(super) fn port(facts: &Facts) -> Finding {
    const CHECK: &str = "port";
    let (Some(port), Ok(held)) = (facts.port(), &facts.udp_ports) else {
        return Finding::skipped(CHECK, "it is not known who has which port");
    };
    if facts.is_hung() {
        return Finding::skipped(CHECK, HUNG);
    }
    match (facts.daemon.is_ok(), held.contains(&port)) {
        (true, true) => Finding::ok(CHECK, format!("UDP {port} is meshd's")),
        (true, false) => Finding::failure(
            CHECK,
            format!("nobody listens on UDP {port}, although meshd answers"),
            "no tunnel of this host can work",
            "does this shell see the same network as meshd (containers, namespaces)? else `systemctl restart meshd`",
        ),
        (false, true) => Finding::failure(
            CHECK,
            format!("another program has UDP {port}"),
            "meshd cannot start without its port",
            format!("`ss -lunp sport = :{port}` says which; stop it, or set listen_port"),
        ),
        (false, false) => Finding::ok(CHECK, format!("UDP {port} is free")),
    }
}

pub(super) fn coordinator(facts: &Facts) -> Finding {
    const CHECK: &str = "coordinator";
    const WHY: &str = "this host keeps its peers, names and rules, and learns of no change";
    let failed = |(address, reached): &(String, Result<(), String>)| {
        let why = reached.as_ref().err()?;
        Some(format!("{address}: {why}"))
    };
    let shown: Vec<String> = facts.coordinators.iter().filter_map(failed).collect();
    let status = facts.daemon.as_ref().ok();
    let said = status.and_then(|it| it.detail.as_ref()?.coordinator_error.clone());
    if facts.coordinators.is_empty() {
        return Finding::skipped(CHECK, "this host knows no coordinator");
    }
    if shown.len() == facts.coordinators.len() {
        return Finding::failure(
            CHECK,
            format!("no coordinator can be reached: {}", shown.join("; ")),
            WHY,
            "is it running, is TCP open from here to it, and does its name resolve here?",
        );
    }
    if let (Some(said), Some(HostState::Autonomous)) = (said, status.map(|it| it.state)) {
        return Finding::failure(
            CHECK,
            format!("a coordinator can be reached, and meshd is not in touch with it: {said}"),
            WHY,
            "see the checks clock and certificate; something between may answer in its place",
        );
    }
    match &shown[..] {
        [] => Finding::ok(CHECK, "every address of a coordinator can be reached"),
        some => Finding::warning(
            CHECK,
            format!(
                "not every address of a coordinator can be reached: {}",
                some.join("; ")
            ),
            "one of the others is used; when that one goes, this host is on its own",
            "is TCP open from here to it, and does its name resolve here?",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::facts::Process;
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    #[test]
    fn an_interface_that_is_gone_or_down_fails() {
        let mut facts = healthy::facts();
        facts
            .links
            .as_mut()
            .unwrap()
            .retain(|link| link.name != "mesh0");
        assert_eq!(interface(&facts).outcome, Outcome::Failure);
        let mut facts = healthy::facts();
        for link in facts.links.as_mut().unwrap() {
            link.is_up = false;
        }
        assert!(interface(&facts).what.contains("is down"));
    }

    #[test]
    fn a_route_into_the_overlay_is_named_whatever_its_size() {
        for theirs in ["100.64.0.0/10", "100.64.7.0/24", "100.64.7.7/32"] {
            let mut facts = healthy::facts();
            facts.routes.as_mut().unwrap().push(Route {
                destination: Some(theirs.parse().unwrap()),
                device: Some("tailscale0".into()),
                is_ours: false,
                is_unreachable: false,
            });
            let finding = routes(&facts);
            assert_eq!(finding.outcome, Outcome::Failure);
            let said = format!("{theirs} dev tailscale0");
            assert!(finding.what.contains(&said), "{finding:?}");
        }
    }

    #[test]
    fn routes_of_the_overlay_s_own_interface_clash_with_nothing_also_without_settings() {
        let mut facts = healthy::facts();
        facts.settings = Err("they cannot be read".into());
        facts.routes.as_mut().unwrap().push(Route {
            destination: Some("100.64.0.16/32".parse().unwrap()),
            device: Some("mesh0".into()),
            is_ours: false,
            is_unreachable: false,
        });
        assert_eq!(routes(&facts).outcome, Outcome::Ok);
        let own = |route: &Route| route.is_ours && route.device.is_some();
        facts.routes.as_mut().unwrap().retain(|route| !own(route));
        assert_eq!(routes(&facts).outcome, Outcome::Skipped);
    }

    #[test]
    fn a_plan_that_fails_is_no_plan_without_obstacles() {
        let mut facts = healthy::facts();
        facts.obstacles = Err(Obstacle::Refused("cannot read the state".into()));
        assert_eq!(obstacles(&facts).outcome, Outcome::Failure);
        facts.verdict = Verdict::Refused("mtu 99".into());
        assert_eq!(obstacles(&facts).outcome, Outcome::Skipped);
    }

    #[test]
    fn what_the_plan_says_is_passed_on() {
        let mut facts = healthy::facts();
        facts.obstacles = Ok(vec!["a table inet mesh exists already".into()]);
        assert_eq!(obstacles(&facts).outcome, Outcome::Failure);
    }

    #[test]
    fn what_a_dead_daemon_left_is_explained() {
        let mut facts = healthy::facts();
        facts.daemon = Err("nobody listens".into());
        facts.process = Process::None;
        let finding = leftovers(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.what.contains("100.64.0.0/16"), "{finding:?}");
    }

    #[test]
    fn the_port_has_to_be_meshd_s() {
        let mut facts = healthy::facts();
        facts.daemon = Err("nobody listens".into());
        facts.process = Process::None;
        assert!(port(&facts).what.contains("another program"));
        let mut facts = healthy::facts();
        facts.udp_ports = Ok([53].into());
        assert_eq!(port(&facts).outcome, Outcome::Failure);
    }

    #[test]
    fn each_address_of_a_coordinator_counts() {
        let mut facts = healthy::facts();
        facts
            .coordinators
            .push(("b:7443".into(), Err("timed out".into())));
        let finding = coordinator(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.what.contains("b:7443: timed out"), "{finding:?}");
        facts.coordinators.retain(|(_, reached)| reached.is_err());
        assert_eq!(coordinator(&facts).outcome, Outcome::Failure);
        let mut facts = healthy::facts();
        facts.daemon.as_mut().unwrap().state = HostState::Autonomous;
        healthy::detail(&mut facts).coordinator_error = Some("another root".into());
        let finding = coordinator(&facts);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("another root"), "{finding:?}");
    }
}
