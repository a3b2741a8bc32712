//! The few sessions that a tunnel has at once, and how they follow one another (section 6).
//!
//! ```text
//! we initiated:  handshake ──────────────> current ──> previous[0] ──> previous[1] ──> gone
//! we responded:  handshake ──> next ─(first packet)─^
//! ```
//!
//! Only `current` seals; every session opens until it expires. Two previous sessions are kept,
//! because after crossing handshakes a peer may still use either of the two others.
//! Sessions that leave report their index to the list of removed indices.

use std::mem;
use std::time::Duration;

use crate::session::Session;

/// The sessions of one tunnel.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    current: Option<Box<Session>>,
    next: Option<Box<Session>>,
    previous: [Option<Box<Session>>; 2],
}

impl Keyring {
    /// Returns the session that seals.
    #[inline]
    pub(crate) fn current(&self) -> Option<&Session> {
        self.current.as_deref()
    }

    /// Returns the session that seals, for sealing.
    #[inline]
    pub(crate) fn current_mut(&mut self) -> Option<&mut Session> {
        self.current.as_deref_mut()
    }

    /// Returns the session that the peer addresses.
    #[inline]
    pub(crate) fn find_mut(&mut self, local_index: u32) -> Option<&mut Session> {
        let [newer, older] = &mut self.previous;
        [&mut self.current, &mut self.next, newer, older]
            .into_iter()
            .filter_map(|slot| slot.as_deref_mut())
            .find(|session| session.local_index() == local_index)
    }

    /// Takes the session of a handshake that we initiated: the peer has its keys already.
    pub(crate) fn install_initiated(&mut self, session: Session, removed: &mut Vec<u32>) {
        let replaced = self.current.replace(Box::new(session));
        self.retire(replaced, removed);
        // The peer may have got our response and use that session, so it stays longest.
        let next = self.next.take();
        self.retire(next, removed);
    }

    /// Takes the session of a handshake that we answered: unusable until the peer shows its keys.
    pub(crate) fn install_responded(&mut self, session: Session, removed: &mut Vec<u32>) {
        let replaced = self.next.replace(Box::new(session));
        self.retire(replaced, removed);
    }

    /// The peer has used a session that we answered: makes it current, and tells so, unless the
    /// current session is newer.
    pub(crate) fn confirm(&mut self, local_index: u32, removed: &mut Vec<u32>) -> bool {
        let current_since = self.current().map(Session::born_at);
        let [newer, older] = &mut self.previous;
        let names = |slot: &&mut Option<Box<Session>>| {
            slot.as_ref()
                .is_some_and(|session| session.local_index() == local_index)
        };
        let Some(slot) = [&mut self.next, newer, older].into_iter().find(names) else {
            return false;
        };
        let is_newest = |session: &mut Box<Session>| {
            session.confirm();
            current_since.is_none_or(|since| since <= session.born_at())
        };
        let Some(session) = slot.take_if(is_newest) else {
            return false;
        };
        let replaced = self.current.replace(session);
        self.retire(replaced, removed);
        true
    }

    /// Drops, and so wipes, the sessions that may not be used any more.
    pub(crate) fn expire(&mut self, now: Duration, removed: &mut Vec<u32>) {
        for slot in self.slots_mut() {
            if slot
                .as_ref()
                .is_some_and(|session| session.expires_at() <= now)
            {
                removed.extend(slot.take().map(|session| session.local_index()));
            }
        }
    }

    /// Returns when the next session expires.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        self.sessions().map(Session::expires_at).min()
    }

    /// Returns the indices of all sessions.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> {
        self.sessions().map(Session::local_index)
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        let [newer, older] = &self.previous;
        [&self.current, &self.next, newer, older]
            .into_iter()
            .filter_map(|slot| slot.as_deref())
    }

    fn slots_mut(&mut self) -> [&mut Option<Box<Session>>; 4] {
        let [newer, older] = &mut self.previous;
        [&mut self.current, &mut self.next, newer, older]
    }

    fn retire(&mut self, session: Option<Box<Session>>, removed: &mut Vec<u32>) {
        if session.is_none() {
            return;
        }
        let [newer, older] = &mut self.previous;
        let displaced = mem::replace(newer, session);
        if displaced.is_some() {
            let oldest = mem::replace(older, displaced);
            removed.extend(oldest.map(|session| session.local_index()));
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::cipher::DataCipher;
    use crate::session::{Role, TransportKeys};
    use crate::timers::REJECT_AFTER_TIME;

    const NOW: Duration = Duration::ZERO;

    fn session(role: Role, local_index: u32, born_at: Duration) -> Session {
        let keys = Zeroizing::new([[1; 32], [2; 32]]);
        let cipher = DataCipher::ChaCha20Poly1305;
        Session::new(
            &TransportKeys::new(role, cipher, local_index, 0, keys),
            born_at,
        )
    }

    fn current(keyring: &Keyring) -> Option<u32> {
        keyring.current().map(Session::local_index)
    }

    #[test]
    fn an_answered_handshake_waits_and_is_promoted_once() {
        let (mut keyring, mut removed) = (Keyring::default(), Vec::new());
        keyring.install_responded(session(Role::Responder, 1, NOW), &mut removed);
        assert_eq!(current(&keyring), None);
        assert!(keyring.confirm(1, &mut removed));
        assert!(!keyring.confirm(1, &mut removed));
        assert_eq!(current(&keyring), Some(1));
        assert_eq!(keyring.indices().count(), 1);
        assert_eq!(removed, []);
    }

    #[test]
    fn a_newer_current_session_is_not_replaced_by_an_older_one() {
        let (mut keyring, mut removed) = (Keyring::default(), Vec::new());
        keyring.install_responded(session(Role::Responder, 1, NOW), &mut removed);
        let later = Duration::from_secs(1);
        keyring.install_initiated(session(Role::Initiator, 2, later), &mut removed);
        assert!(!keyring.confirm(1, &mut removed));
        assert_eq!(current(&keyring), Some(2));
        assert!(
            keyring
                .find_mut(1)
                .is_some_and(|session| session.is_confirmed())
        );
    }

    #[test]
    fn responses_that_were_installed_out_of_order_do_not_hide_the_used_session() {
        let (mut keyring, mut removed) = (Keyring::default(), Vec::new());
        keyring.install_responded(session(Role::Responder, 1, NOW), &mut removed);
        keyring.install_responded(session(Role::Responder, 2, NOW), &mut removed);
        assert!(keyring.confirm(1, &mut removed), "the peer uses the first");
        assert_eq!(current(&keyring), Some(1));
    }

    #[test]
    fn crossing_handshakes_keep_all_three_sessions() {
        let (mut keyring, mut removed) = (Keyring::default(), Vec::new());
        keyring.install_initiated(session(Role::Initiator, 1, NOW), &mut removed);
        keyring.install_responded(session(Role::Responder, 2, NOW), &mut removed);
        keyring.install_initiated(session(Role::Initiator, 3, NOW), &mut removed);
        assert_eq!(current(&keyring), Some(3));
        assert!(
            [1, 2, 3]
                .iter()
                .all(|index| keyring.find_mut(*index).is_some())
        );
        assert_eq!(removed, []);
    }

    #[test]
    fn a_session_that_becomes_current_leaves_its_place_to_the_one_it_replaces() {
        let (mut keyring, mut removed) = (Keyring::default(), Vec::new());
        keyring.install_initiated(session(Role::Initiator, 1, NOW), &mut removed);
        keyring.install_responded(session(Role::Responder, 2, NOW), &mut removed);
        keyring.install_initiated(session(Role::Initiator, 3, NOW), &mut removed);
        assert!(keyring.confirm(2, &mut removed));
        assert_eq!(current(&keyring), Some(2));
        assert!(keyring.find_mut(1).is_some() && keyring.find_mut(3).is_some());
        assert_eq!(removed, []);
    }

    #[test]
    fn no_more_than_four_sessions_live_and_the_others_are_reported() {
        let (mut keyring, mut removed) = (Keyring::default(), Vec::new());
        for index in 0..20 {
            keyring.install_responded(session(Role::Responder, index, NOW), &mut removed);
            if index % 3 == 0 {
                keyring.confirm(index, &mut removed);
            }
        }
        let mut all: Vec<u32> = keyring.indices().collect();
        assert_eq!(all.len(), 4);
        all.extend(&removed);
        all.sort_unstable();
        assert_eq!(
            all,
            (0..20).collect::<Vec<u32>>(),
            "each is live or removed, once"
        );
    }

    #[test]
    fn expired_sessions_are_dropped_and_reported() {
        let (mut keyring, mut removed) = (Keyring::default(), Vec::new());
        let later = Duration::from_secs(100);
        keyring.install_initiated(session(Role::Initiator, 1, NOW), &mut removed);
        keyring.install_responded(session(Role::Responder, 2, later), &mut removed);
        assert_eq!(keyring.next_expiry(), Some(REJECT_AFTER_TIME));
        keyring.expire(REJECT_AFTER_TIME, &mut removed);
        assert_eq!(removed, [1]);
        assert_eq!(keyring.next_expiry(), Some(later + REJECT_AFTER_TIME));
    }
}
