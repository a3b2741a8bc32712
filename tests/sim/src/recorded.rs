//! Conversations of versions that were: what a host had on its disk, what its coordinator had
//! stored, and what the two said then, as bytes. Hosts and coordinators of this version have to take
//! up both, and to understand the other end as it spoke then.
//!
//! `recorded/VERSION` holds one recording a version, in lines of a word and its values. The first
//! test of a new version makes it; it is never changed after: when it is not understood any more, old
//! hosts are not.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use agent::{Agent, AgentConfig, ChannelEvent, Output, StoredFiles};
use fleet::{Output as FleetOutput, SessionPeer};
use model::catalogue::STREAM_PORT;
use model::control::{FromHost, ToHost};
use model::identity::SpiffeId;
use model::store::{Key, KeyValue, StoreRevision};
use model::time::{Instant, Now};
use model::wire;

use crate::control::Way;
use crate::coordinator::{Coordinator, fleet_name};
use crate::dice::Dice;
use crate::event::HostIndex;
use crate::host::{LISTEN_PORT, unix_time};
use crate::operator::Errand;
use crate::reference::KnownMap;
use crate::scenario::Scenario;
use crate::store::CoordinatorStore;
use crate::world::{Phase, Tap, World};

/// The seed of the world that is recorded, and of the authority's keys in it.
const SEED: u64 = 1;

/// What one version left behind.
#[derive(Default)]
struct Recording {
    /// How long the world had gone when the conversation began.
    secs: u64,
    /// The machine that the host ran on.
    machine: String,
    files: StoredFiles,
    root: Vec<u8>,
    store: Vec<KeyValue>,
    store_revision: StoreRevision,
    said: Vec<(Way, Vec<u8>)>,
}

impl Recording {
    fn write(&self) -> String {
        let mut text = format!("secs {}\nmachine {}\n", self.secs, self.machine);
        let mut line = |words: &[&str]| writeln!(text, "{}", words.join(" "));
        let mut add = |word: &str, bytes: &[u8]| line(&[word, &hex(bytes)]).expect("a string");
        add("root", &self.root);
        let StoredFiles {
            identity,
            map,
            high_water,
            ..
        } = &self.files;
        for (word, file) in [
            ("identity", identity),
            ("map", map),
            ("high-water", high_water),
        ] {
            add(word, file.as_deref().expect("a member has every file"));
        }
        for (way, bytes) in &self.said {
            add(if *way == Way::Up { "up" } else { "down" }, bytes);
        }
        writeln!(text, "store-revision {}", self.store_revision.0).expect("a string");
        for stored in &self.store {
            let (created, changed) = (stored.create_revision.0, stored.mod_revision.0);
            let value = hex(&stored.value);
            writeln!(text, "store {} {created} {changed} {value}", stored.key).expect("a string");
        }
        text
    }

    fn read(text: &str) -> Self {
        let mut recording = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |position: usize| words[position].parse().expect("a number");
            let bytes = || unhex(words[words.len() - 1]);
            match words[0] {
                "secs" => recording.secs = number(1),
                "machine" => recording.machine = words[1].to_owned(),
                "root" => recording.root = bytes(),
                "identity" => recording.files.identity = Some(bytes()),
                "map" => recording.files.map = Some(bytes()),
                "high-water" => recording.files.high_water = Some(bytes()),
                "up" => recording.said.push((Way::Up, bytes())),
                "down" => recording.said.push((Way::Down, bytes())),
                "store-revision" => recording.store_revision = StoreRevision(number(1)),
                "store" => recording.store.push(KeyValue {
                    key: Key::new(words[1]).expect("a key"),
                    create_revision: StoreRevision(number(2)),
                    mod_revision: StoreRevision(number(3)),
                    value: bytes(),
                }),
                other => panic!("no word of a recording: {other}"),
            }
        }
        recording
    }

    fn began(&self) -> Instant {
        Instant::from_start(Duration::from_secs(self.secs))
    }

    fn now(&self) -> Now {
        Now {
            monotonic: Instant::START,
            unix: unix_time(self.began()),
        }
    }

    fn said(&self, way: Way) -> impl Iterator<Item = &[u8]> {
        let said = self.said.iter().filter(move |(it, _)| *it == way);
        said.map(|(_, bytes)| bytes.as_slice())
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

/// Every recording, with the version that it is of.
fn recordings() -> Vec<(String, Recording)> {
    let entries = fs::read_dir(directory()).expect("there are recordings");
    let mut recordings: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("the directory can be read");
            let text = fs::read_to_string(entry.path()).expect("a recording can be read");
            let version = entry.file_name().to_string_lossy().into_owned();
            (version, Recording::read(&text))
        })
        .collect();
    recordings.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!recordings.is_empty());
    recordings
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(pair).collect()
}

/// A host starts from the disk of then, and believes what the coordinator of then says.
fn hosts_take_up(version: &str, recording: &Recording) {
    let now = recording.now();
    let config = AgentConfig {
        software_version: "sim".to_owned(),
        machine_id: recording.machine.clone(),
        listen_port: LISTEN_PORT,
        stream_port: STREAM_PORT,
        configured_endpoints: Vec::new(),
        interface: "mesh0".to_owned(),
        mtu: 1420,
        offers_aes_256_gcm: false,
        rotate_key_every: None,
    };
    let agent = Agent::new(config, recording.files.clone(), [1; 32], now);
    let mut agent = agent.unwrap_or_else(|error| panic!("{version}: {error}"));
    let mut said = listen(version, &mut agent, now);
    let before = revision(&agent, now);
    assert!(before.is_some(), "{version}: nothing is in force");
    agent.handle_channel(ChannelEvent::Opened, now);
    for bytes in recording.said(Way::Down) {
        let message =
            wire::decode_to_host(bytes).unwrap_or_else(|error| panic!("{version}: {error}"));
        agent.handle_channel(ChannelEvent::Message(message), now);
        said.extend(listen(version, &mut agent, now));
    }
    let refused = said.iter().find_map(|message| match message {
        FromHost::Applied(applied) => applied.error.clone(),
        _ => None,
    });
    assert_eq!(refused, None, "{version}");
    assert!(revision(&agent, now) > before, "{version}: nothing new");
}

fn revision(agent: &Agent, now: Now) -> Option<model::ids::Revision> {
    agent.status(now).detail?.revision
}

/// Does what the agent wants done, and returns what it says.
fn listen(version: &str, agent: &mut Agent, now: Now) -> Vec<FromHost> {
    let mut said = Vec::new();
    while let Some(output) = agent.poll_output() {
        match output {
            Output::Persist { id, .. } | Output::Erase { id } => {
                agent.handle_persisted(id, Ok(()), now);
            }
            Output::Send(message) => said.push(message),
            Output::CloseChannel => panic!("{version}: the coordinator is not believed"),
            _ => {}
        }
    }
    said
}

/// A coordinator starts from the store of then, and understands what the host of then says.
fn coordinators_take_up(version: &str, recording: &Recording) {
    let mut coordinator = Coordinator::new(&mut Dice::new(SEED, "keys"), Instant::START);
    coordinator.keys[0].root_certificate = recording.root.clone();
    let store = (recording.store.clone(), recording.store_revision);
    coordinator.store = CoordinatorStore::from_listing(store.0, store.1);
    let started = coordinator.start(&mut Dice::new(SEED, "fate"), recording.began());
    started.unwrap_or_else(|error| panic!("{version}: {error}"));
    let (now, session) = (
        coordinator.now(recording.began()),
        coordinator.new_session(),
    );
    let fleet = &mut coordinator.running.as_mut().expect("it started").fleet;
    fleet.handle_session_opened(session, peer(recording), None, now);
    for bytes in recording.said(Way::Up) {
        let message =
            wire::decode_from_host(bytes).unwrap_or_else(|error| panic!("{version}: {error}"));
        fleet.handle_session_message(session, message, now);
    }
    let answers: Vec<FleetOutput> = std::iter::from_fn(|| fleet.poll_output()).collect();
    let has = |is_it: fn(&ToHost) -> bool| {
        let is_sent = |output: &FleetOutput| matches!(output, FleetOutput::Send { message, .. } if is_it(message));
        answers.iter().any(is_sent)
    };
    assert!(
        has(|it| matches!(it, ToHost::Welcome(_))),
        "{version}: {answers:?}"
    );
    assert!(
        has(|it| matches!(it, ToHost::Pong(_))),
        "{version}: {answers:?}"
    );
    assert!(
        !has(|it| matches!(it, ToHost::Goodbye(_))),
        "{version}: {answers:?}"
    );
}

/// What the host's certificate proves.
fn peer(recording: &Recording) -> SessionPeer {
    let map = recording.files.map.as_deref().expect("it is recorded");
    let me = KnownMap::read(map).expect("it can be read").me;
    SessionPeer {
        identity: SpiffeId::Host {
            fleet: fleet_name(),
            host: me.name,
        },
        tls_key_hash: me.tls_key_hash,
        not_before: recording.now().unix,
        not_after: recording.now().unix + Duration::from_secs(86_400),
    }
}

/// Runs a world until all is well, restarts one host, and writes down what is said from then on.
fn record() -> Recording {
    let scenario = Scenario {
        hosts: 6,
        natted_per_mille: 0,
        newer_per_mille: 0,
        ..Scenario::quiet()
    };
    let mut world = World::new(scenario, SEED);
    while !matches!(world.phase, Phase::Probing { .. }) {
        assert!(world.step(), "{:?}", world.violation);
    }
    let member = world.hosts.iter().find(|host| host.identity().is_some());
    let index: HostIndex = member.expect("some are members").index;
    world.crash_host(index, false);
    let (store, store_revision) = world.coordinator.store.listing();
    let mut recording = Recording {
        secs: world.now.since_start().as_secs(),
        machine: world.host(index).machine_id(),
        files: world.host(index).disk.stored(),
        root: world.coordinator.roots[0].clone(),
        store,
        store_revision,
        said: Vec::new(),
    };
    world.phase = Phase::Alone { since: world.now };
    world.tapped = Some(Tap {
        host: index,
        said: Vec::new(),
    });
    world.start_host(index);
    let steps = [Errand::Relabel(index), Errand::Apply];
    for errand in steps.into_iter().map(Some).chain([None]) {
        let until = world.now + Duration::from_secs(40);
        while world.now < until {
            assert!(world.step(), "{:?}", world.violation);
        }
        if let Some(errand) = errand {
            world.run_errand(errand);
        }
    }
    recording.said = world.tapped.take().expect("it was set").said;
    recording
}

#[test]
fn hosts_understand_every_version_that_was() {
    for (version, recording) in recordings() {
        hosts_take_up(&version, &recording);
    }
}

#[test]
fn coordinators_understand_every_version_that_was() {
    for (version, recording) in recordings() {
        coordinators_take_up(&version, &recording);
    }
}

#[test]
fn this_version_understands_itself() {
    let recording = Recording::read(&record().write());
    hosts_take_up("this version", &recording);
    coordinators_take_up("this version", &recording);
}

#[test]
fn this_version_is_recorded() {
    let path = directory().join(env!("CARGO_PKG_VERSION"));
    if !path.exists() {
        fs::write(&path, record().write()).expect("it can be written");
        panic!("{} was not there: commit it", path.display());
    }
}
