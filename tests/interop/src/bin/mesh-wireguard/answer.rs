//! What `wg` is answered: the configuration with how the peers are, and an error number.

use std::fmt::Write;

use data_encoding::HEXLOWER;
use dataplane::{PeerReport, Report};
use model::time::Now;

use crate::configuration::{Configuration, Peer};

/// `EINVAL` of Linux, which `wg` turns into a sentence.
const INVALID: i32 = 22;

/// Answers that a request was carried out.
pub(crate) fn done() -> String {
    "errno=0\n\n".into()
}

/// Answers that a request cannot be carried out.
pub(crate) fn refused() -> String {
    format!("errno={INVALID}\n\n")
}

/// Answers how the device and its peers are.
pub(crate) fn state(configuration: &Configuration, report: &Report, now: Now) -> String {
    let mut text = String::new();
    if let Some(key) = configuration.private_key() {
        add(&mut text, "private_key", HEXLOWER.encode(key.expose()));
    }
    add(&mut text, "listen_port", configuration.listen_port());
    for (key, peer) in configuration.peers() {
        add(&mut text, "public_key", HEXLOWER.encode(key.as_bytes()));
        add_peer(&mut text, peer);
        let reported = report.peers.iter().find(|other| other.peer == peer.index);
        if let Some(reported) = reported {
            add_report(&mut text, reported, now);
        }
    }
    text + &done()
}

fn add_peer(text: &mut String, peer: &Peer) {
    if let Some(preshared) = &peer.preshared {
        add(text, "preshared_key", HEXLOWER.encode(preshared.expose()));
    }
    let keepalive = peer.keepalive.map_or(0, |interval| interval.as_secs());
    add(text, "persistent_keepalive_interval", keepalive);
    for address in &peer.addresses {
        add(text, "allowed_ip", address);
    }
}

fn add_report(text: &mut String, report: &PeerReport, now: Now) {
    if let Some(path) = report.path {
        add(text, "endpoint", path.remote);
    }
    if let Some(at) = report.last_handshake {
        let age = now.monotonic - at;
        let date = now.unix.since_epoch().saturating_sub(age);
        add(text, "last_handshake_time_sec", date.as_secs());
        add(text, "last_handshake_time_nsec", date.subsec_nanos());
    }
    add(text, "rx_bytes", report.received_bytes);
    add(text, "tx_bytes", report.sent_bytes);
}

fn add(text: &mut String, name: &str, value: impl std::fmt::Display) {
    writeln!(text, "{name}={value}").expect("a String takes every text");
}
