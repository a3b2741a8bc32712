//! What mesh DNS says about the fleet's own names: addresses of hosts and services, SRV records of
//! services, and that a name is not there. A pure function of the snapshot.

use agent::{NameEntry, NameKind, Names};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, HINFO, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use model::rule::ip_protocol;

use super::reverse;

/// Seconds that an answer may be remembered, also one that says that there is nothing. Short, since
/// endpoints of a service come and go.
const TTL_SECS: u32 = 5;

/// What is said to one question.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    /// What the asker will want next; left out where there is no room.
    pub(super) additionals: Vec<Record>,
    /// The zone's SOA, with answers that say that there is nothing (RFC 2308 3).
    pub(super) soa: Option<Record>,
}

impl Answer {
    pub(super) fn only(code: ResponseCode) -> Self {
        Self {
            code,
            records: Vec::new(),
            additionals: Vec::new(),
            soa: None,
        }
    }

    pub(super) fn found(zone: &Name, records: Vec<Record>) -> Self {
        Self {
            soa: records.is_empty().then(|| soa(zone)),
            records,
            ..Self::only(ResponseCode::NoError)
        }
    }

    pub(super) fn no_such_name(zone: &Name) -> Self {
        Self {
            soa: Some(soa(zone)),
            ..Self::only(ResponseCode::NXDomain)
        }
    }
}

/// Answers a question about a name of the mesh, in the case in which it was asked; `None`: the name
/// is none of the mesh.
pub(super) fn answer(names: &Names, asked: &Name, kind: RecordType) -> Option<Answer> {
    if let Some(answer) = reverse::answer(names, asked, kind) {
        return Some(answer);
    }
    let zone = suffix(names)?;
    if !zone.zone_of(asked) {
        return None;
    }
    let own = usize::from(asked.num_labels() - zone.num_labels());
    let labels: Option<Vec<String>> = asked.iter().take(own).map(text).collect();
    let Some(labels) = labels else {
        return Some(Answer::no_such_name(&zone));
    };
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    Some(match labels[..] {
        [] if is_apex_kind(kind) => Answer::found(&zone, vec![soa(&zone)]),
        [] => Answer::found(&zone, Vec::new()),
        [name] => match (names.lookup(name), protocol_of(name)) {
            (Some(entry), _) => addresses_or_services(names, &zone, asked, kind, entry),
            // There are names below it (RFC 8020).
            (None, Some(protocol)) if has_services(names, protocol) => {
                Answer::found(&zone, Vec::new())
            }
            _ => Answer::no_such_name(&zone),
        },
        [service, protocol] => match service_entry(names, service, protocol) {
            Some(entry) => services_only(names, &zone, asked, kind, entry),
            None => Answer::no_such_name(&zone),
        },
        _ => Answer::no_such_name(&zone),
    })
}

/// Returns the fleet's suffix; `None`: this host is no member.
pub(super) fn suffix(names: &Names) -> Option<Name> {
    if names.suffix().is_empty() {
        return None;
    }
    Name::from_ascii(format!("{}.", names.suffix())).ok()
}

fn text(label: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase())
}

/// Returns the IANA number of the protocol below whose label a service is.
fn protocol_of(label: &str) -> Option<u8> {
    match label {
        "_tcp" => Some(ip_protocol::TCP),
        "_udp" => Some(ip_protocol::UDP),
        _ => None,
    }
}

fn is_over(entry: &NameEntry, wanted: u8) -> bool {
    matches!(entry.kind, NameKind::Service { protocol, .. } if protocol.ip_protocol() == wanted)
}

fn has_services(names: &Names, wanted: u8) -> bool {
    names.iter().any(|(_, entry)| is_over(entry, wanted))
}

/// Looks up `_NAME._PROTOCOL` (RFC 2782).
fn service_entry<'names>(
    names: &'names Names,
    service: &str,
    protocol: &str,
) -> Option<&'names NameEntry> {
    let wanted = protocol_of(protocol)?;
    let entry = names.lookup(service.strip_prefix('_')?)?;
    is_over(entry, wanted).then_some(entry)
}

fn addresses_or_services(
    names: &Names,
    zone: &Name,
    asked: &Name,
    kind: RecordType,
    entry: &NameEntry,
) -> Answer {
    let records = match kind {
        RecordType::A => entry
            .v4()
            .map(|it| record(asked, RData::A(A(it))))
            .collect(),
        RecordType::AAAA => entry
            .v6()
            .map(|it| record(asked, RData::AAAA(AAAA(it))))
            .collect(),
        RecordType::ANY => vec![minimal_any(asked)],
        _ => return services_only(names, zone, asked, kind, entry),
    };
    Answer::found(zone, records)
}

fn services_only(
    names: &Names,
    zone: &Name,
    asked: &Name,
    kind: RecordType,
    entry: &NameEntry,
) -> Answer {
    let NameKind::Service { port, .. } = entry.kind else {
        return Answer::found(zone, Vec::new());
    };
    match kind {
        RecordType::ANY => return Answer::found(zone, vec![minimal_any(asked)]),
        RecordType::SRV => {}
        _ => return Answer::found(zone, Vec::new()),
    }
    let mut records = Vec::new();
    let mut additionals = Vec::new();
    for addresses in &entry.addresses {
        let host = names.reverse(addresses.v4.into());
        let Some(target) = host.and_then(|it| zone.prepend_label(it.as_str()).ok()) else {
            continue;
        };
        // One priority and one weight: every endpoint is as good as the others.
        records.push(record(
            asked,
            RData::SRV(SRV::new(0, 1, port, target.clone())),
        ));
        additionals.push(record(&target, RData::A(A(addresses.v4))));
        additionals.push(record(&target, RData::AAAA(AAAA(addresses.v6))));
    }
    Answer {
        additionals,
        ..Answer::found(zone, records)
    }
}

/// Whether the name of a zone itself has such a record.
pub(super) fn is_apex_kind(kind: RecordType) -> bool {
    matches!(kind, RecordType::SOA | RecordType::ANY)
}

/// What a name that exists says when it is asked for everything (RFC 8482 4.2).
pub(super) fn minimal_any(asked: &Name) -> Record {
    record(
        asked,
        RData::HINFO(HINFO::new("RFC8482".into(), String::new())),
    )
}

pub(super) fn soa(zone: &Name) -> Record {
    let ttl = i32::try_from(TTL_SECS).expect("a few seconds");
    // Nobody transfers this zone: serial, refresh, retry and expiry are for form's sake.
    let data = SOA::new(zone.clone(), Name::root(), 1, ttl, ttl, ttl, TTL_SECS);
    record(zone, RData::SOA(data))
}

pub(super) fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECS, data)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use model::address::{HostAddresses, OverlayPrefixes};
    use model::ids::FleetId;
    use model::rule::Protocol;

    pub(in crate::dns) fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn host(index: u32) -> HostAddresses {
        let overlay = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        overlay.nth_host(index).unwrap()
    }

    fn shop() -> HostAddresses {
        let overlay = OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16]));
        overlay.services().nth_service(3).unwrap()
    }

    /// Two hosts, `orders` on both, `metrics` on none; `shop` on both, with addresses of its own.
    pub(in crate::dns) fn fleet() -> Names {
        let service = |port, protocol, addresses| NameEntry {
            kind: NameKind::Service {
                port,
                protocol,
                addresses: None,
            },
            addresses,
        };
        let member = |index| NameEntry {
            kind: NameKind::Host,
            addresses: vec![host(index)],
        };
        let both = vec![host(0), host(1)];
        let shop = NameEntry {
            kind: NameKind::Service {
                port: 8000,
                protocol: Protocol::Http,
                addresses: Some(shop()),
            },
            addresses: both.clone(),
        };
        Names::new(
            "mesh.internal",
            OverlayPrefixes::derived_from(FleetId::from_bytes([0; 16])),
            [
                ("alpha", member(0)),
                ("beta", member(1)),
                ("orders", service(8080, Protocol::Tcp, both)),
                ("metrics", service(8125, Protocol::Udp, Vec::new())),
                ("shop", shop),
            ]
            .map(|(name, entry)| (name.parse().unwrap(), entry)),
        )
    }

    fn ask(text: &str, kind: RecordType) -> Answer {
        answer(&fleet(), &name(text), kind).unwrap()
    }

    #[test]
    fn hosts_and_services_have_addresses_of_both_families() {
        let alpha = ask("alpha.mesh.internal.", RecordType::A);
        assert_eq!(alpha.records[0].data, RData::A(A(host(0).v4)));
        let alpha = ask("alpha.mesh.internal.", RecordType::AAAA);
        assert_eq!(alpha.records[0].data, RData::AAAA(AAAA(host(0).v6)));
        assert_eq!(ask("orders.mesh.internal.", RecordType::A).records.len(), 2);
    }

    #[test]
    fn a_service_with_its_own_addresses_resolves_to_them_and_names_its_hosts() {
        let v4 = ask("shop.mesh.internal.", RecordType::A);
        let data: Vec<&RData> = v4.records.iter().map(|it| &it.data).collect();
        assert_eq!(data, [&RData::A(A(shop().v4))]);
        let v6 = ask("shop.mesh.internal.", RecordType::AAAA);
        assert_eq!(v6.records[0].data, RData::AAAA(AAAA(shop().v6)));
        for asked in ["_shop._tcp.mesh.internal.", "shop.mesh.internal."] {
            let answer = ask(asked, RecordType::SRV);
            let data: Vec<&RData> = answer.records.iter().map(|it| &it.data).collect();
            let srv = |host| RData::SRV(SRV::new(0, 1, 8000, name(host)));
            assert_eq!(
                data,
                [&srv("alpha.mesh.internal."), &srv("beta.mesh.internal.")]
            );
            assert_eq!(answer.additionals[0].data, RData::A(A(host(0).v4)));
        }
    }

    #[test]
    fn the_case_of_the_question_is_kept() {
        let answer = ask("ALpha.Mesh.INTERNAL.", RecordType::A);
        assert!(
            answer.records[0]
                .name
                .eq_case(&name("ALpha.Mesh.INTERNAL."))
        );
    }

    #[test]
    fn a_service_names_its_hosts_and_port() {
        for asked in ["_orders._tcp.mesh.internal.", "orders.mesh.internal."] {
            let answer = ask(asked, RecordType::SRV);
            let data: Vec<&RData> = answer.records.iter().map(|it| &it.data).collect();
            let srv = |host| RData::SRV(SRV::new(0, 1, 8080, name(host)));
            assert_eq!(
                data,
                [&srv("alpha.mesh.internal."), &srv("beta.mesh.internal.")]
            );
            assert_eq!(answer.additionals.len(), 4);
            assert_eq!(answer.soa, None);
        }
    }

    #[test]
    fn what_exists_without_such_a_record_is_empty_and_says_for_how_long() {
        for (asked, kind) in [
            ("alpha.mesh.internal.", RecordType::MX),
            ("alpha.mesh.internal.", RecordType::SRV),
            ("metrics.mesh.internal.", RecordType::A),
            ("_metrics._udp.mesh.internal.", RecordType::SRV),
            ("_orders._tcp.mesh.internal.", RecordType::A),
            ("_tcp.mesh.internal.", RecordType::A),
            ("mesh.internal.", RecordType::A),
        ] {
            let answer = ask(asked, kind);
            assert_eq!(answer.code, ResponseCode::NoError, "{asked}");
            assert!(answer.records.is_empty(), "{asked}");
            let soa = answer.soa.unwrap();
            assert_eq!((soa.name, soa.ttl), (name("mesh.internal."), TTL_SECS));
        }
    }

    #[test]
    fn what_is_not_there_does_not_exist() {
        for asked in [
            "nobody.mesh.internal.",
            "deep.alpha.mesh.internal.",
            "_orders._udp.mesh.internal.",
            "_alpha._tcp.mesh.internal.",
            "orders._tcp.mesh.internal.",
            "a.b.c.mesh.internal.",
        ] {
            let answer = ask(asked, RecordType::A);
            assert_eq!(answer.code, ResponseCode::NXDomain, "{asked}");
            assert!(answer.soa.is_some(), "{asked}");
        }
        let odd = Name::from_labels([&b"\xff"[..], b"mesh", b"internal"]).unwrap();
        let answer = answer(&fleet(), &odd, RecordType::A).unwrap();
        assert_eq!(answer.code, ResponseCode::NXDomain);
    }

    #[test]
    fn everything_is_answered_with_little() {
        for asked in ["orders.mesh.internal.", "_orders._tcp.mesh.internal."] {
            let answer = ask(asked, RecordType::ANY);
            assert_eq!(answer.records, [minimal_any(&name(asked))]);
        }
        let apex = ask("mesh.internal.", RecordType::ANY);
        assert_eq!(apex.records[0].record_type(), RecordType::SOA);
    }

    #[test]
    fn other_names_are_not_ours_nor_is_any_without_a_fleet() {
        for asked in ["example.org.", "internal.", "notmesh.internal.", "."] {
            assert_eq!(answer(&fleet(), &name(asked), RecordType::A), None);
        }
        let asked = name("alpha.mesh.internal.");
        assert_eq!(answer(&Names::default(), &asked, RecordType::A), None);
    }
}
