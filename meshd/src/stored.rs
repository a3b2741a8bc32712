//! Descriptors that the service manager keeps through a crash: the TUN device, whose interface and
//! routes stay while nobody holds it, and the UDP sockets, which keep their port.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use runtime::service_manager;

use crate::linux::tun_offload;
use crate::packets::UdpSockets;
use crate::settings::Settings;

const TUN: &str = "tun";
const UDP_V4: &str = "udp4";
const UDP_V6: &str = "udp6";

/// What was kept and fits these settings.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) sockets: Option<Vec<UdpSockets>>,
    pub(crate) device: Option<Vec<Arc<OwnedFd>>>,
}

/// Takes what was kept. What does not fit the settings is closed, and made anew.
pub(crate) fn take(settings: &Settings) -> Stored {
    let mut all = service_manager::inherited();
    let mut named = |name| all.remove(name).unwrap_or_default();
    let (queues, v4, v6) = (named(TUN), named(UDP_V4), named(UDP_V6));
    let count = usize::from(settings.interface.queues);
    let stored = Stored {
        sockets: sockets(v4, v6, count).filter(|it| it[0].port() == settings.listen_port),
        device: (queues.len() == count && queues.iter().all(|it| fits(it, settings)))
            .then(|| queues.into_iter().map(Arc::new).collect()),
    };
    if stored.device.is_some() {
        tracing::info!("the TUN device outlived the daemon before, and is used again");
    }
    stored
}

fn fits(queue: &OwnedFd, settings: &Settings) -> bool {
    tun_offload::name(queue).is_ok_and(|name| name == settings.interface.name)
}

fn sockets(v4: Vec<OwnedFd>, v6: Vec<OwnedFd>, count: usize) -> Option<Vec<UdpSockets>> {
    if v4.len() != count || !(v6.is_empty() || v6.len() == count) {
        return None;
    }
    let mut v6 = v6.into_iter();
    let sockets = v4
        .into_iter()
        .map(|v4| UdpSockets::take_over(v4, v6.next()));
    sockets.collect::<std::io::Result<_>>().ok()
}

/// Gives the UDP sockets to keep.
pub(crate) fn store_sockets(sockets: &[(OwnedFd, Option<OwnedFd>)]) {
    let v4: Vec<_> = sockets.iter().map(|(v4, _)| v4.as_fd()).collect();
    let v6: Vec<_> = sockets
        .iter()
        .filter_map(|(_, v6)| v6.as_ref().map(AsFd::as_fd))
        .collect();
    service_manager::store(UDP_V4, &v4);
    if !v6.is_empty() {
        service_manager::store(UDP_V6, &v6);
    }
}

/// Gives the queues of the TUN device to keep, in place of those of another one.
pub(crate) fn store_device(queues: &[Arc<OwnedFd>]) {
    let queues: Vec<_> = queues.iter().map(|queue| queue.as_fd()).collect();
    service_manager::store(TUN, &queues);
}

/// Takes the device back: it is to go.
pub(crate) fn forget_device() {
    service_manager::forget(TUN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_were_kept_go_on_with_their_port() {
        let bound = UdpSockets::bind_group(0, 2).unwrap();
        let port = bound[0].port();
        let shared: Vec<_> = bound.iter().map(|it| it.share().unwrap()).collect();
        drop(bound);
        let (v4, v6): (Vec<_>, Vec<_>) = shared.into_iter().unzip();
        let v6: Vec<_> = v6.into_iter().flatten().collect();
        let taken = sockets(v4, v6, 2).unwrap();
        assert_eq!((taken.len(), taken[1].port()), (2, port));
    }

    #[test]
    fn what_does_not_fit_is_not_used() {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        assert!(sockets(vec![file()], Vec::new(), 1).is_none(), "no socket");
        let socket = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(sockets(vec![socket()], Vec::new(), 2).is_none());
        assert!(sockets(vec![socket(), socket()], vec![socket()], 2).is_none());
    }
}
