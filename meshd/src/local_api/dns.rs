//! `GET /v1/dns` and `POST /v1/dns/query`: what mesh DNS answers, and how the host comes to ask it.

use std::net::IpAddr;

use agent::{NameEntry, NameKind};
use axum::Json;
use axum::extract::State;
use model::local::{DnsAnswer, DnsQuestion, DnsView, NameView, NamedThing};
use model::name::Name;
use model::rule::Protocol;

use super::{Failure, LocalApi};
use crate::dns::reverse;

pub(super) async fn show(State(api): State<LocalApi>) -> Json<DnsView> {
    let names = api.dns.names.load();
    let setup = api.overlay.dns_setup();
    let zones = names.overlay().map(reverse::zones).unwrap_or_default();
    let forwarder = api.dns.forwarder.as_ref();
    Json(DnsView {
        suffix: names.suffix().to_owned(),
        listens: setup.listens.clone(),
        forwards_to: forwarder.map(|it| it.upstreams()).unwrap_or_default(),
        resolver: setup.resolver.clone(),
        reverse_zones: zones
            .iter()
            .map(|zone| zone.to_ascii().trim_end_matches('.').to_owned())
            .collect(),
        names: names.iter().map(view).collect(),
    })
}

fn view((name, entry): (&Name, &NameEntry)) -> NameView {
    let v4 = entry.v4().map(IpAddr::from);
    let (kind, port, protocol) = match entry.kind {
        NameKind::Host => (NamedThing::Host, None, None),
        NameKind::Service { port, protocol, .. } => {
            let protocol = match protocol {
                Protocol::Tcp | Protocol::Http | Protocol::Grpc | Protocol::Auto => "tcp",
                Protocol::Udp => "udp",
            };
            (NamedThing::Service, Some(port), Some(protocol.to_owned()))
        }
    };
    NameView {
        name: name.clone(),
        kind,
        addresses: v4.chain(entry.v6().map(IpAddr::from)).collect(),
        port,
        protocol,
    }
}

pub(super) async fn query(
    State(api): State<LocalApi>,
    Json(question): Json<DnsQuestion>,
) -> Result<Json<DnsAnswer>, Failure> {
    Ok(Json(api.dns.look_up(&question).await?))
}
