//! How HTTP/2 is spoken between two hosts: windows, limits, signs of life.

use std::future::poll_fn;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, sleep, timeout};

/// Streams at one time on a connection: ztunnel's `config.rs`.
pub(super) const STREAMS_MAX: usize = 100;
/// Connections of one thread to one host: 12,800 streams.
pub(super) const CONNECTIONS_PER_HOST_MAX: usize = 128;
/// Bytes that may be under way on a stream, or wait for somebody who does not read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all streams of a connection: as many as they could hold together, so that streams
/// that nobody reads never stop the others.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX as u32;
/// Bytes of a frame: few frames for large bodies, and still none that others wait for long.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Bytes of the headers of a request or an answer, as HTTP/2 counts them.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Bytes of a stream that wait to be sent.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Streams that the other end gave up before they were taken.
const RESETS_PENDING_MAX: usize = 64;
/// How often the other end is asked whether it is there.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_max_send_streams(STREAMS_MAX)
        .enable_push(false);
    builder
}

pub(super) fn server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(u32::try_from(STREAMS_MAX).expect("a small number"))
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX);
    builder
}

/// Returns when the other end is silent for too long. TCP alone notices that after a quarter of an
/// hour, or never.
pub(super) async fn silence(mut pings: PingPong) {
    loop {
        sleep(ALIVE_INTERVAL).await;
        if pings.send_ping(Ping::opaque()).is_err() {
            return;
        }
        let answer = poll_fn(|context| pings.poll_pong(context));
        match timeout(ALIVE_TIMEOUT, answer).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// How long a connection without a stream is kept.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(300);

/// When a connection that has had no stream since `since` is to be closed.
pub(super) fn idle_end(since: Instant) -> Instant {
    since + IDLE_MAX
}
