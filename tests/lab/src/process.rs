//! A program that runs in a namespace until it is told to stop, or killed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::error::{Doing, LabError};
use crate::lab::{Lab, last_lines};
use crate::launch::Launch;
use crate::wait::{wait_for_exit, wait_until};

/// Lines of the errors that a failure shows.
const ERROR_LINES_SHOWN: usize = 20;
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A running program; it is killed when this is dropped, unless its lab is kept.
#[derive(Debug)]
pub struct Process {
    lab: Lab,
    name: String,
    child: Child,
    /// Where systemd would listen for `READY=1`.
    notifications: UnixDatagram,
    /// What was heard there, line by line.
    notes: Arc<Mutex<String>>,
    notification_path: PathBuf,
    stdout: LogTail,
    stderr: LogTail,
}

/// The part of a log that one run of a program wrote.
#[derive(Debug)]
struct LogTail {
    path: PathBuf,
    start: u64,
}

impl Process {
    pub(crate) fn start(launch: Launch, name: &str) -> Result<Self, LabError> {
        let lab = launch.namespace().lab().clone();
        let (stdout, stdout_file) = LogTail::open(lab.log_path(name, "out"))?;
        let (stderr, stderr_file) = LogTail::open(lab.log_path(name, "err"))?;
        let notification_path = lab.directory().join(format!("{name}.notify"));
        let (notifications, notes) = hear_notifications(&notification_path)?;
        let child = launch
            .command(stdout_file, stderr_file)
            .stdin(launch.input_file()?)
            .env("NOTIFY_SOCKET", &notification_path)
            .spawn()
            .doing(format_args!("start `{launch}`"))?;
        Ok(Self {
            lab,
            name: name.to_owned(),
            child,
            notifications,
            notes,
            notification_path,
            stdout,
            stderr,
        })
    }

    /// The process id, which is the program's own.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What this run has printed so far.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn stdout(&self) -> Result<String, LabError> {
        self.stdout.read()
    }

    /// What this run has printed to standard error so far.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn stderr(&self) -> Result<String, LabError> {
        self.stderr.read()
    }

    /// Waits until the program says `READY=1`, as it would to systemd.
    ///
    /// # Errors
    ///
    /// When it ends first, or says nothing in time; with the end of its errors.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<(), LabError> {
        let what = format!("{} is ready", self.name);
        self.wait_while_running(&what, deadline, |process| {
            let is_ready = process.notes().lines().any(|line| line == "READY=1");
            Ok(is_ready.then_some(()))
        })
    }

    /// What it has told the service manager so far, and whoever it handed over to.
    pub fn notes(&self) -> String {
        let notes = self.notes.lock();
        notes.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a line of its output or errors contains `text`, and gives that line.
    ///
    /// # Errors
    ///
    /// When the program ends first, or says nothing of the kind in time.
    pub fn wait_for_line(&mut self, text: &str, deadline: Duration) -> Result<String, LabError> {
        let what = format!("{} says \"{text}\"", self.name);
        self.wait_while_running(&what, deadline, |process| {
            let said = process.stdout()? + &process.stderr()?;
            Ok(said
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned))
        })
    }

    fn wait_while_running<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Self) -> Result<Option<T>, LabError>,
    ) -> Result<T, LabError> {
        let outcome = wait_until(what, deadline, || {
            // Asked first: what it said before it ended is all in the log by then.
            let ended = self.child.try_wait().doing("look at a program")?;
            let value = condition(self)?;
            match (value, ended) {
                (None, Some(status)) => Err(LabError::new(format!(
                    "{} ended ({status}) before {what}",
                    self.name
                ))),
                (value, _) => Ok(value),
            }
        });
        outcome.map_err(|error| {
            let said = self.stderr().unwrap_or_default();
            LabError::new(format!("{error}\n{}", last_lines(&said, ERROR_LINES_SHOWN)))
        })
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    ///
    /// When the kernel cannot tell.
    pub fn is_running(&mut self) -> Result<bool, LabError> {
        Ok(self.child.try_wait().doing("look at a program")?.is_none())
    }

    /// Sends SIGTERM and waits until the program has ended by itself.
    ///
    /// # Errors
    ///
    /// When it does not end in time; it is killed then.
    pub fn terminate(mut self, deadline: Duration) -> Result<ExitStatus, LabError> {
        self.signal(Signal::TERM)?;
        let ended = wait_for_exit(&mut self.child, deadline).doing("watch a program")?;
        ended.ok_or_else(|| {
            LabError::new(format!(
                "{} did not end within {deadline:?} of SIGTERM\n{}",
                self.name,
                last_lines(&self.stderr().unwrap_or_default(), ERROR_LINES_SHOWN)
            ))
        })
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Errors
    ///
    /// When it still runs at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, LabError> {
        let ended = wait_for_exit(&mut self.child, deadline).doing("watch a program")?;
        ended.ok_or_else(|| LabError::new(format!("{} still runs after {deadline:?}", self.name)))
    }

    /// Sends a signal to the program alone.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        if !self.is_running()? {
            return Err(LabError::new(format!("{} has ended already", self.name)));
        }
        kill_process(Pid::from_child(&self.child), signal)
            .doing(format_args!("signal {}", self.name))
    }

    /// Kills the program and what it started, without a chance to tidy up.
    pub fn kill(self) {
        drop(self);
    }

    fn kill_group(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Not waited for yet, so the group's number cannot belong to anybody else.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = wait_for_exit(&mut self.child, KILL_DEADLINE);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.lab.is_kept() {
            return;
        }
        // Ends the thread that listens.
        let _ = self.notifications.shutdown(Shutdown::Both);
        self.kill_group();
        let _ = fs::remove_file(&self.notification_path);
    }
}

/// Listens as long as the socket is open: a service manager hears everything at once.
fn hear_notifications(path: &PathBuf) -> Result<(UnixDatagram, Arc<Mutex<String>>), LabError> {
    let _ = fs::remove_file(path);
    let socket = UnixDatagram::bind(path).doing(format_args!("listen on {}", path.display()))?;
    let listener = socket.try_clone().doing("listen")?;
    let notes = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&notes);
    thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length @ 1..) = listener.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]);
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push_str(text.trim_end());
            heard.push('\n');
        }
    });
    Ok((socket, notes))
}

impl LogTail {
    /// Opens the log at its end, so that a restart does not hide what was said before.
    fn open(path: PathBuf) -> Result<(Self, File), LabError> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .doing(format_args!("open {}", path.display()))?;
        let start = file.metadata().doing("look at a log")?.len();
        Ok((Self { path, start }, file))
    }

    fn read(&self) -> Result<String, LabError> {
        let mut file =
            File::open(&self.path).doing(format_args!("open {}", self.path.display()))?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.start))
            .doing("skip the log of earlier runs")?;
        file.read_to_end(&mut bytes).doing("read a log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
