//! Strangers who make connections and say nothing on them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use proxy::{Acceptor, SessionError, Sessions, Transport};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::pair::{Echo, Pair, Ways, datagrams, get, run, sessions};

/// As many silent connections as one machine may try, each of which has been accepted or closed.
async fn silence(at: SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    let last = silent.last_mut().unwrap();
    assert!(matches!(last.read(&mut [0]).await, Ok(0) | Err(_)));
    silent
}

#[test]
fn who_is_silent_keeps_no_other_machine_out() {
    run(async {
        let pair = Pair::new(Transport::Tcp).await;
        let _silent = silence(pair.called.ways.streams[0]).await;
        let error = pair.call("/who").await.unwrap_err();
        assert!(matches!(error, SessionError::Connect(_)), "{error}");
        let from_elsewhere = Rc::new(|_: SocketAddr| {
            let socket = TcpSocket::new_v4()?;
            socket.bind("127.0.1.1:0".parse().unwrap())?;
            Ok(socket)
        });
        let sessions = Sessions::new(Arc::clone(&pair.snapshots), from_elsewhere);
        let answer = sessions.request(pair.target.host, get("/who")).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn who_is_silent_over_tcp_keeps_nobody_from_quic() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        let (_stop, stopped) = watch::channel(false);
        let known = Arc::clone(&pair.called.snapshots);
        let acceptor = Acceptor::new(known, Rc::new(Echo), stopped);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        spawn_local(Rc::clone(&acceptor).serve(listener));
        let (datagrams, over_quic) = datagrams();
        spawn_local(acceptor.serve_datagrams(datagrams));
        let _silent = silence(at).await;
        pair.lead(Ways::over(Transport::Quic, over_quic));
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
    });
}

/// What so many diallers of QUIC send first, each under an id of its own.
async fn first_datagrams(pair: &Pair, count: usize) -> Vec<Vec<u8>> {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    pair.lead(Ways::over(Transport::Quic, nobody.local_addr().unwrap()));
    for _ in 0..count {
        let (sessions, host) = (sessions(&pair.snapshots), pair.target.host);
        spawn_local(async move { sessions.request(host, get("/who")).await.map(drop) });
    }
    let (mut first, mut datagram) = (BTreeMap::new(), [0; 2048]);
    while first.len() < count {
        let length = nobody.recv(&mut datagram).await.unwrap();
        // RFC 9000, 17.2: behind the flags and the version stands the id that it is to go to.
        let id = datagram[6..6 + usize::from(datagram[5])].to_vec();
        first.insert(id, datagram[..length].to_vec());
    }
    first.into_values().collect()
}

#[test]
fn who_begins_over_quic_under_false_addresses_keeps_nobody_out() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        let ways = pair.called.ways.clone();
        // Ten times the places of one machine for those who have not proven their address.
        for datagram in first_datagrams(&pair, 40).await {
            let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let sent = elsewhere.send_to(&datagram, ways.datagrams[0]).await;
            assert_eq!(sent.unwrap(), datagram.len());
        }
        pair.lead(ways);
        assert_eq!(pair.call("/who").await.unwrap().status(), StatusCode::OK);
    });
}
