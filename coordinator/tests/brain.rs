//! The brain's task over a store that fails: what is said to those who wait.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::brain::{Brain, BrainError, BrainGone, BrainHandle, Input, Outcome};
use coordinator::sessions::Outgoing;
use coordinator::store::{Listing, MemoryStore, Store, StoreError, StoreFuture, WatchStream};
use fleet::{AdminRequest, BootstrapConfig, Caller, Fleet, FleetConfig, Reply, SessionPeer};
use futures_util::FutureExt;
use model::admin::{ApplyPolicy, CreateToken, PolicyFile, Role};
use model::control::{EnrolRequest, FromHost, Hello, RefusalCode, ToHost};
use model::identity::SpiffeId;
use model::ids::Digest;
use model::key::Secret;
use model::name::{Labels, Name};
use model::record::TrustStatement;
use model::store::{Committed, Conflict, LeaseId, StoreRevision, Transaction};
use model::time::{Instant, UnixTime};
use runtime::clock::Clock;
use tokio::task::JoinHandle;
use trust::enrolment::{TlsKey, Transcript, wireguard_proof, wireguard_public};
use trust::{Authority, AuthoritySeeds, JoinToken};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));

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

#[tokio::test]
async fn a_policy_on_its_way_to_all_hosts_keeps_nobody_else_waiting() {
    const HOSTS: usize = 120;
    let stage = Stage::new().await;
    let mut streams = stage.members(HOSTS).await;
    // All hosts knew each other: each has to forget all others, in several portions.
    let apart = ApplyPolicy {
        files: vec![PolicyFile {
            path: "policy.yaml".into(),
            text: "fleet: prod\n".into(),
        }],
        base: None,
        message: String::new(),
        dry_run: false,
    };
    let applied = stage.ask(AdminRequest::ApplyPolicy(apart)).await.unwrap();
    assert!(matches!(applied, Ok(Reply::PolicyApplied(_))));
    stage.brain.ask(Input::Describe).await.unwrap();
    let (waiting, told): (Vec<_>, Vec<_>) = streams
        .iter_mut()
        .map(|stream| (next(stream).now_or_never(), stream))
        .partition(|(message, _)| message.is_none());
    let (waiting, told) = (waiting.into_iter(), told.len());
    assert!(
        (1..HOSTS).contains(&told),
        "{told} of {HOSTS} had been told"
    );
    for (_, stream) in waiting {
        assert!(matches!(next(stream).await, ToHost::Map(_)));
    }
}

/// Returns the next message on a stream.
async fn next(stream: &mut Outgoing) -> ToHost {
    let message = tokio_stream::StreamExt::next(stream).await;
    message.unwrap().unwrap().try_into().unwrap()
}

/// The one thread for long work is busy until the test says so, so that no policy is looked at before.
#[test]
fn others_are_answered_while_a_policy_of_10_000_rules_is_looked_at() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let stage = Stage::new().await;
        let (busy, until) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || until.recv());
        let rules = (0..10_000).map(|it| {
            format!("  - {{ id: r{it}, from: \"role=a{it}\", to: \"role=b{it}\", tcp: [22] }}\n")
        });
        let text = format!("fleet: prod\nallow:\n{}", rules.collect::<String>());
        let apply = AdminRequest::ApplyPolicy(ApplyPolicy {
            files: vec![PolicyFile {
                path: "policy.yaml".into(),
                text,
            }],
            base: None,
            message: String::new(),
            dry_run: false,
        });
        let mut applied = std::pin::pin!(stage.ask(apply));
        assert!(applied.as_mut().now_or_never().is_none());
        stage.create_token().await.unwrap().unwrap();
        assert_eq!(stage.tokens().await, 1);
        assert!(applied.as_mut().now_or_never().is_none());
        drop(busy);
        let Ok(Reply::PolicyApplied(applied)) = applied.await.unwrap() else {
            panic!("it is applied once there is a thread for it")
        };
        assert!(applied.changed);
    });
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

    /// Makes members that have been welcomed and told their map.
    async fn members(&self, count: usize) -> Vec<Outgoing> {
        let Ok(Reply::TokenCreated(created)) = self.create_token().await.unwrap() else {
            panic!()
        };
        let token = created.token.parse().unwrap();
        let trust = self.brain.ask(Input::Describe).await.unwrap().trust;
        let statement = model::wire::decode_trust_statement(&trust.payload).unwrap();
        let machines: Vec<_> = (0..count).map(Machine::new).collect();
        for machine in &machines {
            let request = Box::new(machine.request(&statement, &token));
            let enrolled = self
                .brain
                .ask(|answer| Input::Enrol(request, FROM, answer))
                .await
                .unwrap();
            assert!(matches!(enrolled, Ok(Reply::Enrolled(_))), "{enrolled:?}");
        }
        let mut streams = Vec::with_capacity(count);
        for machine in &machines {
            let opened = self
                .brain
                .ask(|answer| Input::Open(machine.peer(), FROM, answer));
            let mut session = opened.await.unwrap();
            self.brain.tell(Input::Heard(session.id, hello())).await;
            let told = [
                next(&mut session.outgoing).await,
                next(&mut session.outgoing).await,
            ];
            assert!(
                matches!(told, [ToHost::Welcome(_), ToHost::Map(_)]),
                "{told:?}"
            );
            streams.push(session.outgoing);
        }
        streams
    }

    async fn tokens(&self) -> usize {
        match self.ask(AdminRequest::ListTokens).await.unwrap().unwrap() {
            Reply::Tokens(tokens) => tokens.len(),
            other => panic!("{other:?}"),
        }
    }
}

/// A machine with keys of its own.
struct Machine {
    name: Name,
    wireguard: Secret,
    tls: TlsKey,
}

impl Machine {
    fn new(number: usize) -> Self {
        let secret = |kind: u8| {
            let mut bytes = [kind; 32];
            bytes[1..9].copy_from_slice(&number.to_be_bytes());
            Secret::from_bytes(bytes)
        };
        Self {
            name: format!("vm-{number}").parse().unwrap(),
            wireguard: secret(1),
            tls: TlsKey::from_seed(secret(2)),
        }
    }

    fn request(&self, statement: &TrustStatement, token: &JoinToken) -> EnrolRequest {
        let certificate_request = self.tls.certificate_request(&self.name);
        let wireguard_key = wireguard_public(&self.wireguard);
        let transcript = Transcript {
            fleet: statement.fleet,
            token: token.id,
            name: &self.name,
            wireguard_key,
            certificate_request: &certificate_request,
        };
        let proof = wireguard_proof(&self.wireguard, &statement.enrolment_key, &transcript);
        EnrolRequest {
            token: token.id,
            token_secret: token.secret,
            name: self.name.clone(),
            wireguard_key,
            wireguard_proof: proof.unwrap(),
            certificate_request,
            software_version: "1.2.3".into(),
            machine_id: String::new(),
            features: Vec::new(),
        }
    }

    fn peer(&self) -> SessionPeer {
        SessionPeer {
            identity: SpiffeId::Host {
                fleet: fleet_name(),
                host: self.name.clone(),
            },
            tls_key_hash: self.tls.public_key_hash(),
            not_before: UnixTime::from_secs(0),
            not_after: UnixTime::from_secs(u64::MAX >> 1),
        }
    }
}

fn hello() -> FromHost {
    FromHost::Hello(Hello {
        have: None,
        software_version: "1.2.3".into(),
        features: vec!["allow".into(), "deny".into()],
        boot_counter: 1,
        trust: None,
    })
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
