//! A switch in a namespace of its own, and the cables between it and the hosts.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::LabError;
use crate::lab::Lab;
use crate::namespace::{Namespace, run_tool};

const HOSTS_MAX: u8 = 250;

/// Which addresses a network gives out: a /24 and a /64.
#[derive(Debug, Clone, Copy)]
pub struct Subnets {
    /// The network's address; its last byte becomes the host's number.
    pub v4: Ipv4Addr,
    /// The network's address; its last byte becomes the host's number.
    pub v6: Ipv6Addr,
}

impl Subnets {
    /// `10.77.0.0/24` and `fd77::/64`.
    pub const UNDERLAY: Self = Self {
        v4: Ipv4Addr::new(10, 77, 0, 0),
        v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0),
    };

    fn host(self, number: u8) -> (Ipv4Addr, Ipv6Addr) {
        let [a, b, c, _] = self.v4.octets();
        let mut v6 = self.v6.octets();
        v6[15] = number;
        (Ipv4Addr::new(a, b, c, number), v6.into())
    }
}

/// A switch.
#[derive(Debug, Clone)]
pub struct Network {
    switch: Namespace,
    subnets: Subnets,
    attached: Arc<AtomicU8>,
}

/// One namespace's end of a cable to a network.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The interface in the namespace.
    pub interface: String,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its address.
    pub v6: Ipv6Addr,
    /// The other end, in the switch.
    port: String,
}

impl Network {
    pub(crate) fn create(lab: &Lab, name: &str, subnets: Subnets) -> Result<Self, LabError> {
        let switch = lab.namespace(name)?;
        switch.run(
            "sh",
            [
                "-ec",
                "ip link add br0 type bridge mcast_snooping 0; ip link set br0 up",
            ],
        )?;
        Ok(Self {
            switch,
            subnets,
            attached: Arc::new(AtomicU8::new(0)),
        })
    }

    /// Connects a namespace by a pair of veth interfaces; it gets the next addresses.
    ///
    /// # Errors
    ///
    /// When the namespace has such an interface, or the network is full.
    pub fn attach(&self, namespace: &Namespace, interface: &str) -> Result<Attachment, LabError> {
        let number = self.attached.fetch_add(1, Ordering::Relaxed) + 1;
        if number > HOSTS_MAX {
            return Err(LabError::new(format!(
                "a network has {HOSTS_MAX} ports at most"
            )));
        }
        let (v4, v6) = self.subnets.host(number);
        let port = format!("port{number}");
        run_tool(
            Command::new("ip")
                .args(["-netns", &self.switch.full_name(), "link", "add", &port])
                .args(["type", "veth", "peer", "name", interface])
                .args(["netns", &namespace.full_name()]),
        )?;
        let join = format!("ip link set {port} master br0; ip link set {port} up");
        self.switch.run("sh", ["-ec", &join])?;
        let configure = format!(
            "ip address add {v4}/24 dev {interface}; ip link set {interface} up; \
             ip address add {v6}/64 dev {interface} nodad"
        );
        namespace.run("sh", ["-ec", &configure])?;
        Ok(Attachment {
            interface: interface.to_owned(),
            v4,
            v6,
            port,
        })
    }

    /// Pulls the cable: nothing passes until [`Network::reconnect`].
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn disconnect(&self, attachment: &Attachment) -> Result<(), LabError> {
        self.set_port(attachment, "down")
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn reconnect(&self, attachment: &Attachment) -> Result<(), LabError> {
        self.set_port(attachment, "up")
    }

    fn set_port(&self, attachment: &Attachment, state: &str) -> Result<(), LabError> {
        self.switch
            .run("ip", ["link", "set", &attachment.port, state])
            .map(drop)
    }

    /// Loses that many of a hundred frames on the way through, at random; 0 loses none.
    ///
    /// # Errors
    ///
    /// When `nft` refuses the rule.
    pub fn lose(&self, percent: u8) -> Result<(), LabError> {
        let rule = match percent {
            0 => String::new(),
            100.. => "drop;".to_owned(),
            percent => format!("numgen random mod 100 < {percent} drop;"),
        };
        self.switch.load_ruleset(&format!(
            "table bridge loss\ndelete table bridge loss\n\
             table bridge loss {{ chain frames {{ type filter hook forward priority 0; {rule} }}; }}\n"
        ))
    }

    /// The namespace of the switch, through which every frame passes: the place to watch from.
    pub fn switch(&self) -> &Namespace {
        &self.switch
    }
}
