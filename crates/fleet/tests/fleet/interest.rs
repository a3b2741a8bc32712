//! Who is told what: a host learns of those that a rule connects it with, of all of them, and of
//! nobody else, whatever happens in whatever order; what does not concern it costs it no byte.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet::SessionId;
use model::admin::CreateToken;
use model::control::{EndpointReport, FromHost, ToHost};
use model::ids::{HostId, Revision};
use model::map::{Endpoint, EndpointKind, MapDelta};
use model::record::HostRecord;
use model::wire::encode_to_host;
use proptest::prelude::*;

use crate::machine::Machine;
use crate::model_host::ModelHost;
use crate::world::{World, hour_token, labels};

const HOSTS: u8 = 6;
const ROLES: [&str; 3] = ["web", "db", "batch"];

/// What a rule or a service selects here: a role, everybody, or the endpoints of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Role(usize),
    Any,
    Service,
}

impl Ends {
    fn text(self) -> String {
        match self {
            Self::Role(role) => format!("\"role={}\"", ROLES[role]),
            Self::Any => "any".into(),
            Self::Service => "vault".into(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Policy {
    /// The role of the service's endpoints.
    service: usize,
    allows: Vec<(Ends, Ends)>,
    denies: Vec<(Ends, Ends)>,
}

impl Policy {
    fn yaml(&self) -> String {
        let endpoints = Ends::Role(self.service).text();
        let mut text = format!(
            "fleet: prod\nservices:\n  vault: {{ port: 8200, protocol: tcp, endpoints: [{endpoints}] }}\n"
        );
        for (section, rules) in [("allow", &self.allows), ("deny", &self.denies)] {
            if rules.is_empty() {
                continue;
            }
            text.push_str(&format!("{section}:\n"));
            for (number, (from, to)) in rules.iter().enumerate() {
                let traffic = match to {
                    Ends::Service => "",
                    _ => ", tcp: [22]",
                };
                let (from, to) = (from.text(), to.text());
                let id = format!("{section}-{number}");
                text.push_str(&format!(
                    "  - {{ id: {id}, from: {from}, to: {to}{traffic} }}\n"
                ));
            }
        }
        text
    }

    /// Whether some allow goes from one role to the other or back.
    fn connects(&self, one: usize, other: usize) -> bool {
        let is_in = |ends: Ends, role: usize| match ends {
            Ends::Role(wanted) => wanted == role,
            Ends::Any => true,
            Ends::Service => self.service == role,
        };
        let goes = |a, b| {
            self.allows
                .iter()
                .any(|&(from, to)| is_in(from, a) && is_in(to, b))
        };
        goes(one, other) || goes(other, one)
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    let ends = || {
        prop_oneof![
            8 => (0..ROLES.len()).prop_map(Ends::Role),
            1 => Just(Ends::Any),
            2 => Just(Ends::Service),
        ]
    };
    let rules = |max| prop::collection::vec((ends(), ends()), 0..max);
    (0..ROLES.len(), rules(3), rules(2)).prop_map(|(service, allows, denies)| Policy {
        service,
        allows,
        denies,
    })
}

#[derive(Clone, Debug)]
enum Step {
    Join(u8, usize),
    Remove(u8),
    Label(u8, usize),
    Report(u8, u16),
    Policy(Policy),
    Wait,
    /// A stream breaks; what was under way is lost.
    GoAway(u8),
    ComeBack(u8),
    Crash,
    /// The watch of the store is interrupted for one change.
    MissChange(u8, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 0..HOSTS;
    let role = || 0..ROLES.len();
    prop_oneof![
        4 => (host(), role()).prop_map(|(host, role)| Step::Join(host, role)),
        2 => host().prop_map(Step::Remove),
        4 => (host(), role()).prop_map(|(host, role)| Step::Label(host, role)),
        3 => (host(), 1..5u16).prop_map(|(host, port)| Step::Report(host, port)),
        2 => policy().prop_map(Step::Policy),
        4 => Just(Step::Wait),
        2 => host().prop_map(Step::GoAway),
        3 => host().prop_map(Step::ComeBack),
        1 => Just(Step::Crash),
        1 => (host(), role()).prop_map(|(host, role)| Step::MissChange(host, role)),
    ]
}

struct Member {
    machine: Machine,
    record: HostRecord,
    role: usize,
    session: Option<SessionId>,
    knows: ModelHost,
    /// All that it was ever sent.
    received: Vec<u8>,
    /// All that a rule ever connected it with, by their names.
    met: BTreeSet<String>,
}

struct Run {
    world: World,
    policy: Policy,
    members: BTreeMap<u8, Member>,
    /// Everybody who ever was a member.
    records: Vec<HostRecord>,
    machines: u16,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        let policy = Policy {
            allows: vec![(Ends::Role(0), Ends::Role(1))],
            ..Policy::default()
        };
        world.apply_policy(&policy.yaml()).unwrap();
        Self {
            world,
            policy,
            members: BTreeMap::new(),
            records: Vec::new(),
            machines: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Join(host, role) if !self.members.contains_key(host) => self.join(*host, *role),
            Step::Remove(host) if self.members.contains_key(host) => {
                let gone = self.members.remove(host).unwrap();
                self.world.remove_host(gone.record.name.as_str());
            }
            Step::Label(host, role) => self.label(*host, *role),
            Step::Report(host, port) => self.report(*host, *port),
            Step::Policy(policy) => {
                self.world.apply_policy(&policy.yaml()).unwrap();
                self.policy = policy.clone();
            }
            Step::Wait => self.world.advance(Duration::from_millis(200)),
            Step::GoAway(host) => self.go_away(*host),
            Step::ComeBack(host) => self.come_back(*host),
            Step::Crash => {
                self.receive();
                self.world.crash();
                let online: Vec<u8> = self.online().collect();
                for host in online {
                    self.members.get_mut(&host).unwrap().session = None;
                    self.come_back(host);
                }
            }
            Step::MissChange(host, role) => self.miss_change(*host, *role),
            Step::Join(..) | Step::Remove(_) => {}
        }
        self.note_meetings();
        self.receive();
    }

    fn online(&self) -> impl Iterator<Item = u8> {
        let online = self.members.iter().filter(|(_, it)| it.session.is_some());
        online.map(|(host, _)| *host)
    }

    fn join(&mut self, host: u8, role: usize) {
        self.machines += 1;
        let machine = Machine::new(self.machines);
        let token = self.world.token_with(CreateToken {
            labels: labels(&[("role", ROLES[role])]),
            ..hour_token()
        });
        let called = format!("machine-{}-of-{host}", self.machines);
        let request = machine.request(&self.world, &token, &called);
        let enrolled = self.world.enrol(request).unwrap();
        let record = self.world.record(&enrolled);
        self.records.push(record.clone());
        let member = Member {
            machine,
            record,
            role,
            session: None,
            knows: ModelHost::default(),
            received: Vec::new(),
            met: BTreeSet::new(),
        };
        self.members.insert(host, member);
        self.note_meetings();
        self.come_back(host);
    }

    fn label(&mut self, host: u8, role: usize) {
        if let Some(member) = self.members.get_mut(&host) {
            member.role = role;
            let called = member.record.name.to_string();
            self.world.set_labels(&called, &[("role", ROLES[role])]);
        }
    }

    fn report(&mut self, host: u8, port: u16) {
        let Some(session) = self.members.get(&host).and_then(|it| it.session) else {
            return;
        };
        let address = format!("192.0.2.{}:{port}", host + 1).parse().unwrap();
        let endpoints = vec![Endpoint {
            address,
            kind: EndpointKind::Interface,
        }];
        let report = EndpointReport {
            endpoints,
            listen_port: 1,
            stream_port: None,
        };
        self.world.say(session, FromHost::Endpoints(report));
    }

    fn go_away(&mut self, host: u8) {
        let Some(member) = self.members.get_mut(&host) else {
            return;
        };
        if let Some(session) = member.session.take() {
            self.world.sent.remove(&session);
            self.world
                .fleet
                .handle_session_closed(session, self.world.now);
        }
    }

    fn come_back(&mut self, host: u8) {
        let Some(member) = self
            .members
            .get_mut(&host)
            .filter(|it| it.session.is_none())
        else {
            return;
        };
        let session = self
            .world
            .open(&member.machine, member.record.name.as_str());
        self.world.hello(session, member.knows.revision);
        member.session = Some(session);
    }

    /// Labels a host by another coordinator, whose change is found only in a listing.
    fn miss_change(&mut self, host: u8, role: usize) {
        let Some(member) = self.members.get_mut(&host) else {
            return;
        };
        member.role = role;
        let called = member.record.name.clone();
        let set = model::admin::SetLabels {
            labels: labels(&[("role", ROLES[role])]),
            base: None,
        };
        let other = fleet::AdminRequest::SetLabels { host: called, set };
        let mut elsewhere = self.world.load().unwrap();
        let request = self.world.next_request();
        elsewhere.handle_admin(request, crate::world::operator(), other, self.world.now);
        while let Some(output) = elsewhere.poll_output() {
            if let fleet::Output::Commit { transaction, .. } = output {
                self.world.store.transact(&transaction).unwrap();
            }
        }
        let (listing, revision) = (self.world.store.listing(), self.world.store.revision);
        self.world
            .fleet
            .handle_listing(listing, revision, self.world.now);
        self.world.drain();
    }

    /// Delivers what was sent.
    fn receive(&mut self) {
        for member in self.members.values_mut() {
            let Some(session) = member.session else {
                continue;
            };
            let messages = self.world.taken(session);
            for message in &messages {
                let bytes = encode_to_host(message);
                model::wire::decode_to_host(&bytes).unwrap();
                member.received.extend(bytes);
            }
            member.knows.apply_all(&self.world, &messages);
        }
    }

    fn connected(&self, one: &Member, other: &Member) -> bool {
        one.record.host != other.record.host && self.policy.connects(one.role, other.role)
    }

    fn note_meetings(&mut self) {
        let everybody: Vec<u8> = self.members.keys().copied().collect();
        for host in everybody {
            let me = &self.members[&host];
            let others = self
                .members
                .values()
                .filter(|other| self.connected(me, other));
            let met: Vec<String> = others.map(|other| other.record.name.to_string()).collect();
            self.members.get_mut(&host).unwrap().met.extend(met);
        }
    }

    /// Returns the bytes that each host has received.
    fn costs(&self) -> BTreeMap<u8, usize> {
        self.members
            .iter()
            .map(|(host, it)| (*host, it.received.len()))
            .collect()
    }

    /// Returns a host that changes, and whom rules connect it with now; `None`: the step is about
    /// more than a host.
    fn concerned_by(&self, step: &Step) -> Option<BTreeSet<u8>> {
        let (Step::Join(host, _)
        | Step::Remove(host)
        | Step::Label(host, _)
        | Step::Report(host, _)
        | Step::GoAway(host)
        | Step::ComeBack(host)
        | Step::MissChange(host, _)) = step
        else {
            return None;
        };
        let Some(changing) = self.members.get(host) else {
            return Some(BTreeSet::new());
        };
        let peers = self
            .members
            .iter()
            .filter(|(_, it)| self.connected(changing, it));
        Some(peers.map(|(peer, _)| *peer).chain([*host]).collect())
    }

    /// After everything was told, every host knows whom it must, as they are, and nobody else.
    fn check(&mut self) {
        self.rest();
        let online: Vec<u8> = self.online().collect();
        for host in online {
            self.check_knowledge(host);
            self.check_strangers(&self.members[&host]);
        }
    }

    /// Lets time pass until nobody has asked for too much lately.
    fn rest(&mut self) {
        for _ in 0..4 {
            self.world.advance(Duration::from_secs(10));
            for session in self.members.values().filter_map(|it| it.session) {
                self.world.say(session, FromHost::Ping(0));
            }
            self.receive();
        }
    }

    fn check_knowledge(&mut self, host: u8) {
        self.check_peers(host);
        let whole = self.whole_map(host);
        let mut anew = ModelHost::default();
        anew.apply(&self.world, &whole);
        self.check_peers(host);
        let me = &self.members[&host];
        assert_eq!(me.knows.record, anew.record);
        assert_eq!(me.knows.policy, anew.policy);
        for (id, peer) in &anew.peers {
            let known = &me.knows.peers[id];
            assert_eq!(known.record, peer.record);
            // A coordinator that was restarted has forgotten where hosts are.
            assert!(peer.endpoints.is_empty() || known.endpoints == peer.endpoints);
        }
    }

    fn check_peers(&self, host: u8) {
        let me = &self.members[&host];
        let expected: BTreeSet<HostId> = self
            .members
            .values()
            .filter(|other| self.connected(me, other))
            .map(|other| other.record.host)
            .collect();
        let known: BTreeSet<HostId> = me.knows.peers.keys().copied().collect();
        assert_eq!(known, expected, "what {} knows", me.record.name);
    }

    /// Returns what a host is told that knows nothing; then it comes back with what it had, and
    /// goes on with what it is told on that.
    fn whole_map(&mut self, host: u8) -> MapDelta {
        let (machine, called, have) = {
            let me = &self.members[&host];
            (
                me.machine.clone(),
                me.record.name.to_string(),
                me.knows.revision,
            )
        };
        let whole = self.hello(host, &machine, &called, None);
        let again = self.hello(host, &machine, &called, have);
        let knows = &mut self.members.get_mut(&host).unwrap().knows;
        again
            .iter()
            .for_each(|delta| knows.apply(&self.world, delta));
        let [whole] = &whole[..] else {
            panic!("{whole:?}")
        };
        assert_eq!(whole.base, None);
        whole.clone()
    }

    fn hello(
        &mut self,
        host: u8,
        machine: &Machine,
        called: &str,
        have: Option<Revision>,
    ) -> Vec<MapDelta> {
        let session = self.world.open(machine, called);
        self.world.hello(session, have);
        self.members.get_mut(&host).unwrap().session = Some(session);
        let messages = self.world.taken(session).into_iter();
        messages
            .filter_map(|message| match message {
                ToHost::Map(delta) => Some(delta),
                _ => None,
            })
            .collect()
    }

    /// No byte of those whom no rule ever connected a host with has reached it.
    fn check_strangers(&self, me: &Member) {
        for record in &self.records {
            let called = record.name.as_str();
            if called == me.record.name.as_str() || me.met.contains(called) {
                continue;
            }
            let marks = [
                called.as_bytes(),
                record.host.as_bytes(),
                record.wireguard_key.as_bytes(),
                &record.addresses.v6.octets(),
                record.tls_key_hash.as_bytes(),
            ];
            for mark in marks {
                let found = me.received.windows(mark.len()).any(|window| window == mark);
                assert!(!found, "{} learned of {called}", me.record.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn hosts_know_those_whom_rules_connect_them_with_and_nobody_else(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut run = Run::new();
        for step in &steps {
            let before = run.costs();
            let concerned = run.concerned_by(step);
            run.take(step);
            run.world.advance(Duration::from_millis(200));
            run.receive();
            if let Some(concerned) = concerned {
                let after = run.concerned_by(step).unwrap_or_default();
                for (host, bytes) in run.costs() {
                    let is_concerned = concerned.contains(&host) || after.contains(&host);
                    assert!(is_concerned || before.get(&host) == Some(&bytes), "{step:?}");
                }
            }
            run.check();
        }
    }

    #[test]
    fn changes_that_are_told_together_leave_hosts_with_the_same(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
        }
        run.check();
    }
}
