//! A host that gets another key while it is being dialled.

use std::net::SocketAddr;
use std::rc::Rc;

use proxy::{SessionError, Transport};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::pair::{Pair, Ways, get, run, snapshot};

/// Brings what comes on a connection to an address, and back.
async fn relay(mut from: TcpStream, to: SocketAddr) {
    let mut to = TcpStream::connect(to).await.unwrap();
    let _ = copy_bidirectional(&mut from, &mut to).await;
}

#[test]
fn a_dial_under_way_when_the_key_changes_ends_in_no_connection_to_the_old_one() {
    run(async {
        let pair = Pair::new(Transport::Tcp).await;
        let real = pair.called.ways.streams[0];
        let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ways = Ways::over(Transport::Tcp, between.local_addr().unwrap());
        pair.lead(ways.clone());
        let (sessions, to) = (Rc::clone(&pair.sessions), pair.target.host);
        let calling = spawn_local(async move { sessions.request(to, get("/who")).await.map(drop) });
        let (under_way, _) = between.accept().await.unwrap();
        let mut renewed = pair.fleet.member(2);
        renewed.key = pair.fleet.member(9).key;
        let known = snapshot(&pair.fleet, &pair.caller, &[(&renewed, ways)]);
        pair.snapshots.replace(known);
        pair.sessions.review();
        spawn_local(async move {
            relay(under_way, real).await;
            while let Ok((again, _)) = between.accept().await {
                relay(again, real).await;
            }
        });
        let error = calling.await.unwrap().unwrap_err();
        assert!(matches!(error, SessionError::Untrusted(_)), "{error}");
        assert_eq!(pair.sessions.seen(), []);
    });
}
