//! The two MACs of handshake messages and the cookie that a loaded receiver asks for
//! (sections 5.3, 5.4.4 and 5.4.7).
//!
//! [`CookieChecker`] is the receiving side, one per private key; [`CookieJar`] is the sending
//! side, one per peer. When a host counts as loaded is the caller's decision.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::PublicKey;
use crate::message::{self, CookieReply, Kind, MACS_LEN, classify};
use crate::symmetric::{hash, mac};

/// How long a cookie and the secret behind it are good.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120); // section 5.4.7

const MAC_LEN: usize = 16;
const LABEL_MAC1: &[u8] = b"mac1----"; // section 5.4
const LABEL_COOKIE: &[u8] = b"cookie--"; // section 5.4

/// Whether the caller has handshake work to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Work on any message with a good mac1.
    Normal,
    /// Work only for senders that proved their address.
    Heavy,
}

/// What to do with a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacVerdict {
    /// Work on it.
    Accept,
    /// Answer with [`CookieChecker::reply`] and drop it.
    AskForCookie,
    /// Drop it: the sender does not know our public key, or it is no handshake message.
    Reject,
}

/// The receiving side: checks MACs and hands out cookies.
pub struct CookieChecker {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    secret: CookieSecret,
    secret_since: Duration,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct CookieSecret([u8; 32]);

impl CookieChecker {
    /// Makes the checker of messages to `local`; `secret` is random.
    pub fn new(local: &PublicKey, secret: [u8; 32], now: Duration) -> Self {
        Self {
            mac1_key: mac1_key(local),
            cookie_key: cookie_key(local),
            secret: CookieSecret(secret),
            secret_since: now,
        }
    }

    /// Returns when [`Self::rotate`] is due.
    pub const fn secret_expires_at(&self) -> Duration {
        self.secret_since.saturating_add(COOKIE_LIFETIME)
    }

    /// Replaces the secret by other random bytes; cookies handed out before become void.
    pub fn rotate(&mut self, secret: [u8; 32], now: Duration) {
        self.secret = CookieSecret(secret);
        self.secret_since = now;
    }

    /// Judges an initiation or a response that came from `source`.
    pub fn check(&self, datagram: &[u8], source: SocketAddr, load: Load) -> MacVerdict {
        let Some((body, mac1, mac2)) = split(datagram) else {
            return MacVerdict::Reject;
        };
        if !equal(&mac(&self.mac1_key, &[body]), mac1) {
            return MacVerdict::Reject;
        }
        let proven = || equal(&mac(&self.cookie(source), &[body, mac1]), mac2);
        match load {
            Load::Normal => MacVerdict::Accept,
            Load::Heavy if proven() => MacVerdict::Accept,
            Load::Heavy => MacVerdict::AskForCookie,
        }
    }

    /// Makes the cookie reply to a handshake message that came from `source`; `nonce` is random.
    /// `None` when the datagram is no handshake message.
    pub fn reply(
        &self,
        datagram: &[u8],
        source: SocketAddr,
        nonce: [u8; 24],
    ) -> Option<[u8; CookieReply::LEN]> {
        let (_, mac1, _) = split(datagram)?;
        let mut encrypted_cookie = [0; 32];
        let (cookie, tag) = encrypted_cookie.split_at_mut(MAC_LEN);
        cookie.copy_from_slice(&self.cookie(source));
        let sealed = XChaCha20Poly1305::new(&self.cookie_key.into())
            .encrypt_in_place_detached(&XNonce::from(nonce), mac1, cookie)
            .expect("a cookie is far shorter than the cipher's limit");
        tag.copy_from_slice(&sealed);
        let reply = CookieReply {
            receiver_index: message::sender_index(datagram)?,
            nonce,
            encrypted_cookie,
        };
        Some(reply.encode())
    }

    /// The cookie of an address: nobody else can make it, nothing is stored for it.
    fn cookie(&self, source: SocketAddr) -> [u8; MAC_LEN] {
        let port = source.port().to_be_bytes();
        match source.ip().to_canonical() {
            IpAddr::V4(address) => mac(&self.secret.0, &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(&self.secret.0, &[&address.octets(), &port]),
        }
    }
}

impl fmt::Debug for CookieChecker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CookieChecker")
            .field("secret_since", &self.secret_since)
            .finish_non_exhaustive()
    }
}

/// Why a cookie reply was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieRejected {
    /// No handshake message of ours waits for one, or not under this index.
    #[error("the cookie reply answers no message that was sent")]
    Unexpected,
    /// It does not decrypt with the MAC of the message that it claims to answer.
    #[error("the cookie reply is not authentic")]
    Forged,
}

/// The sending side: writes MACs and keeps the peer's cookie.
pub struct CookieJar {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    cookie: Option<Cookie>,
    last_sent: Option<LastSent>,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Cookie {
    value: [u8; MAC_LEN],
    #[zeroize(skip)]
    received_at: Duration,
}

/// What a cookie reply must refer to.
struct LastSent {
    sender_index: u32,
    mac1: [u8; MAC_LEN],
}

impl CookieJar {
    /// Makes the jar for messages to `peer`.
    pub fn new(peer: &PublicKey) -> Self {
        Self {
            mac1_key: mac1_key(peer),
            cookie_key: cookie_key(peer),
            cookie: None,
            last_sent: None,
        }
    }

    /// Writes both MACs of an encoded initiation or response.
    ///
    /// # Panics
    ///
    /// When `message` is neither.
    pub fn sign(&mut self, message: &mut [u8], now: Duration) {
        let sender_index =
            message::sender_index(message).expect("only initiations and responses are signed");
        let (body, macs) = message.split_at_mut(message.len() - MACS_LEN);
        let mac1 = mac(&self.mac1_key, &[body]);
        let mac2 = match self.fresh_cookie(now) {
            Some(cookie) => mac(&cookie.value, &[body, &mac1]),
            None => [0; MAC_LEN],
        };
        macs[..MAC_LEN].copy_from_slice(&mac1);
        macs[MAC_LEN..].copy_from_slice(&mac2);
        self.last_sent = Some(LastSent { sender_index, mac1 });
    }

    /// Takes the cookie out of a reply to the last message that was signed. It goes into the next
    /// message; nothing is sent because of it. It says nothing about where the peer is.
    ///
    /// # Errors
    ///
    /// [`CookieRejected`] when the reply is not the first authentic one to that message.
    pub fn consume(&mut self, reply: &CookieReply, now: Duration) -> Result<(), CookieRejected> {
        let sent = self
            .last_sent
            .as_ref()
            .filter(|sent| sent.sender_index == reply.receiver_index)
            .ok_or(CookieRejected::Unexpected)?;
        let mut value = [0; MAC_LEN];
        let (cookie, tag) = reply.encrypted_cookie.split_at(MAC_LEN);
        value.copy_from_slice(cookie);
        XChaCha20Poly1305::new(&self.cookie_key.into())
            .decrypt_in_place_detached(
                &XNonce::from(reply.nonce),
                &sent.mac1,
                &mut value,
                tag.into(),
            )
            .map_err(|_| CookieRejected::Forged)?;
        self.cookie = Some(Cookie {
            value,
            received_at: now,
        });
        self.last_sent = None;
        Ok(())
    }

    fn fresh_cookie(&self, now: Duration) -> Option<&Cookie> {
        let cookie = self.cookie.as_ref()?;
        (now.saturating_sub(cookie.received_at) < COOKIE_LIFETIME).then_some(cookie)
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CookieJar")
            .field("has_cookie", &self.cookie.is_some())
            .finish_non_exhaustive()
    }
}

/// Splits a handshake message into what mac1 covers, mac1, and mac2.
fn split(datagram: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    match classify(datagram)? {
        Kind::Initiation | Kind::Response => {
            let (body, macs) = datagram.split_at(datagram.len() - MACS_LEN);
            let (mac1, mac2) = macs.split_at(MAC_LEN);
            Some((body, mac1, mac2))
        }
        Kind::CookieReply | Kind::Data => None,
    }
}

fn mac1_key(receiver: &PublicKey) -> [u8; 32] {
    hash(&[LABEL_MAC1, receiver.as_bytes()])
}

fn cookie_key(receiver: &PublicKey) -> [u8; 32] {
    hash(&[LABEL_COOKIE, receiver.as_bytes()])
}

fn equal(ours: &[u8; MAC_LEN], theirs: &[u8]) -> bool {
    ours.as_slice().ct_eq(theirs).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Initiation;

    const NOW: Duration = Duration::from_secs(100);
    const NONCE: [u8; 24] = [3; 24];

    fn peer() -> PublicKey {
        PublicKey::from_bytes([9; 32])
    }

    fn source(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn message(sender_index: u32) -> [u8; Initiation::LEN] {
        Initiation {
            sender_index,
            ephemeral: PublicKey::from_bytes([1; 32]),
            encrypted_static: [2; 48],
            encrypted_timestamp: [3; 28],
        }
        .encode()
    }

    /// A checker, and a jar that got a cookie from it as `from`.
    fn proven(from: SocketAddr) -> (CookieChecker, CookieJar) {
        let checker = CookieChecker::new(&peer(), [5; 32], NOW);
        let mut jar = CookieJar::new(&peer());
        let mut first = message(1);
        jar.sign(&mut first, NOW);
        assert_eq!(
            checker.check(&first, from, Load::Heavy),
            MacVerdict::AskForCookie
        );
        let reply = checker.reply(&first, from, NONCE).unwrap();
        jar.consume(&CookieReply::parse(&reply).unwrap(), NOW)
            .unwrap();
        (checker, jar)
    }

    #[test]
    fn mac1_alone_is_enough_without_load() {
        let checker = CookieChecker::new(&peer(), [5; 32], NOW);
        let mut jar = CookieJar::new(&peer());
        let (from, mut datagram) = (source("192.0.2.1:1000"), message(1));
        assert_eq!(
            checker.check(&datagram, from, Load::Normal),
            MacVerdict::Reject
        );
        jar.sign(&mut datagram, NOW);
        assert_eq!(
            checker.check(&datagram, from, Load::Normal),
            MacVerdict::Accept
        );
        datagram[20] ^= 1;
        assert_eq!(
            checker.check(&datagram, from, Load::Heavy),
            MacVerdict::Reject
        );
    }

    #[test]
    fn a_cookie_opens_the_door_only_for_the_address_that_got_it() {
        let from = source("192.0.2.1:1000");
        let (checker, mut jar) = proven(from);
        let mut second = message(2);
        jar.sign(&mut second, NOW);
        let verdict = |from| checker.check(&second, from, Load::Heavy);
        assert_eq!(verdict(from), MacVerdict::Accept);
        assert_eq!(
            verdict(source("[::ffff:192.0.2.1]:1000")),
            MacVerdict::Accept
        );
        assert_eq!(verdict(source("192.0.2.2:1000")), MacVerdict::AskForCookie);
        assert_eq!(verdict(source("192.0.2.1:1001")), MacVerdict::AskForCookie);
        assert_eq!(
            verdict(source("[2001:db8::1]:1000")),
            MacVerdict::AskForCookie
        );
    }

    #[test]
    fn a_cookie_ends_with_its_lifetime_and_with_the_secret() {
        let from = source("192.0.2.1:1000");
        let (mut checker, mut jar) = proven(from);
        let mut datagram = message(2);
        jar.sign(&mut datagram, NOW + COOKIE_LIFETIME);
        assert_eq!(datagram[132..], [0; 16], "an old cookie is not used");
        jar.sign(
            &mut datagram,
            NOW + COOKIE_LIFETIME - Duration::from_millis(1),
        );
        assert_eq!(
            checker.check(&datagram, from, Load::Heavy),
            MacVerdict::Accept
        );
        assert_eq!(checker.secret_expires_at(), NOW + COOKIE_LIFETIME);
        checker.rotate([6; 32], NOW + COOKIE_LIFETIME);
        assert_eq!(
            checker.check(&datagram, from, Load::Heavy),
            MacVerdict::AskForCookie
        );
    }

    #[test]
    fn a_cookie_reply_counts_once_and_only_for_the_message_it_answers() {
        let from = source("192.0.2.1:1000");
        let checker = CookieChecker::new(&peer(), [5; 32], NOW);
        let mut jar = CookieJar::new(&peer());
        let (mut first, mut second) = (message(1), message(2));
        jar.sign(&mut first, NOW);
        let reply = |datagram: &[u8]| {
            CookieReply::parse(&checker.reply(datagram, from, NONCE).unwrap()).unwrap()
        };
        let to_first = reply(&first);
        jar.sign(&mut second, NOW);
        assert_eq!(jar.consume(&to_first, NOW), Err(CookieRejected::Unexpected));
        let renamed = CookieReply {
            receiver_index: 2,
            ..to_first
        };
        assert_eq!(jar.consume(&renamed, NOW), Err(CookieRejected::Forged));
        let to_second = reply(&second);
        assert_eq!(jar.consume(&to_second, NOW), Ok(()));
        assert_eq!(
            jar.consume(&to_second, NOW),
            Err(CookieRejected::Unexpected)
        );
    }

    #[test]
    fn a_jar_that_sent_nothing_takes_no_cookie() {
        let mut jar = CookieJar::new(&peer());
        let reply = CookieReply {
            receiver_index: 0,
            nonce: NONCE,
            encrypted_cookie: [0; 32],
        };
        assert_eq!(jar.consume(&reply, NOW), Err(CookieRejected::Unexpected));
    }
}
