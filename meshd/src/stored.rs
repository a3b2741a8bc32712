//! Descriptors that the service manager keeps through a crash: the TUN device, whose interface and
//! routes stay while nobody holds it, and the UDP sockets, which keep their port.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use runtime::service_manager::{self, Inherited};
use tokio::time::{Instant, sleep};

use crate::linux::{interface, tun_offload};
use crate::packets::{SocketError, UdpSockets};
use crate::settings::Settings;

const TUN: &str = "tun";
const UDP_V4: &str = "udp4";
const UDP_V6: &str = "udp6";

/// How long the service manager may take to close what it is told to forget; it does so when it
/// comes to it, and says nothing.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was kept and fits these settings.
#[derive(Default)]
pub(crate) struct Stored {
    sockets: Option<Vec<UdpSockets>>,
    pub(crate) device: Option<Vec<Arc<OwnedFd>>>,
    /// Names of what was kept and does not fit.
    unfit: Vec<String>,
    /// The interface that lives as long as what does not fit is kept.
    unfit_interface: Option<String>,
}

/// What descriptors must be like to be of use.
struct Wanted<'a> {
    interface: &'a str,
    shards: u16,
    port: u16,
}

/// Takes what was kept. What does not fit the settings is closed, here and at the service manager,
/// and made anew.
pub(crate) async fn take(settings: &Settings) -> Stored {
    let wanted = Wanted {
        interface: &settings.interface.name,
        shards: settings.interface.queues,
        port: settings.listen_port,
    };
    let stored = Stored::of(service_manager::inherited(), &wanted);
    if stored.device.is_some() {
        tracing::info!("the TUN device outlived the daemon before, and is used again");
    }
    for name in &stored.unfit {
        tracing::info!(
            name,
            "what was kept does not fit the settings, and is made anew"
        );
        service_manager::forget(name);
    }
    if let Some(name) = &stored.unfit_interface {
        wait_until_gone(name).await;
    }
    stored
}

impl Stored {
    fn of(mut all: Inherited, wanted: &Wanted<'_>) -> Self {
        let names: Vec<String> = all.keys().cloned().collect();
        let interface = interface_of(&all);
        let sockets = take_sockets(&mut all, wanted.shards);
        let sockets = sockets.filter(|it| it[0].port() == wanted.port);
        let queues = take_kind(&mut all, TUN, wanted.shards);
        let device = queues.filter(|it| it.iter().all(|queue| fits(queue, wanted.interface)));
        let is_used = |name: &String| match kind(name) {
            UDP_V4 | UDP_V6 => sockets.is_some(),
            TUN => device.is_some(),
            _ => false,
        };
        Self {
            unfit: names.into_iter().filter(|name| !is_used(name)).collect(),
            unfit_interface: interface.filter(|_| device.is_none()),
            device: device.map(|queues| queues.into_iter().map(Arc::new).collect()),
            sockets,
        }
    }

    /// Returns the sockets that were kept, else new ones.
    ///
    /// # Errors
    /// The port is taken, and not by what the service manager is about to close.
    pub(crate) async fn take_or_bind(
        &mut self,
        port: u16,
        shards: u16,
    ) -> Result<Vec<UdpSockets>, SocketError> {
        if let Some(sockets) = self.sockets.take() {
            return Ok(sockets);
        }
        let end = Instant::now() + LET_GO_WITHIN;
        let is_being_closed = self.unfit.iter().any(|name| kind(name) != TUN);
        loop {
            match UdpSockets::bind_group(port, shards) {
                Err(error) if error.is_in_use() && is_being_closed && Instant::now() < end => {
                    sleep(LOOK_EVERY).await;
                }
                bound => return bound,
            }
        }
    }
}

/// An interface goes when nobody holds it any more. One that stays is the overlay's to complain of.
async fn wait_until_gone(name: &str) {
    let end = Instant::now() + LET_GO_WITHIN;
    while interface::exists(name).await.unwrap_or(false) && Instant::now() < end {
        sleep(LOOK_EVERY).await;
    }
}

/// The name says which shard's it is: the service manager gives them back in an order of its own.
fn name(kind: &str, shard: usize) -> String {
    format!("{kind}-{shard}")
}

fn kind(name: &str) -> &str {
    name.split_once('-').map_or(name, |(kind, _)| kind)
}

fn interface_of(all: &Inherited) -> Option<String> {
    let mut queues = all.iter().filter(|(name, _)| kind(name) == TUN);
    let queue = queues.find_map(|(_, queues)| queues.first())?;
    tun_offload::name(queue).ok()
}

fn fits(queue: &OwnedFd, interface: &str) -> bool {
    tun_offload::name(queue).is_ok_and(|name| name == interface)
}

/// Takes one kind of descriptors in the order of their shards, when each shard has one and nobody
/// else has.
fn take_kind(all: &mut Inherited, wanted: &str, shards: u16) -> Option<Vec<OwnedFd>> {
    let shards = usize::from(shards);
    let kept = all.keys().filter(|name| kind(name) == wanted).count();
    let taken = (0..shards).map(|shard| {
        let mut of_shard = all.remove(&name(wanted, shard))?;
        of_shard.pop().filter(|_| of_shard.is_empty())
    });
    taken.collect::<Option<_>>().filter(|_| kept == shards)
}

fn take_sockets(all: &mut Inherited, shards: u16) -> Option<Vec<UdpSockets>> {
    let has_v6 = all.keys().any(|name| kind(name) == UDP_V6);
    let v4 = take_kind(all, UDP_V4, shards)?;
    let v6 = match has_v6 {
        true => take_kind(all, UDP_V6, shards)?,
        false => Vec::new(),
    };
    let mut v6 = v6.into_iter();
    let sockets = v4
        .into_iter()
        .map(|v4| UdpSockets::take_over(v4, v6.next()));
    sockets.collect::<std::io::Result<_>>().ok()
}

/// Gives the UDP sockets to keep.
pub(crate) fn store_sockets(sockets: &[(OwnedFd, Option<OwnedFd>)]) {
    for (shard, (v4, v6)) in sockets.iter().enumerate() {
        store(UDP_V4, shard, v4.as_fd());
        if let Some(v6) = v6 {
            store(UDP_V6, shard, v6.as_fd());
        }
    }
}

/// Gives the queues of the TUN device to keep, in place of those of another one.
pub(crate) fn store_device(queues: &[Arc<OwnedFd>]) {
    for (shard, queue) in queues.iter().enumerate() {
        store(TUN, shard, queue.as_fd());
    }
}

fn store(kind: &str, shard: usize, descriptor: BorrowedFd<'_>) {
    service_manager::store(&name(kind, shard), &[descriptor]);
}

/// Takes the device, of so many queues, back: it is to go.
pub(crate) fn forget_device(queues: u16) {
    for shard in 0..usize::from(queues) {
        service_manager::forget(&name(TUN, shard));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(port: u16) -> Wanted<'static> {
        Wanted {
            interface: "mesh-none",
            shards: 2,
            port,
        }
    }

    /// As the service manager gives back what [`store_sockets`] gave it.
    fn kept(sockets: &[UdpSockets]) -> Inherited {
        let mut all = Inherited::new();
        for (shard, sockets) in sockets.iter().enumerate() {
            let (v4, v6) = sockets.share().unwrap();
            all.insert(name(UDP_V4, shard), vec![v4]);
            all.extend(v6.map(|v6| (name(UDP_V6, shard), vec![v6])));
        }
        all
    }

    fn inode(descriptor: BorrowedFd<'_>) -> u64 {
        rustix::fs::fstat(descriptor).unwrap().st_ino
    }

    #[tokio::test]
    async fn sockets_that_were_kept_go_on_with_their_port() {
        let bound = UdpSockets::bind_group(0, 2).unwrap();
        let port = bound[0].port();
        let mut stored = Stored::of(kept(&bound), &wanted(port));
        drop(bound);
        assert!(stored.unfit.is_empty(), "{:?}", stored.unfit);
        let taken = stored.take_or_bind(port, 2).await.unwrap();
        assert_eq!((taken.len(), taken[1].port()), (2, port));
    }

    #[test]
    fn descriptors_that_come_back_in_another_order_are_their_shards_again() {
        let files: Vec<_> = (0..12).map(|_| tempfile::tempfile().unwrap()).collect();
        let inodes: Vec<_> = files.iter().map(|file| inode(file.as_fd())).collect();
        let mut all = Inherited::new();
        for (shard, file) in files.into_iter().enumerate().rev() {
            all.insert(name(TUN, shard), vec![file.into()]);
        }
        let taken = take_kind(&mut all, TUN, 12).unwrap();
        let taken: Vec<_> = taken.iter().map(|file| inode(file.as_fd())).collect();
        assert_eq!(taken, inodes);
    }

    #[test]
    fn what_does_not_fit_is_named_to_be_forgotten() {
        let bound = UdpSockets::bind_group(0, 2).unwrap();
        let port = bound[0].port();
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let is_unfit = |all: Inherited, wanted: &Wanted<'_>| {
            let names: Vec<_> = all.keys().cloned().collect();
            let stored = Stored::of(all, wanted);
            stored.sockets.is_none() && stored.device.is_none() && stored.unfit == names
        };
        let fewer = Wanted {
            shards: 1,
            ..wanted(port)
        };
        assert!(is_unfit(kept(&bound), &fewer));
        assert!(is_unfit(kept(&bound), &wanted(port ^ 1)), "another port");
        let mut one_too_few = kept(&bound);
        one_too_few.remove("udp4-1");
        assert!(is_unfit(one_too_few, &wanted(port)));
        let mut half_of_v6 = kept(&bound);
        half_of_v6.remove("udp6-0");
        half_of_v6.insert("udp6-1".into(), vec![socket()]);
        assert!(is_unfit(half_of_v6, &wanted(port)));
        let mut two_of_one_name = kept(&bound);
        two_of_one_name.insert("udp4-1".into(), vec![socket(), socket()]);
        assert!(is_unfit(two_of_one_name, &wanted(port)));
        let names = ["tun-0", "tun-1", "udp4-0", "udp4-1", "udp4"];
        let files = names.map(|name| (name.to_owned(), vec![file()]));
        assert!(is_unfit(files.into(), &wanted(port)), "files");
    }

    #[tokio::test]
    async fn a_port_that_the_service_manager_still_holds_is_waited_for() {
        let held = UdpSockets::bind(0).unwrap();
        let port = held.port();
        let mut nothing_kept = Stored::default();
        assert!(nothing_kept.take_or_bind(port, 2).await.is_err());
        let mut stored = Stored {
            unfit: vec!["udp4-0".into()],
            ..Stored::default()
        };
        // The first try comes before it lets go.
        let let_go = async move { drop(held) };
        let (bound, ()) = tokio::join!(biased; stored.take_or_bind(port, 2), let_go);
        assert_eq!(bound.unwrap().len(), 2);
    }
}
