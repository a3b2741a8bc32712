//! Reading resolv.conf(5) and nsswitch.conf(5), as much of them as matters here.

use std::net::{IpAddr, SocketAddr};

use super::{HostFiles, resolvconf};

/// Returns the servers that the host asks besides mesh DNS, in order.
pub async fn nameservers(files: &HostFiles, ours: SocketAddr) -> Vec<IpAddr> {
    let text = std::fs::read(files.resolv_conf()).unwrap_or_default();
    let others = |text: &[u8]| -> Vec<IpAddr> {
        let mut servers = configured(text);
        servers.retain(|server| *server != ours.ip());
        servers
    };
    let servers = others(&text);
    if servers.is_empty() {
        // A program that writes the file may name nobody after a server on loopback.
        return others(&resolvconf::records(files).await);
    }
    servers
}

/// Returns the servers that the host asks in the end, whatever stands in between.
pub async fn asked_in_the_end(files: &HostFiles, ours: SocketAddr) -> Vec<IpAddr> {
    let mut servers = nameservers(files, ours).await;
    let uplinks = std::fs::read(files.resolved_uplinks()).unwrap_or_default();
    servers.extend(configured(&uplinks));
    servers
}

/// Returns the servers that a resolv.conf names, in order. Those that need an interface to be
/// reached (`%eth0`) are left out.
pub(super) fn configured(text: &[u8]) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(text);
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)?.parse().ok()
    });
    servers
        .filter(|server: &IpAddr| !server.is_unspecified())
        .collect()
}

/// Whether host names are asked of systemd-resolved without a detour over resolv.conf.
pub(super) fn uses_nss_resolve(files: &HostFiles) -> bool {
    let text = std::fs::read_to_string(files.nsswitch_conf()).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("hosts:"))
        .any(|sources| {
            sources
                .split_ascii_whitespace()
                .any(|source| source == "resolve")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::host;

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let text = b"# nameserver 192.0.2.9\n nameserver 192.0.2.1\nnameserver\t2001:db8::1 ;x\n\
            nameserver fe80::1%eth0\nnameserver 0.0.0.0\nsearch example\nnameserver\nnameserverx 192.0.2.3\n\xff";
        let expected: Vec<IpAddr> =
            vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(configured(text), expected);
    }

    #[tokio::test]
    async fn mesh_dns_itself_is_not_among_those_that_it_asks() {
        let (_root, files) = host("nameserver 127.0.0.150\nnameserver 192.0.2.1\n");
        let others = nameservers(&files, "127.0.0.150:53".parse().unwrap()).await;
        assert_eq!(others, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn resolved_may_be_asked_without_resolv_conf() {
        let (root, files) = host("");
        assert!(!uses_nss_resolve(&files));
        let file = root.path().join("etc/nsswitch.conf");
        std::fs::write(&file, "passwd: files\nhosts: files dns\n").unwrap();
        assert!(!uses_nss_resolve(&files));
        std::fs::write(
            &file,
            "hosts: mymachines resolve [!UNAVAIL=return] files dns\n",
        )
        .unwrap();
        assert!(uses_nss_resolve(&files));
    }
}
