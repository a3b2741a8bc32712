//! Believing the fleet's authority while its keys change. A statement is believed by the keys of
//! the one before it, is on the disk before the coordinator hears that it is, and makes this host
//! ask for a certificate of the newest root; when that is on the disk too, the newest root is the
//! one that this host was given for good.

use std::time::Duration;

use model::control::HeldTrust;
use model::ids::Digest;
use model::map::MapDelta;
use model::record::Signed;
use model::time::Now;

use super::Agent;
use crate::enrolment::Fleet;
use crate::map::Map;
use crate::output::StateFile;
use crate::persistence::Version;
use crate::sync::Verifier;

/// How soon a host asks for a certificate of a new root: all hosts hear of it together, and each answer
/// is a signature.
const CERTIFIED_WITHIN: Duration = Duration::from_secs(30);

/// Where this host stands with the newest root.
#[derive(Debug, Default)]
pub(super) struct Belief {
    /// The root of which a certificate was asked for.
    asked_of: Option<Digest>,
    /// The certificate, or the pin, is on its way to the disk.
    saving: Option<Version>,
}

impl Agent {
    /// Returns what this host has on its disk of the fleet's authority; `None` while that changes.
    pub(super) fn held_trust(&self) -> Option<HeldTrust> {
        if self.belief.saving.is_some() {
            return None;
        }
        let trusted = &self.staging.in_force()?.trust;
        Some(HeldTrust {
            epoch: trusted.statement.epoch,
            serial: trusted.statement.serial,
            certified_by: self.enrolment.member()?.certified_by(&trusted.statement)?,
        })
    }

    /// Believes a trust statement: the first by the pin, a later one by those before.
    pub(super) fn take_trust(&mut self, earlier: &[Signed], last: &Signed) -> Result<(), String> {
        let member = self.enrolment.member().expect("only members are welcomed");
        let pin = member.membership.root_pin;
        let Some(fleet) = &self.fleet else {
            let fleet =
                Fleet::from_statements(earlier, last, &pin).map_err(|refusal| refusal.message)?;
            let verifier = Verifier {
                anchors: &fleet.anchors,
                trust: &fleet.trusted,
                me: member.self_knowledge(),
                high_water: &self.high_water,
            };
            verifier.check_trust().map_err(|error| error.to_string())?;
            self.fleet = Some(fleet);
            return Ok(());
        };
        let next = fleet.follow(earlier, last, &pin);
        let Some(next) = next.map_err(|error| error.to_string())? else {
            return Ok(());
        };
        // What keys signed that are no longer believed is told anew, in the map that comes.
        if next.anchors.covers(&fleet.anchors)
            && let Some(map) = self.staging.newest()
        {
            let map = Map {
                trust: next.trusted.clone(),
                ..map.clone()
            };
            self.staging.offer(map, &mut self.disk, &mut self.out);
        }
        self.fleet = Some(next);
        Ok(())
    }

    /// Returns by whom a map is believed that brings statements along: nobody else than before,
    /// when it brings none, or older ones.
    pub(super) fn fleet_of(&self, delta: &MapDelta) -> Result<Option<Fleet>, String> {
        let (Some(member), Some(fleet)) = (self.enrolment.member(), &self.fleet) else {
            return Ok(None);
        };
        let Some((last, earlier)) = delta.trust.split_last() else {
            return Ok(Some(fleet.clone()));
        };
        match fleet.follow(earlier, last, &member.membership.root_pin) {
            Ok(Some(next)) => Ok(Some(next)),
            Ok(None) | Err(trust::TrustError::Stale { .. }) => Ok(Some(fleet.clone())),
            Err(error) => Err(format!("its trust statement does not hold: {error}")),
        }
    }

    /// Asks for a certificate of the newest root that is in force, and, when it is there, takes
    /// that root for the one to begin with after a restart.
    pub(super) fn tend_belief(&mut self, now: Now) {
        let (Some(map), Some(renewal)) = (self.staging.in_force(), &mut self.renewal) else {
            return;
        };
        let (trusted, newest) = (map.trust.clone(), map.trust.newest_root());
        let Some(member) = self.enrolment.member_mut() else {
            return;
        };
        if member.certified_by(&trusted.statement) != Some(newest) {
            if self.belief.asked_of.replace(newest) != Some(newest) {
                renewal.want_within(CERTIFIED_WITHIN, now, &mut self.dice);
            }
        } else if member.membership.root_pin != newest {
            member.membership.root_pin = newest;
            self.save_certified();
            self.out.info(format!(
                "the fleet's authority is {newest} from now on; this host has a certificate of it"
            ));
        }
    }

    /// Writes the membership down, and tells the coordinator when it is there.
    pub(super) fn save_certified(&mut self) {
        self.belief.saving = self.save_membership();
    }

    /// Tells the coordinator what is on the disk now.
    pub(super) fn handle_belief_durable(&mut self) {
        let is_durable = |version| self.disk.is_durable(StateFile::Identity, version);
        if self.belief.saving.is_some_and(is_durable) {
            self.belief.saving = None;
            self.report_applied(None);
        }
    }
}
