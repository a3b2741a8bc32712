//! What this version and those before it say to each other, and leave on the disks of hosts, as bytes:
//! the messages of the control channel, what hosts store, what a daemon leaves to its successor, and
//! the bodies of the admin API and the local API. All of it has to be read as what it was.
//!
//! `recorded/VERSION/TARGET` has a line for each seed of a target: its name and its bytes. A seed
//! without a line is written down by the test that misses it, which fails so that the line is
//! committed. A line is never changed: when it is not understood any more, programs of that version
//! are not. Older ones lie in `corpus`, as the seeds of their days.

#![allow(clippy::unwrap_used)] // the helpers of tests are tests

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use dataplane::Bequest;
use fuzz::{Seed, TARGETS, Target, corpus};
use model::admin::{
    AdminCredential, AdminView, ApplyPolicy, AuthorityView, CoordinatorStatus, CreateAdmin,
    CreateToken, FinishRecovery, HostView, PolicyContent, RecoveryStatus, RemovedHost,
    RetireAuthority, RollbackPolicy, Rollout, SetLabels, StartRecovery, TokenView, WhyReport,
    WhyRequest,
};
use model::local::{HostStatus, JoinRequest, LocalWhyRequest, PeerView, PingRequest};
use model::wire::{self, WireError, stored};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Targets whose inputs one version writes and another one reads.
const RECORDED: [&str; 3] = ["admin_json", "bequests", "control_messages"];

/// Seeds in `corpus` from before the first version, which nobody has to understand.
const OUTGROWN: [&str; 1] = ["why-report"];

/// A kind of bytes that one version writes and another reads.
struct Noun {
    /// Seeds are called so, or begin with this and a dash.
    name: &'static str,
    /// Reads it, and writes what was read.
    read: fn(&[u8]) -> Result<Vec<u8>, String>,
    later: Later,
}

/// What becomes of that which a later minor version adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Later {
    /// It is passed over.
    PassedOver,
    /// It is refused, since it means something that has to be carried out or enforced.
    Refused,
    /// A format of its own has a number of its own.
    Numbered,
}
use Later::{Numbered, PassedOver, Refused};

macro_rules! nouns {
    ($($name:literal, $later:ident: $read:expr;)*) => {
        &[$(Noun { name: $name, read: $read, later: $later },)*]
    };
}

const NOUNS: &[Noun] = nouns! {
    "signed", PassedOver: |it| message(it, wire::decode_signed, wire::encode_signed);
    "trust-statement", PassedOver: |it| message(it, wire::decode_trust_statement, wire::encode_trust_statement);
    "host-record", PassedOver: |it| message(it, wire::decode_host_record, wire::encode_host_record);
    "tombstone", PassedOver: |it| message(it, wire::decode_tombstone, wire::encode_tombstone);
    "bundle-head", PassedOver: |it| message(it, wire::decode_bundle_head, wire::encode_bundle_head);
    "leaf", Refused: |it| message(it, wire::decode_leaf, wire::encode_leaf);
    "description", PassedOver: |it| message(it, wire::decode_description, wire::encode_description);
    "enrol-request", PassedOver: |it| message(it, wire::decode_enrol_request, wire::encode_enrol_request);
    "enrolled", PassedOver: |it| message(it, wire::decode_enrolled, wire::encode_enrolled);
    "to-host", PassedOver: |it| message(it, wire::decode_to_host, wire::encode_to_host);
    "from-host", PassedOver: |it| message(it, wire::decode_from_host, wire::encode_from_host);
    "stored-map", PassedOver: |it| message(it, stored::decode_map, stored::encode_map);
    "stored-high-water", PassedOver: |it| message(it, stored::decode_high_water, stored::encode_high_water);
    "stored-identity", PassedOver: |it| message(it, stored::decode_identity, |identity| {
        stored::encode_identity(identity).expose().to_vec()
    });
    "nothing", Numbered: bequest;
    "two-peers", Numbered: bequest;
    "create-token", Refused: json::<CreateToken>;
    "set-labels", Refused: json::<SetLabels>;
    "apply-policy", Refused: json::<ApplyPolicy>;
    "rollback", Refused: json::<RollbackPolicy>;
    "why", Refused: json::<WhyRequest>;
    "create-admin", Refused: json::<CreateAdmin>;
    "retire-authority", Refused: json::<RetireAuthority>;
    "start-recovery", Refused: json::<StartRecovery>;
    "finish-recovery", Refused: json::<FinishRecovery>;
    "credential", Refused: json::<AdminCredential>;
    "join", Refused: json::<JoinRequest>;
    "ping", Refused: json::<PingRequest>;
    "local-why", Refused: json::<LocalWhyRequest>;
    "status", PassedOver: json::<CoordinatorStatus>;
    "hosts", PassedOver: json::<Vec<HostView>>;
    "tokens", PassedOver: json::<Vec<TokenView>>;
    "admins", PassedOver: json::<Vec<AdminView>>;
    "removed", PassedOver: json::<RemovedHost>;
    "recovery", PassedOver: json::<RecoveryStatus>;
    "authority", PassedOver: json::<AuthorityView>;
    "policy", PassedOver: json::<PolicyContent>;
    "rollout", PassedOver: json::<Rollout>;
    "why-report", PassedOver: json::<WhyReport>;
    "host-status", PassedOver: json::<HostStatus>;
    "peers", PassedOver: json::<Vec<PeerView>>;
};

fn message<T>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, WireError>,
    encode: fn(&T) -> Vec<u8>,
) -> Result<Vec<u8>, String> {
    let read = decode(bytes).map_err(|error| error.to_string())?;
    Ok(encode(&read))
}

fn json<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let read: T = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(serde_json::to_vec(&read).unwrap())
}

fn bequest(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let read = Bequest::decode(bytes).map_err(|error| format!("{error:?}"))?;
    Ok(read.encode())
}

/// The noun with the longest name that fits.
fn noun(seed: &str) -> &'static Noun {
    let fits = |noun: &&Noun| {
        let rest = seed.strip_prefix(noun.name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let found = NOUNS.iter().filter(fits).max_by_key(|noun| noun.name.len());
    found.unwrap_or_else(|| panic!("what is {seed}? give it a line in NOUNS"))
}

fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.expect("it is a target")
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

fn lines(text: &str) -> BTreeMap<String, Vec<u8>> {
    let line = |line: &str| {
        let (name, bytes) = line.split_once(' ').expect("a name and bytes");
        (name.to_owned(), HEXLOWER.decode(bytes.as_bytes()).unwrap())
    };
    text.lines().map(line).collect()
}

/// Every line of every version, and the seeds of days before there were any.
fn everything() -> Vec<Seed> {
    let mut all = Vec::new();
    for version in fs::read_dir(directory()).expect("there are recordings") {
        for name in RECORDED {
            let path = version.as_ref().unwrap().path().join(name);
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            all.extend(
                lines(&text)
                    .into_iter()
                    .map(|(name, bytes)| Seed { name, bytes }),
            );
        }
    }
    for name in RECORDED {
        for input in corpus::read(target(name)).unwrap() {
            let seed = input.name.strip_prefix("seed-").map(str::to_owned);
            let seed = seed.filter(|name| !OUTGROWN.contains(&name.as_str()));
            all.extend(seed.map(|name| Seed { name, ..input }));
        }
    }
    assert!(all.len() > 80, "{}", all.len());
    all
}

/// Whether everything that was said is said again; what is new beside it is not looked at.
fn keeps(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(key, value)| {
            let again = after.get(key);
            // What is left out means the same as nothing.
            again.map_or(value.is_null(), |again| keeps(value, again))
        }),
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len() && before.iter().zip(after).all(|(a, b)| keeps(a, b))
        }
        (before, after) => before == after,
    }
}

/// Says more, as a later version might.
fn more(bytes: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(mut value) => {
            add_to_objects(&mut value);
            serde_json::to_vec(&value).unwrap()
        }
        // Protobuf: field 1900, as bytes (1900 << 3 | 2), 5 of them.
        Err(_) => [bytes, &[0xe2, 0x76, 5], b"later"].concat(),
    }
}

fn add_to_objects(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let later = "said_by_a_later_version".to_owned();
            object.insert(later, Value::Bool(true));
        }
        Value::Array(elements) => elements.iter_mut().for_each(add_to_objects),
        _ => {}
    }
}

#[test]
fn what_was_recorded_is_read_as_what_it_was() {
    complain(everything().into_iter().filter_map(|Seed { name, bytes }| {
        let again = match (noun(&name).read)(&bytes) {
            Ok(again) => again,
            Err(error) => return Some(format!("{name} is not understood: {error}")),
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        let is_kept = match (json(&bytes), json(&again)) {
            (Some(before), Some(after)) => keeps(&before, &after),
            _ => again == bytes,
        };
        (!is_kept).then(|| format!("{name}: something of it is lost, or moved"))
    }));
}

#[test]
fn what_a_later_version_adds_is_passed_over_except_in_orders_and_rules() {
    complain(everything().into_iter().filter_map(|Seed { name, bytes }| {
        let noun = noun(&name);
        let plain = (noun.read)(&bytes);
        let read = (noun.read)(&more(&bytes));
        let is_right = match noun.later {
            PassedOver => read == plain,
            Refused | Numbered => read.is_err(),
        };
        (!is_right).then(|| format!("{name}: {read:?}"))
    }));
}

fn complain(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_this_version_says_is_recorded() {
    let directory = directory().join(env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(&directory).unwrap();
    let mut missed = Vec::new();
    for target in RECORDED.map(target) {
        let path = directory.join(target.name);
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        let known = lines(&text);
        let mut is_news = false;
        for seed in (target.seeds)() {
            if !known.contains_key(&seed.name) {
                let bytes = HEXLOWER.encode(&seed.bytes);
                writeln!(text, "{} {bytes}", seed.name).unwrap();
                missed.push(seed.name);
                is_news = true;
            }
        }
        // The other tests read it meanwhile.
        if is_news {
            fs::write(&path, text).unwrap();
        }
    }
    assert!(missed.is_empty(), "written down now, commit it: {missed:?}");
}
