//! The body of an answer on its way to a program of this host: its call is cut with it when the policy
//! changes, and given up when it stands still for too long.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use traffic::Ending;

use super::UnderWay;
use crate::body::{BodyError, ProxyBody};
use crate::refusal::Reason;

/// The body of an answer to a program of this host.
pub(crate) enum AnswerBody {
    /// Made here, all of it.
    Own(Bytes),
    /// On its way through.
    Passing(Box<Passing>),
}

/// An answer on its way through; its call is over with it.
pub(crate) struct Passing {
    body: ProxyBody,
    under_way: Box<UnderWay>,
    /// How long it may stand still.
    patience: Duration,
    has_passed: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Passing {
    /// Begins to pass an answer on, which may stand still for so long.
    pub(super) fn new(body: ProxyBody, under_way: Box<UnderWay>, patience: Duration) -> Self {
        Self {
            body,
            under_way,
            patience,
            has_passed: false,
            timer: None,
        }
    }

    fn poll_passing(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.under_way.stand.poll_cut(context) {
            self.under_way.broke(Reason::CutByPolicy);
            self.under_way.ending = Ending::Abandoned;
            return Poll::Ready(Some(Err(BodyError::GivenUp("the policy has changed"))));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.has_passed = true;
                if let Some(data) = frame.data_ref() {
                    self.under_way.answer_bytes += data.len() as u64;
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.under_way.take_grpc_status(trailers);
                }
                if self.body.is_end_stream() {
                    self.under_way.complete(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.under_way.broke(Reason::Broken);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.under_way.complete(None);
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(self.poll_patience(context));
                self.under_way.broke(Reason::Deadline);
                Poll::Ready(Some(Err(BodyError::GivenUp(
                    "the answer stood still for too long",
                ))))
            }
        }
    }

    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        loop {
            ready!(timer.as_mut().poll(context));
            if !std::mem::take(&mut self.has_passed) {
                return Poll::Ready(());
            }
            // Something came meanwhile: it is waited for as long again.
            timer.as_mut().reset(Instant::now() + patience);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Passing(passing) => passing.poll_passing(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_empty(),
            Self::Passing(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Passing(passing) => passing.body.size_hint(),
        }
    }
}
