//! The way to the peers: whether they answer at all, and whether full packets come through.

use model::local::{PeerView, PingReply};

use super::super::facts::{Facts, Ping};
use super::super::finding::Finding;
use crate::commands::ping::IPV6_MTU;

/// Bytes around an overlay packet: IPv4, UDP, WireGuard's header and tag (WireGuard whitepaper 5.4.6).
const AROUND: u32 = 20 + 8 + 16 + 16;

/// Bytes of packets to peers that answer no probes, unless somebody set a number.
const ASSUMED_MTU: u16 = 1420;

fn names<'a>(peers: impl Iterator<Item = &'a PeerView>) -> String {
    let names: Vec<&str> = peers.map(|peer| peer.name.as_str()).collect();
    names.join(", ")
}

fn is_answered(reply: &PingReply) -> bool {
    reply.round_trip_micros.is_some()
}

fn answers(ping: &Ping) -> bool {
    ping.small.as_ref().is_ok_and(is_answered)
}

pub(super) fn peers(facts: &Facts) -> Finding {
    const CHECK: &str = "peers";
    if let Err(why) = &facts.peers {
        return Finding::skipped(CHECK, why.clone());
    }
    let silent: Vec<&Ping> = facts.pings.iter().filter(|it| !answers(it)).collect();
    let Some(first) = silent.first() else {
        return match facts.pings.len() {
            0 => Finding::ok(CHECK, "this host has no peer to ask"),
            asked => Finding::ok(
                CHECK,
                format!("every peer that was asked answers ({asked})"),
            ),
        };
    };
    let names: Vec<&str> = silent.iter().map(|it| it.peer.as_str()).collect();
    let said = match &first.small {
        Ok(reply) => reply.note.clone().unwrap_or_default(),
        Err(why) => why.clone(),
    };
    let port = facts.port().unwrap_or_default();
    let endpoints: Vec<String> = facts.endpoints().take(3).map(|it| it.to_string()).collect();
    let what = format!("no echo from {}: {said}", names.join(", "));
    let advice = format!(
        "UDP {port} has to be open in both directions between this host and its peers ({}), in clouds in the security group too; `meshctl why` tells whether the policy allows the ping",
        endpoints.join(", ")
    );
    match silent.len() == facts.pings.len() {
        true => Finding::failure(CHECK, what, "this host reaches nobody", advice),
        false => Finding::warning(
            CHECK,
            what,
            "those peers are down, or not to be reached from here",
            advice,
        ),
    }
}

pub(super) fn large_packets(facts: &Facts) -> Finding {
    const CHECK: &str = "large_packets";
    let asked = facts
        .pings
        .iter()
        .filter_map(|it| Some((it, it.large.as_ref()?)));
    let asked: Vec<_> = asked.collect();
    let lost = asked
        .iter()
        .filter(|(_, reply)| !reply.as_ref().is_ok_and(is_answered));
    let lost: Vec<&str> = lost.map(|(ping, _)| ping.peer.as_str()).collect();
    match (asked.is_empty(), &lost[..]) {
        (true, _) if facts.pings.is_empty() && facts.peers.is_ok() => {
            Finding::ok(CHECK, "this host has no peer to ask")
        }
        (true, _) => Finding::skipped(CHECK, "no peer answers at all"),
        (false, []) => Finding::ok(CHECK, "packets that fill the interface come through"),
        (false, lost) => Finding::failure(
            CHECK,
            format!(
                "small packets come through to {}, and full ones do not",
                lost.join(", ")
            ),
            "connections open, and stall with the first large answer",
            "look again in ten seconds: meshd finds what passes while packets flow. If it stays, `meshctl ping HOST` ends with the largest packet that passes: set `mtu` to it on both hosts",
        ),
    }
}

pub(super) fn underlay_mtu(facts: &Facts) -> Finding {
    const CHECK: &str = "mtu";
    let peers = facts.peers.as_deref().unwrap_or_default();
    let is_narrow = |peer: &&PeerView| match peer.mtu_standing.as_deref() {
        Some("narrow") => true,
        Some("proven") => peer.mtu.is_some_and(|mtu| mtu < IPV6_MTU),
        _ => false,
    };
    let narrow = names(peers.iter().filter(is_narrow));
    if !narrow.is_empty() {
        return Finding::warning(
            CHECK,
            format!("the way to {narrow} takes no packets of {IPV6_MTU} bytes at once"),
            "IPv6 needs that much: such packets leave in fragments, which costs speed and which some networks do not pass on",
            "find the link with the smallest MTU on the way (`tracepath` to the peer's endpoint) and make room there",
        );
    }
    // The count stays for as long as meshd runs: only what is not found again yet is a trouble.
    let is_lossy = |peer: &&PeerView| {
        peer.black_holes > 0 && peer.mtu_standing.as_deref() == Some("searching")
    };
    let lossy = names(peers.iter().filter(is_lossy));
    if !lossy.is_empty() {
        return Finding::warning(
            CHECK,
            format!("on the way to {lossy}, packets of a size that had passed came to be lost"),
            "large packets are lost for some seconds each time, until it is found anew what passes",
            "a link on the way changed its MTU, or routes with different ones take turns: `meshctl peers --json` counts it in `black_holes`",
        );
    }
    let is_proven = |peer: &PeerView| peer.mtu_standing.as_deref() == Some("proven");
    if !peers.is_empty() && peers.iter().all(is_proven) {
        let changed = names(peers.iter().filter(|peer| peer.black_holes > 0));
        let mut what = String::from("it is proven what passes to every peer");
        if !changed.is_empty() {
            what += &format!("; it shrank at times on the way to {changed}");
        }
        return Finding::ok(CHECK, what);
    }
    let (Ok(settings), Ok(routes)) = (&facts.settings, &facts.routes) else {
        return Finding::skipped(CHECK, "routes or settings are not known");
    };
    let default = routes
        .iter()
        .find(|it| it.destination.is_none() && !it.is_ours);
    if facts.peers.is_err() && settings.set_mtu.is_none() {
        let what = "meshd does not answer; it finds what passes to each peer while it runs";
        return Finding::skipped(CHECK, what);
    }
    let device = default.and_then(|it| it.device.as_ref());
    let Some(link) = device.and_then(|it| facts.link(it)) else {
        return Finding::skipped(CHECK, "this host has no default route to judge by");
    };
    // To a peer whose path is not proven, packets are no larger than that.
    let assumed = match settings.set_mtu {
        Some(_) => settings.mtu,
        None => settings.mtu.min(ASSUMED_MTU),
    };
    let needed = u32::from(assumed) + AROUND;
    if link.mtu < needed {
        return Finding::warning(
            CHECK,
            format!(
                "{} takes packets of {} bytes, and full ones of the overlay need {needed}",
                link.name, link.mtu
            ),
            "each full packet is cut in two on its way, which costs speed and which some networks do not pass on",
            format!(
                "set `mtu = {}` in meshd.toml, here and on the peers",
                link.mtu.saturating_sub(AROUND + 20)
            ),
        );
    }
    Finding::ok(
        CHECK,
        format!("full packets of the overlay fit {}", link.name),
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    #[test]
    fn a_port_that_is_closed_everywhere_is_told_from_one_dead_peer() {
        let mut facts = healthy::facts();
        facts.pings.push(healthy::ping("b", false));
        let finding = peers(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.what.contains("no echo from b"), "{finding:?}");
        facts.pings.remove(0);
        let finding = peers(&facts);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.advice.unwrap().contains("UDP 51820"));
    }

    #[test]
    fn a_path_that_loses_large_packets_is_a_black_hole() {
        let mut facts = healthy::facts();
        facts.pings[0].large = healthy::ping("a", false)
            .large
            .or(Some(Err("silence".into())));
        let finding = large_packets(&facts);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("to a,"), "{finding:?}");
    }

    #[test]
    fn what_is_proven_of_the_paths_is_told_before_what_the_interface_takes() {
        let mut facts = healthy::facts();
        let outcome = |facts: &Facts| underlay_mtu(facts).outcome;
        let peers = |facts: &mut Facts, change: &dyn Fn(&mut PeerView)| {
            facts.peers.as_mut().unwrap().iter_mut().for_each(change);
        };
        for link in facts.links.as_mut().unwrap() {
            link.mtu = 1400;
        }
        let peer = serde_json::json!({
            "name": "a", "id": "02020202020202020202020202020202", "addresses": [], "labels": {},
            "endpoint": null, "candidates": [], "last_handshake_secs": 3, "received_bytes": 0,
            "sent_bytes": 0,
        });
        facts.peers = Ok(vec![serde_json::from_value(peer).unwrap()]);
        peers(&mut facts, &|peer| {
            (peer.mtu, peer.mtu_standing) = (Some(1340), Some("proven".into()));
        });
        assert_eq!(outcome(&facts), Outcome::Ok);
        peers(&mut facts, &|peer| peer.black_holes = 1);
        assert_eq!(outcome(&facts), Outcome::Ok);
        assert!(underlay_mtu(&facts).what.ends_with("on the way to a"));
        peers(&mut facts, &|peer| {
            peer.mtu_standing = Some("searching".into());
        });
        assert!(underlay_mtu(&facts).what.contains("came to be lost"));
        peers(&mut facts, &|peer| {
            peer.mtu_standing = Some("assumed".into());
        });
        assert!(underlay_mtu(&facts).what.contains("eth0 takes"));
        peers(&mut facts, &|peer| {
            peer.mtu_standing = Some("proven".into());
        });
        peers(&mut facts, &|peer| peer.mtu = Some(1220));
        assert!(underlay_mtu(&facts).what.contains("1280 bytes at once"));
        assert_eq!(outcome(&facts), Outcome::Warning);
    }

    #[test]
    fn an_underlay_that_is_too_narrow_is_told_with_what_fits() {
        let mut facts = healthy::facts();
        for link in facts.links.as_mut().unwrap() {
            link.mtu = 1400;
        }
        let finding = underlay_mtu(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.advice.unwrap().contains("mtu = 1320"));
    }

    #[test]
    fn what_only_meshd_finds_is_not_judged_without_it() {
        let mut facts = healthy::facts();
        facts.peers = Err("meshd does not answer".to_owned());
        for link in facts.links.as_mut().unwrap() {
            link.mtu = 1400;
        }
        assert_eq!(underlay_mtu(&facts).outcome, Outcome::Skipped);
        facts.settings.as_mut().unwrap().set_mtu = Some(1420);
        assert_eq!(underlay_mtu(&facts).outcome, Outcome::Warning);
    }

    #[test]
    fn a_number_that_somebody_set_counts_as_it_is() {
        let mut facts = healthy::facts();
        let mut judge = |mtu, set_mtu| {
            let settings = facts.settings.as_mut().unwrap();
            (settings.mtu, settings.set_mtu) = (mtu, set_mtu);
            underlay_mtu(&facts)
        };
        let finding = judge(8920, Some(8920));
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.what.contains("need 8980"), "{finding:?}");
        assert!(finding.advice.unwrap().contains("mtu = 1420"));
        assert_eq!(judge(8920, None).outcome, Outcome::Ok);
        assert_eq!(judge(1420, Some(1420)).outcome, Outcome::Ok);
    }
}
