//! What a daemon leaves to the one that takes over: read or refused, and written as it was read.

use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Bequest, Counters, Extent, FlowBequest, FlowPhase, Path, PeerBequest, Shard, ShardConfig,
};
use model::address::HostAddresses;
use model::key::WireguardKey;
use model::rule::Direction;
use model::time::{Now, UnixTime};

use crate::Seed;

/// Reads bytes as a bequest, and lets a shard take it that knows nobody.
pub fn target(bytes: &[u8]) {
    let Ok(bequest) = Bequest::decode(bytes) else {
        return;
    };
    assert_eq!(bequest.encode(), bytes, "there is one way to write it");
    let now = Now::default();
    let counters = Arc::<Counters>::default();
    let mut shard = Shard::new(ShardConfig::default(), [7; 32], now, counters);
    assert_eq!(shard.inherit_flows(&bequest, now), 0, "they are nobody's");
    assert!(shard.bequeath(Extent::PeersAndFlows, now).peers.is_empty());
}

/// One of nothing, and one with everything.
pub(crate) fn seeds() -> Vec<Seed> {
    let own = HostAddresses {
        v4: [100, 64, 0, 1].into(),
        v6: "fd00::1".parse().expect("an address"),
    };
    let flow = |phase, opened| FlowBequest {
        local_port: 4000,
        remote_port: 80,
        ip_protocol: 6,
        is_ipv6: opened == Direction::Inbound,
        opened,
        first_seen: Direction::Outbound,
        phase,
        idle: Duration::from_millis(1500),
    };
    let peer = |remote: &str| PeerBequest {
        key: WireguardKey::from_bytes([9; 32]),
        addresses: own,
        path: Some(Path {
            remote: remote.parse().expect("an address"),
            source: Some([192, 0, 2, 1].into()),
        }),
        wants_session: true,
        last_initiation: Some([4; 12]),
        received_bytes: 1,
        sent_bytes: 2,
        flows: vec![
            flow(FlowPhase::Established, Direction::Outbound),
            flow(FlowPhase::Closing, Direction::Inbound),
        ],
    };
    let full = Bequest {
        own: Some(own),
        last_date: UnixTime::from_secs(1_800_000_000),
        reserved_until: UnixTime::from_secs(1_800_003_600),
        peers: vec![peer("192.0.2.2:51820"), peer("[2001:db8::2]:51820")],
    };
    vec![
        Seed::new("nothing", Bequest::default().encode()),
        Seed::new("two-peers", full.encode()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_seeds_are_read() {
        for seed in seeds() {
            assert!(Bequest::decode(&seed.bytes).is_ok(), "{}", seed.name);
        }
    }
}
