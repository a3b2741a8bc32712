//! What metrics tell of a fleet: numbers without names.

use model::ids::{PolicyVersion, Revision};

use crate::fleet::Fleet;

/// Numbers of a fleet at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Members whose stream is open, that have what they were sent, and whose overlay stands.
    pub hosts_well: usize,
    /// Members whose stream is open, and that say what is wrong.
    pub hosts_in_trouble: usize,
    /// Members without a stream.
    pub hosts_offline: usize,
    /// Members whose stream is open and that say that the current policy is in force.
    pub hosts_in_force: usize,
    /// Streams that are open, also of those who are not let in yet.
    pub streams: usize,
    /// The current policy.
    pub policy: PolicyVersion,
    /// The revision of the last change.
    pub revision: Revision,
    /// The number of the last entry of the audit log.
    pub audit_number: u64,
    /// Requests whose policies are being looked at, or wait for it.
    pub policy_works: usize,
    /// Roots that are believed; two while the authority is rotated.
    pub roots: usize,
    /// Members that have not moved to the newest root.
    pub hosts_not_moved: usize,
    /// Hosts are asked what they remember, and nothing is changed meanwhile.
    pub is_recovering: bool,
    /// Members that have not told it; 0 when they are not asked.
    pub recovery_missing: usize,
}

impl Fleet {
    /// Returns what metrics tell.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures {
            hosts_well: 0,
            hosts_in_trouble: 0,
            hosts_offline: 0,
            hosts_in_force: 0,
            streams: self.sessions.count(),
            policy: self.state.policy.version,
            revision: self.state.map_revision(self.state.revision),
            audit_number: self.state.audit.tip().number,
            policy_works: self.works.len(),
            roots: self.state.statement.root_certificates.len(),
            hosts_not_moved: self.not_moved(),
            is_recovering: self.is_recovering(),
            recovery_missing: self.recovery_missing(),
        };
        for id in self.state.hosts.keys() {
            let presence = self.presences.of(*id);
            let applied = presence.and_then(|it| it.applied.as_ref());
            let is_wrong = applied.is_some_and(|it| it.error.is_some() || it.trouble.is_some());
            let is_online = self.sessions.is_online(*id);
            match is_online {
                false => figures.hosts_offline += 1,
                true if is_wrong => figures.hosts_in_trouble += 1,
                true => figures.hosts_well += 1,
            }
            let is_current = applied.is_some_and(|it| it.policy == figures.policy);
            figures.hosts_in_force += usize::from(is_online && is_current);
        }
        figures
    }

    fn not_moved(&self) -> usize {
        if !self.is_rotating() {
            return 0;
        }
        self.state.hosts.len() - self.moved_count()
    }
}
