//! Two devices on one underlay: ours and theirs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use interop::{Device, Peer, Program, WIREGUARD_PORT, addresses};
use lab::{Attachment, Lab, LabError, Namespace, Network, wait_until};
use model::key::Secret;

pub(crate) const SOON: Duration = Duration::from_secs(30);

const OURS: u8 = 0;
const THEIRS: u8 = 1;

/// Who begins, because the other does not know where its peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Initiator {
    Ours,
    Theirs,
}

/// What holds between the two, besides their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) preshared: Option<Secret>,
    pub(crate) our_keepalive: Option<Duration>,
    pub(crate) their_keepalive: Option<Duration>,
    pub(crate) over_ipv6: bool,
}

/// One machine.
pub(crate) struct Station {
    pub(crate) device: Device,
    pub(crate) attachment: Attachment,
    number: u8,
}

pub(crate) struct Pair {
    pub(crate) ours: Station,
    pub(crate) theirs: Station,
    pub(crate) network: Network,
    pub(crate) lab: Lab,
}

/// Our program as built.
pub(crate) fn ours() -> Program {
    Program::ours(env!("CARGO_BIN_EXE_mesh-wireguard"))
}

impl Station {
    fn new(lab: &Lab, network: &Network, program: &Program, number: u8) -> Result<Self, LabError> {
        let namespace = lab.namespace(if number == OURS { "ours" } else { "theirs" })?;
        let attachment = network.attach(&namespace, "eth0")?;
        Ok(Self {
            device: Device::start(program, &namespace, number)?,
            attachment,
            number,
        })
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.device.namespace()
    }

    /// The address in the tunnel.
    pub(crate) fn overlay_v4(&self) -> IpAddr {
        addresses(self.number).v4.into()
    }

    /// The address in the tunnel.
    pub(crate) fn overlay_v6(&self) -> IpAddr {
        addresses(self.number).v6.into()
    }

    /// Where its device listens.
    pub(crate) fn endpoint(&self, over_ipv6: bool) -> SocketAddr {
        let address = if over_ipv6 {
            self.attachment.v6.into()
        } else {
            self.attachment.v4.into()
        };
        SocketAddr::new(address, WIREGUARD_PORT)
    }

    /// How often the program's log says something.
    pub(crate) fn said(&self, text: &str) -> Result<usize, LabError> {
        let process = self.device.process();
        let said = process.stdout()? + &process.stderr()?;
        Ok(said.matches(text).count())
    }
}

impl Pair {
    /// Starts two devices that do not know each other.
    pub(crate) fn start(ours: &Program) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let network = lab.underlay()?;
        Ok(Self {
            ours: Station::new(&lab, &network, ours, OURS)?,
            theirs: Station::new(&lab, &network, &Program::wireguard_go(), THEIRS)?,
            network,
            lab,
        })
    }

    /// Starts two devices and makes them peers; no handshake has happened unless a keepalive
    /// asked for it.
    pub(crate) fn joined(initiator: Initiator, terms: &Terms) -> Result<Self, LabError> {
        let pair = Self::start(&ours())?;
        pair.join(initiator, terms)?;
        Ok(pair)
    }

    /// Makes the two peers. The one that waits is told first.
    pub(crate) fn join(&self, initiator: Initiator, terms: &Terms) -> Result<(), LabError> {
        match initiator {
            Initiator::Ours => {
                self.theirs.device.configure(&[self.us(initiator, terms)])?;
                self.ours.device.configure(&[self.them(initiator, terms)])
            }
            Initiator::Theirs => {
                self.ours.device.configure(&[self.them(initiator, terms)])?;
                self.theirs.device.configure(&[self.us(initiator, terms)])
            }
        }
    }

    /// What they are told of us.
    pub(crate) fn us(&self, initiator: Initiator, terms: &Terms) -> Peer {
        let endpoint = self.ours.endpoint(terms.over_ipv6);
        Peer {
            endpoint: (initiator == Initiator::Theirs).then_some(endpoint),
            preshared: terms.preshared.clone(),
            keepalive: terms.their_keepalive,
            ..Peer::numbered(OURS)
        }
    }

    /// What we are told of them.
    pub(crate) fn them(&self, initiator: Initiator, terms: &Terms) -> Peer {
        let endpoint = self.theirs.endpoint(terms.over_ipv6);
        Peer {
            endpoint: (initiator == Initiator::Ours).then_some(endpoint),
            preshared: terms.preshared.clone(),
            keepalive: terms.our_keepalive,
            ..Peer::numbered(THEIRS)
        }
    }

    /// The one that begins, and the other.
    pub(crate) fn in_order(&self, initiator: Initiator) -> (&Station, &Station) {
        match initiator {
            Initiator::Ours => (&self.ours, &self.theirs),
            Initiator::Theirs => (&self.theirs, &self.ours),
        }
    }

    /// Sends echo requests through the tunnel until one is answered.
    pub(crate) fn wait_for_session(&self, initiator: Initiator) -> Result<(), LabError> {
        let (from, to) = self.in_order(initiator);
        wait_until("an echo passes the tunnel", SOON, || {
            let ping = from.namespace().launch("ping");
            let ran = ping
                .args(["-c1", "-W1", &to.overlay_v4().to_string()])
                .run()?;
            Ok(ran.status.success().then_some(()))
        })
    }
}
