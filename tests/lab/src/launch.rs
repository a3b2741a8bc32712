//! Running a program inside a namespace: what to run, with which settings, and what came of it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Doing, LabError};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::wait::wait_for_exit;

/// How long a program may run that is waited for, unless told otherwise.
const RUN_DEADLINE: Duration = Duration::from_secs(60);
/// Gives a program files of its own: `sh -c … COUNT OURS PLACE … PROGRAM ARGUMENT…`. A place that
/// the machine does not have stays empty.
const WITH_FILES: &str = "\
left=$0
while [ $left -gt 0 ]; do
    if [ -e \"$2\" ]; then mount --bind \"$1\" \"$2\" || exit 1; fi
    shift 2
    left=$((left - 1))
done
exec \"$@\"";

/// A program to be run in a namespace.
#[derive(Debug, Clone)]
pub struct Launch {
    namespace: Namespace,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    input: String,
    deadline: Duration,
}

impl Launch {
    pub(crate) fn new(namespace: &Namespace, program: &OsStr) -> Self {
        Self {
            namespace: namespace.clone(),
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            input: String::new(),
            deadline: RUN_DEADLINE,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter();
        self.arguments
            .extend(arguments.map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Gives an option that takes a value, in place of one that was given before.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref().to_owned();
        match self.arguments.iter().position(|argument| argument == name) {
            Some(position) => self.arguments[position + 1] = value,
            None => self.arguments.extend([name.into(), value]),
        }
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs a shell script first, in the same process, which the program then takes over. What the
    /// script mounts and exports is seen by the program alone.
    #[must_use]
    pub fn prepared_by(mut self, script: &str) -> Self {
        let script = format!("{script}\nexec \"$0\" \"$@\"");
        let before = std::mem::take(&mut self.arguments);
        let own_mounts = ["--mount", "--propagation", "private", "sh", "-ec"];
        self.arguments = own_mounts.map(OsString::from).to_vec();
        self.arguments.extend([script.into(), self.program]);
        self.arguments.extend(before);
        self.program = "unshare".into();
        self
    }

    /// The directory that the program works in; this process's own unless told.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// What the program reads from its standard input; nothing unless told.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = text.into();
        self
    }

    /// How long [`Launch::run`] waits before it kills the program; a minute unless told.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not end in time and is killed. A program that ends
    /// with a failure is no error here: see [`Ran::success`].
    pub fn run(self) -> Result<Ran, LabError> {
        let shown = self.to_string();
        let output = tempfile::tempfile().doing("make a file for the output")?;
        let errors = tempfile::tempfile().doing("make a file for the errors")?;
        let mut child = self
            .command(
                output.try_clone().doing("share the output file")?,
                errors.try_clone().doing("share the errors file")?,
            )
            .stdin(self.input_file()?)
            .spawn()
            .doing(format_args!("run `{shown}`"))?;
        let ended = wait_for_exit(&mut child, self.deadline).doing("watch a program")?;
        if ended.is_none() {
            // The group is ours alone, and is still there: its leader has not been waited for.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        }
        let status = child.wait().doing("wait for a program")?;
        let ran = Ran {
            command: shown,
            status,
            stdout: whole_text(output)?,
            stderr: whole_text(errors)?,
        };
        if ended.is_none() {
            return Err(LabError::new(format!(
                "`{}` did not end within {:?} and was killed\n{}",
                ran.command,
                self.deadline,
                ran.transcript()
            )));
        }
        Ok(ran)
    }

    /// Starts the program and lets it run; its output goes to the lab's logs `NAME.*.log`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(self, name: &str) -> Result<Process, LabError> {
        Process::start(self, name)
    }

    /// Writes a script that runs whatever it is given where and as this launch would, and this
    /// launch itself when it is given nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_script(&self, path: &Path) -> Result<(), LabError> {
        let mut text = "#!/bin/sh\n".to_owned();
        for (name, value) in &self.environment {
            let (name, value) = (name.to_string_lossy(), quoted(value));
            text.push_str(&format!("export {name}={value}\n"));
        }
        text.push_str(&format!("[ $# -gt 0 ] || set -- {}", quoted(&self.program)));
        text.push_str(&self.typed_arguments());
        text.push_str("\nexec");
        for word in self.way_in() {
            text.push(' ');
            text.push_str(&quoted(&word));
        }
        text.push_str(" \"$@\"\n");
        fs::write(path, text)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
            .doing(format_args!("write {}", path.display()))
    }

    fn typed_arguments(&self) -> String {
        let arguments = self.arguments.iter();
        arguments.map(|it| format!(" {}", quoted(it))).collect()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What puts a program into its place: each word group becomes what follows it.
    fn way_in(&self) -> Vec<OsString> {
        let mut words = self.namespace.way_in();
        let files = self.namespace.files();
        if !files.is_empty() {
            let unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
            words.extend(unshare.map(OsString::from));
            words.extend([WITH_FILES.into(), files.len().to_string().into()]);
            for (ours, place) in files {
                words.extend([ours.into(), place.into()]);
            }
        }
        words
    }

    pub(crate) fn command(&self, stdout: File, stderr: File) -> Command {
        let mut words = self.way_in().into_iter();
        let mut command = Command::new(words.next().expect("a namespace has a way in"));
        command
            .args(words)
            .arg(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdout(stdout)
            .stderr(stderr);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    pub(crate) fn input_file(&self) -> Result<Stdio, LabError> {
        if self.input.is_empty() {
            return Ok(Stdio::null());
        }
        let mut file = tempfile::tempfile().doing("make a file for the input")?;
        file.write_all(self.input.as_bytes())
            .doing("write the input")?;
        file.seek(SeekFrom::Start(0)).doing("rewind the input")?;
        Ok(file.into())
    }
}

/// The command as a person would type it.
impl std::fmt::Display for Launch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = PathBuf::from(&self.program);
        let name = program.file_name().unwrap_or(&self.program);
        write!(
            formatter,
            "{}{}",
            name.to_string_lossy(),
            self.typed_arguments()
        )
    }
}

/// A word as the shell has to be given it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Whether the shell takes the character as it is.
fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || "-_=+,.:/@%[]".contains(character)
}

fn whole_text(mut file: File) -> Result<String, LabError> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .doing("rewind a program's output")?;
    file.read_to_end(&mut bytes)
        .doing("read a program's output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What came of a program that ran to its end.
#[derive(Debug, Clone)]
pub struct Ran {
    /// As a person would type it.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it printed to standard error.
    pub stderr: String,
}

impl Ran {
    /// Itself, when the program succeeded.
    ///
    /// # Errors
    ///
    /// When it failed, with everything it said.
    pub fn success(self) -> Result<Self, LabError> {
        if self.status.success() {
            return Ok(self);
        }
        Err(LabError::new(format!(
            "`{}` failed ({})\n{}",
            self.command,
            self.status,
            self.transcript()
        )))
    }

    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it printed, as JSON.
    ///
    /// # Errors
    ///
    /// When it failed, or printed something else.
    pub fn json(self) -> Result<serde_json::Value, LabError> {
        let ran = self.success()?;
        serde_json::from_str(&ran.stdout).map_err(|error| {
            LabError::new(format!(
                "`{}` printed no JSON ({error}): {}",
                ran.command, ran.stdout
            ))
        })
    }

    fn transcript(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
