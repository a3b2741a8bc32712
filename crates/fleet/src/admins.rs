//! Credentials of the admin API: a random secret that is shown once and kept as a hash.
//!
//! A credential reads `mesh-admin1.NAME.SECRET`: the name finds the stored hash, so that the secret
//! itself is only ever compared in constant time.

use data_encoding::BASE32_NOPAD;
use model::admin::{AdminView, CreateAdmin, CreatedAdmin, Role};
use model::control::RefusalCode;
use model::name::Name;
use model::time::Now;
use trust::token::{secret_hash, secret_matches};

use crate::audit::Stamp;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::request::Caller;
use crate::requests::overtaken;
use crate::stored::StoredAdmin;
use crate::work::{Answer, Draft, Plan};

const PREFIX: &str = "mesh-admin1";

impl Fleet {
    /// Returns whose credential this is; `None` when it is nobody's.
    pub fn authenticate_admin(&self, credential: &str) -> Option<Caller> {
        let (name, secret) = parse(credential.trim())?;
        let admin = self.state.admins.get(&name);
        // An unknown name takes as long as a wrong secret.
        let expected = admin.map_or_else(|| secret_hash(&[0; 16]), |admin| admin.secret_hash);
        let is_right = secret_matches(&secret, &expected);
        let admin = admin.filter(|_| is_right)?;
        Some(Caller::new(admin.name.as_str(), admin.role))
    }

    /// Lets a credential ask, at its pace: a script that runs wild keeps nobody else waiting.
    pub(crate) fn admit_caller(&mut self, caller: &Caller, now: Now) -> Result<(), Rejection> {
        let admins = &self.state.admins;
        let is_credential = |it: &str| it.parse::<Name>().is_ok_and(|it| admins.contains_key(&it));
        if !is_credential(&caller.name) {
            return Ok(());
        }
        if self.caller_turnstiles.len() > 2 * FleetLimits::ADMINS_MAX {
            self.caller_turnstiles.retain(|name, _| is_credential(name));
        }
        let turnstile = self.caller_turnstiles.entry(caller.name.clone());
        let pace = self.config.callers;
        let turn = turnstile.or_default().enter(pace, now.monotonic);
        turn.map_err(|retry_after| {
            let text = format!(
                "the credential of {} asks more than {} times a second; try again in {} s",
                caller.name,
                pace.per_sec,
                retry_after.as_secs()
            );
            Rejection {
                retry_after: Some(retry_after),
                ..Rejection::new(RefusalCode::Exhausted, text)
            }
        })
    }

    pub(crate) fn admin_views(&self) -> Vec<AdminView> {
        self.state.admins.values().map(view).collect()
    }

    pub(crate) fn plan_admin_made(
        &mut self,
        caller: &Caller,
        create: &CreateAdmin,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let name = &create.name;
        if self.state.admins.contains_key(name) {
            let text = format!("there is an admin {name} already; revoke that credential first");
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        let max = FleetLimits::ADMINS_MAX;
        if self.state.admins.len() >= max {
            let text = format!("there are {max} admins; revoke credentials that nobody needs");
            return Err(Rejection::new(RefusalCode::Exhausted, text));
        }
        Ok(self.plan_secret(caller, name, create.role, now))
    }

    /// Plans another credential for an admin; the old one is nobody's from then on.
    pub(crate) fn plan_credential(
        &mut self,
        caller: &Caller,
        name: &Name,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let Some(role) = self.state.admins.get(name).map(|admin| admin.role) else {
            let text = format!("there is no admin {name}; `POST /v1/admins` makes one");
            return Err(Rejection::new(RefusalCode::NotFound, text));
        };
        Ok(self.plan_secret(caller, name, role, now))
    }

    fn plan_secret(&mut self, caller: &Caller, name: &Name, role: Role, now: Now) -> Plan {
        let secret = self.random();
        let created = Stamp::new(&caller.name, now.unix);
        let stored = stored_admin(name, role, &secret, created);
        let mut draft = Draft::new(&self.state);
        draft.put(Place::Admin(name.clone()).key(), &stored);
        let credential = credential_text(name, &secret);
        let answer = Answer::AdminCreated {
            name: name.clone(),
            credential,
        };
        Plan::Commit {
            transaction: draft.finish(),
            answer,
        }
    }

    pub(crate) fn admin_created(
        &self,
        name: &Name,
        credential: String,
    ) -> Result<Reply, Rejection> {
        let admin = self.state.admins.get(name).ok_or_else(overtaken)?;
        Ok(Reply::AdminCreated(CreatedAdmin {
            credential,
            view: view(admin),
        }))
    }

    pub(crate) fn plan_admin_revoked(&mut self, name: &Name) -> Result<Plan, Rejection> {
        let Some(admin) = self.state.admins.get(name) else {
            let text = format!("there is no admin {name}");
            return Err(Rejection::new(RefusalCode::NotFound, text));
        };
        let mut draft = Draft::new(&self.state);
        draft.delete(Place::Admin(name.clone()).key());
        let answer = Answer::AdminRevoked(Box::new(view(admin)));
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer,
        })
    }
}

fn view(admin: &StoredAdmin) -> AdminView {
    AdminView {
        name: admin.name.clone(),
        role: admin.role,
        created_secs: admin.created.at_secs,
        created_by: admin.created.by.clone(),
    }
}

pub(crate) fn stored_admin(
    name: &Name,
    role: Role,
    secret: &[u8; 16],
    created: Stamp,
) -> StoredAdmin {
    StoredAdmin {
        name: name.clone(),
        role,
        secret_hash: secret_hash(secret),
        created,
    }
}

pub(crate) fn credential_text(name: &Name, secret: &[u8; 16]) -> String {
    format!(
        "{PREFIX}.{name}.{}",
        BASE32_NOPAD.encode(secret).to_lowercase()
    )
}

/// Returns whose credential this claims to be.
pub(crate) fn claimed_name(credential: &str) -> Option<Name> {
    Some(parse(credential.trim())?.0)
}

fn parse(credential: &str) -> Option<(Name, [u8; 16])> {
    let mut parts = credential.split('.');
    let (prefix, name, secret) = (parts.next()?, parts.next()?, parts.next()?);
    if prefix != PREFIX || parts.next().is_some() || secret.len() > 64 {
        return None;
    }
    let secret = BASE32_NOPAD.decode(secret.to_uppercase().as_bytes()).ok()?;
    Some((name.parse().ok()?, secret.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_survive_text() {
        let name: Name = "ops-1".parse().unwrap();
        let text = credential_text(&name, &[0xa5; 16]);
        assert_eq!(parse(&text), Some((name, [0xa5; 16])));
    }

    #[test]
    fn other_texts_are_nobodys() {
        let good = credential_text(&"ops".parse().unwrap(), &[1; 16]);
        for bad in [
            "",
            "mesh-admin1",
            "mesh-admin1.ops",
            "mesh-admin1.ops.!",
            &good[1..],
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&format!("{good}.x")), None);
    }
}
