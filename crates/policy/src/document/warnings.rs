//! Rules that are right and yet do nothing, as far as that can be told cheaply and without the
//! fleet's hosts.

use std::collections::BTreeMap;

use model::rule::{Bundle, PortRange, Rule, Selector, Traffic};

use super::expectation::RuleIds;
use crate::diagnostic::{Complaint, Report};

/// Comparisons made for warnings; beyond that they are not worth the time.
const COMPARISONS_MAX: usize = 10_000_000;

/// Allows with the same ends that a further one is compared with.
const ALIKE_MAX: usize = 16;

/// Adds warnings about allows that repeat another or lose against a deny.
pub(super) fn add(bundle: &Bundle, ids: &RuleIds, report: &mut Report<'_>) {
    let mut alike: BTreeMap<(&[Selector], &[Selector]), Vec<&Rule>> = BTreeMap::new();
    let mut comparison = Comparison {
        left: COMPARISONS_MAX,
    };
    for allow in &bundle.allow {
        if comparison.is_used_up() {
            return;
        }
        let Some((place, _)) = ids.get(&allow.id) else {
            continue;
        };
        let same_ends = alike.entry((&allow.from, &allow.to)).or_default();
        if let Some(first) = same_ends
            .iter()
            .find(|first| comparison.covers(first, allow))
        {
            let message = format!("`{}` allows nothing that `{}` does not", allow.id, first.id);
            let help = format!("see {}; remove one of the two", first.source);
            report.warn(*place, Complaint::new(message).help(help));
        }
        if same_ends.len() < ALIKE_MAX {
            same_ends.push(allow);
        }
        if let Some(deny) = bundle
            .deny
            .iter()
            .find(|deny| comparison.covers(deny, allow))
        {
            let message = format!(
                "`{}` allows nothing: the deny `{}` covers it",
                allow.id, deny.id
            );
            let help = format!("a deny always wins; see {}", deny.source);
            report.warn(*place, Complaint::new(message).help(help));
        }
    }
}

/// Compares rules word by word, until it has done enough of it.
struct Comparison {
    left: usize,
}

impl Comparison {
    /// Returns whether it has done enough; from then on nothing covers anything.
    fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// Returns whether `wide` plainly matches all that `narrow` matches.
    fn covers(&mut self, wide: &Rule, narrow: &Rule) -> bool {
        self.covers_hosts(&wide.from, &narrow.from)
            && self.covers_hosts(&wide.to, &narrow.to)
            && self.covers_traffic(&wide.traffic, &narrow.traffic)
            && (wide.http.is_empty() || wide.http == narrow.http)
            && (wide.when.is_none() || wide.when == narrow.when)
    }

    fn covers_hosts(&mut self, wide: &[Selector], narrow: &[Selector]) -> bool {
        self.may_compare(wide.len(), narrow.len())
            && (wide.contains(&Selector::Any)
                || narrow.iter().all(|selector| wide.contains(selector)))
    }

    fn covers_traffic(&mut self, wide: &Traffic, narrow: &Traffic) -> bool {
        match (wide, narrow) {
            (Traffic::All, _) | (Traffic::Service, Traffic::Service) => true,
            (
                Traffic::Ports { tcp, udp, icmp },
                Traffic::Ports {
                    tcp: narrow_tcp,
                    udp: narrow_udp,
                    icmp: narrow_icmp,
                },
            ) => {
                (*icmp || !narrow_icmp)
                    && self.covers_ports(tcp, narrow_tcp)
                    && self.covers_ports(udp, narrow_udp)
            }
            _ => false,
        }
    }

    fn covers_ports(&mut self, wide: &[PortRange], narrow: &[PortRange]) -> bool {
        let within = |range: &PortRange, wide: &PortRange| {
            wide.first <= range.first && range.last <= wide.last
        };
        self.may_compare(wide.len(), narrow.len())
            && narrow
                .iter()
                .all(|range| wide.iter().any(|wide| within(range, wide)))
    }

    fn may_compare(&mut self, wide: usize, narrow: usize) -> bool {
        match self.left.checked_sub(1 + wide * narrow) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.left = 0;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_that_is_too_much_is_the_last() {
        let mut comparison = Comparison { left: 5 };
        assert!(comparison.covers_hosts(&[Selector::Any], &[Selector::Any]));
        assert!(!comparison.is_used_up());
        assert!(!comparison.covers_hosts(&[Selector::Any], &vec![Selector::Any; 3]));
        assert!(comparison.is_used_up());
        assert!(!comparison.covers_hosts(&[Selector::Any], &[Selector::Any]));
    }
}
