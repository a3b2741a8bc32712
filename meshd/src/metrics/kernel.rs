//! Packets that the kernel dropped because this daemon did not take them in time, as `/proc/net` tells.

use std::fs;

/// Returns what was dropped on its way to an interface's reader, since the interface was made.
pub(crate) fn dropped_by_interface(name: &str) -> Option<u64> {
    transmit_drops(&fs::read_to_string("/proc/net/dev").ok()?, name)
}

/// Returns what was dropped on its way out of the UDP sockets on a port, since they were made.
pub(crate) fn dropped_by_sockets(port: u16) -> Option<u64> {
    let v4 = fs::read_to_string("/proc/net/udp").ok()?;
    // Not there on a machine without IPv6.
    let v6 = fs::read_to_string("/proc/net/udp6").unwrap_or_default();
    Some(socket_drops(&v4, port) + socket_drops(&v6, port))
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

/// The second field is `address:port` in hexadecimal, the last one counts drops (proc_net(5)).
fn socket_drops(text: &str, port: u16) -> u64 {
    let rows = text.lines().skip(1);
    let drops = rows.filter_map(|row| {
        let local = row.split_ascii_whitespace().nth(1)?;
        let (_, its_port) = local.split_once(':')?;
        let is_ours = u16::from_str_radix(its_port, 16) == Ok(port);
        let last = row.split_ascii_whitespace().last()?;
        is_ours.then(|| last.parse().ok()).flatten()
    });
    drops.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

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

    #[test]
    fn drops_of_all_sockets_on_the_port_are_added_up() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
            1: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 5\n \
            2: 00000000:CA6C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 2 2 0000000000000000 6\n \
            3: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 3 2 0000000000000000 7\n";
        assert_eq!(socket_drops(text, 51820), 11);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(
            dropped_by_sockets(socket.local_addr().unwrap().port()),
            Some(0)
        );
    }
}
