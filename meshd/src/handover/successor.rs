//! The one that comes: takes what it is given, shows that it could serve, agrees on sessions with
//! the peers, and serves when it is told to. Until then it changes nothing, and ends when its
//! predecessor does.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dataplane::BEQUEST_FORMAT;
use runtime::clock::random_seed;
use runtime::local_socket::LocalSocket;
use runtime::state_dir::StateDir;
use tokio::time::{Instant, sleep};

use super::blob;
use super::link::{Link, LinkError};
use super::message::{self, FromPredecessor, FromSuccessor, Kept, PROTOCOLS};
use crate::brain::Staged;
use crate::daemon::{self, Packets, Parts, Start};
use crate::dns::DnsSockets;
use crate::linux::standard_input;
use crate::mtu::Mtu;
use crate::overlay::Inherited;
use crate::packets::crossing::Crossing;
use crate::packets::{Before, UdpSockets, WorkerMessage};
use crate::reload::needs_restart;
use crate::services;
use crate::settings::Settings;

/// The predecessor has its own patience, which ends this process: this is for one that hangs.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long answers of peers are waited for. Who is slower, or lost a packet, is tried again.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1000);
const ANSWERS_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Takes over from the daemon at the other end of standard input, then serves as any daemon.
///
/// # Errors
/// What failed, which the predecessor is told, too.
pub(crate) async fn run(start: Start) -> Result<(), String> {
    let link = standard_input::take()
        .and_then(Link::new)
        .map_err(|error| format!("nobody hands over to this process: {error}"))?;
    match take_over(&link, start).await {
        Ok(parts) => daemon::serve(parts, Some(link)).await,
        Err(why) => {
            let failed = FromSuccessor::Failed { why: why.clone() };
            let _ = link.send(&failed, &[]).await;
            Err(why)
        }
    }
}

/// Tells the daemon at the other end of standard input why this one cannot even begin.
pub fn refuse(why: &str) {
    let failed = FromSuccessor::Failed {
        why: why.to_owned(),
    };
    if let Ok(text) = serde_json::to_vec(&failed) {
        // Standard error says it too: that of a process without a predecessor is all there is.
        let _ = rustix::io::write(io::stdin(), &text);
    }
}

async fn take_over(link: &Link, start: Start) -> Result<Parts, String> {
    let hello = FromSuccessor::Hello {
        oldest: PROTOCOLS.0,
        newest: PROTOCOLS.1,
        version: env!("CARGO_PKG_VERSION").into(),
        bequest_format: BEQUEST_FORMAT,
    };
    link.send(&hello, &[]).await.map_err(text)?;
    let offered = Offered::receive(link).await?;
    let settings = keep(start.settings.clone(), &offered.kept);
    let state = StateDir::take_over(&settings.state_dir, offered.lock, "meshd").map_err(text)?;
    let answers = Arc::new(AtomicUsize::new(0));
    let before = Before {
        crossings: offered.crossings,
        answers: Arc::clone(&answers),
    };
    let packets = Packets::start(
        &settings,
        offered.sockets,
        start.clock,
        offered.shift,
        Some(before),
    )?;
    link.send(&FromSuccessor::Equipped, &[])
        .await
        .map_err(text)?;

    listen(link, "quiet", |heard| heard == &FromPredecessor::Quiet).await?;
    let config = daemon::agent_config(&settings, packets.listen_port);
    let seed = random_seed().map_err(text)?;
    let mut staged = Staged::load(&state, config, seed, start.clock).map_err(text)?;
    let worker = packets.worker.handle();
    let commands = WorkerMessage::Commands(staged.take_commands());
    worker.send(commands).map_err(text)?;
    link.send(&FromSuccessor::Loaded, &[]).await.map_err(text)?;

    let peers = listen(link, "peers", |heard| heard == &FromPredecessor::Peers).await?;
    let begun = worker.inherit(bequest(peers)?).await.map_err(text)?;
    let answered = wait_for_answers(&answers, begun).await;
    let shaken = FromSuccessor::Shaken { begun, answered };
    link.send(&shaken, &[]).await.map_err(text)?;

    let all = listen(link, "go", |heard| heard == &FromPredecessor::Go).await?;
    let device = offered.device;
    let taken = worker.take_up(bequest(all)?, device.clone()).await;
    let flows = taken.map_err(text)?;
    // Before the other one ceases to listen: what comes in between waits.
    let listeners = services::listen_early(&settings.services, staged.fleet());
    // A predecessor that has ended by now, or ends before its farewell, has left all the same.
    let _ = link.send(&FromSuccessor::Serving { flows }, &[]).await;
    match wait_for_farewell(link).await {
        Ok(()) | Err(LinkError::Closed) => {}
        Err(error) => return Err(error.to_string()),
    }
    let mut dns = offered.dns;
    let first = dns.remove(0);
    let socket = LocalSocket::take_over(offered.api, &settings.socket).map_err(text)?;
    Ok(Parts {
        start: Start { settings, ..start },
        state: Arc::new(state),
        packets,
        dns: first,
        socket,
        staged,
        inherited: Inherited { device, dns },
        listeners,
        from: Some(offered.version),
    })
}

/// What came with the offer.
struct Offered {
    version: String,
    kept: Kept,
    shift: dataplane::Shift,
    lock: OwnedFd,
    api: OwnedFd,
    /// Loopback first; there is one at least.
    dns: Vec<DnsSockets>,
    crossings: Vec<Crossing>,
    sockets: Vec<UdpSockets>,
    device: Option<Vec<Arc<OwnedFd>>>,
}

impl Offered {
    async fn receive(link: &Link) -> Result<Self, String> {
        let (offer, descriptors) = next(link).await?;
        let FromPredecessor::Offer {
            version,
            kept,
            is_second_shift,
            dns,
            shards,
            has_device,
            ..
        } = offer
        else {
            return Err("the running meshd offered nothing".into());
        };
        let mut descriptors = descriptors.into_iter();
        let mut take = || descriptors.next().ok_or_else(missing);
        let (lock, api) = (take()?, take()?);
        let mut servers = Vec::new();
        for _ in &dns {
            servers.push(DnsSockets::take_over(take()?, take()?).map_err(text)?);
        }
        let mut offered = Self {
            version,
            kept,
            shift: message::shift(is_second_shift),
            lock,
            api,
            dns: servers,
            crossings: Vec::new(),
            sockets: Vec::new(),
            device: has_device.then(Vec::new),
        };
        for _ in 0..shards {
            offered.receive_shard(link).await?;
        }
        match offered.is_whole() {
            true => Ok(offered),
            false => Err(missing()),
        }
    }

    async fn receive_shard(&mut self, link: &Link) -> Result<(), String> {
        let (shard, descriptors) = next(link).await?;
        let FromPredecessor::Shard { has_v6, has_device } = shard else {
            return Err(missing());
        };
        let mut descriptors = descriptors.into_iter();
        let mut take = || descriptors.next().ok_or_else(missing);
        self.crossings.push(Crossing::new(take()?));
        let v4 = take()?;
        let v6 = has_v6.then(&mut take).transpose()?;
        self.sockets
            .push(UdpSockets::take_over(v4, v6).map_err(text)?);
        if let (true, Some(queues)) = (has_device, &mut self.device) {
            queues.push(Arc::new(take()?));
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        let count = self.sockets.len();
        let has_all_queues = |queues: &Vec<_>| queues.len() == count;
        count.is_power_of_two()
            && count == usize::from(self.kept.shards)
            && !self.dns.is_empty()
            && self.device.as_ref().is_none_or(has_all_queues)
    }
}

/// Puts the predecessor's settings in the place of those that its descriptors were made with.
fn keep(mut settings: Settings, kept: &Kept) -> Settings {
    let wanted = settings.clone();
    settings.state_dir.clone_from(&kept.state_dir);
    settings.socket.clone_from(&kept.socket);
    settings.interface.name.clone_from(&kept.interface);
    settings.interface.table.clone_from(&kept.nft_table);
    settings.interface.mtu = kept.mtu;
    settings.mtu = match kept.mtu_is_auto {
        Some(true) => Mtu::Auto,
        Some(false) => Mtu::Bytes(kept.mtu),
        None => settings.mtu,
    };
    settings.interface.queues = kept.shards;
    settings.listen_port = kept.listen_port;
    settings.dns_listen = kept.dns_listen;
    for key in needs_restart(&settings, &wanted) {
        tracing::warn!("{key} has changed, and takes a restart of meshd to be in force");
    }
    settings
}

async fn wait_for_answers(answers: &AtomicUsize, begun: usize) -> usize {
    let end = Instant::now() + ANSWERS_WITHIN;
    loop {
        let answered = answers.load(Ordering::Relaxed);
        if answered >= begun || Instant::now() >= end {
            return answered;
        }
        sleep(ANSWERS_LOOK_EVERY).await;
    }
}

async fn wait_for_farewell(link: &Link) -> Result<(), LinkError> {
    loop {
        match link.receive(WAIT_MAX).await {
            Ok((FromPredecessor::Farewell, _)) => return Ok(()),
            Ok(_) => return Err(LinkError::Strange("not a farewell".into())),
            // It is the predecessor's to end one of the two.
            Err(LinkError::Late(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn next(link: &Link) -> Result<(FromPredecessor, Vec<OwnedFd>), String> {
    let received = link.receive(WAIT_MAX).await;
    received.map_err(|error| format!("the running meshd: {error}"))
}

/// Waits for a step, and returns its file where it has one.
async fn listen(
    link: &Link,
    step: &str,
    is_it: impl Fn(&FromPredecessor) -> bool,
) -> Result<Option<OwnedFd>, String> {
    let (heard, descriptors) = next(link).await?;
    match is_it(&heard) {
        true => Ok(descriptors.into_iter().next()),
        false => Err(format!("the running meshd did not say {step:?}")),
    }
}

fn bequest(file: Option<OwnedFd>) -> Result<dataplane::Bequest, String> {
    blob::read(file.ok_or_else(missing)?)
}

fn missing() -> String {
    "the running meshd did not give all that it has".into()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::Flags;

    fn settings(mtu: &str) -> Settings {
        let flags = ["meshd", "--config", "/dev/null", "--mtu", mtu];
        Settings::load(Flags::parse_from(flags)).unwrap()
    }

    fn kept(mtu: u16, more: &str) -> Kept {
        let text = format!(
            r#"{{"state_dir":"/a","socket":"/b","interface":"mesh0","nft_table":"mesh","mtu":{mtu},"shards":1,"listen_port":51820,"dns_listen":"127.0.0.150:53"{more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_the_mtu_was_made_of_comes_with_it() {
        const AUTO: &str = r#","mtu_is_auto":true"#;
        const SET: &str = r#","mtu_is_auto":false"#;
        for (wanted, more, is_named) in [
            ("auto", AUTO, false),
            ("auto", SET, true),
            ("1300", SET, false),
            ("1400", SET, true),
            ("1300", AUTO, true),
            // Of a version that does not say, a number is all that can be compared.
            ("auto", "", false),
            ("1400", "", true),
        ] {
            let wanted = settings(wanted);
            let settings = keep(wanted.clone(), &kept(1300, more));
            assert_eq!(settings.interface.mtu, 1300);
            let named = needs_restart(&settings, &wanted);
            assert_eq!(named.contains(&"mtu"), is_named, "{:?} {more}", wanted.mtu);
        }
    }
}
