//! What hosts know of services: their virtual addresses, which are each service's own and stay with
//! its name, and what a proxy is told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::address::HostAddresses;
use model::catalogue::Catalogue;
use model::ids::HostId;
use model::name::Name;
use policy::Gate;

use super::World;
use crate::event::HostIndex;
use crate::host::Host;

/// The virtual addresses that some host was told of, ever.
#[derive(Default)]
pub(crate) struct ServiceAddresses {
    of: BTreeMap<Name, HostAddresses>,
    owners: BTreeMap<IpAddr, Name>,
}

impl ServiceAddresses {
    /// Takes what one host was told; says what is wrong with it. Chance by its name gives each
    /// service of these worlds the same address always, also after a restore.
    fn note(&mut self, catalogue: &Catalogue) -> Option<String> {
        for (name, service) in &catalogue.services {
            let addresses = service.addresses;
            let first = *self.of.entry(name.clone()).or_insert(addresses);
            if first != addresses {
                return Some(format!("{name} moved from {first:?} to {addresses:?}"));
            }
            for address in [IpAddr::from(addresses.v4), addresses.v6.into()] {
                let owner = self.owners.entry(address).or_insert_with(|| name.clone());
                if owner != name {
                    return Some(format!("{owner} and {name} have {address}"));
                }
                if !catalogue.service_prefixes.contains(address) {
                    return Some(format!("{name} has {address}, which is for hosts"));
                }
            }
        }
        let mut hosts = catalogue.hosts.values();
        let intruder = hosts.find(|host| {
            catalogue
                .service_prefixes
                .contains(host.addresses.v4.into())
                || catalogue
                    .service_prefixes
                    .contains(host.addresses.v6.into())
        })?;
        Some(format!("{} has an address for services", intruder.name))
    }
}

impl World {
    pub(super) fn host_knows_services(
        &mut self,
        index: HostIndex,
        known: Option<(Arc<Catalogue>, Arc<Gate>)>,
    ) {
        let catalogue = known.map(|(catalogue, gate)| {
            let fits = gate.version() == catalogue.policy_version;
            self.object(
                "a gate is of its catalogue's policy",
                (!fits).then(|| format!("{index}: {}", gate.version())),
            );
            catalogue
        });
        if let Some(catalogue) = &catalogue {
            let objection = self.service_addresses.note(catalogue);
            self.object(
                "addresses of services are their own and stay",
                objection.map(|what| format!("{index}: {what}")),
            );
        }
        self.running_mut(index).catalogue = catalogue;
    }
}

/// Says what a host's proxy was told otherwise than the map in force has it.
pub(super) fn wrong_catalogue(host: &Host) -> Option<String> {
    let (running, map) = (host.running.as_ref()?, host.in_force.as_ref()?);
    let Some(catalogue) = &running.catalogue else {
        return Some("its proxy knows no services".to_owned());
    };
    if running.stream_identity.is_none() {
        return Some("its proxy has no certificate".to_owned());
    }
    let names = map.names();
    for service in &map.bundle.services {
        let told = catalogue.services.get(&service.name);
        let is_expected = names.contains_key(&service.name) && service.addresses.is_some();
        if told.is_some() != is_expected {
            return Some(format!(
                "its proxy should know {}: {is_expected}",
                service.name
            ));
        }
        let Some(told) = told else { continue };
        let offers =
            |host: &&model::record::HostRecord| service.endpoints.iter().any(|it| it.selects(host));
        let mut endpoints: Vec<HostId> = map.hosts().filter(offers).map(|it| it.host).collect();
        endpoints.sort_unstable();
        let is_known = endpoints.iter().all(|it| catalogue.hosts.contains_key(it));
        if told.service != *service || told.endpoints != endpoints || !is_known {
            return Some(format!(
                "its proxy knows {} wrongly: {told:?}",
                service.name
            ));
        }
        let resolved = running.names.lookup(service.name.as_str());
        let resolved: Vec<_> = resolved.into_iter().flat_map(|entry| entry.v4()).collect();
        if resolved != [told.addresses.v4] {
            return Some(format!("{} resolves to {resolved:?}", service.name));
        }
    }
    None
}
