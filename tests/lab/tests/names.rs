//! Mesh DNS as programs on a host see it: which names there are, and who is answered at all.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::fleet::Pair;
use lab::{Lab, LabError, Namespace};

const SERVICES: &str = "\
fleet: test
services:
  orders: { port: 8080, protocol: tcp, endpoints: [\"role=db\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web-orders, from: \"role=web\", to: orders }
";

/// What `getent` finds, one address a line; nothing when there is no such name.
fn lookup(namespace: &Namespace, family: &str, name: &str) -> Result<Vec<String>, LabError> {
    let ran = namespace.launch("getent").args([family, name]).run()?;
    let mut found: Vec<String> = ran
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

#[test]
fn hosts_have_names_for_both_families_and_back() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let (v4, v6) = pair.beta.overlay_addresses()?;
    let there = pair.alpha.namespace();
    assert_eq!(
        lookup(there, "ahostsv4", "beta.mesh.internal")?,
        [v4.to_string()]
    );
    assert_eq!(
        lookup(there, "ahostsv6", "beta.mesh.internal")?,
        [v6.to_string()]
    );
    for address in [v4.to_string(), v6.to_string()] {
        let back = there.run("getent", ["hosts", &address])?.stdout;
        assert!(back.contains("beta.mesh.internal"), "{back}");
    }
    assert_eq!(
        lookup(there, "ahosts", "nobody.mesh.internal")?,
        Vec::<String>::new()
    );
    Ok(())
}

#[test]
fn a_service_name_keeps_its_own_address_and_leads_to_who_offers_it() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    pair.fleet.coordinator.apply_policy_text(SERVICES)?;
    let name = "orders.mesh.internal";
    let own = lookup(pair.alpha.namespace(), "ahostsv4", name)?;
    assert_eq!(own.len(), 1, "{own:?}");
    // The highest sixteenth of the overlay's /16.
    let octets = own[0].parse::<Ipv4Addr>().unwrap().octets();
    let (beta, _) = pair.beta.overlay_addresses()?;
    assert!(
        octets[2] >= 240 && octets[..2] == beta.octets()[..2],
        "{own:?}"
    );
    let back = pair
        .alpha
        .namespace()
        .run("getent", ["hosts", &own[0]])?
        .stdout;
    assert!(back.contains(name), "{back}");
    let _web = pair.beta.namespace().serve_http(8080, "an order")?;
    let url = format!("http://{name}:8080/");
    let page = pair
        .alpha
        .namespace()
        .run("curl", ["-sS", "-m5", &url])?
        .stdout;
    assert_eq!(page, "an order\n");
    // A host that gets the label becomes an endpoint as soon as the change is in force.
    let _gamma = pair.fleet.member("gamma", &["role=db"])?;
    lab::wait_until("gamma is an endpoint", lab::fleet::CHANGE_DEADLINE, || {
        let answer = pair.alpha.ask(&["dns", "query", "orders", "SRV"])?;
        let records = answer["answers"][0]["records"].as_array().map(Vec::len);
        Ok((records == Some(2)).then_some(()))
    })?;
    assert_eq!(lookup(pair.alpha.namespace(), "ahostsv4", name)?, own);
    Ok(())
}

#[test]
fn who_asks_for_which_name_is_not_logged() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let there = pair.alpha.namespace();
    assert_eq!(lookup(there, "ahostsv4", "beta.mesh.internal")?.len(), 1);
    let log = pair.alpha.log()?;
    assert!(!log.contains("beta.mesh.internal"), "{log}");
    Ok(())
}

#[test]
fn dns_answers_on_loopback_and_on_the_overlay_and_nowhere_else() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    let (overlay, _) = pair.alpha.overlay_addresses()?;
    let ask = |server: SocketAddr| answers(pair.alpha.namespace(), server);
    assert!(ask("127.0.0.53:53".parse().unwrap())?);
    assert!(ask((overlay, 53).into())?);
    let underlay = pair.alpha.attachment();
    assert!(!ask((underlay.v4, 53).into())?);
    assert!(!ask((underlay.v6, 53).into())?);
    // Nor is it there for others on the underlay, or for peers whom the policy allows only ping.
    let stranger = lab.namespace("stranger")?;
    pair.fleet.underlay.attach(&stranger, "eth0")?;
    assert!(!answers(&stranger, (underlay.v4, 53).into())?);
    pair.beta.wait_reaches("alpha")?;
    assert!(!answers(pair.beta.namespace(), (overlay, 53).into())?);
    // Nor for those whom the policy lets through: names are told to those who may reach them.
    let open = "fleet: test\nallow:\n  - { id: dns, from: any, to: any, udp: [53] }\n";
    pair.fleet.coordinator.apply_policy_text(open)?;
    assert!(!answers(pair.beta.namespace(), (overlay, 53).into())?);
    assert!(ask((overlay, 53).into())?);
    Ok(())
}

/// Whether a DNS server answers a question about its own host.
fn answers(from: &Namespace, server: SocketAddr) -> Result<bool, LabError> {
    // RFC 1035 4.1: id, "recursion desired", one question; then the name, type A, class IN.
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["alpha", "mesh", "internal"] {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    from.inside(|| {
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut answer = [0; 512];
        let asked = socket.connect(server).and_then(|()| socket.send(&question));
        asked.is_ok()
            && socket
                .recv(&mut answer)
                .is_ok_and(|length| length > question.len())
    })
}

#[test]
fn questions_outside_of_the_mesh_are_refused_and_not_passed_on() -> Result<(), LabError> {
    let lab = Lab::new()?;
    let pair = Pair::start(&lab)?;
    // Whatever would be asked of anybody else passes the switch.
    let tap = lab::Wiretap::start(&pair.fleet.underlay)?;
    for name in [
        "example.org",
        "nobody.mesh.internal",
        "deep.beta.mesh.internal",
    ] {
        assert_eq!(
            lookup(pair.alpha.namespace(), "ahosts", name)?,
            Vec::<String>::new()
        );
    }
    let asked = tap
        .datagrams()?
        .into_iter()
        .filter(|it| it.destination.port() == 53);
    assert_eq!(asked.count(), 0);
    Ok(())
}
