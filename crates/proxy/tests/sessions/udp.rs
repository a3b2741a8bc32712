//! Which transport a stream goes by, and what is particular to QUIC.

use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt;
use proxy::{Acceptor, SessionError, Transport};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::pair::{Echo, Pair, Ways, nobody, run};

/// Makes a call, and returns what the one connection is over that there is then.
async fn transport(pair: &Pair) -> Transport {
    let answer = pair.call("/who").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let seen = pair.sessions.seen();
    assert_eq!((seen.len(), seen[0].connections), (1, 1), "{seen:?}");
    seen[0].transport
}

#[test]
fn where_tcp_is_refused_streams_go_by_quic() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        let ways = pair.called.ways.clone();
        pair.lead(ways.and(Transport::Tcp, nobody().await));
        assert_eq!(transport(&pair).await, Transport::Quic);
    });
}

#[test]
fn where_nothing_answers_to_tcp_streams_go_by_quic() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        // Nobody accepts, and there is no room to wait: the kernel answers to no SYN any more.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let silent = silent.unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        silent.bind(&any.into()).unwrap();
        silent.listen(0).unwrap();
        let at = silent.local_addr().unwrap().as_socket().unwrap();
        let _fills_it = std::net::TcpStream::connect(at).unwrap();
        let ways = pair.called.ways.clone();
        pair.lead(ways.and(Transport::Tcp, at));
        assert_eq!(transport(&pair).await, Transport::Quic);
    });
}

#[test]
fn where_both_pass_streams_go_by_tcp() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ways = pair.called.ways.clone();
        pair.lead(ways.and(Transport::Tcp, listener.local_addr().unwrap()));
        let (_stop, stopped) = watch::channel(false);
        let known = Arc::clone(&pair.called.snapshots);
        let acceptor = Acceptor::new(known, Rc::new(Echo), stopped);
        spawn_local(acceptor.serve(listener));
        assert_eq!(transport(&pair).await, Transport::Tcp);
    });
}

#[test]
fn who_answers_to_neither_is_told_of_with_both() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tcp, udp) = (nobody().await, silent.local_addr().unwrap());
        pair.lead(Ways::over(Transport::Tcp, tcp).and(Transport::Quic, udp));
        let error = pair.call("/who").await.unwrap_err();
        assert!(matches!(error, SessionError::Connect(_)), "{error}");
        let said = error.to_string();
        assert!(said.contains(&format!("TCP {tcp}: ")), "{said}");
        assert!(
            said.contains("nothing else answered within 500 ms"),
            "{said}"
        );
        // Where QUIC is all there is, it has its time.
        pair.lead(Ways::over(Transport::Quic, udp));
        pair.sessions.review();
        let error = pair.call("/who").await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains(&format!("UDP {udp}: no answer")), "{said}");
    });
}

#[test]
fn a_hundred_megabytes_pass() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        let mut body = pair.echo(5, 100 << 20).await.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(length, 100 << 20);
    });
}

#[test]
fn garbage_on_the_port_harms_nobody() {
    run(async {
        let pair = Pair::new(Transport::Quic).await;
        let to = pair.called.ways.datagrams[0];
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..2000_u32 {
            let first = [0x40, 0xc0, 0xd0, 0xe0, 0xf0][number as usize % 5];
            let mut datagram = vec![first, 0, 0, 0, 1, 8];
            datagram.extend(number.to_be_bytes().repeat(298));
            stranger.send_to(&datagram, to).unwrap();
        }
        assert_eq!(transport(&pair).await, Transport::Quic);
    });
}
