//! The fleet's policy: applied, rolled back, kept in versions. `policy` checks, tests and resolves
//! what operators write; here it becomes a signed version, if nobody was faster.

use std::collections::BTreeSet;

use model::admin::{
    AppliedPolicy, ApplyPolicy, PolicyContent, PolicyFile, PolicyVersionView, RollbackPolicy,
    Rollout, RolloutFailure,
};
use model::control::RefusalCode;
use model::ids::{Digest, FleetId, PolicyVersion};
use model::limits::Limits;
use model::name::Name;
use model::record::BundleHead;
use model::rule::Bundle;
use model::store::TransactionLimits;
use model::time::{Now, UnixTime};
use trust::{Authority, BundleTree, sha256};

use crate::apply::encode_leaves;
use crate::audit::Stamp;
use crate::clock_text;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{CommitId, Rejection, Reply};
use crate::policy_work::{Compiled, Task, Worked};
use crate::request::Caller;
use crate::state::KeptPolicy;
use crate::stored::{Compressed, StoredCurrentPolicy, StoredPolicy, StoredSigned, encode};
use crate::work::{Answer, Draft, Plan};

/// How many names of new services a transaction claims to be nobody's. More than fit are checked
/// against what this coordinator knows and has under way.
const SERVICE_NAMES_COMPARED: usize = 100;

impl Fleet {
    pub(crate) fn plan_policy(
        &mut self,
        caller: &Caller,
        apply: &ApplyPolicy,
        worked: Option<Worked>,
        now: Now,
    ) -> Result<Plan, Rejection> {
        self.plan_content(caller, apply, None, worked, now)
    }

    /// `back`: the content is that of an old version.
    fn plan_content(
        &mut self,
        caller: &Caller,
        apply: &ApplyPolicy,
        back: Option<PolicyVersion>,
        worked: Option<Worked>,
        now: Now,
    ) -> Result<Plan, Rejection> {
        check_size(apply)?;
        self.check_base(apply.base)?;
        let Some(Worked::Version(mut compiled)) = worked else {
            let files = apply.files.clone();
            let former = match back {
                Some(version) => self.names_of_version(version),
                None => self.names_of_late(),
            };
            return Ok(Plan::HandOut(self.work_on(files, former, Task::Version)));
        };
        let withheld = self.give_addresses(&mut compiled.bundle, back)?;
        compiled.warnings.extend(withheld);
        let unable = self.check_enforceable(&compiled.bundle)?;
        compiled.warnings.extend(unable);
        self.check_services_are_free(&compiled.bundle, now)?;
        let is_in_force = self.is_in_force(&apply.files, &compiled.bundle);
        let signed = match is_in_force {
            true => None,
            false => Some(self.draw_up(caller, apply, &compiled.bundle, now)?),
        };
        let Some(signed) = signed.filter(|_| !apply.dry_run) else {
            return Ok(Plan::Answer(Reply::PolicyApplied(AppliedPolicy {
                version: self.state.policy.version,
                changed: false,
                diagnostics: compiled.warnings,
                tests_passed: compiled.tests_passed,
            })));
        };
        self.plan_version(signed, compiled)
    }

    pub(crate) fn plan_rollback(
        &mut self,
        caller: &Caller,
        rollback: &RollbackPolicy,
        worked: Option<Worked>,
        now: Now,
    ) -> Result<Plan, Rejection> {
        self.check_base(rollback.base)?;
        let files = self.version_files(rollback.to)?;
        let apply = ApplyPolicy {
            files,
            base: rollback.base,
            message: match rollback.message.as_str() {
                "" => format!("back to version {}", rollback.to),
                message => message.to_owned(),
            },
            dry_run: rollback.dry_run,
        };
        self.plan_content(caller, &apply, Some(rollback.to), worked, now)
    }

    /// Makes the next version of the policy, and sees that it is not larger than what is kept.
    fn draw_up(
        &self,
        caller: &Caller,
        apply: &ApplyPolicy,
        bundle: &Bundle,
        now: Now,
    ) -> Result<StoredPolicy, Rejection> {
        self.check_leaves(bundle)?;
        let signed = signed_version(
            &self.authority,
            Version {
                fleet: self.state.statement.fleet,
                epoch: self.state.statement.epoch,
                version: self.next_version(),
                previous: Some(sha256(&self.state.policy.slice.head.payload)),
                earlier: &self.state.policy.tree,
                bundle,
                files: apply.files.clone(),
                message: apply.message.clone(),
                applied: Stamp::new(&caller.name, now.unix),
            },
        );
        let bytes = encode(&signed).len();
        if bytes > TransactionLimits::VALUE_BYTES_MAX {
            let text = policy::too_large(bytes, bundle);
            return Err(Rejection::new(RefusalCode::Exhausted, text));
        }
        Ok(signed)
    }

    fn next_version(&self) -> PolicyVersion {
        PolicyVersion(self.state.policy.version.0 + 1)
    }

    fn check_leaves(&self, bundle: &Bundle) -> Result<(), Rejection> {
        let leaves = BundleTree::following(&self.state.policy.tree, bundle);
        let leaves_bytes: usize = leaves
            .leaves()
            .iter()
            .map(|leaf| leaf.len().div_ceil(3) * 4)
            .sum();
        if leaves_bytes > Limits::BUNDLE_BYTES {
            let text = format!(
                "the rules of this policy take {leaves_bytes} bytes as hosts get them, and at most {} are kept; name labels instead of many hosts",
                Limits::BUNDLE_BYTES
            );
            return Err(Rejection::new(RefusalCode::Exhausted, text));
        }
        Ok(())
    }

    fn plan_version(
        &mut self,
        signed: StoredPolicy,
        compiled: Compiled,
    ) -> Result<Plan, Rejection> {
        if let Some(on) = self.joining_as_service(&compiled.bundle) {
            return Ok(Plan::Wait(on));
        }
        let version = self.next_version();
        let mut draft = Draft::new(&self.state);
        draft.put(Place::PolicyVersion(version).key(), &signed);
        draft.put(Place::CurrentPolicy.key(), &StoredCurrentPolicy { version });
        for name in self
            .new_services(&compiled.bundle)
            .take(SERVICE_NAMES_COMPARED)
        {
            draft.expect_unchanged(Place::Name(name.clone()).key());
        }
        if self.state.policies.len() >= FleetLimits::POLICY_VERSIONS_MAX
            && let Some(oldest) = self.state.policies.keys().next()
        {
            draft.delete(Place::PolicyVersion(*oldest).key());
        }
        let Compiled {
            warnings,
            tests_passed,
            ..
        } = compiled;
        let answer = Answer::PolicyApplied {
            version,
            warnings,
            tests_passed,
        };
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer,
        })
    }

    fn new_services<'a>(&'a self, bundle: &'a Bundle) -> impl Iterator<Item = &'a Name> {
        let known: BTreeSet<&Name> = self
            .state
            .policy
            .bundle
            .services
            .iter()
            .map(|service| &service.name)
            .collect();
        bundle
            .services
            .iter()
            .map(|service| &service.name)
            .filter(move |it| !known.contains(it))
    }

    /// Checks that no new service has a name that is kept for a host that had it a moment ago: whoever
    /// still looks for that host must not find something else.
    fn check_services_are_free(&self, bundle: &Bundle, now: Now) -> Result<(), Rejection> {
        for name in self.new_services(bundle) {
            let owner = self.state.names.get(name);
            let until_secs = owner.and_then(|it| it.reserved_until_secs).unwrap_or(0);
            if let Some(left) = until_secs
                .checked_sub(now.unix.as_secs())
                .filter(|it| *it > 0)
            {
                let text = format!(
                    "service {name} would have the name of a host that was removed or renamed; it \
                     is kept for {} more: wait, or call the service otherwise",
                    clock_text::span(left)
                );
                return Err(Rejection::new(RefusalCode::Conflict, text));
            }
        }
        Ok(())
    }

    /// Returns the enrolment under way of a host that would have the name of a service.
    fn joining_as_service(&self, bundle: &Bundle) -> Option<CommitId> {
        self.new_services(bundle)
            .find_map(|name| self.commits.writer(&Place::Name(name.clone()).key()))
    }

    /// Names in a bundle mean other hosts once hosts have changed: the same files are the same
    /// policy only if they resolve to the same.
    fn is_in_force(&self, files: &[PolicyFile], bundle: &Bundle) -> bool {
        let current = &self.state.policy;
        let is_same_text = self
            .state
            .policies
            .get(&current.version)
            .is_some_and(|it| it.content_digest == content_digest(files));
        // In another order it is the same.
        let leaves = BundleTree::following(&current.tree, bundle);
        is_same_text && leaves.leaves() == current.tree.leaves()
    }

    fn check_base(&self, base: Option<PolicyVersion>) -> Result<(), Rejection> {
        let current = self.state.policy.version;
        if base.is_none_or(|base| base == current) {
            return Ok(());
        }
        let who = self
            .state
            .policies
            .get(&current)
            .map_or_else(String::new, |it| {
                format!(
                    " (by {} at {})",
                    it.stored.applied.by,
                    clock_text::utc(it.stored.applied.at_secs)
                )
            });
        let text = format!(
            "the change was made on version {}, and version {current} is in force{who}; look at \
             it with `meshctl policy show`, merge, and apply again",
            base.unwrap_or_default()
        );
        Err(Rejection::new(RefusalCode::Conflict, text))
    }

    /// Returns the files of a version.
    pub(crate) fn version_files(
        &self,
        version: PolicyVersion,
    ) -> Result<Vec<PolicyFile>, Rejection> {
        let files = self.version(version)?.stored.files.open();
        files.map_err(|why| {
            let text = format!("the files of version {version} cannot be read: {why}");
            Rejection::new(RefusalCode::Unavailable, text)
        })
    }

    fn version(&self, version: PolicyVersion) -> Result<&KeptPolicy, Rejection> {
        self.state.policies.get(&version).ok_or_else(|| {
            let text = format!(
                "there is no policy version {version}; `meshctl policy history` shows which there \
                 are"
            );
            Rejection::new(RefusalCode::NotFound, text)
        })
    }

    /// Returns all versions, the newest first.
    pub(crate) fn policy_views(&self) -> Vec<PolicyVersionView> {
        self.state
            .policies
            .iter()
            .rev()
            .map(|(version, it)| self.view(*version, it))
            .collect()
    }

    pub(crate) fn policy_content(
        &self,
        version: Option<PolicyVersion>,
    ) -> Result<PolicyContent, Rejection> {
        let version = version.unwrap_or(self.state.policy.version);
        let stored = self.version(version)?;
        Ok(PolicyContent {
            view: self.view(version, stored),
            files: self.version_files(version)?,
        })
    }

    fn view(&self, version: PolicyVersion, kept: &KeptPolicy) -> PolicyVersionView {
        let stored = &kept.stored;
        PolicyVersionView {
            version,
            created_secs: stored.applied.at_secs,
            author: stored.applied.by.clone(),
            message: stored.message.clone(),
            content_digest: kept.content_digest.to_string(),
            current: version == self.state.policy.version,
        }
    }

    /// Tells where the current version is in force, as the hosts that are online say.
    pub(crate) fn rollout(&self) -> Rollout {
        let version = self.state.policy.version;
        let mut rollout = Rollout {
            version,
            hosts: self.state.hosts.len(),
            in_force: 0,
            pending: Vec::new(),
            offline: Vec::new(),
            failed: Vec::new(),
        };
        for host in self.state.hosts.values() {
            let (id, name) = (host.record.host, host.record.name.clone());
            let applied = self.presences.of(id).and_then(|it| it.applied.as_ref());
            match applied {
                _ if !self.sessions.is_online(id) => rollout.offline.push(name),
                Some(applied) if applied.policy == version => rollout.in_force += 1,
                Some(applied) if applied.error.is_some() => {
                    let error = applied.error.clone().unwrap_or_default();
                    rollout.failed.push(RolloutFailure { host: name, error });
                }
                _ => rollout.pending.push(name),
            }
        }
        rollout.pending.sort();
        rollout.offline.sort();
        rollout.failed.sort_by(|a, b| a.host.cmp(&b.host));
        rollout
    }
}

/// A version of the policy before it is signed.
pub(crate) struct Version<'a> {
    pub(crate) fleet: FleetId,
    pub(crate) epoch: u64,
    pub(crate) version: PolicyVersion,
    /// Digest of the previous head's payload.
    pub(crate) previous: Option<Digest>,
    /// Where leaves stood in that version: those that stay keep their places.
    pub(crate) earlier: &'a BundleTree,
    pub(crate) bundle: &'a Bundle,
    pub(crate) files: Vec<PolicyFile>,
    pub(crate) message: String,
    pub(crate) applied: Stamp,
}

pub(crate) fn signed_version(authority: &Authority, version: Version<'_>) -> StoredPolicy {
    let tree = BundleTree::following(version.earlier, version.bundle);
    let head = BundleHead {
        fleet: version.fleet,
        epoch: version.epoch,
        version: version.version,
        tree_root: tree.root(),
        leaf_count: tree.leaf_count(),
        previous: version.previous,
        signed_at: UnixTime::from_secs(version.applied.at_secs),
    };
    StoredPolicy {
        head: StoredSigned::from(&authority.sign_head(&head)),
        leaves: Compressed::new(&encode_leaves(&tree)),
        files: Compressed::new(&version.files),
        message: version.message,
        applied: version.applied,
    }
}

fn check_size(apply: &ApplyPolicy) -> Result<(), Rejection> {
    let bytes: usize = apply
        .files
        .iter()
        .map(|file| file.path.len() + file.text.len())
        .sum();
    if bytes > Limits::BUNDLE_BYTES {
        let text = format!(
            "the policy has {bytes} bytes; at most {}",
            Limits::BUNDLE_BYTES
        );
        return Err(Rejection::new(RefusalCode::Exhausted, text));
    }
    if apply.message.chars().count() > Limits::TEXT_CHARS {
        let text = format!(
            "the message is longer than {} characters",
            Limits::TEXT_CHARS
        );
        return Err(Rejection::new(RefusalCode::Invalid, text));
    }
    Ok(())
}

/// Digests paths and texts, each with its length before it, so that no two directories are one.
pub(crate) fn content_digest(files: &[PolicyFile]) -> Digest {
    let mut bytes = Vec::new();
    for text in files.iter().flat_map(|file| [&file.path, &file.text]) {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    sha256(&bytes)
}
