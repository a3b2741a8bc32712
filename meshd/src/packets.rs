//! The packet side of the daemon: a pinned-down thread for each shard, which owns it, a queue of the TUN
//! device and a pair of UDP sockets. Everybody else talks to it through one bounded queue.

mod admission;
mod cores;
pub(crate) mod crossing;
mod datagram_batch;
mod dead_source;
mod departures;
mod duty;
mod floods;
mod hand_over;
mod loan;
mod outbox;
mod pace;
mod packet_loop;
mod precedence;
mod refused_runs;
mod shares;
mod stream_port;
mod stream_socket;
mod succession;
mod tun_queue;
mod udp_sender;
mod udp_socket;
mod unfragmented;
mod worker;

pub use outbox::SendFailures;
pub(crate) use packet_loop::Succession;
pub(crate) use stream_port::StreamPort;
pub use udp_socket::{SocketError, UdpSockets};
pub(crate) use worker::Before;
pub use worker::{PacketWorker, WorkerHandle, WorkerMessage};
