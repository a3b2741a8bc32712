//! A fleet on loopback: the proxies of some hosts in one process, each with an overlay address out of
//! 127.0.1.0/24, programs that call and programs that are called, and nothing that is really caught:
//! what was dialled follows from the listener.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::address::HostAddresses;
use model::catalogue::{Catalogue, CatalogueHost, CatalogueService};
use model::ids::{FleetId, HostId, PolicyVersion, Revision};
use model::key::WireguardKey;
use model::name::{Labels, Name};
use model::record::HostRecord;
use model::rule::{
    Bundle, HttpMatch, Protocol, Rule, Selector, Service, Source, Traffic, TrafficSettings,
    Workload,
};
use policy::Gate;
use proxy::{
    CallReport, Caller, Listeners, Observer, Proxy, ProxyConfig, ProxyLimits, Reason, Side,
    Snapshot, Snapshots, Surroundings, UpstreamSeen,
};
use runtime::clock::Clock;
use runtime::tls::stream_client;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::{Fleet, Member};

/// The service that all these tests call.
pub(crate) const ORDERS: &str = "orders";
/// Its virtual address.
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(100, 64, 240, 1);

/// What a test begins with.
pub(crate) struct Plan {
    pub(crate) protocol: Protocol,
    pub(crate) settings: TrafficSettings,
    pub(crate) limits: ProxyLimits,
    /// How many hosts; the first calls, and the others are endpoints, unless it is the only one.
    pub(crate) hosts: u8,
    pub(crate) allow: Vec<Rule>,
    pub(crate) deny: Vec<Rule>,
    pub(crate) workloads: Vec<Workload>,
    /// The rules of the destinations, where they are others than the caller's.
    pub(crate) allow_there: Option<Vec<Rule>>,
    /// Whether any host offers the service.
    pub(crate) has_endpoints: bool,
    /// Fleets of another number have another authority, and the same name.
    pub(crate) fleet: u8,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http,
            settings: TrafficSettings::default(),
            limits: ProxyLimits::default(),
            hosts: 2,
            allow: vec![rule("all", Selector::Any, &[])],
            deny: Vec::new(),
            workloads: Vec::new(),
            allow_there: None,
            has_endpoints: true,
            fleet: 1,
        }
    }
}

/// The fleet.
pub(crate) struct World {
    fleet: Fleet,
    pub(crate) hosts: Vec<Host>,
    port: u16,
    plan: Plan,
}

/// One host with its proxy.
pub(crate) struct Host {
    member: Member,
    pub(crate) address: Ipv4Addr,
    pub(crate) streams: SocketAddr,
    pub(crate) machine: Arc<Machine>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) proxy: Option<Proxy>,
    /// Where a program of it dials the service.
    pub(crate) orders: SocketAddr,
    /// Where a program of it dials the service's port of the second host.
    pub(crate) direct: SocketAddr,
    pub(crate) told: Arc<Told>,
}

/// A machine that was told everything.
pub(crate) struct Machine {
    address: Ipv4Addr,
    dialled: BTreeMap<u16, SocketAddr>,
    caller: Mutex<Caller>,
    is_cut_off: AtomicBool,
    dials: AtomicUsize,
    has_left: AtomicBool,
    /// How often it was asked whether its program is there.
    looked: AtomicUsize,
}

/// What was told of calls, in few words.
#[derive(Default)]
pub(crate) struct Told {
    calls: Mutex<Vec<ToldCall>>,
    services: Mutex<Vec<UpstreamSeen>>,
}

/// Whose part, the status, the reason, how many endpoints had it.
type ToldCall = (Side, u16, Option<Reason>, usize);

impl Observer for Told {
    fn call_ended(&self, _: usize, report: &CallReport<'_>) {
        let call = (
            report.side,
            report.status,
            report.reason,
            report.tried.len(),
        );
        self.calls.lock().unwrap().push(call);
    }

    fn endpoints_seen(&self, _: usize, seen: Vec<UpstreamSeen>) {
        *self.services.lock().unwrap() = seen;
    }
}

impl Told {
    /// Waits for what is told next of the service that was called.
    pub(crate) async fn service(&self) -> UpstreamSeen {
        self.services.lock().unwrap().clear();
        loop {
            if let Some(seen) = self.services.lock().unwrap().pop() {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until so many were told of.
    pub(crate) async fn calls(&self, count: usize) -> Vec<ToldCall> {
        loop {
            let calls = self.calls.lock().unwrap().clone();
            if calls.len() >= count {
                return calls;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Machine {
    /// Says which unit calls from now on.
    pub(crate) fn runs(&self, unit: &str) {
        self.runs_as(0, Some(unit));
    }

    /// Says whose process calls from now on.
    pub(crate) fn runs_as(&self, uid: u32, unit: Option<&str>) {
        *self.caller.lock().unwrap() = Caller::Process {
            unit: unit.map(str::to_owned),
            user: None,
            uid,
        };
    }

    /// Its program has closed its connections.
    pub(crate) fn leaves(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    /// Waits until it was asked so often whether its program is there.
    pub(crate) async fn looked(&self, times: usize) {
        while self.looked.load(Ordering::Relaxed) < times {
            tokio::task::yield_now().await;
        }
    }

    /// Lets no more connections to other hosts come about.
    pub(crate) fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
    }

    /// Lets them come about again.
    pub(crate) fn join(&self) {
        self.is_cut_off.store(false, Ordering::Relaxed);
    }

    /// Returns how many connections to other hosts were tried.
    pub(crate) fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }
}

impl Surroundings for Machine {
    fn original_destination(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        Ok(self.dialled[&stream.local_addr()?.port()])
    }

    fn caller(&self, _: SocketAddr, _: SocketAddr) -> Caller {
        self.caller.lock().unwrap().clone()
    }

    fn has_program(&self, _: SocketAddr, _: SocketAddr) -> bool {
        self.looked.fetch_add(1, Ordering::Relaxed);
        !self.has_left.load(Ordering::Relaxed)
    }

    fn dial_local(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        if to.is_ipv6() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.address.into(), 0))?;
        Ok(socket)
    }

    fn dial_underlay(&self, _: SocketAddr) -> io::Result<TcpSocket> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        if self.is_cut_off.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        TcpSocket::new_v4()
    }
}

impl World {
    /// Starts the proxies.
    pub(crate) fn new(plan: Plan) -> Self {
        let fleet = Fleet::new(plan.fleet);
        let port = free_port(plan.hosts);
        let mut world = Self {
            fleet,
            hosts: Vec::new(),
            port,
            plan,
        };
        let mut listeners = Vec::new();
        for number in 1..=world.plan.hosts {
            let (host, own) = world.host(number);
            world.hosts.push(host);
            listeners.push(own);
        }
        let shared = world.snapshots();
        for ((host, own), snapshot) in world.hosts.iter_mut().zip(listeners).zip(shared) {
            host.snapshots = Snapshots::new(snapshot);
            let config = ProxyConfig {
                limits: world.plan.limits.clone(),
                ..ProxyConfig::default()
            };
            let proxy = Proxy::start(
                config,
                own,
                host.machine.clone(),
                host.snapshots.clone(),
                Clock::start(),
                host.told.clone(),
            );
            host.proxy = Some(proxy.unwrap());
        }
        world
    }

    fn host(&self, number: u8) -> (Host, Listeners) {
        let address = overlay(number);
        let [orders, direct, streams] = [(); 3].map(|()| listener());
        let at = |listener: &StdListener| listener.local_addr().unwrap();
        let second = SocketAddr::new(overlay(2).into(), self.port);
        let machine = Machine {
            address,
            dialled: BTreeMap::from([
                (
                    at(&orders).port(),
                    SocketAddr::new(VIRTUAL.into(), self.port),
                ),
                (at(&direct).port(), second),
            ]),
            caller: Mutex::new(Caller::Unknown),
            is_cut_off: AtomicBool::new(false),
            dials: AtomicUsize::new(0),
            has_left: AtomicBool::new(false),
            looked: AtomicUsize::new(0),
        };
        let member = self.fleet.member(number);
        let host = Host {
            snapshots: Snapshots::new(Snapshot {
                catalogue: Arc::new(self.fleet.catalogue(&member, Vec::new())),
                gate: Arc::default(),
                identity: None,
            }),
            member,
            address,
            streams: at(&streams),
            machine: Arc::new(machine),
            proxy: None,
            orders: at(&orders),
            direct: at(&direct),
            told: Arc::default(),
        };
        let listeners = Listeners {
            outgoing: vec![vec![orders, direct]],
            streams: vec![vec![streams]],
        };
        (host, listeners)
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let hosts = self.hosts.iter();
        hosts
            .enumerate()
            .map(|(place, host)| self.snapshot(host, place > 0))
            .collect()
    }

    fn snapshot(&self, me: &Host, is_destination: bool) -> Snapshot {
        let mut entries: Vec<CatalogueHost> = Vec::new();
        for host in &self.hosts {
            let mut entry = self.fleet.entry(&host.member, vec![host.streams]);
            entry.addresses = addresses(host.address);
            entries.push(entry);
        }
        let service = self.service();
        let mut catalogue: Catalogue = self.fleet.catalogue(&me.member, entries);
        catalogue.services = BTreeMap::from([(
            service.name.clone(),
            CatalogueService {
                addresses: service.addresses.unwrap(),
                endpoints: self.endpoints(),
                service: service.clone(),
            },
        )]);
        let allow = match &self.plan.allow_there {
            Some(there) if is_destination => there,
            _ => &self.plan.allow,
        };
        let bundle = Bundle {
            services: vec![service],
            workloads: self.plan.workloads.clone(),
            allow: allow.clone(),
            deny: self.plan.deny.clone(),
            ..Bundle::default()
        };
        let records: Vec<HostRecord> = self.hosts.iter().map(record).collect();
        let others: Vec<&HostRecord> = records
            .iter()
            .filter(|record| record.host != me.member.host)
            .collect();
        let version = PolicyVersion::default();
        Snapshot {
            catalogue: Arc::new(catalogue),
            gate: Arc::new(Gate::compile(&record(me), &others, &bundle, version)),
            identity: Some(self.fleet.identity(&me.member)),
        }
    }

    fn service(&self) -> Service {
        let endpoints = self.endpoint_hosts().map(|host| Selector::Host {
            name: host.member.name.clone(),
            id: Some(host.member.host),
        });
        Service {
            name: name(ORDERS),
            port: self.port,
            protocol: self.plan.protocol,
            endpoints: endpoints.collect(),
            workloads: Vec::new(),
            addresses: Some(addresses(VIRTUAL)),
            settings: self.plan.settings.clone(),
            source: Source::default(),
        }
    }

    fn endpoint_hosts(&self) -> impl Iterator<Item = &Host> {
        let callers = usize::from(self.hosts.len() > 1);
        let endpoints = self.hosts.iter().skip(callers);
        endpoints.filter(|_| self.plan.has_endpoints)
    }

    fn endpoints(&self) -> Vec<HostId> {
        self.endpoint_hosts().map(|host| host.member.host).collect()
    }

    /// Puts other rules in force on all hosts.
    pub(crate) fn apply(&mut self, allow: Vec<Rule>) {
        self.plan.allow = allow;
        self.plan.allow_there = None;
        self.replace();
    }

    /// Puts other rules in force on one host.
    pub(crate) fn apply_at(&mut self, place: usize, allow: Vec<Rule>) {
        self.plan.allow = allow;
        self.plan.allow_there = None;
        let host = &self.hosts[place];
        let snapshot = self.snapshot(host, place > 0);
        host.snapshots.replace(snapshot);
    }

    /// Puts other rules in force, by which the caller knows nothing of the service any more.
    pub(crate) fn forget_service(&mut self, allow: Vec<Rule>) {
        self.apply(allow);
        let host = &self.hosts[0];
        let mut snapshot = self.snapshot(host, false);
        let catalogue = Arc::make_mut(&mut snapshot.catalogue);
        catalogue.services.clear();
        host.snapshots.replace(snapshot);
    }

    /// Puts other denies in force on all hosts.
    pub(crate) fn deny(&mut self, deny: Vec<Rule>) {
        self.plan.deny = deny;
        self.replace();
    }

    fn replace(&self) {
        for (host, snapshot) in self.hosts.iter().zip(self.snapshots()) {
            host.snapshots.replace(snapshot);
        }
    }

    /// Connects one host to another, as whoever has taken over the first could: both believe each other,
    /// and nothing was said yet.
    pub(crate) async fn session(&self, from: usize, to: usize) -> TlsStream<TcpStream> {
        let at = self.hosts[to].streams;
        self.session_to(from, at).await.unwrap()
    }

    /// As `session`, to an address where perhaps nobody believes it.
    pub(crate) async fn session_to(
        &self,
        from: usize,
        at: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let identity = self.fleet.identity(&self.hosts[from].member);
        let config = stream_client(
            identity.roots.clone(),
            identity.fleet_name.clone(),
            &identity.chain,
            identity.private_key.expose(),
        );
        let name = ServerName::try_from("mesh").unwrap();
        let stream = TcpStream::connect(at).await?;
        let connector = TlsConnector::from(config.unwrap());
        connector.connect(name, stream).await
    }

    /// Names a host by its place: 0 is the caller.
    pub(crate) fn host_id(&self, place: usize) -> HostId {
        self.hosts[place].member.host
    }

    /// The host that calls.
    pub(crate) fn caller(&self) -> &Host {
        &self.hosts[0]
    }

    /// Listens where the program of a host is expected: 0 is the caller.
    pub(crate) fn app_listener(&self, place: usize) -> tokio::net::TcpListener {
        let at = SocketAddr::new(self.hosts[place].address.into(), self.port);
        let listener = StdListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        tokio::net::TcpListener::from_std(listener).unwrap()
    }
}

impl Host {
    /// Connects to the service as a program of this host does.
    pub(crate) async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.orders).await.unwrap()
    }
}

/// A rule about calls of the service, or some of its requests.
pub(crate) fn rule(id: &str, from: Selector, http: &[HttpMatch]) -> Rule {
    Rule {
        id: id.parse().unwrap(),
        from: vec![from],
        to: vec![Selector::Service(name(ORDERS))],
        traffic: Traffic::Service,
        http: http.to_vec(),
        when: None,
        source: Source::default(),
    }
}

/// Requests by method and path.
pub(crate) fn requests(method: &str, path: &str) -> HttpMatch {
    HttpMatch {
        methods: vec![method.parse().unwrap()],
        path: path.parse().unwrap(),
        host: None,
        headers: Vec::new(),
    }
}

/// A workload by its unit, on any host.
pub(crate) fn workload(workload: &str, unit: &str) -> Workload {
    Workload {
        name: name(workload),
        unit: Some(unit.parse().unwrap()),
        user: None,
        hosts: vec![Selector::Any],
        source: Source::default(),
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Limits that are reached soon.
pub(crate) fn impatient() -> ProxyLimits {
    ProxyLimits {
        head_wait: Duration::from_millis(300),
        body_wait: Duration::from_millis(500),
        ..ProxyLimits::default()
    }
}

fn record(host: &Host) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([1; 16]),
        host: host.member.host,
        name: host.member.name.clone(),
        labels: Labels::default(),
        wireguard_key: WireguardKey::from_bytes([host.address.octets()[3]; 32]),
        tls_key_hash: host.member.key.public_key_hash(),
        addresses: addresses(host.address),
        offers_aes_256_gcm: true,
        revision: Revision::default(),
    }
}

fn overlay(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

fn addresses(v4: Ipv4Addr) -> HostAddresses {
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, v4.octets()[3].into());
    HostAddresses { v4, v6 }
}

fn listener() -> StdListener {
    StdListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).unwrap()
}

/// A port that is free at every host's address, and at loopback's own.
fn free_port(hosts: u8) -> u16 {
    let all = |port: u16| {
        let addresses = (1..=hosts).map(overlay).chain([Ipv4Addr::LOCALHOST]);
        addresses
            .map(|at| StdListener::bind((at, port)))
            .collect::<io::Result<Vec<_>>>()
    };
    loop {
        let port = listener().local_addr().unwrap().port();
        if all(port).is_ok() {
            return port;
        }
    }
}
