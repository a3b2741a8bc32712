//! What the coordinators of versions that were have stored, as bytes: a coordinator of this version
//! starts from it, and knows what they knew.
//!
//! `recorded/VERSION` has the keys of a fleet, every value of its store, and what operators were
//! shown. The first test of a new version makes it; it is never changed after.

#![allow(
    clippy::disallowed_methods,
    reason = "recordings lie in files, and the brain itself sees none"
)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::HEXLOWER;
use fleet::{AdminRequest, Reply, verify};
use model::admin::{AuditQuery, CreateAdmin, CreateToken, Role};
use model::control::{Applied, FromHost};
use model::ids::PolicyVersion;
use model::key::Secret;
use model::store::{Key, KeyValue, StoreRevision};
use model::time::UnixTime;
use serde_json::{Value, json};
use trust::{Authority, AuthorityKeys, AuthoritySeeds};

use crate::toy_store::ToyStore;
use crate::world::{World, hour_token, labels, name};

/// What one version left behind.
struct Recording {
    at_secs: u64,
    keys: Vec<AuthorityKeys>,
    store: ToyStore,
    /// What operators were shown.
    shown: Value,
}

impl Recording {
    fn of(world: &mut World) -> Self {
        Self {
            at_secs: world.now.unix.as_secs(),
            keys: world.keys.clone(),
            store: world.store.clone(),
            shown: shown(world),
        }
    }

    fn write(&self) -> String {
        let mut text = format!("at {} {}\n", self.at_secs, self.store.revision.0);
        let hex = |secret: &Secret| HEXLOWER.encode(secret.expose());
        for AuthorityKeys {
            seeds,
            root_certificate,
        } in &self.keys
        {
            let (root, records) = (hex(&seeds.root), hex(&seeds.records));
            let (enrolment, certificate) =
                (hex(&seeds.enrolment), HEXLOWER.encode(root_certificate));
            writeln!(text, "keys {root} {records} {enrolment} {certificate}").unwrap();
        }
        writeln!(text, "shown {}", self.shown).unwrap();
        for stored in self.store.keys.values() {
            let (created, changed) = (stored.create_revision.0, stored.mod_revision.0);
            let value = std::str::from_utf8(&stored.value).unwrap();
            writeln!(text, "store {} {created} {changed} {value}", stored.key).unwrap();
        }
        text
    }

    fn read(text: &str) -> Self {
        let mut recording = Self {
            at_secs: 0,
            keys: Vec::new(),
            store: ToyStore::default(),
            shown: Value::Null,
        };
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap();
            let words: Vec<&str> = rest.splitn(4, ' ').collect();
            let number = |position: usize| words[position].parse::<u64>().unwrap();
            let bytes = |position: usize| HEXLOWER.decode(words[position].as_bytes()).unwrap();
            let secret = |position| Secret::from_bytes(bytes(position).try_into().unwrap());
            match word {
                "at" => {
                    recording.at_secs = number(0);
                    recording.store.revision = StoreRevision(number(1));
                }
                "keys" => recording.keys.push(AuthorityKeys {
                    seeds: AuthoritySeeds {
                        root: secret(0),
                        records: secret(1),
                        enrolment: secret(2),
                    },
                    root_certificate: bytes(3),
                }),
                "shown" => recording.shown = serde_json::from_str(rest).unwrap(),
                "store" => {
                    let stored = KeyValue {
                        key: Key::new(words[0]).unwrap(),
                        create_revision: StoreRevision(number(1)),
                        mod_revision: StoreRevision(number(2)),
                        value: words[3].as_bytes().to_vec(),
                    };
                    recording.store.keys.insert(stored.key.clone(), stored);
                }
                other => panic!("no word of a recording: {other}"),
            }
        }
        recording
    }

    /// A coordinator of this version on that store.
    fn start(self) -> World {
        let mut world = World::new();
        world.now.unix = UnixTime::from_secs(self.at_secs);
        (world.store, world.keys) = (self.store, self.keys);
        world.crash();
        world
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

/// Every recording, with the version that it is of.
fn recordings() -> BTreeMap<String, Recording> {
    let entries = fs::read_dir(directory()).expect("there are recordings");
    let recordings = entries.map(|entry| {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        let version = entry.file_name().to_string_lossy().into_owned();
        (version, Recording::read(&text))
    });
    recordings.collect()
}

/// What operators are shown that is stored.
fn shown(world: &mut World) -> Value {
    let mut shown = serde_json::Map::new();
    let questions = [
        ("status", AdminRequest::Status),
        ("hosts", AdminRequest::ListHosts),
        ("removed", AdminRequest::ListRemoved),
        ("tokens", AdminRequest::ListTokens),
        ("admins", AdminRequest::ListAdmins),
        ("versions", AdminRequest::ListPolicyVersions),
        ("policy", AdminRequest::ShowPolicy(None)),
        ("authority", AdminRequest::ShowAuthority),
        ("recovery", AdminRequest::ShowRecovery),
        ("audit", AdminRequest::ListAudit(AuditQuery::default())),
    ];
    for (what, question) in questions {
        let value = match world.admin(question).unwrap() {
            Reply::Status(it) => json!(it),
            Reply::Hosts(it) => json!(it),
            Reply::RemovedHosts(it) => json!(it),
            Reply::Tokens(it) => json!(it),
            Reply::Admins(it) => json!(it),
            Reply::PolicyVersions(it) => json!(it),
            Reply::Policy(it) => json!(it),
            Reply::Authority(it) => json!(it),
            Reply::Recovery(it) => json!(it),
            Reply::Audit(it) => json!(it),
            other => panic!("{other:?}"),
        };
        shown.insert(what.to_owned(), value);
    }
    Value::Object(shown)
}

/// Whether everything that was shown is shown still; what is new beside it is not looked at.
fn keeps(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(key, value)| {
            let again = after.get(key);
            again.map_or(value.is_null(), |again| keeps(value, again))
        }),
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len() && before.iter().zip(after).all(|(a, b)| keeps(a, b))
        }
        (before, after) => before == after,
    }
}

/// A fleet in whose store there is something of every kind.
fn everything_happens() -> World {
    let mut world = World::new();
    for (host, seed) in [("alpha", 1), ("beta", 2), ("gamma", 3)] {
        world.join(host, seed);
    }
    let mark = fleet::restored("an exercise", world.now);
    world.store.transact(&mark).unwrap();
    world.crash();
    let finish = AdminRequest::FinishRecovery { force: true };
    world.admin(finish).unwrap();
    let (delta, _) = world.join("delta", 4);
    world.set_labels("alpha", &[("role", "web"), ("site", "a")]);
    let orders = [
        AdminRequest::RenameHost {
            host: name("beta"),
            name: name("beta-2"),
        },
        AdminRequest::RemoveHost(name("gamma")),
        AdminRequest::CreateAdmin(CreateAdmin {
            name: name("eve"),
            role: Role::PolicyEditor,
            valid_for_secs: Some(3600),
        }),
        AdminRequest::CreateToken(CreateToken {
            labels: labels(&[("role", "db")]),
            uses: Some(3),
            names: vec!["db-*".to_owned()],
            comment: "for the new rack".to_owned(),
            ..hour_token()
        }),
    ];
    for order in orders {
        world.admin(order).unwrap();
    }
    let revoked = world.token(None).id;
    world.admin(AdminRequest::RevokeToken(revoked)).unwrap();
    world
        .apply_policy(
            "fleet: prod\nservices:\n  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }\n\
             allow:\n  - { id: app-db, from: role=web, to: db }\n\
             deny:\n  - { id: no-beta, from: beta-2, to: any }\n",
        )
        .unwrap();
    world.join("omega", 5);
    world
        .admin(AdminRequest::RevokeHost(name("omega")))
        .unwrap();
    world.rotate();
    let session = world.open(&delta, "delta");
    world.hello(session, None);
    let applied = Applied {
        trust: Some(world.held()),
        revision: world.status().revision,
        policy: PolicyVersion(3),
        error: None,
        trouble: None,
    };
    world.say(session, FromHost::Applied(applied));
    for _ in 0..40 {
        world.advance(Duration::from_millis(500));
        world.settle();
        world.say(session, FromHost::Ping(1));
    }
    world.crash();
    world
}

#[test]
fn stores_of_every_version_that_was_are_taken_up() {
    for (version, recording) in recordings() {
        let pins = Authority::load_all(recording.keys.clone()).unwrap();
        let (pins, listing) = (pins.root_pins(), recording.store.listing());
        let verified = verify(&pins, &listing, recording.store.revision);
        verified.unwrap_or_else(|error| panic!("{version}: {error}"));
        let before = recording.shown.clone();
        let after = shown(&mut recording.start());
        assert!(keeps(&before, &after), "{version}: {before}\n{after}");
    }
}

#[test]
fn what_a_later_version_adds_to_what_is_stored_is_passed_over() {
    for (version, mut recording) in recordings() {
        for stored in recording.store.keys.values_mut() {
            let mut value: Value = serde_json::from_slice(&stored.value).unwrap();
            if let Some(object) = value["d"].as_object_mut() {
                object.insert("said_by_a_later_version".to_owned(), json!([1, 2]));
            }
            stored.value = value.to_string().into_bytes();
        }
        let before = recording.shown.clone();
        let after = shown(&mut recording.start());
        assert!(keeps(&before, &after), "{version}: {before}\n{after}");
    }
}

#[test]
fn the_recording_holds_every_kind_of_thing_that_is_stored() {
    let recording = Recording::read(&Recording::of(&mut everything_happens()).write());
    let listing = recording.store.listing();
    for kind in [
        "meta/fleet",
        "meta/epoch",
        "statements/",
        "believers/",
        "hosts/",
        "names/",
        "wireguard-keys/",
        "tls-keys/",
        "addresses/",
        "tombstones/",
        "tokens/",
        "uses/",
        "policy/current",
        "policy/versions/",
        "admins/",
        "audit/entries/",
        "audit/tip/",
    ] {
        let mut keys = listing.iter().map(|it| it.key.to_string());
        assert!(keys.any(|key| key.starts_with(kind)), "{kind}");
    }
    let before = recording.shown.clone();
    assert_eq!(before, shown(&mut recording.start()));
}

#[test]
fn this_version_is_recorded() {
    let path = directory().join(env!("CARGO_PKG_VERSION"));
    if !path.exists() {
        fs::create_dir_all(directory()).unwrap();
        let recording = Recording::of(&mut everything_happens());
        fs::write(&path, recording.write()).unwrap();
        panic!("{} was not there: commit it", path.display());
    }
}
