//! One question to the kernel by netlink, and its answer: a socket that is made once and asked again and
//! again. Mostly it is one answer, which costs what one look-up costs; a list where there is no other way.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// The kernel answers while it is asked: this is for one that does not.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// More than any answer has (netlink(7) recommends 8 KiB at least).
const ANSWER_BYTES: usize = 8 << 10;
/// Idle sockets that are kept: as many as threads ask at once.
const IDLE_MAX: usize = 16;
/// Answers to earlier questions that came late and are passed over.
const STALE_MAX: usize = 16;

/// `struct nlmsghdr` (linux/netlink.h): length, kind, flags, sequence, port; native byte order.
const HEADER_BYTES: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `struct nlattr`: length, kind.
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The bits of an attribute's kind that are none of it: nested, and in network byte order.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// Asks the kernel by one protocol; threads may ask at the same time.
#[derive(Debug)]
pub(crate) struct KernelQuestions {
    protocol: Protocol,
    idle: Mutex<Vec<KernelQuestion>>,
}

impl KernelQuestions {
    /// Takes a protocol, such as `NETLINK_SOCK_DIAG`.
    pub(crate) fn new(protocol: Protocol) -> Self {
        let idle = Mutex::default();
        Self { protocol, idle }
    }

    /// Lends a socket to ask by.
    ///
    /// # Errors
    /// The kernel does not have the protocol, or what `ask` returns.
    pub(crate) fn with<T>(
        &self,
        ask: impl FnOnce(&mut KernelQuestion) -> io::Result<T>,
    ) -> io::Result<T> {
        let idle = self.idle().pop();
        let mut kernel = match idle {
            Some(kernel) => kernel,
            None => KernelQuestion::open(self.protocol)?,
        };
        // One that failed is dropped: a late answer to it must not meet the next question.
        let answer = ask(&mut kernel)?;
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(kernel);
        }
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<KernelQuestion>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A netlink socket that is asked one thing at a time.
#[derive(Debug)]
pub(crate) struct KernelQuestion {
    socket: OwnedFd,
    sequence: u32,
    memory: Vec<u8>,
}

impl KernelQuestion {
    /// Opens a socket of a protocol, such as `NETLINK_SOCK_DIAG`.
    ///
    /// # Errors
    /// The kernel does not have it.
    pub(crate) fn open(protocol: Protocol) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
        Ok(Self {
            socket,
            sequence: 0,
            memory: vec![0; ANSWER_BYTES],
        })
    }

    /// Asks, and returns what follows the header of the answer; `None`: there is no such thing.
    ///
    /// # Errors
    /// The kernel refuses, or does not answer in time.
    pub(crate) fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Option<&[u8]>> {
        self.send(kind, NLM_F_REQUEST, body)?;
        for _ in 0..STALE_MAX {
            let (_, length) = recv(&self.socket, &mut self.memory, RecvFlags::empty())?;
            let length = length.min(self.memory.len());
            let Some(header) = Header::read(&self.memory[..length]) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            if header.sequence != self.sequence {
                continue;
            }
            let body = HEADER_BYTES..header.length;
            if header.kind != NLMSG_ERROR {
                return Ok(Some(&self.memory[body]));
            }
            return outcome(&self.memory[body]).map(|()| None);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Asks for a list, and shows what follows the header of each of its parts.
    ///
    /// # Errors
    /// The kernel refuses, or does not answer in time.
    pub(crate) fn list(
        &mut self,
        kind: u16,
        body: &[u8],
        mut show: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)?;
        loop {
            let (_, length) = recv(&self.socket, &mut self.memory, RecvFlags::empty())?;
            let mut left = &self.memory[..length.min(self.memory.len())];
            while let Some(header) = Header::read(left) {
                let body = &left[HEADER_BYTES..header.length];
                left = left
                    .get(header.length.next_multiple_of(4)..)
                    .unwrap_or_default();
                if header.sequence != self.sequence {
                    continue;
                }
                match header.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return outcome(body),
                    _ => show(body),
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(io::Error::other)?;
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }
}

/// Reads what follows the header of `NLMSG_ERROR`: that there is no such thing is no error.
fn outcome(body: &[u8]) -> io::Result<()> {
    match number(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) if -code == libc::ENOENT => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

struct Header {
    length: usize,
    kind: u16,
    sequence: u32,
}

impl Header {
    /// Reads the header of the one message in a datagram, and that the message is whole.
    fn read(datagram: &[u8]) -> Option<Self> {
        let length = usize::try_from(number(datagram, 0)?).ok()?;
        let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
        let sequence = number(datagram, 8)?;
        (HEADER_BYTES..=datagram.len())
            .contains(&length)
            .then_some(Self {
                length,
                kind,
                sequence,
            })
    }
}

/// Reads a number of 32 bits in the machine's own byte order.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

/// Appends an attribute, filled up to four bytes.
pub(crate) fn push_attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len())
        .expect("questions have a few hundred bytes");
    into.extend(length.to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// Finds the first attribute of a kind.
pub(crate) fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while bytes.len() >= ATTRIBUTE_HEADER_BYTES {
        let length = usize::from(u16::from_ne_bytes(bytes[..2].try_into().ok()?));
        let its_kind = u16::from_ne_bytes(bytes[2..4].try_into().ok()?) & !ATTRIBUTE_FLAGS;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        if its_kind == kind {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_and_cut_ones_are_not() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 3, b"abc");
        push_attribute(&mut bytes, 0x8000 | 5, &7u32.to_ne_bytes());
        assert_eq!(bytes.len(), 16);
        assert_eq!(attribute(&bytes, 3), Some(&b"abc"[..]));
        let five = attribute(&bytes, 5).unwrap();
        assert_eq!(number(five, 0), Some(7));
        assert_eq!(attribute(&bytes, 4), None);
        assert_eq!(attribute(&bytes[..15], 5), None);
        assert_eq!(attribute(&[0; 8], 5), None, "a length of nothing ends it");
    }
}
