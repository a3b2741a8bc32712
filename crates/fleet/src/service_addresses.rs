//! Which virtual addresses the services of a policy get. A name keeps what it had in the version
//! before; else chance by its name decides, so that a service that comes back after years most likely
//! finds its own again. They stand in the signed leaves, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use model::address::{HostAddresses, ServicePrefixes};
use model::admin::DiagnosticView;
use model::control::RefusalCode;
use model::ids::PolicyVersion;
use model::name::Name;
use model::rule::{Bundle, Protocol, Service};
use trust::sha256;

use crate::apply::decode_bundle;
use crate::fleet::Fleet;
use crate::output::Rejection;

/// The feature of a daemon that carries what is sent to virtual addresses.
const SERVICE_ADDRESSES: &str = "services.addresses";

/// More services than addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exhausted {
    wanted: usize,
    free: usize,
}

impl Fleet {
    /// Gives the services of a bundle their addresses. `back`: it is that of an old version, whose
    /// services have theirs again where nobody took them meanwhile. Returns a warning when some get
    /// none yet.
    pub(crate) fn give_addresses(
        &self,
        bundle: &mut Bundle,
        back: Option<PolicyVersion>,
    ) -> Result<Option<DiagnosticView>, Rejection> {
        let prefixes = self.state.statement.overlay.services();
        // What cannot be read is as if it had never been: the services get other addresses.
        let earlier = back
            .and_then(|version| self.state.policies.get(&version))
            .and_then(|kept| decode_bundle(&kept.stored).ok())
            .unwrap_or_default();
        let former = self.state.policy.bundle.services.iter();
        let former = former.chain(&earlier.services);
        assign(bundle, former, &self.hosts_within(prefixes), prefixes).map_err(|exhausted| {
            let Exhausted { wanted, free } = exhausted;
            let text = format!(
                "{wanted} services of this policy need addresses of their own, and {} has room for \
                 {free}; take some out, or allow ports of hosts in place of some",
                prefixes.v4
            );
            Rejection::new(RefusalCode::Exhausted, text)
        })?;
        Ok(self.withhold_addresses(bundle))
    }

    /// Leaves services of protocol tcp at their endpoints' addresses while a connected daemon, which
    /// may call or offer one, would not know what to do with others. Who has its own keeps them.
    fn withhold_addresses(&self, bundle: &mut Bundle) -> Option<DiagnosticView> {
        let too_old = self.online_without(SERVICE_ADDRESSES, bundle);
        if too_old.is_empty() {
            return None;
        }
        let has_own: BTreeSet<Name> = self
            .state
            .policy
            .bundle
            .services
            .iter()
            .filter(|service| service.addresses.is_some())
            .map(|service| service.name.clone())
            .collect();
        let mut services = bundle.services.iter_mut();
        let is_new =
            |it: &&mut Service| it.protocol == Protocol::Tcp && !has_own.contains(&it.name);
        let mut withheld = Vec::new();
        for service in services.by_ref().filter(is_new) {
            service.addresses = None;
            withheld.push(service.name.as_str());
        }
        (!withheld.is_empty()).then(|| DiagnosticView {
            severity: "warning".to_owned(),
            file: String::new(),
            line: 0,
            column: 0,
            message: format!(
                "services with protocol tcp get no addresses of their own yet: {}",
                too_old.join(", ")
            ),
            help: Some("upgrade meshd there, then apply the policy again".to_owned()),
        })
    }

    /// Returns the places of hosts that got addresses before any were set apart for services.
    fn hosts_within(&self, prefixes: ServicePrefixes) -> BTreeSet<u32> {
        let overlay = self.state.statement.overlay;
        let hosts = self.state.addresses.range(overlay.capacity()..);
        let addresses = hosts.filter_map(|(index, _)| overlay.nth_host(*index));
        addresses.flat_map(|it| places_of(it, prefixes)).collect()
    }
}

/// Takes the addresses away: for a comparison of what was written.
pub(crate) fn without_addresses(bundle: &Bundle) -> Bundle {
    let mut bundle = bundle.clone();
    for service in &mut bundle.services {
        service.addresses = None;
    }
    bundle
}

/// Returns the places that a host's addresses take from services: by one family, by the other.
fn places_of(host: HostAddresses, prefixes: ServicePrefixes) -> impl Iterator<Item = u32> {
    let in_v4 = prefixes.v4.contains(&host.v4);
    let by_v4 = in_v4.then(|| u32::from(host.v4) - u32::from(prefixes.v4.network()));
    let in_v6 = prefixes.v6.contains(&host.v6);
    let by_v6 = in_v6.then(|| u128::from(host.v6) - u128::from(prefixes.v6.network()));
    let by_v6 = by_v6.and_then(|place| u32::try_from(place).ok());
    by_v4.into_iter().chain(by_v6)
}

/// `former`: services with addresses, the first of a name counts. `hosts`: places that no service
/// gets.
fn assign<'a>(
    bundle: &mut Bundle,
    former: impl Iterator<Item = &'a Service>,
    hosts: &BTreeSet<u32>,
    prefixes: ServicePrefixes,
) -> Result<(), Exhausted> {
    let mut kept: BTreeMap<&Name, u32> = BTreeMap::new();
    for service in former {
        let place = service.addresses.and_then(|it| prefixes.index_of(it));
        if let Some(place) = place.filter(|place| !hosts.contains(place)) {
            kept.entry(&service.name).or_insert(place);
        }
    }
    // By name, so that the order in which services are written changes nothing.
    let mut places: BTreeMap<Name, Option<u32>> = BTreeMap::new();
    let mut taken = hosts.clone();
    for service in bundle.services.iter().filter(|it| has_addresses(it)) {
        let place = kept.get(&service.name).copied();
        let place = place.filter(|place| taken.insert(*place));
        places.insert(service.name.clone(), place);
    }
    let free = prefixes.capacity() as usize - hosts.len();
    if places.len() > free {
        let wanted = places.len();
        return Err(Exhausted { wanted, free });
    }
    for (name, place) in &mut places {
        if place.is_none() {
            *place = Some(search(name, &mut taken, prefixes.capacity()));
        }
    }
    for service in &mut bundle.services {
        let place = places.get(&service.name).copied().flatten();
        service.addresses = place.and_then(|place| prefixes.nth_service(place));
    }
    Ok(())
}

/// Datagrams go to endpoints, whose addresses the name has.
fn has_addresses(service: &Service) -> bool {
    service.protocol != Protocol::Udp
}

/// Takes the first free place from that to which the name points on, and round to it again.
fn search(name: &Name, taken: &mut BTreeSet<u32>, capacity: u32) -> u32 {
    let digest = sha256(name.as_str().as_bytes());
    let (first, _) = digest
        .as_bytes()
        .split_first_chunk()
        .expect("a digest has 32 bytes");
    let start = u32::from_be_bytes(*first) % capacity;
    (start..capacity)
        .chain(0..start)
        .find(|place| taken.insert(*place))
        .expect("there are more places than services")
}

#[cfg(test)]
mod tests {
    use model::address::OverlayPrefixes;
    use model::rule::{Selector, Source, TrafficSettings};
    use proptest::prelude::*;

    use super::*;

    fn prefixes(v4: &str) -> ServicePrefixes {
        OverlayPrefixes::checked(v4.parse().unwrap(), "fd00::/48".parse().unwrap())
            .unwrap()
            .services()
    }

    fn service(name: &str, protocol: Protocol) -> Service {
        Service {
            name: name.parse().unwrap(),
            port: 80,
            protocol,
            endpoints: vec![Selector::Any],
            workloads: Vec::new(),
            addresses: None,
            settings: TrafficSettings::default(),
            source: Source::default(),
        }
    }

    fn bundle<'a>(names: impl IntoIterator<Item = &'a u8>) -> Bundle {
        let names = names.into_iter().map(|number| format!("s{number}"));
        Bundle {
            services: names.map(|name| service(&name, Protocol::Tcp)).collect(),
            ..Bundle::default()
        }
    }

    fn addresses(bundle: &Bundle) -> BTreeMap<&str, HostAddresses> {
        let services = bundle.services.iter();
        services
            .map(|it| (it.name.as_str(), it.addresses.unwrap()))
            .collect()
    }

    proptest! {
        #[test]
        fn addresses_are_each_service_s_own_and_stay_with_its_name(
            versions in prop::collection::vec(prop::collection::btree_set(0..20u8, 0..12), 1..8),
            hosts in prop::collection::btree_set(0..15u32, 0..4),
        ) {
            // 15 places: nearly every name meets another.
            let prefixes = prefixes("10.0.0.0/24");
            let mut before = Bundle::default();
            for names in versions {
                let mut next = bundle(&names);
                let free = prefixes.capacity() as usize - hosts.len();
                let given = assign(&mut next, before.services.iter(), &hosts, prefixes);
                if names.len() > free {
                    prop_assert_eq!(given, Err(Exhausted { wanted: names.len(), free }));
                    continue;
                }
                given.unwrap();
                let (old, new) = (addresses(&before), addresses(&next));
                let distinct: BTreeSet<_> = new.values().collect();
                prop_assert_eq!(distinct.len(), names.len());
                for (name, given) in &new {
                    let place = prefixes.index_of(*given).unwrap();
                    prop_assert!(!hosts.contains(&place), "{} has a host's address", name);
                    prop_assert!(old.get(name).is_none_or(|old| old == given), "{} moved", name);
                }
                before = next;
            }
        }

        #[test]
        fn the_order_in_which_services_are_written_changes_nothing(
            names in prop::collection::btree_set(0..30u8, 0..14),
        ) {
            let prefixes = prefixes("10.0.0.0/24");
            let (mut one, mut other) = (bundle(&names), bundle(names.iter().rev()));
            assign(&mut one, [].iter(), &BTreeSet::new(), prefixes).unwrap();
            assign(&mut other, [].iter(), &BTreeSet::new(), prefixes).unwrap();
            prop_assert_eq!(addresses(&one), addresses(&other));
        }
    }

    #[test]
    fn what_was_before_comes_before_what_was_long_ago() {
        let prefixes = prefixes("10.0.0.0/16");
        let with = |name: &str, place| Service {
            addresses: prefixes.nth_service(place),
            ..service(name, Protocol::Tcp)
        };
        let former = [with("a", 1), with("b", 2), with("a", 7), with("c", 2)];
        let mut next = Bundle {
            services: ["a", "b", "c"].map(|it| service(it, Protocol::Http)).into(),
            ..Bundle::default()
        };
        assign(&mut next, former.iter(), &BTreeSet::new(), prefixes).unwrap();
        let given = addresses(&next);
        assert_eq!(given["a"], prefixes.nth_service(1).unwrap());
        assert_eq!(given["b"], prefixes.nth_service(2).unwrap());
        assert_ne!(given["c"], given["b"], "b has it, and keeps it");
    }

    #[test]
    fn a_service_gives_way_to_a_host_that_was_there_first() {
        let overlay =
            OverlayPrefixes::checked("10.0.0.0/26".parse().unwrap(), "fd00::/48".parse().unwrap())
                .unwrap();
        let prefixes = overlay.services();
        let places: Vec<u32> = (overlay.capacity()..)
            .map_while(|index| overlay.nth_host(index))
            .flat_map(|host| places_of(host, prefixes))
            .collect();
        assert_eq!(places, [0, 1, 2], "every place of this small prefix");
        let mut next = bundle(&[1]);
        let hosts = BTreeSet::from([0, 2]);
        assign(&mut next, [].iter(), &hosts, prefixes).unwrap();
        assert_eq!(next.services[0].addresses, prefixes.nth_service(1));
    }

    #[test]
    fn datagrams_have_no_virtual_address() {
        let mut next = Bundle {
            services: vec![service("time", Protocol::Udp)],
            ..Bundle::default()
        };
        assign(
            &mut next,
            [].iter(),
            &BTreeSet::new(),
            prefixes("10.0.0.0/16"),
        )
        .unwrap();
        assert_eq!(next.services[0].addresses, None);
    }
}
