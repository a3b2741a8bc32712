//! Who has an address of the overlay, for every connection that is caught.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::address::HostAddresses;
use model::catalogue::Catalogue;
use model::ids::HostId;
use model::name::Name;

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A service.
    Service(Name),
    /// A host.
    Host(HostId),
}

/// The addresses of one catalogue; those of another are read when it is there.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    read: RefCell<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    catalogue: Arc<Catalogue>,
    holders: BTreeMap<IpAddr, Holder>,
}

impl Directory {
    /// Returns who has the address.
    pub(crate) fn holder(&self, catalogue: &Arc<Catalogue>, address: IpAddr) -> Option<Holder> {
        let mut read = self.read.borrow_mut();
        let is_current = |read: &Read| Arc::ptr_eq(&read.catalogue, catalogue);
        if !read.as_ref().is_some_and(is_current) {
            *read = Some(Read::of(catalogue));
        }
        read.as_ref()?.holders.get(&address.to_canonical()).cloned()
    }
}

impl Read {
    fn of(catalogue: &Arc<Catalogue>) -> Self {
        let mut holders = BTreeMap::new();
        let mut add = |addresses: HostAddresses, holder: Holder| {
            holders.insert(addresses.v4.into(), holder.clone());
            holders.insert(addresses.v6.into(), holder);
        };
        for host in catalogue.hosts.values() {
            add(host.addresses, Holder::Host(host.host));
        }
        for service in catalogue.services.values() {
            add(
                service.addresses,
                Holder::Service(service.service.name.clone()),
            );
        }
        Self {
            catalogue: Arc::clone(catalogue),
            holders,
        }
    }
}
