//! What a device is told of another, in the form in which `wg` reads it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use data_encoding::BASE64;
use model::address::HostAddresses;
use model::key::{Secret, WireguardKey};
use wireguard::{KeyPair, PrivateKey};

use crate::overlay::addresses;

/// Returns the private key of the device with that number: known to all, for tests only.
pub fn private_key(number: u8) -> Secret {
    // Bit 6 of the last byte is set in every X25519 key as it is stored (RFC 7748 5).
    Secret::from_bytes([number.wrapping_add(1) | 0x40; 32])
}

/// Returns the public half of [`private_key`].
pub fn public_key(number: u8) -> WireguardKey {
    let private = PrivateKey::from_bytes(*private_key(number).expose());
    WireguardKey::from_bytes(*KeyPair::new(&private).public().as_bytes())
}

/// A device as another is told of it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its public key.
    pub key: WireguardKey,
    /// What may come from it and goes to it.
    pub addresses: HostAddresses,
    /// Where it is; `None` when it must come by itself.
    pub endpoint: Option<SocketAddr>,
    /// What both mix into the handshake.
    pub preshared: Option<Secret>,
    /// How often something is sent to it at least; whole seconds.
    pub keepalive: Option<Duration>,
}

impl Peer {
    /// Returns the device with that number, of which nothing else is told.
    pub fn numbered(number: u8) -> Self {
        Self {
            key: public_key(number),
            addresses: addresses(number),
            endpoint: None,
            preshared: None,
            keepalive: None,
        }
    }

    /// Returns it as a section of a file for `wg setconf`.
    pub(crate) fn section(&self) -> String {
        let mut text = format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = {}/32, {}/128\n",
            self.key, self.addresses.v4, self.addresses.v6
        );
        let mut add = |name: &str, value: String| {
            writeln!(text, "{name} = {value}").expect("a String takes every text");
        };
        if let Some(endpoint) = self.endpoint {
            add("Endpoint", endpoint.to_string());
        }
        if let Some(preshared) = &self.preshared {
            add("PresharedKey", BASE64.encode(preshared.expose()));
        }
        if let Some(keepalive) = self.keepalive {
            add("PersistentKeepalive", keepalive.as_secs().to_string());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_told() {
        let mut peer = Peer::numbered(1);
        assert_eq!(peer.section().lines().count(), 3, "{}", peer.section());
        peer.endpoint = Some("[fd77::1]:51820".parse().unwrap());
        peer.keepalive = Some(Duration::from_secs(25));
        let text = peer.section();
        assert!(text.contains("Endpoint = [fd77::1]:51820\n"), "{text}");
        assert!(text.contains("PersistentKeepalive = 25\n"), "{text}");
    }

    #[test]
    fn every_device_has_its_own_key() {
        assert_ne!(public_key(0), public_key(1));
    }
}
