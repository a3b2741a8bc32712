//! What this host is called: as its record says. The name is kept, and a certificate of another
//! name is replaced as soon as a coordinator can be reached.

use model::identity::SpiffeId;
use model::name::Name;
use model::time::Now;
use trust::certificate;

use super::Agent;
use crate::enrolment::Member;

impl Agent {
    /// Takes over the name of the record that is in force from now on.
    pub(super) fn take_name(&mut self, name: &Name, now: Now) {
        let Some(member) = self.enrolment.member_mut() else {
            return;
        };
        if member.membership.name != *name {
            member.membership.name = name.clone();
            self.out
                .info(format!("this host is called {name} from now on"));
            self.save_membership();
        }
        self.tend_certified_name(now);
    }

    /// Wants another certificate when this one is of a former name.
    pub(super) fn tend_certified_name(&mut self, now: Now) {
        let (Some(member), Some(renewal)) = (self.enrolment.member(), &mut self.renewal) else {
            return;
        };
        if certified_name(member).is_some_and(|name| name != member.membership.name) {
            renewal.want_now(now);
        }
    }
}

fn certified_name(member: &Member) -> Option<Name> {
    let leaf = member.membership.certificate_chain.first()?;
    match certificate::facts(leaf).ok()?.spiffe {
        SpiffeId::Host { host, .. } => Some(host),
        SpiffeId::Coordinator { .. } => None,
    }
}
