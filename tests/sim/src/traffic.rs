//! Flows that applications open: who to whom, how far each is, which of its packets arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use model::ids::HostId;
use model::rule::ip_protocol;
use model::time::Instant;

use crate::dice::Dice;
use crate::event::HostIndex;
use crate::packet::{ACK, Envelope, FIN, SYN, Side, Tag, Transport, write};
use crate::policies::{TCP_PORTS, UDP_PORTS};

/// Names one flow; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowId(pub(crate) u64);

/// What a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Speech {
    Tcp { port: u16 },
    Udp { port: u16 },
    Ping,
}

/// Why a flow is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Somebody wanted something.
    Work,
    /// It has to be answered, or refused at once.
    Probe { is_allowed: bool },
    /// A rogue sends it from another's address: nothing of it may be delivered.
    Forgery,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Opening,
    Open,
    /// Nothing more is sent; late packets are still looked at.
    Over {
        since: Instant,
    },
}

/// One flow.
pub(crate) struct Flow {
    pub(crate) id: FlowId,
    pub(crate) opener: HostIndex,
    /// Who the opener is in the fleet; a clone of it is the same.
    pub(crate) identity: Option<HostId>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) speech: Speech,
    pub(crate) reason: Reason,
    pub(crate) progress: Progress,
    /// Nobody listens at the other end, which says so.
    pub(crate) is_port_closed: bool,
    pub(crate) is_refused: bool,
    pub(crate) answered: u32,
    sent: u32,
    packets_left: u32,
    local_port: u16,
    arrived: BTreeSet<(Side, u32)>,
}

/// All flows.
pub(crate) struct Traffic {
    pub(crate) dice: Dice,
    flows: BTreeMap<FlowId, Flow>,
    by_port: BTreeMap<(HostIndex, u16), FlowId>,
    next: u64,
    pub(crate) counts: Counts,
}

/// What became of flows and packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flows that were opened.
    pub opened: u64,
    /// Flows that were answered at least once.
    pub answered: u64,
    /// Flows that the own host refused.
    pub refused: u64,
    /// Packets that were delivered to a host's applications.
    pub delivered: u64,
}

/// How long packets of a flow may arrive after its end.
const LINGER: Duration = Duration::from_secs(300);
/// How often a flow is begun before it is given up.
const ATTEMPTS_MAX: u32 = 5;
/// How often a probe is sent: every few seconds, for longer than a tunnel needs.
const PROBE_ATTEMPTS_MAX: u32 = 30;
const PROBE_EVERY: Duration = Duration::from_secs(4);
const FIRST_LOCAL_PORT: u64 = 30_000;
const LOCAL_PORTS: u64 = 30_000;

/// What happens next in a flow.
pub(crate) struct Step {
    pub(crate) opener: HostIndex,
    /// What the opener sends.
    pub(crate) packet: Option<Vec<u8>>,
    /// When to go on.
    pub(crate) pause: Duration,
    /// There is nothing more to say.
    pub(crate) has_ended: bool,
}

/// What is wanted of a new flow.
pub(crate) struct Wish {
    pub(crate) opener: HostIndex,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) speech: Speech,
    pub(crate) reason: Reason,
}

impl Traffic {
    pub(crate) fn new(dice: Dice) -> Self {
        Self {
            dice,
            flows: BTreeMap::new(),
            by_port: BTreeMap::new(),
            next: 0,
            counts: Counts::default(),
        }
    }

    pub(crate) fn open(&mut self, wish: Wish, identity: Option<HostId>) -> FlowId {
        self.next += 1;
        let id = FlowId(self.next);
        let port = FIRST_LOCAL_PORT + self.next % LOCAL_PORTS;
        let local_port = u16::try_from(port).expect("60,000 is the highest");
        let is_udp = matches!(wish.speech, Speech::Udp { .. });
        let is_work = wish.reason == Reason::Work;
        let packets = 1 + self.dice.below(if is_work { 12 } else { 2 });
        let flow = Flow {
            id,
            opener: wish.opener,
            identity,
            source: wish.source,
            destination: wish.destination,
            speech: wish.speech,
            reason: wish.reason,
            progress: Progress::Opening,
            is_port_closed: is_udp && is_work && self.dice.chance(150),
            is_refused: false,
            answered: 0,
            sent: 0,
            packets_left: u32::try_from(packets).expect("a dozen"),
            local_port,
            arrived: BTreeSet::new(),
        };
        self.by_port.insert((wish.opener, local_port), id);
        self.flows.insert(id, flow);
        self.counts.opened += 1;
        id
    }

    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(&id)
    }

    pub(crate) fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(&id)
    }

    /// Lets a flow go on; `None` when it and its late packets are history.
    pub(crate) fn go_on(&mut self, id: FlowId, now: Instant) -> Option<Step> {
        let flow = self.flows.get_mut(&id)?;
        let was_over = match flow.progress {
            Progress::Over { since } => Some(since),
            _ => None,
        };
        if was_over.is_some_and(|since| now - since >= LINGER) {
            self.by_port.remove(&(flow.opener, flow.local_port));
            self.flows.remove(&id);
            return None;
        }
        let (packet, pause) = flow.next_packet(&mut self.dice);
        let has_ended = packet.is_none() && was_over.is_none();
        if has_ended {
            flow.progress = Progress::Over { since: now };
        }
        Some(Step {
            opener: flow.opener,
            packet,
            pause,
            has_ended,
        })
    }

    /// Returns the flow that a host opened from a local port.
    pub(crate) fn opened_from(&self, host: HostIndex, local_port: u16) -> Option<FlowId> {
        self.by_port.get(&(host, local_port)).copied()
    }

    /// Returns the probes that are not over.
    pub(crate) fn open_probes(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values().filter(|flow| {
            matches!(flow.reason, Reason::Probe { .. })
                && !matches!(flow.progress, Progress::Over { .. })
        })
    }
}

impl Flow {
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self.reason, Reason::Probe { .. })
    }

    /// Notes that a packet arrived; returns whether it did so for the first time.
    pub(crate) fn note_arrival(&mut self, tag: Tag) -> bool {
        self.arrived.insert((tag.side, tag.sequence))
    }

    /// Returns the opener's next packet, and when to go on; no packet when there is nothing left
    /// to say.
    fn next_packet(&mut self, dice: &mut Dice) -> (Option<Vec<u8>>, Duration) {
        let pause = if self.is_probe() {
            PROBE_EVERY
        } else {
            self.pause(dice)
        };
        let attempts_max = if self.is_probe() {
            PROBE_ATTEMPTS_MAX
        } else {
            ATTEMPTS_MAX
        };
        let flags = match (self.progress, self.speech) {
            (Progress::Over { .. }, _) => return (None, LINGER),
            (Progress::Opening, _) if self.sent >= attempts_max => return (None, LINGER),
            (Progress::Opening, _) => SYN,
            (Progress::Open, _) if self.packets_left == 0 => return (None, LINGER),
            (Progress::Open, _) if self.packets_left == 1 => FIN | ACK,
            (Progress::Open, _) => ACK,
        };
        if self.progress == Progress::Open {
            self.packets_left -= 1;
        }
        self.sent += 1;
        let filling = if self.is_probe() { 0 } else { dice.below(300) };
        let tag = Tag {
            flow: self.id,
            sequence: self.sent,
            side: Side::Opener,
        };
        (Some(write(&self.envelope(flags), tag, filling)), pause)
    }

    /// Returns what the other end's application says to a packet.
    pub(crate) fn answer(&self, tag: Tag, tcp_flags: Option<u8>) -> Vec<u8> {
        let flags = match tcp_flags {
            Some(flags) if flags & SYN != 0 => SYN | ACK,
            Some(flags) if flags & FIN != 0 => FIN | ACK,
            _ => ACK,
        };
        let Envelope {
            source,
            destination,
            transport,
        } = self.envelope(flags);
        let back = match transport {
            Transport::Tcp {
                source_port,
                destination_port,
                flags,
            } => Transport::Tcp {
                source_port: destination_port,
                destination_port: source_port,
                flags,
            },
            Transport::Udp {
                source_port,
                destination_port,
            } => Transport::Udp {
                source_port: destination_port,
                destination_port: source_port,
            },
            Transport::EchoRequest { identifier } | Transport::EchoReply { identifier } => {
                Transport::EchoReply { identifier }
            }
        };
        let envelope = Envelope {
            source: destination,
            destination: source,
            transport: back,
        };
        write(
            &envelope,
            Tag {
                side: Side::Answerer,
                ..tag
            },
            10,
        )
    }

    fn envelope(&self, flags: u8) -> Envelope {
        let source_port = self.local_port;
        let transport = match self.speech {
            Speech::Tcp { port } => Transport::Tcp {
                source_port,
                destination_port: port,
                flags,
            },
            Speech::Udp { port } => Transport::Udp {
                source_port,
                destination_port: port,
            },
            Speech::Ping => Transport::EchoRequest {
                identifier: source_port,
            },
        };
        Envelope {
            source: self.source,
            destination: self.destination,
            transport,
        }
    }

    fn pause(&self, dice: &mut Dice) -> Duration {
        match self.progress {
            // RFC 6298 2.1 and 5.5: a second, then twice as long each time.
            Progress::Opening => Duration::from_secs(1 << self.sent.min(5)),
            _ => dice.between(Duration::from_millis(100), Duration::from_secs(20)),
        }
    }
}

impl Speech {
    /// Returns everything that applications try.
    pub(crate) fn every() -> Vec<Self> {
        let tcp = TCP_PORTS.iter().map(|port| Self::Tcp { port: *port });
        let udp = UDP_PORTS.iter().map(|port| Self::Udp { port: *port });
        tcp.chain(udp).chain([Self::Ping]).collect()
    }

    pub(crate) const fn ip_protocol(self) -> u8 {
        match self {
            Self::Tcp { .. } => ip_protocol::TCP,
            Self::Udp { .. } => ip_protocol::UDP,
            Self::Ping => ip_protocol::ICMP,
        }
    }

    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Tcp { port } | Self::Udp { port } => port,
            Self::Ping => 0,
        }
    }
}
