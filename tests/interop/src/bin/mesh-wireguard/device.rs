//! Serves `wg` at the socket where it looks for a device, and logs what the shard tells.

use std::io;
use std::path::Path;

use dataplane::{Command, DropReason, Event, Report};
use meshd::packets::{WorkerHandle, WorkerMessage};
use runtime::clock::Clock;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::answer;
use crate::configuration::Configuration;
use crate::request::Request;

const SOCKETS: &str = "/run/wireguard";
/// Lines of one request; a peer takes fewer than ten.
const REQUEST_LINES_MAX: usize = 10_000;

/// The device that `wg` sees.
pub(crate) struct Device {
    listener: UnixListener,
    configuration: Configuration,
    worker: WorkerHandle,
    clock: Clock,
}

impl Device {
    /// Opens the socket of that name.
    pub(crate) fn open(
        name: &str,
        configuration: Configuration,
        worker: WorkerHandle,
        clock: Clock,
    ) -> Result<Self, String> {
        let path = Path::new(SOCKETS).join(format!("{name}.sock"));
        let listener = UnixListener::bind(&path).map_err(|error| {
            format!(
                "cannot listen on {}: {error}; does another device have that name?",
                path.display()
            )
        })?;
        Ok(Self {
            listener,
            configuration,
            worker,
            clock,
        })
    }

    /// Serves one connection after the other until the packet thread is gone.
    pub(crate) async fn serve(mut self, events: mpsc::Receiver<Event>) -> Result<(), String> {
        let (reports, mut received) = mpsc::channel(1);
        let listening = tokio::spawn(listen(events, reports));
        while !listening.is_finished() {
            let (stream, _) = self
                .listener
                .accept()
                .await
                .map_err(|error| format!("cannot accept a connection: {error}"))?;
            if let Err(error) = self.converse(stream, &mut received).await {
                tracing::warn!(%error, "a conversation with wg broke off");
            }
        }
        Err("the packet thread has ended".into())
    }

    async fn converse(
        &mut self,
        stream: UnixStream,
        reports: &mut mpsc::Receiver<Report>,
    ) -> io::Result<()> {
        let (input, mut output) = stream.into_split();
        let mut input = BufReader::new(input);
        while let Some(text) = read_request(&mut input).await? {
            let answer = self.answer(&text, reports).await?;
            output.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        text: &str,
        reports: &mut mpsc::Receiver<Report>,
    ) -> io::Result<String> {
        let changes = match Request::parse(text) {
            Ok(Request::Get) => {
                self.tell(vec![Command::Report])?;
                let report = reports.recv().await.ok_or_else(worker_gone)?;
                self.log_drops();
                return Ok(answer::state(
                    &self.configuration,
                    &report,
                    self.clock.now(),
                ));
            }
            Ok(Request::Set(changes)) => changes,
            Err(error) => {
                tracing::warn!(%error, "refused");
                return Ok(answer::refused());
            }
        };
        match self.configuration.apply(changes) {
            Ok(commands) => {
                self.tell(commands)?;
                Ok(answer::done())
            }
            Err(error) => {
                tracing::warn!(%error, "refused");
                Ok(answer::refused())
            }
        }
    }

    fn tell(&self, commands: Vec<Command>) -> io::Result<()> {
        self.worker
            .send(WorkerMessage::Commands(commands))
            .map_err(|_| worker_gone())
    }

    /// Whoever looks at the device because something is wrong finds the drops in the log.
    fn log_drops(&self) {
        let dropped: Vec<_> = DropReason::ALL
            .iter()
            .map(|reason| (reason.name(), self.worker.dropped(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect();
        tracing::info!(
            ?dropped,
            datagrams_not_sent = self.worker.failures().datagrams(),
            packets_not_delivered = self.worker.failures().overlay_packets(),
            "asked"
        );
    }
}

fn worker_gone() -> io::Error {
    io::Error::other("the packet thread has ended")
}

async fn listen(mut events: mpsc::Receiver<Event>, reports: mpsc::Sender<Report>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Report(report) => {
                // Nobody waits for it when its connection broke off.
                let _ = reports.try_send(report);
            }
            Event::SessionEstablished { peer, path } => {
                tracing::info!(peer = peer.0, remote = %path.remote, "session established");
            }
            Event::PeerMoved { peer, path } => {
                tracing::info!(peer = peer.0, remote = %path.remote, "peer moved");
            }
            other => tracing::info!(event = ?other, "news"),
        }
    }
}

/// Reads lines up to an empty one; `None` at the end of the conversation.
async fn read_request(input: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<String>> {
    let mut text = String::new();
    for _ in 0..REQUEST_LINES_MAX {
        let before = text.len();
        let length = input.read_line(&mut text).await?;
        if length == 0 {
            return Ok(None);
        }
        if &text[before..] == "\n" {
            text.truncate(before);
            return Ok(Some(text));
        }
    }
    Err(io::Error::other("the request does not end"))
}
