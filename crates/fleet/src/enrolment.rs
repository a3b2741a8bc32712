//! A host becomes a member: what is checked, in which order, and what is stored at once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::control::{EnrolRequest, Enrolled, RefusalCode};
use model::ids::{HostId, TokenId};
use model::limits::Limits;
use model::record::HostRecord;
use model::store::Key;
use model::time::Now;
use trust::enrolment::{CsrFacts, Transcript, check_certificate_request};

use crate::addresses::{self, Search};
use crate::audit::Stamp;
use crate::ciphers::offers_aes;
use crate::clock_text;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::renaming::NameSeeker;
use crate::requests::overtaken;
use crate::state::{Gone, Host};
use crate::stored::{
    StoredAddress, StoredHost, StoredKeyOwner, StoredName, StoredSigned, StoredToken, StoredUse,
};
use crate::tokens::{Slot, USES_REMEMBERED, find_slot};
use crate::work::{Answer, Draft, Job, Plan, Work};

impl Fleet {
    /// Lets a host try to join, at the pace of the fleet. Whoever has no token that is good now is
    /// refused at once and takes nobody's turn.
    pub(crate) fn admit_joining(
        &mut self,
        request: &EnrolRequest,
        now: Now,
    ) -> Result<(), Rejection> {
        if !self.may_lead_to_a_place(request, now) {
            return Ok(());
        }
        self.enrolments_turnstile
            .enter(self.config.enrolments, now.monotonic)
            .map_err(Rejection::busy)
    }

    /// Returns whether a token is good for one more host, or its holder is a member already.
    fn may_lead_to_a_place(&self, request: &EnrolRequest, now: Now) -> bool {
        let Ok(token) = self.shown_token(request) else {
            return false;
        };
        let is_good = token.check_not_expired(now.unix).is_ok()
            && self.check_token_is_of_epoch(request.token).is_ok()
            && !matches!(
                find_slot(&self.state, &self.commits, request.token, token),
                Slot::UsedUp
            );
        is_good || self.same_host(request).is_some()
    }

    pub(crate) fn plan_enrolment(
        &mut self,
        request: &EnrolRequest,
        from: IpAddr,
        now: Now,
    ) -> Result<Plan, Rejection> {
        check_bounds(request)?;
        let token = self.shown_token(request)?.clone();
        // One who asks again after a lost answer is answered even when the token had one use only.
        if let Some(known) = self.same_host(request) {
            return self.welcome_again(known, request, now);
        }
        // Before what a new token or name would not mend.
        self.check_wireguard_key_is_new(request)?;
        token.check_not_expired(now.unix)?;
        self.check_token_is_of_epoch(request.token)?;
        let slot = match find_slot(&self.state, &self.commits, request.token, &token) {
            Slot::Free(slot) => slot,
            Slot::Wait(on) => return Ok(Plan::Wait(on)),
            Slot::UsedUp => return Err(token.used_up()),
        };
        token.check_name(&request.name)?;
        let seeker = NameSeeker::Machine(&request.machine_id);
        self.check_name_is_free(&request.name, seeker, now)?;
        self.check_proof(request)?;
        let csr = check_csr(request)?;
        self.check_tls_key_is_new(&csr)?;
        let index = match self.find_addresses(now)? {
            Search::Found(index) => index,
            Search::Wait(on) => return Ok(Plan::Wait(on)),
            Search::Full { next_free_secs } => return Err(fleet_full(next_free_secs)),
        };
        self.notice_twin_machine(request, from);
        self.address_cursor = index + 1;
        let seat = Seat {
            slot,
            index,
            tls_key_hash: csr.tls_key_hash,
        };
        Ok(self.admit(request, &token, seat, now))
    }

    /// Plans the membership of a host that passed every check.
    fn admit(&mut self, request: &EnrolRequest, token: &StoredToken, seat: Seat, now: Now) -> Plan {
        let host = HostId::from_bytes(self.random());
        let record = HostRecord {
            fleet: self.state.statement.fleet,
            host,
            name: request.name.clone(),
            labels: token.labels.clone(),
            wireguard_key: request.wireguard_key,
            tls_key_hash: seat.tls_key_hash,
            addresses: self
                .state
                .nth_addresses(seat.index)
                .expect("the search keeps to the plan"),
            offers_aes_256_gcm: offers_aes(&request.features),
            revision: self.state.next_revision(),
        };
        let joined = Stamp::new(format!("token {}", request.token), now.unix);
        let stored = StoredHost {
            record: StoredSigned::from(&self.authority.sign_record(&record)),
            address_index: seat.index,
            token: request.token,
            machine_id: request.machine_id.clone(),
            joined: joined.clone(),
            changed: joined,
        };
        let name = StoredName {
            host,
            reserved_until_secs: None,
            machine_id: String::new(),
        };
        let address = StoredAddress {
            host,
            resting_until_secs: None,
        };
        let used = StoredUse {
            host,
            used_secs: now.unix.as_secs(),
        };
        let mut draft = Draft::new(&self.state);
        draft.put(Place::Host(host).key(), &stored);
        draft.put(Place::Name(request.name.clone()).key(), &name);
        draft.put(
            Place::WireguardKey(request.wireguard_key).key(),
            &StoredKeyOwner { host },
        );
        draft.put(
            Place::TlsKey(seat.tls_key_hash).key(),
            &StoredKeyOwner { host },
        );
        draft.put(Place::Address(seat.index).key(), &address);
        draft.put(Place::Use(request.token, seat.slot).key(), &used);
        if let Some(forgotten) = self.use_to_forget(request.token, token, seat.slot) {
            draft.delete(forgotten);
        }
        // A revocation, or a policy with a service of this name, is not overtaken.
        draft.expect_unchanged(Place::Token(request.token).key());
        draft.expect_unchanged(Place::CurrentPolicy.key());
        Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Enrolled(host),
        }
    }

    /// Returns the use that a token without a limit forgets for this one.
    fn use_to_forget(&self, id: TokenId, token: &StoredToken, slot: u32) -> Option<Key> {
        let oldest = slot.checked_sub(USES_REMEMBERED)?;
        let is_kept = |uses: &BTreeMap<u32, StoredUse>| uses.contains_key(&oldest);
        let goes = token.uses.is_none() && self.state.uses.get(&id).is_some_and(is_kept);
        goes.then(|| Place::Use(id, oldest).key())
    }

    /// Answers an enrolment that is durable.
    pub(crate) fn enrolled(
        &mut self,
        job: &Job,
        host: HostId,
        now: Now,
    ) -> Result<Reply, Rejection> {
        let Work::Enrol { request, .. } = &job.work else {
            unreachable!("only an enrolment is answered so")
        };
        let host = self.state.hosts.get(&host).cloned().ok_or_else(overtaken)?;
        self.membership(&host, &request.certificate_request, now)
    }

    fn membership(&mut self, host: &Host, csr: &[u8], now: Now) -> Result<Reply, Rejection> {
        let certificate_chain = self
            .issue_certificate(&host.record.name, csr, now)
            .map_err(|why| Rejection::new(RefusalCode::Invalid, why))?;
        Ok(Reply::Enrolled(Enrolled {
            host: host.record.host,
            record: host.signed.clone(),
            certificate_chain,
        }))
    }

    /// Returns the member that this request comes from again: same key, same token, and not
    /// another machine.
    fn same_host(&self, request: &EnrolRequest) -> Option<Host> {
        let owner = self.state.wireguard_keys.get(&request.wireguard_key)?;
        let host = self.state.hosts.get(owner)?;
        let is_other_machine = !host.machine_id.is_empty()
            && !request.machine_id.is_empty()
            && host.machine_id != request.machine_id;
        (host.token == request.token && !is_other_machine).then(|| host.clone())
    }

    fn welcome_again(
        &mut self,
        host: Host,
        request: &EnrolRequest,
        now: Now,
    ) -> Result<Plan, Rejection> {
        self.check_proof(request)?;
        let csr = check_csr(request)?;
        if csr.tls_key_hash != host.record.tls_key_hash {
            return Err(self.cloned(&host));
        }
        if host.record.name != request.name {
            let text = format!(
                "this machine is a member already, as {}; join with --name {} or remove it first \
                 with `meshctl hosts remove {}`",
                host.record.name, host.record.name, host.record.name
            );
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        self.membership(&host, &request.certificate_request, now)
            .map(Plan::Answer)
    }

    fn check_wireguard_key_is_new(&self, request: &EnrolRequest) -> Result<(), Rejection> {
        let key = &request.wireguard_key;
        if let Some(gone) = self.state.revoked_keys.get(key) {
            return Err(revoked(&self.state.tombstones[gone]));
        }
        let owner = self.state.wireguard_keys.get(key);
        match owner.and_then(|id| self.state.hosts.get(id)) {
            Some(host) => Err(self.cloned(host)),
            None => Ok(()),
        }
    }

    fn check_tls_key_is_new(&self, csr: &CsrFacts) -> Result<(), Rejection> {
        let gone = self.state.gone_tls_keys.get(&csr.tls_key_hash);
        let gone = gone.and_then(|id| self.state.tombstones.get(id));
        if let Some(gone) = gone.filter(|gone| gone.revoked_key.is_some()) {
            return Err(revoked(gone));
        }
        let owner = self.state.tls_keys.get(&csr.tls_key_hash);
        match owner.and_then(|id| self.state.hosts.get(id)) {
            Some(host) => Err(self.cloned(host)),
            None => Ok(()),
        }
    }

    fn cloned(&self, owner: &Host) -> Rejection {
        let text = format!(
            "these keys belong to host {} ({}): was this machine cloned from it? Remove \
             /var/lib/mesh on this machine and join anew; if it is the same machine, remove the \
             host first with `meshctl hosts remove {}`",
            owner.record.name, owner.record.host, owner.record.name
        );
        Rejection::new(RefusalCode::Conflict, text)
    }

    fn check_proof(&self, request: &EnrolRequest) -> Result<(), Rejection> {
        let transcript = Transcript {
            fleet: self.state.statement.fleet,
            token: request.token,
            name: &request.name,
            wireguard_key: request.wireguard_key,
            certificate_request: &request.certificate_request,
        };
        self.authority
            .verify_wireguard_proof(&transcript, &request.wireguard_proof)
            .map_err(|error| Rejection::new(RefusalCode::Invalid, error.to_string()))
    }

    fn find_addresses(&self, now: Now) -> Result<Search, Rejection> {
        if self.state.hosts.len() >= Limits::HOSTS {
            return Err(fleet_full(None));
        }
        Ok(addresses::find(
            &self.state,
            &self.commits,
            self.address_cursor,
            now.unix,
        ))
    }

    fn notice_twin_machine(&mut self, request: &EnrolRequest, from: IpAddr) {
        if request.machine_id.is_empty() {
            return;
        }
        let twin = self.state.host_on(&request.machine_id);
        if let Some(twin) = twin {
            self.notice(format!(
                "{} joins from {from} with the machine id of {}: is one a clone of the other, or \
                 was the machine's state removed?",
                request.name, twin.record.name
            ));
        }
    }
}

/// What a joining host gets besides its name.
#[derive(Clone, Copy)]
struct Seat {
    slot: u32,
    index: u32,
    tls_key_hash: model::ids::Digest,
}

fn check_bounds(request: &EnrolRequest) -> Result<(), Rejection> {
    for (what, text) in [
        ("version", &request.software_version),
        ("machine id", &request.machine_id),
    ] {
        if text.chars().count() > Limits::TEXT_CHARS {
            let text = format!(
                "the {what} is longer than {} characters",
                Limits::TEXT_CHARS
            );
            return Err(Rejection::new(RefusalCode::Invalid, text));
        }
    }
    Ok(())
}

fn check_csr(request: &EnrolRequest) -> Result<CsrFacts, Rejection> {
    check_certificate_request(&request.certificate_request)
        .map_err(|error| Rejection::new(RefusalCode::Invalid, error.to_string()))
}

fn revoked(gone: &Gone) -> Rejection {
    let text = format!(
        "these keys belonged to host {}, which was {}; they are not let in again. Remove \
         /var/lib/mesh on this machine and join anew, once it is clean",
        gone.name, gone.reason
    );
    Rejection::new(RefusalCode::Denied, text)
}

fn fleet_full(next_free_secs: Option<u64>) -> Rejection {
    let hint = match next_free_secs {
        Some(secs) => format!(
            "; the addresses of a removed host are free again at {}",
            clock_text::utc(secs)
        ),
        None => "; remove hosts that are gone, or make a fleet with a larger prefix".to_owned(),
    };
    Rejection::new(
        RefusalCode::Exhausted,
        format!("the fleet has no free address{hint}"),
    )
}
