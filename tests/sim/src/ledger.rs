//! What the coordinator has acknowledged, and what it was asked without an answer. Whatever stands
//! here as acknowledged has to be there after every crash.

use std::collections::{BTreeMap, BTreeSet};

use model::address::HostAddresses;
use model::admin::{HostView, PolicyVersionView, TokenView};
use model::ids::{HostId, PolicyVersion, TokenId};
use model::name::{Labels, Name};

/// Everything that was acknowledged.
#[derive(Default)]
pub(crate) struct Ledger {
    joined: BTreeMap<HostId, Joined>,
    removed: BTreeSet<HostId>,
    /// Removal was asked for, and nobody knows whether it happened.
    maybe_removed: BTreeSet<HostId>,
    /// What a host's labels may be: the last that were acknowledged, and those asked for since.
    labels: BTreeMap<HostId, Vec<Labels>>,
    tokens: BTreeMap<TokenId, Token>,
    policies: BTreeMap<PolicyVersion, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Joined {
    name: Name,
    addresses: HostAddresses,
}

#[derive(Clone, Copy, Debug, Default)]
struct Token {
    is_revoked: bool,
}

/// What the coordinator says that there is.
pub(crate) struct Claims {
    pub(crate) hosts: Vec<HostView>,
    pub(crate) tokens: Vec<TokenView>,
    pub(crate) policies: Vec<PolicyVersionView>,
}

impl Ledger {
    pub(crate) fn joined(&mut self, host: HostId, name: Name, addresses: HostAddresses) {
        self.joined.insert(host, Joined { name, addresses });
    }

    pub(crate) fn removed(&mut self, host: HostId) {
        self.removed.insert(host);
    }

    /// Notes that a host may be removed any time from now on.
    pub(crate) fn may_be_removed(&mut self, host: HostId) {
        self.maybe_removed.insert(host);
    }

    /// Notes that whoever has a name may be removed any time from now on.
    pub(crate) fn name_may_be_removed(&mut self, name: &Name) {
        let named = self
            .joined
            .iter()
            .filter(|(_, joined)| joined.name == *name);
        self.maybe_removed.extend(named.map(|(host, _)| *host));
    }

    pub(crate) fn labelled(&mut self, host: HostId, labels: Labels) {
        self.labels.insert(host, vec![labels]);
    }

    /// Notes labels that were asked for a name.
    pub(crate) fn may_be_labelled(&mut self, name: &Name, labels: &Labels) {
        for (host, joined) in &self.joined {
            if joined.name == *name
                && let Some(possible) = self.labels.get_mut(host)
            {
                possible.push(labels.clone());
            }
        }
    }

    pub(crate) fn token_made(&mut self, token: TokenId) {
        self.tokens.insert(token, Token::default());
    }

    pub(crate) fn token_revoked(&mut self, token: TokenId) {
        self.tokens.entry(token).or_default().is_revoked = true;
    }

    pub(crate) fn policy_applied(&mut self, version: PolicyVersion, message: String) {
        self.policies.insert(version, message);
    }

    /// The coordinator was restored from a backup: of all that was acknowledged only the members
    /// that are there have to stay, with the names and addresses that they have.
    pub(crate) fn restored(&mut self, alive: &BTreeSet<HostId>) {
        let mut joined = std::mem::take(&mut self.joined);
        joined.retain(|host, _| alive.contains(host));
        *self = Self {
            joined,
            ..Self::default()
        };
    }

    /// Says what was acknowledged and is not there, or what cannot be.
    pub(crate) fn objection(&self, claims: &Claims) -> Option<String> {
        self.objection_to_hosts(&claims.hosts)
            .or_else(|| self.objection_to_tokens(&claims.tokens))
            .or_else(|| self.objection_to_policies(&claims.policies))
    }

    fn objection_to_hosts(&self, hosts: &[HostView]) -> Option<String> {
        let by_id: BTreeMap<HostId, &HostView> = hosts.iter().map(|view| (view.id, view)).collect();
        for (host, joined) in &self.joined {
            let is_gone = self.removed.contains(host) || self.maybe_removed.contains(host);
            match by_id.get(host) {
                None if is_gone => {}
                None => return Some(format!("{} ({host}) joined, and is no member", joined.name)),
                Some(view) if view.name != joined.name || view.addresses != joined.addresses => {
                    return Some(format!("{host} joined as {joined:?}, and is {view:?}"));
                }
                Some(_) => {}
            }
        }
        hosts
            .iter()
            .find_map(|view| self.objection_to_host(view))
            .or_else(|| shared_by_two(hosts))
    }

    fn objection_to_host(&self, view: &HostView) -> Option<String> {
        if self.removed.contains(&view.id) {
            return Some(format!(
                "{} ({}) was removed, and is a member",
                view.name, view.id
            ));
        }
        let possible = self.labels.get(&view.id)?;
        let is_possible = possible.contains(&view.labels);
        (!is_possible).then(|| {
            format!(
                "{} has labels {:?}, and was given one of {possible:?}",
                view.name, view.labels
            )
        })
    }

    fn objection_to_tokens(&self, tokens: &[TokenView]) -> Option<String> {
        self.tokens.iter().find_map(
            |(id, made)| match tokens.iter().find(|view| view.id == *id) {
                None => Some(format!("token {id} was made, and is not there")),
                Some(view) if made.is_revoked && !view.revoked => {
                    Some(format!("token {id} was revoked, and is good"))
                }
                Some(_) => None,
            },
        )
    }

    fn objection_to_policies(&self, policies: &[PolicyVersionView]) -> Option<String> {
        let current: Vec<_> = policies
            .iter()
            .filter(|view| view.current)
            .map(|view| view.version)
            .collect();
        let newest = self.policies.last_key_value().map(|(version, _)| *version);
        if current.len() != 1 || newest.is_some_and(|newest| current[0] < newest) {
            return Some(format!(
                "{current:?} is in force, and {newest:?} was acknowledged"
            ));
        }
        self.policies.iter().find_map(|(version, message)| {
            match policies.iter().find(|view| view.version == *version) {
                None => Some(format!("policy {version} was applied, and is not there")),
                Some(view) if view.message != *message => Some(format!(
                    "policy {version} was applied as {message:?}, and is {:?}",
                    view.message
                )),
                Some(_) => None,
            }
        })
    }
}

/// Says what two hosts share that only one may have.
fn shared_by_two(hosts: &[HostView]) -> Option<String> {
    let (mut names, mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    hosts.iter().find_map(|view| {
        let other = names
            .insert(&view.name, view.id)
            .or(v4.insert(view.addresses.v4, view.id))
            .or(v6.insert(view.addresses.v6, view.id))?;
        Some(format!(
            "{} ({}) and {other} share a name or address",
            view.name, view.id
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: u8, name: &str, address: u8) -> HostView {
        HostView {
            id: HostId::from_bytes([id; 16]),
            name: name.parse().unwrap(),
            labels: Labels::new(),
            addresses: HostAddresses {
                v4: [100, 64, 0, address].into(),
                v6: [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(address)].into(),
            },
            wireguard_key: model::key::WireguardKey::from_bytes([id; 32]),
            online: true,
            joined_secs: 0,
            last_seen_secs: None,
            software_version: None,
            endpoints: Vec::new(),
            applied_policy: None,
            apply_error: None,
            trouble: None,
        }
    }

    fn ledger_of(hosts: &[HostView]) -> Ledger {
        let mut ledger = Ledger::default();
        for host in hosts {
            ledger.joined(host.id, host.name.clone(), host.addresses);
        }
        ledger
    }

    #[test]
    fn a_lost_member_is_noticed_unless_its_removal_was_asked_for() {
        let (one, two) = (view(1, "a", 1), view(2, "b", 2));
        let mut ledger = ledger_of(&[one.clone(), two.clone()]);
        assert_eq!(ledger.objection_to_hosts(&[one.clone(), two.clone()]), None);
        assert!(
            ledger
                .objection_to_hosts(std::slice::from_ref(&one))
                .is_some()
        );
        ledger.name_may_be_removed(&two.name);
        assert_eq!(ledger.objection_to_hosts(std::slice::from_ref(&one)), None);
        ledger.removed(two.id);
        assert!(
            ledger.objection_to_hosts(&[one, two]).is_some(),
            "it came back"
        );
    }

    #[test]
    fn two_hosts_with_one_address_are_noticed() {
        assert!(shared_by_two(&[view(1, "a", 1), view(2, "b", 1)]).is_some());
        assert!(shared_by_two(&[view(1, "a", 1), view(2, "a", 2)]).is_some());
        assert_eq!(shared_by_two(&[view(1, "a", 1), view(2, "b", 2)]), None);
    }

    #[test]
    fn labels_are_those_acknowledged_or_asked_for_since() {
        let one = view(1, "a", 1);
        let mut ledger = ledger_of(std::slice::from_ref(&one));
        let other = Labels::from([("role".parse().unwrap(), "edge".parse().unwrap())]);
        ledger.labelled(one.id, other);
        assert!(ledger.objection_to_host(&one).is_some());
        ledger.may_be_labelled(&one.name, &Labels::new());
        assert_eq!(ledger.objection_to_host(&one), None);
    }
}
