//! What `wg` asks, line by line (<https://www.wireguard.com/xplatform/>): parsed into changes
//! that cannot be wrong in themselves.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use ipnet::IpNet;
use model::key::{Secret, WireguardKey};

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// How is the device configured, and how are its peers?
    Get,
    /// Change it.
    Set(Vec<Change>),
}

/// One change of the device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    PrivateKey(Secret),
    ListenPort(u16),
    /// Forget every peer that is not named in what follows.
    ReplacePeers,
    Peer(PeerChange),
}

/// A change of one peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PeerChange {
    pub(crate) key: WireguardKey,
    pub(crate) remove: bool,
    /// Change nothing when it is not known.
    pub(crate) update_only: bool,
    /// `Some(None)` takes the key away.
    pub(crate) preshared: Option<Option<Secret>>,
    pub(crate) endpoint: Option<SocketAddr>,
    /// `Some(None)` switches it off.
    pub(crate) keepalive: Option<Option<Duration>>,
    pub(crate) replace_addresses: bool,
    pub(crate) addresses: Vec<IpNet>,
}

/// A line that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand `{0}`")]
pub(crate) struct Misunderstood(String);

impl PeerChange {
    fn new(key: WireguardKey) -> Self {
        Self {
            key,
            remove: false,
            update_only: false,
            preshared: None,
            endpoint: None,
            keepalive: None,
            replace_addresses: false,
            addresses: Vec::new(),
        }
    }
}

impl Request {
    /// Reads the lines before the empty one.
    pub(crate) fn parse(text: &str) -> Result<Self, Misunderstood> {
        let mut lines = text.lines();
        match lines.next() {
            Some("get=1") => Ok(Self::Get),
            Some("set=1") => {
                let mut changes = Vec::new();
                for line in lines {
                    read_line(line, &mut changes).ok_or_else(|| misunderstood(line))?;
                }
                Ok(Self::Set(changes))
            }
            other => Err(misunderstood(other.unwrap_or_default())),
        }
    }
}

/// Secrets stay out of the logs: only the name is shown.
fn misunderstood(line: &str) -> Misunderstood {
    let name = line.split('=').next().unwrap_or(line);
    Misunderstood(name.chars().take(80).collect())
}

fn read_line(line: &str, changes: &mut Vec<Change>) -> Option<()> {
    let (name, value) = line.split_once('=')?;
    match name {
        "private_key" => changes.push(Change::PrivateKey(Secret::from_bytes(key(value)?))),
        "listen_port" => changes.push(Change::ListenPort(value.parse().ok()?)),
        // Marks need a routing rule that this program does not have.
        "fwmark" if value == "0" => {}
        "replace_peers" if value == "true" => changes.push(Change::ReplacePeers),
        "public_key" => {
            let key = WireguardKey::from_bytes(key(value)?);
            changes.push(Change::Peer(PeerChange::new(key)));
        }
        _ => match changes.last_mut()? {
            Change::Peer(peer) => return read_peer_line(name, value, peer),
            _ => return None,
        },
    }
    Some(())
}

fn read_peer_line(name: &str, value: &str, peer: &mut PeerChange) -> Option<()> {
    match name {
        "remove" if value == "true" => peer.remove = true,
        "update_only" if value == "true" => peer.update_only = true,
        "preshared_key" => {
            let key = key(value)?;
            peer.preshared = Some((key != [0; 32]).then(|| Secret::from_bytes(key)));
        }
        "endpoint" => peer.endpoint = Some(value.parse().ok()?),
        "persistent_keepalive_interval" => {
            let secs: u16 = value.parse().ok()?;
            peer.keepalive = Some((secs > 0).then(|| Duration::from_secs(secs.into())));
        }
        "replace_allowed_ips" if value == "true" => peer.replace_addresses = true,
        "allowed_ip" => peer.addresses.push(IpNet::from_str(value).ok()?),
        "protocol_version" if value == "1" => {}
        _ => return None,
    }
    Some(())
}

fn key(hex: &str) -> Option<[u8; 32]> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_with_all_that_is_said_of_it() {
        let hex = "07".repeat(32);
        let text = format!(
            "set=1\nlisten_port=51820\npublic_key={hex}\nendpoint=[fd77::1]:9\n\
             persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.1/32\n"
        );
        let Ok(Request::Set(changes)) = Request::parse(&text) else {
            panic!("not understood");
        };
        let [Change::ListenPort(51820), Change::Peer(peer)] = changes.as_slice() else {
            panic!("{changes:?}");
        };
        assert_eq!(peer.key, WireguardKey::from_bytes([7; 32]));
        assert_eq!(peer.endpoint, Some("[fd77::1]:9".parse().unwrap()));
        assert_eq!(peer.keepalive, Some(Some(Duration::from_secs(25))));
        assert_eq!(peer.addresses, ["10.0.0.1/32".parse().unwrap()]);
        assert!(peer.replace_addresses && !peer.remove);
    }

    #[test]
    fn zeros_take_the_preshared_key_away() {
        let text = format!(
            "set=1\npublic_key={0}\npreshared_key={1}",
            "07".repeat(32),
            "00".repeat(32)
        );
        let Ok(Request::Set(changes)) = Request::parse(&text) else {
            panic!("not understood");
        };
        assert!(matches!(&changes[0], Change::Peer(peer) if peer.preshared == Some(None)));
    }

    #[test]
    fn what_is_not_understood_is_named_without_its_secret() {
        let error = Request::parse("set=1\nprivate_key=abcd").unwrap_err();
        assert_eq!(error.to_string(), "cannot understand `private_key`");
        for text in [
            "",
            "get=2",
            "set=1\nremove=true",
            "set=1\nfwmark=1",
            "set=1\nx",
        ] {
            assert!(Request::parse(text).is_err(), "{text}");
        }
    }
}
