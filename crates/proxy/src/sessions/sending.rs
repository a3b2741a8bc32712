//! Sends a body on a stream, as fast as the other end has room.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};

use crate::body::{BodyError, ProxyBody};
use crate::socket_body::BROKEN_OFF;

/// What becomes of a body whose stream the other host has ended.
const UNWANTED: BodyError = BodyError::GivenUp("the other host wants no more of it");
/// Bytes that are asked room for at once.
const PIECE_BYTES_MAX: usize = 256 << 10;

/// Sends all of it. The stream is reset when the body fails; dropping the future resets it, too.
///
/// # Errors
/// The body failed, or the other end does not want more of it.
pub(super) async fn send(mut body: ProxyBody, mut to: SendStream<Bytes>) -> Result<(), BodyError> {
    loop {
        let frame = match next(&mut body, &mut to).await {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                to.send_data(Bytes::new(), true)?;
                return Ok(());
            }
            Err(error) => {
                to.send_reset(Reason::CANCEL);
                return Err(error);
            }
        };
        match frame.into_data() {
            // The end may come in a frame of its own that holds nothing.
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                let is_last = body.is_end_stream();
                send_data(data, &body, &mut to, is_last).await?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    to.send_trailers(trailers)?;
                    return Ok(());
                }
            }
        }
    }
}

/// Waits for more of the body, or for word that nobody wants it.
async fn next(
    body: &mut ProxyBody,
    to: &mut SendStream<Bytes>,
) -> Result<Option<Frame<Bytes>>, BodyError> {
    poll_fn(|context| {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
            return Poll::Ready(frame.transpose());
        }
        match to.poll_reset(context) {
            Poll::Ready(Ok(reason)) => Poll::Ready(Err(h2::Error::from(reason).into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn send_data(
    mut data: Bytes,
    body: &ProxyBody,
    to: &mut SendStream<Bytes>,
    is_last: bool,
) -> Result<(), BodyError> {
    while !data.is_empty() {
        to.reserve_capacity(data.len().min(PIECE_BYTES_MAX));
        let room = poll_fn(|context| {
            // The other host may leave no room for as long as it likes.
            if body.poll_given_up(context).is_ready() {
                to.send_reset(Reason::CANCEL);
                return Poll::Ready(Err(BROKEN_OFF));
            }
            let room = ready!(to.poll_capacity(context));
            Poll::Ready(room.map_or(Err(UNWANTED), |room| room.map_err(BodyError::from)))
        })
        .await?;
        let piece = data.split_to(room.min(data.len()));
        to.send_data(piece, is_last && data.is_empty())?;
    }
    Ok(())
}
