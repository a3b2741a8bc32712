//! A member changes its WireGuard key: it proves that it has the new one, and its record names that
//! from then on. The member itself answers to both for a while, so that peers may hear of it late.

use std::time::Duration;

use model::control::{NewKey, RefusalCode, ToHost};
use model::ids::HostId;
use model::name::Name;
use model::record::HostRecord;
use model::time::Now;
use trust::key_change::KeyChange;

use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::stored::StoredKeyOwner;
use crate::work::{Answer, Draft, Plan};

/// No host changes its key more often: each change is told to all of its peers.
const CHANGES_APART: Duration = Duration::from_secs(20);

impl Fleet {
    /// An operator wants a host to change its key. The host does, and tells.
    pub(crate) fn ask_for_new_key(&mut self, name: &Name) -> Result<Reply, Rejection> {
        let host = self.state.known_host(name)?;
        let view = self.host_view(host);
        match self.sessions.of_host(host.record.host) {
            Some(session) => {
                self.send(session, ToHost::RotateKey);
                Ok(Reply::Host(view))
            }
            None => {
                let text = format!(
                    "{name} is not connected, and its key is made on it: try again when it is, or \
                     run `meshctl keys rotate` there"
                );
                Err(Rejection::new(RefusalCode::Unavailable, text))
            }
        }
    }

    pub(crate) fn plan_key_change(
        &mut self,
        id: HostId,
        new: &NewKey,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let Some(host) = self.state.hosts.get(&id).cloned() else {
            let text = "this host is no longer a member of the fleet";
            return Err(Rejection::new(RefusalCode::NotFound, text));
        };
        if host.record.wireguard_key == new.wireguard_key {
            // It asks again because the answer was lost; its record comes by itself.
            return Ok(Plan::Answer(Reply::Host(self.host_view(&host))));
        }
        self.check_new_key(id, new)?;
        self.check_key_is_not_changed_too_often(id, now)?;
        let record = HostRecord {
            wireguard_key: new.wireguard_key,
            revision: self.state.next_revision(),
            ..host.record.clone()
        };
        let stamp = Stamp::new(format!("host {}", record.name), now.unix);
        let mut draft = Draft::new(&self.state);
        self.put_record(&mut draft, &host, &record, stamp);
        draft.put(
            Place::WireguardKey(new.wireguard_key).key(),
            &StoredKeyOwner { host: id },
        );
        draft.delete(Place::WireguardKey(host.record.wireguard_key).key());
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::HostChanged(id),
        })
    }

    fn check_new_key(&self, id: HostId, new: &NewKey) -> Result<(), Rejection> {
        let change = KeyChange {
            fleet: self.state.statement.fleet,
            host: id,
            wireguard_key: new.wireguard_key,
        };
        self.authority
            .verify_key_change(&change, &new.proof)
            .map_err(|error| Rejection::new(RefusalCode::Invalid, error.to_string()))?;
        let is_taken = self.state.wireguard_keys.contains_key(&new.wireguard_key)
            || self.state.revoked_keys.contains_key(&new.wireguard_key);
        if is_taken {
            let text = "another host has or had this key";
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        Ok(())
    }

    fn check_key_is_not_changed_too_often(&self, id: HostId, now: Now) -> Result<(), Rejection> {
        let last = self.presences.of(id).and_then(|it| it.key_changed);
        if last.is_some_and(|last| now.monotonic < last + CHANGES_APART) {
            let text = "the key of this host was changed a moment ago";
            return Err(Rejection::new(RefusalCode::Unavailable, text));
        }
        Ok(())
    }
}
