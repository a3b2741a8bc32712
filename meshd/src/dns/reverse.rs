//! The overlay's reverse zones: which there are, and what their names stand for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent::Names;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, RecordType};
use model::address::OverlayPrefixes;

use super::zone::{Answer, is_apex_kind, record, soa};

/// Returns the zones, each a whole number of labels, that together are the overlay's prefixes.
pub(crate) fn zones(overlay: OverlayPrefixes) -> Vec<Name> {
    v4_zones(overlay).chain(v6_zones(overlay)).collect()
}

fn v4_zones(overlay: OverlayPrefixes) -> impl Iterator<Item = Name> {
    let octets = overlay.v4.prefix_len().div_ceil(8);
    let first = u32::from(overlay.v4.network());
    let count = 1u32 << (octets * 8 - overlay.v4.prefix_len());
    (0..count).map(move |index| {
        let network = first + (index << (32 - octets * 8));
        Name::from(Ipv4Addr::from(network)).trim_to(usize::from(octets) + 2)
    })
}

fn v6_zones(overlay: OverlayPrefixes) -> impl Iterator<Item = Name> {
    let nibbles = overlay.v6.prefix_len().div_ceil(4);
    let first = u128::from(overlay.v6.network());
    let count = 1u128 << (nibbles * 4 - overlay.v6.prefix_len());
    (0..count).map(move |index| {
        let network = first + (index << (128 - nibbles * 4));
        Name::from(Ipv6Addr::from(network)).trim_to(usize::from(nibbles) + 2)
    })
}

/// Returns the zone that a name is in, by the name alone: there may be 128 of them.
fn zone_of(overlay: OverlayPrefixes, asked: &Name) -> Option<Name> {
    let is_below = |top: &str| Name::from_ascii(top).is_ok_and(|top| top.zone_of(asked));
    let labels = if is_below("in-addr.arpa.") {
        overlay.v4.prefix_len().div_ceil(8)
    } else if is_below("ip6.arpa.") {
        overlay.v6.prefix_len().div_ceil(4)
    } else {
        return None;
    };
    let labels = labels + 2;
    if asked.num_labels() < labels {
        return None;
    }
    let zone = asked.trim_to(usize::from(labels)).to_lowercase();
    let network = zone.parse_arpa_name().ok()?;
    overlay.contains(network.addr()).then_some(zone)
}

/// Answers a question about a name of these zones; `None`: it is in none of them.
pub(super) fn answer(names: &Names, asked: &Name, kind: RecordType) -> Option<Answer> {
    let zone = zone_of(names.overlay()?, asked)?;
    if asked.num_labels() == zone.num_labels() && is_apex_kind(kind) {
        return Some(Answer::found(&zone, vec![soa(&zone)]));
    }
    let Ok(network) = asked.to_lowercase().parse_arpa_name() else {
        return Some(Answer::no_such_name(&zone));
    };
    let is_whole = network.prefix_len() == network.max_prefix_len();
    if let Some(host) = is_whole.then(|| names.reverse(network.addr())).flatten() {
        return Some(pointer(names, &zone, asked, kind, host.as_str()));
    }
    // A name above one that exists is there too, with nothing of its own (RFC 8020).
    let is_above = asked.num_labels() == zone.num_labels()
        || addresses(names).any(|address| network.contains(&address));
    Some(if is_above && !is_whole {
        Answer::found(&zone, Vec::new())
    } else {
        Answer::no_such_name(&zone)
    })
}

fn pointer(names: &Names, zone: &Name, asked: &Name, kind: RecordType, host: &str) -> Answer {
    let records = match kind {
        RecordType::ANY => vec![super::zone::minimal_any(asked)],
        RecordType::PTR => Name::from_ascii(format!("{host}.{}.", names.suffix()))
            .map(|target| record(asked, RData::PTR(PTR(target))))
            .into_iter()
            .collect(),
        _ => Vec::new(),
    };
    Answer::found(zone, records)
}

fn addresses(names: &Names) -> impl Iterator<Item = IpAddr> + '_ {
    names.iter().flat_map(|(_, entry)| {
        let v4 = entry.v4().map(IpAddr::from);
        v4.chain(entry.v6().map(IpAddr::from))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zone::tests::{fleet, name};
    use hickory_proto::op::ResponseCode;

    fn zones_of(v4: &str, v6: &str) -> Vec<String> {
        let overlay = OverlayPrefixes {
            v4: v4.parse().unwrap(),
            v6: v6.parse().unwrap(),
        };
        zones(overlay).iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn a_prefix_on_a_label_boundary_is_one_zone() {
        assert_eq!(
            zones_of("100.64.0.0/16", "fd12:3456:789a::/48"),
            ["64.100.in-addr.arpa.", "a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa."]
        );
    }

    #[test]
    fn a_prefix_between_labels_is_several_zones() {
        let zones = zones_of("10.8.0.0/14", "fd12:3456:789a::/50");
        assert_eq!(
            zones[..4],
            [
                "8.10.in-addr.arpa.",
                "9.10.in-addr.arpa.",
                "10.10.in-addr.arpa.",
                "11.10.in-addr.arpa."
            ]
        );
        assert_eq!(zones.len(), 8);
        assert!(zones[7].starts_with("3.a.9.8.7."), "{}", zones[7]);
    }

    #[test]
    fn a_name_is_in_the_zone_that_its_end_names() {
        for (v4, v6) in [
            ("100.64.0.0/16", "fd12:3456:789a::/48"),
            ("10.0.0.0/9", "fd12:3456:789a::/50"),
        ] {
            let overlay = OverlayPrefixes {
                v4: v4.parse().unwrap(),
                v6: v6.parse().unwrap(),
            };
            let all = zones(overlay);
            for zone in &all {
                let below = zone.prepend_label("9").unwrap();
                for asked in [zone, &below] {
                    assert_eq!(zone_of(overlay, asked).as_ref(), Some(zone), "{asked}");
                }
            }
            for address in ["10.128.0.1", "100.65.0.1", "fd12:3456:789b::1"] {
                let asked = Name::from(address.parse::<IpAddr>().unwrap());
                let listed = all.iter().find(|zone| zone.zone_of(&asked));
                assert_eq!(zone_of(overlay, &asked).as_ref(), listed, "{asked}");
            }
        }
    }

    #[test]
    fn an_address_points_to_its_host_and_names_above_it_are_empty() {
        let names = fleet();
        let ask = |text: &str, kind| answer(&names, &name(text), kind);
        let found = ask("16.0.64.100.IN-ADDR.arpa.", RecordType::PTR).unwrap();
        let target = name("alpha.mesh.internal.");
        assert_eq!(found.records[0].data, RData::PTR(PTR(target)));
        for above in ["0.64.100.in-addr.arpa.", "64.100.in-addr.arpa."] {
            let empty = ask(above, RecordType::PTR).unwrap();
            assert_eq!(
                (empty.code, empty.records.len()),
                (ResponseCode::NoError, 0)
            );
            assert_eq!(empty.soa.unwrap().name, name("64.100.in-addr.arpa."));
        }
    }

    #[test]
    fn an_address_of_a_service_points_to_it() {
        let names = fleet();
        let ask = |text: &str| answer(&names, &name(text), RecordType::PTR).unwrap();
        let found = ask("3.240.64.100.in-addr.arpa.");
        let target = name("shop.mesh.internal.");
        assert_eq!(found.records[0].data, RData::PTR(PTR(target)));
        assert_eq!(ask("240.64.100.in-addr.arpa.").code, ResponseCode::NoError);
    }

    #[test]
    fn what_is_nobody_s_does_not_exist_and_is_not_somebody_else_s() {
        let names = fleet();
        for text in [
            "9.9.64.100.in-addr.arpa.",
            "9.64.100.in-addr.arpa.",
            "x.16.0.64.100.in-addr.arpa.",
            "_x.64.100.in-addr.arpa.",
        ] {
            let answer = answer(&names, &name(text), RecordType::PTR).unwrap();
            assert_eq!(answer.code, ResponseCode::NXDomain, "{text}");
        }
        for text in ["1.0.65.100.in-addr.arpa.", "100.in-addr.arpa.", "ip6.arpa."] {
            assert_eq!(answer(&names, &name(text), RecordType::PTR), None, "{text}");
        }
    }
}
