//! The brain's task over a store that fails: what is said to those who wait.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::brain::{Brain, BrainError, BrainGone, BrainHandle, Input, Outcome};
use coordinator::store::{Listing, MemoryStore, Store, StoreError, StoreFuture, WatchStream};
use fleet::{AdminRequest, BootstrapConfig, Caller, Fleet, FleetConfig, Reply, SessionPeer};
use model::admin::{CreateToken, Role};
use model::control::{RefusalCode, ToHost};
use model::identity::SpiffeId;
use model::ids::Digest;
use model::key::Secret;
use model::name::{Labels, Name};
use model::store::{Committed, Conflict, LeaseId, StoreRevision, Transaction};
use model::time::{Instant, UnixTime};
use runtime::clock::Clock;
use tokio::task::JoinHandle;
use trust::{Authority, AuthoritySeeds};

#[tokio::test]
async fn what_could_not_be_stored_is_refused_and_the_coordinator_goes_on() {
    let stage = Stage::new().await;
    stage.store.fail_once(StoreError::NotStored {
        reason: "no room for it; make room".into(),
    });
    let rejection = stage.create_token().await.unwrap().unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Unavailable);
    assert!(
        rejection.refusal.message.contains("make room"),
        "{rejection}"
    );
    assert!(stage.create_token().await.unwrap().is_ok());
    assert_eq!(stage.tokens().await, 1);
}

#[tokio::test]
async fn an_unknown_outcome_is_answered_neither_as_done_nor_as_failed() {
    let stage = Stage::new().await;
    stage.store.fail_once(StoreError::OutcomeUnknown {
        reason: "the disk failed".into(),
    });
    let unanswered = stage.create_token().await.unwrap_err();
    assert!(unanswered.to_string().contains("not known"), "{unanswered}");
    let ended = stage.task.await.unwrap();
    assert!(matches!(&ended, Err(BrainError::StoreLost(why)) if why.contains("the disk failed")));
}

#[tokio::test]
async fn a_stopping_brain_answers_first_and_lets_the_store_go() {
    let stage = Stage::new().await;
    assert!(stage.create_token().await.unwrap().is_ok());
    stage.brain.ask(Input::Stop).await.unwrap();
    assert!(stage.task.await.unwrap().is_ok());
    assert_eq!(Arc::strong_count(&stage.store), 1);
    assert!(stage.brain.ask(Input::Describe).await.is_err());
}

#[tokio::test]
async fn a_stranger_with_a_certificate_is_told_why_its_stream_ends() {
    let stage = Stage::new().await;
    let identity = SpiffeId::Host {
        fleet: fleet_name(),
        host: "vm-9".parse().unwrap(),
    };
    let peer = SessionPeer {
        identity,
        tls_key_hash: Digest::from_bytes([9; 32]),
        not_before: UnixTime::from_secs(0),
        not_after: UnixTime::from_secs(u64::MAX >> 1),
    };
    let from = "192.0.2.9".parse().unwrap();
    let mut session = stage
        .brain
        .ask(|answer| Input::Open(peer, from, answer))
        .await
        .unwrap();
    let message = tokio_stream::StreamExt::next(&mut session.outgoing)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(ToHost::try_from(message), Ok(ToHost::Goodbye(_))));
    assert!(session.ended.await.is_err());
}

/// A brain at work.
struct Stage {
    store: Arc<FaultyStore>,
    brain: BrainHandle,
    task: JoinHandle<Result<(), BrainError>>,
}

impl Stage {
    async fn new() -> Self {
        let (clock, store) = (Clock::start(), Arc::new(FaultyStore::default()));
        let seeds = AuthoritySeeds {
            root: Secret::from_bytes([1; 32]),
            records: Secret::from_bytes([2; 32]),
            enrolment: Secret::from_bytes([3; 32]),
        };
        let authority = Authority::create(&fleet_name(), seeds, UnixTime::from_secs(1 << 30));
        let config = BootstrapConfig {
            fleet_name: fleet_name(),
            overlay: None,
            dns_suffix: "mesh.internal".into(),
        };
        let first = fleet::bootstrap(&config, &authority, [4; 32], clock.now());
        store.transaction(first.transaction).await.unwrap().unwrap();
        let Listing { revision, entries } = store.range("").await.unwrap();
        let config = FleetConfig::new("test", vec!["192.0.2.1:7443".into()]);
        let fleet = Fleet::new(config, authority, entries, revision, [5; 32], clock.now()).unwrap();
        let (brain, handle) = Brain::new(fleet, Arc::clone(&store) as Arc<dyn Store>, clock);
        Self {
            store,
            brain: handle,
            task: tokio::spawn(brain.run()),
        }
    }

    async fn ask(&self, request: AdminRequest) -> Result<Outcome, BrainGone> {
        let caller = Caller::new("ops", Role::Admin);
        self.brain
            .ask(|answer| Input::Admin(caller, request, answer))
            .await
    }

    async fn create_token(&self) -> Result<Outcome, BrainGone> {
        let create = CreateToken {
            labels: Labels::new(),
            uses: None,
            valid_for_secs: 3600,
            names: Vec::new(),
            comment: String::new(),
        };
        self.ask(AdminRequest::CreateToken(create)).await
    }

    async fn tokens(&self) -> usize {
        match self.ask(AdminRequest::ListTokens).await.unwrap().unwrap() {
            Reply::Tokens(tokens) => tokens.len(),
            other => panic!("{other:?}"),
        }
    }
}

fn fleet_name() -> Name {
    "prod".parse().unwrap()
}

/// A store whose next transaction fails when it was told so.
#[derive(Default)]
struct FaultyStore {
    inner: MemoryStore,
    fault: Mutex<Option<StoreError>>,
}

impl FaultyStore {
    fn fail_once(&self, error: StoreError) {
        *self.fault.lock().unwrap() = Some(error);
    }
}

impl Store for FaultyStore {
    fn transaction(
        &self,
        transaction: Transaction,
    ) -> StoreFuture<'_, Result<Committed, Conflict>> {
        match self.fault.lock().unwrap().take() {
            Some(error) => Box::pin(async move { Err(error) }),
            None => self.inner.transaction(transaction),
        }
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        self.inner.range(prefix)
    }

    fn watch(&self, after: StoreRevision) -> StoreFuture<'_, WatchStream> {
        self.inner.watch(after)
    }

    fn compact(&self, through: StoreRevision) -> StoreFuture<'_, ()> {
        self.inner.compact(through)
    }

    fn lease_grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        self.inner.lease_grant(ttl)
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.inner.lease_keep_alive(lease)
    }

    fn lease_revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.inner.lease_revoke(lease)
    }

    fn expire_leases(&self, now: Instant) -> StoreFuture<'_, Vec<LeaseId>> {
        self.inner.expire_leases(now)
    }
}
