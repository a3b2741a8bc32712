//! What lies between the two machines: a veth pair, with or without the kernel's offloads.

use lab::{LabError, Namespace};

/// A kind of link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    /// As the kernel makes it: packets pass joined, up to 64 KiB at once.
    DefaultOffloads,
    /// Like a network card that sends one packet at a time.
    NicLike,
}

impl Link {
    pub(crate) const ALL: [Self; 2] = [Self::DefaultOffloads, Self::NicLike];

    /// What `--link` and the results call it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::DefaultOffloads => "default",
            Self::NicLike => "nic-like",
        }
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DefaultOffloads => "default offloads",
            Self::NicLike => "NIC-like (TSO, GSO, GRO off)",
        }
    }

    /// Makes an interface of the machine behave so.
    pub(crate) fn configure(self, machine: &Namespace, interface: &str) -> Result<(), LabError> {
        let settings: &[&str] = match self {
            Self::DefaultOffloads => return Ok(()),
            // UDP segmentation is a feature of its own, and stays on with GSO off.
            Self::NicLike => &["tso", "gso", "gro", "tx-udp-segmentation"],
        };
        let switched_off = settings.iter().flat_map(|setting| [setting, "off"]);
        machine
            .run("ethtool", ["-K", interface].into_iter().chain(switched_off))
            .map(drop)
    }
}
