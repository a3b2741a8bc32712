//! The UDP socket: runs of sealed datagrams out, joined datagrams in, each with memory of its own.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use meshd::linux::send_runs::{RUNS_MAX, Run, send_runs};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::net::sockopt;

use crate::seal::{HEADER_LEN, Keys, TAG_LEN};

const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// A burst, and the longest super-packet once more.
const SEND_BYTES: usize = 768 << 10;
/// Datagrams of a run (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const RUN_DATAGRAMS_MAX: usize = 64;
/// Bytes of a run: an IPv4 packet less its headers.
const RUN_BYTES_MAX: usize = 65507;
const DATAGRAM_BYTES_MAX: usize = 65535;
/// From one room to the next. Not a power of two, so that not all lie in the same sets of the caches.
const ROOM_BYTES: usize = 65536 + 1344;

/// Datagrams that wait to be sent together.
pub(crate) struct Outbox {
    socket: UdpSocket,
    to: SocketAddr,
    memory: Box<[u8]>,
    filled: usize,
    runs: Vec<Span>,
    waiting: usize,
}

/// Datagrams of one size, the last perhaps shorter.
struct Span {
    start: usize,
    end: usize,
    size: usize,
    count: usize,
    is_open: bool,
}

impl Outbox {
    pub(crate) fn new(socket: &UdpSocket, to: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: socket.try_clone()?,
            to,
            memory: vec![0; SEND_BYTES].into_boxed_slice(),
            filled: 0,
            runs: Vec::new(),
            waiting: 0,
        })
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes a packet in two pieces, copies it once, and seals it.
    #[inline]
    pub(crate) fn add(&mut self, keys: &mut Keys, headers: &[u8], payload: &[u8]) {
        let packet_len = headers.len() + payload.len();
        let length = HEADER_LEN + packet_len + TAG_LEN;
        if self.memory.len() - self.filled < length {
            self.flush();
        }
        let start = self.filled;
        let end = start + length;
        let datagram = &mut self.memory[start..end];
        let (front, back) = datagram[HEADER_LEN..][..packet_len].split_at_mut(headers.len());
        front.copy_from_slice(headers);
        back.copy_from_slice(payload);
        keys.seal(datagram);
        self.filled = end;
        self.waiting += 1;
        match self.runs.last_mut() {
            Some(run)
                if run.is_open
                    && length <= run.size
                    && run.count < RUN_DATAGRAMS_MAX
                    && end - run.start <= RUN_BYTES_MAX =>
            {
                run.end = end;
                run.count += 1;
                run.is_open = length == run.size;
            }
            _ => self.runs.push(Span {
                start,
                end,
                size: length,
                count: 1,
                is_open: true,
            }),
        }
    }

    pub(crate) fn flush(&mut self) {
        let run = |span: &Span| Run {
            to: self.to,
            source: None,
            ecn: 0,
            segment_size: (span.count > 1).then_some(span.size as u16),
            bytes: &self.memory[span.start..span.end],
        };
        for spans in self.runs.chunks(RUNS_MAX) {
            let mut runs = [run(&spans[0]); RUNS_MAX];
            for (slot, span) in runs.iter_mut().zip(spans) {
                *slot = run(span);
            }
            let mut left = &runs[..spans.len()];
            while !left.is_empty() {
                // What the kernel refuses is lost, as on any network.
                let done = send_runs(&self.socket, left).unwrap_or(1);
                left = &left[done..];
            }
        }
        self.runs.clear();
        self.filled = 0;
        self.waiting = 0;
    }
}

/// Datagrams as they came in one call.
pub(crate) struct Inbox {
    socket: UdpSocket,
    state: UdpSocketState,
    memory: Box<[u8]>,
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Inbox {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES)?;
        sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            socket,
            memory: vec![0; ROOM_BYTES * BATCH_SIZE].into_boxed_slice(),
        })
    }

    /// Receives once, and hands out each datagram with the place where it lies.
    pub(crate) fn receive(&mut self, mut handle: impl FnMut(usize, &mut [u8])) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut rooms = self.memory.chunks_exact_mut(ROOM_BYTES);
        let mut buffers: [_; BATCH_SIZE] = std::array::from_fn(|_| {
            let room = rooms.next().expect("as many as there are");
            IoSliceMut::new(&mut room[..DATAGRAM_BYTES_MAX])
        });
        let received = match self
            .state
            .recv((&self.socket).into(), &mut buffers, &mut metas)
        {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let rooms = self.memory.chunks_exact_mut(ROOM_BYTES);
        for (number, (room, meta)) in rooms.zip(&metas[..received]).enumerate() {
            let mut start = number * ROOM_BYTES;
            for datagram in room[..meta.len].chunks_mut(meta.stride.max(1)) {
                let length = datagram.len();
                handle(start, datagram);
                start += length;
            }
        }
        Ok(())
    }

    /// The memory that the places lie in.
    pub(crate) fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}
