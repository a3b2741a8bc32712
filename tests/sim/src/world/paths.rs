//! What hosts find out about the links to each other, where these differ, and whether those with
//! several packet threads spread over them what they have to say.

use super::World;
use crate::event::HostIndex;

/// What was seen of the ways between hosts, at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sights {
    /// A host with several sessions with one peer.
    pub(crate) lanes: usize,
    /// A host that has proven that a link takes less than Ethernet does.
    pub(crate) narrow: usize,
}

/// IPv4, UDP, WireGuard's header and tag (WireGuard whitepaper 5.4.6).
const AROUND_BYTES: usize = 20 + 8 + 16 + 16;
/// What fits Ethernet's frames.
const USUAL_BYTES: usize = 1440;

impl World {
    /// A size that a host calls proven passes at once, whatever happened.
    pub(super) fn look_at_paths(&mut self) {
        if !self.scenario.is_spread {
            return;
        }
        let (mut sights, mut wrong) = (self.sights, None);
        for host in self
            .hosts
            .iter()
            .filter(|host| !self.has_double(host.index))
        {
            let Some(running) = &host.running else {
                continue;
            };
            for view in running.agent.peers(host.now(self.now)) {
                sights.lanes += usize::from(view.lanes > 1);
                let is_proven = view.mtu_standing.as_deref() == Some("proven");
                let there = view.addresses.first().and_then(|it| self.owner_of(*it));
                let (Some(bytes), Some(there)) = (view.mtu.filter(|_| is_proven), there) else {
                    continue;
                };
                let takes = self.network.takes_at_once(host.index, there);
                let needs = usize::from(bytes) + AROUND_BYTES;
                sights.narrow += usize::from(usize::from(bytes) < USUAL_BYTES - AROUND_BYTES);
                if needs > takes && !self.has_double(there) {
                    let index = host.index;
                    wrong = Some(format!("{index} to {there}: {needs} of {takes} bytes"));
                }
            }
        }
        self.sights = sights;
        self.object("what is proven to pass passes", wrong);
    }

    /// A machine and its copy are one host at two places.
    fn has_double(&self, index: HostIndex) -> bool {
        let is_double = |host: &crate::host::Host| {
            host.is_clone && (host.index == index || host.machine == index)
        };
        self.hosts.iter().any(is_double)
    }
}
