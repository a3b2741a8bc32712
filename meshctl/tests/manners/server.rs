//! A server in the place of a daemon or a coordinator, that answers, is silent or hangs up, as a
//! test has it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

/// What becomes of a request.
pub(crate) enum Reaction {
    /// It is answered with 200.
    Answer(Value),
    /// It is refused with this status.
    Refuse(u16, Value),
    /// Nothing comes, as from a process that is stopped.
    Silence,
    /// The connection ends without an answer.
    HangUp,
}

/// A server at a socket of its own; it lives as long as the test's process.
pub(crate) struct Server {
    socket: PathBuf,
    asked: Arc<AtomicUsize>,
    /// Goes with it.
    _directory: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts it. `react` is told `METHOD PATH`, and how many requests came before.
    pub(crate) fn start(react: impl Fn(&str, usize) -> Reaction + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let started = Self::start_at(&directory.path().join("api.sock"), react);
        Self {
            _directory: Some(directory),
            ..started
        }
    }

    /// Starts it at a place.
    pub(crate) fn start_at(
        socket: &Path,
        react: impl Fn(&str, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (react, count) = (Arc::new(react), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (react, count) = (Arc::clone(&react), Arc::clone(&count));
                thread::spawn(move || serve(&stream.unwrap(), &*react, &count));
            }
        });
        Self {
            socket: socket.to_owned(),
            asked,
            _directory: None,
        }
    }

    /// How many requests it got.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A `meshctl` for which this is the daemon and the coordinator.
    pub(crate) fn meshctl(&self, arguments: &[&str]) -> Command {
        meshctl(&self.socket, arguments)
    }
}

/// A `meshctl` for which the daemon and the coordinator are at one socket.
pub(crate) fn meshctl(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("MESHD_SOCKET", socket)
        .env("MESH_COORDINATOR_SOCKET", socket)
        .args(arguments);
    command
}

/// What a program wrote where people read errors.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn serve(stream: &UnixStream, react: &dyn Fn(&str, usize) -> Reaction, count: &AtomicUsize) {
    let Some(request) = request(stream) else {
        return;
    };
    let before = count.fetch_add(1, Ordering::SeqCst);
    match react(&request, before) {
        Reaction::HangUp => {}
        Reaction::Silence => {
            // Until the client gives up.
            let _ = (&*stream).read(&mut [0]);
        }
        Reaction::Answer(value) => answer(stream, 200, &value),
        Reaction::Refuse(status, value) => answer(stream, status, &value),
    }
}

fn answer(mut stream: &UnixStream, status: u16, value: &Value) {
    let body = value.to_string();
    let head = format!(
        "HTTP/1.1 {status} said\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

/// Reads a request to its end, and returns its method and path.
fn request(stream: &UnixStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut body_bytes) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.to_lowercase().strip_prefix("content-length: ") {
            body_bytes = length.parse().ok()?;
        }
        first.get_or_insert_with(|| line.trim_end_matches(" HTTP/1.1").to_owned());
    }
    reader.read_exact(&mut vec![0; body_bytes]).ok()?;
    first
}
