//! The packet side of the daemon: one pinned-down thread that owns the shard, the TUN device and
//! the UDP sockets. Everybody else talks to it through one bounded queue.

mod outbox;
mod tun_queue;
mod udp_socket;
mod worker;

pub use outbox::SendFailures;
pub use udp_socket::{SocketError, UdpSockets};
pub use worker::{PacketWorker, WorkerHandle, WorkerMessage};
