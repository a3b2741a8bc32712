//! The machine of the coordinator: the real fleet over a store that loses what was not flushed.

use std::collections::BTreeMap;

use fleet::{
    AdminRequest, BootstrapConfig, Caller, CommitId, Fleet, FleetConfig, Rejection, Reply,
    RequestId, SessionId, bootstrap,
};
use model::admin::Role;
use model::key::Secret;
use model::name::Name;
use model::time::{Instant, Now};
use model::wire;
use trust::enrolment::TlsKey;
use trust::{Authority, AuthorityKeys, AuthoritySeeds, CoordinatorIdentity};

use crate::control::ConnectionId;
use crate::dice::Dice;
use crate::event::Run;
use crate::host::{unix_time, wrong_time};
use crate::operator::Order;
use crate::store::CoordinatorStore;

/// Where hosts are told to find the coordinator.
pub(crate) const ADDRESS: &str = "coordinator.example:7443";

/// The coordinator's machine.
pub(crate) struct Coordinator {
    /// The key file, on a disk that writes whole or not at all.
    pub(crate) keys: Vec<AuthorityKeys>,
    /// The roots whose certificates it lets in.
    pub(crate) roots: Vec<Vec<u8>>,
    /// What it shows in TLS.
    pub(crate) chain: Vec<Vec<u8>>,
    tls_key: Secret,
    pub(crate) store: CoordinatorStore,
    pub(crate) running: Option<Steward>,
    pub(crate) last_run: Run,
    /// The machine has no power, rather than just no program.
    pub(crate) is_dark: bool,
    /// Seconds that its wall clock is ahead.
    pub(crate) clock_error: i64,
    next_request: u64,
    next_session: u64,
}

/// A program that runs.
pub(crate) struct Steward {
    pub(crate) run: Run,
    pub(crate) booted_at: Instant,
    pub(crate) fleet: Fleet,
    pub(crate) wake: Option<Instant>,
    pub(crate) sessions: BTreeMap<SessionId, ConnectionId>,
    pub(crate) enrolments: BTreeMap<RequestId, ConnectionId>,
    pub(crate) orders: BTreeMap<RequestId, Order>,
    /// Answers to questions of the simulation itself.
    pub(crate) answers: BTreeMap<RequestId, Result<Reply, Rejection>>,
    /// How often it was woken in vain at one moment.
    pub(crate) spins: u32,
}

impl Coordinator {
    pub(crate) fn new(dice: &mut Dice, world: Instant) -> Self {
        let mut secret = || Secret::from_bytes(dice.secret());
        let seeds = AuthoritySeeds {
            root: secret(),
            records: secret(),
            enrolment: secret(),
        };
        let fleet_name = fleet_name();
        let authority = Authority::create(&fleet_name, seeds.clone(), unix_time(world));
        let mut coordinator = Self {
            keys: authority.keys(),
            roots: Vec::new(),
            chain: Vec::new(),
            tls_key: secret(),
            store: CoordinatorStore::default(),
            running: None,
            last_run: Run::default(),
            is_dark: false,
            clock_error: 0,
            next_request: 0,
            next_session: 0,
        };
        coordinator.show(&authority, world);
        coordinator
    }

    /// Shows a certificate of this authority, and lets in whoever shows one of its roots.
    pub(crate) fn show(&mut self, authority: &Authority, world: Instant) {
        let identity = CoordinatorIdentity {
            fleet_name: fleet_name(),
            coordinator_name: "c1".parse().expect("a valid name"),
            dns_names: Vec::new(),
            addresses: Vec::new(),
        };
        let key = TlsKey::from_seed(self.tls_key.clone());
        self.chain = authority
            .issue_coordinator(&identity, &key, unix_time(world), [7; 16])
            .expect("the names are valid");
        self.roots = authority.root_certificates();
    }

    /// Starts the program from what the store holds; the first time, with a new fleet.
    ///
    /// # Errors
    /// What the store holds cannot be loaded.
    pub(crate) fn start(&mut self, dice: &mut Dice, world: Instant) -> Result<(), String> {
        self.last_run.0 += 1;
        self.is_dark = false;
        let now = Now {
            monotonic: Instant::START,
            unix: wrong_time(world, self.clock_error),
        };
        let authority =
            Authority::load_all(self.keys.clone()).map_err(|error| error.to_string())?;
        if self.store.is_empty() {
            let config = BootstrapConfig {
                fleet_name: fleet_name(),
                overlay: None,
                dns_suffix: "mesh.internal".to_owned(),
            };
            let first = bootstrap(&config, &authority, dice.secret(), now);
            self.store.begin(CommitId(0), &first.transaction);
            self.store.flush(dice);
        }
        let config = FleetConfig::new("sim", vec![ADDRESS.to_owned()]);
        let (loaded, revision) = self.store.listing();
        let fleet = Fleet::new(config, authority, loaded, revision, dice.secret(), now)
            .map_err(|error| error.to_string())?;
        let trust = fleet.describe(now).trust;
        let statement =
            wire::decode_trust_statement(&trust.payload).map_err(|it| it.to_string())?;
        let keys = Authority::load_all(self.keys.clone()).map_err(|error| error.to_string())?;
        let listed = keys.limited_to(&statement.root_certificates);
        self.show(&listed.ok_or("its keys are not the fleet's")?, world);
        self.running = Some(Steward {
            run: self.last_run,
            booted_at: world,
            fleet,
            wake: None,
            sessions: BTreeMap::new(),
            enrolments: BTreeMap::new(),
            orders: BTreeMap::new(),
            answers: BTreeMap::new(),
            spins: 0,
        });
        Ok(())
    }

    /// Returns what the program's clocks show.
    pub(crate) fn now(&self, world: Instant) -> Now {
        let booted_at = self
            .running
            .as_ref()
            .map_or(world, |running| running.booted_at);
        Now {
            monotonic: Instant::from_start(world - booted_at),
            unix: wrong_time(world, self.clock_error),
        }
    }

    pub(crate) fn new_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(crate) fn new_session(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }
}

impl Steward {
    /// Passes an operator's request to the fleet.
    pub(crate) fn ask(&mut self, id: RequestId, request: AdminRequest, now: Now) {
        let caller = Caller::new("operator", Role::Admin);
        self.fleet.handle_admin(id, caller, request, now);
    }
}

/// Returns the name of every simulated fleet.
pub(crate) fn fleet_name() -> Name {
    "sim".parse().expect("a valid name")
}
