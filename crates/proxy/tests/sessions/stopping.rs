//! Hosts that dial while the daemon that listens stops, as when it hands over to another.

use std::io::Write;
use std::net::TcpStream as Dialler;

use proxy::Transport;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::pair::{Pair, run};

#[test]
fn who_waits_to_be_accepted_when_a_host_stops_is_still_answered() {
    run(async {
        let pair = Pair::new(Transport::Tcp).await;
        let at = pair.called.ways.streams[0];
        // The kernel accepts them; nothing of the host runs meanwhile.
        let waiting: Vec<Dialler> = (0..20).map(|_| Dialler::connect(at).unwrap()).collect();
        pair.called.stop.send_replace(true);
        for mut dialler in waiting {
            dialler.write_all(b"this is no TLS").unwrap();
            dialler.set_nonblocking(true).unwrap();
            let mut dialler = TcpStream::from_std(dialler).unwrap();
            let mut alert = [0; 16];
            assert!(dialler.read(&mut alert).await.unwrap() > 0);
        }
        assert!(Dialler::connect(at).is_err(), "nobody listens any more");
    });
}
