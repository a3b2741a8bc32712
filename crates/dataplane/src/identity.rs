//! Who this host is: the key that it initiates with, and while its key changes, a spare one. Whoever
//! knows either reaches it; who knows only the spare one is initiated to with that, in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::address::HostAddresses;
use model::key::Secret;
use wireguard::cookie::Load;
use wireguard::{CookieChecker, KeyPair, MacVerdict, PrivateKey};
use zeroize::Zeroizing;

use crate::cookie_secrets::CookieSecrets;

/// Who this host is.
pub(crate) struct Identity {
    pub(crate) incarnation: u64,
    pub(crate) addresses: HostAddresses,
    own: OwnKey,
    spare: Option<OwnKey>,
}

/// One key pair, and the proofs of address that those have who speak to it.
pub(crate) struct OwnKey {
    pub(crate) pair: Arc<KeyPair>,
    pub(crate) cookies: CookieChecker,
}

impl OwnKey {
    pub(crate) fn new(private: &Secret, secrets: &CookieSecrets, now: Duration) -> Self {
        let (secret, since) = secrets.at(now);
        let private = Zeroizing::new(*private.expose());
        let pair = KeyPair::new(&PrivateKey::from_bytes(*private));
        Self {
            cookies: CookieChecker::new(pair.public(), *secret, since),
            pair: Arc::new(pair),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.pair.public() == other.pair.public()
    }
}

impl Identity {
    pub(crate) fn new(incarnation: u64, own: OwnKey, addresses: HostAddresses) -> Self {
        Self {
            incarnation,
            addresses,
            own,
            spare: None,
        }
    }

    /// Initiates with this key from now on, when it is one of this identity's; the other one
    /// becomes the spare. Returns whether it was.
    pub(crate) fn prefer(&mut self, key: &OwnKey) -> bool {
        if self.own.is(key) {
            return true;
        }
        match &mut self.spare {
            Some(spare) if spare.is(key) => {
                std::mem::swap(&mut self.own, spare);
                true
            }
            _ => false,
        }
    }

    /// Answers handshakes to this key too, from now on; `None`: to the first one only.
    pub(crate) fn set_spare(&mut self, spare: Option<OwnKey>) {
        let spare = spare.filter(|spare| !self.own.is(spare));
        let is_known =
            matches!((&self.spare, &spare), (Some(known), Some(spare)) if known.is(spare));
        if !is_known {
            self.spare = spare;
        }
    }

    pub(crate) fn has_spare(&self) -> bool {
        self.spare.is_some()
    }

    /// Returns the key to initiate with.
    pub(crate) fn initiator(&self, with_spare: bool) -> Arc<KeyPair> {
        let spare = self.spare.as_ref().filter(|_| with_spare);
        Arc::clone(&spare.unwrap_or(&self.own).pair)
    }

    /// Returns the key that a handshake message is for; `None`: it is for none of this host.
    pub(crate) fn addressed(&self, datagram: &[u8], from: SocketAddr) -> Option<&OwnKey> {
        [Some(&self.own), self.spare.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.cookies.check(datagram, from, Load::Normal) == MacVerdict::Accept)
    }

    /// Makes cookies with other secrets where that is due.
    pub(crate) fn rotate_cookies(&mut self, now: Duration, secrets: &CookieSecrets) {
        for key in [Some(&mut self.own), self.spare.as_mut()]
            .into_iter()
            .flatten()
        {
            if now >= key.cookies.secret_expires_at() {
                let (secret, since) = secrets.at(now);
                key.cookies.rotate(*secret, since);
            }
        }
    }
}
