//! The new epoch: another trust statement and another version of the policy, both above everything
//! that any host has seen. Join tokens from before it are good no more, since nobody knows how
//! often they were used.

use model::admin::PolicyFile;
use model::control::RefusalCode;
use model::ids::{PolicyVersion, TokenId};
use model::record::TrustStatement;
use model::rule::Bundle;
use model::time::Now;
use trust::sha256;

use crate::audit::Stamp;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::Rejection;
use crate::policies::{Version, signed_version};
use crate::request::Caller;
use crate::stored::{StoredCurrentPolicy, StoredEpoch, StoredFleet, StoredSigned};
use crate::work::{Answer, Draft, Plan};

impl Fleet {
    /// Plans the end of a recovery.
    pub(crate) fn plan_epoch(
        &mut self,
        caller: &Caller,
        force: bool,
        now: Now,
    ) -> Result<Plan, Rejection> {
        if !self.is_recovering() {
            let text = "there is no recovery under way; `meshctl status` shows the coordinator";
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        if self.recovery.pending() > 0 {
            let text = "what hosts have told is still being stored; try again in a few seconds";
            return Err(Rejection::new(RefusalCode::Unavailable, text));
        }
        if !force {
            self.check_heard()?;
        }
        let listed = self.roots_of_epoch(now)?;
        let before = &self.state.statement;
        let epoch = self.newest_epoch() + 1;
        let statement = TrustStatement {
            epoch,
            serial: 1,
            root_certificates: listed.root_certificates(),
            record_keys: listed.record_keys(),
            enrolment_key: listed.enrolment_key(),
            previous: Some(sha256(&self.state.trust.payload)),
            ..before.clone()
        };
        let stamp = Stamp::new(&caller.name, now.unix);
        let fleet = StoredFleet {
            trust: StoredSigned::from(&self.authority.sign_trust(&statement)),
            overlay: statement.overlay,
            created: stamp.clone(),
        };
        let NextPolicy {
            number,
            bundle,
            files,
            message,
        } = self.next_policy();
        let version = Version {
            fleet: statement.fleet,
            epoch,
            version: number,
            previous: Some(sha256(&self.state.policy.slice.head.payload)),
            earlier: &self.state.policy.tree,
            bundle: &bundle,
            files,
            message,
            applied: stamp.clone(),
        };
        let signed = signed_version(&self.authority, version);
        let mut draft = Draft::new(&self.state);
        draft.put(Place::Fleet.key(), &fleet);
        self.put_former_statement(&mut draft);
        draft.put(
            Place::Epoch.key(),
            &StoredEpoch {
                epoch,
                began: stamp,
            },
        );
        draft.put(Place::PolicyVersion(number).key(), &signed);
        draft.put(
            Place::CurrentPolicy.key(),
            &StoredCurrentPolicy { version: number },
        );
        draft.delete(Place::Recovery.key());
        if self.state.policies.len() >= FleetLimits::POLICY_VERSIONS_MAX
            && let Some(oldest) = self.state.policies.keys().next()
        {
            draft.delete(Place::PolicyVersion(*oldest).key());
        }
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Recovery,
        })
    }

    /// Returns whether a token was made before the epoch: how often it was used is not known.
    pub(crate) fn is_token_of_former_epoch(&self, token: TokenId) -> bool {
        let made = self.state.modified.get(&Place::Token(token).key());
        match (self.state.epoch_began, made) {
            (Some(began), Some(made)) => *made < began,
            _ => false,
        }
    }

    pub(crate) fn check_token_is_of_epoch(&self, token: TokenId) -> Result<(), Rejection> {
        if !self.is_token_of_former_epoch(token) {
            return Ok(());
        }
        let text = "this join token was made before the coordinator was restored from a backup, \
                    and how often it was used is not known; make a new one with `meshctl tokens \
                    create`";
        Err(Rejection::new(RefusalCode::Denied, text))
    }

    /// Returns the newest policy that is known here or remembered, under a number that no host has
    /// seen: a host that saw a later one than is remembered never takes an older number.
    fn next_policy(&self) -> NextPolicy {
        let current = &self.state.policy;
        let recalled = self.recovery.policy.version();
        let number = current.version.max(recalled.unwrap_or_default()).0 + 1;
        let number = PolicyVersion(number);
        let Some((bundle, is_whole)) = self.recovery.policy.bundle() else {
            let stored = self.state.policies.get(&current.version);
            return NextPolicy {
                number,
                bundle: current.bundle.clone(),
                files: stored
                    .and_then(|it| it.stored.files.open().ok())
                    .unwrap_or_default(),
                message: format!("version {}, in a new epoch", current.version),
            };
        };
        let version = recalled.unwrap_or_default();
        let message = match is_whole {
            true => format!("version {version}, as the hosts remember it"),
            false => format!(
                "version {version}, as far as the hosts remember it: rules that concern none of \
                 them are missing; apply the bundle again from where it is kept"
            ),
        };
        let fleet_name = &self.state.statement.fleet_name;
        NextPolicy {
            number,
            files: vec![PolicyFile {
                path: "policy.yaml".to_owned(),
                text: policy::render(&bundle, fleet_name),
            }],
            bundle,
            message,
        }
    }
}

/// The policy that the new epoch begins with.
struct NextPolicy {
    number: PolicyVersion,
    bundle: Bundle,
    files: Vec<PolicyFile>,
    message: String,
}
