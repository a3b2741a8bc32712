//! The last flow with each peer that the policy denied here, for people who ask why.

use std::collections::BTreeMap;

use model::ids::HostId;
use model::pair::PairDrop;
use model::rule::Direction;
use model::time::Instant;

use crate::denials::DeniedFlow;

/// One denial for each peer of the map at most.
#[derive(Debug, Default)]
pub(crate) struct LastDenials {
    of: BTreeMap<HostId, (Instant, DeniedFlow)>,
}

impl LastDenials {
    pub(crate) fn note(&mut self, flow: DeniedFlow, now: Instant) {
        self.of.insert(flow.peer, (now, flow));
    }

    pub(crate) fn with(&self, peer: HostId, now: Instant) -> Option<PairDrop> {
        let (at, flow) = self.of.get(&peer)?;
        Some(PairDrop {
            secs_ago: now.saturating_since(*at).as_secs(),
            inbound: flow.direction == Direction::Inbound,
            ip_protocol: flow.ip_protocol,
            port: flow.port,
            // One that asks who sends is among the rules that nearly allow it.
            rule: flow.rule.clone().filter(|_| !flow.needs_workload),
        })
    }

    /// Forgets those who are no peers any more.
    pub(crate) fn retain(&mut self, is_peer: impl Fn(HostId) -> bool) {
        self.of.retain(|peer, _| is_peer(*peer));
    }
}
