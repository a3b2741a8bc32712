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
    /// Returns whose credential this is.
    ///
    /// # Errors
    /// It is nobody's, or has expired.
    pub fn authenticate_admin(&self, credential: &str, now: Now) -> Result<Caller, Unwelcome> {
        let (name, secret) = parse(credential.trim()).ok_or(Unwelcome::Unknown)?;
        let admin = self.state.admins.get(&name);
        // An unknown name takes as long as a wrong secret.
        let expected = admin.map_or_else(|| secret_hash(&[0; 16]), |admin| admin.secret_hash);
        let is_right = secret_matches(&secret, &expected);
        let admin = admin.filter(|_| is_right).ok_or(Unwelcome::Unknown)?;
        match admin.expires_secs {
            Some(at_secs) if at_secs <= now.unix.as_secs() => Err(Unwelcome::Expired { at_secs }),
            _ => Ok(Caller::new(admin.name.as_str(), admin.role)),
        }
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
        let max = FleetLimits::ADMIN_VALID_MAX.as_secs();
        if let Some(valid) = create.valid_for_secs.filter(|it| !(1..=max).contains(it)) {
            let text = format!("a credential is good for 1 to {max} seconds, and not for {valid}");
            return Err(Rejection::new(RefusalCode::Invalid, text));
        }
        let expires = |valid: u64| now.unix.as_secs() + valid;
        let expires_secs = create.valid_for_secs.map(expires);
        Ok(self.plan_secret(caller, name, (create.role, expires_secs), now))
    }

    /// Plans another credential for an admin; the old one is nobody's from then on.
    pub(crate) fn plan_credential(
        &mut self,
        caller: &Caller,
        name: &Name,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let admin = self.known_admin(name)?;
        if !is_good(admin, now) {
            let text = format!(
                "the credential of {name} has expired; revoke it, and make one with `meshctl admins create`"
            );
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        let rights = (admin.role, admin.expires_secs);
        Ok(self.plan_secret(caller, name, rights, now))
    }

    fn known_admin(&self, name: &Name) -> Result<&StoredAdmin, Rejection> {
        self.state.admins.get(name).ok_or_else(|| {
            let text = format!("there is no admin {name}; `meshctl admins list` shows all");
            Rejection::new(RefusalCode::NotFound, text)
        })
    }

    fn plan_secret(
        &mut self,
        caller: &Caller,
        name: &Name,
        (role, expires_secs): (Role, Option<u64>),
        now: Now,
    ) -> Plan {
        let secret = self.random();
        let created = Stamp::new(&caller.name, now.unix);
        let stored = stored_admin(name, role, &secret, created, expires_secs);
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

    /// Plans the withdrawal of a credential. It stays when no other that can make credentials is
    /// good as long: two admins who withdraw each other at once are told apart by the compare with the one that is left.
    pub(crate) fn plan_admin_revoked(&mut self, name: &Name, now: Now) -> Result<Plan, Rejection> {
        let admin = self.known_admin(name)?;
        let mut draft = Draft::new(&self.state);
        if let Some(until) = in_charge_until(admin, now) {
            let mut others = self.state.admins.values().filter(|it| it.name != *name);
            let Some(left) = others.find(|it| in_charge_until(it, now) >= Some(until)) else {
                let text = format!(
                    "no other credential with the role admin is good as long as that of {name}, and \
                     nobody could make credentials in the end; make another first: `meshctl admins \
                     create NAME --role admin`"
                );
                return Err(Rejection::new(RefusalCode::Conflict, text));
            };
            draft.expect_unchanged(Place::Admin(left.name.clone()).key());
        }
        draft.delete(Place::Admin(name.clone()).key());
        let answer = Answer::AdminRevoked(Box::new(view(admin)));
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer,
        })
    }
}

/// Why a credential opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwelcome {
    /// It is nobody's.
    Unknown,
    /// It was somebody's until then.
    Expired {
        /// Unix seconds.
        at_secs: u64,
    },
}

fn is_good(admin: &StoredAdmin, now: Now) -> bool {
    admin.expires_secs.is_none_or(|at| at > now.unix.as_secs())
}

/// Returns until when, in Unix seconds, a credential can make others; `None`: it cannot.
fn in_charge_until(admin: &StoredAdmin, now: Now) -> Option<u64> {
    let is_in_charge = admin.role == Role::Admin && is_good(admin, now);
    is_in_charge.then(|| admin.expires_secs.unwrap_or(u64::MAX))
}

fn view(admin: &StoredAdmin) -> AdminView {
    AdminView {
        name: admin.name.clone(),
        role: admin.role,
        created_secs: admin.created.at_secs,
        created_by: admin.created.by.clone(),
        expires_secs: admin.expires_secs,
    }
}

pub(crate) fn stored_admin(
    name: &Name,
    role: Role,
    secret: &[u8; 16],
    created: Stamp,
    expires_secs: Option<u64>,
) -> StoredAdmin {
    StoredAdmin {
        name: name.clone(),
        role,
        secret_hash: secret_hash(secret),
        created,
        expires_secs,
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
