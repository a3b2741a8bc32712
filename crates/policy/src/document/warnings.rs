//! Rules that are right and yet do nothing, as far as that can be told cheaply and without the
//! fleet's hosts.

use std::collections::BTreeMap;

use model::rule::{Bundle, PortRange, Rule, Selector, Traffic};

use super::expectation::RuleIds;
use crate::diagnostic::{Complaint, Report};

/// Pairs of rules compared; beyond that, warnings are not worth the time.
const PAIRS_MAX: usize = 1_000_000;

/// Adds warnings about allows that repeat another or lose against a deny.
pub(super) fn add(bundle: &Bundle, ids: &RuleIds, report: &mut Report<'_>) {
    let mut alike: BTreeMap<(&[Selector], &[Selector]), Vec<&Rule>> = BTreeMap::new();
    let compare_denies = bundle.allow.len().saturating_mul(bundle.deny.len()) <= PAIRS_MAX;
    for allow in &bundle.allow {
        let Some((place, _)) = ids.get(&allow.id) else {
            continue;
        };
        let same_ends = alike.entry((&allow.from, &allow.to)).or_default();
        if let Some(first) = same_ends.iter().find(|first| covers_traffic(first, allow)) {
            let message = format!("`{}` allows nothing that `{}` does not", allow.id, first.id);
            let help = format!("see {}; remove one of the two", first.source);
            report.warn(*place, Complaint::new(message).help(help));
        }
        if same_ends.len() < 16 {
            same_ends.push(allow);
        }
        let winner = bundle
            .deny
            .iter()
            .find(|deny| compare_denies && covers(deny, allow));
        if let Some(deny) = winner {
            let message = format!(
                "`{}` allows nothing: the deny `{}` covers it",
                allow.id, deny.id
            );
            let help = format!("a deny always wins; see {}", deny.source);
            report.warn(*place, Complaint::new(message).help(help));
        }
    }
}

/// Returns whether `wide` plainly matches all that `narrow` matches.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    covers_hosts(&wide.from, &narrow.from)
        && covers_hosts(&wide.to, &narrow.to)
        && covers_traffic(wide, narrow)
}

fn covers_hosts(wide: &[Selector], narrow: &[Selector]) -> bool {
    wide.contains(&Selector::Any) || narrow.iter().all(|selector| wide.contains(selector))
}

fn covers_traffic(wide: &Rule, narrow: &Rule) -> bool {
    match (&wide.traffic, &narrow.traffic) {
        (Traffic::All, _) | (Traffic::Service, Traffic::Service) => true,
        (
            Traffic::Ports { tcp, udp, icmp },
            Traffic::Ports {
                tcp: narrow_tcp,
                udp: narrow_udp,
                icmp: narrow_icmp,
            },
        ) => {
            covers_ports(tcp, narrow_tcp)
                && covers_ports(udp, narrow_udp)
                && (*icmp || !narrow_icmp)
        }
        _ => false,
    }
}

fn covers_ports(wide: &[PortRange], narrow: &[PortRange]) -> bool {
    narrow.iter().all(|range| {
        wide.iter()
            .any(|wide| wide.first <= range.first && range.last <= wide.last)
    })
}
