//! Bodies that their sender keeps until it is asked for them (`Expect: 100-continue`): who is to get
//! one may refuse it before it was sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::body::{BodyError, ProxyBody};

/// How long a program is waited for that may not know of `100 Continue`: as long as curl waits.
pub(crate) const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A body that nothing is taken of before somebody wants it.
#[derive(Debug)]
pub struct AwaitedBody {
    body: ProxyBody,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// `None`: nobody wants the body any more.
    go: Option<oneshot::Receiver<()>>,
    /// `None`: for as long as it takes.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Says when the body is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted(Arc<Mutex<Option<oneshot::Sender<()>>>>);

/// Holds a request's body back until the answer `100 Continue` comes, or nothing does for so long.
pub(crate) fn until_continue(
    mut request: Request<ProxyBody>,
    patience: Option<Duration>,
) -> (Request<ProxyBody>, Wanted) {
    let (tell, go) = oneshot::channel();
    let wanted = Wanted(Arc::new(Mutex::new(Some(tell))));
    let by_continue = wanted.clone();
    hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            by_continue.is(true);
        }
    });
    let patience = patience.map(|patience| Box::pin(sleep(patience)));
    let request = request.map(|body| {
        ProxyBody::Awaited(Box::new(AwaitedBody {
            body,
            waiting: Some(Waiting {
                go: Some(go),
                patience,
            }),
        }))
    });
    (request, wanted)
}

impl Wanted {
    /// The answer came without a `100 Continue` before it. Who answers so well may go on to read what
    /// it has not asked for; a refusal is a refusal of the body, too.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.is(!status.is_client_error() && !status.is_server_error());
    }

    fn is(&self, wanted: bool) {
        let mut tell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tell) = tell.take().filter(|_| wanted) {
            // Whoever waited may be gone.
            let _ = tell.send(());
        }
    }
}

impl Waiting {
    fn poll_go(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(go) = &mut self.go else {
            return Poll::Pending;
        };
        match Pin::new(go).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            // It was refused.
            Poll::Ready(Err(_)) => {
                self.go = None;
                Poll::Pending
            }
            Poll::Pending => match &mut self.patience {
                Some(patience) => patience.as_mut().poll(context),
                None => Poll::Pending,
            },
        }
    }
}

impl Body for AwaitedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.poll_go(context));
            self.waiting = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
