//! What proxy threads know of the fleet, replaced whole by whoever learns it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use model::catalogue::{Catalogue, StreamIdentity};
use model::rule::Protocol;
use policy::Gate;
use tokio::sync::watch;

use crate::marks::Aim;

/// What is known at one moment; the parts fit together.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Services and hosts.
    pub catalogue: Arc<Catalogue>,
    /// What may be called.
    pub gate: Arc<Gate>,
    /// What this host shows to others; `None`: it has no certificate yet, and no streams.
    pub identity: Option<Arc<StreamIdentity>>,
}

impl Snapshot {
    /// Returns what is spoken to a service, as the policy says; `None`: it is a port, or unknown.
    pub(crate) fn protocol(&self, aim: &Aim) -> Option<Protocol> {
        let Aim::Service(name) = aim else {
            return None;
        };
        let service = self.catalogue.services.get(name);
        service.map(|it| it.service.protocol)
    }
}

/// The current snapshot, and word of each new one. Reading it takes no lock.
#[derive(Debug)]
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    number: watch::Sender<u64>,
}

impl Snapshots {
    /// Begins with a first one.
    pub fn new(first: Snapshot) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(first),
            number: watch::Sender::new(0),
        })
    }

    /// Puts another in force, for every call from now on.
    pub fn replace(&self, next: Snapshot) {
        self.current.store(Arc::new(next));
        self.number.send_modify(|number| *number += 1);
    }

    /// Returns the one in force.
    pub fn current(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Returns the one in force, to be kept.
    pub fn to_keep(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Returns what tells that another is in force: `changed().await`.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.number.subscribe()
    }
}
