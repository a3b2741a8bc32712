//! A request on its way: what is asked, what it needs to become true, and what is answered then.

use std::net::IpAddr;

use model::admin::{DiagnosticView, HostView};
use model::control::{EnrolRequest, NewKey};
use model::ids::{HostId, PolicyVersion, TokenId};
use model::name::Name;
use model::store::{Compare, Key, Operation, Transaction};
use serde::Serialize;
use trust::Authority;

use crate::audit::Deed;
use crate::explain::Question;
use crate::keys::Place;
use crate::output::{CommitId, Reply, RequestId, SessionId};
use crate::policy_work::{PolicyDone, PolicyWork};
use crate::recovery::{LaterStatement, Remembered};
use crate::request::{AdminRequest, Caller};
use crate::state::State;
use crate::stored::encode;

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) origin: Origin,
    pub(crate) work: Work,
    /// Commits of it that met a conflict.
    pub(crate) conflicts: u32,
    /// How often work on its policy was handed out.
    pub(crate) handed_out: u32,
    /// What came of it.
    pub(crate) done: Option<PolicyDone>,
}

/// Who waits for the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A joining host or an operator.
    Request(RequestId),
    /// A member at its stream.
    Session(SessionId),
    /// Nobody.
    Nobody,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Work {
    Enrol {
        request: Box<EnrolRequest>,
        from: IpAddr,
    },
    Admin {
        caller: Caller,
        request: AdminRequest,
    },
    Leave(HostId),
    /// What a host remembers is stored.
    Merge(Box<Remembered>),
    /// A trust statement that hosts remember is stored.
    KeepStatement(Box<LaterStatement>),
    ChangeKey(HostId, NewKey),
    /// Hosts offer AES-256-GCM from now on, or do not any more.
    ChangeCiphers(Vec<HostId>),
    /// It is stored that hosts have moved to the newest root, or have not any more.
    StoreMoved(Vec<HostId>),
    /// A portion of what the old keys alone have signed is signed again.
    SignAgain,
    /// Something that was refused goes in the audit log.
    Note(Box<Deed>),
}

impl Work {
    /// Returns whether the authority signs something of it, or its keys have to be the fleet's.
    pub(crate) fn is_signed(&self) -> bool {
        match self {
            Self::Enrol { .. }
            | Self::Leave(_)
            | Self::ChangeKey(..)
            | Self::ChangeCiphers(_)
            | Self::SignAgain => true,
            Self::Admin { request, .. } => !request.is_question(),
            Self::Merge(_) | Self::KeepStatement(_) | Self::StoreMoved(_) | Self::Note(_) => false,
        }
    }
}

/// How a request goes on.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // made and matched at once
pub(crate) enum Plan {
    /// It is answered from what is known.
    Answer(Reply),
    /// It is answered once the transaction is durable.
    Commit {
        transaction: Transaction,
        answer: Answer,
    },
    /// It depends on a commit under way and is looked at again after that.
    Wait(CommitId),
    /// The key file has to be written first; then it is planned again.
    Keep(Authority),
    /// Something has to be found out on another thread first.
    HandOut(Box<PolicyWork>),
    /// Hosts have to be asked first.
    Ask(Question),
}

/// What is answered once a commit is durable.
#[derive(Debug)]
pub(crate) enum Answer {
    Enrolled(HostId),
    HostChanged(HostId),
    Removed(Box<HostView>),
    TokenCreated {
        id: TokenId,
        text: String,
    },
    TokenRevoked(TokenId),
    PolicyApplied {
        version: PolicyVersion,
        warnings: Vec<DiagnosticView>,
        tests_passed: usize,
    },
    AdminCreated {
        name: Name,
        credential: String,
    },
    AdminRevoked(Box<model::admin::AdminView>),
    /// Nobody waits for it.
    Noted,
    /// Where the recovery stands.
    Recovery,
    /// Where the authority stands, and whom its retirement left behind.
    Authority {
        left_behind: Vec<Name>,
    },
}

/// A transaction in the making. Every key that it changes is compared with what is known of it here,
/// so that it happens only to the state that it was made for.
pub(crate) struct Draft<'a> {
    state: &'a State,
    transaction: Transaction,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        Self {
            state,
            transaction: Transaction::default(),
        }
    }

    /// Requires that a key is as known, or still absent, and leaves it.
    pub(crate) fn expect_unchanged(&mut self, key: Key) {
        let expect = self.state.expectation(&key);
        self.transaction.compare.push(Compare { key, expect });
    }

    /// Sets a key.
    pub(crate) fn put<T: Serialize>(&mut self, key: Key, value: &T) {
        self.expect_unchanged(key.clone());
        self.transaction
            .operations
            .push(Operation::put(key, encode(value)));
    }

    /// Sets a key to what is encoded already.
    pub(crate) fn put_encoded(&mut self, key: Key, value: Vec<u8>) {
        self.expect_unchanged(key.clone());
        self.transaction.operations.push(Operation::put(key, value));
    }

    /// Removes a key.
    pub(crate) fn delete(&mut self, key: Key) {
        self.expect_unchanged(key.clone());
        self.transaction.operations.push(Operation::delete(key));
    }

    /// Returns the transaction. It happens only under the trust statement that is in force here:
    /// what keys signed that are retired meanwhile is not stored.
    pub(crate) fn finish(mut self) -> Transaction {
        let fleet = Place::Fleet.key();
        if self.transaction.compare.iter().all(|it| it.key != fleet) {
            self.expect_unchanged(fleet);
        }
        self.transaction
    }
}
