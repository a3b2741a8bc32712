//! Taking up what the state directory holds. Everything signed is verified again; what cannot be
//! used is named, and what can be used is used.

use model::time::Now;
use model::wire::stored::{decode_high_water, decode_map};

use super::status::cloned;
use super::{Agent, StoredFiles};
use crate::alarms::AlarmKind;
use crate::enrolment::{Enrolment, Fleet, Member};
use crate::identity_file::{self, Standing};
use crate::keys::HostKeys;
use crate::map::Map;
use crate::staging::raise;
use crate::sync::{Step, Verifier};

/// Why a daemon cannot start from what is in its state directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The identity is there and cannot be used.
    #[error(
        "the identity file in the state directory cannot be used: {why}. Restore it from a backup, or move the files of the state directory away, start again and run `meshctl join` with a new token"
    )]
    Identity {
        /// What is wrong with it.
        why: String,
    },
}

impl Agent {
    pub(super) fn load(&mut self, stored: StoredFiles, now: Now) -> Result<(), LoadError> {
        let identity = stored.identity.filter(|bytes| !bytes.is_empty());
        let Some(bytes) = identity else {
            if stored.map.is_some_and(|bytes| !bytes.is_empty()) {
                self.out.warn(
                    "the state directory has a map, but no identity file: if this host was a \
                     member, restore that file from a backup, or join again with a new token",
                );
            }
            return Ok(());
        };
        let identity = identity_file::decode(bytes).map_err(|why| LoadError::Identity { why })?;
        let is_copy = identity.is_of_another_machine(&self.config.machine_id);
        let keys = HostKeys::from_secrets(
            identity.wireguard_key,
            identity.tls_key,
            identity.wireguard_made,
        )
        .with_spare(identity.spare_key);
        if is_copy {
            return self.load_copy(keys, identity.standing, identity.coordinators);
        }
        let has_marks = stored.high_water.is_some();
        self.load_high_water(stored.high_water);
        self.high_water.boot_counter = self.high_water.boot_counter.saturating_add(1);
        self.dates_floor = self.high_water.handshake;
        match identity.standing {
            Standing::Keys => self.enrolment = Enrolment::Unenrolled(Some(keys)),
            Standing::Joining { name, token } => self.resume_join(&token, name, keys, now),
            Standing::Removed { membership, reason } => {
                let member = Member::from_stored(keys, membership, identity.coordinators)
                    .map_err(|why| LoadError::Identity { why })?;
                self.out.warn(format!(
                    "this host was removed from its fleet: {reason}; run `meshctl join` with a \
                     new token, or `meshctl leave`"
                ));
                self.enrolment = Enrolment::Removed(Box::new(member), reason);
            }
            Standing::Member(membership) => {
                let member = Member::from_stored(keys, membership, identity.coordinators)
                    .map_err(|why| LoadError::Identity { why })?;
                self.become_member(Box::new(member), now);
                if !has_marks {
                    self.out.warn(
                        "there is no high-water file in the state directory; what was highest is \
                         taken from the map instead",
                    );
                }
                self.reserve_first_dates(now);
                self.load_map(stored.map, now);
            }
        }
        // Whatever was in force raises the marks, and a start is counted.
        self.save_high_water();
        Ok(())
    }

    /// Takes up nothing of what another machine's state directory holds, and leaves it as it is: if
    /// this is that machine after all, its old id brings everything back.
    fn load_copy(
        &mut self,
        keys: HostKeys,
        standing: Standing,
        coordinators: Vec<String>,
    ) -> Result<(), LoadError> {
        match standing {
            Standing::Keys | Standing::Joining { .. } => self.out.warn(
                "the keys in the state directory were made by another machine: was this one \
                 cloned from it? The next join makes new ones",
            ),
            Standing::Member(membership) | Standing::Removed { membership, .. } => {
                let member = Member::from_stored(keys, membership, coordinators)
                    .map_err(|why| LoadError::Identity { why })?;
                self.out.error(cloned(&member));
                self.enrolment = Enrolment::Cloned(Box::new(member));
            }
        }
        Ok(())
    }

    fn load_high_water(&mut self, bytes: Option<Vec<u8>>) {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        match decode_high_water(&bytes) {
            Ok(high_water) => self.high_water = high_water,
            Err(error) => {
                let message = format!(
                    "the high-water file in the state directory cannot be used ({error}); what \
                     was highest is taken from the map instead"
                );
                self.alarms
                    .raise(AlarmKind::StoredState, message, &mut self.out);
            }
        }
    }

    fn load_map(&mut self, bytes: Option<Vec<u8>>, now: Now) {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            self.out
                .warn("there is no map in the state directory; waiting for a coordinator");
            return;
        };
        match self.verify_stored_map(&bytes) {
            Ok((fleet, map)) => {
                self.fleet = Some(fleet);
                raise(&mut self.high_water, &map);
                self.enforce(map, now);
                self.tend_belief(now);
            }
            Err(why) => {
                let message = format!(
                    "the map in the state directory cannot be used ({why}); this host starts \
                     without peers and asks a coordinator for a new one"
                );
                self.alarms
                    .raise(AlarmKind::StoredState, message, &mut self.out);
            }
        }
    }

    fn verify_stored_map(&self, bytes: &[u8]) -> Result<(Fleet, Map), String> {
        let stored = decode_map(bytes).map_err(|error| error.to_string())?;
        let member = self.enrolment.member().expect("only a member loads a map");
        let fleet =
            Fleet::from_statements(&stored.earlier, &stored.trust, &member.membership.root_pin)
                .map_err(|refusal| refusal.message)?;
        let verifier = Verifier {
            anchors: &fleet.anchors,
            trust: &fleet.trusted,
            me: member.self_knowledge(),
            high_water: &self.high_water,
        };
        verifier.check_trust().map_err(|error| error.to_string())?;
        match verifier
            .restore(&stored)
            .map_err(|error| error.to_string())?
        {
            Step::New(map) => Ok((fleet, *map)),
            Step::Removed(tombstone) => Err(format!("this host is removed: {}", tombstone.reason)),
            Step::Old | Step::Hint(_) => Err("it is not a whole map".to_owned()),
        }
    }
}
