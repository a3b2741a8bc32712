//! A place for a program: its settings, state and sockets; on a small disk, if a test wants to fill it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use model::admin::AdminCredential;
use model::ids::Digest;
use runtime::api_client::ApiClient;
use runtime::tls;
use tempfile::TempDir;

/// No daemon may take longer to be ready, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether a program has ended that is not ready yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A place for a program.
pub(crate) struct Place {
    root: TempDir,
    disk: Option<SmallDisk>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            disk: None,
        }
    }

    /// A place whose state is on a disk of its own, of so many bytes.
    pub(crate) fn on_small_disk(bytes: u64) -> Self {
        let mut place = Self::new();
        std::fs::create_dir(place.state()).unwrap();
        place.disk = Some(SmallDisk::mount(&place.state(), bytes));
        place
    }

    /// Returns that disk.
    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.path().join("coordinator.sock")
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub(crate) fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_mesh-coordinator");
        let mut command = match &self.disk {
            Some(disk) => disk.command(program),
            None => Command::new(program),
        };
        command
            .arg("--config")
            .arg(self.config())
            .arg("--state-dir")
            .arg(self.state())
            .arg("--socket")
            .arg(self.socket())
            .args(["--listen", "127.0.0.1:0"])
            .stderr(File::create(self.said_path()).unwrap());
        command
    }

    fn said_path(&self) -> PathBuf {
        self.root.path().join("said")
    }

    /// Returns what the last program said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.said_path()).unwrap()
    }

    /// Empty, so that no settings of this machine are read.
    fn config(&self) -> PathBuf {
        let path = self.root.path().join("coordinator.toml");
        std::fs::write(&path, "").unwrap();
        path
    }

    /// Starts the program; it tells the socket when it is ready, as it would tell systemd.
    pub(crate) fn launch(&self) -> (Program, UnixDatagram) {
        let path = self.root.path().join("notify.sock");
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        (
            Program(self.command().env("NOTIFY_SOCKET", &path).spawn().unwrap()),
            notify,
        )
    }

    pub(crate) fn start(&self) -> Program {
        let (program, notify) = self.launch();
        let mut told = [0; 256];
        let length = notify.recv(&mut told).expect("it is ready in time");
        assert!(String::from_utf8_lossy(&told[..length]).contains("READY=1"));
        program
    }

    pub(crate) fn local(&self) -> ApiClient {
        ApiClient::unix(&self.socket())
    }

    pub(crate) fn operator(&self) -> ApiClient {
        let text = std::fs::read(self.state().join("admin.credential")).unwrap();
        let credential: AdminCredential = serde_json::from_slice(&text).unwrap();
        let config = tls::pinned_client(credential.root_pin);
        ApiClient::tls(credential.addresses, config, credential.secret)
    }

    /// The pin of the authority that a first start made, if it came that far.
    pub(crate) fn pin_on_disk(&self) -> Option<Digest> {
        let text = std::fs::read(self.state().join("authority")).ok()?;
        let stored: serde_json::Value = serde_json::from_slice(&text).expect("files are whole");
        let der = stored["root_certificate"].as_str().unwrap();
        Some(trust::sha256(
            &data_encoding::BASE64.decode(der.as_bytes()).unwrap(),
        ))
    }
}

/// A disk in memory, in a mount namespace of its own that ends with this.
pub(crate) struct SmallDisk {
    /// Keeps the namespace.
    holder: Child,
    /// As it is seen from outside of the namespace.
    root: PathBuf,
}

impl SmallDisk {
    fn mount(at: &Path, bytes: u64) -> Self {
        let script =
            "mount -t tmpfs -o size=$2,mode=0700 mesh \"$1\" && echo && exec sleep infinity";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]);
        if !is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        let mut holder = unshare
            .args(["sh", "-c", script, "sh"])
            .arg(at)
            .arg(bytes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = holder.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said, "\n", "the disk is mounted");
        let root = Path::new("/proc")
            .join(holder.id().to_string())
            .join("root");
        Self {
            root: root.join(at.strip_prefix("/").unwrap()),
            holder,
        }
    }

    /// A program that sees the disk.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--mount")
            .arg("--target")
            .arg(self.holder.id().to_string());
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Fills it until so many bytes are free.
    pub(crate) fn fill(&self, free: u64) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let block = vec![7; 4096];
        let mut length: u64 = 0;
        while let Ok(written) = ballast.write(&block) {
            length += u64::try_from(written).unwrap();
        }
        ballast.set_len(length.saturating_sub(free)).unwrap();
    }

    /// Makes room again.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What becomes of a program that was launched.
#[derive(Debug)]
pub(crate) enum Sign {
    Ready,
    Ended(ExitStatus),
}

impl Sign {
    /// Waits for the first sign of a program.
    pub(crate) fn of(program: &mut Program, notify: &UnixDatagram) -> Self {
        let begun = Instant::now();
        notify.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        while begun.elapsed() < PATIENCE {
            if notify.recv(&mut [0; 256]).is_ok() {
                return Self::Ready;
            }
            if let Some(status) = program.0.try_wait().unwrap() {
                return Self::Ended(status);
            }
        }
        panic!("it is neither ready nor has it ended");
    }
}

/// The running program; it does not outlive the test.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
