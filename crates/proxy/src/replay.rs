//! The body of a request that may have to be sent again: passed on as it comes, and kept as long as
//! it is small.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::body::{BodyError, ProxyBody};

/// The body of one call, whatever the number of its attempts.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    state: Rc<RefCell<State>>,
}

/// The body of one attempt. Only the last one that was made still goes on.
#[derive(Debug)]
pub struct ReplayBody {
    state: Rc<RefCell<State>>,
    attempt: u32,
    /// Frames of `kept` that were sent already.
    position: usize,
    has_sent_trailers: bool,
}

#[derive(Debug)]
struct State {
    source: ProxyBody,
    kept: Vec<Bytes>,
    room: usize,
    /// Whether all that was taken from the source is in `kept`.
    is_whole: bool,
    trailers: Option<HeaderMap>,
    is_over: bool,
    /// Its caller ended before it did.
    is_broken: bool,
    /// The endpoint has room for more than its caller has sent.
    is_awaited: bool,
    /// When the time of the whole call is over; `None`: nobody has said so.
    until: Option<Instant>,
    attempts: u32,
    passed_bytes: u64,
}

impl Replay {
    /// Keeps at most `room` bytes.
    pub(crate) fn new(source: ProxyBody, room: usize) -> Self {
        Self {
            state: Rc::new(RefCell::new(State {
                source,
                kept: Vec::new(),
                room,
                is_whole: true,
                trailers: None,
                is_over: false,
                is_broken: false,
                is_awaited: false,
                until: None,
                attempts: 0,
                passed_bytes: 0,
            })),
        }
    }

    /// Returns the body of the next attempt; those before end.
    pub(crate) fn attempt(&self) -> ReplayBody {
        let mut state = self.state.borrow_mut();
        state.attempts += 1;
        // Whether this one takes what there is shows when it does.
        state.is_awaited = false;
        ReplayBody {
            state: Rc::clone(&self.state),
            attempt: state.attempts,
            position: 0,
            has_sent_trailers: false,
        }
    }

    /// Returns whether another attempt could send all of it.
    pub(crate) fn can_repeat(&self) -> bool {
        self.state.borrow().is_whole
    }

    /// Returns whether the caller has sent all of it.
    pub(crate) fn is_over(&self) -> bool {
        self.state.borrow().is_over
    }

    /// Returns whether the caller ended it before its end.
    pub(crate) fn is_broken(&self) -> bool {
        self.state.borrow().is_broken
    }

    /// Says when the time of the whole call is over.
    pub(crate) fn ends_at(&self, until: Instant) {
        self.state.borrow_mut().until = Some(until);
    }

    /// Returns how much of the call's time is left, all attempts together.
    pub(crate) fn time_left(&self, now: Instant) -> Duration {
        let until = self.state.borrow().until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Returns whether it is the caller who keeps the attempt waiting, and not an endpoint that takes
    /// no more.
    pub(crate) fn waits_for_caller(&self) -> bool {
        self.state.borrow().is_awaited
    }

    /// Returns how much of it the caller has sent.
    pub(crate) fn passed_bytes(&self) -> u64 {
        self.state.borrow().passed_bytes
    }
}

impl State {
    fn poll_source(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.source).poll_frame(context);
        self.is_awaited = polled.is_pending();
        let frame = ready!(polled);
        self.is_over = frame.is_none() || self.source.is_end_stream();
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // What broke off cannot be sent a second time.
                self.is_whole = false;
                self.is_broken = true;
                return Poll::Ready(Some(Err(error)));
            }
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            self.passed_bytes += data.len() as u64;
            self.keep(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, data: &Bytes) {
        if !self.is_whole {
            return;
        }
        match self.room.checked_sub(data.len()) {
            Some(room) => {
                self.room = room;
                self.kept.push(data.clone());
            }
            None => {
                self.is_whole = false;
                self.kept = Vec::new();
            }
        }
    }
}

impl Body for ReplayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut state = this.state.borrow_mut();
        if state.attempts != this.attempt {
            return Poll::Ready(Some(Err(BodyError::GivenUp("another attempt was begun"))));
        }
        if let Some(data) = state.kept.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if !state.is_over {
            let frame = ready!(state.poll_source(context));
            this.position = state.kept.len();
            this.has_sent_trailers |= frame
                .as_ref()
                .is_some_and(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
            return Poll::Ready(frame);
        }
        if this.has_sent_trailers {
            return Poll::Ready(None);
        }
        this.has_sent_trailers = true;
        Poll::Ready(
            state
                .trailers
                .clone()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        let is_over = state.is_over || state.source.is_end_stream();
        is_over
            && state.kept.len() == self.position
            && (self.has_sent_trailers || state.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        // Only before anything was taken the source tells the length of all of it.
        if state.passed_bytes == 0 && !state.is_over {
            state.source.size_hint()
        } else if state.is_over && state.is_whole {
            let left = state.kept[self.position..]
                .iter()
                .map(Bytes::len)
                .sum::<usize>();
            SizeHint::with_exact(left as u64)
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn body(text: &'static str) -> ProxyBody {
        ProxyBody::Full(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn a_small_body_is_sent_as_often_as_needed() {
        let replay = Replay::new(body("hello"), 5);
        for _ in 0..3 {
            assert!(replay.can_repeat());
            let sent = replay.attempt().collect().await.unwrap().to_bytes();
            assert_eq!(sent, "hello");
            assert!(replay.is_over());
        }
        assert_eq!(replay.passed_bytes(), 5);
    }

    #[tokio::test]
    async fn a_larger_body_is_sent_once() {
        let replay = Replay::new(body("hello!"), 5);
        let sent = replay.attempt().collect().await.unwrap().to_bytes();
        assert_eq!(sent, "hello!");
        assert!(!replay.can_repeat());
    }

    #[tokio::test]
    async fn an_attempt_ends_where_the_next_begins() {
        let replay = Replay::new(body("hello"), 64);
        let mut first = replay.attempt();
        let second = replay.attempt();
        assert!(first.frame().await.unwrap().is_err());
        assert_eq!(second.collect().await.unwrap().to_bytes(), "hello");
    }
}
