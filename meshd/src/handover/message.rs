//! What predecessor and successor say to each other, as JSON: fields that a version does not know are
//! passed over, steps that it does not know end the hand-over.

use std::net::SocketAddr;
use std::path::PathBuf;

use dataplane::Shift;
use serde::{Deserialize, Serialize};

/// The oldest and the newest way of handing over that this version knows.
pub(super) const PROTOCOLS: (u16, u16) = (1, 1);

/// Returns the newest protocol that both know.
pub(super) fn common(theirs: (u16, u16), ours: (u16, u16)) -> Option<u16> {
    let newest = theirs.1.min(ours.1);
    (newest >= theirs.0.max(ours.0)).then_some(newest)
}

/// What the successor says, in this order; [`FromSuccessor::Failed`] at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(super) enum FromSuccessor {
    /// Who it is and what it understands.
    Hello {
        oldest: u16,
        newest: u16,
        version: String,
        bequest_format: u16,
    },
    /// Settings, descriptors and threads are as they should be.
    Equipped,
    /// The state directory can be used, and peers and rules are known.
    Loaded,
    /// Handshakes were begun, and answered as far as they will be soon.
    Shaken { begun: usize, answered: usize },
    /// Packets pass.
    Serving { flows: usize },
    /// It ends, and has changed nothing.
    Failed { why: String },
}

/// What the predecessor says, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(super) enum FromPredecessor {
    /// Who it is and what it gives. With the descriptors: lock of the state directory, local socket,
    /// then UDP and TCP of each address of `dns`.
    Offer {
        protocol: u16,
        version: String,
        kept: Kept,
        /// The shift of the successor is the second.
        is_second_shift: bool,
        /// Loopback first.
        dns: Vec<SocketAddr>,
        shards: u16,
        has_device: bool,
    },
    /// One shard's descriptors: crossing, IPv4 socket, then IPv6 socket and TUN queue where there
    /// are.
    Shard { has_v6: bool, has_device: bool },
    /// Nobody writes to the state directory.
    Quiet,
    /// Handshakes may begin. With a file: the peers.
    Peers,
    /// No packet is taken any more. With a file: peers and flows.
    Go,
    /// All is the successor's.
    Farewell,
}

/// Settings that the descriptors were made with: they stay as they are, whatever the files say now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) state_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) interface: String,
    pub(crate) nft_table: String,
    pub(crate) mtu: u16,
    /// The MTU is what `auto` stood for; `None`: a version that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu_is_auto: Option<bool>,
    pub(crate) shards: u16,
    pub(crate) listen_port: u16,
    pub(crate) dns_listen: SocketAddr,
}

/// As the message has it.
pub(super) const fn is_second(shift: Shift) -> bool {
    matches!(shift, Shift::Second)
}

/// From the message.
pub(super) const fn shift(is_second: bool) -> Shift {
    match is_second {
        true => Shift::Second,
        false => Shift::First,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_versions_take_the_newest_that_both_know() {
        assert_eq!(common((1, 1), (1, 1)), Some(1));
        assert_eq!(common((1, 3), (2, 5)), Some(3));
        assert_eq!(common((2, 5), (1, 3)), Some(3));
        assert_eq!(common((4, 5), (1, 3)), None);
    }

    #[test]
    fn fields_of_later_versions_are_passed_over_and_steps_are_not() {
        let read = serde_json::from_str::<FromSuccessor>;
        let later = r#"{"step":"serving","flows":3,"mood":"good"}"#;
        assert_eq!(read(later).unwrap(), FromSuccessor::Serving { flows: 3 });
        assert!(read(r#"{"step":"dancing"}"#).is_err());
        assert!(read(r#"{"step":"serving"}"#).is_err());
    }

    /// As version 0.1.0 wrote them: they must be understood as long as protocol 1 is.
    #[test]
    fn the_words_of_protocol_1_stay() {
        let hello =
            r#"{"step":"hello","oldest":1,"newest":1,"version":"0.1.0","bequest_format":1}"#;
        let read: FromSuccessor = serde_json::from_str(hello).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), hello);
        let offer = r#"{"step":"offer","protocol":1,"version":"0.1.0","kept":{"state_dir":"/a","socket":"/b","interface":"mesh0","nft_table":"mesh","mtu":1420,"shards":1,"listen_port":51820,"dns_listen":"127.0.0.150:53"},"is_second_shift":true,"dns":["127.0.0.150:53"],"shards":1,"has_device":true}"#;
        let read: FromPredecessor = serde_json::from_str(offer).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), offer);
        for step in ["quiet", "peers", "go", "farewell"] {
            let text = format!(r#"{{"step":"{step}"}}"#);
            assert!(
                serde_json::from_str::<FromPredecessor>(&text).is_ok(),
                "{step}"
            );
        }
    }
}
