//! Clients that do not believe what the server shows. One has a wrong pin; many may mean that this is
//! not the server that they knew: an operator has to hear of it, and not a thousand times. None has shown
//! who it is, so nothing is proven by it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::AlertDescription;
use tokio::time::Instant;

use super::prefix::Prefix;

/// How often it is told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// How long a machine that did not believe the server counts: hosts try again within minutes.
const RECENTLY: Duration = Duration::from_secs(10 * 60);
/// Machines that are remembered; more are not counted.
const MACHINES_MAX: usize = 16_384;

/// Counts clients that do not believe the server.
#[derive(Clone, Debug, Default)]
pub struct Disbelief(Arc<Mutex<Count>>);

#[derive(Debug, Default)]
struct Count {
    clients: u64,
    told: Option<Instant>,
    /// When each machine refused last.
    machines: BTreeMap<Prefix, Instant>,
}

impl Disbelief {
    /// Takes the error of a handshake, and tells of it when it is about belief.
    pub(super) fn note(&self, error: &io::Error, remote: SocketAddr) {
        if !is_disbelief(error) {
            return;
        }
        if let Some(clients) = self.count(remote.ip(), Instant::now()) {
            tracing::warn!(
                %remote,
                clients,
                "clients that have not shown who they are say that they do not believe this \
                 coordinator's certificate: strangers, old tokens and credentials, or hosts that \
                 were left behind when a root was retired; if every host is offline, this \
                 coordinator may have been restored from a backup that is older than the last \
                 rotation of the authority: restore a newer one, or have the hosts join anew"
            );
        }
    }

    /// Returns how many machines have said in the last ten minutes that they do not believe the server.
    pub fn machines(&self) -> usize {
        self.machines_at(Instant::now())
    }

    fn machines_at(&self, now: Instant) -> usize {
        let mut count = self.0.lock().expect("nobody panics with the lock held");
        count.machines.retain(|_, last| now < *last + RECENTLY);
        count.machines.len()
    }

    /// Counts one more; returns how many there were since it was told last, when it is time.
    fn count(&self, remote: IpAddr, now: Instant) -> Option<u64> {
        let machine = Prefix::of_machine(remote);
        let mut count = self.0.lock().expect("nobody panics with the lock held");
        count.clients += 1;
        if count.machines.len() < MACHINES_MAX || count.machines.contains_key(&machine) {
            count.machines.insert(machine, now);
        }
        if count.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return None;
        }
        count.told = Some(now);
        Some(std::mem::take(&mut count.clients))
    }
}

/// How rustls says that a verifier refused, and what other programs say then.
fn is_disbelief(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|it| it.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_of_once_in_a_while() {
        let disbelief = Disbelief::default();
        let start = Instant::now();
        let count = |after| disbelief.count(machine(1), start + after);
        assert_eq!(count(Duration::ZERO), Some(1));
        for _ in 0..10 {
            assert_eq!(count(TOLD_EVERY / 2), None);
        }
        assert_eq!(count(TOLD_EVERY), Some(11));
    }

    fn machine(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn each_machine_counts_once_and_for_a_while() {
        let disbelief = Disbelief::default();
        let start = Instant::now();
        for number in [1, 2, 2] {
            disbelief.count(machine(number), start);
        }
        disbelief.count(machine(2), start + RECENTLY / 2);
        assert_eq!(disbelief.machines_at(start + RECENTLY / 2), 2);
        assert_eq!(disbelief.machines_at(start + RECENTLY), 1);
        assert_eq!(disbelief.machines_at(start + 2 * RECENTLY), 0);
    }

    #[test]
    fn the_addresses_of_a_v6_subnet_are_one_machine() {
        let disbelief = Disbelief::default();
        let now = Instant::now();
        for host in 1..=100 {
            disbelief.count([0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into(), now);
        }
        assert_eq!(disbelief.machines_at(now), 1);
        disbelief.count([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1].into(), now);
        assert_eq!(disbelief.machines_at(now), 2);
    }

    #[test]
    fn other_errors_are_none() {
        let refused = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        assert!(is_disbelief(&refused(AlertDescription::CertificateUnknown)));
        assert!(!is_disbelief(&refused(AlertDescription::HandshakeFailure)));
        assert!(!is_disbelief(&io::ErrorKind::TimedOut.into()));
    }
}
