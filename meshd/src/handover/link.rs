//! The private socket between predecessor and successor: messages with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Bytes of the longest message.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Descriptors of one message.
const DESCRIPTORS_MAX: usize = 32;

/// One end.
#[derive(Debug)]
pub(crate) struct Link {
    /// Of type SEQPACKET, for which tokio has no name: datagrams with an end.
    socket: UnixDatagram,
}

/// Why there was no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// Nobody is at the other end.
    #[error("it ended")]
    Closed,
    /// Nothing came in time.
    #[error("it did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// Something else came.
    #[error("it said what is not understood: {0}")]
    Strange(String),
    /// The kernel refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Link {
    /// Makes both ends; the second is for another process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(one)?, other))
    }

    /// Takes an end that another process made.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        Ok(Self { socket })
    }

    /// Sends a message.
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let text =
            serde_json::to_vec(message).map_err(|error| io::Error::other(error.to_string()))?;
        let sent = self.socket.async_io(Interest::WRITABLE, || {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty()
                && !control.push(SendAncillaryMessage::ScmRights(descriptors))
            {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let slices = [IoSlice::new(&text)];
            Ok(sendmsg(
                &self.socket,
                &slices,
                &mut control,
                SendFlags::NOSIGNAL,
            )?)
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(LinkError::Closed),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives a message.
    pub(super) async fn receive<M: DeserializeOwned>(
        &self,
        within: Duration,
    ) -> Result<(M, Vec<OwnedFd>), LinkError> {
        let received = tokio::time::timeout(within, self.next()).await;
        let (text, descriptors) = received.map_err(|_| LinkError::Late(within))??;
        let message =
            serde_json::from_slice(&text).map_err(|error| LinkError::Strange(error.to_string()))?;
        Ok((message, descriptors))
    }

    /// Returns when nobody is at the other end any more; nothing more is expected of it.
    pub(crate) async fn closed(&self) {
        while self.next().await.is_ok() {}
    }

    async fn next(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), LinkError> {
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let mut descriptors = Vec::new();
        let received = self.socket.async_io(Interest::READABLE, || {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut text)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = recvmsg(&self.socket, &mut slices, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    descriptors.extend(some);
                }
            }
            Ok((received.bytes, received.flags))
        });
        match received.await {
            Ok((0, _)) => Err(LinkError::Closed),
            Ok((_, flags)) if flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) => {
                Err(LinkError::Strange("it is too long".into()))
            }
            Ok((length, _)) => {
                text.truncate(length);
                Ok((text, descriptors))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(LinkError::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn messages_arrive_whole_with_their_descriptors() {
        let (one, other) = Link::pair().unwrap();
        let other = Link::new(other).unwrap();
        let given = [(); 3].map(|()| tempfile::tempfile().unwrap());
        let borrowed: Vec<_> = given.iter().map(AsFd::as_fd).collect();
        one.send(&vec![1, 2], &borrowed).await.unwrap();
        one.send(&vec![3], &[]).await.unwrap();
        let (first, descriptors) = other.receive::<Vec<u8>>(SOON).await.unwrap();
        assert_eq!((first, descriptors.len()), (vec![1, 2], 3));
        let inode = |of: BorrowedFd<'_>| rustix::fs::fstat(of).unwrap().st_ino;
        assert_eq!(inode(descriptors[2].as_fd()), inode(given[2].as_fd()));
        let (second, none) = other.receive::<Vec<u8>>(SOON).await.unwrap();
        assert_eq!((second, none.len()), (vec![3], 0));
    }

    #[tokio::test]
    async fn silence_strangeness_and_an_end_are_told_apart() {
        let (one, other) = Link::pair().unwrap();
        let other = Link::new(other).unwrap();
        let late = other.receive::<u8>(Duration::ZERO).await;
        assert!(matches!(late, Err(LinkError::Late(_))), "{late:?}");
        one.send(&"word", &[]).await.unwrap();
        let strange = other.receive::<u8>(SOON).await;
        assert!(matches!(strange, Err(LinkError::Strange(_))), "{strange:?}");
        drop(one);
        let closed = other.receive::<u8>(SOON).await;
        assert!(matches!(closed, Err(LinkError::Closed)), "{closed:?}");
        let closed = other.send(&1, &[]).await;
        assert!(matches!(closed, Err(LinkError::Closed)), "{closed:?}");
    }
}
