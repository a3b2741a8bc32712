//! Whether the overlay's interface is still as large as `mtu = auto` would make it: the daemon looks
//! once, when it starts, and cards may come up, or get their MTU by DHCP, after that.

use super::super::facts::{Facts, Link};
use super::super::finding::Finding;

/// Between these is every number that `auto` stands for: IPv6's smallest (RFC 8200 5), and a jumbo
/// frame less what is around a packet.
const SMALLEST: u32 = 1280;
const LARGEST: u32 = 9000 - AROUND;
/// IPv6, UDP, WireGuard's header and tag, as the daemon reckons.
const AROUND: u32 = 80;

/// What `auto` stands for on a host whose largest interface takes so much.
fn fitting(underlay_bytes: u32) -> u32 {
    underlay_bytes
        .saturating_sub(AROUND)
        .clamp(SMALLEST, LARGEST)
}

pub(super) fn auto_mtu(facts: &Facts) -> Finding {
    const CHECK: &str = "auto_mtu";
    let (Ok(settings), Ok(links)) = (&facts.settings, &facts.links) else {
        return Finding::skipped(CHECK, "interfaces or settings are not known");
    };
    if let Some(bytes) = settings.set_mtu {
        return Finding::ok(CHECK, format!("mtu is {bytes}, as it was set"));
    }
    let own = &settings.interface;
    let Some(now) = facts.link(own).map(|it| it.mtu) else {
        return Finding::skipped(CHECK, format!("there is no {own}"));
    };
    let is_underlay = |it: &&Link| it.is_up && !it.is_loopback && it.name != *own;
    let others = links.iter().filter(is_underlay);
    let Some(largest) = others.max_by_key(|it| it.mtu) else {
        return Finding::skipped(CHECK, "no other interface is up");
    };
    let (name, fits) = (&largest.name, fitting(largest.mtu));
    if fits == now {
        return Finding::ok(CHECK, format!("{own} is as large as {name} allows"));
    }
    Finding::warning(
        CHECK,
        format!(
            "{own} takes packets of {now} bytes; {name} takes {}, and mtu = auto would make it {fits} now",
            largest.mtu
        ),
        match fits > now {
            true => "packets are smaller than the network takes them, which costs speed",
            false => {
                "packets may be larger than the network takes them: meshd cuts TCP, and other programs lose the first ones"
            }
        },
        format!(
            "restart meshd to use it (`systemctl restart meshd`), or set `mtu = {now}` in meshd.toml to keep what is"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    fn link(name: &str, mtu: u32) -> Link {
        Link {
            name: name.into(),
            mtu,
            is_up: true,
            is_loopback: name == "lo",
        }
    }

    #[test]
    fn auto_stands_for_what_the_daemon_would_make_of_it() {
        for (underlay, expected) in [
            (1500, 1420),
            (1460, 1380),
            (9001, 8920),
            (65520, 8920),
            (1300, 1280),
        ] {
            assert_eq!(fitting(underlay), expected, "{underlay}");
        }
    }

    #[test]
    fn a_card_that_came_up_later_takes_a_restart() {
        let mut facts = healthy::facts();
        assert_eq!(auto_mtu(&facts).outcome, Outcome::Ok);
        let links = facts.links.as_mut().unwrap();
        links.extend([link("lo", 65536), link("eth1", 9001)]);
        let finding = auto_mtu(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.what.contains("would make it 8920"), "{finding:?}");
        assert!(finding.advice.unwrap().starts_with("restart meshd"));
        facts.settings.as_mut().unwrap().set_mtu = Some(1420);
        assert_eq!(auto_mtu(&facts).outcome, Outcome::Ok);
    }

    #[test]
    fn what_is_down_does_not_count() {
        let mut facts = healthy::facts();
        let mut later = link("eth1", 9001);
        later.is_up = false;
        facts.links.as_mut().unwrap().push(later);
        assert_eq!(auto_mtu(&facts).outcome, Outcome::Ok);
        for link in facts.links.as_mut().unwrap() {
            link.is_up = link.name == "mesh0";
        }
        assert_eq!(auto_mtu(&facts).outcome, Outcome::Skipped);
    }
}
