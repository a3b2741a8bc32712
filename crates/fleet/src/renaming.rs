//! A host's name: who may have which, and what changes with another one. Rules are bound to the
//! host's id and stay what they are; its peers learn the new record, and it asks for a certificate
//! of its new name.

use std::time::Duration;

use model::control::RefusalCode;
use model::ids::HostId;
use model::name::Name;
use model::record::HostRecord;
use model::time::Now;
use trust::authority::HOST_CERTIFICATE_LIFETIME;

use crate::audit::Stamp;
use crate::clock_text;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::Rejection;
use crate::request::Caller;
use crate::stored::StoredName;
use crate::work::{Answer, Draft, Plan};

/// How long the former name of a host is kept from others: its certificate of that name is good for
/// as long. The host itself may have it back at once.
const FORMER_NAME_RESERVED_FOR: Duration = HOST_CERTIFICATE_LIFETIME;

/// Who asks for a name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NameSeeker<'a> {
    /// A member that is to be called otherwise.
    Host(HostId),
    /// A machine that joins; empty: it does not say which.
    Machine(&'a str),
}

impl Fleet {
    pub(crate) fn plan_rename(
        &mut self,
        caller: &Caller,
        old: &Name,
        new: &Name,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let host = self.state.known_host(old)?.clone();
        let id = host.record.host;
        if host.record.name == *new {
            let view = self.host_view(&host);
            return Ok(Plan::Answer(crate::output::Reply::Host(view)));
        }
        self.check_name_is_free(new, NameSeeker::Host(id), now)?;
        let record = HostRecord {
            name: new.clone(),
            revision: self.state.next_revision(),
            ..host.record.clone()
        };
        let former = StoredName {
            host: id,
            reserved_until_secs: Some((now.unix + FORMER_NAME_RESERVED_FOR).as_secs()),
            machine_id: String::new(),
        };
        let current = StoredName {
            host: id,
            reserved_until_secs: None,
            machine_id: String::new(),
        };
        let mut draft = Draft::new(&self.state);
        self.put_record(
            &mut draft,
            &host,
            &record,
            Stamp::new(&caller.name, now.unix),
        );
        draft.put(Place::Name(new.clone()).key(), &current);
        draft.put(Place::Name(host.record.name.clone()).key(), &former);
        self.drop_former_names(&mut draft, id, new, now)?;
        // A policy with a service of this name is not overtaken.
        draft.expect_unchanged(Place::CurrentPolicy.key());
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::HostChanged(id),
        })
    }

    /// Gives former names of a host away that are kept no longer; one host cannot keep too many.
    fn drop_former_names(
        &self,
        draft: &mut Draft<'_>,
        id: HostId,
        new: &Name,
        now: Now,
    ) -> Result<(), Rejection> {
        let own = self.state.names.iter().filter(|(name, owner)| {
            owner.host == id && owner.reserved_until_secs.is_some() && *name != new
        });
        let (over, kept): (Vec<_>, Vec<_>) =
            own.partition(|(_, owner)| owner.reserved_until_secs <= Some(now.unix.as_secs()));
        if kept.len() >= FleetLimits::FORMER_NAMES_PER_HOST {
            let text = format!(
                "this host was called otherwise {} times within a day; its former names are kept \
                 from others for so long, try again tomorrow",
                kept.len()
            );
            return Err(Rejection::new(RefusalCode::Exhausted, text));
        }
        for (name, _) in over {
            draft.delete(Place::Name(name.clone()).key());
        }
        Ok(())
    }

    /// Checks that nobody else has a name, keeps it, or is a service of that name.
    pub(crate) fn check_name_is_free(
        &self,
        name: &Name,
        seeker: NameSeeker<'_>,
        now: Now,
    ) -> Result<(), Rejection> {
        let services = &self.state.policy.bundle.services;
        if services.iter().any(|service| service.name == *name) {
            let text = format!(
                "{name} is the name of a service in policy version {}; choose another{}",
                self.state.policy.version,
                seeker.how()
            );
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        let Some(owner) = self.state.names.get(name) else {
            return Ok(());
        };
        let Some(until_secs) = owner.reserved_until_secs else {
            let text = format!(
                "the name {name} is taken by host {}; choose another{}, or remove that host with \
                 `meshctl hosts remove {name}`",
                owner.host,
                seeker.how()
            );
            return Err(Rejection::new(RefusalCode::Conflict, text));
        };
        let is_own = match seeker {
            NameSeeker::Host(id) => owner.host == id,
            NameSeeker::Machine(machine_id) => {
                !owner.machine_id.is_empty() && owner.machine_id == machine_id
            }
        };
        if is_own || until_secs <= now.unix.as_secs() {
            return Ok(());
        }
        let what_became = match self.state.hosts.get(&owner.host) {
            Some(renamed) => format!("which is called {} now", renamed.record.name),
            None => "which was removed".to_owned(),
        };
        let text = format!(
            "the name {name} belonged to host {}, {what_became}; it is kept from other machines \
             for {} more; choose another{}, or wait",
            owner.host,
            clock_text::span(until_secs - now.unix.as_secs()),
            seeker.how()
        );
        Err(Rejection::new(RefusalCode::Conflict, text))
    }
}

impl NameSeeker<'_> {
    fn how(self) -> &'static str {
        match self {
            Self::Host(_) => "",
            Self::Machine(_) => " with --name",
        }
    }
}
