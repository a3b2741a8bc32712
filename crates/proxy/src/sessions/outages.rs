//! The hosts with which no session comes about, as all threads know it together: whoever calls one is
//! told at once, while the thread that found out tries it again beside the calls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::catalogue::CatalogueHost;
use model::ids::{Digest, HostId};
use model::name::Name;
use tokio::sync::watch;

use super::SessionError;

/// The hosts with which no session comes about.
#[derive(Debug)]
pub(crate) struct Outages {
    hosts: Mutex<BTreeMap<HostId, Outage>>,
    number: watch::Sender<u64>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    /// The last failure: the answer to everyone.
    error: SessionError,
    /// What was tried; elsewhere the host may be reached.
    places: Places,
    /// Tells the thread that tries it from one that tried it before.
    number: u64,
}

/// Where a host is tried, and by what it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    name: Name,
    key: Digest,
    streams: Vec<SocketAddr>,
    datagrams: Vec<SocketAddr>,
}

impl Places {
    pub(super) fn of(host: &CatalogueHost) -> Self {
        Self {
            name: host.name.clone(),
            key: host.tls_key_hash,
            streams: host.streams.clone(),
            datagrams: host.datagrams.clone(),
        }
    }
}

/// A host with which no session comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutageSeen {
    /// Which host.
    pub host: HostId,
    /// For how long.
    pub lasts: Duration,
    /// Why the last try failed.
    pub error: String,
}

impl Default for Outages {
    fn default() -> Self {
        Self {
            hosts: Mutex::default(),
            number: watch::Sender::new(0),
        }
    }
}

impl Outages {
    /// Returns what tells that it is another set of hosts: `changed().await`.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }

    /// Returns why no session comes about with a host; `None`: perhaps one does.
    pub(super) fn error(&self, host: HostId) -> Option<SessionError> {
        let hosts = self.hosts();
        hosts.get(&host).map(|outage| outage.error.clone())
    }

    /// Whether no session comes about with a host.
    pub(super) fn contains(&self, host: HostId) -> bool {
        self.hosts().contains_key(&host)
    }

    /// Takes that a host was tried in vain. Returns the number of the outage if it begins with that:
    /// then it is the caller's to try again.
    pub(super) fn begin(&self, host: HostId, places: Places, error: SessionError) -> Option<u64> {
        let mut hosts = self.hosts();
        if let Some(outage) = hosts.get_mut(&host) {
            outage.error = error;
            return None;
        }
        let number = self.count();
        tracing::warn!(host = %places.name, %error, "no session with a host comes about: it gets no calls");
        hosts.insert(
            host,
            Outage {
                since: Instant::now(),
                error,
                places,
                number,
            },
        );
        Some(number)
    }

    /// Takes that it was tried once more in vain. Returns whether that outage lasts.
    pub(super) fn go_on(&self, host: HostId, number: u64, error: Option<SessionError>) -> bool {
        let mut hosts = self.hosts();
        let outage = hosts.get_mut(&host);
        let Some(outage) = outage.filter(|outage| outage.number == number) else {
            return false;
        };
        if let Some(error) = error {
            outage.error = error;
        }
        true
    }

    /// Takes that a session came about.
    pub(super) fn end(&self, host: HostId) {
        if let Some(outage) = self.hosts().remove(&host) {
            let lasted = outage.since.elapsed();
            let name = &outage.places.name;
            tracing::info!(host = %name, ?lasted, "a session with a host comes about again");
            self.count();
        }
    }

    /// Forgets hosts that are gone or to be tried elsewhere now.
    pub(super) fn keep_only(&self, places: impl Fn(HostId) -> Option<Places>) {
        let mut hosts = self.hosts();
        let before = hosts.len();
        hosts.retain(|host, outage| places(*host).as_ref() == Some(&outage.places));
        if hosts.len() < before {
            self.count();
        }
    }

    /// Returns them for people.
    pub(super) fn seen(&self) -> Vec<OutageSeen> {
        let hosts = self.hosts();
        let seen = hosts.iter().map(|(host, outage)| OutageSeen {
            host: *host,
            lasts: outage.since.elapsed(),
            error: outage.error.to_string(),
        });
        seen.collect()
    }

    fn count(&self) -> u64 {
        self.number.send_modify(|number| *number += 1);
        *self.number.borrow()
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<HostId, Outage>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(port: u16) -> Places {
        Places {
            name: "vm-1".parse().unwrap(),
            key: Digest::from_bytes([1; 32]),
            streams: vec![SocketAddr::from(([192, 0, 2, 1], port))],
            datagrams: Vec::new(),
        }
    }

    fn refused() -> SessionError {
        SessionError::Connect("refused".into())
    }

    #[test]
    fn one_thread_tries_again_and_everybody_is_told() {
        let outages = Outages::default();
        let (mut changes, host) = (outages.watch(), HostId::from_bytes([1; 16]));
        let first = outages.begin(host, places(1), refused()).unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(outages.begin(host, places(1), refused()), None);
        let late = SessionError::Connect("no answer".into());
        assert!(outages.go_on(host, first, Some(late.clone())));
        assert_eq!(outages.error(host), Some(late));
        let [seen] = &outages.seen()[..] else {
            panic!("one");
        };
        assert_eq!((seen.host, &*seen.error), (host, "no answer"));
        assert!(!changes.has_changed().unwrap(), "it is the same host");
        outages.end(host);
        outages.end(host);
        assert!(changes.has_changed().unwrap());
        assert_eq!(outages.error(host), None);
    }

    #[test]
    fn what_is_known_of_other_places_is_forgotten() {
        let outages = Outages::default();
        let host = HostId::from_bytes([1; 16]);
        let first = outages.begin(host, places(1), refused()).unwrap();
        outages.keep_only(|_| Some(places(1)));
        assert!(outages.contains(host));
        outages.keep_only(|_| Some(places(2)));
        assert!(!outages.contains(host));
        let second = outages.begin(host, places(2), refused()).unwrap();
        assert!(!outages.go_on(host, first, None), "it is another outage");
        assert!(outages.go_on(host, second, None));
        outages.keep_only(|_| None);
        assert!(!outages.contains(host), "the host is gone");
    }
}
