//! What the fleet as a whole has agreed on, as its operators know it: who is a member, and which
//! policy is in force, compiled anew from what was applied. Hosts know only their part of it.

use std::collections::BTreeMap;

use model::admin::{HostView, PolicyFile};
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::record::HostRecord;
use model::rule::Bundle;
use policy::reference::decide;
use policy::{first_policy, first_policy_files, load, resolve};

use crate::reference::{KnownMap, links};
use crate::traffic::Speech;

/// Every version of the policy that was acknowledged. `None`: hosts changed while it was applied,
/// so that nobody outside knows which hosts its names mean.
pub(crate) struct Policies(BTreeMap<PolicyVersion, Option<Bundle>>);

/// The fleet at one moment.
pub(crate) struct Truth {
    pub(crate) hosts: BTreeMap<HostId, HostRecord>,
    /// The policy in force, where it is known.
    bundle: Option<Bundle>,
}

impl Policies {
    /// A new fleet's.
    pub(crate) fn new() -> Self {
        Self(BTreeMap::from([(PolicyVersion(1), Some(first_policy()))]))
    }

    pub(crate) fn applied(&mut self, version: PolicyVersion, bundle: Option<Bundle>) {
        self.0.insert(version, bundle);
    }

    pub(crate) fn bundle(&self, version: PolicyVersion) -> Option<&Bundle> {
        self.0.get(&version)?.as_ref()
    }

    /// Returns what comes into force when a version is brought back: what it meant, whatever became
    /// of its hosts since. The first, which nobody wrote, gets the lines of its files by that.
    pub(crate) fn brought_back(&self, version: PolicyVersion) -> Option<Bundle> {
        let name = "sim".parse().expect("a name");
        match version {
            PolicyVersion(1) => compile(&first_policy_files(&name), &[]),
            _ => self.bundle(version).cloned(),
        }
    }

    pub(crate) fn newest(&self) -> PolicyVersion {
        *self.0.last_key_value().expect("there is a first").0
    }
}

/// Compiles what an operator wrote; `None` when it is wrong.
pub(crate) fn compile(files: &[PolicyFile], hosts: &[HostView]) -> Option<Bundle> {
    let inventory: Vec<HostRecord> = hosts.iter().map(record_of).collect();
    resolve(&load(files).ok()?, &inventory).ok()
}

impl Truth {
    pub(crate) fn new(hosts: &[HostView], bundle: Option<Bundle>) -> Self {
        let hosts = hosts
            .iter()
            .map(|view| (view.id, record_of(view)))
            .collect();
        Self { hosts, bundle }
    }

    /// Returns whether it is known what the policy in force means.
    pub(crate) const fn is_certain(&self) -> bool {
        self.bundle.is_some()
    }

    /// Returns whether one host may open a flow to another; `None` when nobody outside knows.
    pub(crate) fn allows(&self, from: HostId, to: HostId, speech: Speech) -> Option<bool> {
        let (from, to) = (self.hosts.get(&from)?, self.hosts.get(&to)?);
        let bundle = self.bundle.as_ref()?;
        Some(decide(bundle, from, to, speech.ip_protocol(), speech.port()).allowed)
    }

    /// Returns whether two hosts may talk at all, either way.
    fn connects(&self, one: HostId, other: HostId) -> bool {
        Speech::every().into_iter().any(|speech| {
            self.allows(one, other, speech) == Some(true)
                || self.allows(other, one, speech) == Some(true)
        })
    }

    /// Returns whether a rule connects two hosts, so that they have to know each other. Everybody
    /// may be linked when nobody outside knows the policy.
    pub(crate) fn links(&self, one: HostId, other: HostId) -> bool {
        let Some(bundle) = &self.bundle else {
            return true;
        };
        match (self.hosts.get(&one), self.hosts.get(&other)) {
            (Some(one), Some(other)) => links(bundle, one, other),
            _ => false,
        }
    }

    /// Says what is wrong in what a host knows: who is not as the operators know them, who is
    /// missing though the two may talk, who is there though no rule connects the two, rules that
    /// nobody wrote, denies that were left out.
    pub(crate) fn objection(&self, known: &KnownMap) -> Option<String> {
        let stranger = known
            .hosts()
            .find(|host| !self.hosts.get(&host.host).is_some_and(|it| agree(it, host)));
        if let Some(stranger) = stranger {
            return Some(format!(
                "it knows {} as nobody else does: {stranger:?}",
                stranger.name
            ));
        }
        let me = known.me.host;
        let missing = self.hosts.iter().find(|(id, _)| {
            **id != me
                && !known.peers.contains_key(*id)
                && self.links(me, **id)
                && self.connects(me, **id)
        });
        if let Some((_, missing)) = missing {
            return Some(format!(
                "it may talk with {} and does not know it",
                missing.name
            ));
        }
        let bundle = self.bundle.as_ref()?;
        let surplus = known.peers.values().find(|it| !self.links(me, it.host));
        if let Some(surplus) = surplus {
            return Some(format!(
                "it knows {}, whom no rule connects it with",
                surplus.name
            ));
        }
        if known.bundle.deny != bundle.deny {
            return Some("its denies are not those that were applied".to_owned());
        }
        let unknown = known
            .bundle
            .allow
            .iter()
            .find(|rule| !bundle.allow.contains(rule));
        unknown.map(|rule| format!("it has a rule {} that nobody applied", rule.id))
    }

    /// Returns the addresses that a service's name must lead a host to: the endpoints that it may
    /// reach.
    pub(crate) fn reachable_services(
        &self,
        from: HostId,
    ) -> Vec<(&model::name::Name, Vec<&HostRecord>)> {
        let Some(bundle) = &self.bundle else {
            return Vec::new();
        };
        let may = |service: &model::rule::Service, to: HostId| {
            let me = &self.hosts[&from];
            let protocol = service.protocol.ip_protocol();
            to != from && decide(bundle, me, &self.hosts[&to], protocol, service.port).allowed
        };
        bundle
            .services
            .iter()
            .map(|service| {
                let offers = |host: &&HostRecord| {
                    service
                        .endpoints
                        .iter()
                        .any(|endpoint| endpoint.selects(host))
                };
                let endpoints = self.hosts.values().filter(offers);
                (
                    &service.name,
                    endpoints.filter(|host| may(service, host.host)).collect(),
                )
            })
            .collect()
    }
}

fn agree(one: &HostRecord, other: &HostRecord) -> bool {
    one.name == other.name
        && one.labels == other.labels
        && one.addresses == other.addresses
        && one.wireguard_key == other.wireguard_key
}

/// Returns what policy looks at of a host.
fn record_of(view: &HostView) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([0; 16]),
        host: view.id,
        name: view.name.clone(),
        labels: view.labels.clone(),
        wireguard_key: view.wireguard_key,
        tls_key_hash: Digest::from_bytes([0; 32]),
        addresses: view.addresses,
        offers_aes_256_gcm: false,
        revision: Revision::default(),
    }
}
