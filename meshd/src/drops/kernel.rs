//! Packets that the kernel dropped because this daemon did not take them in time. One count for whoever
//! asks: the ledger of drops and the page of metrics. Interface and sockets may be older than the daemon,
//! after a restart or an upgrade, and the interface may be made anew under it: what is told begins at
//! nothing with the daemon, and never falls.

use std::fs;
use std::sync::Arc;

use runtime::metrics::Monotone;

use super::SocketDrops;

/// What the kernel dropped on its way to this daemon.
#[derive(Debug)]
pub struct KernelDrops {
    interface: String,
    device: Monotone,
    sockets: Vec<Arc<SocketDrops>>,
}

impl KernelDrops {
    /// Counts what is dropped from now on on the way to the reader of an interface, which need not be
    /// there yet, and what these sockets have counted.
    pub(crate) fn new(interface: String, sockets: Vec<Arc<SocketDrops>>) -> Self {
        Self {
            device: Monotone::from_here(dropped_by_interface(&interface)),
            interface,
            sockets,
        }
    }

    /// Returns the packets that found the queue of the overlay's interface full.
    pub(crate) fn overlay_queue_full(&self) -> u64 {
        self.device.follow(|| dropped_by_interface(&self.interface))
    }

    /// Returns the datagrams that found the receive buffer of their socket full.
    pub(crate) fn underlay_queue_full(&self) -> u64 {
        self.sockets.iter().map(|it| it.buffer_full()).sum()
    }

    /// Returns the datagrams whose senders were above their share of what this host can take.
    pub(crate) fn underlay_above_share(&self) -> u64 {
        self.sockets.iter().map(|it| it.above_share()).sum()
    }
}

/// `None`: the interface is not there.
pub(crate) fn dropped_by_interface(name: &str) -> Option<u64> {
    transmit_drops(&fs::read_to_string("/proc/net/dev").ok()?, name)
}

/// `name: bytes packets errs drop fifo frame compressed multicast`, then the same of sending
/// (proc_net(5)). What this host sends into the overlay the kernel transmits to the device.
fn transmit_drops(text: &str, name: &str) -> Option<u64> {
    let of_name = |line: &str| {
        let (device, counts) = line.split_once(':')?;
        (device.trim() == name).then(|| counts.to_owned())
    };
    let counts = text.lines().find_map(of_name)?;
    counts.split_ascii_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn drops_of_the_interface_are_those_on_the_way_to_its_reader() {
        let text = "Inter-|   Receive                            |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n \
            mesh0: 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20\n";
        assert_eq!(transmit_drops(text, "mesh0"), Some(16));
        assert_eq!(transmit_drops(text, "mesh1"), None);
        assert_eq!(dropped_by_interface("lo"), Some(0));
    }

    /// A socket with next to no room.
    fn narrow() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
        socket
    }

    fn flood(socket: &UdpSocket) {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..64 {
            let to = socket.local_addr().unwrap();
            sender.send_to(&[0; 1024], to).unwrap();
        }
    }

    #[test]
    fn drops_of_all_own_sockets_are_added_up_and_no_others() {
        let (first, second, stranger) = (narrow(), narrow(), narrow());
        let own = [&first, &second].map(|it| Arc::new(SocketDrops::from_here(it).unwrap()));
        let drops = KernelDrops::new("lo".into(), own.to_vec());
        flood(&stranger);
        assert_eq!(drops.underlay_queue_full(), 0);
        flood(&first);
        let of_first = drops.underlay_queue_full();
        assert!(of_first > 0);
        flood(&second);
        assert!(drops.underlay_queue_full() > of_first);
        assert_eq!(drops.overlay_queue_full(), 0);
        assert_eq!(drops.underlay_above_share(), 0, "nobody had one");
    }

    #[test]
    fn a_daemon_that_takes_sockets_over_begins_at_nothing() {
        let socket = narrow();
        let own = || Arc::new(SocketDrops::from_here(&socket).unwrap());
        let take = || KernelDrops::new("lo".into(), vec![own()]);
        let before = take();
        flood(&socket);
        let of_before = before.underlay_queue_full();
        assert!(of_before > 0);
        let after = take();
        assert_eq!(after.underlay_queue_full(), 0, "they are not its own");
        flood(&socket);
        assert!(after.underlay_queue_full() > 0);
        assert!(before.underlay_queue_full() > of_before);
    }
}
