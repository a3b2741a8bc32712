//! The last trust statement that hosts remember. It is stored as soon as it is told, so that nobody
//! ends the recovery behind it: a root that it retired stays so, also when the host that told it is
//! gone and this program has started anew meanwhile.

use model::control::RefusalCode;
use model::record::{Signed, TrustStatement};
use model::time::Now;
use trust::{Authority, sha256};

use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::stored::{StoredRecovery, StoredSigned};
use crate::work::{Answer, Draft, Origin, Plan, Work};

/// A statement that is later than the one in force here.
#[derive(Clone, Debug)]
pub(crate) struct LaterStatement {
    pub(super) signed: Signed,
    pub(super) statement: TrustStatement,
}

impl LaterStatement {
    fn number(&self) -> (u64, u64) {
        (self.statement.epoch, self.statement.serial)
    }
}

impl Fleet {
    /// Takes a statement that a host told, unless a later one is known.
    pub(super) fn note_later_statement(&mut self, told: LaterStatement) {
        let recalled = self.recalled_statement();
        let recalled = recalled.map(|it| (it.epoch, it.serial));
        let waiting = self.recovery.statement.as_ref();
        let known = waiting.map(LaterStatement::number).max(recalled);
        if known < Some(told.number()) {
            self.recovery.statement = Some(told);
        }
    }

    /// Returns whether a statement that a host tells is in force, or is stored or waits for it: it has
    /// not to be verified again with each part.
    pub(super) fn is_known_statement(&self, told: &Signed) -> bool {
        let stored = self.state.recalled.as_ref().map(|it| &it.signed);
        let waiting = self.recovery.statement.as_ref().map(|it| &it.signed);
        let known = [Some(&self.state.trust), stored, waiting];
        known
            .into_iter()
            .flatten()
            .any(|it| it.payload == told.payload)
    }

    /// Has the statement stored that waits for it. Returns whether there is one.
    pub(super) fn store_later_statement(&mut self, now: Now) -> bool {
        let Some(told) = self.recovery.statement.take() else {
            return false;
        };
        self.recovery.is_storing = true;
        self.accept(Origin::Nobody, Work::KeepStatement(Box::new(told)), now);
        true
    }

    /// Plans to store a statement that hosts remember: a store that lacks it is behind them.
    pub(crate) fn plan_later_statement(&self, told: &LaterStatement, now: Now) -> Plan {
        let recalled = self.recalled_statement();
        let is_known = recalled.is_some_and(|it| (it.epoch, it.serial) >= told.number());
        let is_later = matches!(self.state.anchors.update(&told.signed), Ok(Some(_)));
        if is_known || !is_later {
            return Plan::Answer(Reply::Noted);
        }
        let (epoch, serial) = told.number();
        let begun = || StoredRecovery {
            why: format!("its hosts remember the trust statement {epoch}.{serial}"),
            began: Stamp::new("recovery", now.unix),
            statement: None,
        };
        let recovery = StoredRecovery {
            statement: Some(StoredSigned::from(&told.signed)),
            ..self.state.recovery.clone().unwrap_or_else(begun)
        };
        let mut draft = Draft::new(&self.state);
        draft.put(Place::Recovery.key(), &recovery);
        Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Noted,
        }
    }

    /// Returns the statement that hosts told and that is stored, if it is later than the one in force.
    pub(super) fn recalled_statement(&self) -> Option<&TrustStatement> {
        self.state.recalled.as_ref().map(|it| &it.statement)
    }

    /// Returns the keys that the new epoch believes: those that are believed here, without those that
    /// hosts remember to be retired.
    pub(super) fn roots_of_epoch(&mut self, now: Now) -> Result<Authority, Rejection> {
        let listed = match self.recalled_statement() {
            Some(recalled) => self
                .authority
                .limited_to(&recalled.root_certificates)
                .ok_or_else(|| self.refuse_retired(recalled))?,
            None => Authority::load_all(self.authority.keys()).expect("it was loaded before"),
        };
        let is_narrower = listed.root_pins().len() < self.state.statement.root_certificates.len();
        let to_sign = self.unsigned_count();
        if is_narrower && to_sign > 0 {
            self.sign_again_soon(now);
            let text = format!(
                "{to_sign} records, tombstones and policies are still being signed by the keys that \
                 are believed now; try again in a while"
            );
            return Err(Rejection::new(RefusalCode::Unavailable, text));
        }
        Ok(listed)
    }

    /// Refuses an epoch by keys that are all retired, as hosts remember.
    fn refuse_retired(&self, recalled: &TrustStatement) -> Rejection {
        let is_here = self.keyring.limited_to(&recalled.root_certificates);
        let why = match is_here {
            Some(_) => {
                "whose key is in the key file, and of which the store knows nothing: the store is \
                 older than the key file, from before the last rotation of the authority; restore a \
                 backup of the store that was made after it, and leave the key file as it is"
            }
            None => {
                "and none whose key is here: this coordinator was restored from before the last \
                 rotation of the authority, and nothing that it signs is believed; restore a backup \
                 that was made after it"
            }
        };
        let newest = recalled.root_certificates.last();
        let newest = newest.map_or_else(String::new, |root| sha256(root).to_string());
        let (epoch, serial) = (recalled.epoch, recalled.serial);
        let text = format!(
            "hosts remember the trust statement {epoch}.{serial}, which believes the root {newest}, {why}"
        );
        Rejection::new(RefusalCode::Conflict, text)
    }

    /// Returns the highest epoch that is known of: here, or by what hosts told.
    pub(super) fn newest_epoch(&self) -> u64 {
        let recalled = self.recalled_statement().map_or(0, |it| it.epoch);
        let records = self.state.hosts.values().map(|it| it.record.revision.epoch);
        let gone = self.state.tombstones.values();
        let gone = gone.map(|it| it.tombstone_revision.epoch);
        let known = [self.state.statement.epoch, self.recovery.newest_epoch];
        let told = records.chain(gone).chain([recalled]);
        known.into_iter().chain(told).max().unwrap_or_default()
    }
}
