//! A program at work in a namespace, and `wg` as its administrator.
//!
//! `wg` finds devices by name in one directory of the machine. Each device here has a directory
//! of its own in the lab, which is mounted over that one for the program and for `wg` alone, so
//! that many devices have one name and nothing stays behind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use lab::{LabError, Launch, Namespace, Process, Ran, wait_until};
use model::key::WireguardKey;

use crate::overlay::WIREGUARD_PORT;
use crate::peer::{Peer, private_key};
use crate::program::Program;

/// The name of every device's interface.
pub(crate) const INTERFACE: &str = "wg0";
/// Gives a program its own directory of devices: `sh -c … DIRECTORY PROGRAM ARGUMENT…`.
const WITH_SOCKETS: &str =
    "mkdir -p /run/wireguard && mount --bind \"$0\" /run/wireguard && exec \"$@\"";
const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// One end of a tunnel.
#[derive(Debug)]
pub struct Device {
    namespace: Namespace,
    number: u8,
    program: Program,
    directory: PathBuf,
    process: Process,
}

/// What a device knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Its key.
    pub key: WireguardKey,
    /// Where packets to it go.
    pub endpoint: Option<SocketAddr>,
    /// When its last handshake ended well.
    pub latest_handshake: Option<SystemTime>,
    /// Bytes of datagrams from it.
    pub received_bytes: u64,
    /// Bytes of datagrams to it.
    pub sent_bytes: u64,
}

impl Device {
    /// Starts a program in a namespace that has no device yet. It has its key and no peers.
    ///
    /// # Errors
    ///
    /// When the program ends, or its device is not there in time.
    pub fn start(program: &Program, namespace: &Namespace, number: u8) -> Result<Self, LabError> {
        let directory = namespace
            .lab()
            .directory()
            .join(format!("{}-wireguard", namespace.name()));
        fs::create_dir_all(&directory).map_err(|error| {
            LabError::new(format!("cannot make {}: {error}", directory.display()))
        })?;
        // A program that was killed has left its socket behind.
        let _ = fs::remove_file(socket_in(&directory));
        let process = with_sockets(namespace, &directory)
            .arg(program.executable())
            .args(program.arguments(number))
            .env("LOG_LEVEL", "verbose")
            .env("RUST_BACKTRACE", "1")
            .spawn(namespace.name())?;
        let mut device = Self {
            namespace: namespace.clone(),
            number,
            program: program.clone(),
            directory,
            process,
        };
        device.finish_start()?;
        Ok(device)
    }

    /// Kills the program without a chance to tidy up and starts it again; it has forgotten its
    /// peers.
    ///
    /// # Errors
    ///
    /// As [`Device::start`].
    pub fn restart(self) -> Result<Self, LabError> {
        self.process.kill();
        Self::start(&self.program, &self.namespace, self.number)
    }

    fn finish_start(&mut self) -> Result<(), LabError> {
        let what = format!("{} has a device", self.namespace.name());
        wait_until(&what, START_DEADLINE, || {
            if !self.process.is_running()? {
                return Err(LabError::new(format!(
                    "{} ended before it had a device: {}",
                    self.program.executable().display(),
                    self.process.stderr()?
                )));
            }
            let found = socket_in(&self.directory).exists()
                && self.wg(["show", INTERFACE])?.status.success();
            Ok(found.then_some(()))
        })?;
        if let Some(commands) = self.program.address_commands(self.number) {
            self.namespace.run("sh", ["-ec", &commands])?;
        }
        self.configure(&[])
    }

    /// Makes these the peers; every session ends.
    ///
    /// # Errors
    ///
    /// When `wg` fails.
    pub fn configure(&self, peers: &[Peer]) -> Result<(), LabError> {
        let own = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {WIREGUARD_PORT}\n",
            BASE64.encode(private_key(self.number).expose())
        );
        let sections = peers.iter().map(Peer::section);
        let text = std::iter::once(own).chain(sections).collect::<String>();
        self.load("setconf", &text)
    }

    /// Tells the device what is new of a peer, or of a new peer; sessions live on.
    ///
    /// # Errors
    ///
    /// When `wg` fails.
    pub fn update_peer(&self, peer: &Peer) -> Result<(), LabError> {
        self.load("addconf", &peer.section())
    }

    /// Forgets the peer and gets to know it anew: its session is gone, and a handshake is needed.
    ///
    /// # Errors
    ///
    /// When `wg` fails.
    pub fn renew_peer(&self, peer: &Peer) -> Result<(), LabError> {
        self.wg(["set", INTERFACE, "peer", &peer.key.to_string(), "remove"])?
            .success()?;
        self.update_peer(peer)
    }

    /// Moves the device to another UDP port; ours stays where it was started.
    ///
    /// # Errors
    ///
    /// When `wg` fails.
    pub fn listen_on(&self, port: u16) -> Result<(), LabError> {
        self.wg(["set", INTERFACE, "listen-port", &port.to_string()])?
            .success()
            .map(drop)
    }

    /// Returns what the device knows of its peers.
    ///
    /// # Errors
    ///
    /// When `wg` fails or prints something else.
    pub fn peers(&self) -> Result<Vec<PeerState>, LabError> {
        let dump = self.wg(["show", INTERFACE, "dump"])?.success()?.stdout;
        // The first line is the device itself.
        dump.lines()
            .skip(1)
            .map(|line| {
                read_peer(line)
                    .ok_or_else(|| LabError::new(format!("`wg show dump` printed `{line}`")))
            })
            .collect()
    }

    /// Returns what the device knows of its only peer.
    ///
    /// # Errors
    ///
    /// As [`Device::peers`], and when there is none or another.
    pub fn only_peer(&self) -> Result<PeerState, LabError> {
        let peers = self.peers()?;
        <[PeerState; 1]>::try_from(peers)
            .map(|[peer]| peer)
            .map_err(|peers| LabError::new(format!("one peer expected, there are {}", peers.len())))
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The running program.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops the program as an administrator would.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn stop(self) -> Result<(), LabError> {
        self.process.terminate(STOP_DEADLINE).map(drop)
    }

    fn load(&self, how: &str, text: &str) -> Result<(), LabError> {
        let path = self.directory.join("peers.conf");
        fs::write(&path, text)
            .map_err(|error| LabError::new(format!("cannot write {}: {error}", path.display())))?;
        let path = path.to_string_lossy();
        self.wg([how, INTERFACE, &path])?.success().map(drop)
    }

    fn wg<const N: usize>(&self, arguments: [&str; N]) -> Result<Ran, LabError> {
        with_sockets(&self.namespace, &self.directory)
            .arg("wg")
            .args(arguments)
            .run()
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join(format!("{INTERFACE}.sock"))
}

fn with_sockets(namespace: &Namespace, directory: &Path) -> Launch {
    namespace
        .launch("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(WITH_SOCKETS)
        .arg(directory)
}

/// One line of `wg show DEVICE dump`: key, preshared key, endpoint, allowed addresses, latest
/// handshake, received, sent, keepalive.
fn read_peer(line: &str) -> Option<PeerState> {
    let mut fields = line.split('\t');
    let key = fields.next()?.parse().ok()?;
    let mut fields = fields.skip(1);
    let endpoint = fields.next()?.parse().ok();
    let mut fields = fields.skip(1);
    let handshake_secs = fields.next()?.parse().ok()?;
    Some(PeerState {
        key,
        endpoint,
        latest_handshake: (handshake_secs > 0)
            .then(|| UNIX_EPOCH + Duration::from_secs(handshake_secs)),
        received_bytes: fields.next()?.parse().ok()?,
        sent_bytes: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::public_key;

    #[test]
    fn a_peer_is_read_from_the_dump_of_wg() {
        let key = public_key(1);
        let line = format!("{key}\t(none)\t10.0.0.1:9\t100.64.0.17/32\t12\t34\t56\toff");
        let peer = read_peer(&line).unwrap();
        assert_eq!(peer.endpoint, Some("10.0.0.1:9".parse().unwrap()));
        assert_eq!(
            peer.latest_handshake,
            Some(UNIX_EPOCH + Duration::from_secs(12))
        );
        assert_eq!((peer.received_bytes, peer.sent_bytes), (34, 56));
    }

    #[test]
    fn a_peer_that_was_never_met_has_no_handshake() {
        let line = format!("{}\t(none)\t(none)\t(none)\t0\t0\t0\toff", public_key(1));
        let peer = read_peer(&line).unwrap();
        assert_eq!((peer.endpoint, peer.latest_handshake), (None, None));
    }
}
