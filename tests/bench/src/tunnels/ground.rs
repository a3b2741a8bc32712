//! Two machines and the link between them, made anew for every contender.

use std::net::{IpAddr, Ipv4Addr};

use lab::{Lab, LabError, Namespace};

use crate::link::Link;

/// The name of each machine's end of the link.
const INTERFACE: &str = "eth0";

/// Bytes of the largest packet on the link, as the kernel makes it.
pub(crate) const LINK_MTU: u16 = 1500;

/// Where a contender is measured.
pub(crate) struct Ground {
    /// Where streams and echo requests begin.
    pub(crate) left: Machine,
    /// Where they end.
    pub(crate) right: Machine,
}

/// One end of the link.
pub(crate) struct Machine {
    pub(crate) namespace: Namespace,
    pub(crate) address: IpAddr,
}

impl Ground {
    pub(crate) fn new(link: Link) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let (left, right) = (lab.namespace("left")?, lab.namespace("right")?);
        let far = right.full_name();
        left.run(
            "ip",
            [
                "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", &far,
            ],
        )?;
        Ok(Self {
            left: Machine::new(left, Ipv4Addr::new(10, 77, 0, 1), link)?,
            right: Machine::new(right, Ipv4Addr::new(10, 77, 0, 2), link)?,
        })
    }
}

impl Machine {
    fn new(namespace: Namespace, address: Ipv4Addr, link: Link) -> Result<Self, LabError> {
        link.configure(&namespace, INTERFACE)?;
        let commands =
            format!("ip address add {address}/24 dev {INTERFACE}; ip link set {INTERFACE} up");
        namespace.run("sh", ["-ec", &commands])?;
        Ok(Self {
            namespace,
            address: address.into(),
        })
    }
}
