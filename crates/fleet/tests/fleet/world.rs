//! A fleet, a store in memory, and hosts with real keys. Nothing happens by itself: a test carries
//! out commits and reports them in the order that it likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use fleet::{
    AdminRequest, Admission, BootstrapConfig, Caller, CommitError, CommitId, Fleet, FleetConfig,
    KeepId, LoadError, Output, PolicyWork, Rejection, Reply, RequestId, SessionId, SessionPeer,
    WorkId, bootstrap,
};
use model::address::OverlayPrefixes;
use model::admin::{
    AppliedPolicy, ApplyPolicy, AuditEntry, CoordinatorStatus, CreateToken, HostView, PolicyFile,
    Role, SetLabels,
};
use model::control::{EnrolRequest, Enrolled, FromHost, Goodbye, HeldTrust, Hello, ToHost};
use model::identity::SpiffeId;
use model::ids::{HostId, PolicyVersion, Revision};
use model::key::Secret;
use model::name::{Labels, Name};
use model::record::{HostRecord, TrustStatement};
use model::store::{Committed, Transaction};
use model::time::{Instant, Now, UnixTime};
use trust::authority::HOST_CERTIFICATE_LIFETIME;
use trust::{Authority, AuthorityKeys, AuthoritySeeds, JoinToken, TrustAnchors};

use crate::machine::Machine;
use crate::toy_store::ToyStore;

/// 2026-11-22 in Unix seconds, roughly.
pub(crate) const START_SECS: u64 = 1_795_340_000;

pub(crate) const ADVERTISED: &str = "coordinator.example:7443";

/// What a host says that it can do.
const FEATURES: [&str; 14] = [
    "allow",
    "deny",
    "services.tcp",
    "services.udp",
    "services.http",
    "services.grpc",
    "services.auto",
    "services.addresses",
    "services.settings",
    "workloads",
    "http",
    "when",
    "cipher.standard",
    "policy.steps",
];

pub(crate) struct World {
    pub(crate) fleet: Fleet,
    config: FleetConfig,
    pub(crate) store: ToyStore,
    pub(crate) now: Now,
    /// Asked for, not carried out.
    pub(crate) asked: VecDeque<(CommitId, Transaction)>,
    /// Carried out, not reported.
    pub(crate) done: VecDeque<(CommitId, Result<Committed, CommitError>)>,
    pub(crate) replies: BTreeMap<RequestId, Result<Reply, Rejection>>,
    pub(crate) sent: BTreeMap<SessionId, Vec<ToHost>>,
    pub(crate) closed: BTreeSet<SessionId>,
    pub(crate) notices: Vec<String>,
    pub(crate) audited: Vec<AuditEntry>,
    pub(crate) lists: usize,
    /// Work that is not done until the test says so; `None`: it is done at once.
    pub(crate) workshop: Option<Vec<(WorkId, PolicyWork)>>,
    pub(crate) credential: String,
    /// The key file.
    pub(crate) keys: Vec<AuthorityKeys>,
    /// Asked to be written to the key file, not written.
    pub(crate) keeps: VecDeque<(KeepId, Vec<AuthorityKeys>)>,
    /// The last keys that the program was told to use.
    pub(crate) shown: Option<Vec<AuthorityKeys>>,
    next_id: u64,
}

fn seeds() -> AuthoritySeeds {
    AuthoritySeeds {
        root: Secret::from_bytes([1; 32]),
        records: Secret::from_bytes([2; 32]),
        enrolment: Secret::from_bytes([3; 32]),
    }
}

pub(crate) fn authority() -> Authority {
    Authority::create(&name("prod"), seeds(), UnixTime::from_secs(START_SECS))
}

/// What a test begins with: nobody is told to wait.
fn config() -> FleetConfig {
    let at_once = Admission {
        burst: u32::MAX,
        per_sec: 1_000_000,
    };
    FleetConfig {
        streams: at_once,
        enrolments: at_once,
        callers: at_once,
        ..paced()
    }
}

/// What a coordinator begins with.
fn paced() -> FleetConfig {
    FleetConfig::new("1.2.3", vec![ADVERTISED.into()])
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

pub(crate) fn operator() -> Caller {
    Caller::new("ops", Role::Admin)
}

pub(crate) fn from_ip() -> IpAddr {
    "192.0.2.99".parse().unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_v4("10.0.0.0/16")
    }

    /// A fleet that lets hosts in at the pace of a real one.
    pub(crate) fn paced() -> Self {
        Self::with("10.0.0.0/16", paced())
    }

    pub(crate) fn with_v4(v4: &str) -> Self {
        Self::with(v4, config())
    }

    fn with(v4: &str, config: FleetConfig) -> Self {
        let v6 = "fd00:1::/48".parse().unwrap();
        let overlay = OverlayPrefixes::checked(v4.parse().unwrap(), v6).unwrap();
        let now = Now {
            monotonic: Instant::START,
            unix: UnixTime::from_secs(START_SECS),
        };
        let bootstrap_config = BootstrapConfig {
            fleet_name: name("prod"),
            overlay: Some(overlay),
            dns_suffix: "mesh.internal".into(),
        };
        let authority = authority();
        let made = bootstrap(&bootstrap_config, &authority, [7; 32], now);
        let mut store = ToyStore::default();
        store.transact(&made.transaction).unwrap();
        let fleet = Fleet::new(
            config.clone(),
            authority,
            store.listing(),
            store.revision,
            [8; 32],
            now,
        )
        .unwrap();
        Self {
            fleet,
            config,
            store,
            now,
            asked: VecDeque::new(),
            done: VecDeque::new(),
            replies: BTreeMap::new(),
            sent: BTreeMap::new(),
            closed: BTreeSet::new(),
            notices: Vec::new(),
            audited: Vec::new(),
            lists: 0,
            workshop: None,
            credential: String::from_utf8(made.admin_credential.expose().to_vec()).unwrap(),
            keys: self::authority().keys(),
            keeps: VecDeque::new(),
            shown: None,
            next_id: 0,
        }
    }

    /// From its next start on the coordinator lets hosts in at the pace of a real one.
    pub(crate) fn pace(&mut self) {
        self.config = paced();
    }

    /// The coordinator dies and comes back with what its store holds.
    pub(crate) fn crash(&mut self) {
        self.next_id += 1;
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&self.next_id.to_be_bytes());
        self.fleet = self.load_with(seed).unwrap();
        self.asked.clear();
        self.done.clear();
        self.sent.clear();
        self.keeps.clear();
    }

    /// Makes a fleet of what the store holds.
    pub(crate) fn load(&self) -> Result<Fleet, LoadError> {
        self.load_with([10; 32])
    }

    fn load_with(&self, seed: [u8; 32]) -> Result<Fleet, LoadError> {
        let store = &self.store;
        Fleet::new(
            self.config.clone(),
            Authority::load_all(self.keys.clone()).unwrap(),
            store.listing(),
            store.revision,
            seed,
            self.now,
        )
    }

    /// Takes over what the fleet wants done.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.fleet.poll_output() {
            match output {
                Output::Commit { id, transaction } => self.asked.push_back((id, transaction)),
                Output::Reply { request, result } => {
                    assert!(
                        self.replies.insert(request, result).is_none(),
                        "answered twice"
                    );
                }
                Output::Send { session, message } => {
                    assert!(!self.closed.contains(&session), "{message:?} after close");
                    self.sent.entry(session).or_default().push(message);
                }
                Output::Close { session } => {
                    self.closed.insert(session);
                }
                Output::KeepAuthority { id, keys } => self.keeps.push_back((id, keys)),
                Output::ShowAuthority { keys } => self.shown = Some(keys),
                Output::Work { id, work } => match &mut self.workshop {
                    Some(waiting) => waiting.push((id, work)),
                    None => {
                        let done = work.run(&|| false);
                        self.fleet.handle_policy_done(id, done, self.now);
                    }
                },
                Output::List => self.lists += 1,
                Output::Notice(text) => self.notices.push(text),
                Output::Audited(entry) => self.audited.push(*entry),
            }
        }
    }

    /// Carries out one of the asked commits; it is not reported yet.
    pub(crate) fn carry_out(&mut self, position: usize) {
        let (id, transaction) = self.asked.remove(position).unwrap();
        let outcome = self.store.transact(&transaction);
        self.done.push_back((id, outcome));
    }

    /// Reports one of the commits that were carried out.
    pub(crate) fn report(&mut self, position: usize) {
        let (id, outcome) = self.done.remove(position).unwrap();
        self.fleet.handle_commit(id, outcome, self.now);
        self.drain();
    }

    /// Fails one of the asked commits: the disk is full.
    pub(crate) fn fail(&mut self, position: usize) {
        let (id, _) = self.asked.remove(position).unwrap();
        let error = CommitError::Failed("no space left on device".into());
        self.fleet.handle_commit(id, Err(error), self.now);
        self.drain();
    }

    /// Writes the key file as it is asked for.
    pub(crate) fn write_keys(&mut self) {
        if let Some((id, keys)) = self.keeps.pop_front() {
            self.keys = keys;
            self.fleet.handle_authority_kept(id, Ok(()), self.now);
            self.drain();
        }
    }

    /// The key file cannot be written.
    pub(crate) fn fail_keys(&mut self) {
        let (id, _) = self.keeps.pop_front().unwrap();
        let why = Err("no space left on device".to_owned());
        self.fleet.handle_authority_kept(id, why, self.now);
        self.drain();
    }

    /// Carries out and reports everything that is asked for.
    pub(crate) fn settle(&mut self) {
        self.drain();
        while !(self.asked.is_empty() && self.done.is_empty() && self.keeps.is_empty()) {
            self.write_keys();
            while !self.done.is_empty() {
                self.report(0);
            }
            if !self.asked.is_empty() {
                self.carry_out(0);
            }
        }
    }

    /// Lets time pass, stopping whenever the fleet wants to be called.
    pub(crate) fn advance(&mut self, span: Duration) {
        let end = self.now.monotonic + span;
        let unix_at_end = self.now.unix + span;
        while let Some((due, _)) = self.fleet.poll_timeout().filter(|(due, _)| *due <= end) {
            let passed = due.saturating_since(self.now.monotonic);
            self.now = Now {
                monotonic: self.now.monotonic + passed,
                unix: self.now.unix + passed,
            };
            self.fleet.handle_timeout(self.now);
            self.drain();
        }
        self.now = Now {
            monotonic: end,
            unix: unix_at_end,
        };
    }

    pub(crate) fn next_request(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    pub(crate) fn next_session(&mut self) -> SessionId {
        self.next_id += 1;
        SessionId(self.next_id)
    }

    pub(crate) fn ask_as(&mut self, caller: Caller, request: AdminRequest) -> RequestId {
        let id = self.next_request();
        self.fleet.handle_admin(id, caller, request, self.now);
        self.drain();
        id
    }

    pub(crate) fn ask(&mut self, request: AdminRequest) -> RequestId {
        self.ask_as(operator(), request)
    }

    /// Asks, carries out and returns the answer.
    pub(crate) fn admin(&mut self, request: AdminRequest) -> Result<Reply, Rejection> {
        let id = self.ask(request);
        self.settle();
        self.replies
            .remove(&id)
            .expect("it is answered once everything is carried out")
    }

    pub(crate) fn start_enrolment(&mut self, request: EnrolRequest) -> RequestId {
        let id = self.next_request();
        self.fleet.handle_enrol(id, request, from_ip(), self.now);
        self.drain();
        id
    }

    pub(crate) fn enrol(&mut self, request: EnrolRequest) -> Result<Enrolled, Rejection> {
        let id = self.start_enrolment(request);
        self.settle();
        self.taken_enrolment(id)
            .expect("it is answered once everything is carried out")
    }

    pub(crate) fn taken_enrolment(&mut self, id: RequestId) -> Option<Result<Enrolled, Rejection>> {
        Some(self.replies.remove(&id)?.map(|reply| match reply {
            Reply::Enrolled(enrolled) => enrolled,
            other => panic!("{other:?}"),
        }))
    }

    pub(crate) fn refused_enrolment(&mut self, request: EnrolRequest) -> String {
        self.enrol(request).unwrap_err().to_string()
    }

    pub(crate) fn token_with(&mut self, create: CreateToken) -> JoinToken {
        match self.admin(AdminRequest::CreateToken(create)).unwrap() {
            Reply::TokenCreated(created) => created.token.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Makes a token of `uses` that is good for an hour.
    pub(crate) fn token(&mut self, uses: Option<u32>) -> JoinToken {
        self.token_with(CreateToken {
            uses,
            ..hour_token()
        })
    }

    pub(crate) fn hosts(&mut self) -> Vec<HostView> {
        match self.admin(AdminRequest::ListHosts).unwrap() {
            Reply::Hosts(hosts) => hosts,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn status(&mut self) -> CoordinatorStatus {
        match self.admin(AdminRequest::Status).unwrap() {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set_labels(&mut self, host: &str, pairs: &[(&str, &str)]) -> HostView {
        let set = SetLabels {
            labels: labels(pairs),
            base: None,
        };
        match self
            .admin(AdminRequest::SetLabels {
                host: name(host),
                set,
            })
            .unwrap()
        {
            Reply::Host(host) => host,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn remove_host(&mut self, host: &str) {
        let reply = self.admin(AdminRequest::RemoveHost(name(host))).unwrap();
        assert!(matches!(reply, Reply::HostRemoved(_)));
    }

    pub(crate) fn apply_policy(&mut self, yaml: &str) -> Result<AppliedPolicy, Rejection> {
        self.admin(AdminRequest::ApplyPolicy(apply(yaml)))
            .map(|reply| match reply {
                Reply::PolicyApplied(applied) => applied,
                other => panic!("{other:?}"),
            })
    }

    pub(crate) fn anchors(&self) -> (TrustAnchors, TrustStatement) {
        let description = self.fleet.describe(self.now);
        let authority = Authority::load_all(self.keys.clone()).unwrap();
        let pins = authority.root_pins();
        let found = pins.iter().rev();
        let mut found = found.map(|pin| TrustAnchors::from_statement(&description.trust, pin));
        found.find_map(Result::ok).unwrap()
    }

    /// Returns whether a goodbye shows the fleet's signature for a host's removal.
    pub(crate) fn is_removed_by(&self, host: HostId, goodbye: &Goodbye) -> bool {
        let signed = goodbye.tombstone.as_ref().expect("it shows a tombstone");
        self.anchors().0.verify_tombstone(signed).unwrap().host == host
    }

    pub(crate) fn record(&self, enrolled: &Enrolled) -> HostRecord {
        self.anchors().0.verify_record(&enrolled.record).unwrap()
    }

    /// Makes a token, keys and a member.
    pub(crate) fn join(&mut self, host: &str, seed: u16) -> (Machine, Enrolled) {
        let token = self.token(None);
        let machine = Machine::new(seed);
        let enrolled = self.enrol(machine.request(self, &token, host)).unwrap();
        (machine, enrolled)
    }

    /// Opens a stream with the machine's certificate.
    pub(crate) fn open(&mut self, machine: &Machine, host: &str) -> SessionId {
        self.open_from(machine, host, None)
    }

    pub(crate) fn open_from(
        &mut self,
        machine: &Machine,
        host: &str,
        observed: Option<IpAddr>,
    ) -> SessionId {
        let session = self.next_session();
        let identity = SpiffeId::Host {
            fleet: name("prod"),
            host: name(host),
        };
        let peer = SessionPeer {
            identity,
            tls_key_hash: machine.tls_key_hash(),
            not_before: self.now.unix,
            not_after: self.now.unix + HOST_CERTIFICATE_LIFETIME,
        };
        self.open_as(session, peer, observed);
        session
    }

    /// Opens a stream with a certificate that has expired.
    pub(crate) fn open_expired(&mut self, machine: &Machine, host: &str) -> SessionId {
        let past = UnixTime::from_secs(self.now.unix.as_secs() - 1);
        self.open_valid_in(machine, host, (UnixTime::from_secs(0), past))
    }

    /// Opens a stream with a certificate that is valid from one time to another.
    pub(crate) fn open_valid_in(
        &mut self,
        machine: &Machine,
        host: &str,
        (not_before, not_after): (UnixTime, UnixTime),
    ) -> SessionId {
        let session = self.next_session();
        let peer = SessionPeer {
            identity: SpiffeId::Host {
                fleet: name("prod"),
                host: name(host),
            },
            tls_key_hash: machine.tls_key_hash(),
            not_before,
            not_after,
        };
        self.open_as(session, peer, None);
        session
    }

    fn open_as(&mut self, session: SessionId, peer: SessionPeer, observed: Option<IpAddr>) {
        self.fleet
            .handle_session_opened(session, peer, observed, self.now);
        self.drain();
    }

    pub(crate) fn say(&mut self, session: SessionId, message: FromHost) {
        self.fleet
            .handle_session_message(session, message, self.now);
        self.drain();
    }

    pub(crate) fn hello(&mut self, session: SessionId, have: Option<Revision>) {
        self.hello_holding(session, have, None);
    }

    pub(crate) fn hello_holding(
        &mut self,
        session: SessionId,
        have: Option<Revision>,
        trust: Option<HeldTrust>,
    ) {
        let hello = Hello {
            trust,
            have,
            software_version: "1.2.3".into(),
            features: FEATURES.map(str::to_owned).into(),
            boot_counter: 1,
        };
        self.say(session, FromHost::Hello(hello));
    }

    /// Returns what was sent on a stream since this was asked last.
    pub(crate) fn taken(&mut self, session: SessionId) -> Vec<ToHost> {
        self.drain();
        self.sent.remove(&session).unwrap_or_default()
    }
}

pub(crate) fn hour_token() -> CreateToken {
    CreateToken {
        labels: Labels::new(),
        uses: None,
        valid_for_secs: 3600,
        names: Vec::new(),
        comment: String::new(),
    }
}

pub(crate) fn apply(yaml: &str) -> ApplyPolicy {
    ApplyPolicy {
        files: vec![PolicyFile {
            path: "policy.yaml".into(),
            text: yaml.into(),
        }],
        base: None,
        message: "because".into(),
        dry_run: false,
    }
}

pub(crate) fn version(number: u64) -> PolicyVersion {
    PolicyVersion(number)
}
