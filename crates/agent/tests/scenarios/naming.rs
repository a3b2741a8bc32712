//! A host that is called otherwise: it keeps its tunnels, and asks for a certificate of the name.

use std::time::Duration;

use model::control::{FromHost, ToHost};

use crate::coordinator::Coordinator;
use crate::host::Host;

fn requests(host: &mut Host) -> Vec<Vec<u8>> {
    host.sent(|message| match message {
        FromHost::Renew(request) => Some(request.clone()),
        _ => None,
    })
}

fn rename(host: &mut Host, coordinator: &mut Coordinator) {
    let base = coordinator.revision;
    let id = host.id();
    coordinator.change(id, |record| record.name = "edge-1".parse().unwrap());
    let mut delta = coordinator.delta(base);
    delta.record = Some(coordinator.authority.sign_record(&coordinator.hosts[&id]));
    host.map(delta);
    host.advance(Duration::ZERO);
}

#[test]
fn a_renamed_host_asks_for_a_certificate_of_its_new_name_once() {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.commands();
    rename(&mut host, &mut coordinator);
    assert_eq!(host.detail().name.as_str(), "edge-1");
    let asked = requests(&mut host);
    assert_eq!(asked.len(), 1);
    let record = coordinator.hosts[&host.id()].clone();
    let chain = coordinator.certify(&record, &asked[0]);
    host.told(ToHost::Certificate(Ok(chain)));
    for _ in 0..20 {
        host.advance(Duration::from_secs(10));
        for nonce in host.sent(|message| match message {
            FromHost::Ping(nonce) => Some(*nonce),
            FromHost::Renew(_) => panic!("it has the certificate that it wants"),
            _ => None,
        }) {
            host.told(ToHost::Pong(nonce));
        }
    }
}

#[test]
fn a_restart_finds_the_new_name_and_still_wants_its_certificate() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    rename(&mut host, &mut coordinator);
    host.restart();
    assert_eq!(host.detail().name.as_str(), "edge-1");
    host.connect(&coordinator);
    host.advance(Duration::ZERO);
    assert_eq!(requests(&mut host).len(), 1);
}
