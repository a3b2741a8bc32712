//! The coordinator's ends of the hosts' streams: bounded queues, filled by the brain, emptied as
//! fast as each host reads. A host that does not read is sent away; it holds nobody up.

mod backlog;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fleet::SessionId;
use futures_util::Stream;
use model::control::{Goodbye, ToHost};
use model::wire::{self, generated};
use runtime::clock::random_seed;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use self::backlog::{Backlog, Total, weight};
use crate::metrics::{Sent, Tally};

/// Messages that may wait for a host to read them; with one more its stream is ended.
const MESSAGES_MAX: usize = 256;
/// Hosts a second that are sent away when the coordinator stops come back at about this rate.
const RETURNS_PER_SEC: u32 = 500;
/// How soon the first of them may come back, and how soon all of a small fleet.
const RETURN_AFTER: Duration = Duration::from_secs(1);
const RETURN_WITHIN: Duration = Duration::from_secs(3);

/// When hosts come back that found the coordinator laden.
const LADEN_RETRY_AFTER: Duration = Duration::from_secs(15);

/// The brain's ends of all streams.
#[derive(Default)]
pub(crate) struct Sessions {
    open: BTreeMap<SessionId, Near>,
    last: u64,
    total: Total,
    tally: Arc<Tally>,
}

/// The brain's end of a stream. Dropping it ends the stream after what was sent.
struct Near {
    messages: mpsc::Sender<ToHost>,
    backlog: Arc<Backlog>,
    end: Arc<OnceLock<Status>>,
    _open: oneshot::Sender<()>,
}

/// The network's end of a stream.
pub struct Session {
    /// Which it is.
    pub id: SessionId,
    /// Its host is let in; another is told why not, and when to come back.
    pub is_of_member: bool,
    /// What is to be sent.
    pub outgoing: Outgoing,
    /// Resolves when the brain has ended the stream.
    pub ended: oneshot::Receiver<()>,
    /// Resolves when `outgoing` is sent or given up.
    pub delivered: oneshot::Receiver<()>,
}

/// Messages to a host, then the reason why the stream ends, if there is one.
pub struct Outgoing {
    messages: mpsc::Receiver<ToHost>,
    backlog: Arc<Backlog>,
    tally: Arc<Tally>,
    end: Arc<OnceLock<Status>>,
    has_ended: bool,
    _delivered: oneshot::Sender<()>,
}

impl Sessions {
    /// Counts what is sent.
    pub(crate) fn new(tally: Arc<Tally>) -> Self {
        Self {
            tally,
            ..Self::default()
        }
    }

    /// Makes a stream.
    pub(crate) fn open(&mut self) -> Session {
        self.last += 1;
        let id = SessionId(self.last);
        let (messages, queue) = mpsc::channel(MESSAGES_MAX);
        let (open, ended) = oneshot::channel();
        let (delivering, delivered) = oneshot::channel();
        let end = Arc::new(OnceLock::new());
        let backlog = Backlog::new(self.total.clone());
        self.open.insert(
            id,
            Near {
                messages,
                backlog: Arc::clone(&backlog),
                end: Arc::clone(&end),
                _open: open,
            },
        );
        let outgoing = Outgoing {
            messages: queue,
            backlog,
            tally: Arc::clone(&self.tally),
            end,
            has_ended: false,
            _delivered: delivering,
        };
        Session {
            id,
            is_of_member: false,
            outgoing,
            ended,
            delivered,
        }
    }

    /// Queues a message. Returns whether the stream still stands.
    #[must_use]
    pub(crate) fn send(&mut self, id: SessionId, message: ToHost) -> bool {
        let Some(near) = self.open.get(&id) else {
            return true;
        };
        if !near.backlog.push(weight(&message), Instant::now()) {
            return !self.end(id, does_not_read());
        }
        match near.messages.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => !self.close(id),
            Err(mpsc::error::TrySendError::Full(_)) => !self.end(id, does_not_read()),
        }
    }

    /// Returns about how many bytes wait for hosts.
    pub(crate) fn unread_bytes(&self) -> usize {
        self.total.bytes()
    }

    /// Returns whether more waits for hosts than another one could be served beside.
    pub(crate) fn are_laden(&self) -> bool {
        self.total.is_full()
    }

    /// Makes a stream that only says when to come back.
    pub(crate) fn turn_away(&mut self) -> Session {
        let session = self.open();
        let goodbye = Goodbye {
            reason: "this coordinator has more to send than its hosts read; come back later".into(),
            retry_after: LADEN_RETRY_AFTER,
            tombstone: None,
        };
        if self.send(session.id, ToHost::Goodbye(goodbye)) {
            self.close(session.id);
        }
        session
    }

    /// Ends a stream after what was sent. Returns whether it stood.
    pub(crate) fn close(&mut self, id: SessionId) -> bool {
        self.open.remove(&id).is_some()
    }

    /// Ends a stream after what was sent, and says why. Returns whether it stood.
    pub(crate) fn end(&mut self, id: SessionId, why: Status) -> bool {
        let Some(near) = self.open.remove(&id) else {
            return false;
        };
        near.end
            .set(why)
            .expect("a stream is ended once, when it leaves the table");
        true
    }

    /// Takes leave of all hosts: each is told when to come back, so that they do not all at once.
    pub(crate) fn farewell(&mut self) {
        let hosts = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        let spread = RETURN_WITHIN.max(Duration::from_secs(1) * hosts / RETURNS_PER_SEC);
        for near in std::mem::take(&mut self.open).into_values() {
            let goodbye = Goodbye {
                reason: "the coordinator is stopping".into(),
                retry_after: RETURN_AFTER + spread.mul_f64(fraction()),
                tombstone: None,
            };
            let message = ToHost::Goodbye(goodbye);
            near.backlog.push(weight(&message), Instant::now());
            // A host that has no room for it sees the stream end, and comes back by itself.
            let _ = near.messages.try_send(message);
        }
    }
}

fn does_not_read() -> Status {
    Status::resource_exhausted("this host does not read what it is sent; connect again")
}

/// From 0 to 1, by chance.
fn fraction() -> f64 {
    let bytes = random_seed().unwrap_or_default();
    f64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) / f64::from(u32::MAX)
}

impl Outgoing {
    /// Returns the message as it is sent.
    fn counted(&self, message: ToHost) -> generated::ToHost {
        let kind = Sent::of(&message);
        let message: generated::ToHost = message.into();
        self.tally.sent(kind, wire::to_host_bytes(&message));
        message
    }
}

impl Stream for Outgoing {
    type Item = Result<generated::ToHost, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match self.messages.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(message)) => {
                self.backlog.pop(weight(&message), Instant::now());
                Poll::Ready(Some(Ok(self.counted(message))))
            }
            Poll::Ready(None) => {
                self.has_ended = true;
                Poll::Ready(self.end.get().cloned().map(Err))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use tonic::Code;

    #[tokio::test]
    async fn what_was_sent_arrives_before_the_end() {
        let mut sessions = Sessions::default();
        let session = sessions.open();
        assert!(sessions.send(session.id, ToHost::Pong(1)));
        assert!(sessions.close(session.id));
        let items: Vec<_> = session.outgoing.collect().await;
        assert_eq!(items.len(), 1);
        assert!(items[0].is_ok());
        assert!(session.ended.await.is_err() && session.delivered.await.is_err());
    }

    #[tokio::test]
    async fn a_host_that_does_not_read_is_sent_away_with_a_reason() {
        let mut sessions = Sessions::default();
        let session = sessions.open();
        let sent = (0..)
            .take_while(|n| sessions.send(session.id, ToHost::Pong(*n)))
            .count();
        assert_eq!(sent, MESSAGES_MAX);
        let items: Vec<_> = session.outgoing.collect().await;
        let last = items.last().unwrap().as_ref().unwrap_err();
        assert_eq!(
            (items.len(), last.code()),
            (MESSAGES_MAX + 1, Code::ResourceExhausted)
        );
    }

    #[tokio::test]
    async fn a_laden_coordinator_says_when_to_come_back() {
        let mut sessions = Sessions::default();
        let session = sessions.turn_away();
        let items: Vec<_> = session.outgoing.collect().await;
        let message = ToHost::try_from(items[0].clone().unwrap()).unwrap();
        let ToHost::Goodbye(goodbye) = message else {
            panic!("{message:?}")
        };
        assert_eq!((goodbye.retry_after, items.len()), (LADEN_RETRY_AFTER, 1));
    }

    #[tokio::test]
    async fn a_stopping_coordinator_says_when_to_come_back() {
        let mut sessions = Sessions::default();
        let hosts: Vec<_> = (0..20).map(|_| sessions.open()).collect();
        sessions.farewell();
        for host in hosts {
            let items: Vec<_> = host.outgoing.collect().await;
            let message = ToHost::try_from(items[0].clone().unwrap()).unwrap();
            let ToHost::Goodbye(goodbye) = message else {
                panic!("{message:?}")
            };
            assert!(goodbye.tombstone.is_none());
            assert!(goodbye.retry_after >= RETURN_AFTER, "{goodbye:?}");
            assert!(
                goodbye.retry_after <= RETURN_AFTER + RETURN_WITHIN,
                "{goodbye:?}"
            );
        }
    }
}
