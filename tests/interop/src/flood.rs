//! A stranger who sends initiations without end, each with the MAC that proves that it knows whom
//! it talks to.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::{LabError, Namespace};
use model::key::WireguardKey;
use wireguard::{
    DataCipher, Initiation, KeyPair, PresharedKey, PrivateKey, PublicKey, Timestamp, Tunnel,
    TunnelConfig,
};

/// More than `wireguard-go` takes as a sign of load (a queue of 128), less than fills its queue.
const BURST: usize = 400;
const PAUSE: Duration = Duration::from_millis(20);

/// The flood, of 20,000 initiations a second; it ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Starts it from a namespace at the device whose key is `victim`.
    ///
    /// # Errors
    ///
    /// When the namespace gives no socket, or has no route there.
    pub fn start(from: &Namespace, victim: WireguardKey, at: SocketAddr) -> Result<Self, LabError> {
        let open = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(at)?;
            Ok(socket)
        };
        let opened: std::io::Result<UdpSocket> = from.inside(open)?;
        let socket =
            opened.map_err(|error| LabError::new(format!("cannot send to {at}: {error}")))?;
        let initiation = initiation_of_a_stranger(victim);
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                for _ in 0..BURST {
                    // What the network does not take is missed by nobody.
                    let _ = socket.send(&initiation);
                }
                thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the flood does not panic");
        }
    }
}

fn initiation_of_a_stranger(victim: WireguardKey) -> [u8; Initiation::LEN] {
    let now = Duration::from_secs(1);
    let mut tunnel = Tunnel::new(
        TunnelConfig {
            peer: PublicKey::from_bytes(*victim.as_bytes()),
            preshared_key: PresharedKey::default(),
            persistent_keepalive: None,
            cipher: DataCipher::default(),
            jitter_seed: 1,
        },
        now,
    );
    tunnel.request_handshake(now);
    let ephemeral = PrivateKey::from_bytes([0x55; 32]);
    let date = Timestamp::from_unix(now);
    let job = tunnel.begin_initiation(ephemeral, 1, date);
    let stranger = KeyPair::new(&PrivateKey::from_bytes([0x66; 32]));
    let created = job.run(&stranger).expect("the victim has a real key");
    tunnel
        .install_initiation(created, now)
        .expect("a handshake was asked for")
}
